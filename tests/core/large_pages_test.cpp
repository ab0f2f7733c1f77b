// SPDX-License-Identifier: Apache-2.0
#include <tern/core/large_pages.hpp>

#include <cstdint>
#include <cstring>

#include "catch.hpp"

namespace {

std::size_t alignment(void const* p) {
  auto const at = reinterpret_cast<std::uintptr_t>(p);
  return at & (~at + 1);
}

}  // namespace

TEST_CASE("memory is aligned to a cache line, and much memory to large pages") {
  using namespace tern::detail;
  for (std::size_t const bytes : {std::size_t{1}, std::size_t{4096}, large_page - 1}) {
    std::byte* const p = allocate(bytes);
    CHECK(alignment(p) >= 64);
    std::memset(p, 1, bytes);
    deallocate(p, bytes);
  }
  for (std::size_t const bytes : {large_page, 3 * large_page + 5}) {
    std::byte* const p = allocate(bytes);
    CHECK(alignment(p) >= large_page);
    std::memset(p, 1, bytes);
    deallocate(p, bytes);
  }
  deallocate(nullptr, 1);
}

TEST_CASE("more memory than there is gives null where that is asked for") {
  CHECK(tern::detail::try_allocate(std::size_t{1} << 62) == nullptr);
}

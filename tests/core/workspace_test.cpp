// SPDX-License-Identifier: Apache-2.0
#include <tern/core/policy.hpp>
#include <tern/core/workspace.hpp>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <thread>

#include "catch.hpp"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"  // gcc inlines one of the pair below
#endif

namespace {
thread_local int allocations = 0;
}

// Counts what a workspace takes; only aligned allocations, so that Catch2's own do not matter.
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  ++allocations;
  if (bytes > std::size_t{1} << 39) throw std::bad_alloc();  // sanitizers take a larger request for a bug of the program
  std::size_t const a = static_cast<std::size_t>(alignment);
  void* const p = std::aligned_alloc(a, (bytes + a - 1) / a * a + (bytes == 0 ? a : 0));
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
// As the standard has it, but not sanitizers.
void* operator new(std::size_t bytes, std::align_val_t alignment, std::nothrow_t const&) noexcept {
  try {
    return ::operator new(bytes, alignment);
  } catch (std::bad_alloc const&) {
    return nullptr;
  }
}
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

namespace tern::test {
namespace {

bool aligned(void const* p) { return reinterpret_cast<std::uintptr_t>(p) % workspace::alignment == 0; }

// A call of two kernels, one within the other, that write all they borrow.
void nested_call(workspace& w, std::size_t outer_bytes, std::size_t inner_bytes) {
  workspace::lease const outer(w, outer_bytes);
  std::memset(outer.data(), 1, outer_bytes);
  {
    workspace::lease const inner(w, inner_bytes);
    std::memset(inner.data(), 2, inner_bytes);
    workspace::lease const third(w, 64);
    std::memset(third.data(), 3, 64);
  }
  for (std::size_t i = 0; i < outer_bytes; ++i) REQUIRE(outer.data()[i] == std::byte{1});
}

}  // namespace

TEST_CASE("a workspace grows, and a repeated call allocates nothing") {
  workspace w;
  CHECK(w.capacity() == 0);
  for (std::size_t bytes : {1000u, 10u, 5000u}) {
    workspace::lease const l(w, bytes);
    CHECK(aligned(l.data()));
    std::memset(l.data(), 0, bytes);
  }
  CHECK(w.capacity() == 5056);
  int const before = allocations;
  for (int i = 0; i < 10; ++i) workspace::lease const l(w, 5000);
  CHECK(allocations == before);
}

TEST_CASE("nested leases settle: no allocation in steady state") {
  workspace w;
  nested_call(w, 100, 100000);
  int const before = allocations;
  for (int i = 0; i < 10; ++i) nested_call(w, 100, 100000);
  CHECK(allocations == before);
  nested_call(w, 300000, 10);  // larger: settles once more
  int const after = allocations;
  nested_call(w, 300000, 10);
  nested_call(w, 100, 100000);
  CHECK(allocations == after);
}

TEST_CASE("pieces of a large page or more begin with one") {
  constexpr std::size_t page = detail::large_page;
  for (std::size_t bytes : {page, page + 64, 3 * page}) {
    workspace w;
    workspace::lease const outer(w, bytes);
    workspace::lease const apart(w, bytes);
    CHECK(reinterpret_cast<std::uintptr_t>(outer.data()) % page == 0);
    CHECK(reinterpret_cast<std::uintptr_t>(apart.data()) % page == 0);
    std::memset(outer.data(), 1, bytes);
    std::memset(apart.data(), 2, bytes);
    CHECK(outer.data()[bytes - 1] == std::byte{1});
    CHECK(w.capacity() == bytes);
  }
}

TEST_CASE("a workspace with a reserve allocates nothing within it") {
  workspace w(4096);
  int const before = allocations;
  {
    workspace::lease const a(w, 1024), b(w, 3072);
    CHECK(b.data() == a.data() + 1024);
  }
  CHECK(allocations == before);
  { workspace::lease const c(w, 4097); }
  CHECK(allocations == before + 1);
}

TEST_CASE("the caller's memory is never exceeded") {
  alignas(64) std::byte memory[256];
  workspace w(memory, sizeof memory);
  CHECK(w.capacity() == 256);
  int const before = allocations;
  {
    workspace::lease const all(w, 256);
    CHECK(all.data() == memory);
    workspace::lease const nothing(w, 0);
    std::string message;
    try {
      workspace::lease const more(w, 1);
    } catch (error const& e) {
      message = e.what();
    }
    CHECK(message == "workspace: 0 bytes are left, expected at least 64");
  }
  CHECK_THROWS_AS(workspace::lease(w, 257), error);
  { workspace::lease const again(w, 250); }  // a failure costs nothing
  CHECK(allocations == before);

  workspace skewed(memory + 1, 128);  // the first 63 bytes go to the alignment
  CHECK(skewed.capacity() == 65);
  workspace tiny(memory + 1, 5);
  CHECK(tiny.capacity() == 0);
  CHECK_THROWS_AS(workspace::lease(tiny, 1), error);
}

TEST_CASE("a request that the system cannot meet leaves the workspace as it was") {
  workspace w;
  std::size_t const absurd = std::size_t{1} << 60;
  CHECK_THROWS_AS(workspace::lease(w, absurd), std::bad_alloc);
  {
    workspace::lease const outer(w, 1000);
    CHECK_THROWS_AS(workspace::lease(w, absurd), std::bad_alloc);
  }
  workspace::lease const l(w, 1000);
  std::memset(l.data(), 0, 1000);
  CHECK(w.capacity() == 1024);
}

TEST_CASE("empty leases are harmless") {
  workspace w;
  workspace::lease const a(w, 0);
  workspace::lease const b(w, 0);
  workspace::lease const c(w, 10);
  CHECK(aligned(c.data()));
}

TEST_CASE("each thread has a workspace of its own by default") {
  workspace* const mine = &cpu.scratch();
  CHECK(mine == &cpu.scratch());
  workspace* theirs = nullptr;
  std::thread([&] { theirs = &cpu.scratch(); }).join();
  CHECK(theirs != nullptr);
  CHECK(theirs != mine);
  workspace w;
  CHECK(&cpu.with(w).scratch() == &w);
}

}  // namespace tern::test

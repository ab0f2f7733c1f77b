// SPDX-License-Identifier: Apache-2.0
#include <tern/simd/stream.hpp>

#include "catch.hpp"
#include "compare.hpp"

namespace tern::test {

TEST_CASE("simd: stores past the caches write what stores write", "[simd]") {
  guarded<float> to(4 * simd::lanes);
  CHECK(simd::can_store_past(to.data()));
  CHECK_FALSE(simd::can_store_past(to.data() + 1));
  for (index i = 0; i < 4; ++i) simd::store_past(to.data() + i * simd::lanes, simd::iota<float>());
  simd::finish_stores_past();
  index wrong = 0;
  for (index i = 0; i < 4 * simd::lanes; ++i) wrong += !(to[i] == static_cast<float>(i % simd::lanes));
  CHECK(wrong == 0);
  CHECK(to.intact());
}

TEST_CASE("simd: lines copied past the caches are the same", "[simd]") {
  struct alignas(64) lines {
    std::uint8_t byte[256];
  } to;
  std::uint8_t from[256 + 3];
  for (index i = 0; i < 259; ++i) from[i] = static_cast<std::uint8_t>(7 * i + i / 64);
  for (std::uint8_t& x : to.byte) x = 0xa5;
  simd::copy_lines_past(reinterpret_cast<std::byte*>(to.byte) + 64, reinterpret_cast<std::byte const*>(from) + 3, 128);
  simd::finish_stores_past();
  index wrong = 0;
  for (index i = 0; i < 256; ++i) wrong += to.byte[i] != (i < 64 || i >= 192 ? 0xa5 : from[i - 64 + 3]);
  CHECK(wrong == 0);
}

}  // namespace tern::test

// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "compare.hpp"

#include <tern/simd/gather.hpp>

#include <cstring>

namespace tern::test {
namespace {

TEST_CASE("simd: gather takes the element of each lane's index") {
  rng r(1);
  guarded<float> table(r.normal<float>(77), 1);
  for (int repeat = 0; repeat < 50; ++repeat) {
    std::int32_t at[simd::lanes];
    float got[simd::lanes];
    for (auto& i : at) i = static_cast<std::int32_t>(r.integer(0, 76));
    if (repeat == 0) at[simd::lanes - 1] = 76;
    simd::store(static_cast<float*>(got), simd::gather(table.data(), simd::load(static_cast<std::int32_t const*>(at))));
    for (index i = 0; i < simd::lanes; ++i) CHECK(got[i] == table[at[i]]);
  }
}

TEST_CASE("simd: gather_words takes 4 bytes of each lane's address") {
  rng r(2);
  guarded<std::uint8_t> bytes(300, 1);
  for (index i = 0; i < 300; ++i) bytes.data()[i] = static_cast<std::uint8_t>(r.integer(0, 255));
  for (index offset : {0, 3, 40}) {
    std::uint8_t const* at[simd::lanes];
    std::int32_t got[simd::lanes];
    for (auto& p : at) p = bytes.data() + r.integer(0, 296 - static_cast<int>(offset));
    at[0] = bytes.data() + 296 - offset;  // the last bytes
    simd::store(static_cast<std::int32_t*>(got), simd::gather_words(at, offset));
    for (index i = 0; i < simd::lanes; ++i) CHECK(std::memcmp(got + i, at[i] + offset, 4) == 0);
  }
}

}  // namespace
}  // namespace tern::test

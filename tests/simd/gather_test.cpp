// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "compare.hpp"

#include <tern/simd/gather.hpp>

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

}  // namespace
}  // namespace tern::test

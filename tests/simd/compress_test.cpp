// SPDX-License-Identifier: Apache-2.0
#include "lanes.hpp"

#include "catch.hpp"

#include <tern/simd/compress.hpp>

namespace tern::test {
namespace {

TEST_CASE("simd: compress_store moves the chosen lanes together, mask_bits names them") {
  rng r(5);
  for (int repeat = 0; repeat < 400; ++repeat) {
    std::int32_t x[simd::lanes], chosen[simd::lanes];
    std::uint32_t want_bits = 0;
    std::vector<std::int32_t> want;
    for (index i = 0; i < simd::lanes; ++i) {
      x[i] = static_cast<std::int32_t>(r.integer(-1000, 1000));
      chosen[i] = repeat == 0 ? 0 : repeat == 1 ? 1 : static_cast<std::int32_t>(r.integer(0, 1));
      if (chosen[i] == 0) continue;
      want_bits |= 1u << i;
      want.push_back(x[i]);
    }
    auto const m = simd::load(static_cast<std::int32_t const*>(chosen)) > simd::pack<std::int32_t>(0);
    guarded<std::int32_t> got(simd::lanes, repeat % 3);
    index const count = simd::compress_store(got.data(), simd::load(static_cast<std::int32_t const*>(x)), m);
    CHECK(std::vector<std::int32_t>(got.data(), got.data() + count) == want);
    CHECK(got.intact());
    CHECK(simd::mask_bits(m) == want_bits);
  }
}

}  // namespace
}  // namespace tern::test

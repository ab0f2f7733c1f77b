// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "lanes.hpp"

#include <tern/simd/popcount.hpp>

#include <bit>

namespace {
using namespace tern::test;
using tern::simd::pack;
namespace simd = tern::simd;

bool counts_right(pack<std::int32_t> got, lane_array<std::int32_t> const& acc, lane_array<std::uint8_t> const& bits) {
  auto const lane = lanes_of(got);
  for (std::size_t i = 0; i < lane.size(); ++i) {
    int ones = 0;
    for (std::size_t j = 0; j < 4; ++j) ones += std::popcount(bits[4 * i + j]);
    if (lane[i] != acc[i] + ones) return false;
  }
  return true;
}
}  // namespace

TEST_CASE("popcount: every byte in every place, and sums go on", "[simd]") {
  auto const acc = lanes_of(make_pack<std::int32_t>([](tern::index i) { return 1000 * i - 3000; }));
  for (int byte = 0; byte < 256; ++byte)
    for (std::size_t place = 0; place < 4; ++place) {
      lane_array<std::uint8_t> bits;
      for (std::size_t i = 0; i < bits.size(); ++i)
        bits[i] = static_cast<std::uint8_t>(i % 4 == place ? byte : 255 - byte + static_cast<int>(i / 4));
      REQUIRE(counts_right(simd::count_bits(pack_of<std::int32_t>(acc), pack_of<std::uint8_t>(bits)), acc, bits));
    }
  rng r(131);
  lane_array<std::uint8_t> bits;
  for (int repeat = 0; repeat < 1000; ++repeat) {
    for (auto& b : bits) b = static_cast<std::uint8_t>(r.bits());
    REQUIRE(counts_right(simd::count_bits(pack_of<std::int32_t>(acc), pack_of<std::uint8_t>(bits)), acc, bits));
  }
  bits.fill(255);
  CHECK(counts_right(simd::count_bits(pack_of<std::int32_t>(acc), pack_of<std::uint8_t>(bits)), acc, bits));
}

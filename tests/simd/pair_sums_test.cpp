// SPDX-License-Identifier: Apache-2.0
// Sums of pairs of products in 16-bit lanes against integer loops.
#include "catch.hpp"
#include "lanes.hpp"

#include <tern/simd/pair_sums.hpp>

#include <array>
#include <cstring>

namespace {
using namespace tern::test;
using tern::simd::lanes;
namespace simd = tern::simd;
using s16 = std::int16_t;
using s32 = std::int32_t;
using u8 = std::uint8_t;
using s8 = std::int8_t;
using size = std::size_t;
constexpr size words = 2 * static_cast<size>(lanes);

std::array<s16, words> words_of(simd::pack_of_words x) {
  std::array<s16, words> lane;
  static_assert(sizeof x == sizeof lane);
  std::memcpy(lane.data(), &x, sizeof lane);
  return lane;
}

TEST_CASE("pairs of products are added to 16-bit lanes") {
  rng r(3);
  for (int repeat = 0; repeat < 500; ++repeat) {
    lane_array<u8> a;
    lane_array<s8> b;
    bool const wide = repeat % 2 == 0;  // all signed bytes, or all unsigned ones with codes of 4 bits
    simd::pack_of_words sum = simd::no_words();
    std::array<s32, words> want{};
    for (int step = 0; step < (wide ? 1 : 4); ++step) {
      for (size i = 0; i < a.size(); ++i) {
        a[i] = static_cast<u8>(repeat < 4 ? (wide ? 127 : 255) : r.integer(0, wide ? 127 : 255));
        b[i] = static_cast<s8>(repeat < 4 ? (wide ? -128 : repeat == 1 ? 15 : -16) : r.integer(wide ? -128 : -16, wide ? 127 : 15));
        want[i / 2] += a[i] * b[i];
      }
      sum = simd::add_byte_pairs(sum, pack_of<u8>(a), pack_of<s8>(b));
    }
    auto const got = words_of(sum);
    for (size i = 0; i < words; ++i) REQUIRE(got[i] == want[i]);
    lane_array<s32> base;
    for (auto& x : base) x = static_cast<s32>(r.integer(-1000000, 1000000));
    auto const total = lanes_of(simd::add_words(pack_of<s32>(base), sum));
    for (size i = 0; i < total.size(); ++i) REQUIRE(total[i] == base[i] + want[2 * i] + want[2 * i + 1]);
  }
}

TEST_CASE("bytes widen to 16 bits, and their products are added to 32") {
  rng r(4);
  for (int repeat = 0; repeat < 500; ++repeat) {
    lane_array<s8> a;
    for (auto& x : a) x = static_cast<s8>(r.integer(-128, 127));
    auto const even = words_of(simd::even_words(pack_of<s8>(a))), odd = words_of(simd::odd_words(pack_of<s8>(a)));
    int const low = static_cast<int>(r.integer(-32768, 32767)), high = static_cast<int>(r.integer(0, 255));
    auto const bits = (static_cast<std::uint32_t>(high) << 16) | (static_cast<std::uint32_t>(low) & 0xffffu);
    auto const two = simd::splat_words(static_cast<s32>(bits));
    auto const sum = lanes_of(simd::add_word_products(simd::pack<s32>(repeat), simd::even_words(pack_of<s8>(a)), two));
    for (size i = 0; i < words; ++i) {
      REQUIRE(even[i] == a[2 * i]);
      REQUIRE(odd[i] == a[2 * i + 1]);
      REQUIRE(words_of(two)[i] == (i % 2 == 0 ? low : high));
    }
    for (size i = 0; i < sum.size(); ++i) REQUIRE(sum[i] == repeat + even[2 * i] * low + even[2 * i + 1] * high);
  }
}
}  // namespace

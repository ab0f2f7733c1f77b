// SPDX-License-Identifier: Apache-2.0
// Rounding to bf16 and to bytes against the scalar types, in the orders that dot products take.
#include "catch.hpp"
#include "lanes.hpp"

#include <tern/simd/narrow.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <iterator>
#include <limits>
#include <vector>

namespace {
using namespace tern::test;
using tern::bf16;
using tern::simd::lanes;
using tern::simd::pack;
namespace simd = tern::simd;
using s32 = std::int32_t;

constexpr auto W = static_cast<std::size_t>(lanes);

/// Ties, both signs, both ends, and what has no neighbor.
std::vector<float> inputs() {
  std::vector<float> x;
  for (std::uint32_t const bits : {0x3f800000u, 0x3f808000u, 0x3f818000u, 0x3f808001u, 0x3f807fffu, 0x7f7fffffu, 0x7f800000u, 0x7fc00000u,
                                   0x00800000u, 0u, 0x42fe1234u})
    for (std::uint32_t const sign : {0u, 0x80000000u}) x.push_back(std::bit_cast<float>(bits | sign));
  rng r(5);
  while (x.size() % (2 * W) != 0 || x.size() < 40 * W) x.push_back(static_cast<float>(r.normal()));
  return x;
}
bool same(bf16 a, float x) { return std::isnan(x) ? std::isnan(static_cast<float>(a)) : a.bits == bf16(x).bits; }
}  // namespace

TEST_CASE("narrow_pairs rounds each half as bf16 does", "[simd]") {
  auto const rounds = [](bf16 to, float from) {
    bool const zero = simd::has_bf16_dot && std::abs(from) < std::numeric_limits<float>::min() && float{to} == 0.f &&
                      std::signbit(float{to}) == std::signbit(from);
    return to.bits == bf16(from).bits || zero;
  };
  // Ties, carries into the exponent, subnormals, infinity, and NaN whose payload is in the bits that are dropped.
  std::uint32_t const bits[] = {0x3f808000, 0x3f818000, 0x3f7fffff, 0x7f7fffff, 0x00000001, 0x007fffff, 0x7f800000, 0xff800000,
                                0x7f800001, 0xffffffff, 0x7fffe000, 0x80000000, 0x3f807fff, 0xbf808001, 0x00018000, 0x42280000};
  for (std::size_t shift = 0; shift < std::size(bits); ++shift) {
    auto const at = [&](tern::index i) { return std::bit_cast<float>(bits[(static_cast<std::size_t>(i) + shift) % std::size(bits)]); };
    auto const a = make_pack<float>(at), b = make_pack<float>([&](tern::index i) { return at(3 * i + 1); });
    auto const pairs = lanes_of(simd::narrow_pairs(a, b));
    for (tern::index i = 0; i < lanes; ++i) {
      CHECK(rounds(pairs[static_cast<std::size_t>(2 * i)], at(i)));
      CHECK(rounds(pairs[static_cast<std::size_t>(2 * i + 1)], at(3 * i + 1)));
    }
  }
}

TEST_CASE("narrow rounds two packs in order", "[simd]") {
  auto const x = inputs();
  for (std::size_t i = 0; i < x.size(); i += 2 * W) {
    auto const got = lanes_of(simd::narrow(simd::load(x.data() + i), simd::load(x.data() + i + W)));
    for (std::size_t j = 0; j < 2 * W; ++j) CHECK(same(got[j], x[i + j]));
  }
}

TEST_CASE("join_pairs takes two packs of bf16 in turn", "[simd]") {
  auto x = inputs();
  for (float& e : x) e = static_cast<float>(bf16(e));
  for (std::size_t i = 0; i < x.size(); i += 2 * W) {
    auto const got = lanes_of(simd::join_pairs(simd::load(x.data() + i), simd::load(x.data() + i + W)));
    for (std::size_t j = 0; j < W; ++j) {
      CHECK(same(got[2 * j], x[i + j]));
      CHECK(same(got[2 * j + 1], x[i + W + j]));
    }
  }
}

TEST_CASE("join_bytes takes four packs in turn, clamped", "[simd]") {
  rng r(6);
  for (int repeat = 0; repeat < 20; ++repeat) {
    pack<s32> a[4];
    lane_array<s32> lane[4];
    for (int j = 0; j < 4; ++j) {
      a[j] = make_pack<s32>([&](tern::index) { return r.integer(-40000, 40000) / (repeat % 2 == 0 ? 1 : 300); });
      lane[j] = lanes_of(a[j]);
    }
    auto const got = lanes_of(simd::join_bytes(a));
    for (std::size_t i = 0; i < W; ++i)
      for (std::size_t j = 0; j < 4; ++j) CHECK(s32{got[4 * i + j]} == std::clamp(lane[j][i], -128, 127));
  }
}

TEST_CASE("dot_sums add up as packs do", "[simd]") {
  rng r(7);
  auto const a = make_pack<std::uint8_t>([&](tern::index) { return r.integer(0, 255); });
  auto const b = make_pack<std::int8_t>([&](tern::index) { return r.integer(-128, 127); });
  auto const start = make_pack<s32>([&](tern::index) { return r.integer(-100000, 100000); });
  simd::dot_sums const sums = simd::dot(simd::dot(simd::as_dot_sums(start), a, b), a, b);
  CHECK(lanes_of(simd::to_pack(sums)) == lanes_of(simd::dot(simd::dot(start, a, b), a, b)));
}

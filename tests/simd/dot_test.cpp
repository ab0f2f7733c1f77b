// SPDX-License-Identifier: Apache-2.0
// Dot products of bytes against integer loops, of bf16 against their definition; the bytes of packs.
#include "catch.hpp"
#include "lanes.hpp"

#include <tern/simd/dot.hpp>

#include <bit>
#include <cmath>
#include <cstring>
#include <iterator>
#include <vector>

namespace {
using namespace tern::test;
using tern::bf16;
using tern::simd::lanes;
using tern::simd::pack;
namespace simd = tern::simd;
using size = tern::index;
using s32 = std::int32_t;
using u8 = std::uint8_t;
using s8 = std::int8_t;

template <class A>
bool dot_is_exact(pack<s32> got, lane_array<s32> const& acc, lane_array<A> const& a, lane_array<s8> const& b) {
  auto const lane = lanes_of(got);
  for (std::size_t i = 0; i < lane.size(); ++i) {
    std::int64_t sum = acc[i];
    for (std::size_t j = 0; j < 4; ++j) sum += std::int64_t{a[4 * i + j]} * b[4 * i + j];
    if (lane[i] != static_cast<s32>(static_cast<std::uint32_t>(sum))) {
      UNSCOPED_INFO("lane " << i << ": got " << lane[i] << ", want " << sum);
      return false;
    }
  }
  return true;
}

/// Calls check(a, b) with operands in [low, high]: all pairs of extremes in all four places, then random ones.
template <class A, class Check>
bool each_operands(int a_low, int a_high, int b_low, int b_high, Check check) {
  std::vector<int> const as{a_low, a_low + 1, 0, 1, a_high / 2, a_high - 1, a_high}, bs{b_low, b_low + 1, -1, 0, 1, b_high - 1, b_high};
  lane_array<A> a;
  lane_array<s8> b;
  for (int x0 : as)
    for (int y0 : bs)
      for (int x1 : as)
        for (int y1 : bs)
          for (std::size_t period : {2u, 4u}) {
            for (std::size_t i = 0; i < a.size(); ++i) {
              bool const one = i % period < period / 2;
              a[i] = static_cast<A>(one ? x0 : x1);
              b[i] = static_cast<s8>(one ? y0 : y1);
            }
            if (!check(a, b)) return false;
          }
  rng r(11);
  for (int repeat = 0; repeat < 2000; ++repeat) {
    for (std::size_t i = 0; i < a.size(); ++i) {
      a[i] = static_cast<A>(r.integer(a_low, a_high));
      b[i] = static_cast<s8>(r.integer(b_low, b_high));
    }
    if (!check(a, b)) return false;
  }
  return true;
}
lane_array<s32> some_sums() {
  return lanes_of(make_pack<s32>([](size i) { return (i % 2 == 0 ? 1 : -1) * (s32{1000003} * static_cast<s32>(i + 1)); }));
}
}  // namespace

TEST_CASE("dot: u8 by s8 is exact", "[simd]") {
  auto const acc = some_sums();
  CHECK(each_operands<u8>(0, 255, -128, 127, [&](auto const& a, auto const& b) {
    return dot_is_exact(simd::dot(pack_of<s32>(acc), pack_of<u8>(a), pack_of<s8>(b)), acc, a, b);
  }));
}
TEST_CASE("dot: s8 by s8 is exact, -128 included", "[simd]") {
  auto const acc = some_sums();
  CHECK(each_operands<s8>(-128, 127, -128, 127, [&](auto const& a, auto const& b) {
    return dot_is_exact(simd::dot(pack_of<s32>(acc), pack_of<s8>(a), pack_of<s8>(b)), acc, a, b);
  }));
}
TEST_CASE("dot: the restricted forms are exact in their ranges", "[simd]") {
  auto const acc = some_sums();
  CHECK(each_operands<u8>(0, 127, -128, 127, [&](auto const& a, auto const& b) {
    return dot_is_exact(simd::dot7(pack_of<s32>(acc), pack_of<u8>(a), pack_of<s8>(b)), acc, a, b);
  }));
  CHECK(each_operands<s8>(-128, 127, -127, 127, [&](auto const& a, auto const& b) {
    return dot_is_exact(simd::dot127(pack_of<s32>(acc), pack_of<s8>(a), pack_of<s8>(b)), acc, a, b) &&
           dot_is_exact(simd::dot127(pack_of<s32>(acc), simd::signed_factor(pack_of<s8>(a)), pack_of<s8>(b)), acc, a, b);
  }));
}
TEST_CASE("dot: sums wrap and do not saturate", "[simd]") {
  lane_array<s32> acc;
  acc.fill(0x7ffffff0);
  lane_array<u8> a;
  lane_array<s8> b;
  a.fill(255);
  b.fill(127);
  CHECK(dot_is_exact(simd::dot(pack_of<s32>(acc), pack_of<u8>(a), pack_of<s8>(b)), acc, a, b));
  lane_array<s8> c;
  c.fill(127);
  CHECK(dot_is_exact(simd::dot(pack_of<s32>(acc), pack_of<s8>(c), pack_of<s8>(b)), acc, c, b));
}

TEST_CASE("dot: bf16 multiplies exactly and rounds each sum once", "[simd]") {
  rng r(12);
  bool good = true;
  for (int repeat = 0; repeat < 5000; ++repeat) {
    double const scale = std::ldexp(1.0, static_cast<int>(r.integer(-30, 30)));
    auto value = [&](size) { return static_cast<float>((2 * r.uniform() - 1) * scale); };
    auto const a = make_pack<bf16>(value), b = make_pack<bf16>(value);
    auto const acc = make_pack<float>([&](size) { return static_cast<float>((2 * r.uniform() - 1) * scale * scale); });
    auto const x = lanes_of(a), y = lanes_of(b);
    auto const before = lanes_of(acc), after = lanes_of(simd::dot(acc, a, b));
    for (std::size_t i = 0; i < after.size(); ++i) {
      float const want = std::fma(float{x[2 * i]}, float{y[2 * i]}, std::fma(float{x[2 * i + 1]}, float{y[2 * i + 1]}, before[i]));
      good &= after[i] == want;
    }
  }
  CHECK(good);
  // NaN and infinity pass; subnormal operands may be taken as zero, and nothing worse.
  auto first = [](float acc, float a, float b) {
    return lanes_of(simd::dot(pack<float>(acc), pack<bf16>(bf16(a)), pack<bf16>(bf16(b))))[0];
  };
  float const infinity = std::numeric_limits<float>::infinity();
  CHECK(first(1.f, infinity, 1.f) == infinity);
  CHECK(std::isnan(first(1.f, infinity, 0.f)));
  CHECK(std::isnan(first(std::numeric_limits<float>::quiet_NaN(), 1.f, 0.f)));
  float const tiny = first(0.f, 0x1p-130f, 0x1p10f);
  CHECK((tiny == 0.f || tiny == 0x1p-119f));
}

TEST_CASE("bytes: fields, shifts, logic and sums", "[simd]") {
  auto const all = make_pack<u8>([](size i) { return 37 * i + 11; });
  auto const other = make_pack<u8>([](size i) { return 101 * i + 5; });
  auto const x = lanes_of(all), y = lanes_of(other);
  auto const low = lanes_of(all & pack<u8>(15)), high = lanes_of(simd::shift_right<4>(all)), up = lanes_of(simd::shift_left<4>(all));
  auto const both = lanes_of(all | other), differ = lanes_of(all ^ other), top = lanes_of(simd::shift_right<7>(all));
  for (std::size_t i = 0; i < x.size(); ++i) {
    CHECK(low[i] == (x[i] & 15));
    CHECK(high[i] == x[i] >> 4);
    CHECK(up[i] == static_cast<u8>(x[i] << 4));
    CHECK(top[i] == x[i] >> 7);
    CHECK(both[i] == (x[i] | y[i]));
    CHECK(differ[i] == (x[i] ^ y[i]));
  }
  auto const sum = lanes_of(simd::add_bytes(all, other)), mean = lanes_of(simd::mean_bytes(all, other));
  for (std::size_t i = 0; i < x.size(); ++i) {
    CHECK(sum[i] == static_cast<u8>(x[i] + y[i]));
    CHECK(mean[i] == (x[i] + y[i] + 1) / 2);
  }
  auto const flipped = lanes_of(simd::bit_cast<s8>(all) ^ pack<s8>(s8{-128}));
  for (std::size_t i = 0; i < x.size(); ++i) CHECK(flipped[i] == static_cast<s8>(x[i] - 128));
}

TEST_CASE("bytes: bits move up and down, and those that are moved in are not looked at", "[simd]") {
  std::int32_t words[lanes];
  for (size i = 0; i < lanes; ++i) words[i] = static_cast<std::int32_t>(0x9e3779b9u * static_cast<std::uint32_t>(i + 3));
  auto const x = simd::load(static_cast<std::int32_t const*>(words));
  for (int n = -31; n <= 31; ++n) {
    std::uint32_t const kept = n < 0 ? ~0u >> -n : ~0u << n;
    auto const got = lanes_of(simd::move_bits(x, n));
    for (std::size_t i = 0; i < got.size(); ++i) {
      auto const w = static_cast<std::uint32_t>(words[i]);
      CHECK((static_cast<std::uint32_t>(got[i]) & kept) == (n < 0 ? w >> -n : w << n));
    }
  }
}

TEST_CASE("bytes: groups repeat in memory order, pairs of bf16 split", "[simd]") {
  s8 const group[] = {1, -2, 3, -128};
  auto const x = lanes_of(simd::splat4(static_cast<s8 const*>(group)));
  s32 packed;
  std::memcpy(&packed, group, 4);
  CHECK(lanes_of(simd::splat4<s8>(packed)) == x);
  for (std::size_t i = 0; i < x.size(); ++i) CHECK(x[i] == group[i % 4]);
  auto const values = make_pack<bf16>([](size i) { return static_cast<float>(i) - 3.5f; });
  auto const even = lanes_of(simd::even(values)), odd = lanes_of(simd::odd(values));
  bf16 const pair[] = {bf16(1.5f), bf16(-2.f)};
  auto const twice = lanes_of(simd::splat2(pair));
  for (std::size_t i = 0; i < even.size(); ++i) {
    CHECK(even[i] == float{lanes_of(values)[2 * i]});
    CHECK(odd[i] == float{lanes_of(values)[2 * i + 1]});
    CHECK(float{twice[2 * i]} == 1.5f);
    CHECK(float{twice[2 * i + 1]} == -2.f);
  }
}

TEST_CASE("bytes: load_narrow_n and store_n of bf16 touch n elements", "[simd]") {
  for (size n = 0; n <= 2 * lanes; ++n) {
    at_page_end<bf16> memory(n);
    for (size i = 0; i < n; ++i) memory.data()[i] = bf16(static_cast<float>(i + 1));
    auto const x = simd::load_narrow_n(static_cast<bf16 const*>(memory.data()), n);
    for (size i = 0; i < 2 * lanes; ++i)
      CHECK(float{lanes_of(x)[static_cast<std::size_t>(i)]} == (i < n ? static_cast<float>(i + 1) : 0.f));
    guarded<bf16> out(n, 1);
    simd::store_n(out.data(), x, n);
    CHECK(out.intact());
    for (size i = 0; i < n; ++i) CHECK(float{out[i]} == static_cast<float>(i + 1));
  }
}

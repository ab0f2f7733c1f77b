// SPDX-License-Identifier: Apache-2.0
// Codes of a few bits.
#include "catch.hpp"
#include "lanes.hpp"

#include <tern/simd/codes.hpp>

#include <cmath>

namespace {
using namespace tern::test;
using tern::simd::lanes;
using tern::simd::pack;
namespace simd = tern::simd;
using size = tern::index;

/// Code i of `bits` bits, a bit at a time.
int code_at(std::uint8_t const* p, int bits, size i) {
  int code = 0;
  for (int b = 0; b < bits; ++b) code |= (p[(bits * i + b) / 8] >> (bits * i + b) % 8 & 1) << b;
  return code;
}
template <int bits>
void check_unpacked() {
  rng r(bits);
  at_page_end<std::uint8_t> packed(4 * bits);
  for (int i = 0; i < 4 * bits; ++i) packed.data()[i] = static_cast<std::uint8_t>(r.bits());
  std::uint8_t u[33] = {};
  u[32] = 77;
  simd::unpack_codes<bits>(packed.data(), u);
  for (int i = 0; i < 32; ++i) CHECK(u[i] == code_at(packed.data(), bits, i));
  CHECK(u[32] == 77);
}
template <int bits, int shift>
void check_spread() {
  rng r(bits);
  auto const words = make_pack<std::int32_t>([&](size) { return static_cast<std::int32_t>(static_cast<std::uint32_t>(r.bits())); });
  auto const word = lanes_of(words);
  auto const u = lanes_of(simd::spread_codes<bits, shift>(words));
  for (std::size_t i = 0; i < u.size(); ++i)
    CHECK(u[i] == (static_cast<std::uint32_t>(word[i / 4]) >> (shift + bits * static_cast<int>(i % 4)) & ((1u << bits) - 1)));
}
template <int first, int at>
void check_spread_bits() {
  rng r(first);
  auto const words = make_pack<std::int32_t>([&](size) { return static_cast<std::int32_t>(static_cast<std::uint32_t>(r.bits())); });
  auto const word = lanes_of(words);
  auto const bit = [&](std::size_t lane, std::size_t n) { return static_cast<std::uint32_t>(word[lane]) >> n & 1u; };
  auto const u = lanes_of(simd::spread_bits<first, at>(words));
  for (std::size_t i = 0; i < u.size(); ++i) CHECK(u[i] == bit(i / 4, first + i % 4) << at);
  if constexpr (first + 16 <= 32 && simd::lanes % 4 == 0) {
    auto const sixteen = lanes_of(simd::spread_bits16<first, at, first % 4>(words));
    for (std::size_t i = 0; i < sixteen.size(); ++i) CHECK(sixteen[i] == bit(i / 16 * 4 + first % 4, first + i % 16) << at);
  }
}
template <int bits>
void check_bits() {
  INFO(bits << " bits");
  check_unpacked<bits>();
  check_spread<bits, 0>();
  check_spread<bits, 32 - 4 * bits>();
}
}  // namespace

TEST_CASE("codes: bits of words become bits of bytes", "[simd]") {
  check_spread_bits<0, 4>();
  check_spread_bits<3, 0>();
  check_spread_bits<14, 6>();
  check_spread_bits<16, 4>();
  check_spread_bits<28, 7>();
}
TEST_CASE("codes: bits side by side become bytes", "[simd]") {
  check_bits<1>();
  check_bits<2>();
  check_bits<3>();
  check_bits<4>();
  check_bits<5>();
  check_bits<6>();
  check_bits<7>();
  check_bits<8>();
  check_spread<1, 12>();
  check_spread<3, 7>();
  check_spread<5, 9>();
}

TEST_CASE("codes: tables of 64 bytes", "[simd]") {
  std::uint8_t entries[64];
  for (int i = 0; i < 64; ++i) entries[i] = static_cast<std::uint8_t>(255 - 3 * i);
  auto const table = simd::load_table64(entries);
  for (int first = 0; first < 64; first += static_cast<int>(pack<std::uint8_t>::size)) {
    auto const which = make_pack<std::uint8_t>([&](size i) { return (first + 5 * i) % 64; });
    auto const found = lanes_of(simd::lookup(table, which));
    for (std::size_t i = 0; i < found.size(); ++i) CHECK(found[i] == entries[lanes_of(which)[i]]);
  }
}

#if defined(__F16C__)
namespace {
template <int y, bool nan>
void check_small_floats() {
  static_assert(simd::has_small_floats == (lanes >= 8));
  std::uint8_t codes[256];
  for (int c = 0; c < 256; ++c) codes[c] = static_cast<std::uint8_t>(c);
  for (int first = 0; simd::has_small_floats && first < 256; first += static_cast<int>(lanes)) {
    auto const got = lanes_of(simd::widen_small_floats<y, nan>(codes + first));
    for (std::size_t i = 0; i < got.size(); ++i) {
      int const code = first + static_cast<int>(i), e = code >> y & ((1 << (7 - y)) - 1), m = code & ((1 << y) - 1);
      double const magnitude = e == 0 ? m * std::pow(2., -14 - y) : (1 + m * std::pow(2., -y)) * std::pow(2., e - 15);
      INFO("code " << code);
      if ((nan && (code & 127) == 127) || (y == 2 && e == 31 && m > 0)) {
        CHECK(std::isnan(got[i]));
      } else if (y == 2 && e == 31) {
        CHECK(std::isinf(got[i]));
      } else {
        CHECK(static_cast<double>(got[i]) == (code > 127 ? -magnitude : magnitude));
      }
      if (!std::isnan(got[i])) CHECK(std::signbit(got[i]) == (code > 127));
    }
  }
}
}  // namespace

TEST_CASE("codes: floats of eight bits", "[simd]") {
  check_small_floats<2, false>();
  check_small_floats<3, true>();
  check_small_floats<3, false>();
  check_small_floats<4, false>();
  check_small_floats<6, false>();
}
#endif

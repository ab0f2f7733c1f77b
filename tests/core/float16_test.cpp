// SPDX-License-Identifier: Apache-2.0
#include <tern/core/float16.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstdint>
#include <limits>

#include "catch.hpp"
#include "compare.hpp"

namespace tern::test {
namespace {

std::uint32_t bits_of(float x) { return std::bit_cast<std::uint32_t>(x); }

// The value of 16 bits by the definition of the format, in double.
double by_definition(std::uint32_t bits, int exponent_bits, int fraction_bits) {
  int const bias = (1 << (exponent_bits - 1)) - 1;
  int const exponent = static_cast<int>(bits >> fraction_bits) & ((1 << exponent_bits) - 1);
  int const fraction = static_cast<int>(bits) & ((1 << fraction_bits) - 1);
  double const sign = (bits & 0x8000u) != 0 ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1) return fraction != 0 ? std::nan("") : sign * std::numeric_limits<double>::infinity();
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias - fraction_bits);
  return sign * std::ldexp(fraction + (1 << fraction_bits), exponent - bias - fraction_bits);
}

// Counts the 16-bit patterns that do not convert to f32 as defined, or do not come back from there.
template <class T>
int wrong_patterns(int exponent_bits, int fraction_bits) {
  int wrong = 0;
  for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) {
    T const x = T::from_bits(static_cast<std::uint16_t>(bits));
    float const f = x;
    double const want = by_definition(bits, exponent_bits, fraction_bits);
    if (std::isnan(want)) {
      wrong += !(std::isnan(f) && std::isnan(float(T(f))) && (bits_of(f) >> 31) == (bits >> 15));
    } else {
      wrong += !(static_cast<double>(f) == want && std::signbit(f) == std::signbit(want) && T(f).bits == bits);
    }
  }
  return wrong;
}

// Between two neighbours a < b: what lies below the middle goes to a, above to b, and the middle to the even one.
template <class T>
int wrong_roundings(std::uint32_t first_infinite) {
  int wrong = 0;
  for (std::uint32_t bits = 0; bits + 1 < first_infinite; ++bits) {
    T const low = T::from_bits(static_cast<std::uint16_t>(bits)), high = T::from_bits(static_cast<std::uint16_t>(bits + 1));
    float const middle = static_cast<float>((double(float(low)) + double(float(high))) / 2);
    std::uint32_t const even = bits % 2 == 0 ? bits : bits + 1;
    float const below = std::nextafter(middle, 0.f), above = std::nextafter(middle, std::numeric_limits<float>::infinity());
    if (double(middle) * 2 != double(float(low)) + double(float(high))) continue;  // bf16 subnormals' middles need more than f32
    wrong += T(middle).bits != even || T(-middle).bits != (even | 0x8000u);
    wrong += T(below).bits != bits || T(above).bits != bits + 1;
    wrong += T(-below).bits != (bits | 0x8000u) || T(-above).bits != ((bits + 1) | 0x8000u);
  }
  return wrong;
}

}  // namespace

TEST_CASE("every f16 and bf16 pattern is what the format defines, and comes back from f32") {
  CHECK(wrong_patterns<f16>(5, 10) == 0);
  CHECK(wrong_patterns<bf16>(8, 7) == 0);
}

TEST_CASE("f32 is rounded to nearest, ties to even, between all neighbours") {
  CHECK(wrong_roundings<f16>(0x7c00) == 0);
  CHECK(wrong_roundings<bf16>(0x7f80) == 0);
}

TEST_CASE("large values become infinite, NaN stays NaN") {
  float const inf = std::numeric_limits<float>::infinity();
  CHECK(f16(65504.f).bits == 0x7bff);
  CHECK(f16(65519.996f).bits == 0x7bff);
  CHECK(f16(65520.f).bits == 0x7c00);
  CHECK(f16(-1e10f).bits == 0xfc00);
  CHECK(f16(inf).bits == 0x7c00);
  CHECK(bf16(std::numeric_limits<float>::max()).bits == 0x7f80);
  CHECK(bf16(-inf).bits == 0xff80);
  CHECK(f16(0x1p-25f).bits == 0);
  CHECK(f16(0x1.000002p-25f).bits == 1);
  CHECK(f16(-0.f).bits == 0x8000);
  for (std::uint32_t payload : {0x7f800001u, 0x7f802000u, 0x7fc00000u, 0xff800001u, 0xffffffffu}) {
    float const nan = std::bit_cast<float>(payload);
    CHECK(std::isnan(float(f16(nan))));
    CHECK(std::isnan(float(bf16(nan))));
    CHECK((f16(nan).bits >> 15) == payload >> 31);
    CHECK((f16(nan).bits & 0x200) != 0);  // quiet
    CHECK((bf16(nan).bits & 0x40) != 0);
  }
}

TEST_CASE("conversions agree with Eigen's, bit for bit") {
  rng r(11);
  int wrong = 0;
  auto const check = [&](float x) {
    if (std::isnan(x)) return;  // Eigen drops the payload on some machines
    wrong += f16(x).bits != Eigen::numext::bit_cast<std::uint16_t>(Eigen::half(x));
    wrong += bf16(x).bits != Eigen::numext::bit_cast<std::uint16_t>(Eigen::bfloat16(x));
  };
  for (int i = 0; i < 1000000; ++i) {
    auto const random_bits = static_cast<std::uint32_t>(r.bits());
    check(std::bit_cast<float>(random_bits));                                // any exponent
    check(std::bit_cast<float>((random_bits & 0x87ffffffu) | 0x30000000u));  // around f16's subnormals
    check(std::bit_cast<float>((random_bits & 0x8fffffffu) | 0x40000000u));  // around f16's largest
  }
  CHECK(wrong == 0);
}

TEST_CASE("the same bits pass to and from Eigen's types") {
  Eigen::half const half(1.5f);
  f16 const h = half;
  CHECK(float(h) == 1.5f);
  Eigen::half const back = h;
  CHECK(back == half);
  bf16 const b = Eigen::bfloat16(-3.f);
  CHECK(float(b) == -3.f);
  CHECK(float(Eigen::bfloat16(b)) == -3.f);
  STATIC_REQUIRE(sizeof(f16) == 2);
  STATIC_REQUIRE(sizeof(bf16) == 2);
  STATIC_REQUIRE(std::is_trivially_copyable_v<f16>);
  STATIC_REQUIRE(std::is_same_v<same_bits_as<std::uint16_t>::type, void>);
}

#if defined(__FLT16_MAX__) && !(defined(__aarch64__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13)  // gcc 12: in C only
TEST_CASE("conversions agree with the compiler's, bit for bit, NaN included") {
  int wrong = 0;
  for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) {
    auto const mine = f16::from_bits(static_cast<std::uint16_t>(bits));
    auto const theirs = std::bit_cast<_Float16>(static_cast<std::uint16_t>(bits));
    wrong += bits_of(float(mine)) != bits_of(static_cast<float>(theirs));
    wrong += f16(theirs).bits != bits;
  }
  rng r(12);
  for (int i = 0; i < 1000000; ++i) {
    float const x = std::bit_cast<float>(static_cast<std::uint32_t>(r.bits()));
    wrong += f16(x).bits != std::bit_cast<std::uint16_t>(static_cast<_Float16>(x));
  }
  CHECK(wrong == 0);
}
#endif

TEST_CASE("conversions work at compile time") {
  STATIC_REQUIRE(f16(1.f).bits == 0x3c00);
  STATIC_REQUIRE(f16(0x1p-24f).bits == 1);
  STATIC_REQUIRE(bf16(1.f).bits == 0x3f80);
  STATIC_REQUIRE(float(f16::from_bits(0x0001)) == 0x1p-24f);
}

}  // namespace tern::test

// SPDX-License-Identifier: Apache-2.0
#include "elements.hpp"
#include "message.hpp"

#include <tern/formats/power_of_two.hpp>

#include <algorithm>

namespace tern::test {
namespace {

using namespace tern::formats;

/// The formula for a code, in float64.
double value_of(int bits, int code) {
  int const sign = 1 << (bits - 1), top = sign - 1, m = code & top;
  return m == 0 ? 0 : (code & sign ? -1 : 1) * std::pow(2., m - top);
}
template <int bits>
int code_at(std::vector<std::uint8_t> const& codes, std::size_t i) {
  int code = 0;
  for (std::size_t b = 0; b < bits; ++b) code |= (codes[(i * bits + b) / 8] >> (i * bits + b) % 8 & 1) << b;
  return code;
}

template <int bits, class Scale>
void check_decode(index scale_rows, index scale_columns) {
  INFO(bits << " bits, scales " << scale_rows << " " << scale_columns);
  rng r(111);
  index const rows = 4, columns = 128;
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(rows * columns * bits / 8));
  for (auto& b : codes) b = static_cast<std::uint8_t>(r.bits());
  std::vector<Scale> scales;
  for (index i = 0; i < scale_rows * scale_columns; ++i) scales.push_back(Scale(static_cast<float>(r.normal())));
  auto const got =
      elements(power_of_two_weights<bits, Scale>(matrix(std::as_const(codes), rows), matrix(std::as_const(scales), scale_rows)));
  for (index i = 0; i < rows; ++i)
    for (index k = 0; k < columns; ++k) {
      auto const at = static_cast<std::size_t>(i * columns + k);
      float const scale = scales[static_cast<std::size_t>(i * scale_rows / rows * scale_columns + k * scale_columns / columns)];
      REQUIRE(static_cast<double>(got[at]) == value_of(bits, code_at<bits>(codes, at)) * static_cast<double>(scale));
    }
}

template <int bits>
void check_encode() {
  INFO(bits << " bits");
  rng r(112);
  index const rows = 4, columns = 64;
  auto x = r.normal(rows * columns, 0.07);
  for (std::size_t i = 0; i < x.size(); i += 3) x[i] *= std::pow(0.5f, static_cast<float>(i % 20));
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(rows * columns * bits / 8));
  std::vector<float> scales(rows);
  encode_power_of_two<bits>(matrix(std::as_const(x), rows), matrix(codes, rows), matrix(scales, rows));
  auto const got = elements(power_of_two_weights<bits>(matrix(std::as_const(codes), rows), matrix(std::as_const(scales), rows)));
  for (std::size_t i = 0; i < rows; ++i) {
    double most = 0;
    for (std::size_t k = 0; k < columns; ++k) most = std::max(most, std::abs(static_cast<double>(x[i * columns + k])));
    double const highest = std::round(std::log2(most)), lowest = highest - ((1 << (bits - 1)) - 2);
    REQUIRE(static_cast<double>(scales[i]) == std::exp2(highest));
    for (std::size_t k = 0; k < columns; ++k) {
      double const w = static_cast<double>(x[i * columns + k]);
      double const power = std::exp2(std::clamp(std::round(std::log2(std::abs(w))), lowest, highest));
      double const want = std::abs(w) < std::exp2(lowest) / 2 ? 0 : std::copysign(power, w);
      INFO("weight " << w);
      REQUIRE(static_cast<double>(got[i * columns + k]) == want);
    }
  }
}

}  // namespace

TEST_CASE("powers of two decode exactly") {
  check_decode<2, float>(4, 1);
  check_decode<3, f16>(4, 4);
  check_decode<4, float>(1, 1);
  check_decode<4, float>(4, 2);
  check_decode<5, float>(4, 1);
  check_decode<6, bf16>(2, 2);
}

TEST_CASE("powers of two are nearest in their logarithm, and none where there is none near") {
  check_encode<2>();
  check_encode<3>();
  check_encode<4>();
  check_encode<5>();
  check_encode<6>();
}

TEST_CASE("the tie between powers lies at the square root of two") {
  float const below = std::sqrt(2.f) < std::sqrt(2.) ? std::sqrt(2.f) : std::nextafter(std::sqrt(2.f), 0.f);
  std::vector<float> x(32, 4.f), scale(1);
  x[0] = below;
  x[1] = std::nextafter(below, 2.f);
  x[2] = -std::nextafter(below, 2.f);
  x[3] = std::numeric_limits<float>::quiet_NaN();
  std::vector<std::uint8_t> codes(16);
  encode_power_of_two<4>(matrix(std::as_const(x), 1), matrix(codes, 1), matrix(scale, 1));
  auto const got = elements(power_of_two_weights<4>(matrix(std::as_const(codes), 1), matrix(std::as_const(scale), 1)));
  CHECK((got[0] == 1.f && got[1] == 2.f && got[2] == -2.f && got[3] == 0.f && got[4] == 4.f));
  std::fill(x.begin(), x.end(), 0.f);
  encode_power_of_two<4>(matrix(std::as_const(x), 1), matrix(codes, 1), matrix(scale, 1));
  for (float e : elements(power_of_two_weights<4>(matrix(std::as_const(codes), 1), matrix(std::as_const(scale), 1)))) CHECK(e == 0.f);
  x[7] = -std::numeric_limits<float>::infinity();
  encode_power_of_two<4>(matrix(std::as_const(x), 1), matrix(codes, 1), matrix(scale, 1));
  CHECK(elements(power_of_two_weights<4>(matrix(std::as_const(codes), 1), matrix(std::as_const(scale), 1)))[7] == -0x1p127f);
}

TEST_CASE("powers of two check what they are told") {
  std::vector<std::uint8_t> const codes(64);
  std::vector<float> const scales(8);
  CHECK(message_of([&] { power_of_two_weights<4>(matrix(codes, 2), view(scales.data(), 2, 2)); }) == "no error");
  CHECK(message_of([&] { power_of_two_weights<4>(matrix(codes, 2), view(scales.data(), 2, 4)); }) ==
        "power_of_two_weights: scales.extent(1) is 4, expected 1, or such that each scale is for a power of two of them, and for whole "
        "groups of columns");
  CHECK(message_of([&] { power_of_two_weights<3>(matrix(codes, 2), view(scales.data(), 1, 1)); }) ==
        "power_of_two_weights: codes.extent(1) is 32, expected a multiple of the bytes of 32 codes, 4 times their bits");
}

}  // namespace tern::test

// SPDX-License-Identifier: Apache-2.0
#include "elements.hpp"
#include "message.hpp"

#include <tern/formats/mid_rise.hpp>

#include <algorithm>

namespace tern::test {
namespace {

using namespace tern::formats;

template <int bits>
void check_formula() {
  INFO(bits << " bits");
  rng r(101);
  index const rows = 3, columns = 96;
  double const n = std::pow(2., bits - 1);
  auto x = r.normal(rows * columns, 0.3);
  std::fill(x.begin() + 2 * columns, x.end(), 0.f);
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(rows * columns * bits / 8));
  std::vector<float> scales(rows);
  encode_mid_rise<bits>(matrix(std::as_const(x), rows), matrix(codes, rows), view(scales));
  auto const got = elements(mid_rise_weights<bits>(matrix(std::as_const(codes), rows), view(std::as_const(scales))));
  for (std::size_t i = 0; i < rows; ++i) {
    double mean = 0;
    for (std::size_t k = 0; k < columns; ++k) mean += std::abs(static_cast<double>(x[i * columns + k])) / columns;
    REQUIRE(scales[i] == Approx(2 * mean).epsilon(1e-6));
    double const s = static_cast<double>(scales[i]);
    for (std::size_t k = 0; k < columns; ++k) {
      double const w = static_cast<double>(x[i * columns + k]), e = static_cast<double>(got[i * columns + k]);
      if (s == 0) {
        REQUIRE(e == 0);
        continue;
      }
      double const clipped = std::clamp(w / s, -1., 1 - 1e-6), step = clipped * n - 0.5;
      double const q = s * (std::clamp(std::nearbyint(step), -n, n - 1) + 0.5) / n;
      // Near a tie, f32's division may go either way.
      if (std::abs(step - std::floor(step) - 0.5) > 1e-4) REQUIRE(e == static_cast<double>(static_cast<float>(q)));
      REQUIRE(std::abs(e - w) <= std::max(s / (2 * n), std::abs(w) - s * (1 - 1 / (2 * n))) * (1 + 1e-5));
    }
  }
}

/// Every code: an odd integer times s / 2^bits.
template <int bits>
void check_codes() {
  index const columns = 256;
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(columns * bits / 8));
  for (std::size_t k = 0; k < columns; ++k)
    for (std::size_t b = 0; b < bits; ++b)
      if (k >> b & 1) codes[(k * bits + b) / 8] = static_cast<std::uint8_t>(codes[(k * bits + b) / 8] | 1 << (k * bits + b) % 8);
  std::vector<float> const scales = {0.7654321f};
  auto const got = elements(mid_rise_weights<bits>(matrix(std::as_const(codes), 1), view(scales)));
  for (std::size_t k = 0; k < columns; ++k) {
    int const code = static_cast<int>(k) & ((1 << bits) - 1);
    REQUIRE(got[k] == static_cast<float>(static_cast<double>(scales[0]) * (2 * code + 1 - (1 << bits)) / (1 << bits)));
  }
}

}  // namespace

TEST_CASE("StatsQ encodes and decodes by its formula") {
  check_formula<1>();
  check_formula<2>();
  check_formula<3>();
  check_formula<4>();
  check_formula<5>();
  check_formula<6>();
  check_formula<7>();
  check_formula<8>();
}

TEST_CASE("every mid-rise code is an odd integer times its scale") {
  check_codes<1>();
  check_codes<2>();
  check_codes<3>();
  check_codes<4>();
  check_codes<5>();
  check_codes<6>();
  check_codes<7>();
  check_codes<8>();
}

TEST_CASE("mid-rise ties go to even steps") {
  // s = 2 (mean magnitude 1), n = 2: the steps are w - 1/2.
  std::vector<float> x(32, 1.f);
  x[0] = 0.f;
  x[1] = 2.f;
  std::vector<std::uint8_t> codes(8);
  std::vector<float> scales(1);
  encode_mid_rise<2>(matrix(std::as_const(x), 1), matrix(codes, 1), view(scales));
  CHECK(scales[0] == 2.f);
  auto const got = elements(mid_rise_weights<2>(matrix(std::as_const(codes), 1), view(std::as_const(scales))));
  CHECK(got[0] == 0.5f);  // -1/2 to 0
  CHECK(got[1] == 1.5f);  // 3/2, clipped to 1
  CHECK(got[2] == 0.5f);  // 1/2 to 0
}

TEST_CASE("mid-rise weights check what they are told") {
  std::vector<std::uint8_t> const codes(24);
  std::vector<float> const scales(2);
  CHECK(message_of([&] { mid_rise_weights<3>(matrix(codes, 2), view(scales)); }) == "no error");
  CHECK(message_of([&] { mid_rise_weights<3>(matrix(codes, 1), view(scales)); }) ==
        "mid_rise_weights: scales.extent(0) is 2, expected codes.extent(0) = 1");
  CHECK(message_of([&] { mid_rise_weights<4>(matrix(codes, 2), view(scales)); }) ==
        "mid_rise_weights: codes.extent(1) is 12, expected a multiple of the bytes of 32 codes, 4 times their bits");
}

}  // namespace tern::test

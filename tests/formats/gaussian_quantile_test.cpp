// SPDX-License-Identifier: Apache-2.0
#include "elements.hpp"
#include "message.hpp"

#include <tern/formats/gaussian_quantile.hpp>

namespace tern::test {
namespace {

using namespace tern::formats;

double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.)); }

/// What the docstring says of levels: each is the median of its interval.
template <int bits>
void check_levels() {
  constexpr gaussian_levels<bits> levels{};
  for (int c = 0; c < levels.count; ++c) {
    INFO(bits << " bits, level " << c);
    auto const v = [&](int i) { return static_cast<double>(levels.v[i]); };
    double const below = c == 0 ? 0 : normal_cdf((v(c - 1) + v(c)) / 2);
    double const above = c + 1 == levels.count ? 1 : normal_cdf((v(c) + v(c + 1)) / 2);
    CHECK(std::abs(normal_cdf(v(c)) - (below + above) / 2) < 1e-7);
    CHECK(v(c) == -v(levels.count - 1 - c));
  }
}

template <int bits>
void check_encode(index rows, index parts) {
  INFO(bits << " bits, " << parts << " means");
  rng r(91);
  index const columns = 160;
  auto x = r.normal(rows * columns, 0.02);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] += 0.01f * static_cast<float>(i / static_cast<std::size_t>(columns));
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(rows * columns * bits / 8));
  std::vector<float> mean(static_cast<std::size_t>(parts)), deviation(mean);
  encode_gaussian_quantile<bits>(matrix(std::as_const(x), rows), matrix(codes, rows), view(mean), view(deviation));
  auto const got = elements(
      gaussian_quantile_weights<bits>(matrix(std::as_const(codes), rows), view(std::as_const(mean)), view(std::as_const(deviation))));
  constexpr gaussian_levels<bits> levels{};
  auto const each = x.size() / static_cast<std::size_t>(parts);
  for (std::size_t p = 0; p < mean.size(); ++p) {
    double sum = 0, squares = 0;
    for (std::size_t i = p * each; i < (p + 1) * each; ++i) sum += static_cast<double>(x[i]);
    sum /= static_cast<double>(each);
    for (std::size_t i = p * each; i < (p + 1) * each; ++i) squares += std::pow(static_cast<double>(x[i]) - sum, 2);
    double const sigma = std::sqrt(squares / static_cast<double>(each - 1));
    REQUIRE(mean[p] == Approx(sum).epsilon(1e-6));
    REQUIRE(deviation[p] == Approx(sigma).epsilon(1e-6));
    for (std::size_t i = p * each; i < (p + 1) * each; ++i) {
      std::size_t code = 0;
      for (std::size_t b = 0; b < bits; ++b) code |= static_cast<std::size_t>(codes[(i * bits + b) / 8] >> (i * bits + b) % 8 & 1) << b;
      // Decoding: the formula, rounded once.
      double const want = static_cast<double>(deviation[p]) * static_cast<double>(levels.v[code]) + static_cast<double>(mean[p]);
      REQUIRE(got[i] == static_cast<float>(want));
      // Encoding: no level is nearer, but for rounding of the standardized weight.
      double const z = (static_cast<double>(x[i]) - sum) / (sigma + 1e-5);
      for (int c = 0; c < levels.count; ++c)
        REQUIRE(std::abs(static_cast<double>(levels.v[code]) - z) <= std::abs(static_cast<double>(levels.v[c]) - z) + 1e-5);
    }
  }
}

}  // namespace

TEST_CASE("Gaussian quantiles: each level is the median of what goes to it") {
  check_levels<1>();
  check_levels<2>();
  check_levels<3>();
  check_levels<4>();
  static_assert(gaussian_levels<1>{}.v[1] == 0.6744897501960817f);
  static_assert(gaussian_levels<1>{}.encode(-3.f) == 0 && gaussian_levels<1>{}.encode(0.1f) == 1);
}

TEST_CASE("Gaussian quantiles encode and decode by the formula, for a matrix and for rows") {
  for (index parts : {1, 3}) {
    check_encode<1>(3, parts);
    check_encode<2>(3, parts);
    check_encode<3>(3, parts);
    check_encode<4>(3, parts);
  }
}

TEST_CASE("Gaussian quantiles of normal numbers lose less, the more bits there are") {
  rng r(92);
  auto const x = r.normal(64 * 256);
  double before = 1;
  auto const error = [&]<int bits>(std::integral_constant<int, bits>) {
    std::vector<std::uint8_t> codes(x.size() * bits / 8);
    std::vector<float> mean(1), deviation(1);
    encode_gaussian_quantile<bits>(matrix(x, 64), matrix(codes, 64), view(mean), view(deviation));
    auto const y = elements(
        gaussian_quantile_weights<bits>(matrix(std::as_const(codes), 64), view(std::as_const(mean)), view(std::as_const(deviation))));
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) sum += std::abs(static_cast<double>(x[i]) - static_cast<double>(y[i]));
    double const now = sum / static_cast<double>(x.size());
    CHECK(now < 0.62 * before);
    before = now;
  };
  error(std::integral_constant<int, 1>{});
  error(std::integral_constant<int, 2>{});
  error(std::integral_constant<int, 3>{});
  error(std::integral_constant<int, 4>{});
  CHECK(before < 0.09);
}

TEST_CASE("equal weights decode to themselves, and wrong extents are named") {
  std::vector<float> const x(64, 0.25f);
  std::vector<std::uint8_t> codes(16);
  std::vector<float> mean(2), deviation(2);
  encode_gaussian_quantile<2>(matrix(x, 2), matrix(codes, 2), view(mean), view(deviation));
  for (float e :
       elements(gaussian_quantile_weights<2>(matrix(std::as_const(codes), 2), view(std::as_const(mean)), view(std::as_const(deviation)))))
    CHECK(e == 0.25f);
  std::vector<float> const three(3);
  CHECK(message_of([&] { gaussian_quantile_weights<2>(matrix(std::as_const(codes), 2), view(three), view(three)); }) ==
        "gaussian_quantile_weights: mean.extent(0) is 3, expected 1 or the rows of codes");
  CHECK(message_of([&] { gaussian_quantile_weights<2>(matrix(std::as_const(codes), 2), view(std::as_const(mean)), view(three)); }) ==
        "gaussian_quantile_weights: deviation.extent(0) is 3, expected mean.extent(0) = 2");
  CHECK(message_of([&] { gaussian_quantile_weights<4>(view(codes.data(), 1, 15), view(three), view(three)); }) ==
        "gaussian_quantile_weights: codes.extent(1) is 15, expected a multiple of the bytes of 32 codes, 4 times their bits");
}

}  // namespace tern::test

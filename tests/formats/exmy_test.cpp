// SPDX-License-Identifier: Apache-2.0
#include "elements.hpp"
#include "message.hpp"

#include <tern/formats/exmy.hpp>

namespace tern::test {
namespace {

using namespace tern::formats;

constexpr float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();

/// The formula, in float64. Codes that are no numbers by the formats' own words.
double value_of(int x, int y, float_specials s, int code) {
  int const e = code >> y & ((1 << x) - 1), m = code & ((1 << y) - 1), bias = (1 << (x - 1)) - 1;
  double const sign = code >> (x + y) & 1 ? -1 : 1;
  bool const last = e == (1 << x) - 1;
  if (s == float_specials::nan && last && m == (1 << y) - 1) return std::numeric_limits<double>::quiet_NaN();
  if (s == float_specials::ieee && last)
    return m == 0 ? sign * std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  double const fraction = m / std::pow(2., y);
  return sign * (e == 0 ? fraction * std::pow(2., 1 - bias) : (1 + fraction) * std::pow(2., e - bias));
}

/// The nearest finite code, ties to even, by search.
int nearest_code(int x, int y, float_specials s, double v) {
  v = std::clamp(v, -0x1p20, 0x1p20);  // beyond every format; float64 still tells candidates apart
  int best = -1;
  double least = 0;
  int const half = 1 << (x + y), first = std::signbit(v) ? half : 0;
  for (int c = first; c < first + half; ++c) {
    double const candidate = value_of(x, y, s, c);
    if (!std::isfinite(candidate)) continue;
    double const error = std::abs(candidate - v);
    if (best < 0 || error < least || (error == least && c % 2 == 0)) {
      best = c;
      least = error;
    }
  }
  return best;
}

/// A format as values, so that the checks compile once.
struct any_exmy {
  int x, y;
  float_specials specials;
  float largest, least;
  float (*decode)(std::uint8_t);
  std::uint8_t (*encode)(float);
};
template <int X, int Y, float_specials S = float_specials::none>
any_exmy any() {
  using F = exmy<X, Y, S>;
  return {X, Y, S, F::largest, F::least, [](std::uint8_t c) { return F::decode(c); }, [](float v) { return F::encode(v); }};
}

void check_codes(any_exmy const& f) {
  int const x = f.x, y = f.y;
  float_specials const s = f.specials;
  INFO("e" << x << "m" << y << " specials " << static_cast<int>(s));
  std::vector<double> finite;
  for (int c = 0; c < 2 << (x + y); ++c) {
    double const want = value_of(x, y, s, c);
    float const got = f.decode(static_cast<std::uint8_t>(c));
    INFO("code " << c << " wants " << want << ", got " << got);
    REQUIRE((std::isnan(want) ? std::isnan(got) : static_cast<double>(got) == want));
    if (!std::isnan(want)) REQUIRE(std::signbit(got) == (c >> (x + y) != 0));
    if (!std::isfinite(want)) continue;
    REQUIRE(f.encode(got) == c);
    finite.push_back(want);
  }
  CHECK(static_cast<double>(f.largest) == *std::max_element(finite.begin(), finite.end()));
  std::sort(finite.begin(), finite.end());
  std::vector<float> tries = {0.f, -0.f, 1e-30f, -1e-30f, 1e-45f, 1e30f, -1e30f, std::numeric_limits<float>::max()};
  for (std::size_t i = 1; i < finite.size(); ++i) {
    float const middle = static_cast<float>((finite[i - 1] + finite[i]) / 2);
    for (float t : {middle, std::nextafter(middle, inf), std::nextafter(middle, -inf)}) tries.push_back(t);
  }
  rng r(71);
  for (int i = 0; i < 400; ++i) {
    tries.push_back(static_cast<float>(static_cast<double>(f.largest) * 1.2 * (2 * r.uniform() - 1)));
    tries.push_back(static_cast<float>(static_cast<double>(f.least) * r.normal() * std::pow(2., y)));
  }
  for (float t : tries) {
    INFO("x " << t);
    REQUIRE(f.encode(t) == nearest_code(x, y, s, static_cast<double>(t)));
  }
  for (float t : {inf, -inf}) REQUIRE(f.decode(f.encode(t)) == (t > 0 ? f.largest : -f.largest));
  if (s == float_specials::none)
    REQUIRE(f.encode(nan) == 0);
  else
    REQUIRE(std::isnan(f.decode(f.encode(nan))));
}

template <int X, int Y>
void check_all_specials() {
  check_codes(any<X, Y>());
  check_codes(any<X, Y, float_specials::nan>());
  if constexpr (X >= 2 && Y >= 1) check_codes(any<X, Y, float_specials::ieee>());
}
template <int X>
void check_exponent_bits() {
  [&]<int... Y>(std::integer_sequence<int, Y...>) { (check_all_specials<X, Y>(), ...); }(std::make_integer_sequence<int, 8 - X>{});
}

/// Decoding by the formula: scale times value in float64, rounded once.
void check_elements(int x, int y, float_specials s, std::vector<std::uint8_t> const& codes, std::vector<float> const& scales,
                    index scale_rows, std::vector<float> const& got, index rows) {
  index const columns = static_cast<index>(got.size()) / rows, scale_columns = static_cast<index>(scales.size()) / scale_rows;
  index const bits = 1 + x + y, row_bits = columns * bits;
  for (index i = 0; i < rows; ++i)
    for (index k = 0; k < columns; ++k) {
      int code = 0;
      for (index b = 0; b < bits; ++b) {
        index const bit = i * row_bits + k * bits + b;
        code |= (codes[static_cast<std::size_t>(bit / 8)] >> bit % 8 & 1) << b;
      }
      index const at = i * scale_rows / rows * scale_columns + k * scale_columns / columns;
      auto const want = static_cast<float>(value_of(x, y, s, code) * static_cast<double>(scales[static_cast<std::size_t>(at)]));
      float const have = got[static_cast<std::size_t>(i * columns + k)];
      INFO("element " << i << " " << k << " code " << code);
      REQUIRE((std::isnan(want) ? std::isnan(have) : have == want));
    }
}
template <class F, class Scale, index granule>
void check_weights(int x, int y, float_specials s, index rows, index columns, index scale_rows, index scale_columns) {
  INFO("e" << x << "m" << y << " granule " << granule << " scales " << scale_rows << " " << scale_columns);
  rng r(72);
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(rows * packed_bytes<F::bits>(columns)));
  for (auto& b : codes) b = static_cast<std::uint8_t>(r.bits());
  std::vector<Scale> scales;
  for (index i = 0; i < scale_rows * scale_columns; ++i) {
    if constexpr (std::is_same_v<Scale, e8m0>)
      scales.push_back(e8m0::power(static_cast<int>(r.integer(-20, 20))));
    else
      scales.push_back(Scale(static_cast<float>(r.normal())));
  }
  auto const got = elements(exmy_weights<F, Scale, granule>(matrix(std::as_const(codes), rows), matrix(std::as_const(scales), scale_rows)));
  check_elements(x, y, s, codes, std::vector<float>(scales.begin(), scales.end()), scale_rows, got, rows);
}

double rms(std::vector<float> const& a, std::vector<float> const& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
  return std::sqrt(sum / static_cast<double>(a.size()));
}
/// Symmetric int8: the scale is the largest magnitude over 127.
std::vector<float> round_to_int8(std::vector<float> const& x) {
  float most = 0;
  for (float e : x) most = std::max(most, std::abs(e));
  auto y = x;
  for (float& e : y) e = std::nearbyint(e / (most / 127)) * (most / 127);
  return y;
}
template <class F>
std::vector<float> round_matrix(std::vector<float> const& x, index rows) {
  auto y = x;
  round_to_exmy<F>(matrix(x, 1), matrix(y, 1), rows, static_cast<index>(x.size()));
  return y;
}

}  // namespace

TEST_CASE("small floats: every code of every format, and rounding by search") {
  check_exponent_bits<1>();
  check_exponent_bits<2>();
  check_exponent_bits<3>();
  check_exponent_bits<4>();
  check_exponent_bits<5>();
}

TEST_CASE("small floats have the standards' largest and least numbers, also at compile time") {
  static_assert(e2m1::largest == 6.f && e2m1::least == 0.5f);
  static_assert(e2m3::largest == 7.5f && e3m2::largest == 28.f && e3m2::least == 0x1p-4f);
  static_assert(fp8_e4m3::largest == 448.f && fp8_e4m3::least == 0x1p-9f);
  static_assert(fp8_e5m2::largest == 57344.f && fp8_e5m2::least == 0x1p-16f);
  static_assert(fp8_e4m3::decode(fp8_e4m3::encode(-1.75f)) == -1.75f);
  CHECK(std::isnan(fp8_e4m3::decode(0x7f)));
  CHECK(fp8_e5m2::decode(0xfc) == -inf);
  CHECK(static_cast<float>(e8m0{0}) == 0x1p-127f);
  CHECK(static_cast<float>(e8m0{254}) == 0x1p127f);
  CHECK(std::isnan(static_cast<float>(e8m0{255})));
}

TEST_CASE("weights of small floats are scale times value, whatever the scales are for") {
  using enum float_specials;
  check_weights<e2m1, float, 32>(2, 1, none, 5, 96, 1, 1);
  check_weights<e2m1, e8m0, 32>(2, 1, none, 4, 128, 4, 4);
  check_weights<e2m1, f16, 16>(2, 1, none, 3, 64, 3, 4);
  check_weights<e2m1, float, 32>(2, 1, none, 4, 256, 2, 2);  // tiles of 2 by 128
  check_weights<e2m3, f16, 32>(2, 3, none, 3, 64, 3, 1);
  check_weights<exmy<1, 6>, float, 32>(1, 6, none, 3, 64, 3, 2);
  check_weights<exmy<3, 0>, float, 32>(3, 0, none, 3, 64, 3, 2);
  check_weights<exmy<2, 4>, float, 16>(2, 4, none, 3, 64, 1, 1);
  check_weights<e3m2, float, 32>(3, 2, none, 3, 128, 3, 2);
  check_weights<exmy<2, 5>, float, 32>(2, 5, none, 3, 64, 3, 1);
  check_weights<exmy<4, 2>, bf16, 32>(4, 2, none, 2, 64, 1, 2);
  check_weights<fp8_e4m3, float, 32>(4, 3, nan, 5, 96, 5, 1);
  check_weights<fp8_e4m3, e8m0, 16>(4, 3, nan, 2, 64, 2, 4);
  check_weights<fp8_e5m2, f16, 32>(5, 2, ieee, 2, 256, 2, 2);
  check_weights<exmy<5, 2>, float, 32>(5, 2, none, 16, 256, 16, 1);
  check_weights<exmy<5, 2, nan>, float, 32>(5, 2, nan, 16, 256, 16, 1);
  check_weights<exmy<4, 3>, float, 32>(4, 3, none, 16, 256, 16, 1);
  check_weights<exmy<4, 3, ieee>, float, 32>(4, 3, ieee, 16, 256, 16, 1);
  check_weights<exmy<3, 4, nan>, float, 32>(3, 4, nan, 16, 256, 16, 1);
  check_weights<exmy<3, 4, ieee>, float, 32>(3, 4, ieee, 16, 256, 16, 1);
  static_assert(e2m1::has_integers && e2m3::has_integers && exmy<1, 6>::has_integers && exmy<2, 4>::has_integers);
  static_assert(!e3m2::has_integers && !fp8_e4m3::has_integers && !exmy<2, 5>::has_integers);
}

TEST_CASE("encoding takes each rectangle's largest to the format's, and rounding without codes is the same") {
  rng r(73);
  index const rows = 4, columns = 128;
  auto const x = r.normal(rows * columns, 3);
  auto const check = [&]<class F, class Scale>(F, Scale, index scale_rows, index scale_columns) {
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(rows * packed_bytes<F::bits>(columns)));
    std::vector<Scale> scales(static_cast<std::size_t>(scale_rows * scale_columns));
    encode_exmy<F>(matrix(x, rows), matrix(codes, rows), matrix(scales, scale_rows));
    auto const got = elements(exmy_weights<F, Scale>(matrix(std::as_const(codes), rows), matrix(std::as_const(scales), scale_rows)));
    auto rounded = x;
    round_to_exmy<F, Scale>(matrix(x, rows), matrix(rounded, rows), rows / scale_rows, columns / scale_columns);
    for (std::size_t i = 0; i < x.size(); ++i) REQUIRE(got[i] == rounded[i]);
    // The scale times: half a step of the fraction or of the least number; and what the largest loses to a rounded scale.
    for (index i = 0; i < rows; ++i)
      for (index k = 0; k < columns; ++k) {
        auto const at = static_cast<std::size_t>(i * columns + k);
        double const scale = static_cast<double>(
            static_cast<float>(scales[static_cast<std::size_t>(i * scale_rows / rows * scale_columns + k * scale_columns / columns)]));
        double const magnitude = std::abs(static_cast<double>(x[at]));
        double const beyond = std::max(magnitude - scale * static_cast<double>(F::largest), 0.);
        double const step = std::pow(2., -F::fraction_bits - 1) * magnitude;
        REQUIRE(std::abs(static_cast<double>(got[at]) - static_cast<double>(x[at])) <=
                std::max(step, scale * static_cast<double>(F::least) / 2) * (1 + 0x1p-20) + beyond);
        REQUIRE(beyond <= (std::is_same_v<Scale, e8m0> ? 0.5 : 0x1p-8) * magnitude);
      }
  };
  check(e2m1{}, float{}, 4, 4);
  check(e2m1{}, e8m0{}, 4, 4);
  check(e3m2{}, f16{}, 4, 1);
  check(fp8_e4m3{}, float{}, 1, 1);
  check(fp8_e4m3{}, float{}, 2, 2);
  check(fp8_e5m2{}, bf16{}, 4, 2);
  check(exmy<3, 4>{}, float{}, 4, 1);
}

TEST_CASE("encoding small floats stores zeros, NaN and infinity") {
  std::vector<float> x(64, 0.f);
  std::vector<std::uint8_t> codes(64);
  std::vector<float> scales(2);
  x[32] = nan;
  x[33] = -inf;
  encode_exmy<fp8_e4m3>(matrix(x, 1), matrix(codes, 1), matrix(scales, 1));
  CHECK(scales[0] == 0.f);
  CHECK(scales[1] == std::numeric_limits<float>::max() / 448);
  auto const got = elements(exmy_weights<fp8_e4m3>(matrix(std::as_const(codes), 1), matrix(std::as_const(scales), 1)));
  for (std::size_t i = 0; i < 64; ++i)
    CHECK((i == 32 ? std::isnan(got[i]) : i == 33 ? got[i] < -3.4e38f && std::isfinite(got[i]) : got[i] == 0));
}

TEST_CASE("FP8 against INT8: which is closer depends on outliers, and FP8 converts to INT8 within half a step") {
  rng r(74);
  auto const normal = r.normal(4096);
  auto outliers = normal;
  outliers[77] = 60.f;
  double const int8 = rms(normal, round_to_int8(normal));
  // "FP8 versus INT8": INT8 is better than FP8 of 4 and 5 bits of exponent for what is normal, worse where few are far off.
  CHECK(int8 < rms(normal, round_matrix<exmy<4, 3>>(normal, 1)));
  CHECK(int8 < rms(normal, round_matrix<exmy<5, 2>>(normal, 1)));
  CHECK(rms(normal, round_matrix<exmy<2, 5>>(normal, 1)) < rms(normal, round_matrix<exmy<4, 3>>(normal, 1)));
  CHECK(rms(outliers, round_matrix<exmy<4, 3>>(outliers, 1)) < rms(outliers, round_to_int8(outliers)));
  auto const fp8 = round_matrix<fp8_e4m3>(normal, 1);
  auto const converted = round_to_int8(fp8);
  float most = 0;
  for (float e : fp8) most = std::max(most, std::abs(e));
  for (std::size_t i = 0; i < fp8.size(); ++i) REQUIRE(std::abs(fp8[i] - converted[i]) <= most / 254 * (1 + 0x1p-16f));
  // Its error is at most that of both roundings.
  CHECK(rms(normal, converted) <= rms(normal, fp8) + static_cast<double>(most) / 254);
}

TEST_CASE("weights of small floats check what they are told") {
  std::vector<std::uint8_t> const codes(256);
  std::vector<float> const scales(16);
  auto const fp4 = [&](index row_bytes, index scale_rows, index scale_columns) {
    return message_of([&] { exmy_weights<e2m1>(view(codes.data(), 2, row_bytes), view(scales.data(), scale_rows, scale_columns)); });
  };
  CHECK(fp4(32, 2, 2) == "no error");
  CHECK(fp4(17, 2, 1) == "exmy_weights: codes.extent(1) is 17, expected a multiple of the bytes of 32 codes, 4 times their bits");
  CHECK(fp4(32, 3, 1) == "exmy_weights: scales.extent(0) is 3, expected 1, or a divisor of what it scales");
  CHECK(fp4(48, 2, 2) ==
        "exmy_weights: scales.extent(1) is 2, expected 1, or such that each scale is for a power of two of them, and for whole groups of "
        "columns");
  CHECK(fp4(32, 2, 4) ==
        "exmy_weights: scales.extent(1) is 4, expected 1, or such that each scale is for a power of two of them, and for whole groups of "
        "columns");
  CHECK(message_of([&] { exmy_weights<e2m1>(view(static_cast<std::uint8_t const*>(nullptr), 2, 32), view(scales.data(), 1, 1)); }) ==
        "exmy_weights: codes.data() is 0, expected not null");
  CHECK(message_of([&] { exmy_weights<e2m1>(view(codes.data(), 2, 32), view(static_cast<float const*>(nullptr), 1, 1)); }) ==
        "exmy_weights: scales.data() is 0, expected not null");
  CHECK(message_of([&] { exmy_weights<e2m1>(view(codes.data(), 4, 32).transposed(0, 1), view(scales.data(), 1, 1)); }) != "no error");
  std::vector<float> w(64);
  std::vector<std::uint8_t> out(40);
  std::vector<float> s(2);
  CHECK(message_of([&] { encode_exmy<e2m1>(matrix(std::as_const(w), 1), view(out.data(), 1, 33), view(s.data(), 1, 1)); }) ==
        "encode_exmy: codes.extent(1) is 33, expected the bytes of w.extent(1) codes = 32");
  CHECK(message_of([&] { encode_exmy<e2m1>(view(std::as_const(w).data(), 1, 63), view(out.data(), 1, 32), view(s.data(), 1, 1)); }) ==
        "encode_exmy: w.extent(1) is 63, expected a multiple of 32");
}

}  // namespace tern::test

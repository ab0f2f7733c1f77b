// SPDX-License-Identifier: Apache-2.0
// Elementary functions against the C library in double, with the errors that simd/math.hpp states. `quick` walks every 4093rd
// float and the neighborhoods where branches and ranges meet; [.slow] walks every 17th.
#include "catch.hpp"
#include "lanes.hpp"

#include <tern/simd/math.hpp>

#include <bit>
#include <cmath>
#include <initializer_list>

namespace {
using namespace tern::test;
using tern::simd::pack;
namespace simd = tern::simd;

#if defined(TERN_SIMD_SSE) && !defined(__FMA__)
constexpr double unfused = 1;
#else
constexpr double unfused = 0;
#endif

/// The distance of f32 neighbors at `exact`.
double ulp(double exact) {
  if (std::fabs(exact) < 0x1p-126) return 0x1p-149;
  return std::ldexp(1.0, std::ilogb(exact) - 23);
}

/// f on packs against g on doubles. `allowed(x, exact)` is the largest error; infinities and NaN must agree.
struct walk_result {
  long bad = 0;
  float at = 0, got = 0;
  double exact = 0, worst = 0;  // worst: in units of what is allowed
};
template <class F, class G, class Allowed>
struct walker {
  F f;
  G g;
  Allowed allowed;
  walk_result result;

  template <class Next>
  void block(Next next) {
    lane_array<float> x;
    for (float& lane : x) lane = next();
    auto const y = lanes_of(f(pack_of<float>(x)));
    for (std::size_t i = 0; i < x.size(); ++i) {
      double const exact = g(double{x[i]});
      bool good;
      if (std::isnan(exact) || std::isnan(y[i])) {
        good = std::isnan(exact) && std::isnan(y[i]);
      } else if (std::isinf(static_cast<float>(exact)) || std::isinf(y[i])) {
        good = y[i] == static_cast<float>(exact);
      } else {
        double const ratio = std::fabs(double{y[i]} - exact) / allowed(double{x[i]}, exact);
        good = ratio <= 1;
        if (ratio > result.worst) result.worst = ratio;
      }
      if (!good && result.bad++ == 0) {
        result.at = x[i];
        result.got = y[i];
        result.exact = exact;
      }
    }
  }
  void every(std::uint32_t step) {
    std::uint64_t bits = 0;
    while (bits < std::uint64_t{1} << 32)
      block([&] {
        float const x = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
        bits += step;
        return x;
      });
  }
  void around(float center) {
    auto const middle = std::bit_cast<std::uint32_t>(center);
    std::uint32_t bits = middle > 2000 ? middle - 2000 : 0;
    while (bits < middle + 2000) block([&] { return std::bit_cast<float>(bits++); });
  }
};

template <class F, class G, class Allowed>
walk_result walk(std::uint32_t step, std::initializer_list<float> centers, F f, G g, Allowed allowed) {
  walker<F, G, Allowed> w{f, g, allowed, {}};
  w.every(step);
  for (float c : centers) w.around(c);
  return w.result;
}
template <class F, class G, class Allowed>
void check(char const* name, bool all, std::initializer_list<float> centers, F f, G g, Allowed allowed) {
  walk_result const r = walk(all ? 17 : 4093, centers, f, g, allowed);
  INFO(name << ": " << r.bad << " wrong, first at " << r.at << ": got " << r.got << ", exact " << r.exact << "; worst " << r.worst);
  CHECK(r.bad == 0);
  CHECK(r.worst > 0.2);  // a bound that nothing comes near says nothing
}
auto ulps(double n) {
  return [n](double, double exact) { return (n + unfused) * ulp(exact); };
}
/// n ulp; where e^-|x| is subnormal it may be taken as zero.
auto ulps_or_flushed(double n, double flushed) {
  return [n, flushed](double x, double exact) { return x < -87.33 ? flushed : (n + unfused) * ulp(exact); };
}
/// 2^-21 |x|
double of_argument(double x, double) { return 0x1p-21 * std::fabs(x) + 0x1p-149; }

double logistic(double x) { return 1 / (1 + std::exp(-x)); }
double const root = std::sqrt(2 / 3.14159265358979323846);

void check_exp(bool all) {
  check(
      "exp", all, {88.7228394f, 88.f, -87.3365402f, -103.972084f, -104.f, 89.f, 0.34657359f, -0.34657359f},
      [](auto x) { return simd::exp(x); }, [](double x) { return std::exp(x); }, ulps(1.1));
  // For x > 0 this one promises nothing; the walk goes over the others twice.
  check(
      "exp_nonpositive", all, {-87.3365402f, -103.972084f, -0.f, -0.34657359f}, [](auto x) { return simd::exp_nonpositive(-simd::abs(x)); },
      [](double x) { return std::exp(-std::fabs(x)); },
      [](double x, double exact) { return std::fabs(x) > 87.33 ? 0x1p-126 : (1.1 + unfused) * ulp(exact); });
}
void check_log(bool all) {
  check(
      "log", all, {1.f, 0.70710678f, 1.41421356f, 0x1p-126f, 0.f, 2.f, 3.40282347e38f}, [](auto x) { return simd::log(x); },
      [](double x) { return std::log(x); }, ulps(1));
}
void check_gates(bool all) {
  check(
      "tanh", all, {0.f, 20.f, 0.17328680f, -9.01f}, [](auto x) { return simd::tanh(x); }, [](double x) { return std::tanh(x); }, ulps(3));
  check(
      "sigmoid", all, {-87.3365402f, -88.7f, -103.97f, 0.f, 17.f}, [](auto x) { return simd::sigmoid(x); }, logistic,
      ulps_or_flushed(3, 0x1p-125));
  check(
      "silu", all, {-87.3365402f, -88.7f, -103.97f, 0.f, 17.f}, [](auto x) { return simd::silu(x); },
      [](double x) { return x / (1 + std::exp(-x)); }, ulps_or_flushed(4, 0x1p-119));
  check(
      "gelu_tanh", all, {0.f, -5.f, 5.f}, [](auto x) { return simd::gelu_tanh(x); },
      [](double x) { return x * logistic(2 * root * (x + 0.044715 * x * x * x)); }, of_argument);
  check(
      "gelu", all, {0.f, -5.f, 5.f, -14.f}, [](auto x) { return simd::gelu(x); },
      [](double x) { return x * (0.5 * std::erfc(-x * std::sqrt(0.5))); }, of_argument);
}
void check_sine(bool all) {
  auto const within = [](double x) { return std::fabs(x) <= 8192 ? std::sin(x) : std::isfinite(x) ? 0. : x - x; };
  check(
      "sin", all, {1.57079633f, -1.57079633f, 3.14159265f, 4.71238898f, -8190.f, 8192.f, 4096.f, 1e-3f},
      [](auto x) { return simd::sin(x); }, within, [](double x, double) { return std::fabs(x) <= 8192 ? (1 + unfused) * 0x1p-23 : 1; });
}
}  // namespace

TEST_CASE("math: exp within its bound", "[simd]") { check_exp(false); }
TEST_CASE("math: log within its bound", "[simd]") { check_log(false); }
TEST_CASE("math: gates within their bounds", "[simd]") { check_gates(false); }
TEST_CASE("math: sine within its bound", "[simd]") { check_sine(false); }
TEST_CASE("math: all functions, every 17th float", "[simd][.slow]") {
  check_exp(true);
  check_log(true);
  check_gates(true);
  check_sine(true);
}

TEST_CASE("math: a number's fraction, and a product with the power of its whole part", "[simd]") {
  for (float const x : {0.f, -0.25f, 0.75f, -3.f, -3.5f, 7.875f, -125.5f, -126.f, -1e-9f, 100.25f}) {
    pack<float> const r = simd::fraction(pack<float>(x));
    double const whole = std::floor(static_cast<double>(x));
    CHECK(std::fabs(static_cast<double>(lanes_of(r)[0]) - (static_cast<double>(x) - whole)) <= 0x1p-24);
    CHECK(lanes_of(simd::times_power(pack<float>(1.5f), pack<float>(x)))[0] == std::ldexp(1.5f, static_cast<int>(whole)));
  }
  float const infinity = std::numeric_limits<float>::infinity(), quiet_nan = std::numeric_limits<float>::quiet_NaN();
  for (float const x : {-126.5f, -1000.f, -1e30f, -infinity})
    CHECK(lanes_of(simd::times_power(pack<float>(1.5f), pack<float>(x)))[0] == 0.f);
  CHECK(std::isnan(lanes_of(simd::fraction(pack<float>(quiet_nan)))[0]));
  CHECK(std::isnan(lanes_of(simd::times_power(pack<float>(quiet_nan), pack<float>(quiet_nan)))[0]));
}

TEST_CASE("math: limits and signs", "[simd]") {
  float const infinity = std::numeric_limits<float>::infinity(), quiet_nan = std::numeric_limits<float>::quiet_NaN();
  auto first = [](pack<float> x) { return lanes_of(x)[0]; };
  CHECK(first(simd::exp(pack<float>(-infinity))) == 0.f);
  CHECK(first(simd::exp(pack<float>(infinity))) == infinity);
  CHECK(first(simd::exp(pack<float>(0.f))) == 1.f);
  CHECK(std::isnan(first(simd::exp(pack<float>(quiet_nan)))));
  CHECK(first(simd::exp(pack<float>(-90.f))) > 0.f);  // a subnormal
  CHECK(first(simd::exp_nonpositive(pack<float>(-infinity))) == 0.f);
  CHECK(first(simd::exp_nonpositive(pack<float>(0.f))) == 1.f);
  CHECK(std::isnan(first(simd::exp_nonpositive(pack<float>(quiet_nan)))));
  CHECK(first(simd::log(pack<float>(-0.f))) == -infinity);
  CHECK(first(simd::log(pack<float>(infinity))) == infinity);
  CHECK(std::isnan(first(simd::log(pack<float>(-1e-45f)))));
  CHECK(std::signbit(first(simd::tanh(pack<float>(-0.f)))));
  CHECK(first(simd::tanh(pack<float>(-infinity))) == -1.f);
  CHECK(first(simd::sigmoid(pack<float>(infinity))) == 1.f);
  CHECK(first(simd::sigmoid(pack<float>(-infinity))) == 0.f);
  CHECK(first(simd::silu(pack<float>(infinity))) == infinity);
  CHECK(std::isnan(first(simd::silu(pack<float>(-infinity)))));
  CHECK(first(simd::gelu(pack<float>(infinity))) == infinity);
  CHECK(first(simd::gelu_tanh(pack<float>(3e38f))) == 3e38f);
}

// SPDX-License-Identifier: Apache-2.0
#include <tern/conv/systems/gaunt.hpp>
#include <tern/core/thread_pool.hpp>

#include "catch.hpp"
#include "compare.hpp"
#include "message.hpp"

#include <algorithm>
#include <array>
#include <functional>

namespace tern::test {
namespace {

using point = std::array<double, 3>;
constexpr double pi = 3.14159265358979323846;

std::size_t at(index i) { return static_cast<std::size_t>(i); }

double factorial(index n) {
  double f = 1;
  for (index i = 2; i <= n; ++i) f *= static_cast<double>(i);
  return f;
}
/// The real harmonic of a point of the unit sphere, from the polynomial of Rodrigues' formula.
double harmonic(index l, index m, point const& p) {
  index const order = std::abs(m);
  double sum = 0;
  for (index k = 0; 2 * k <= l - order; ++k)
    sum += (k % 2 == 0 ? 1 : -1) * factorial(2 * l - 2 * k) / (factorial(k) * factorial(l - k) * factorial(l - 2 * k - order)) *
           std::pow(p[2], static_cast<double>(l - 2 * k - order));
  double const s = std::hypot(p[0], p[1]), phi = std::atan2(p[1], p[0]);
  double const norm =
      std::sqrt((2 * static_cast<double>(l) + 1) / (4 * pi) * factorial(l - order) / factorial(l + order)) * (m != 0 ? std::sqrt(2.) : 1);
  double const turn = m >= 0 ? std::cos(static_cast<double>(m) * phi) : std::sin(static_cast<double>(-m) * phi);
  return norm * turn * std::pow(s, static_cast<double>(order)) * std::ldexp(sum, -static_cast<int>(l));
}
constexpr index most = 6;
/// All harmonics up to degree 6.
std::vector<double> harmonics(point const& p) {
  std::vector<double> y;
  for (index l = 0; l <= most; ++l)
    for (index m = -l; m <= l; ++m) y.push_back(harmonic(l, m, p));
  return y;
}
/// sum of x Y; with absolute values of both if so asked.
double value(std::vector<double> const& x, std::vector<double> const& y, bool absolute = false) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += absolute ? std::abs(x[i] * y[i]) : x[i] * y[i];
  return sum;
}

/// Points of the sphere by Fejer's rule along z and equal steps around it, exact below degree 24, and the harmonics there.
struct sphere {
  std::vector<point> points;
  std::vector<double> areas;
  std::vector<std::vector<double>> y;

  sphere() {
    constexpr index n = 24;
    for (index i = 0; i < n * n; ++i) {
      double const theta = (static_cast<double>(i / n) + 0.5) * pi / n, phi = 2 * pi * (static_cast<double>(i % n) + 0.25) / n;
      double w = 1;
      for (index j = 1; j <= n / 2; ++j) {
        auto const a = static_cast<double>(j);
        w -= 2 * std::cos(2 * a * theta) / (4 * a * a - 1);
      }
      points.push_back({std::sin(theta) * std::cos(phi), std::sin(theta) * std::sin(phi), std::cos(theta)});
      areas.push_back(w * (2. / n) * (2 * pi / n));
      y.push_back(harmonics(points.back()));
    }
  }
  static sphere const& get() {
    static sphere const one;
    return one;
  }
};
/// The integral of f Y for all harmonics, f being a function of the point's number; of f |Y| if so asked.
template <class F>
std::vector<double> coefficients(index degree, F const& f, bool absolute = false) {
  std::vector<double> x(at((degree + 1) * (degree + 1)));
  sphere const& s = sphere::get();
  for (std::size_t p = 0; p < s.points.size(); ++p) {
    double const here = f(p) * s.areas[p];
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += here * (absolute ? std::abs(s.y[p][i]) : s.y[p][i]);
  }
  return x;
}
/// The coefficients of a product, or bounds of them.
std::vector<double> product_of(index degree, std::vector<double> const& a, std::vector<double> const& b, bool absolute) {
  auto const& y = sphere::get().y;
  return coefficients(degree, [&](std::size_t p) { return value(a, y[p], absolute) * value(b, y[p], absolute); }, absolute);
}

struct gaunt_case {
  rng r;
  index n = 2, channels, degree[3];
  gaunt_plan plan;
  std::vector<float> x1, x2, out;

  gaunt_case(index l1, index l2, index l3, index c = 3)
      : r(static_cast<std::uint64_t>(l1 * 100 + l2 * 10 + l3)),
        channels(c),
        degree{l1, l2, l3},
        plan(l1, l2, l3),
        x1(r.normal(n * c * numbers(0))),
        x2(r.normal(n * c * numbers(1))),
        out(at(n * c * numbers(2))) {}
  index numbers(int i) const { return (degree[i] + 1) * (degree[i] + 1); }
  tensor_view<float, 3> view(std::vector<float>& x, int i) const { return tern::view(x.data(), n, channels, numbers(i)); }
  void run(gaunt_weights const& weights = {}) { gaunt(cpu, plan, view(x1, 0), view(x2, 1), view(out, 2), weights); }
  std::vector<double> item(std::vector<float> const& x, int i, index which) const {
    auto const all = widened(x);
    return {all.begin() + which * numbers(i), all.begin() + (which + 1) * numbers(i)};
  }
};

/// x by degrees times w's row of the item's channel.
std::vector<double> scaled(std::vector<double> x, std::vector<float> const& w, index degrees, index channel) {
  for (index l = 0, i = 0; l < degrees; ++l)
    for (index m = -l; m <= l; ++m, ++i) x[at(i)] *= static_cast<double>(w[at(channel * degrees + l)]);
  return x;
}

}  // namespace

TEST_CASE("gaunt: coefficients of the product, by an integral over the sphere, with weights and without", "[conv]") {
  for (auto const& [l1, l2, l3] : {std::array<index, 3>{0, 0, 0}, {1, 1, 2}, {2, 1, 1}, {3, 3, 3}, {0, 4, 4}, {5, 4, 6}, {6, 6, 2}}) {
    gaunt_case c(l1, l2, l3);
    auto const w1 = c.r.normal(3 * (l1 + 1)), w2 = c.r.normal(3 * (l2 + 1)), w3 = c.r.normal(3 * (l3 + 1));
    for (bool weighted : {false, true}) {
      c.run(weighted ? gaunt_weights{view(w1.data(), 3, l1 + 1), view(w2.data(), 3, l2 + 1), view(w3.data(), 3, l3 + 1)} : gaunt_weights{});
      std::vector<double> want, sizes;
      for (index item = 0; item < 6; ++item) {
        auto a = c.item(c.x1, 0, item), b = c.item(c.x2, 1, item);
        if (weighted) a = scaled(a, w1, l1 + 1, item % 3), b = scaled(b, w2, l2 + 1, item % 3);
        auto product = product_of(l3, a, b, false), size = product_of(l3, a, b, true);
        if (weighted) product = scaled(product, w3, l3 + 1, item % 3), size = scaled(size, w3, l3 + 1, item % 3);
        want.insert(want.end(), product.begin(), product.end());
        for (double s : size) sizes.push_back(std::abs(s));
      }
      INFO("degrees " << l1 << " " << l2 << " " << l3 << (weighted ? ", weighted" : ""));
      // Two quadratures see absolute values, which are no polynomials, a little differently; weights round three times more.
      CHECK(compare(c.out, want, sizes, 1.25 * gaunt.error(c.plan) + 0x3p-24));
    }
  }
}

TEST_CASE("gaunt: the product's values are the factors' product", "[conv]") {
  gaunt_case c(3, 2, 5);
  c.run();
  for (int i = 0; i < 20; ++i) {
    point p{c.r.normal(), c.r.normal(), c.r.normal()};
    double const norm = std::sqrt(p[0] * p[0] + p[1] * p[1] + p[2] * p[2]);
    for (double& e : p) e /= norm;
    auto const y = harmonics(p);
    for (index item = 0; item < 6; ++item) {
      auto const a = c.item(c.x1, 0, item), b = c.item(c.x2, 1, item), product = c.item(c.out, 2, item);
      auto const sizes = product_of(5, a, b, true);
      double size = 0;
      for (std::size_t n = 0; n < sizes.size(); ++n) size += 1.25 * sizes[n] * std::abs(y[n]);
      CHECK(std::abs(value(product, y) - value(a, y) * value(b, y)) <= gaunt.error(c.plan) * size);
    }
  }
}

TEST_CASE("gaunt: products of turned functions are turned products", "[conv]") {
  double const angle = 0.7, tilt = 1.1;
  auto const about_z = [=](point const& p) {
    return point{std::cos(angle) * p[0] + std::sin(angle) * p[1], std::cos(angle) * p[1] - std::sin(angle) * p[0], p[2]};
  };
  auto const any = [=](point const& p) {
    point const q = about_z(p);
    return about_z(point{q[0], std::cos(tilt) * q[1] + std::sin(tilt) * q[2], std::cos(tilt) * q[2] - std::sin(tilt) * q[1]});
  };
  for (std::function<point(point const&)> const& turn : {std::function<point(point const&)>(about_z), {any}}) {
    gaunt_case c(3, 3, 4, 1);
    std::vector<std::vector<double>> there;
    for (point const& p : sphere::get().points) there.push_back(harmonics(turn(p)));
    auto const turned = [&](std::vector<float> const& x, int i) {
      std::vector<float> y;
      for (index item = 0; item < 2; ++item)
        for (double e : coefficients(c.degree[i], [&, of = c.item(x, i, item)](std::size_t p) { return value(of, there[p]); }))
          y.push_back(static_cast<float>(e));
      return y;
    };
    auto y1 = turned(c.x1, 0), y2 = turned(c.x2, 1);
    c.run();
    auto const want = widened(turned(c.out, 2));
    std::vector<float> got(c.out.size());
    gaunt(cpu, c.plan, c.view(y1, 0), c.view(y2, 1), c.view(got, 2));
    double largest = 0;
    for (index item = 0; item < 2; ++item)
      for (double size : product_of(4, c.item(c.x1, 0, item), c.item(c.x2, 1, item), true)) largest = std::max(largest, size);
    // A turn mixes the 2 l + 1 numbers of a degree and keeps their norm: errors grow three times at most. Rounded inputs add two roundings.
    CHECK(compare(got, want, std::vector<double>(want.size(), 3 * largest), 2 * gaunt.error(c.plan)));
  }
}

TEST_CASE("gaunt: a constant factor scales, threads and the number of items change nothing, results may be arguments", "[conv]") {
  gaunt_case c(4, 0, 4, 700);
  c.run();
  std::vector<double> want, sizes;
  for (index i = 0; i < 2 * 700 * 25; ++i) {
    want.push_back(static_cast<double>(c.x1[at(i)]) * static_cast<double>(c.x2[at(i / 25)]) / std::sqrt(4 * pi));
    sizes.push_back(25 * 25 / std::sqrt(4 * pi));  // numbers up to 5, and no more than 25 / sqrt(4 pi) of |Y| times 25 harmonics
  }
  CHECK(compare(c.out, want, sizes, gaunt.error(c.plan)));
  thread_pool three(3);
  std::vector<float> other(c.out.size());
  gaunt(cpu.on(three), c.plan, c.view(c.x1, 0), c.view(c.x2, 1), c.view(other, 2));
  CHECK(other == c.out);
  std::fill(other.begin() + 1300 * 25, other.begin() + 1350 * 25, 0.f);
  gaunt(cpu, c.plan, c.view(c.x1, 0).slice(0, 1, 2).slice(1, 600, 650), c.view(c.x2, 1).slice(0, 1, 2).slice(1, 600, 650),
        c.view(other, 2).slice(0, 1, 2).slice(1, 600, 650));
  CHECK(other == c.out);
  gaunt(cpu.on(serial), c.plan, c.view(c.x1, 0), c.view(c.x2, 1), c.view(c.x1, 2));
  CHECK(c.x1 == c.out);
}

TEST_CASE("gaunt says what is wrong", "[conv]") {
  gaunt_case c(1, 1, 2);
  auto const a = c.view(c.x1, 0), b = c.view(c.x2, 1), out = c.view(c.out, 2);
  CHECK(message_of([&] { gaunt_plan(1, -1, 2); }) == "gaunt_plan: a degree is -1, expected 0 to 100");
  CHECK(message_of([&] { gaunt_plan(1, 101, 2); }) == "gaunt_plan: a degree is 101, expected 0 to 100");
  CHECK(message_of([&] { gaunt(cpu, c.plan, a, b.slice(1, 0, 2), out); }) == "gaunt: x2.extent(1) is 2, expected x1.extent(1) = 3");
  CHECK(message_of([&] { gaunt(cpu, c.plan, a, b, out.slice(2, 0, 4)); }) == "gaunt: out.extent(2) is 4, expected the plan's numbers = 9");
  CHECK(message_of([&] { gaunt(cpu, c.plan, a.slice(1, 0, 2), b.slice(1, 0, 2), out.slice(1, 0, 2)); }) ==
        "gaunt: x1.stride(0) is 12, expected 8 (no gaps)");
  std::vector<float> const w(9);
  CHECK(message_of([&] { gaunt(cpu, c.plan, a, b, out, gaunt_weights{.x2 = view(w.data(), 3, 3)}); }) ==
        "gaunt: weights.x2 is 3 by 3, expected 3 channels by 2 degrees");
}

}  // namespace tern::test

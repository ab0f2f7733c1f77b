// SPDX-License-Identifier: Apache-2.0
// The makers of filters, against their formulas written out.
#include "catch.hpp"
#include "compare.hpp"
#include "message.hpp"

#include <tern/conv/long_companion.hpp>
#include <tern/conv/long_decay.hpp>
#include <tern/conv/long_multiscale.hpp>
#include <tern/conv/long_s4d.hpp>

#include <cmath>
#include <complex>

namespace tern::test {

namespace {
std::vector<double> const& ones(std::size_t n) {
  static std::vector<double> all;
  all.assign(n, 1.0);
  return all;
}
}  // namespace

TEST_CASE("decaying filters are exponentials") {
  std::vector<float> const weight{1.f, -2.5f}, rate{0.01f, 3.f};
  std::vector<float> k(2 * 50);
  decay_filter(cpu, weight, rate, view(k.data(), 2, 50));
  std::vector<double> want, magnitude;
  for (std::size_t c = 0; c < 2; ++c)
    for (int j = 0; j < 50; ++j) {
      want.push_back(static_cast<double>(weight[c]) * std::exp(-static_cast<double>(rate[c]) * j));
      magnitude.push_back(std::abs(want.back()) + 0x1p-120);
    }
  CHECK(compare(k, want, magnitude, decay_filter.error));
  CHECK(message_of([&] { decay_filter(cpu, weight, rate, view(k.data(), 1, 50)); }) ==
        "decay_filter: weight.extent(0) is 2, expected k.extent(0) = 1");
}

TEST_CASE("SGConv's filter is made of stretched pieces") {
  // By hand: pieces (1, 3), (5, 9), (2, 6) of lengths 2, 2 and 4, each half as large as the one before.
  std::vector<float> const pieces{1, 3, 5, 9, 2, 6};
  std::vector<float> k(8);
  multiscale_filter(cpu, view(pieces.data(), 1, 3, 2), 0.5f, view(k.data(), 1, 8), false);
  std::vector<double> want{1, 3, 2.5, 4.5, 0.5, 0.75, 1.25, 1.5};
  CHECK(compare(k, want, ones(8), 1e-7));
  multiscale_filter(cpu, view(pieces.data(), 1, 3, 2), 0.5f, view(k.data(), 1, 8));
  double squares = 0;
  for (double e : want) squares += e * e;
  for (double& e : want) e /= std::sqrt(squares);
  CHECK(compare(k, want, ones(8), multiscale_filter.error));

  rng r(2);
  auto const many = r.normal(2 * 5 * 3);
  std::vector<float> taps(2 * 48);
  multiscale_filter(cpu, view(many.data(), 2, 5, 3), 0.7f, view(taps.data(), 2, 48), false);
  for (index c = 0; c < 2; ++c) {  // within a piece, neighbours differ by no more than its numbers do
    CHECK(taps[static_cast<std::size_t>(c * 48)] == many[static_cast<std::size_t>(c * 15)]);
    CHECK(std::abs(taps[static_cast<std::size_t>(c * 48 + 47)] - std::pow(0.7f, 4.f) * many[static_cast<std::size_t>(c * 15 + 14)]) <
          1e-6f);
  }
  CHECK(message_of([&] { multiscale_filter(cpu, view(many.data(), 2, 5, 3), 0.5f, view(taps.data(), 2, 47)); }) ==
        "multiscale_filter: k.extent(1) is 47, expected d 2^(S - 1) = 48");
}

TEST_CASE("S4D's filter is the sum over its states") {
  using complex = std::complex<float>;
  using wide = std::complex<double>;
  rng r(3);
  index const states = 5, taps = 700;
  std::vector<complex> a, c;
  for (index n = 0; n < 2 * states; ++n) {
    a.push_back({-0.5f, 3.14159265f * static_cast<float>(n % states)});
    c.push_back({static_cast<float>(r.normal()), static_cast<float>(r.normal())});
  }
  a[states] = 0;
  a[states + 1] = {-1e-3f, 1e-4f};
  std::vector<float> const dt{0.01f, 0.1f};
  std::vector<float> k(2 * static_cast<std::size_t>(taps));
  s4d_filter(cpu, view(a.data(), 2, states), view(c.data(), 2, states), dt, view(k.data(), 2, taps));
  std::vector<double> want, magnitude;
  for (index h = 0; h < 2; ++h) {
    double const step = static_cast<double>(dt[static_cast<std::size_t>(h)]);
    for (index j = 0; j < taps; ++j) {
      wide sum = 0;
      double size = 0;
      for (index n = 0; n < states; ++n) {
        wide const pole(a[static_cast<std::size_t>(h * states + n)]), weight(c[static_cast<std::size_t>(h * states + n)]);
        // The integral of e^(A t) over a step, by Simpson's rule, and not by its closed form.
        wide held = 0;
        int const parts = 64;
        for (int i = 0; i <= 2 * parts; ++i)
          held += std::exp(pole * (step * i / (2 * parts))) * (i == 0 || i == 2 * parts ? 1.0 : i % 2 == 1 ? 4.0 : 2.0);
        held *= step / (6 * parts);
        sum += weight * held * std::exp(pole * (step * static_cast<double>(j)));
        size += 2 * std::abs(weight * held);
      }
      want.push_back(2 * sum.real());
      magnitude.push_back(size);
    }
  }
  CHECK(compare(k, want, magnitude, s4d_filter.error(taps)));
  CHECK(message_of([&] { s4d_filter(cpu, view(a.data(), 2, states), view(c.data(), 2, states - 1), dt, view(k.data(), 2, taps)); }) ==
        "s4d_filter: C's states is 4, expected A's states = 5");
}

TEST_CASE("a companion filter is that of its matrix, and of the recurrence it stands for") {
  rng r(4);
  index const d = 4, taps = 40;
  auto const a = r.normal(d, 0.3), b = r.normal(d), c = r.normal(d);
  std::vector<float> k(static_cast<std::size_t>(taps));
  companion_filter(cpu, view(a.data(), 1, d), view(b.data(), 1, d), view(c.data(), 1, d), view(k.data(), 1, taps));
  std::vector<double> x = widened(b), want;
  for (index j = 0; j < taps; ++j) {
    double y = 0;
    for (std::size_t i = 0; i < x.size(); ++i) y += static_cast<double>(c[i]) * x[i];
    want.push_back(y);
    double matrix[4][4] = {};
    for (std::size_t i = 0; i < 4; ++i) {
      if (i > 0) matrix[i][i - 1] = 1;
      matrix[i][3] += static_cast<double>(a[i]);
    }
    std::vector<double> next(4);
    for (std::size_t i = 0; i < 4; ++i)
      for (std::size_t l = 0; l < 4; ++l) next[i] += matrix[i][l] * x[l];
    x = next;
  }
  std::vector<double> magnitude;
  for (double e : want) magnitude.push_back(std::abs(e) + 1e-9);
  CHECK(compare(k, want, magnitude, companion_filter.error));
  CHECK(message_of([&] {
          companion_filter(cpu, view(a.data(), 1, d), view(b.data(), 1, 3), view(c.data(), 1, d), view(k.data(), 1, taps));
        }) == "companion_filter: b.extent(1) is 3, expected a.extent(1) = 4");
}

}  // namespace tern::test

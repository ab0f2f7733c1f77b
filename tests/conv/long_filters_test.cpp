// SPDX-License-Identifier: Apache-2.0
// The makers of filters, against their formulas written out.
#include "catch.hpp"
#include "compare.hpp"
#include "message.hpp"

#include <tern/conv/long_companion.hpp>
#include <tern/conv/long_decay.hpp>
#include <tern/conv/long_multiscale.hpp>
#include <tern/conv/long_s4.hpp>
#include <tern/conv/long_s4d.hpp>
#include <tern/conv/long_squash.hpp>

#include <cmath>
#include <complex>
#include <cstring>

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

TEST_CASE("long decaying filters are as exact as short ones, and growing ones too") {
  index const taps = 3001;
  std::vector<float> const weight{-1.5f, 1.f}, rate{1e-3f, -2e-3f};
  std::vector<float> k(2 * static_cast<std::size_t>(taps));
  decay_filter(cpu, weight, rate, view(k.data(), 2, taps));
  std::vector<double> want, magnitude;
  for (std::size_t c = 0; c < 2; ++c)
    for (index j = 0; j < taps; ++j) {
      want.push_back(static_cast<double>(weight[c]) * std::exp(-static_cast<double>(rate[c]) * static_cast<double>(j)));
      magnitude.push_back(std::abs(want.back()));
    }
  CHECK(compare(k, want, magnitude, decay_filter.error));
}

TEST_CASE("smoothed filters are means, squashed ones are nearer to zero") {
  rng r(5);
  index const taps = 600;  // more than two pieces of the sums
  auto raw = r.normal(2 * taps);
  raw[5] = -0.f;
  auto const from = view(raw.data(), 2, taps);
  std::vector<float> k(raw.size());
  auto const to = view(k.data(), 2, taps);
  for (index window : {3, 7, 1301}) {  // the last one is wider than the filter on both sides
    smooth_filter(cpu, from, window, to);
    std::vector<double> want, magnitude;
    for (index c = 0; c < 2; ++c)
      for (index j = 0; j < taps; ++j) {
        double sum = 0, size = 0;
        for (index i = std::max(index{0}, j - window / 2); i <= std::min(taps - 1, j + window / 2); ++i) {
          sum += static_cast<double>(from(c, i));
          size += std::abs(static_cast<double>(from(c, i)));
        }
        want.push_back(sum / static_cast<double>(window));
        magnitude.push_back(size / static_cast<double>(window));
      }
    CHECK(compare(k, want, magnitude, smooth_filter.error));
  }
  smooth_filter(cpu, from, 1, to);
  CHECK(std::memcmp(k.data(), raw.data(), k.size() * sizeof(float)) == 0);

  std::vector<double> want, magnitude;
  for (double e : widened(raw)) {
    want.push_back(std::copysign(std::max(std::abs(e) - 0.25, 0.), e));
    magnitude.push_back(std::abs(want.back()));
  }
  squash_filter(cpu, from, 0.25f, to);
  CHECK(compare(k, want, magnitude, squash_filter.error));
  squash_filter(cpu, to, 0.f, to);  // in place
  CHECK(compare(k, want, magnitude, squash_filter.error));
  squash_filter(cpu, from, 0.f, to);
  CHECK(std::memcmp(k.data(), raw.data(), k.size() * sizeof(float)) == 0);
}

TEST_CASE("what is not finite stays within its window, and wrong regularizers are refused") {
  std::vector<float> raw(40, 1.f), k(40);
  raw[20] = std::nanf("");
  raw[30] = -INFINITY;
  auto const from = view(raw.data(), 1, 40), to = view(k.data(), 1, 40);
  smooth_filter(cpu, from, 5, to);
  CHECK(k[17] == 1.f);
  CHECK(std::isnan(k[18]));
  CHECK(std::isnan(k[22]));
  CHECK(k[23] == 1.f);
  CHECK(k[32] == -INFINITY);
  CHECK(k[33] == 1.f);
  squash_filter(cpu, from, 2.f, to);
  CHECK(k[19] == 0.f);
  CHECK(std::isnan(k[20]));
  CHECK(k[30] == -INFINITY);
  CHECK(message_of([&] { smooth_filter(cpu, from, 4, to); }) == "smooth_filter: window is 4, expected an odd number, at least 1");
  CHECK(message_of([&] { smooth_filter(cpu, from, -1, to); }) == "smooth_filter: window is -1, expected an odd number, at least 1");
  CHECK(message_of([&] { smooth_filter(cpu, from, 3, view(raw.data(), 1, 40)); }) == "smooth_filter: k is raw, expected memory of its own");
  CHECK(message_of([&] { squash_filter(cpu, from, -1.f, to); }) == "squash_filter: lambda is negative or NaN, expected at least 0");
  CHECK(message_of([&] { squash_filter(cpu, from, 1.f, view(k.data(), 1, 39)); }) ==
        "squash_filter: k.extent(1) is 39, expected raw.extent(1) = 40");
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
  // A decay for each channel, of which each is what one number makes of it.
  std::vector<float> each(96), alone(48);
  std::vector<float> const decays{0.7f, 0.25f};
  multiscale_filter(cpu, view(many.data(), 2, 5, 3), decays, view(each.data(), 2, 48));
  for (std::size_t c = 0; c < 2; ++c) {
    multiscale_filter(cpu, view(many.data() + 15 * c, 1, 5, 3), decays[c], view(alone.data(), 1, 48));
    CHECK(std::equal(alone.begin(), alone.end(), each.begin() + static_cast<std::ptrdiff_t>(48 * c)));
  }
  CHECK(message_of([&] { multiscale_filter(cpu, view(many.data(), 2, 5, 3), std::vector<float>(3), view(taps.data(), 2, 48)); }) ==
        "multiscale_filter: decay.extent(0) is 3, expected pieces.extent(0) = 2");
  CHECK(message_of([&] { multiscale_filter(cpu, view(many.data(), 2, 5, 3), 0.5f, view(taps.data(), 2, 47)); }) ==
        "multiscale_filter: k.extent(1) is 47, expected d 2^(S - 1) = 48");
}

TEST_CASE("S4D's filter is the sum over its states") {
  using complex = std::complex<float>;
  using wide = std::complex<double>;
  rng r(3);
  index const states = 5, taps = 4300;  // more than a piece of the sums
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
    std::vector<wide> weights;
    double size = 0;
    for (index n = 0; n < states; ++n) {
      // The integral of e^(A t) over a step, by Simpson's rule, and not by its closed form.
      wide const pole(a[static_cast<std::size_t>(h * states + n)]);
      wide held = 0;
      int const parts = 64;
      for (int i = 0; i <= 2 * parts; ++i)
        held += std::exp(pole * (step * i / (2 * parts))) * (i == 0 || i == 2 * parts ? 1.0 : i % 2 == 1 ? 4.0 : 2.0);
      weights.push_back(wide(c[static_cast<std::size_t>(h * states + n)]) * held * (step / (6 * parts)));
      size += 2 * std::abs(weights.back());
    }
    for (index j = 0; j < taps; ++j) {
      wide sum = 0;
      for (index n = 0; n < states; ++n)
        sum += weights[static_cast<std::size_t>(n)] *
               std::exp(wide(a[static_cast<std::size_t>(h * states + n)]) * (step * static_cast<double>(j)));
      want.push_back(2 * sum.real());
      magnitude.push_back(size);
    }
  }
  CHECK(compare(k, want, magnitude, s4d_filter.error(taps)));
  CHECK(message_of([&] { s4d_filter(cpu, view(a.data(), 2, states), view(c.data(), 2, states - 1), dt, view(k.data(), 2, taps)); }) ==
        "s4d_filter: C's states is 4, expected A's states = 5");
}

namespace {

using wide = std::complex<double>;
using narrow = std::complex<float>;

/// A state space as S4 has it, of 2 channels, in f32, and its filter by the recurrence on all states, conjugates too.
struct state_space {
  index states, rank;
  std::vector<narrow> lambda, p, b, c;
  std::vector<float> dt{0.05f, 0.2f};

  state_space(rng& r, index n, index low) : states(n), rank(low) {
    auto const any = [&](index count, double size) {
      std::vector<narrow> z;
      for (index i = 0; i < count; ++i) z.push_back({static_cast<float>(size * r.normal()), static_cast<float>(size * r.normal())});
      return z;
    };
    for (index i = 0; i < 2 * n; ++i) lambda.push_back({-0.5f, 3.f * static_cast<float>(i % n)});
    p = any(2 * low * n, 0.7);
    b = any(2 * n, 1);
    c = any(2 * n, 1);
  }
  auto filter(std::vector<narrow> const& out, index taps, bool truncated) const {
    std::vector<float> k(2 * static_cast<std::size_t>(taps));
    s4_filter(cpu, view(lambda.data(), 2, states), view(p.data(), 2, rank, states), view(b.data(), 2, states), view(out.data(), 2, states),
              dt, view(k.data(), 2, taps), truncated);
    return k;
  }

  /// The given numbers of a channel, and their conjugates behind them.
  std::vector<wide> pairs(std::vector<narrow> const& z, index row) const {
    std::vector<wide> all;
    for (int side = 0; side < 2; ++side)
      for (index n = 0; n < states; ++n) {
        wide const e(z[static_cast<std::size_t>(row * states + n)]);
        all.push_back(side == 0 ? e : std::conj(e));
      }
    return all;
  }
  /// 1 + s A
  void matrix(index channel, double s, std::vector<std::vector<wide>>& m) const {
    auto const poles = pairs(lambda, channel);
    std::size_t const all = poles.size();
    m.assign(all, std::vector<wide>(all));
    for (std::size_t i = 0; i < all; ++i) m[i][i] = 1. + s * poles[i];
    for (index r = 0; r < rank; ++r) {
      auto const low = pairs(p, channel * rank + r);
      for (std::size_t i = 0; i < all; ++i)
        for (std::size_t j = 0; j < all; ++j) m[i][j] -= s * low[i] * std::conj(low[j]);
    }
  }
  /// x = m^-1 x, by elimination with pivots.
  static void solve(std::vector<std::vector<wide>> m, std::vector<wide>& x) {
    std::size_t const all = x.size();
    for (std::size_t q = 0; q < all; ++q) {
      std::size_t best = q;
      for (std::size_t i = q; i < all; ++i)
        if (std::abs(m[i][q]) > std::abs(m[best][q])) best = i;
      std::swap(m[q], m[best]);
      std::swap(x[q], x[best]);
      for (std::size_t i = 0; i < all; ++i) {
        wide const factor = i == q ? wide(0) : m[i][q] / m[q][q];
        for (std::size_t j = q; j < all; ++j) m[i][j] -= factor * m[q][j];
        x[i] -= factor * x[q];
      }
    }
    for (std::size_t i = 0; i < all; ++i) x[i] /= m[i][i];
  }
  std::vector<double> recurrence(index channel, index taps) const {
    double const h = static_cast<double>(dt[static_cast<std::size_t>(channel)]) / 2;
    std::vector<std::vector<wide>> forward, back;
    matrix(channel, h, forward);
    matrix(channel, -h, back);
    auto x = pairs(b, channel);
    auto const out = pairs(c, channel);
    for (wide& e : x) e *= 2 * h;
    solve(back, x);
    std::vector<double> k;
    for (index j = 0; j < taps; ++j) {
      wide sum = 0;
      for (std::size_t n = 0; n < x.size(); ++n) sum += out[n] * x[n];
      k.push_back(sum.real());
      std::vector<wide> next(x.size());
      for (std::size_t i = 0; i < x.size(); ++i)
        for (std::size_t n = 0; n < x.size(); ++n) next[i] += forward[i][n] * x[n];
      solve(back, next);
      x = next;
    }
    return k;
  }
};

/// Whether a channel's taps are within S4's bound of the wanted ones.
comparison near_in_norm(std::vector<float> const& k, index channel, std::vector<double> const& want) {
  double squares = 0;
  for (double e : want) squares += e * e;
  std::vector<double> const size(want.size(), std::sqrt(squares));
  auto const taps = static_cast<index>(want.size());
  return compare(view(k.data() + channel * taps, taps), want, size, s4_filter.error(taps));
}

}  // namespace

TEST_CASE("S4's filter is that of the recurrence, for any length and rank") {
  rng r(6);
  for (index rank : {0, 1, 2, 4})
    for (index taps : {1, 2, 3, 64, 97, 150}) {
      state_space const s(r, 4, rank);
      auto const k = s.filter(s.c, taps, false);
      for (index channel = 0; channel < 2; ++channel) CHECK(near_in_norm(k, channel, s.recurrence(channel, taps)));
    }
}

TEST_CASE("what S4 learns is taken as it is") {
  // c = C (1 - M^taps) is C = sum over i of c M^(i taps): k is the sum of pieces of the filter that c makes, one after the other.
  rng r(7);
  state_space s(r, 3, 1);
  for (narrow& e : s.lambda) e = {-4.f, e.imag()};  // so fast that the sum over i ends soon
  index const taps = 50, pieces = 8;
  auto const k = s.filter(s.c, taps, true);
  for (index channel = 0; channel < 2; ++channel) {
    auto const whole = s.recurrence(channel, taps * pieces);
    std::vector<double> want(static_cast<std::size_t>(taps));
    for (std::size_t j = 0; j < whole.size(); ++j) want[j % want.size()] += whole[j];
    CHECK(near_in_norm(k, channel, want));
  }
}

TEST_CASE("S4's arguments are refused by name") {
  rng r(8);
  state_space const s(r, 4, 1);
  std::vector<float> k(20);
  auto const z = view(s.b.data(), 2, 4);
  auto const call = [&](auto const& lambda, auto const& p, auto const& c, index channels) {
    return message_of([&] { s4_filter(cpu, lambda, p, z, c, s.dt, view(k.data(), channels, 10)); });
  };
  auto const p = view(s.p.data(), 2, 1, 4);
  CHECK(call(view(s.b.data(), 2, 3), p, z, 2) == "s4_filter: p's states is 4, expected lambda's states = 3");
  CHECK(call(z, view(s.p.data(), 1, 1, 4), z, 2) == "s4_filter: p's channels is 1, expected k.extent(0) = 2");
  CHECK(call(z, view(s.p.data(), 1, 5, 4), z, 2) == "s4_filter: p.extent(1) is 5, expected at most 4");
  CHECK(call(z, p, view(s.b.data(), 2, 3), 2) == "s4_filter: c's states is 3, expected lambda's states = 4");
  CHECK(call(z, p, z, 1) == "s4_filter: lambda's channels is 2, expected k.extent(0) = 1");
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

// SPDX-License-Identifier: Apache-2.0
#include <tern/conv/monarch.hpp>
#include <tern/conv/systems/flash_butterfly.hpp>
#include <tern/core/thread_pool.hpp>

#include "long_cases.hpp"

#include <complex>

namespace tern::test {
namespace {

using wide = std::complex<double>;

std::size_t at(index i) { return static_cast<std::size_t>(i); }
wide widened(complex_f32 z) { return {static_cast<double>(z.re), static_cast<double>(z.im)}; }
double norm(std::vector<wide> const& x) {
  double sum = 0;
  for (wide e : x) sum += std::norm(e);
  return std::sqrt(sum);
}
/// Row `row` of z against what is wanted, |.|_2 of the difference.
double distance(std::vector<complex_f32> const& z, index row, std::vector<wide> want) {
  for (std::size_t i = 0; i < want.size(); ++i) want[i] -= widened(z[at(row) * want.size() + i]);
  return norm(want);
}
/// The frequency at each place.
std::vector<index> frequencies(std::vector<index> const& sizes) {
  std::vector<index> f{0};
  index step = 1;
  for (index n : sizes) {
    std::vector<index> next;
    for (index before : f)
      for (index k = 0; k < n; ++k) next.push_back(before + step * k);
    f = next;
    step *= n;
  }
  return f;
}

std::vector<complex_f32> complex_normal(rng& r, index n, double scale = 1) {
  std::vector<complex_f32> x;
  for (index i = 0; i < n; ++i) {
    auto const re = static_cast<float>(scale * r.normal());
    x.push_back({re, static_cast<float>(scale * r.normal())});
  }
  return x;
}
/// A factor of its own at each place, or one for all, and its definition in float64.
struct random_factor {
  index count, n, outer, inner;
  std::vector<complex_f32> blocks, twiddles;
  random_factor(rng& r, index total, index size, index before, bool shared, bool turned)
      : count(shared ? 1 : total / size),
        n(size),
        outer(before),
        inner(total / size / before),
        blocks(complex_normal(r, count * n * n, 1 / std::sqrt(static_cast<double>(n)))),
        twiddles(complex_normal(r, turned ? total : 0)) {}
  monarch_factor view() const {
    monarch_factor f{tern::view(blocks.data(), count, n, n)};
    if (!twiddles.empty()) f.twiddles = tern::view(twiddles);
    return f;
  }
  std::vector<wide> times(std::vector<wide> z, bool forward) const {
    if (!forward) turn(z);
    std::vector<wide> out(z.size());
    for (index i = 0; i < static_cast<index>(z.size()); ++i) {
      index const o = i / (n * inner), k = i / inner % n, r = i % inner, block = count == 1 ? 0 : o * inner + r;
      for (index j = 0; j < n; ++j) out[at(i)] += widened(blocks[at((block * n + k) * n + j)]) * z[at((o * n + j) * inner + r)];
    }
    if (forward) turn(out);
    return out;
  }
  void turn(std::vector<wide>& z) const {
    for (std::size_t i = 0; i < twiddles.size(); ++i) z[i] *= widened(twiddles[i]);
  }
  /// What it may lengthen a vector by.
  double size() const {
    double most = 0, turned = twiddles.empty() ? 1 : 0;
    for (index b = 0; b < count; ++b) {
      double sum = 0;
      for (index i = 0; i < n * n; ++i) sum += std::norm(widened(blocks[at(b * n * n + i)]));
      most = std::max(most, std::sqrt(sum));
    }
    for (complex_f32 t : twiddles) turned = std::max(turned, std::abs(widened(t)));
    return most * turned;
  }
};

template <std::size_t P>
void check_dft(index const (&sizes)[P]) {
  auto const forward = monarch_plan::dft(sizes);
  auto const inverse = monarch_plan::dft(sizes, fft_direction::inverse);
  index const n = forward.size(), rows = 19;
  rng r(static_cast<std::uint64_t>(n));
  auto const x = r.normal(rows * n);
  std::vector<complex_f32> z(x.size());
  std::vector<float> back(x.size());
  monarch(cpu, forward, view(x.data(), rows, n), view(z.data(), rows, n));
  monarch_inverse(cpu, inverse, view(z.data(), rows, n), view(back.data(), rows, n));
  auto const order = frequencies(std::vector<index>(sizes, sizes + P));
  INFO("n " << n);
  for (index row : {index{0}, index{7}, rows - 1}) {
    std::vector<wide> of_row, want;
    for (index i = 0; i < n; ++i) of_row.push_back(static_cast<double>(x[at(row * n + i)]));
    auto const all = oracle::dft(of_row, -1);
    for (index f : order) want.push_back(all[at(f)]);
    REQUIRE(distance(z, row, want) <= forward.error() * norm(want));
    double squares = 0;
    for (index i = 0; i < n; ++i) squares += std::norm(of_row[at(i)] - static_cast<double>(back[at(row * n + i)]));
    REQUIRE(std::sqrt(squares) <= (forward.error() + inverse.error()) * norm(of_row));
  }
}

}  // namespace

TEST_CASE("monarch: with exact factors it is the Fourier transform, and its inverse undoes it", "[conv]") {
  check_dft({1});
  check_dft({7});
  check_dft({1, 5});
  check_dft({4, 6});
  check_dft({40, 3});
  check_dft({3, 2, 5});
  check_dft({8, 8, 8});
  check_dft({2, 3, 4, 5});
}

TEST_CASE("monarch: products of factors of any kind", "[conv]") {
  rng r(9);
  for (bool shared : {false, true})
    for (bool turned : {false, true}) {
      index const n = 48, rows = 18;
      std::vector<random_factor> const f{{r, n, 4, 1, shared, turned}, {r, n, 6, 4, !shared, turned}, {r, n, 2, 24, shared, false}};
      monarch_factor const views[] = {f[0].view(), f[1].view(), f[2].view()};
      monarch_plan const forward({4, 6, 2}, views), inverse({4, 6, 2}, views, fft_direction::inverse);
      auto const x = r.normal(rows * n);
      auto const spectrum = complex_normal(r, rows * n);
      std::vector<complex_f32> z(x.size());
      std::vector<float> y(x.size());
      monarch(cpu, forward, view(x.data(), rows, n), view(z.data(), rows, n));
      monarch_inverse(cpu, inverse, view(spectrum.data(), rows, n), view(y.data(), rows, n));
      double const size = f[0].size() * f[1].size() * f[2].size();
      for (index row = 0; row < rows; ++row) {
        std::vector<wide> a, b;
        for (index i = 0; i < n; ++i) {
          a.push_back(static_cast<double>(x[at(row * n + i)]));
          b.push_back(widened(spectrum[at(row * n + i)]));
        }
        double const of_a = norm(a), of_b = norm(b);
        for (int s = 0; s < 3; ++s) {
          a = f[at(s)].times(a, true);
          b = f[at(2 - s)].times(b, false);
        }
        REQUIRE(distance(z, row, a) <= forward.error() * size * of_a);
        double squares = 0;
        for (index i = 0; i < n; ++i) squares += std::pow(b[at(i)].real() - static_cast<double>(y[at(row * n + i)]), 2);
        REQUIRE(std::sqrt(squares) <= inverse.error() * size * of_b);
      }
    }
}

TEST_CASE("monarch: a row is the same alone and on threads, and bf16 is as near as its roundings", "[conv]") {
  rng r(10);
  index const n = 36 * 8, rows = 50;
  auto const plan = monarch_plan::dft({36, 8});
  auto const x = r.normal(rows * n);
  std::vector<complex_f32> all(x.size()), threads(x.size()), one(at(n)), half(x.size());
  thread_pool three(3);
  monarch(cpu.on(serial), plan, view(x.data(), rows, n), view(all.data(), rows, n));
  monarch(cpu.on(three), plan, view(x.data(), rows, n), view(threads.data(), rows, n));
  CHECK(std::memcmp(all.data(), threads.data(), all.size() * sizeof(complex_f32)) == 0);
  for (index row : {index{0}, index{20}, rows - 1}) {
    monarch(cpu, plan, view(x.data() + row * n, 1, n), view(one.data(), 1, n));
    CHECK(std::memcmp(all.data() + row * n, one.data(), one.size() * sizeof(complex_f32)) == 0);
  }
  monarch(cpu, plan, view(x.data(), rows, n), view(half.data(), rows, n), compute::bf16);
  double squares = 0, size = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    squares += std::norm(widened(all[i]) - widened(half[i]));
    size += std::norm(widened(all[i]));
  }
  CHECK(std::sqrt(squares / size) <= 4 * 0x1p-8);  // two factors, two roundings each
  CHECK(squares > 0);
}

TEST_CASE("flash_butterfly: with exact factors a causal convolution, with others their product", "[conv]") {
  rng r(11);
  index const channels = 3, n = 60, sizes[] = {12, 10};
  auto const forward = monarch_plan::dft({12, 10}), inverse = monarch_plan::dft({12, 10}, fft_direction::inverse);
  signal<> const u(r, 2, channels, n);
  signal<> y(2, channels, n);
  std::vector<float> k(at(channels * 120));
  for (index i = 0; i < channels * n; ++i) k[at(i / n * 120 + i % n)] = static_cast<float>(r.normal());
  std::vector<complex_f32> spectra(k.size());
  monarch(cpu, forward, view(k.data(), channels, 120), view(spectra.data(), channels, 120));
  flash_butterfly(cpu, u.view, view(spectra.data(), channels, 120), forward, inverse, y.view);
  for (index b = 0; b < 2; ++b)
    for (index c = 0; c < channels; ++c) {
      oracle::row f;
      for (index i = 0; i < n; ++i) f.push_back(static_cast<double>(k[at(c * 120 + i)]));
      // |B u|_2 is sqrt(N) |u|_2, and no number of B k exceeds the sum of |k|, sqrt(n) |k|_2.
      double const size = oracle::norm(u.row(b, c)) * oracle::norm(f) * std::sqrt(60.);
      CHECK(close_row(y.view, b, c, oracle::long_conv(u.row(b, c), f, oracle::filter_place::causal), size,
                      2 * forward.error() + inverse.error() + 0x1p-22));
    }
  CHECK(y.intact());

  std::vector<random_factor> const f{{r, 120, 12, 1, false, false}, {r, 120, 10, 12, true, false}},
      g{{r, 120, 12, 1, true, true}, {r, 120, 10, 12, false, false}};
  monarch_factor const one[] = {f[0].view(), f[1].view()}, other[] = {g[0].view(), g[1].view()};
  monarch_plan const b(sizes, one), back(sizes, other, fft_direction::inverse);
  auto const learned = complex_normal(r, channels * 120);
  flash_butterfly(cpu, u.view, view(learned.data(), channels, 120), b, back, y.view);
  for (index c = 0; c < channels; ++c) {
    std::vector<wide> z(120);
    for (index i = 0; i < n; ++i) z[at(i)] = u.row(1, c)[at(i)];
    double largest = 0;
    for (complex_f32 e : learned) largest = std::max(largest, std::abs(widened(e)));
    double const size = largest * oracle::norm(u.row(1, c)) * f[0].size() * f[1].size() * g[0].size() * g[1].size();
    z = f[1].times(f[0].times(z, true), true);
    for (index i = 0; i < 120; ++i) z[at(i)] *= widened(learned[at(c * 120 + i)]);
    z = g[0].times(g[1].times(z, false), false);
    oracle::row want;
    for (index i = 0; i < n; ++i) want.push_back(z[at(i)].real());
    CHECK(close_row(y.view, 1, c, want, size, b.error() + back.error() + 0x1p-22));
  }
}

TEST_CASE("monarch and flash_butterfly say what is wrong", "[conv]") {
  rng r(12);
  auto const blocks = complex_normal(r, 12 * 12);
  auto const factor = [&](index count, index n) { return monarch_factor{view(blocks.data(), count, n, n)}; };
  monarch_factor turned = factor(1, 3);
  turned.twiddles = view(blocks.data(), 11);
  CHECK(message_of([&] { monarch_plan::dft({4, 0}); }) == "monarch_plan: a size is 0, expected at least 1");
  CHECK(message_of([&] { monarch_plan({4, 3}, {factor(2, 4), factor(1, 3)}); }) ==
        "monarch_plan: the number of a factor's blocks is 2, expected 1 or N / n = 3");
  CHECK(message_of([&] { monarch_plan({4, 3}, {factor(3, 4), factor(1, 4)}); }) ==
        "monarch_plan: an extent of a factor's blocks is 4, expected n = 3");
  CHECK(message_of([&] { monarch_plan({3, 4}, {turned, factor(1, 4)}); }) ==
        "monarch_plan: a factor's twiddles.extent(0) is 11, expected N = 12");
  turned.twiddles = view(blocks.data(), 12);
  CHECK(message_of([&] { monarch_plan({4, 3}, {factor(1, 4), turned}); }) ==
        "monarch_plan: the twiddles of factor is 2, expected a factor before the last");
  auto const plan = monarch_plan::dft({4, 3}), back = monarch_plan::dft({4, 3}, fft_direction::inverse),
             wrong = monarch_plan::dft({3, 4}, fft_direction::inverse);
  std::vector<float> x(48), y(48);
  std::vector<complex_f32> z(48);
  auto const xs = view(x.data(), 2, 12);
  CHECK(message_of([&] { monarch(cpu, back, xs, view(z.data(), 2, 12)); }) ==
        "monarch: the plan is an inverse one, expected a forward one");
  CHECK(message_of([&] { monarch_inverse(cpu, plan, view(z.data(), 2, 12), xs); }) ==
        "monarch_inverse: the plan is a forward one, expected an inverse one");
  CHECK(message_of([&] { monarch(cpu, plan, xs, view(z.data(), 2, 13)); }) ==
        "monarch: z.extent(1) is 13, expected the plan's size() = 12");
  CHECK(message_of([&] { monarch(cpu, plan, xs, view(z.data(), 1, 12)); }) == "monarch: z.extent(0) is 1, expected x.extent(0) = 2");
  CHECK(message_of([&] { monarch(cpu, plan, xs.slice(1, 0, 6), view(z.data(), 2, 12)); }) ==
        "monarch: x.extent(1) is 6, expected plan.size() = 12");
  auto const u = view(x.data(), 2, 2, 12);
  auto const v = view(y.data(), 2, 2, 12);
  auto const k = view(z.data(), 2, 12);
  CHECK(message_of([&] { flash_butterfly(cpu, u, k, plan, wrong, v); }) == "flash_butterfly: a size of back is 3, expected that of b = 4");
  CHECK(message_of([&] { flash_butterfly(cpu, view(x.data(), 1, 2, 13), k, plan, back, view(y.data(), 1, 2, 13)); }) ==
        "flash_butterfly: u.extent(2) is 13, expected at most b.size()");
  CHECK(message_of([&] { flash_butterfly(cpu, u, view(z.data(), 3, 12), plan, back, v); }) ==
        "flash_butterfly: k_f.extent(0) is 3, expected u.extent(1) = 2");
  CHECK(message_of([&] { flash_butterfly(cpu, u, view(z.data(), 12, 2).transposed(0, 1), plan, back, v); }) ==
        "flash_butterfly: k_f.stride(1) is 2, expected 1 (contiguous)");
  CHECK(message_of([&] { flash_butterfly(cpu, u, k, plan, back, v.slice(1, 0, 1)); }) ==
        "flash_butterfly: y.extent(1) is 1, expected u.extent(1) = 2");
}

}  // namespace tern::test

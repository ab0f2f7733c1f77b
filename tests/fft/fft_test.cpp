// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "compare.hpp"
#include "message.hpp"
#include "oracle/long_conv.hpp"

#include <tern/core/thread_pool.hpp>
#include <tern/fft.hpp>

#include <algorithm>
#include <complex>
#include <cstring>
#include <vector>

namespace tern::test {

namespace {
using complex = std::complex<float>;
using wide = std::vector<std::complex<double>>;

std::vector<complex> complex_normal(rng& r, index n) {
  std::vector<complex> x;
  for (index i = 0; i < n; ++i) {
    auto const re = static_cast<float>(r.normal());
    x.push_back({re, static_cast<float>(r.normal())});
  }
  return x;
}
template <class T>
wide widened_complex(std::vector<T> const& x) {
  wide y;
  for (auto const& e : x) y.push_back(std::complex<double>(e));
  return y;
}
double norm(wide const& x) {
  double sum = 0;
  for (auto const& e : x) sum += std::norm(e);
  return std::sqrt(sum);
}
/// |got - want| relative to |want|.
template <class T>
double distance(std::vector<T> const& got, wide want) {
  double const size = norm(want);
  for (std::size_t i = 0; i < want.size(); ++i) want[i] -= std::complex<double>(got[i]);
  return norm(want) / size;
}
/// The transform of (rows, columns) in both directions, by rows and then columns.
wide dft_2d(wide x, index rows, index columns, int sign) {
  for (index r = 0; r < rows; ++r) {
    auto const row = oracle::dft(wide(x.begin() + r * columns, x.begin() + (r + 1) * columns), sign);
    std::copy(row.begin(), row.end(), x.begin() + r * columns);
  }
  for (index c = 0; c < columns; ++c) {
    wide column;
    for (index r = 0; r < rows; ++r) column.push_back(x[static_cast<std::size_t>(r * columns + c)]);
    column = oracle::dft(column, sign);
    for (index r = 0; r < rows; ++r) x[static_cast<std::size_t>(r * columns + c)] = column[static_cast<std::size_t>(r)];
  }
  return x;
}
std::vector<index> const lengths{1,   2,   3,   4,   5,   6,   7,   8,   11,   12,   13,   15,   16,   17,   25,  30,  31,
                                 32,  45,  49,  60,  64,  66,  77,  97,  100,  120,  126,  127,  128,  143,  169, 182, 192,
                                 243, 256, 270, 448, 500, 625, 720, 750, 1000, 1001, 1009, 1024, 2048, 2310, 3000};
}  // namespace

TEST_CASE("the transform of any length is the sum of its definition, and the inverse undoes it") {
  for (index n : lengths) {
    rng r(static_cast<std::uint64_t>(n));
    auto const x = complex_normal(r, n);
    std::vector<complex> y(x.size()), back(x.size());
    fft_plan const plan(n);
    fft(cpu, plan, x, y);
    INFO("n " << n);
    REQUIRE(distance(y, oracle::dft(widened_complex(x), -1)) <= plan.error());
    fft(cpu, y, back, fft_direction::inverse);
    REQUIRE(distance(back, widened_complex(x)) <= 2 * plan.error());
  }
}

TEST_CASE("real transforms are the first half of complex ones, and their inverse undoes them") {
  for (index n : lengths) {
    rng r(static_cast<std::uint64_t>(n + 5000));
    auto const x = r.normal(n);
    std::vector<complex> y(static_cast<std::size_t>(n / 2 + 1));
    std::vector<float> back(x.size());
    real_fft(cpu, x, y);
    auto want = oracle::dft(widened_complex(x), -1);
    double const whole = norm(want);
    want.resize(y.size());
    INFO("n " << n);
    double const bound = (fft_plan(n).error() + fft_plan(n % 2 == 0 ? n / 2 : n).error()) * whole / norm(want);
    REQUIRE(distance(y, want) <= bound);
    if (n > 1) y[0] += complex{0, 5};  // counts for nothing
    real_fft_inverse(cpu, y, back);
    REQUIRE(distance(back, widened_complex(x)) <= 4 * bound);
  }
}

TEST_CASE("two-dimensional transforms are transforms of rows and of columns") {
  for (auto const& [rows, columns] : {std::pair<index, index>{1, 1}, {4, 6}, {7, 16}, {12, 33}, {17, 40}, {64, 5}}) {
    rng r(static_cast<std::uint64_t>(rows * 100 + columns));
    index const half = columns / 2 + 1;
    auto const x = complex_normal(r, 2 * rows * columns);
    std::vector<complex> y(x.size()), back(x.size());
    fft_2d(cpu, view(x.data(), 2, rows, columns), view(y.data(), 2, rows, columns));
    INFO(rows << " rows, " << columns << " columns");
    double const bound = fft_plan(rows).error() + fft_plan(columns).error();
    auto const second = x.begin() + rows * columns;
    REQUIRE(distance(std::vector<complex>(y.begin() + rows * columns, y.end()),
                     dft_2d(widened_complex(std::vector<complex>(second, x.end())), rows, columns, -1)) <= bound);
    fft_2d(cpu, view(y.data(), 2, rows, columns), view(back.data(), 2, rows, columns), fft_direction::inverse);
    REQUIRE(distance(back, widened_complex(x)) <= 2 * bound);

    auto const real = r.normal(rows * columns);
    std::vector<complex> spectrum(static_cast<std::size_t>(rows * half));
    std::vector<float> again(real.size());
    real_fft_2d(cpu, view(real.data(), rows, columns), view(spectrum.data(), rows, half));
    auto const all = dft_2d(widened_complex(real), rows, columns, -1);
    wide want;
    for (index i = 0; i < rows * half; ++i) want.push_back(all[static_cast<std::size_t>(i / half * columns + i % half)]);
    REQUIRE(distance(spectrum, want) <= 3 * bound);
    real_fft_2d_inverse(cpu, view(spectrum.data(), rows, half), view(again.data(), rows, columns));
    REQUIRE(distance(again, widened_complex(real)) <= 6 * bound);
  }
}

TEST_CASE("transforms take strided rows, any threads, and write over their input") {
  rng r(8);
  index const rows = 6, n = 90;
  auto x = complex_normal(r, rows * n * 3);
  std::vector<complex> y(static_cast<std::size_t>(rows * n)), alone(y.size());
  tensor_view<complex, 3> const strided(x.data(), shape<3>{{2, 3, n}}, shape<3>{{3 * n * 3, n * 3, 3}});
  thread_pool three(3);
  fft(cpu.on(three), strided, view(y.data(), 2, 3, n));
  fft(cpu.on(serial), strided, view(alone.data(), 2, 3, n));
  CHECK(y == alone);
  std::vector<complex_f32> plain;
  for (index j = 0; j < n; ++j) plain.push_back({x[static_cast<std::size_t>(3 * j)].real(), x[static_cast<std::size_t>(3 * j)].imag()});
  fft(cpu, plain, plain);
  for (index j = 0; j < n; ++j)
    REQUIRE(complex(plain[static_cast<std::size_t>(j)].re, plain[static_cast<std::size_t>(j)].im) == y[static_cast<std::size_t>(j)]);
  fft(cpu, strided, strided);
  for (index i = 0; i < rows * n; ++i) REQUIRE(strided(i / n / 3, i / n % 3, i % n) == y[static_cast<std::size_t>(i)]);
}

namespace {
/// Threads change no bit of what call(policy) leaves in `result`, in a workspace of the size that it says; a smaller one is refused.
template <class T, class Size, class Call>
void expect_same_bits(std::vector<T> const& result, Size const& size, Call const& call) {
  thread_pool three(3);
  auto const policy = cpu.on(three);
  std::size_t const bytes = size(policy);
  std::vector<std::byte> memory(bytes);
  workspace exact(memory.data(), bytes), small(memory.data(), bytes - 2 * workspace::alignment);
  call(cpu.on(serial));
  auto const alone = result;
  call(policy.with(exact));
  CHECK(std::memcmp(result.data(), alone.data(), alone.size() * sizeof(T)) == 0);
  CHECK(message_of([&] { call(policy.with(small)); }).substr(0, 10) == "workspace:");
}
}  // namespace

TEST_CASE("transforms have the same bits on any threads, and take no more memory than they say") {
  rng r(9);
  for (auto const& [rows, n] : {std::pair<index, index>{1, 90}, {40, 24}, {5, 300}, {5, 97}, {1, 65536}, {2, 1001}, {1, 105000}}) {
    INFO(rows << " rows of " << n);
    fft_plan const plan(n), across(rows);
    real_fft_plan const real_plan(n);
    index const half = n / 2 + 1;
    auto const x = complex_normal(r, rows * n), bins = complex_normal(r, rows * half);
    auto const signal = r.normal(rows * n);
    std::vector<complex> y(x.size()), some(bins.size());
    std::vector<float> back(signal.size());
    tensor_view<complex const, 2> const xs = view(x.data(), rows, n), b = view(bins.data(), rows, half);
    tensor_view<complex, 2> const ys = view(y.data(), rows, n), s = view(some.data(), rows, half);
    auto const real = view(signal.data(), rows, n);
    auto const to = view(back.data(), rows, n);
    for (auto const way : {fft_direction::forward, fft_direction::inverse}) {
      expect_same_bits(
          y, [&](auto const& p) { return workspace_size(fft, p, plan, xs, ys, way); }, [&](auto const& p) { fft(p, plan, xs, ys, way); });
      expect_same_bits(
          y, [&](auto const& p) { return workspace_size(fft_2d, p, xs, ys, way); },
          [&](auto const& p) { fft_2d(p, across, plan, xs, ys, way); });
    }
    expect_same_bits(
        some, [&](auto const& p) { return workspace_size(real_fft, p, real, s); }, [&](auto const& p) { real_fft(p, real_plan, real, s); });
    expect_same_bits(
        back, [&](auto const& p) { return workspace_size(real_fft_inverse, p, real_plan, b, to); },
        [&](auto const& p) { real_fft_inverse(p, b, to); });
    expect_same_bits(
        some, [&](auto const& p) { return workspace_size(real_fft_2d, p, across, real_plan, real, s); },
        [&](auto const& p) { real_fft_2d(p, real, s); });
    expect_same_bits(
        back, [&](auto const& p) { return workspace_size(real_fft_2d_inverse, p, b, to); },
        [&](auto const& p) { real_fft_2d_inverse(p, across, real_plan, b, to); });
    // One row is what it is among others.
    std::vector<complex> one(static_cast<std::size_t>(n));
    fft(cpu, plan, xs, ys);
    fft(cpu, plan, xs[rows - 1], one);
    CHECK(std::equal(one.begin(), one.end(), y.end() - n));
  }
}

TEST_CASE("the error of a transform grows as the logarithm of its length") {
  for (index n : {64, 4096, 65536, 3 * 3 * 3 * 3 * 25 * 32, 8191, 65537}) {
    rng r(static_cast<std::uint64_t>(n));
    auto const x = complex_normal(r, n);
    std::vector<complex> y(x.size());
    fft_plan const plan(n);
    fft(cpu, plan, x, y);
    // The energy is that of the input, and some places are looked at.
    CHECK(std::abs(norm(widened_complex(y)) / norm(widened_complex(x)) / std::sqrt(static_cast<double>(n)) - 1) <= plan.error());
    double squares = 0;
    for (int i = 0; i < 20; ++i) {
      index const f = r.integer(0, n - 1);
      std::complex<double> want = 0;
      for (index j = 0; j < n; ++j)
        want += std::complex<double>(x[static_cast<std::size_t>(j)]) *
                std::polar(1.0, -6.283185307179586 * static_cast<double>(j * f % n) / static_cast<double>(n));
      squares += std::norm(want - std::complex<double>(y[static_cast<std::size_t>(f)]));
    }
    INFO("n " << n);
    CHECK(std::sqrt(squares / 20) <= plan.error() * norm(widened_complex(x)));
  }
}

TEST_CASE("a wrong transform says what is wrong") {
  std::vector<complex> x(64), y(64);
  std::vector<float> real(64);
  CHECK(message_of([&] { fft_plan(0); }) == "fft_plan: n is 0, expected at least 1");
  CHECK(message_of([&] { fft(cpu, fft_plan(8), x, y); }) == "fft: the plan's size() is 8, expected x's length = 64");
  CHECK(message_of([&] { fft(cpu, x, view(y.data(), 32)); }) == "fft: y's length is 32, expected x's length = 64");
  CHECK(message_of([&] { fft(cpu, view(x.data(), 2, 8), view(y.data(), 3, 8)); }) == "fft: y's rows is 3, expected x's rows = 2");
  CHECK(message_of([&] { real_fft_plan(0); }) == "fft_plan: n is 0, expected at least 1");
  CHECK(message_of([&] { real_fft(cpu, real_fft_plan(32), real, view(y.data(), 33)); }) ==
        "real_fft: the plan's size() is 32, expected the signal's length = 64");
  CHECK(message_of([&] { fft_2d(cpu, fft_plan(4), fft_plan(8), view(x.data(), 8, 8), view(y.data(), 8, 8)); }) ==
        "fft_2d: the plan's size() is 4, expected x's number of rows = 8");
  CHECK(message_of([&] { real_fft(cpu, real, y); }) == "real_fft: the spectrum's length is 64, expected n / 2 + 1 = 33");
  CHECK(message_of([&] {
          fft(cpu, tensor_view<complex, 3>(x.data(), shape<3>{{2, 2, 4}}, shape<3>{{20, 4, 1}}), view(y.data(), 2, 2, 4));
        }) == "fft: x's leading dimensions have gaps between them, expected one stride from row to row");
}

}  // namespace tern::test

// SPDX-License-Identifier: Apache-2.0
#include "long_cases.hpp"

#include <tern/conv/long_gradients.hpp>
#include <tern/core/thread_pool.hpp>

#include <cmath>
#include <numeric>

namespace tern::test {

namespace {
index places_of(index n, index taps, long_mode mode) {
  index const counted = mode == long_mode::causal && taps > n ? n : taps;
  index places = 4096;
  while (places < n + counted - 1) places *= 2;
  return places;
}
index origin_of(index taps, long_mode mode) { return mode == long_mode::same ? (taps - 1) / 2 : 0; }

/// All taps of the filter that `s` leaves of k.
oracle::row left_of(oracle::row k, index n, long_mode mode, sparse_spectrum s) {
  index const places = places_of(n, static_cast<index>(k.size()), mode);
  if (mode == long_mode::causal && static_cast<index>(k.size()) > n) k.resize(static_cast<std::size_t>(n));
  std::vector<index> all(static_cast<std::size_t>(places));
  std::iota(all.begin(), all.end(), index{0});
  return oracle::sparse_filter(k, places, s.kept, s.classes, all);
}
double tolerance_of(index n, index taps, long_mode mode) { return long_conv.error(places_of(n, taps, mode)); }

void check_sparse(index n, index taps, long_mode mode, sparse_spectrum s) {
  rng r(static_cast<std::uint64_t>(n * 1000 + taps));
  signal<> const u(r, 1, 2, n), k(r, 1, 2, taps);
  signal<> y(1, 2, n);
  long_conv(cpu, u.view, k.view[0], y.view, mode, s);
  INFO("n " << n << ", taps " << taps << ", mode " << static_cast<int>(mode) << ", " << s.kept << " of " << s.classes);
  for (index c = 0; c < 2; ++c) {
    auto const x = u.row(0, c), f = k.row(0, c);
    auto const want = oracle::twisted_conv(x, left_of(f, n, mode, s), origin_of(taps, mode));
    REQUIRE(close_row(y.view, 0, c, want, oracle::norm(x) * oracle::norm(f), tolerance_of(n, taps, mode)));
  }
  REQUIRE(y.intact());
}

double dot(oracle::row const& a, oracle::row const& b) { return std::inner_product(a.begin(), a.end(), b.begin(), 0.0); }
oracle::row impulse(index n, index at) {
  oracle::row x(static_cast<std::size_t>(n), 0.0);
  x[static_cast<std::size_t>(at)] = 1;
  return x;
}
}  // namespace

TEST_CASE("a long convolution with a sparse spectrum is that with the filter that is left") {
  check_sparse(300, 300, long_mode::causal, {1, 2});
  check_sparse(300, 450, long_mode::same, {3, 4});
  check_sparse(300, 450, long_mode::causal, {1, 8});
  check_sparse(1, 1, long_mode::causal, {1, 4});
  check_sparse(1000, 77, long_mode::causal, {1, 4});
  check_sparse(1000, 77, long_mode::same, {5, 8});
  check_sparse(2048, 2049, long_mode::causal, {1, 2});
  check_sparse(2048, 2049, long_mode::same, {1, 4});
  check_sparse(2100, 100, long_mode::causal, {2, 8});  // samples in the second half of the places
  check_sparse(3000, 1099, long_mode::same, {2, 4});
}

TEST_CASE("any number of classes may be kept") {
  for (int classes : {2, 4, 8})
    for (int kept = 0; kept < classes; ++kept) check_sparse(200, 130, long_mode::causal, {kept, classes});
}

TEST_CASE("the first class of a spectrum is a filter of fewer taps, turned and repeated") {
  rng r(46);
  index const n = 5000, taps = 3000;  // the sums of the definition and those in parts are two ways to say the same
  signal<> const k(r, 1, 1, taps);
  auto const f = k.row(0, 0), parts = oracle::first_class_filter(f, 8192, 4), left = left_of(f, n, long_mode::causal, {1, 4});
  for (std::size_t j = 0; j < left.size(); ++j) REQUIRE(std::abs(left[j] - parts[j]) < 1e-10);
  CHECK(oracle::norm(left) <= oracle::norm(f));
}

TEST_CASE("with all classes a sparse spectrum is the dense one, to the bit; with none only the skip is left") {
  for (index n : {40, 700, 5000}) {
    rng r(41);
    signal<> const u(r, 1, 2, n), k(r, 1, 2, n), v(r, 1, 2, n);
    std::vector<float> const d = r.normal(2);
    signal<> dense(1, 2, n), all(1, 2, n), none(1, 2, n), skipped(1, 2, n);
    for (long_mode mode : {long_mode::causal, long_mode::circular}) {
      long_conv(cpu, u.view, k.view[0], dense.view, mode);
      long_conv(cpu, u.view, k.view[0], all.view, mode, sparse_spectrum{4, 4});
      for (index c = 0; c < 2; ++c) CHECK(all.row(0, c) == dense.row(0, c));
    }
    long_conv(cpu, u.view, k.view[0], none.view, sparse_spectrum{0, 2}, gate_out{v.view});
    long_conv(cpu, u.view, k.view[0], skipped.view, sparse_spectrum{0, 8}, skip{d});
    for (index c = 0; c < 2; ++c)
      for (index i = 0; i < n; ++i) {
        REQUIRE(none.view(0, c, i) == 0.f);
        REQUIRE(skipped.view(0, c, i) == d[static_cast<std::size_t>(c)] * u.view(0, c, i));
      }
  }
}

TEST_CASE("gates and a skip go with a sparse spectrum, in every type") {
  auto const run = [&]<class T>(T, index n, index taps, bool channels_last, sparse_spectrum s) {
    rng r(42);
    signal<T> const u(r, 2, 2, n, channels_last), w(r, 2, 2, n), v(r, 2, 2, n, channels_last), k(r, 1, 2, taps);
    std::vector<float> const d = r.normal(2);
    signal<T> y(2, 2, n, channels_last);
    long_conv(cpu, u.view, k.view[0], y.view, gate_out{v.view}, gate_in{w.view}, skip{d}, s);
    for (index b = 0; b < 2; ++b)
      for (index c = 0; c < 2; ++c) {
        auto const x = times(u.row(b, c), w.row(b, c)), f = k.row(0, c), plain = u.row(b, c), gate = v.row(b, c);
        auto want = times(oracle::twisted_conv(x, left_of(f, n, long_mode::causal, s), 0), gate);
        double largest = 0;
        for (std::size_t i = 0; i < want.size(); ++i) {
          want[i] += static_cast<double>(d[static_cast<std::size_t>(c)]) * plain[i];
          largest = std::max(largest, std::abs(gate[i]) + std::abs(plain[i]));
        }
        REQUIRE(close_row(y.view, b, c, want, oracle::norm(x) * oracle::norm(f) * largest, tolerance_of(n, taps, long_mode::causal)));
      }
    CHECK(y.intact());
  };
  for (bool channels_last : {false, true}) {
    run(float{}, 1100, 300, channels_last, {3, 8});
    run(float{}, 500, 500, channels_last, {1, 4});
    run(f16{}, 500, 500, channels_last, {1, 2});
    run(bf16{}, 500, 40, channels_last, {1, 8});
  }
}

TEST_CASE("a long row with a sparse spectrum is right where one looks") {
  // Impulses give back the filter that is left; its frequencies are too many to sum up for all taps.
  index const n = 40000, taps = 50;
  rng r(43);
  signal<> const k(r, 1, 1, taps);
  signal<> u(1, 1, n), y(1, 1, n);
  detail::each(u.view, [](float& x) { x = 0.f; });
  u.view(0, 0, 5) = 1.f;
  u.view(0, 0, 33001) = -2.f;
  long_conv(cpu, u.view, k.view[0], y.view, sparse_spectrum{1, 4});
  index const places = places_of(n, taps, long_mode::causal);
  for (index i : {index{0}, index{7}, index{20000}, index{33020}, n - 1}) {
    auto const turned = [&](index j) { return j < 0 ? j + places : j; };
    auto const left = oracle::sparse_filter(k.row(0, 0), places, 1, 4, {turned(i - 5), turned(i - 33001)});
    double const want = (i < 5 ? -1 : 1) * left[0] - 2 * (i < 33001 ? -1 : 1) * left[1];
    CHECK(std::abs(static_cast<double>(y.view(0, 0, i)) - want) <= long_conv.error(places) * std::sqrt(5.0) * oracle::norm(k.row(0, 0)));
  }
}

TEST_CASE("sparse spectra have the same bits prepared, on any threads and in the memory that they ask for") {
  rng r(44);
  thread_pool three(3);
  for (auto const& [channels, n, s] : {std::tuple<index, index, sparse_spectrum>{1, 9000, {1, 4}}, {1, 9000, {5, 8}}, {5, 600, {1, 2}}}) {
    signal<> const u(r, 1, channels, n), k(r, 1, channels, n);
    signal<> alone(1, channels, n), threaded(1, channels, n), ready(1, channels, n);
    long_conv(cpu.on(serial), u.view, k.view[0], alone.view, s);
    std::vector<std::byte> memory(workspace_size(long_conv, cpu.on(three), u.view, k.view[0], threaded.view, s));
    workspace scratch(memory.data(), memory.size());
    long_conv(cpu.on(three).with(scratch), u.view, k.view[0], threaded.view, s);
    long_filter const prepared(cpu, k.view[0], n, long_mode::causal, s);
    CHECK(prepared.spectrum().kept == s.kept);
    std::vector<std::byte> less(workspace_size(long_conv, cpu.on(three), u.view, prepared, ready.view));
    workspace small(less.data(), less.size());
    long_conv(cpu.on(three).with(small), u.view, prepared, ready.view, s);
    for (index c = 0; c < channels; ++c) {
      CHECK(alone.row(0, c) == threaded.row(0, c));
      CHECK(alone.row(0, c) == ready.row(0, c));
    }
  }
}

TEST_CASE("gradients pass through the filter that a sparse spectrum leaves") {
  for (auto const& [n, taps, mode, s] : {std::tuple<index, index, long_mode, sparse_spectrum>{300, 300, long_mode::causal, {1, 2}},
                                         {300, 450, long_mode::causal, {3, 8}},
                                         {200, 333, long_mode::same, {3, 4}},
                                         {2100, 20, long_mode::same, {1, 4}}}) {
    rng r(45);
    signal<> const dy(r, 1, 1, n), u(r, 1, 1, n), k(r, 1, 1, taps);
    signal<> du(1, 1, n), ready(1, 1, n), dk(1, 1, taps);
    long_conv_grad_input(cpu, dy.view, k.view[0], du.view, mode, s);
    long_conv_grad_input(cpu, dy.view, long_filter(cpu, k.view[0], n, mode, s), ready.view);
    CHECK(ready.row(0, 0) == du.row(0, 0));
    std::vector<std::byte> memory(workspace_size(long_conv_grad_filter, cpu, dy.view, u.view, dk.view, mode, s));
    workspace scratch(memory.data(), memory.size());
    long_conv_grad_filter(cpu.with(scratch), dy.view, u.view, dk.view, mode, s);
    auto const g = dy.row(0, 0), x = u.row(0, 0), f = k.row(0, 0), left = left_of(f, n, mode, s);
    index const origin = origin_of(taps, mode);
    double const tolerance = tolerance_of(n, taps, mode);
    INFO("n " << n << ", taps " << taps << ", " << s.kept << " of " << s.classes);
    for (index m : {index{0}, n / 3, n - 1}) {  // the results' changes with one sample, and with one tap
      double const want = dot(g, oracle::twisted_conv(impulse(n, m), left, origin));
      CHECK(std::abs(static_cast<double>(du.view(0, 0, m)) - want) <= tolerance * oracle::norm(g) * oracle::norm(f));
    }
    for (index j : {index{0}, taps / 2, taps - 1}) {
      double const want = dot(g, oracle::twisted_conv(x, left_of(impulse(taps, j), n, mode, s), origin));
      CHECK(std::abs(static_cast<double>(dk.view(0, 0, j)) - want) <= tolerance * oracle::norm(g) * oracle::norm(x));
    }
    CHECK(dk.intact());
  }
}

TEST_CASE("a wrong sparse spectrum says what is wrong") {
  std::vector<float> memory(64), results(64);
  auto const u = tern::view(memory.data(), 1, 2, 8), y = tern::view(results.data(), 1, 2, 8);
  auto const k = tern::view(memory.data(), 2, 8);
  auto const call = [&](auto const&... options) { return message_of([&] { long_conv(cpu, u, k, y, options...); }); };
  CHECK(call(sparse_spectrum{1, 3}) == "long_conv: sparse_spectrum's classes is 3, expected 1, 2, 4 or 8");
  CHECK(call(sparse_spectrum{1, 0}) == "long_conv: sparse_spectrum's classes is 0, expected 1, 2, 4 or 8");
  CHECK(call(sparse_spectrum{5, 4}) == "long_conv: sparse_spectrum's kept is 5, expected 0 to classes");
  CHECK(call(sparse_spectrum{-1, 4}) == "long_conv: sparse_spectrum's kept is -1, expected 0 to classes");
  CHECK(call(sparse_spectrum{1, 4}, long_mode::circular) ==
        "long_conv: the mode is circular, expected causal or same with a sparse_spectrum");
  CHECK(message_of([&] { long_conv_grad_filter(cpu, u, u, y, sparse_spectrum{1, 16}); }) ==
        "long_conv_grad_filter: sparse_spectrum's classes is 16, expected 1, 2, 4 or 8");
  CHECK(message_of([&] { (void)workspace_size(long_conv_grad_filter, cpu, u, u, y, sparse_spectrum{2, 1}); }) ==
        "long_conv_grad_filter: sparse_spectrum's kept is 2, expected 0 to classes");
  CHECK(message_of([&] { long_filter(cpu, k, 8, long_mode::circular, sparse_spectrum{1, 2}); }) ==
        "long_filter: the mode is circular, expected causal or same with a sparse_spectrum");
  long_filter const filter(cpu, k, 8, long_mode::causal, {1, 4});
  CHECK(message_of([&] { long_conv(cpu, u, filter, y, sparse_spectrum{1, 2}); }) ==
        "long_conv: the spectrum is 1 of 2, expected the filter's: 1 of 4");
}

}  // namespace tern::test

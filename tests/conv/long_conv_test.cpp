// SPDX-License-Identifier: Apache-2.0
#include "long_cases.hpp"

#include <tern/conv/long_conv.hpp>
#include <tern/core/thread_pool.hpp>

#include <array>
#include <cmath>
#include <cstdint>
#include <utility>

namespace tern::test {

namespace {
constexpr long_mode modes[] = {long_mode::causal, long_mode::circular, long_mode::same};

/// One call of two channels against the oracle; `listed` results of each row, or all.
void check_lengths(index n, index taps, long_mode mode, index listed = 0) {
  rng r(static_cast<std::uint64_t>(n * 1000 + taps));
  signal<> const u(r, 1, 2, n), k(r, 1, 2, taps);
  signal<> y(1, 2, n);
  long_conv(cpu, u.view, k.view[0], y.view, mode);
  INFO("n " << n << ", taps " << taps << ", mode " << static_cast<int>(mode));
  for (index c = 0; c < 2; ++c) {
    auto const x = u.row(0, c), f = k.row(0, c);
    double const magnitude = magnitude_of(x, f, mode), tolerance = long_conv.error(n + taps);
    if (listed == 0) {
      REQUIRE(close_row(y.view, 0, c, oracle::long_conv(x, f, place_of(mode)), magnitude, tolerance));
      continue;
    }
    std::vector<index> which{0, n - 1};
    while (static_cast<index>(which.size()) < listed) which.push_back(r.integer(0, n - 1));
    auto const want = oracle::long_conv_at(x, f, place_of(mode), which);
    for (std::size_t i = 0; i < which.size(); ++i)
      REQUIRE(std::abs(static_cast<double>(y.view(0, c, which[i])) - want[i]) <= tolerance * magnitude);
  }
  REQUIRE(y.intact());
}
}  // namespace

TEST_CASE("long convolutions of short lengths are the sums of their definition") {
  for (long_mode mode : modes)
    for (index n : {1, 2, 3, 7, 16, 31, 64, 100, 129, 255, 256, 300})
      for (index taps : {1, 2, 5, 16, 63, 100, 130, 257, 400}) check_lengths(n, taps, mode);
}

TEST_CASE("long convolutions of lengths up to 4096 are the sums of their definition") {
  for (auto const& [n, taps] :
       {std::pair<index, index>{512, 512}, {777, 700}, {1000, 125}, {1024, 1025}, {1500, 90}, {2000, 250}, {2048, 2048}})
    for (long_mode mode : modes) check_lengths(n, taps, mode);
  check_lengths(3000, 3000, long_mode::causal);
  check_lengths(4096, 4096, long_mode::causal);
  check_lengths(4096, 512, long_mode::same);
}

TEST_CASE("circles of lengths that towers have are folded, whatever the filter's length") {
  for (index n : {1024, 2048, 3072, 4096, 5120}) {
    check_lengths(n, n, long_mode::circular);
    check_lengths(n, n / 2 + 3, long_mode::circular);
    check_lengths(n, n + n / 2, long_mode::circular);
  }
  for (index n : {7168, 9216, 16384, 36864, 65536}) check_lengths(n, n - 1, long_mode::circular, 12);
  for (index n : {1024, 2048, 4096})
    CHECK(tern::detail::choose_layout(long_mode::circular, n * simd::lanes / 16, n * simd::lanes / 16).folds > 0);
}

TEST_CASE("long convolutions of greater lengths are right where one looks") {
  check_lengths(16384, 16384, long_mode::causal, 12);
  check_lengths(20000, 2500, long_mode::same, 12);
  check_lengths(30000, 300, long_mode::circular, 12);
  check_lengths(33000, 33000, long_mode::circular, 12);
  check_lengths(100003, 100003, long_mode::causal, 12);
}

TEST_CASE("gates and a skip are fused into a long convolution, in every type") {
  auto const run = [&]<class T>(T, index n, index taps, bool channels_last, long_mode mode = long_mode::causal) {
    rng r(7);
    signal<T> const u(r, 2, 3, n, channels_last), w(r, 2, 3, n), v(r, 2, 3, n, channels_last);
    signal<T> const k(r, 1, 3, taps);
    std::vector<float> const d = r.normal(3);
    signal<T> y(2, 3, n, channels_last);
    long_conv(cpu, u.view, k.view[0], y.view, gate_out{v.view}, gate_in{w.view}, skip{d}, mode);
    for (index b = 0; b < 2; ++b)
      for (index c = 0; c < 3; ++c) {
        auto const x = times(u.row(b, c), w.row(b, c)), f = k.row(0, c);
        auto want = times(oracle::long_conv(x, f, place_of(mode)), v.row(b, c));
        auto const plain = u.row(b, c);
        double largest = 0;
        for (index i = 0; i < n; ++i) {
          auto const at = static_cast<std::size_t>(i);
          want[at] += static_cast<double>(d[static_cast<std::size_t>(c)]) * plain[at];
          largest = std::max(largest, std::abs(static_cast<double>(v.view(b, c, i))) + std::abs(static_cast<double>(u.view(b, c, i))));
        }
        REQUIRE(close_row(y.view, b, c, want, oracle::norm(x) * oracle::norm(f) * largest, long_conv.error(n + taps)));
      }
    CHECK(y.intact());
  };
  for (bool channels_last : {false, true})
    for (auto const& [n, taps] : {std::pair<index, index>{300, 300}, {70, 9}, {1100, 100}, {1000, 1000}}) {
      run(float{}, n, taps, channels_last);
      run(f16{}, n, taps, channels_last);
      run(bf16{}, n, taps, channels_last);
    }
  for (bool channels_last : {false, true}) {
    run(float{}, 1024, 1024, channels_last, long_mode::circular);
    run(bf16{}, 2048, 700, channels_last, long_mode::circular);
  }
}

TEST_CASE("a long convolution may have a filter for each input, or a prepared one") {
  rng r(3);
  for (index n : {40, 600, 1500}) {
    signal<> const u(r, 3, 2, n), k(r, 3, 2, n);
    signal<> y(3, 2, n), again(3, 2, n);
    long_conv(cpu, u.view, k.view, y.view);
    for (index b = 0; b < 3; ++b)
      for (index c = 0; c < 2; ++c)
        REQUIRE(close_row(y.view, b, c, oracle::long_conv(u.row(b, c), k.row(b, c), oracle::filter_place::causal),
                          oracle::norm(u.row(b, c)) * oracle::norm(k.row(b, c)), long_conv.error(2 * n)));
    long_filter const prepared(cpu, k.view, n);
    CHECK(prepared.batch() == 3);
    CHECK(prepared.taps() == n);
    long_conv(cpu, u.view, prepared, again.view);
    for (index b = 0; b < 3; ++b)
      for (index c = 0; c < 2; ++c) CHECK(y.row(b, c) == again.row(b, c));
  }
}

TEST_CASE("long convolutions have the same bits on any threads and in any workspace, and allocate once") {
  rng r(5);
  thread_pool three(3);
  for (auto const& [channels, n, taps, mode] : {std::tuple<index, index, index, long_mode>{1, 9000, 9000, long_mode::causal},
                                                {1, 5000, 100, long_mode::causal},
                                                {5, 600, 600, long_mode::same},
                                                {2, 90, 8, long_mode::causal},
                                                {1, 8192, 8192, long_mode::circular},
                                                {3, 4096, 4000, long_mode::circular}}) {
    signal<> const u(r, 1, channels, n), k(r, 1, channels, taps);
    signal<> alone(1, channels, n), threaded(1, channels, n), fixed(1, channels, n), one(1, 1, n);
    long_conv(cpu.on(serial), u.view, k.view[0], alone.view, mode);
    long_conv(cpu.on(three), u.view, k.view[0], threaded.view, mode);
    std::vector<std::byte> memory(workspace_size(long_conv, cpu.on(three), u.view, k.view[0], fixed.view, mode));
    workspace scratch(memory.data(), memory.size());
    long_conv(cpu.on(three).with(scratch), u.view, k.view[0], fixed.view, mode);
    long_filter const prepared(cpu, k.view[0], n, mode);
    std::vector<std::byte> less(workspace_size(long_conv, cpu.on(three), u.view, prepared, one.view));
    workspace small(less.data(), less.size());
    signal<> ready(1, channels, n);
    long_conv(cpu.on(three).with(small), u.view, prepared, ready.view);
    index const last = channels - 1;  // a row by itself is the row among others
    long_conv(cpu, u.view.slice(1, last, channels), k.view[0].slice(0, last, channels), one.view, mode);
    CHECK(one.row(0, 0) == alone.row(0, last));
    for (index c = 0; c < channels; ++c) {
      CHECK(alone.row(0, c) == threaded.row(0, c));
      CHECK(alone.row(0, c) == fixed.row(0, c));
      CHECK(alone.row(0, c) == ready.row(0, c));
    }
  }
}

TEST_CASE("a row of a long convolution larger than the caches is the row by itself") {
  // More than 32 MB: results go past the caches, spectra and rows are asked for ahead. Towers by eight, by three, and blocks.
  for (auto const& shape : {std::array<index, 3>{33, 131072, 131072}, {46, 98304, 98304}, {33, 131072, 16384}}) {
    index const channels = shape[0], n = shape[1], taps = shape[2];
    rng r(13);
    std::vector<float> const u = r.normal(channels * n), k = r.normal(taps), w = r.normal(channels * n);
    std::vector<float> y(u.size() + 16), gated(y.size()), one(static_cast<std::size_t>(n)), gated_one(one.size());
    long_filter const filter(cpu, view(k.data(), 1, taps), n);
    auto const rows = [&](float const* x) { return view(x, channels, 1, n); };
    auto const from_line = [](std::vector<float>& x) { return x.data() + (64 - reinterpret_cast<std::uintptr_t>(x.data()) % 64) / 4 % 16; };
    float *const all = from_line(y), *const all_gated = from_line(gated);
    long_conv(cpu, rows(u.data()), filter, view(all, channels, 1, n));
    long_conv(cpu, rows(u.data()), filter, view(all_gated, channels, 1, n), gate_in{rows(w.data())}, gate_out{rows(u.data())});
    for (index c : {index{0}, channels - 1}) {
      auto const row = [&](std::vector<float> const& x) { return view(x.data() + c * n, n); };
      long_conv(cpu, row(u), k, one);
      long_conv(cpu, row(u), k, gated_one, gate_in{row(w)}, gate_out{row(u)});
      for (index i = 0; i < n; ++i) {
        REQUIRE(all[c * n + i] == one[static_cast<std::size_t>(i)]);
        REQUIRE(all_gated[c * n + i] == gated_one[static_cast<std::size_t>(i)]);
      }
    }
  }
}

TEST_CASE("an impulse gives back the filter, a shifted one shifts it, and sums pass through") {
  index const n = 1000;
  rng r(9);
  signal<> const k(r, 1, 1, n);
  auto const convolved = [&](std::vector<float> const& u) {
    std::vector<float> y(static_cast<std::size_t>(n));
    long_conv(cpu, u, k.view[0], y);
    return y;
  };
  double const bound = long_conv.error(2 * n) * oracle::norm(k.row(0, 0));
  std::vector<float> a(static_cast<std::size_t>(n)), b = r.normal(n), sum = b;
  a[137] = 1.f;
  sum[137] += 1.f;
  auto const from_a = convolved(a), from_b = convolved(b), from_sum = convolved(sum);
  double const of_b = oracle::norm(widened(b)) + 1;
  for (index i = 0; i < n; ++i) {
    auto const at = static_cast<std::size_t>(i);
    double const want = i < 137 ? 0 : static_cast<double>(k.view(0, 0, i - 137));
    REQUIRE(std::abs(static_cast<double>(from_a[at]) - want) <= bound);
    REQUIRE(std::abs(static_cast<double>(from_sum[at] - from_a[at] - from_b[at])) <= 3 * bound * of_b);
  }
}

TEST_CASE("the error of a long convolution grows as the logarithm of its length") {
  // Against the same call in f64 at random places; the root of the mean square, which is far below the bound and grows as slowly.
  double first = 0;
  for (index n = 256; n <= 65536; n *= 16) {
    rng r(11);
    signal<> const u(r, 1, 1, n), k(r, 1, 1, n);
    signal<> y(1, 1, n);
    long_conv(cpu, u.view, k.view[0], y.view);
    std::vector<index> which;
    for (int i = 0; i < 60; ++i) which.push_back(r.integer(n / 2, n - 1));
    auto const x = u.row(0, 0), f = k.row(0, 0);
    auto const want = oracle::long_conv_at(x, f, oracle::filter_place::causal, which);
    double squares = 0;
    for (std::size_t i = 0; i < which.size(); ++i) squares += std::pow(static_cast<double>(y.view(0, 0, which[i])) - want[i], 2);
    double const error = std::sqrt(squares / 60) / (oracle::norm(x) * oracle::norm(f)) * std::sqrt(static_cast<double>(n));
    if (first == 0) first = error / std::log2(2 * 256);
    INFO("n " << n << ", error times sqrt(n) " << error);
    CHECK(error < 2 * first * std::log2(2 * static_cast<double>(n)));
  }
}

TEST_CASE("a wrong long convolution says what is wrong") {
  std::vector<float> memory(4096), results(4096);
  auto const y = [&](index b, index c, index n) { return tern::view(results.data(), b, c, n); };
  auto const v = [&](index b, index c, index n) { return tern::view(memory.data(), b, c, n); };
  auto const k = [&](index c, index n) { return tern::view(memory.data(), c, n); };
  CHECK(message_of([&] { long_conv(cpu, v(2, 3, 8), k(2, 8), y(2, 3, 8)); }) == "long_conv: k has channels 2, expected u's 3");
  CHECK(message_of([&] { long_conv(cpu, v(2, 3, 8), v(3, 3, 8), y(2, 3, 8)); }) == "long_conv: k has batch 3, expected u's 2");
  CHECK(message_of([&] { long_conv(cpu, v(2, 3, 8), k(3, 0), y(2, 3, 8)); }) == "long_conv: k's number of taps is 0, expected at least 1");
  CHECK(message_of([&] { long_conv(cpu, v(2, 3, 8), k(3, 8), y(2, 3, 9)); }) == "long_conv: y has length 9, expected u's 8");
  CHECK(message_of([&] { long_conv(cpu, v(2, 3, 8), k(3, 8), y(2, 3, 8), gate_in{v(2, 3, 7)}); }) ==
        "long_conv: gate_in has length 7, expected u's 8");
  CHECK(message_of([&] { long_conv(cpu, v(2, 3, 8), k(3, 8), y(2, 3, 8), gate_out{v(1, 3, 8)}); }) ==
        "long_conv: gate_out has batch 1, expected u's 2");
  CHECK(message_of([&] { long_conv(cpu, v(2, 3, 8), k(3, 8), y(2, 3, 8), skip{std::vector<float>(2)}); }) ==
        "long_conv: skip.extent(0) is 2, expected channels = 3");
  long_filter const filter(cpu, k(3, 8), 8);
  CHECK(message_of([&] { long_conv(cpu, v(2, 3, 9), filter, y(2, 3, 9)); }) ==
        "long_conv: the filter's length() is 8, expected length = 9");
  CHECK(message_of([&] { long_conv(cpu, v(2, 4, 8), filter, y(2, 4, 8)); }) ==
        "long_conv: the filter's channels() is 3, expected channels = 4");
  CHECK(message_of([&] { long_conv(cpu, v(2, 3, 8), filter, y(2, 3, 8), long_mode::same); }) ==
        "long_conv: the mode is same, expected the filter's: causal");
  CHECK(message_of([&] { long_conv(cpu, v(2, 3, 8), long_filter(cpu, k(3, 8), 8, long_mode::circular), y(2, 3, 8), long_mode::causal); }) ==
        "long_conv: the mode is causal, expected the filter's: circular");
  CHECK(message_of([&] { long_conv(cpu, v(2, 3, 8), k(3, 8), v(2, 3, 8)); }) == "long_conv: y is u, expected memory of its own");
  CHECK(message_of([&] { long_conv(cpu, v(2, 3, 8), k(3, 8), y(2, 3, 8), gate_in{y(2, 3, 8)}); }) ==
        "long_conv: y is gate_in, expected memory of its own");
  CHECK(message_of([&] { long_conv(cpu, v(2, 3, 8), k(3, 8), y(2, 3, 8), gate_out{y(3, 3, 8).slice(0, 1, 3)}); }) ==
        "long_conv: y overlaps gate_out, expected memory of its own");
  CHECK(message_of([&] { long_conv(cpu, v(2, 3, 8), y(1, 3, 8), y(2, 3, 8)); }) == "long_conv: y is k, expected memory of its own");
  CHECK(message_of([&] { long_filter(cpu, k(3, 0), 8); }) == "long_filter: k's number of taps is 0, expected at least 1");
  CHECK(message_of([&] { long_filter(cpu, k(3, 8), 0); }) == "long_filter: length is 0, expected at least 1");
  long_conv(cpu, v(0, 3, 8), k(3, 8), y(0, 3, 8));
  long_conv(cpu, v(2, 3, 0), k(3, 8), y(2, 3, 0));
  long_filter const none(cpu, v(2, 0, 4), 8);
  CHECK(none.batch() == 2);
  long_conv(cpu, v(2, 0, 8), none, y(2, 0, 8));
}

}  // namespace tern::test

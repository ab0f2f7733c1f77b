// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file bench/harness.hpp
/// What every benchmark stands on: one binary a family (bench/<family>_bench.cpp, found by CMake), whose file defines
/// `tern::bench::register_benchmarks()` and whose `main` is in harness.cpp. Before anything is timed, `main` measures the
/// machine for each thread count (machine.hpp); results carry GFLOPS, GB_s, of_peak and of_bandwidth against that.
///
///     #include "harness.hpp"
///     #include <tern/matmul.hpp>
///     namespace tern::bench {
///     void register_benchmarks() {
///       auto data = lazy([=] { return problem(m, k, rows); });       // made at the first use, shared by the implementations
///       workload w{.op = "matmul", .name = "f32_m1536_k576_cold",  // -> matmul/f32_m1536_k576_cold/tern/threads:1
///                  .flops = 2.0 * m * k * rows,                    // useful operations of one call
///                  .bytes = weight_bytes,                          // what one call must at least read and write
///                  .peak = unit::f32};                             // the limit it is held against: f32, bf16 or int8
///       w.add("tern", [=](run& r) {
///         problem& p = data();
///         auto call = [&](index i) { tern::matmul(r.policy(), p.x, p.weights[i], p.y); };  // policy: r.threads() threads
///         r.check([&] { call(0); return test::compare(p.y, p.want, p.magnitude, accuracy); });   // once, before the timing
///         r.time(call);                                              // i counts the calls
///       });
///       w.add("openblas", [=](run& r) { openblas_set_num_threads(r.threads()); ... });
///     }
///     }
///
/// `p.weights[i]` above is a `rotating` buffer: copies enough to exceed the last-level cache, used in turn, so that weights
/// come from memory as they do in a model. A workload that does so ends its name in `_cold`, one that reuses its data does not,
/// unless the family's file says by which rule its workloads are cold. Data too large to be kept side by side goes into a `room`.
/// A check that fails is reported as the benchmark's error, nothing is timed, and the binary exits with 1. Outputs of peers
/// are checked in the same way. Checks against a slow oracle should look at a sample of rows.
///
/// Command line: Google Benchmark's own, e.g. --benchmark_filter=q4_1 --benchmark_format=json --benchmark_repetitions=5
/// --benchmark_enable_random_interleaving=true, and --tern_threads=1,2 (default: 1 and all cores).

#include "machine.hpp"

#include <tern/core/policy.hpp>
#include <tern/core/thread_pool.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <new>
#include <span>
#include <sstream>
#include <string>
#include <vector>

namespace tern::bench {

/// Defined by each family's file; called once.
void register_benchmarks();

/// The thread counts that every workload is run with.
std::vector<int> const& thread_counts();

/// Memory on its own pages (2 MiB ones where it is large and the system grants them), zeroed.
template <class T>
class buffer {
 public:
  buffer() = default;
  explicit buffer(index n) : size_(n), memory_(allocate_pages(static_cast<std::size_t>(n) * sizeof(T)), &free_pages) {}
  template <class Range>
    requires requires(Range const& r) { std::span<T const>(r); }
  explicit buffer(Range const& values) : buffer(static_cast<index>(std::span<T const>(values).size())) {
    std::span<T const> const from(values);
    std::copy(from.begin(), from.end(), data());
  }
  T* data() { return static_cast<T*>(memory_.get()); }
  T const* data() const { return static_cast<T const*>(memory_.get()); }
  std::size_t size() const { return static_cast<std::size_t>(size_); }
  T* begin() { return data(); }
  T* end() { return data() + size_; }
  T const* begin() const { return data(); }
  T const* end() const { return data() + size_; }
  T& operator[](index i) { return data()[i]; }
  T const& operator[](index i) const { return data()[i]; }

 private:
  index size_ = 0;
  std::unique_ptr<void, void (*)(void*)> memory_{nullptr, &free_pages};
};

/// How many copies of `bytes` exceed the last-level cache three times over, or 1 GiB where that is less (at least 1).
index copies_beyond_cache(std::size_t bytes);

/// The same values several times, to be used in turn.
template <class T>
class rotating {
 public:
  rotating() = default;
  /// As many copies as it takes to leave the caches, or the number given.
  template <class Range>
  explicit rotating(Range const& values, index copies = 0) {
    std::span<T const> const each(values);
    if (copies <= 0) copies = copies_beyond_cache(each.size_bytes());
    for (index i = 0; i < copies; ++i) copies_.emplace_back(each);
  }
  index copies() const { return static_cast<index>(copies_.size()); }
  T* operator[](index call) { return copies_[static_cast<std::size_t>(call % copies())].data(); }
  std::span<T> span(index call) {
    auto& c = copies_[static_cast<std::size_t>(call % copies())];
    return {c.data(), c.size()};
  }

 private:
  std::vector<buffer<T>> copies_;
};

/// A value made at the first call of the returned function, kept until the program ends.
template <class F>
auto lazy(F make) {
  using T = decltype(make());
  return [make, value = std::make_shared<std::unique_ptr<T>>()]() -> T& {
    if (!*value) value->reset(new T(make()));
    return **value;
  };
}

/// Room for one large value: another one that is made here takes the place of the one before, which is freed first.
class room {
 public:
  /// The value of this name: what is here, if it has that name, or what make() returns.
  template <class F>
  auto get(std::string const& name, F make) -> decltype(make())& {
    using T = decltype(make());
    if (!value_ || name_ != name) {
      value_.reset();
      value_ = std::shared_ptr<T>(new T(make()));
      name_ = name;
    }
    return *static_cast<T*>(value_.get());
  }

 private:
  std::string name_;
  std::shared_ptr<void> value_;
};

struct workload;

namespace detail {
/// What is remembered of one benchmark from one of its repetitions to the next.
struct record {
  std::string name;
  double flops = 0, bytes = 0;
  unit peak = unit::f32;
  int threads = 1;
  double idle_us = -1;
  bool checked = false;
  std::string error;
};
}  // namespace detail

/// One run of one benchmark: what an implementation is given.
class run {
 public:
  run(benchmark::State& state, detail::record& record) : state_(state), record_(record) {}

  /// op/name/implementation/threads:n
  std::string const& name() const { return record_.name; }
  int threads() const { return record_.threads; }
  /// A pool of threads() threads, the same for all benchmarks.
  thread_pool& pool() const;
  cpu_policy policy() const { return cpu.on(pool()); }

  /// Calls f() once for all repetitions; f returns whether all is right, or a test::comparison. If not, nothing is timed.
  template <class F>
  bool check(F&& f) {
    if (!record_.checked) {
      record_.checked = true;
      auto const verdict = f();
      if (!static_cast<bool>(verdict)) {
        if constexpr (std::same_as<std::remove_cvref_t<decltype(verdict)>, bool>) {
          record_.error = "wrong result";
        } else {
          std::ostringstream text;
          text << verdict;
          record_.error = text.str();
        }
      }
    }
    if (!record_.error.empty()) fail(record_.error);
    return record_.error.empty();
  }
  /// Reports an error instead of a time.
  void fail(std::string const& why);

  /// Times f(i) for i = 0, 1, 2, ...
  template <class F>
  void time(F&& f) {
    if (state_.error_occurred()) return;
    if (settle()) f(index{0});
    index i = 0;
    if (record_.idle_us >= 0) {
      std::vector<double> samples;
      for (auto _ : state_) {
        wait(record_.idle_us);
        double const begin = now();
        f(i++);
        samples.push_back(now() - begin);
        state_.SetIterationTime(samples.back());
      }
      return report_samples(samples);
    }
    double const begin = now();
    for (auto _ : state_) {
      f(i++);
      benchmark::ClobberMemory();
    }
    report((now() - begin) / static_cast<double>(i));
  }

  /// The same, each time behind prepare(i), which is not timed. Not for workloads with `idle_us`.
  template <class P, class F>
  void time(P&& prepare, F&& f) {
    if (state_.error_occurred()) return;
    if (settle()) prepare(index{0}), f(index{0});
    index i = 0;
    double sum = 0;
    for (auto _ : state_) {
      state_.PauseTiming();
      prepare(i);
      state_.ResumeTiming();
      double const begin = now();
      f(i++);
      benchmark::ClobberMemory();
      sum += now() - begin;
    }
    report(sum / static_cast<double>(i));
  }

  benchmark::State& state() { return state_; }

 private:
  static double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
  static void wait(double us);
  /// Lets the threads of the implementation before go to sleep; true if there was another one.
  bool settle();
  void report(double seconds);
  void report_samples(std::vector<double>& samples);

  benchmark::State& state_;
  detail::record& record_;
};

/// What is computed, apart from who computes it.
struct workload {
  std::string op;
  std::string name;
  double flops = 0;               ///< useful operations a call (a multiply-add is 2); 0: no GFLOPS
  double bytes = 0;               ///< the least memory traffic of a call; 0: no GB_s
  unit peak = unit::f32;          ///< which peak `of_peak` is of
  double idle_us = -1;            ///< from 0 on: each call is clocked alone after this much idle time (then a counter median_ns is given)
  std::vector<int> threads = {};  ///< empty: thread_counts()

  /// Registers op/name/implementation/threads:n for each thread count.
  void add(std::string const& implementation, std::function<void(run&)> body) const { add(implementation, peak, std::move(body)); }
  /// The same, held against another peak than the workload's.
  void add(std::string const& implementation, unit against, std::function<void(run&)> body) const;
};

}  // namespace tern::bench

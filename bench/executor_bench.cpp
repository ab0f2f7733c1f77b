// SPDX-License-Identifier: Apache-2.0
// What a parallel region costs on each executor that tern can use: as many tasks as there are threads.
//     empty_hot        empty tasks, one region after another
//     empty_idle100us  the caller alone works for 100 us before each region, as between the layers of a model
//     5us_hot          each task computes for 5 us: the time above 5 us is what the region costs. An executor whose caller runs
//                      empty tasks before another thread wakes looks good above, and takes n times 5 us here.
//     5us_idle100us    the same after 100 us
#include "harness.hpp"

#include <tern/core/executor.hpp>
#include <tern/core/thread_pool.hpp>

#include <atomic>
#include <chrono>

#if TERN_BENCH_HAVE_EIGEN
#include <tern/core/eigen_executor.hpp>
#endif
#if TERN_BENCH_HAVE_OPENMP
#include <tern/core/openmp_executor.hpp>
#endif
#if TERN_BENCH_HAVE_TBB
#include <tern/core/tbb_executor.hpp>

#include <oneapi/tbb/global_control.h>
#endif

namespace tern::bench {
namespace {

void compute_for(double us) {
  using clock = std::chrono::steady_clock;
  for (auto const end = clock::now() + std::chrono::nanoseconds(static_cast<int>(us * 1000)); clock::now() < end;) {
  }
}

/// Checks that each task runs once, then times tasks of `us` microseconds each.
template <class E>
void time_regions(run& r, E& executor, double us) {
  index const n = r.threads();
  bool const right = r.check([&] {
    for (int turn = 0; turn < 1000; ++turn) {
      std::atomic<index> calls{0}, sum{0};
      auto count = [&](index i) {
        ++calls;
        sum += i;
      };
      executor.run(n, task_ref(count));
      if (calls != n || sum != n * (n - 1) / 2) return false;
    }
    return true;
  });
  if (!right) return;
  auto task = [us](index i) {
    benchmark::DoNotOptimize(i);
    if (us > 0) compute_for(us);
  };
  r.time([&](index) { executor.run(n, task_ref(task)); });
}

}  // namespace

void register_benchmarks() {
  struct {
    char const* name;
    double us, idle_us;
  } const regions[] = {{"empty_hot", 0, 0}, {"empty_idle100us", 0, 100}, {"5us_hot", 5, 0}, {"5us_idle100us", 5, 100}};
  for (auto const& region : regions) {
    double const us = region.us;
    workload const w{.op = "fork_join", .name = region.name, .idle_us = region.idle_us};
    w.add("tern", [us](run& r) { time_regions(r, r.pool(), us); });
    w.add("serial", [us](run& r) {
      serial_executor e;
      time_regions(r, e, us);
    });
#if TERN_BENCH_HAVE_EIGEN
    w.add("eigen", [us](run& r) {
      Eigen::ThreadPool pool(r.threads());
      eigen_executor e(pool);
      time_regions(r, e, us);
    });
#endif
#if TERN_BENCH_HAVE_OPENMP
    w.add("openmp", [us](run& r) {
      omp_set_num_threads(r.threads());
      openmp_executor e;
      time_regions(r, e, us);
    });
#endif
#if TERN_BENCH_HAVE_TBB
    w.add("tbb", [us](run& r) {
      tbb::global_control const threads(tbb::global_control::max_allowed_parallelism, static_cast<std::size_t>(r.threads()));
      tbb::task_arena arena(r.threads());
      arena.execute([&] {
        tbb_executor e;
        time_regions(r, e, us);
      });
    });
#endif
  }
}

}  // namespace tern::bench

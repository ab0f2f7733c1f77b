// SPDX-License-Identifier: Apache-2.0
// What a parallel region costs: a region of as many empty tasks as there are threads, on each executor that tern can use.
// `hot`: one region after another. `idle100us`: the caller alone works for 100 us before each, as between the layers of a model.
#include "harness.hpp"

#include <tern/core/executor.hpp>
#include <tern/core/thread_pool.hpp>

#include <atomic>

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

/// Checks that each task runs once, then times empty ones.
template <class E>
void time_regions(run& r, E& executor) {
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
  auto nothing = [](index i) { benchmark::DoNotOptimize(i); };
  r.time([&](index) { executor.run(n, task_ref(nothing)); });
}

}  // namespace

void register_benchmarks() {
  for (auto const& [name, idle_us] : {std::pair{"hot", 0.0}, std::pair{"idle100us", 100.0}}) {
    workload const w{.op = "fork_join", .name = name, .idle_us = idle_us};
    w.add("tern", [](run& r) { time_regions(r, r.pool()); });
    w.add("serial", [](run& r) {
      serial_executor e;
      time_regions(r, e);
    });
#if TERN_BENCH_HAVE_EIGEN
    w.add("eigen", [](run& r) {
      Eigen::ThreadPool pool(r.threads());
      eigen_executor e(pool);
      time_regions(r, e);
    });
#endif
#if TERN_BENCH_HAVE_OPENMP
    w.add("openmp", [](run& r) {
      omp_set_num_threads(r.threads());
      openmp_executor e;
      time_regions(r, e);
    });
#endif
#if TERN_BENCH_HAVE_TBB
    w.add("tbb", [](run& r) {
      tbb::global_control const threads(tbb::global_control::max_allowed_parallelism, static_cast<std::size_t>(r.threads()));
      tbb::task_arena arena(r.threads());
      arena.execute([&] {
        tbb_executor e;
        time_regions(r, e);
      });
    });
#endif
  }
}

}  // namespace tern::bench

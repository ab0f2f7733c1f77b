// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file core/openmp_executor.hpp
/// Runs tern on OpenMP's threads: `tern::openmp_executor threads; tern::cpu.on(threads)`. Compile with OpenMP enabled.

#include <tern/core/executor.hpp>

#include <omp.h>

namespace tern {
inline namespace TERN_ABI {

/// As many threads as OpenMP would use here. Within a parallel region of the program's, its thread works alone.
struct openmp_executor {
  index concurrency() const { return omp_in_parallel() ? 1 : omp_get_max_threads(); }
  void run(index n, task_ref f) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(static_cast<int>(n)) if (n > 1)
    for (index i = 0; i < n; ++i) f(i);
  }
};

}  // namespace TERN_ABI
}  // namespace tern

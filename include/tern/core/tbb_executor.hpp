// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file core/tbb_executor.hpp
/// Runs tern on oneTBB's threads: `tern::tbb_executor threads; tern::cpu.on(threads)`. Calls from within `arena.execute` use that arena.

#include <tern/core/executor.hpp>

#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>

namespace tern {
inline namespace TERN_ABI {

/// The arena of the calling thread. While it waits it takes no other tasks of the program's: they could call tern themselves and
/// would find the thread's workspace in use.
struct tbb_executor {
  index concurrency() const { return tbb::this_task_arena::max_concurrency(); }
  void run(index n, task_ref f) {
    tbb::this_task_arena::isolate([&] { tbb::parallel_for(index{0}, n, [&](index i) { f(i); }, tbb::simple_partitioner{}); });
  }
};

}  // namespace TERN_ABI
}  // namespace tern

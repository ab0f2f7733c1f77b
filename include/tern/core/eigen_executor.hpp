// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file core/eigen_executor.hpp
/// Runs tern on a thread pool of Eigen's: `Eigen::ThreadPool pool(8); tern::eigen_executor threads(pool);`.

#include <tern/core/executor.hpp>

#include <unsupported/Eigen/CXX11/ThreadPool>

namespace tern {
inline namespace TERN_ABI {

/// Eigen's pool by reference. A call from one of the pool's own threads runs on that thread alone, so none waits for itself.
class eigen_executor {
 public:
  explicit eigen_executor(Eigen::ThreadPoolInterface& pool) : pool_(pool) {}

  /// The caller's thread takes the place of one of the pool's.
  index concurrency() const { return pool_.NumThreads() > 1 && pool_.CurrentThreadId() < 0 ? pool_.NumThreads() : 1; }

  void run(index n, task_ref f) {
    if (n <= 1 || pool_.CurrentThreadId() >= 0) {
      for (index i = 0; i < n; ++i) f(i);
      return;
    }
    Eigen::Barrier done(static_cast<unsigned>(n - 1));
    for (index i = 1; i < n; ++i) {
      pool_.Schedule([i, f, &done] {
        f(i);
        done.Notify();
      });
    }
    f(0);
    done.Wait();
  }

 private:
  Eigen::ThreadPoolInterface& pool_;
};

}  // namespace TERN_ABI
}  // namespace tern

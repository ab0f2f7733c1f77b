// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file bench/peers.hpp
/// What several families need of the peers: their thread counts, and ggml's operators on memory of ours.

#include <tern/core/config.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#if TERN_BENCH_HAVE_EIGEN
#include <Eigen/Core>
#endif
#if TERN_BENCH_HAVE_OPENMP
#include <omp.h>
#endif
#if TERN_BENCH_HAVE_OPENBLAS
#include <cblas.h>
#endif
#if TERN_BENCH_HAVE_GGML
#include <ggml-cpu.h>
#include <ggml.h>
#endif

namespace tern::bench {

/// Makes the peers use this many threads. Eigen and oneDNN take OpenMP's.
inline void set_peer_threads([[maybe_unused]] int threads) {
#if TERN_BENCH_HAVE_OPENMP
  omp_set_num_threads(threads);
#endif
#if TERN_BENCH_HAVE_EIGEN
  Eigen::setNbThreads(threads);
#endif
#if TERN_BENCH_HAVE_OPENBLAS
  openblas_set_num_threads(threads);
#endif
}

#if TERN_BENCH_HAVE_GGML
/// A graph of one operator whose tensors lie in memory of ours, with threads of ggml's own.
class ggml_operator {
 public:
  /// `build(context)` makes the tensors and returns the result; their `data` may be set at any time.
  template <class Build>
  ggml_operator(int threads, Build&& build) {
    ggml_cpu_init();
    context_.reset(ggml_init({ggml_tensor_overhead() * 16 + ggml_graph_overhead(), nullptr, true}));
    graph_ = ggml_new_graph(context_.get());
    ggml_build_forward_expand(graph_, build(context_.get()));
    ggml_threadpool_params params = ggml_threadpool_params_default(threads);
    pool_.reset(ggml_threadpool_new(&params));
    plan_ = ggml_graph_plan(graph_, threads, pool_.get());
    work_.resize(plan_.work_size + 64);
    plan_.work_data = work_.data();
  }
  bool operator()() { return ggml_graph_compute(graph_, &plan_) == GGML_STATUS_SUCCESS; }

 private:
  struct release {
    void operator()(ggml_context* c) const { ggml_free(c); }
    void operator()(ggml_threadpool* p) const { ggml_threadpool_free(p); }
  };
  std::unique_ptr<ggml_context, release> context_;
  std::unique_ptr<ggml_threadpool, release> pool_;
  ggml_cgraph* graph_ = nullptr;
  ggml_cplan plan_{};
  std::vector<std::uint8_t> work_;
};
#endif

}  // namespace tern::bench

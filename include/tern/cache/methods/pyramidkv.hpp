// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/methods/pyramidkv.hpp
/// PyramidKV: Dynamic KV Cache Compression based on Pyramidal Information Funneling (Cai et al. 2024, arXiv:2406.02069).
///
/// SnapKV, with more tokens in the first layers, which look everywhere, than in the last, which look at few:
///
///     layer l keeps window + pyramid_l tokens,   pyramid: from 2 mean - mean / beta down to mean / beta, linearly,
///     mean = budget - window (cache/layer_budgets.hpp)
///
///     pyramidkv(policy, cache, s, layer, q, budget)       q (heads, window, dim): the last queries, rotated, once their keys are in the
///                                                         cache; `budget` the mean over the layers
///
/// When      once, after the prompt of a layer.
/// Cost      that of snapkv.
/// Source    the paper and its authors' code (beta 20). kvpress's PyramidKVPress counts the window's tokens among the pyramid's.

#include <tern/cache/layer_budgets.hpp>
#include <tern/cache/methods/snapkv.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr struct pyramidkv_fn {
  template <class K, class V, tensor_like Q>
  void operator()(cpu_policy const& policy, kv_cache<K, V>& cache, std::int32_t s, index layer, Q&& q, index budget,
                  pooling const& pool = {}, double beta = 20) const {
    index const keys = cache.longest(s, layer), window = tern::view(q).extent(1);
    detail::expect(budget >= 0, "pyramidkv", "budget", budget, "at least 0");
    index const mean = budget > window ? budget - window : 0, before = keys > window ? keys - window : 0;
    auto const pyramid = pyramid_budgets(static_cast<double>(mean), cache.shape().layers, beta, before);
    snapkv(policy, cache, s, layer, q, (budget < window ? budget : window) + pyramid(layer), pool);
  }
} pyramidkv{};

}  // namespace TERN_ABI
}  // namespace tern

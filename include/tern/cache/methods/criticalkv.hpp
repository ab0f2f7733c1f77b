// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/methods/criticalkv.hpp
/// CriticalKV: Identify Critical KV Cache in LLM Inference from an Output Perturbation Perspective (Feng et al. 2025, arXiv:2502.03805).
///
/// Half of the budget by SnapKV's scores, the other half by what tokens add to the layer's output:
///
///     b = budget - window; of the tokens before the window, the [b share] with the largest a_j stay, and of the others the b - [b share]
///     with the largest (a_j + epsilon) |W v_j|_1, W a head's part of the output projection; a_j SnapKV's scores; the window stays
///
///     criticalkv(policy, cache, s, layer, q, w, budget)      q as snapkv takes it; w (outputs, heads dim_v), the output projection
///
/// When      once, after the prompt of a layer.
/// Cost      that of snapkv, and 2 heads keys dim_v outputs flop (cache/output_norms.hpp).
/// Source    the paper (share 0.5, epsilon 1e-4); kvpress's CriticalKVPress counts the window's tokens in the first half.

#include <tern/cache/methods/snapkv.hpp>
#include <tern/cache/output_norms.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
struct criticalkv_options {
  float share = 0.5f, epsilon = 1e-4f;
  pooling pool = {};
};

/// See the top of this file.
inline constexpr struct criticalkv_fn {
  template <class K, class V, tensor_like Q, tensor_like W>
  void operator()(cpu_policy const& policy, kv_cache<K, V>& cache, std::int32_t s, index layer, Q&& q, W&& w, index budget,
                  criticalkv_options const& options = {}) const {
    index const heads = cache.shape().kv_heads, window = tern::view(q).extent(1), b = budget > window ? budget - window : 0;
    detail::expect_share("criticalkv", "options.share in percent", static_cast<double>(options.share));
    token_scores const scores(policy, heads, cache.longest(s, layer));
    snapkv_scores(policy, cache, s, layer, q, scores, options.pool);
    output_norms(policy, cache, s, layer, w, scores.first);
    for (index h = 0; h < heads; ++h) {
      index const length = cache.length(s, layer, h), before = length > window ? length - window : 0;
      auto const a = scores.second[h].slice(0, 0, before);
      index const sure = select_top(a, static_cast<index>(options.share * static_cast<float>(b)), scores.kept.room(h));
      for (index i = 0; i < sure; ++i) scores.first(h, scores.kept.row(h)[i]) = __builtin_inff();
      for (index j = 0; j < before; ++j) a[j] = (a[j] + options.epsilon) * scores.first(h, j);
    }
    select_tokens(scores.second, budget, protect{0, window}, scores.kept);
    cache.keep(policy, s, layer, scores.kept);
  }
} criticalkv{};

}  // namespace TERN_ABI
}  // namespace tern

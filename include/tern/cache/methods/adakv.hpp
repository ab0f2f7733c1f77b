// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/methods/adakv.hpp
/// Ada-KV: Optimizing KV Cache Eviction by Adaptive Budget Allocation for Efficient LLM Inference (Feng et al. 2024, arXiv:2407.11550).
///
/// SnapKV's scores, and heads that need more tokens get more, from those whose attention is narrow:
///
///     c_h = how many of the kv_heads b tokens with the largest scores of all heads together lie in head h,   b = budget - window
///     head h keeps its window and the round((1 - floor) c_h + floor b) others with the largest scores
///
///     adakv(policy, cache, s, layer, q, budget)       q (heads, window, dim): the last queries, rotated, once their keys are in the
///                                                     cache; `budget` the mean over the heads
///
/// When      once, after the prompt of a layer. Heads are of different lengths from then on, which the cache and attention take.
/// Cost      that of snapkv.
/// Source    the authors' code (floor 0.2, for which they take the largest of 7 neighbors: pooling{7, true}). kvpress's AdaKVPress keeps
///           the [floor budget] best of each head and then the best of all: select_tokens_together(scores, budget, protect, floor, kept).

#include <tern/cache/methods/snapkv.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr struct adakv_fn {
  template <class K, class V, tensor_like Q>
  void operator()(cpu_policy const& policy, kv_cache<K, V>& cache, std::int32_t s, index layer, Q&& q, index budget,
                  pooling const& pool = {}, float floor = 0.2f) const {
    index const heads = cache.shape().kv_heads, window = tern::view(q).extent(1);
    detail::expect(budget >= 0, "adakv", "budget", budget, "at least 0");
    detail::expect_share("adakv", "floor in percent", static_cast<double>(floor));
    token_scores const scores(policy, heads, cache.longest(s, layer));
    snapkv_scores(policy, cache, s, layer, q, scores, pool);
    index const each = budget > window ? budget - window : 0, always = budget < window ? budget : window;
    mark_window(cache, s, layer, window, detail::negative_infinity, scores.second);
    select_tokens_together(scores.second, each, {}, 0.f, scores.kept);
    mark_window(cache, s, layer, always, __builtin_inff(), scores.second);
    for (index h = 0; h < heads; ++h) {
      float const more = __builtin_rintf((1 - floor) * static_cast<float>(scores.kept.count(h)) + floor * static_cast<float>(each));
      scores.kept.counts[h] =
          static_cast<std::int32_t>(select_top(scores.second[h], always + static_cast<index>(more), scores.kept.room(h)));
    }
    cache.keep(policy, s, layer, scores.kept);
  }

 private:
  template <class Cache>
  TERN_INLINE static void mark_window(Cache const& cache, std::int32_t s, index layer, index window, float mark,
                                      tensor_view<float, 2> const& scores) {
    for (index h = 0; h < scores.extent(0); ++h)
      for (index j = cache.length(s, layer, h); j > 0 && j > cache.length(s, layer, h) - window; --j) scores(h, j - 1) = mark;
  }
} adakv{};

}  // namespace TERN_ABI
}  // namespace tern

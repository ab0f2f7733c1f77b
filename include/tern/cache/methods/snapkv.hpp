// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/methods/snapkv.hpp
/// SnapKV: LLM Knows What You are Looking for Before Generation (Li et al. 2024, arXiv:2404.14469).
///
/// The last queries of a prompt, the window, vote for what the answer will need:
///
///     score_j = mean over the heads that share a key head and the queries i of the window of softmax(q_i k^T / sqrt(dim))_j,
///               averaged over neighbors; the `budget` tokens with the largest stay, the window always among them
///
/// Query i of the window sees the keys up to its own. Neighbors end where the window begins: what it receives counts as 0.
///
///     snapkv(policy, cache, s, layer, q, budget, pooling{5})      q (heads, window, dim): the last queries, rotated, once their keys
///                                                                 are in the cache
///     snapkv_scores(policy, cache, s, layer, q, scores, pooling)  the scores (kv_heads, tokens) alone; scores.second is the result
///
/// Both take products<bf16>{} behind that, to score as the prompt's attention multiplies (cache/observed_weights.hpp).
///
/// Edges     a budget of no more than the window keeps the latest tokens alone, `budget` of them: q is the last 32 or 64 queries, not all.
/// When      once, after the prompt of a layer; later tokens are appended as ever.
/// Cost      4 heads window keys dim flop, and moving what stays.
/// Source    the paper, and its authors' code for pooling: window 32 or 64, pool 5 or 7, the mean or the largest of the neighbors.

#include <tern/cache/kv_cache.hpp>
#include <tern/cache/observed_weights.hpp>
#include <tern/cache/select_tokens.hpp>
#include <tern/cache/smooth_scores.hpp>
#include <tern/cache/token_scores.hpp>

namespace tern {
inline namespace TERN_ABI {

/// How scores of neighboring tokens become one.
struct pooling {
  index width = 5;       ///< tokens, an odd number; 1 for none
  bool largest = false;  ///< the largest and not the mean
};

/// See the top of this file.
inline constexpr struct snapkv_scores_fn {
  template <class K, class V, tensor_like Q, class T = float>
  void operator()(cpu_policy const& policy, kv_cache<K, V> const& cache, std::int32_t s, index layer, Q&& q, token_scores const& scores,
                  pooling const& pool = {}, products<T> const& multiply = {}) const {
    index const window = tern::view(q).extent(1);
    observed_weights(policy, q, cache.keys(s, layer), scores.first, multiply);
    for (index h = 0; h < cache.shape().kv_heads; ++h) {  // the window's own tokens vote, and are not voted for
      index const length = cache.length(s, layer, h), before = length > window ? length - window : 0;
      auto const head = scores.first.slice(0, h, h + 1);
      auto const to = scores.second.slice(0, h, h + 1).slice(1, 0, before);
      if (pool.largest)
        largest_neighbor(head.slice(1, 0, before), pool.width, to);
      else
        average_neighbors(head.slice(1, 0, before), pool.width, to);
      for (index j = before; j < head.extent(1); ++j) scores.second(h, j) = head(0, j);
    }
  }
} snapkv_scores{};

/// See the top of this file.
inline constexpr struct snapkv_fn {
  template <class K, class V, tensor_like Q, class T = float>
  void operator()(cpu_policy const& policy, kv_cache<K, V>& cache, std::int32_t s, index layer, Q&& q, index budget,
                  pooling const& pool = {}, products<T> const& multiply = {}) const {
    token_scores const scores(policy, cache.shape().kv_heads, cache.longest(s, layer));
    snapkv_scores(policy, cache, s, layer, q, scores, pool, multiply);
    select_tokens(scores.second, budget, protect{0, tern::view(q).extent(1)}, scores.kept);
    cache.keep(policy, s, layer, scores.kept);
  }
} snapkv{};

}  // namespace TERN_ABI
}  // namespace tern

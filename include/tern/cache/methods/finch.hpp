// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/methods/finch.hpp
/// FINCH: Prompt-guided Key-Value Cache Compression (Corallo and Papotti 2024, arXiv:2408.00167).
///
/// A text longer than the model takes is read in chunks, each with the question behind it. What the question looks at stays, and moves
/// together:
///
///     score_j = mean over the heads that share a key head and the question's queries i of n_i softmax(q_i k^T / sqrt(dim))_j,
///               n_i the tokens that query i sees; the `budget` tokens with the largest stay, the question always among them.
///     The tokens that stay stand at positions 0, 1, ... from then on.
///
///     for (chunks of the text) {
///       for (layers) {                                             of a chunk and the question behind it:
///         cache.append(policy, s, layer, k, v);                    rotated, at positions from cache.next_position(s, layer) on
///         finch(policy, cache, s, layer, q, budget, options);      q (heads, question, dim): the question's queries, rotated; options as
///       }                                                          rope takes them
///       cache.truncate(s, cache.next_position(s) - question);      but for the last chunk
///     }
///
/// `budget` may grow with each chunk: what stayed of earlier ones stands for election again.
/// When      after each chunk of a text, in each layer, before the chunk's question is forgotten.
/// Cost      4 heads question keys dim flop a chunk and layer, and turning the keys that stay (cache/rerotate.hpp).
/// Source    the paper; kvpress's FinchPress, which its authors call equal to theirs, has n_i one less.

#include <tern/cache/observed_weights.hpp>
#include <tern/cache/rerotate.hpp>
#include <tern/cache/select_tokens.hpp>
#include <tern/cache/token_scores.hpp>

namespace tern {
inline namespace TERN_ABI {

/// finch_scores(policy, cache, s, layer, q, scores): the scores (kv_heads, tokens) alone.
inline constexpr struct finch_scores_fn {
  template <class K, class V, tensor_like Q>
  void operator()(cpu_policy const& policy, kv_cache<K, V> const& cache, std::int32_t s, index layer, Q&& q,
                  tensor_view<float, 2> const& scores) const {
    auto const x = tern::view(q);
    index const heads = x.extent(0), queries = x.extent(1), kv_heads = cache.shape().kv_heads;
    auto const keys = cache.keys(s, layer);
    workspace::lease const scratch(policy.scratch(), static_cast<std::size_t>(heads * queries) * sizeof(float));
    auto const lse = tern::view(reinterpret_cast<float*>(scratch.data()), heads, queries);
    observed_log_sums(policy, x, keys, lse);
    for (index g = 0; g < heads; ++g)  // n e^(x - lse) = e^(x - (lse - log n))
      for (index i = 0; i < queries; ++i) {
        index const seen = cache.length(s, layer, g / (heads / kv_heads)) - queries + i + 1;
        if (seen > 0) lse(g, i) -= static_cast<float>(__builtin_log(static_cast<double>(seen)));
      }
    observed_weights(policy, x, keys, scores, lse);
  }
} finch_scores{};

/// See the top of this file.
inline constexpr struct finch_fn {
  template <class K, class V, tensor_like Q>
  void operator()(cpu_policy const& policy, kv_cache<K, V>& cache, std::int32_t s, index layer, Q&& q, index budget,
                  rope_options const& options = {}) const {
    token_scores const scores(policy, cache.shape().kv_heads, cache.longest(s, layer));
    finch_scores(policy, cache, s, layer, q, scores.first);
    select_tokens(scores.first, budget, protect{0, tern::view(q).extent(1)}, scores.kept);
    cache.keep(policy, s, layer, scores.kept);
    rerotate(policy, cache, s, layer, 0, options);
  }
} finch{};

}  // namespace TERN_ABI
}  // namespace tern

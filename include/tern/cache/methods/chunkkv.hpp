// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/methods/chunkkv.hpp
/// ChunkKV: Semantic-Preserving KV Cache Compression for Efficient Long-Context LLM Inference (Liu et al. 2025, arXiv:2502.00299).
///
/// Whole chunks of neighboring tokens stay, so that no sentence is torn:
///
///     w_j = mean over the heads that share a key head and the queries i of the window of softmax(q_i k^T / sqrt(dim))_j,
///     score of a chunk = sum of w_j over its tokens; the (budget - window) / chunk chunks with the largest stay, and the window
///
///     chunkkv(policy, cache, s, layer, q, budget, chunk = 10)      q (heads, window, dim): the last queries, rotated, once their keys are
///                                                                  in the cache
///     chunkkv_lists(policy, cache, s, layer, q, budget, lists)     what would stay, for several layers: the paper's reuse of indices is
///                                                                  cache.keep(policy, s, layer + 1, lists)
///
/// When      once, after the prompt of a layer.
/// Cost      4 heads window keys dim flop, none for layers that reuse lists, and moving what stays.
/// Source    the paper, and the authors' group's code (KVCache-Factory: each head its own chunks). kvpress's ChunkKVPress has one list for
///           all heads (cache/average_heads.hpp), chunks that count the window's tokens too, and the mean over a last, shorter chunk.

#include <tern/cache/kv_cache.hpp>
#include <tern/cache/observed_weights.hpp>
#include <tern/cache/select_chunks.hpp>
#include <tern/cache/token_scores.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file. `lists`: a row for each key head, with a place for each token.
inline constexpr struct chunkkv_lists_fn {
  template <class K, class V, tensor_like Q>
  void operator()(cpu_policy const& policy, kv_cache<K, V> const& cache, std::int32_t s, index layer, Q&& q, index budget,
                  index_lists const& lists, index chunk = 10) const {
    token_scores const scores(policy, cache.shape().kv_heads, cache.longest(s, layer));
    observed_weights(policy, q, cache.keys(s, layer), scores.first);
    select_chunks(scores.first, chunk, budget, protect{0, tern::view(q).extent(1)}, lists);
  }
} chunkkv_lists{};

/// See the top of this file.
inline constexpr struct chunkkv_fn {
  template <class K, class V, tensor_like Q>
  void operator()(cpu_policy const& policy, kv_cache<K, V>& cache, std::int32_t s, index layer, Q&& q, index budget,
                  index chunk = 10) const {
    token_scores const scores(policy, cache.shape().kv_heads, cache.longest(s, layer));
    chunkkv_lists(policy, cache, s, layer, q, budget, scores.kept, chunk);
    cache.keep(policy, s, layer, scores.kept);
  }
} chunkkv{};

}  // namespace TERN_ABI
}  // namespace tern

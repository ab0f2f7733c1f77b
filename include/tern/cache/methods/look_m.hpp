// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/methods/look_m.hpp
/// LOOK-M: Look-Once Optimization in KV Cache for Efficient Multimodal Long-Context Inference (Wan et al. 2024, arXiv:2406.18139).
///
/// Of a prompt of text and images, text stays first, and what goes is merged into what stays (cache/merge_tokens.hpp):
///
///     A_j     = mean over the heads that share a key head and the queries i of softmax(q_i k^T / sqrt(dim))_j
///     score_j = A_j + T for tokens of text, A_j for those of images;   T = max over j of A_j
///     the `recent` last tokens stay, and those with the largest scores, `budget` together; each other one goes to its nearest kept key
///
///     look_m(policy, cache, s, layer, q, is_text, budget, recent, rule)
///
/// Shapes    q (heads, queries, dim): the prompt's queries, or its last ones, rotated, once their keys are in the cache; is_text
///           (tokens), bool: by place in the cache, which all heads share.
/// When      once, after the prompt of a layer; later tokens are appended as ever.
/// Cost      4 heads queries keys dim flop, 2 evicted kept dim a key head, and moving what stays.
/// Source    its authors' code (modify_llama.py), for the sums, the cosines, the three merges and what they divide by; the abstract for
///           text first. There images are set aside by a penalty, which gives the order that T does, and the averaged and weighted merges
///           leave out tokens less similar than the mean over all; here every token merges. Keys and values merge in one order.

#include <tern/cache/merge_tokens.hpp>
#include <tern/cache/observed_weights.hpp>
#include <tern/cache/select_tokens.hpp>
#include <tern/cache/token_scores.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr struct look_m_fn {
  template <class K, class V, tensor_like Q>
  void operator()(cpu_policy const& policy, kv_cache<K, V>& cache, std::int32_t s, index layer, Q&& q,
                  tensor_view<bool const, 1> const& is_text, index budget, index recent, merge_rule rule = merge_rule::pivotal) const {
    index const heads = cache.shape().kv_heads, keys = cache.longest(s, layer);
    detail::expect_equal("look_m", "is_text.extent(0)", is_text.extent(0), "the tokens of the cache", keys);
    token_scores const scores(policy, heads, keys);
    observed_weights(policy, q, cache.keys(s, layer), scores.first);
    for (index h = 0; h < heads; ++h) {
      index const length = cache.length(s, layer, h);
      float most = 0;
      for (index j = 0; j < length; ++j) most = scores.first(h, j) > most ? scores.first(h, j) : most;
      for (index j = 0; j < length; ++j) scores.first(h, j) += is_text[j] ? most : 0;
    }
    select_tokens(scores.first, budget, protect{0, recent}, scores.kept);
    merge_tokens(policy, cache, s, layer, scores.kept, rule);
    cache.keep(policy, s, layer, scores.kept);
  }
} look_m{};

}  // namespace TERN_ABI
}  // namespace tern

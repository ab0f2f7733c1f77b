// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/methods/tova.hpp
/// TOVA: Transformers are Multi-State RNNs (Oren, Hassid, Yarden, Adi and Schwartz 2024, arXiv:2401.06104).
///
/// What the newest token looks at least goes, the same tokens in all heads:
///
///     score_j = mean over all heads of softmax(q k^T / sqrt(dim))_j, q the newest token's; the `budget` tokens with the largest stay
///
///     tova(policy, cache, s, layer, q, budget)      q (heads, queries, dim), rotated: the last one counts. Its key is in the cache
///
/// When      after each token of a layer: then one token goes each time. Or every so many (cache/every.hpp). While there are no more tokens
///           than the budget it does nothing.
/// Cost      4 heads keys dim flop, and moving what stays behind the token that goes.
/// Fails     where heads hold tokens at different positions.
/// Source    the paper and its authors' code, which may drop the newest token itself; kvpress's TOVAPress never does, as protect{0, 1}.

#include <tern/cache/average_heads.hpp>
#include <tern/cache/kv_cache.hpp>
#include <tern/cache/observed_weights.hpp>
#include <tern/cache/select_tokens.hpp>
#include <tern/cache/token_scores.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr struct tova_fn {
  template <class K, class V, tensor_like Q>
  void operator()(cpu_policy const& policy, kv_cache<K, V>& cache, std::int32_t s, index layer, Q&& q, index budget,
                  protect const& always = {}) const {
    auto const queries = tern::view(q);
    index const keys = cache.longest(s, layer), count = queries.extent(1);
    detail::expect(count >= 1, "tova", "q.extent(1)", count, "at least 1");
    if (keys <= budget) return;
    token_scores const scores(policy, cache.shape().kv_heads, keys);
    observed_weights(policy, queries.slice(1, count - 1, count), cache.keys(s, layer), scores.first);
    average_heads(cache, s, layer, scores.first);
    select_tokens(scores.first, budget, always, scores.kept);
    cache.keep(policy, s, layer, scores.kept);
  }
} tova{};

}  // namespace TERN_ABI
}  // namespace tern

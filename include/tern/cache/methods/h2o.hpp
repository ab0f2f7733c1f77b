// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/methods/h2o.hpp
/// H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models (Zhang et al. 2023, arXiv:2306.14048).
///
/// What was looked at most so far stays, beside the latest tokens:
///
///     sum_j = over all queries i so far: mean over the heads that share a key head of softmax(q_i k^T / sqrt(dim))_j
///     half of the budget are the latest tokens, half those of the others with the largest sums
///
///     h2o_state h2o(kv_heads);                       of one layer of one text
///     h2o.observe(policy, cache, s, layer, q);       q (heads, tokens, dim), rotated: of a prompt, or of one token, whose keys are in the
///                                                    cache
///     h2o.evict(policy, cache, s, layer, budget);    sums of tokens that go are forgotten
///
/// When      observe after each token and prompt, each once; evict after each (one token goes then), or every so many.
///           A fork of the text takes a copy of the state. Truncated texts are followed: sums of forgotten tokens go. Where another method
///           or slide() takes tokens away, sums are of no use.
/// Memory    4 bytes for each token and key head.
/// Cost      observe 4 heads queries keys dim flop: attention without values once more. evict moves what stays.
/// Source    the paper and its authors' code, where each query head has keys of its own. kvpress's ObservedAttentionPress scores by
///           sum_j / (how many queries saw j).

#include <tern/cache/kv_cache.hpp>
#include <tern/cache/observed_weights.hpp>
#include <tern/cache/select_tokens.hpp>
#include <tern/cache/token_scores.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
class h2o_state {
 public:
  explicit h2o_state(index kv_heads) {
    detail::expect(kv_heads >= 1, "h2o_state", "kv_heads", kv_heads, "at least 1");
    for (index h = 0; h < kv_heads; ++h) sums_.push({});
  }
  template <class K, class V, tensor_like Q>
  void observe(cpu_policy const& policy, kv_cache<K, V> const& cache, std::int32_t s, index layer, Q&& q) {
    index const heads = cache.shape().kv_heads;
    detail::expect_equal("h2o_state::observe", "kv_heads of the cache", heads, "that of the state", sums_.size());
    token_scores const scores(policy, heads, cache.longest(s, layer));
    observed_weights(policy, q, cache.keys(s, layer), scores.first);
    index const queries = tern::view(q).extent(1);
    for (index h = 0; h < heads; ++h) {
      index const length = cache.length(s, layer, h);
      follow(h, length > queries ? length - queries : 0);  // the queries' own keys are new
      follow(h, length);
      for (index j = 0; j < length; ++j) sums_[h][j] += scores.first(h, j) * static_cast<float>(queries);
    }
  }
  template <class K, class V>
  void evict(cpu_policy const& policy, kv_cache<K, V>& cache, std::int32_t s, index layer, index budget) {
    evict(policy, cache, s, layer, budget, budget - budget / 2);
  }
  /// The same with another number of latest tokens.
  template <class K, class V>
  void evict(cpu_policy const& policy, kv_cache<K, V>& cache, std::int32_t s, index layer, index budget, index latest) {
    index const heads = cache.shape().kv_heads, keys = cache.longest(s, layer);
    detail::expect_equal("h2o_state::evict", "kv_heads of the cache", heads, "that of the state", sums_.size());
    detail::expect(latest >= 0, "h2o_state::evict", "latest", latest, "at least 0");
    if (keys <= budget) return;
    token_scores const scores(policy, heads, keys);
    for (index h = 0; h < heads; ++h) {
      follow(h, cache.length(s, layer, h));
      for (index j = 0; j < keys; ++j) scores.first(h, j) = j < sums_[h].size() ? sums_[h][j] : detail::negative_infinity;
    }
    select_tokens(scores.first, budget, protect{0, latest}, scores.kept);
    cache.keep(policy, s, layer, scores.kept);
    for (index h = 0; h < heads; ++h) {
      for (index i = 0; i < scores.kept.count(h); ++i) sums_[h][i] = sums_[h][scores.kept.row(h)[i]];
      sums_[h].shrink(scores.kept.count(h));
    }
  }
  /// The sums of a head's tokens.
  TERN_INLINE tensor_view<float const, 1> sums(index h) const { return {sums_[h].data(), shape<1>{{sums_[h].size()}}}; }

 private:
  TERN_INLINE void follow(index h, index length) {
    sums_[h].shrink(length);
    while (sums_[h].size() < length) sums_[h].push(0.f);
  }
  detail::growing<detail::growing<float>> sums_;  // (kv_heads, tokens)
};

}  // namespace TERN_ABI
}  // namespace tern

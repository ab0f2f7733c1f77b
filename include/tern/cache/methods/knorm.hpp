// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/methods/knorm.hpp
/// A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression (Devoto, Zhao, Scardapane and Minervini 2024,
/// arXiv:2406.11430).
///
/// Keys of small norm are those that queries look at:
///
///     score_j = -|k_j|; the `budget` tokens with the largest stay
///
///     knorm(policy, cache, s, layer, budget, protect{0, 32})
///
/// When      at any time: no queries are needed. The paper leaves the first layers as they are.
/// Cost      2 keys dim flop a head, one reading of the keys, and moving what stays.
/// Source    the paper; kvpress's KnormPress scores alike. Neither protects tokens, which is the default here.

#include <tern/cache/select_tokens.hpp>
#include <tern/cache/token_norms.hpp>
#include <tern/cache/token_scores.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr struct knorm_fn {
  template <class K, class V>
  void operator()(cpu_policy const& policy, kv_cache<K, V>& cache, std::int32_t s, index layer, index budget,
                  protect const& always = {}) const {
    token_scores const scores(policy, cache.shape().kv_heads, cache.longest(s, layer));
    key_norms(policy, cache, s, layer, scores.first, -1.f);
    select_tokens(scores.first, budget, always, scores.kept);
    cache.keep(policy, s, layer, scores.kept);
  }
} knorm{};

}  // namespace TERN_ABI
}  // namespace tern

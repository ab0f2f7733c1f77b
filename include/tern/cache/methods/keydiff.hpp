// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/methods/keydiff.hpp
/// KeyDiff: Key Similarity-Based KV Cache Eviction for Long-Context LLM Inference in Resource-Constrained Environments (Park et al. 2025,
/// arXiv:2504.15364).
///
/// Keys that are unlike the others stay:
///
///     score_j = -cos(k_j, a),   a = mean over the head's tokens t of k_t / |k_t|; the `budget` tokens with the largest stay
///
///     keydiff(policy, cache, s, layer, budget, protect{0, 32})
///     keydiff_scores(policy, cache, s, layer, scores)              the scores (kv_heads, tokens) alone
///
/// When      at any time: no queries are needed. The paper calls it after each block of a prompt, so that the cache never holds more
///           than the budget and a block.
/// Cost      10 keys dim flop a head, two readings of the keys, and moving what stays. A key of zeros has the score 0.
/// Source    the paper; kvpress's KeyDiffPress scores alike. Neither protects tokens, which is the default here.

#include <tern/cache/select_tokens.hpp>
#include <tern/cache/token_norms.hpp>
#include <tern/cache/token_scores.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr struct keydiff_scores_fn {
  template <class K, class V>
  void operator()(cpu_policy const& policy, kv_cache<K, V> const& cache, std::int32_t s, index layer,
                  tensor_view<float, 2> const& scores) const {
    index const heads = cache.shape().kv_heads, dim = cache.shape().dim;
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(heads * dim) * sizeof(float));
    auto* const anchors = reinterpret_cast<float*>(memory.data());  // (heads, dim): sums, whose length does not matter
    detail::row_scratch const rows(policy, detail::pages_of_layer(cache, s, layer) + heads, dim, 2);
    detail::parallel_for(policy, heads, [&](index h, index slot) TERN_LAMBDA {
      float *const x = rows.of(slot), *const part = x + dim, *const sum = anchors + h * dim;
      for (index d = 0; d < dim; ++d) sum[d] = part[d] = 0;
      for (index t = 0; t < cache.length(s, layer, h); ++t) {
        cache.read_key(s, layer, h, t, x);
        add(x, inverse_length(x, dim), dim, part);
        if (t % page_rows == page_rows - 1 || t == cache.length(s, layer, h) - 1) {  // sums of sums: the error grows slowly
          add(part, 1.f, dim, sum);
          for (index d = 0; d < dim; ++d) part[d] = 0;
        }
      }
    });
    detail::score_tokens("keydiff_scores", policy, cache, s, layer, scores, [&](index h, index t, index slot) TERN_LAMBDA {
      float *const x = rows.of(slot), *const a = anchors + h * dim;
      cache.read_key(s, layer, h, t, x);
      return -detail::dot_row(x, a, dim) * inverse_length(x, dim) * inverse_length(a, dim);
    });
  }

 private:
  TERN_INLINE static float inverse_length(float const* x, index n) {
    float const length = __builtin_sqrtf(detail::dot_row(x, x, n));
    return length == 0.f ? 0.f : 1 / length;
  }
  TERN_INLINE static void add(float const* x, float factor, index n, float* to) {
    detail::each_pack(0, n, [&](index i, auto part) TERN_LAMBDA {
      detail::store(to + i, simd::fma(detail::load(x + i, part), simd::pack<float>(factor), detail::load(to + i, part)), part);
    });
  }
} keydiff_scores{};

/// See the top of this file.
inline constexpr struct keydiff_fn {
  template <class K, class V>
  void operator()(cpu_policy const& policy, kv_cache<K, V>& cache, std::int32_t s, index layer, index budget,
                  protect const& always = {}) const {
    token_scores const scores(policy, cache.shape().kv_heads, cache.longest(s, layer));
    keydiff_scores(policy, cache, s, layer, scores.first);
    select_tokens(scores.first, budget, always, scores.kept);
    cache.keep(policy, s, layer, scores.kept);
  }
} keydiff{};

}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/methods/expected_attention.hpp
/// Expected Attention: KV Cache Compression by Estimating Attention from Future Queries Distribution (Devoto, Jeblick and Jegou 2025,
/// arXiv:2510.00636).
///
/// What queries to come, taken as normally distributed, will look at on average:
///
///     z_j = m . k_j / sqrt(dim) + k_j^T C k_j / (2 dim),   m and C the mean and covariance of a head's queries to come
///     score_j = (mean over the heads that share a key head of softmax(z)_j, over the tokens behind the sinks, + epsilon) |v_j|
///     the `budget` tokens with the largest stay, the first `sinks` always among them
///
///     query_statistics future(heads, dim);
///     future.fit(policy, q, cache.next_position(s, layer), 512, rope);     q before rotation: cache/query_statistics.hpp
///     expected_attention(policy, cache, s, layer, future, budget);
///
/// When      at any time, for keys that are stored rotated; statistics may be of an earlier text.
/// Cost      2 heads keys dim^2 flop; 2 heads keys dim without the covariance. Reads each key and value once, and moves what stays.
/// Memory    a number for each token of the heads that share a key head, and 64 keys with their products.
/// Source    the paper and kvpress's ExpectedAttentionPress, which take |v| where the theory has the norm of v's projection; epsilon is
///           0 there by default, 0.02 in the paper.

#include <tern/cache/query_statistics.hpp>
#include <tern/cache/select_tokens.hpp>
#include <tern/cache/token_norms.hpp>
#include <tern/cache/token_scores.hpp>
#include <tern/pointwise/softmax.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
struct expected_attention_options {
  index sinks = 4;
  float epsilon = 0;
  bool covariance = true, value_norm = true;
};

/// expected_attention_scores(policy, cache, s, layer, future, scores, options): scores.first (kv_heads, tokens); sinks have +inf.
inline constexpr struct expected_attention_scores_fn {
  template <class K, class V>
  void operator()(cpu_policy const& policy, kv_cache<K, V> const& cache, std::int32_t s, index layer, query_statistics const& future,
                  token_scores const& scores, expected_attention_options const& options = {}) const {
    constexpr char const* op = "expected_attention";
    index const heads = cache.shape().kv_heads, keys = cache.longest(s, layer), group = future.heads() / heads;
    detail::expect(future.heads() % heads == 0, op, "the heads of future", future.heads(), "a multiple of kv_heads");
    detail::expect_equal(op, "the dim of future", future.dim(), "that of keys", cache.shape().dim);
    detail::expect(options.sinks >= 0, op, "options.sinks", options.sinks, "at least 0");
    if (options.value_norm) value_norms(policy, cache, s, layer, scores.second);
    workspace::lease const scratch(policy.scratch(), static_cast<std::size_t>(group * keys) * sizeof(float));
    auto const z = tern::view(reinterpret_cast<float*>(scratch.data()), group, keys);
    for (index h = 0; h < heads; ++h) {
      index const length = cache.length(s, layer, h), first = options.sinks < length ? options.sinks : length;
      logits(policy, cache, s, layer, h, future, options.covariance, z);
      auto const rows = z.slice(1, first, length);
      if (first < length) softmax(policy, rows, rows);
      for (index j = 0; j < keys; ++j) {
        float mean = 0;
        for (index g = 0; g < group && j < length; ++g) mean += z(g, j) / static_cast<float>(group);
        float const worth = options.value_norm ? (mean + options.epsilon) * scores.second(h, j) : mean;
        scores.first(h, j) = j < first ? __builtin_inff() : j < length ? worth : detail::negative_infinity;
      }
    }
  }

 private:
  /// z (group, tokens) of the query heads of key head h.
  template <class Cache>
  static void logits(cpu_policy const& policy, Cache const& cache, std::int32_t s, index layer, index h, query_statistics const& future,
                     bool covariance, tensor_view<float, 2> const& z) {
    index const dim = cache.shape().dim, length = cache.length(s, layer, h), group = z.extent(0);
    workspace::lease const scratch(policy.scratch(), static_cast<std::size_t>(2 * page_rows * dim) * sizeof(float));
    auto* const key = reinterpret_cast<float*>(scratch.data());
    float* const product = key + page_rows * dim;
    float const root = 1 / __builtin_sqrtf(static_cast<float>(dim)), half = 0.5f / static_cast<float>(dim);
    for (index t0 = 0; t0 < length; t0 += page_rows) {
      index const count = length - t0 < page_rows ? length - t0 : page_rows;
      for (index t = 0; t < count; ++t) cache.read_key(s, layer, h, t0 + t, key + t * dim);
      for (index g = 0; g < group; ++g) {
        if (covariance) matmul(policy, tern::view(key, count, dim), future.covariance(h * group + g), tern::view(product, count, dim));
        float const* const mean = future.mean(h * group + g).data();
        for (index t = 0; t < count; ++t) {
          float const quadratic = covariance ? half * detail::dot_row(key + t * dim, product + t * dim, dim) : 0;
          z(g, t0 + t) = root * detail::dot_row(key + t * dim, mean, dim) + quadratic;
        }
      }
    }
  }
} expected_attention_scores{};

/// See the top of this file.
inline constexpr struct expected_attention_fn {
  template <class K, class V>
  void operator()(cpu_policy const& policy, kv_cache<K, V>& cache, std::int32_t s, index layer, query_statistics const& future,
                  index budget, expected_attention_options const& options = {}) const {
    token_scores const scores(policy, cache.shape().kv_heads, cache.longest(s, layer));
    expected_attention_scores(policy, cache, s, layer, future, scores, options);
    select_tokens(scores.first, budget, {}, scores.kept);
    cache.keep(policy, s, layer, scores.kept);
  }
} expected_attention{};

}  // namespace TERN_ABI
}  // namespace tern

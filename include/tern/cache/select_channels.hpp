// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/select_channels.hpp
/// Which channels of keys, or of values, some queries use most.
///
///     keys     score_c = |Q_c| |K_c|                             = |Q_c K_c^T| (Frobenius)
///     values   score_c = |softmax(Q K^T / sqrt(dim)) V_c|
///
/// with Q_c channel c of the queries of all heads that share the key head, K_c and V_c of all its keys and values.
///
///     select_key_channels(cache, s, layer, q, channels)               those with the largest scores, of each key head
///     select_value_channels(policy, cache, s, layer, q, channels)
///
/// Shapes    q (heads, queries, dim) of f32, f16 or bf16, rotated as the keys are: the last tokens of the cache; channels int32 (kv_heads,
///           how many), which are written ascending. dim is at most 1024. Norms are summed in f64.
/// Ties      go to the first channel.
/// Memory    values: scratch from the policy, the queries' attention.
/// Cost      one pass over the keys; for values that of attention.
/// Source    ThinK (arXiv:2407.21018): its authors' code (kv_pruning_utils.py, which has a key head for each head of queries); for values
///           its appendix D, as a public re-implementation quotes it.

#include <tern/attention/attention.hpp>
#include <tern/cache/kv_cache.hpp>

namespace tern {
inline namespace TERN_ABI {

/// The channels of each key head with the largest scores: see the top of this file.
inline constexpr struct select_key_channels_fn {
  template <class K, class V, tensor_like Q>
  void operator()(kv_cache<K, V> const& cache, std::int32_t s, index layer, Q&& q, tensor_view<std::int32_t, 2> const& channels) const {
    constexpr char const* op = "select_key_channels";
    constexpr index most = 1024;
    auto const x = tern::view(q);
    index const heads = cache.shape().kv_heads, dim = cache.shape().dim, group = x.extent(0) / heads;
    detail::expect(dim <= most, op, "dim of the cache", dim, "at most 1024");
    detail::expect(group > 0 && x.extent(0) % heads == 0, op, "q.extent(0)", x.extent(0), "a multiple of the heads of the cache");
    detail::expect_equal(op, "q.extent(2)", x.extent(2), "dim of the cache", dim);
    detail::expect_equal(op, "channels.extent(0)", channels.extent(0), "the heads of the cache", heads);
    detail::expect(channels.extent(1) >= 1 && channels.extent(1) <= dim, op, "channels.extent(1)", channels.extent(1), "1 to dim");
    static_cast<void>(cache.longest(s, layer));  // fails unless they are there
    for (index h = 0; h < heads; ++h) {
      double of_queries[most] = {}, of_keys[most] = {};
      float key[most], score[most];
      for (index g = h * group; g < (h + 1) * group; ++g)
        for (index i = 0; i < x.extent(1); ++i)
          for (index c = 0; c < dim; ++c) of_queries[c] += square(static_cast<float>(x(g, i, c)));
      for (index t = 0; t < cache.length(s, layer, h); ++t) {
        cache.read_key(s, layer, h, t, key);
        for (index c = 0; c < dim; ++c) of_keys[c] += square(key[c]);
      }
      for (index c = 0; c < dim; ++c) score[c] = static_cast<float>(__builtin_sqrt(of_queries[c]) * __builtin_sqrt(of_keys[c]));
      select_top(tern::view(static_cast<float const*>(score), dim), channels.extent(1), channels[h]);
    }
  }

 private:
  TERN_INLINE static double square(float x) { return static_cast<double>(x) * static_cast<double>(x); }
} select_key_channels{};

/// The same for values: see the top of this file.
inline constexpr struct select_value_channels_fn {
  template <class K, class V, tensor_like Q>
  void operator()(cpu_policy const& policy, kv_cache<K, V> const& cache, std::int32_t s, index layer, Q&& q,
                  tensor_view<std::int32_t, 2> const& channels) const {
    constexpr char const* op = "select_value_channels";
    auto const x = tern::view(q);
    index const kv_heads = cache.shape().kv_heads, heads = x.extent(0), tokens = x.extent(1), dim_v = cache.shape().dim_v;
    detail::expect(heads % kv_heads == 0, op, "q.extent(0)", heads, "a multiple of the heads of the cache");
    detail::expect_equal(op, "channels.extent(0)", channels.extent(0), "the heads of the cache", kv_heads);
    detail::expect(channels.extent(1) >= 1 && channels.extent(1) <= dim_v, op, "channels.extent(1)", channels.extent(1), "1 to dim_v");
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(heads * tokens * dim_v + dim_v) * sizeof(float));
    auto const seen = tern::view(reinterpret_cast<float*>(memory.data()), heads, tokens, dim_v);
    auto const score = tern::view(seen.data() + seen.size(), dim_v);
    attention(policy, x, cache.keys(s, layer), cache.values(s, layer), seen, causal{});
    for (index h = 0; h < kv_heads; ++h) {
      for (index c = 0; c < dim_v; ++c) {
        double sum = 0;
        for (index g = h * (heads / kv_heads); g < (h + 1) * (heads / kv_heads); ++g)
          for (index i = 0; i < tokens; ++i) sum += static_cast<double>(seen(g, i, c)) * static_cast<double>(seen(g, i, c));
        score[c] = static_cast<float>(__builtin_sqrt(sum));
      }
      select_top(score, channels.extent(1), channels[h]);
    }
  }
} select_value_channels{};

}  // namespace TERN_ABI
}  // namespace tern

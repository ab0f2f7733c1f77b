// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/methods/cam.hpp
/// CaM: Cache Merging for Memory-efficient LLMs Inference (Zhang et al. 2024, ICML, PMLR 235:58840-58850).
///
/// Whatever method chose the tokens that stay: the value of a token that goes is shared among the next tokens, at random, and the likelier
/// the more it was looked at. Keys stay as they are.
///
///     R_i  = the `receivers` tokens behind token i. Tokens go one by one, the first one first: those that go later pass on what they got
///     p_i  = min(1, a_i / mean over j in R_i of a_j)          a: how much attention each token got
///     v_j' = v_j + M_i v_i / |R_i| for j in R_i,              M_i ~ Bernoulli(p_i)
///
///     cam(policy, cache, s, layer, weights, kept, generator, receivers)     and the others are gone
///
/// Shapes    weights (kv_heads, tokens): a, as observed_weights gives it for the latest query, or the sum of it over the queries so far;
///           kept a row of places for each key head. generator: any of core/random.hpp's kind.
/// Random    one number is drawn for each token that goes, head by head: the same seed gives the same cache.
/// Edges     0 / 0 gives p = 0, and the last token, with nothing behind it, is only dropped.
/// When      whenever tokens are evicted: sinks and a window that slides, or what select_tokens chose.
/// Memory    scratch from the policy: 8 bytes for each token and head; for each thread the values of a head as floats.
/// Cost      evicted receivers dim_v additions a head, reading its values, and moving what stays.
/// Source    the authors' code (kv_cache_cam.py, modify_llama_cam.py: 16 or 32 receivers, which divide the value among them; the mean there
///           is over the receivers, or all that stay) and the paper's abstract.

#include <tern/cache/kv_cache.hpp>
#include <tern/core/random.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr struct cam_fn {
  template <class K, class V, random_generator G>
  void operator()(cpu_policy const& policy, kv_cache<K, V>& cache, std::int32_t s, index layer, tensor_view<float const, 2> const& weights,
                  index_lists const& kept, G& generator, index receivers = 16) const {
    constexpr char const* op = "cam";
    index const heads = cache.shape().kv_heads, keys = cache.longest(s, layer), dim_v = cache.shape().dim_v;
    detail::expect(receivers >= 1, op, "receivers", receivers, "at least 1");
    detail::expect_equal(op, "weights.extent(0)", weights.extent(0), "the heads of the cache", heads);
    detail::expect(weights.extent(1) >= keys, op, "weights.extent(1)", weights.extent(1), "one for each token");
    kept.check_shape(op, heads);
    for (index h = 0; h < heads; ++h)
      detail::expect_ascending(op, "an index of kept", kept.row(h), kept.count(h), cache.length(s, layer, h));
    cache.own_pages(s, layer);
    index const size = keys * dim_v;
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(heads * keys) * sizeof(double) +
                                                        static_cast<std::size_t>(detail::slots_for(policy, heads) * size) * sizeof(float));
    auto* const drawn = reinterpret_cast<double*>(memory.data());  // (heads, keys)
    for (index h = 0; h < heads; ++h)
      for (index i = 0; i < cache.length(s, layer, h) - kept.count(h); ++i) drawn[h * keys + i] = uniform(generator);
    detail::parallel_for(policy, heads, [&](index h, index slot) TERN_LAMBDA {
      share_values(cache, s, layer, h, weights[h], kept.row(h), kept.count(h), drawn + h * keys, receivers,
                   reinterpret_cast<float*>(drawn + heads * keys) + slot * size);
    });
    cache.keep(policy, s, layer, kept);
  }

 private:
  /// values: room for those of the head.
  template <class Cache>
  static void share_values(Cache& cache, std::int32_t s, index layer, index h, tensor_view<float const, 1> const& weights,
                           std::int32_t const* kept, index count, double const* drawn, index receivers, float* values) {
    index const dim_v = cache.shape().dim_v, length = cache.length(s, layer, h);
    if (count == length) return;
    for (index t = 0; t < length; ++t) cache.read_value(s, layer, h, t, values + t * dim_v);
    index changed = 0;  // tokens before this one may have
    for (index t = 0, next = 0; t < length; ++t) {
      if (next < count && kept[next] == t) {
        if (t < changed) cache.write_value(s, layer, h, t, values + t * dim_v);
        ++next;
        continue;
      }
      double const number = *drawn++;
      index const end = length - t - 1 < receivers ? length : t + 1 + receivers;
      auto const some = static_cast<float>(end - t - 1);
      float got = 0;
      for (index j = t + 1; j < end; ++j) got += weights[j];
      if (!(number < static_cast<double>(weights[t] * some / got))) continue;  // NaN, of 0 / 0 or no receivers
      float* const part = values + t * dim_v;                                  // the token goes: its value becomes what each receiver gets
      for (index d = 0; d < dim_v; ++d) part[d] /= some;
      for (index j = t + 1; j < end; ++j)
        for (index d = 0; d < dim_v; ++d) values[j * dim_v + d] += part[d];
      changed = end;
    }
  }
} cam{};

}  // namespace TERN_ABI
}  // namespace tern

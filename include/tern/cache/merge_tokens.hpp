// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/merge_tokens.hpp
/// Tokens that are to go, merged into those that stay: each into the one whose key points most nearly the same way.
///
///     c(e) = argmax over the kept tokens c of cos(k_e, k_c),   E_c the tokens that go to c, n_c their number
///
///     merge_rule::mean        k_c' = (k_c + sum over E_c of k_e) / (1 + n_c)
///     merge_rule::pivotal     k_c' = (k_c + sum over E_c of (k_e + k_c) / 2) / (1 + n_c)
///     merge_rule::weighted    k_c' = (k_c + sum over E_c of cos(k_e, k_c) k_e) / (1 + n_c)
///
///     merge_tokens(policy, cache, s, layer, kept, rule)     kept: for each key head the places that stay; cache.keep(kept) then drops
///                                                           the others
///
/// Values    merge with the same partners and weights as their keys.
/// Kept      tokens that nothing goes to stay to the bit; the others are read, combined in f32 and rounded to the format anew. A head
///           that keeps nothing, or all, stays as it is.
/// Ties      go to the earlier kept token, as do keys of zeros and NaN.
/// Composition  cosines are a matmul of normalized keys, 64 tokens at a time.
/// Memory    scratch from the policy, for each thread: for each token of a head 2 dim + dim_v + 65 numbers, 128 dim, and what the matmul
///           takes. A head is a thread's.
/// Cost      2 evicted kept dim flop a head. Fails before anything changes.
/// Source    LOOK-M (arXiv:2406.18139): its authors' code.

#include <tern/attention/estimators/k_means.hpp>
#include <tern/cache/kv_cache.hpp>

namespace tern {

/// How tokens become one: see the top of this file.
enum class merge_rule { mean, pivotal, weighted };

inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr struct merge_tokens_fn {
  template <class K, class V>
    requires(!written_by_page<K>)
  void operator()(cpu_policy const& policy, kv_cache<K, V>& cache, std::int32_t s, index layer, index_lists const& kept,
                  merge_rule rule) const {
    constexpr char const* op = "merge_tokens";
    index const heads = cache.shape().kv_heads, most = cache.longest(s, layer);
    kept.check_shape(op, heads);
    for (index h = 0; h < heads; ++h)
      detail::expect_ascending(op, "an index of kept", kept.row(h), kept.count(h), cache.length(s, layer, h));
    cache.own_pages(s, layer);
    index const dim = cache.shape().dim, dim_v = cache.shape().dim_v;
    index const numbers = most * (2 * dim + dim_v + 1 + chunk) + chunk * (2 * dim + 1) + dim_v;
    std::size_t const own = workspace::rounded(static_cast<std::size_t>(numbers) * sizeof(float));
    auto const side = tern::view(static_cast<float*>(nullptr), chunk, dim), cosines = tern::view(side.data(), chunk, most);
    std::size_t const product = workspace_size(matmul, policy.on(serial), side, tern::view(side.data(), most, dim), cosines);
    std::size_t const each = own + workspace::rounded(product);
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(detail::slots_for(policy, heads)) * each);
    detail::parallel_for(policy, heads, [&](index h, index slot) TERN_LAMBDA {
      if (kept.count(h) == 0 || kept.count(h) == cache.length(s, layer, h)) return;
      std::byte* const mine = memory.data() + static_cast<std::size_t>(slot) * each;
      workspace for_product(mine + own, each - own);
      merge_head(policy.on(serial).with(for_product), cache, s, layer, h, kept.row(h), kept.count(h), rule, reinterpret_cast<float*>(mine));
    });
  }

 private:
  static constexpr index chunk = 64;

  template <class Cache>
  static void merge_head(cpu_policy const& policy, Cache& cache, std::int32_t s, index layer, index h, std::int32_t const* kept,
                         index count, merge_rule rule, float* memory) {
    index const dim = cache.shape().dim, dim_v = cache.shape().dim_v, length = cache.length(s, layer, h);
    float* const direction = memory;             // (count, dim) of kept keys
    float* const sum = direction + count * dim;  // (count, dim + dim_v)
    float* const merged = sum + count * (dim + dim_v);
    float* const cosine = merged + count;                                    // (chunk, count)
    float* const key = cosine + chunk * count;                               // (chunk, dim)
    float* const along = key + chunk * dim;                                  // (chunk, dim), normalized
    auto* const ids = reinterpret_cast<std::int32_t*>(along + chunk * dim);  // (chunk)
    float* const value = reinterpret_cast<float*>(ids + chunk);              // (dim_v)
    for (index i = 0; i < count * (dim + dim_v + 1); ++i) sum[i] = 0;
    for (index c = 0; c < count; ++c) {
      cache.read_key(s, layer, h, kept[c], key);
      detail::normalize_row(key, dim, direction + c * dim);
    }
    for (index t = 0, next = 0; t < length;) {
      index some = 0;
      for (; t < length && some < chunk; ++t) {
        if (next < count && kept[next] == t) {
          ++next;
          continue;
        }
        cache.read_key(s, layer, h, t, key + some * dim);
        detail::normalize_row(key + some * dim, dim, along + some * dim);
        ids[some++] = static_cast<std::int32_t>(t);
      }
      matmul(policy, tern::view(along, some, dim), tern::view(direction, count, dim), tern::view(cosine, some, count));
      for (index e = 0; e < some; ++e) {
        float const* const of = cosine + e * count;
        index const best = detail::argmax_packs(count, [&](index c, auto part) TERN_LAMBDA { return detail::load(of + c, part); });
        float const weight = rule == merge_rule::mean ? 1.f : rule == merge_rule::pivotal ? 0.5f : of[best];
        float* const to = sum + best * (dim + dim_v);
        cache.read_value(s, layer, h, ids[e], value);
        for (index d = 0; d < dim; ++d) to[d] += weight * key[e * dim + d];
        for (index d = 0; d < dim_v; ++d) to[dim + d] += weight * value[d];
        merged[best] += 1;
      }
    }
    for (index c = 0; c < count; ++c) {
      if (merged[c] == 0) continue;
      float const own = rule == merge_rule::pivotal ? 1 + merged[c] / 2 : 1.f, share = 1 / (1 + merged[c]);
      float const* const others = sum + c * (dim + dim_v);
      cache.read_key(s, layer, h, kept[c], key);
      for (index d = 0; d < dim; ++d) key[d] = (own * key[d] + others[d]) * share;
      cache.write_key(s, layer, h, kept[c], key);
      cache.read_value(s, layer, h, kept[c], value);
      for (index d = 0; d < dim_v; ++d) value[d] = (own * value[d] + others[dim + d]) * share;
      cache.write_value(s, layer, h, kept[c], value);
    }
  }
} merge_tokens{};

}  // namespace TERN_ABI
}  // namespace tern

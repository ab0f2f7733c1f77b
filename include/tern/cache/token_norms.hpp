// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/token_norms.hpp
/// How long the keys or values of a layer are, and what else is known of a token by itself.
///
///     key_norms(policy, cache, s, layer, norms, factor = 1)       norms_hj = factor |k_hj|
///     value_norms(policy, cache, s, layer, norms, factor = 1)     norms_hj = factor |v_hj|
///
/// Shapes    norms (kv_heads, keys of the longest head) f32; -inf stands behind the tokens of a shorter head.
/// Error     (dim / 16 + 5) 2^-24, relatively.
/// Cost      2 flop an element; reads each once. Memory: a row of floats for each thread.

#include <tern/cache/kv_cache.hpp>
#include <tern/tokens/token_norms.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// scores(h, t) = score(h, t, slot) for the tokens that head h has, and -inf behind them.
template <class K, class V, class F>
TERN_INLINE void score_tokens(char const* op, cpu_policy const& policy, kv_cache<K, V> const& cache, std::int32_t s, index layer,
                              tensor_view<float, 2> const& scores, F const& score) {
  index const heads = cache.shape().kv_heads, keys = cache.longest(s, layer), pages = divide_up(keys, page_rows);
  expect_equal(op, "scores.extent(0)", scores.extent(0), "kv_heads", heads);
  expect_equal(op, "scores.extent(1)", scores.extent(1), "the tokens of the longest head", keys);
  parallel_for(policy, heads * pages, [&](index item, index slot) TERN_LAMBDA {
    index const h = item / pages, first = item % pages * page_rows, end = first + page_rows < keys ? first + page_rows : keys;
    for (index t = first; t < end; ++t) scores(h, t) = t < cache.length(s, layer, h) ? score(h, t, slot) : negative_infinity;
  });
}
TERN_INLINE float dot_row(float const* x, float const* y, index n) {
  return sum_packs(n, [&](index i, auto part) TERN_LAMBDA { return load(x + i, part) * load(y + i, part); });
}
/// Rows of `dim` floats, one for each thread that works on a layer's pages.
struct row_scratch {
  index dim;
  workspace::lease memory;
  TERN_INLINE row_scratch(cpu_policy const& policy, index items, index n, index rows = 1)
      : dim(n * rows), memory(policy.scratch(), static_cast<std::size_t>(slots_for(policy, items) * dim) * sizeof(float)) {}
  TERN_INLINE float* of(index slot) const { return reinterpret_cast<float*>(memory.data()) + slot * dim; }
};
template <class Cache>
TERN_INLINE index pages_of_layer(Cache const& cache, std::int32_t s, index layer) {
  return cache.shape().kv_heads * divide_up(cache.longest(s, layer), page_rows);
}

/// norms(h, t) = factor |row t of head h|, which read(h, t, x) gives.
template <class Cache, class Read>
TERN_INLINE void row_norms(char const* op, cpu_policy const& policy, Cache const& cache, std::int32_t s, index layer, index dim,
                           tensor_view<float, 2> const& norms, float factor, Read const& read) {
  row_scratch const rows(policy, pages_of_layer(cache, s, layer), dim);
  score_tokens(op, policy, cache, s, layer, norms, [&](index h, index t, index slot) TERN_LAMBDA {
    float* const x = rows.of(slot);
    read(h, t, x);
    return factor * row_norm(x, dim);
  });
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr struct key_norms_fn {
  template <class K, class V>
  void operator()(cpu_policy const& policy, kv_cache<K, V> const& cache, std::int32_t s, index layer, tensor_view<float, 2> const& norms,
                  float factor = 1) const {
    detail::row_norms("key_norms", policy, cache, s, layer, cache.shape().dim, norms, factor,
                      [&](index h, index t, float* x) TERN_LAMBDA { cache.read_key(s, layer, h, t, x); });
  }
} key_norms{};

/// See the top of this file.
inline constexpr struct value_norms_fn {
  template <class K, class V>
  void operator()(cpu_policy const& policy, kv_cache<K, V> const& cache, std::int32_t s, index layer, tensor_view<float, 2> const& norms,
                  float factor = 1) const {
    detail::row_norms("value_norms", policy, cache, s, layer, cache.shape().dim_v, norms, factor,
                      [&](index h, index t, float* x) TERN_LAMBDA { cache.read_value(s, layer, h, t, x); });
  }
} value_norms{};

}  // namespace TERN_ABI
}  // namespace tern

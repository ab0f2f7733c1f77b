// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/problem.hpp
/// An attention call after its arguments were checked: pointers, strides, extents, and how the work is cut. Queries of all the
/// heads that share a key head are stacked, token by token: row = token * group + head in group. Rows, not heads, are tiled.

#include <tern/attention/tile.hpp>
#include <tern/core/policy.hpp>
#include <tern/core/tensor_view.hpp>
#include <tern/simd/convert.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// (batch, heads, rows, contiguous elements)
template <class T>
struct planes {
  T* data;
  index batch_stride, head_stride, row_stride;
  TERN_INLINE T* at(index b, index h, index row) const { return data + b * batch_stride + h * head_stride + row * row_stride; }
};
template <class T>
TERN_INLINE planes<T> planes_of(tensor_view<T, 4> const& x) {
  return {x.data(), x.stride(0), x.stride(1), x.stride(2)};
}

/// Views of lower rank with extents of 1 in front.
template <class T>
TERN_INLINE tensor_view<T, 4> with_batch(tensor_view<T, 4> const& x) {
  return x;
}
template <class T>
TERN_INLINE tensor_view<T, 4> with_batch(tensor_view<T, 3> const& x) {
  return x.expanded();
}
template <class T>
TERN_INLINE tensor_view<T, 4> with_batch(tensor_view<T, 2> const& x) {
  return x.expanded().expanded();
}
template <class T, int rank>
TERN_INLINE tensor_view<T, 3> with_batch_lse(tensor_view<T, rank> const& x) {
  if constexpr (rank == 1)
    return x.expanded().expanded();
  else if constexpr (rank == 2)
    return x.expanded();
  else
    return x;
}

struct attention_extents {
  index batch, heads, kv_heads, tokens, keys, dim, dim_v;
  TERN_INLINE index group() const { return heads / kv_heads; }
  TERN_INLINE index rows() const { return tokens * group(); }
};

TERN_INLINE constexpr index divide_up(index a, index b) { return (a + b - 1) / b; }
TERN_INLINE constexpr index round_to_multiple(index a, index b) { return divide_up(a, b) * b; }

template <class Q, class K, class V, class O, class Mask, class Score>
struct attention_problem {
  planes<Q const> q;  // (batch, heads, tokens, dim)
  planes<K const> k;  // (batch, kv_heads, keys, dim)
  planes<V const> v;  // (batch, kv_heads, keys, dim_v)
  planes<O> out;      // (batch, heads, tokens, dim_v)
  float* lse;         // (batch, heads, tokens), or null
  index lse_batch, lse_head, lse_token;
  attention_extents n;
  Mask mask;
  Score score;

  TERN_INLINE index head_of(index kv_head, index row) const { return kv_head * n.group() + row % n.group(); }
};

/// Asks for a row to be brought into the second-level cache.
template <class T>
TERN_INLINE void fetch_row(T const* row, index size) {
  constexpr index line = 64 / static_cast<index>(sizeof(T));
  for (index d = 0; d < size; d += line) __builtin_prefetch(row + d, 0, 2);
}

/// dst[0, count) = factor * src[0, count)
template <class T>
TERN_INLINE void widen_row(T const* src, index count, float factor, float* dst) {
  constexpr index W = simd::lanes;
  simd::pack<float> const f(factor);
  index d = 0;
  for (; d + W <= count; d += W) simd::store(dst + d, simd::load(src + d) * f);
  for (; d < count; ++d) dst[d] = static_cast<float>(src[d]) * factor;
}

/// dst[0, count) = factor * src[0, count), rounded to dst's type. `src` may be read up to a multiple of `lanes`.
template <class T>
TERN_INLINE void narrow_row(float const* src, index count, float factor, T* dst) {
  constexpr index W = simd::lanes;
  simd::pack<float> const f(factor);
  index d = 0;
  for (; d + W <= count; d += W) simd::store(dst + d, simd::load(src + d) * f);
  if (d < count) simd::store_n(dst + d, simd::load(src + d) * f, count - d);
}

/// Writes row `row` of key head `h`: o / l, and m + log2 l as a natural logarithm. An empty row has l = 0: zeros and -inf.
template <class Problem>
TERN_INLINE void finish_row(Problem const& p, index b, index h, index row, float const* o, float m, float l) {
  index const head = p.head_of(h, row), token = row / p.n.group();
  bool const empty = l == 0;
  narrow_row(o, p.n.dim_v, empty ? 0.f : 1 / l, p.out.at(b, head, token));
  if (p.lse != nullptr)
    p.lse[b * p.lse_batch + head * p.lse_head + token * p.lse_token] = empty ? negative_infinity : (m + __builtin_log2f(l)) * ln_2;
}

}  // namespace TERN_ABI
}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/stream.hpp
/// The path for few queries (the next token of a text): keys and values are read where they lie, once for all the heads that
/// share them, and converted on the way. Long contexts are cut into ranges of `split_keys` keys whose results merge by their
/// log-sum-exp, so that one head uses all threads. The cut follows from the number of keys alone.

#include <tern/attention/problem.hpp>
#include <tern/simd/reduce.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

inline constexpr index split_keys = 512;
static_assert(split_keys % key_block == 0 && key_block % 8 == 0);
/// Up to this many rows (queries times heads of a group) the path is taken.
inline constexpr index query_stream_rows = 8;

/// Rows that are taken at once: their sums stay in registers.
inline constexpr index stream_step = 4;

/// The memory of one work item, in floats.
struct stream_scratch {
  float* q;      // (rows, padded dim), scaled, zero behind dim
  float* s;      // (rows, key_block)
  float* alpha;  // (rows)

  TERN_INLINE static index padded(index d) { return round_to_multiple(d, simd::lanes); }
  TERN_INLINE static index lay_out(attention_extents const& n, float* base, stream_scratch* to) {
    index const q = n.rows() * padded(n.dim), s = n.rows() * key_block;
    if (to != nullptr) *to = {base, base + q, base + q + s};
    return q + s + round_to_multiple(n.rows(), simd::lanes);
  }
};

/// What one range of keys contributes to the rows of a key head, in floats.
struct stream_partial {
  float* o;  // (rows, padded dim_v)
  float* m;  // (rows)
  float* l;  // (rows)

  TERN_INLINE static index size(attention_extents const& n) {
    return round_to_multiple(n.rows() * (stream_scratch::padded(n.dim_v) + 2), 16);
  }
  TERN_INLINE static stream_partial at(attention_extents const& n, float* base) {
    index const o = n.rows() * stream_scratch::padded(n.dim_v);
    return {base, base + o, base + o + n.rows()};
  }
};

/// Rows that are fetched into the second-level cache while others are worked on.
template <class T>
struct rows_ahead {
  T const* first;
  index stride, count, size;
  TERN_INLINE void fetch(index j) const {
    if (j < count) fetch_row(first + j * stride, size);
  }
};
template <class T>
rows_ahead(T const*, index, index, index) -> rows_ahead<T>;

/// s[r][j] = q[r] . k[j] for keys [0, count), `R` rows and several keys at once: 8 to 16 sums, 4 to 8 with few registers.
template <int R, class K, class V>
inline void stream_scores(float const* q, index q_stride, K const* k, index k_stride, index count, index dim, rows_ahead<V> const& values,
                          float* s) noexcept {
  using packf = simd::pack<float>;
  constexpr index W = simd::lanes;
  constexpr index keys = (R == 1 ? 8 : 4) / (query_tile_rows == 12 ? 1 : 2);
  for (index j = 0; j < count; j += keys) {
    K const* key[keys];
    for (index i = 0; i < keys; ++i) key[i] = k + (j + i < count ? j + i : count - 1) * k_stride;
    for (index i = 0; i < keys; ++i) values.fetch(j + i);
    packf acc[R * keys];
    TERN_UNROLL
    for (index a = 0; a < R * keys; ++a) acc[a] = packf(0.f);
    auto step = [&](index d, auto&& load) TERN_LAMBDA {
      packf x[R];
      TERN_UNROLL
      for (index r = 0; r < R; ++r) x[r] = simd::load(q + r * q_stride + d);
      TERN_UNROLL
      for (index i = 0; i < keys; ++i) {
        packf const y = load(key[i] + d);
        TERN_UNROLL
        for (index r = 0; r < R; ++r) acc[r * keys + i] = simd::fma(x[r], y, acc[r * keys + i]);
      }
    };
    index d = 0;
    for (; d + W <= dim; d += W) step(d, [](K const* at) TERN_LAMBDA { return simd::load(at); });
    if (d < dim) step(d, [&](K const* at) TERN_LAMBDA { return simd::load_n(at, dim - d); });
    float sum[R * keys];
    simd::reduce_add_each(acc, sum);
    for (index r = 0; r < R; ++r) __builtin_memcpy(s + r * key_block + j, sum + r * keys, keys * sizeof(float));
  }
}

/// o[r] = alpha[r] o[r] + sum_j p[r][j] v[j] for `C` packs of columns.
template <int R, int C, bool whole, class V, class K>
TERN_INLINE void stream_columns(float const* p, V const* v, index v_stride, index count, index width, float const* alpha,
                                rows_ahead<K> const& keys, float* o, index o_stride) {
  using packf = simd::pack<float>;
  constexpr index W = simd::lanes;
  packf acc[R][C];
  TERN_UNROLL
  for (index r = 0; r < R; ++r) TERN_UNROLL
  for (index c = 0; c < C; ++c) acc[r][c] = simd::load(o + r * o_stride + c * W) * packf(alpha[r]);
  for (index j = 0; j < count; ++j) {
    keys.fetch(j);
    packf x[C];
    TERN_UNROLL
    for (index c = 0; c < C; ++c) x[c] = whole ? simd::load(v + j * v_stride + c * W) : simd::load_n(v + j * v_stride, width);
    TERN_UNROLL
    for (index r = 0; r < R; ++r) {
      packf const y(p[r * key_block + j]);
      TERN_UNROLL
      for (index c = 0; c < C; ++c) acc[r][c] = simd::fma(y, x[c], acc[r][c]);
    }
  }
  TERN_UNROLL
  for (index r = 0; r < R; ++r) TERN_UNROLL
  for (index c = 0; c < C; ++c) simd::store(o + r * o_stride + c * W, acc[r][c]);
}
template <int R, class V, class K>
inline void stream_values(float const* p, V const* v, index v_stride, index count, index dim_v, float const* alpha,
                          rows_ahead<K> const& keys, float* o, index o_stride) noexcept {
  constexpr index W = simd::lanes;
  constexpr int columns = (R <= 2 ? 8 : 4) / (query_tile_rows == 12 ? 1 : 2);
  rows_ahead<K> ahead = keys;
  index d = 0;
  auto take = [&](auto C, auto whole, index width) TERN_LAMBDA {
    stream_columns<R, C.value, whole.value>(p, v + d, v_stride, count, width, alpha, ahead, o + d, o_stride);
    ahead.count = 0;  // once is enough
    d += C.value * W;
  };
  using yes = std::true_type;
  while (d + columns * W <= dim_v) take(std::integral_constant<int, columns>{}, yes{}, 0);
  if (d + columns / 2 * W <= dim_v) take(std::integral_constant<int, columns / 2>{}, yes{}, 0);
  while (d + W <= dim_v) take(std::integral_constant<int, 1>{}, yes{}, 0);
  if (d < dim_v) take(std::integral_constant<int, 1>{}, std::false_type{}, dim_v - d);
}

/// Calls f(number of rows as a constant, first row) until all rows are taken.
template <class F>
TERN_INLINE void each_rows(index rows, F&& f) {
  index r = 0;
  for (; r + stream_step <= rows; r += stream_step) f(std::integral_constant<int, 4>{}, r);
  if (rows - r == 3) f(std::integral_constant<int, 3>{}, r);
  if (rows - r == 2) f(std::integral_constant<int, 2>{}, r);
  if (rows - r == 1) f(std::integral_constant<int, 1>{}, r);
}

/// Adds the weighted values of one block; where the mask shows rows different keys, run by run of what it shows.
template <class Problem, class K>
TERN_INLINE void stream_add(Problem const& p, index b, index h, index block, index count, bool all, stream_scratch const& w,
                            rows_ahead<K> keys, float* o) {
  index const stride = stream_scratch::padded(p.n.dim_v), rows = p.n.rows(), group = p.n.group(), v_stride = p.v.row_stride;
  auto const* const v = p.v.at(b, h, block);
  if (all) {
    each_rows(rows, [&](auto R, index r) TERN_LAMBDA {
      stream_values<R.value>(w.s + r * key_block, v, v_stride, count, p.n.dim_v, w.alpha + r, keys, o + r * stride, stride);
      keys.count = 0;
    });
    return;
  }
  keys.count = 0;
  for (index r = 0; r < rows; ++r) {
    index j = 0;
    do {
      while (j < count && !p.mask.visible(r / group, block + j)) ++j;
      index const begin = j;
      while (j < count && p.mask.visible(r / group, block + j)) ++j;
      stream_values<1>(w.s + r * key_block + begin, v + begin * v_stride, v_stride, j - begin, p.n.dim_v, w.alpha + r, keys, o + r * stride,
                       stride);
      w.alpha[r] = 1;
    } while (j < count);
  }
}

/// Keys [from, to) for all rows of key head h in batch b, accumulated into `sum`.
template <class Problem>
inline void stream_item(Problem const& p, index b, index h, index from, index to, stream_partial const& sum, float* memory) noexcept {
  constexpr index W = simd::lanes;
  stream_scratch w;
  stream_scratch::lay_out(p.n, memory, &w);
  index const rows = p.n.rows(), group = p.n.group(), q_stride = stream_scratch::padded(p.n.dim);
  for (index i = 0; i < rows * stream_scratch::padded(p.n.dim_v); ++i) sum.o[i] = 0;
  for (index r = 0; r < rows; ++r) {
    sum.m[r] = negative_infinity;
    sum.l[r] = 0;
    float* const row = w.q + r * q_stride;
    widen_row(p.q.at(b, p.head_of(h, r), r / group), p.n.dim, p.score.query_factor, row);
    for (index d = p.n.dim; d < q_stride; ++d) row[d] = 0;
  }

  key_range const seen = p.mask.range(0, p.n.tokens);
  if (seen.begin > from) from = seen.begin / key_block * key_block;
  if (seen.end < to) to = seen.end;
  for (index block = from; block < to; block += key_block) {
    index const count = to - block < key_block ? to - block : key_block;
    coverage const covers = p.mask.covers(0, p.n.tokens, block, block + count);
    if (covers == coverage::none) continue;
    rows_ahead values{p.v.at(b, h, block), p.v.row_stride, count, p.n.dim_v};
    each_rows(rows, [&](auto R, index r) TERN_LAMBDA {
      stream_scores<R.value>(w.q + r * q_stride, q_stride, p.k.at(b, h, block), p.k.row_stride, count, p.n.dim, values,
                             w.s + r * key_block);
      values.count = 0;
    });
    index const packs = divide_up(count, W);
    for (index r = 0; r < rows; ++r)
      for (index j = count; j < packs * W; ++j) w.s[r * key_block + j] = negative_infinity;
    softmax_rows const state{sum.m, sum.l, w.alpha};
    auto token_of = [&](index r) TERN_LAMBDA { return r / group; };
    // Scores behind `count` are -inf, and a cap would make numbers of them.
    if (covers == coverage::all && (count == packs * W || p.score.is_identity))
      softmax_tile(w.s, rows, 0, packs, p.score, hide_nothing{}, state);
    else
      softmax_tile(w.s, rows, 0, packs, p.score, hide_by_mask{p.mask, token_of, block}, state);
    rows_ahead const keys{p.k.at(b, h, block + count), p.k.row_stride, to - block - count, p.n.dim};
    stream_add(p, b, h, block, count, covers == coverage::all, w, keys, sum.o);
  }
}

/// Rows of key head h in batch b from the `splits` partial results at `parts`, in their order.
template <class Problem>
inline void stream_finish(Problem const& p, index b, index h, float* parts, index splits) noexcept {
  index const stride = stream_scratch::padded(p.n.dim_v), size = stream_partial::size(p.n);
  stream_partial const sum = stream_partial::at(p.n, parts);
  for (index r = 0; r < p.n.rows(); ++r) {
    for (index i = 1; i < splits; ++i) {
      stream_partial const next = stream_partial::at(p.n, parts + i * size);
      if (next.l[r] == 0) continue;
      if (sum.l[r] == 0) sum.m[r] = next.m[r];
      float const m = sum.m[r] < next.m[r] ? next.m[r] : sum.m[r];
      simd::pack<float> const a = exp2_of_nonpositive(sum.m[r] - m), c = exp2_of_nonpositive(next.m[r] - m);
      float x[simd::lanes], y[simd::lanes];
      simd::store(x, a);
      simd::store(y, c);
      sum.m[r] = m;
      sum.l[r] = sum.l[r] * x[0] + next.l[r] * y[0];
      for (index d = 0; d < stride; d += simd::lanes)
        simd::store(sum.o + r * stride + d, simd::fma(simd::load(next.o + r * stride + d), c, simd::load(sum.o + r * stride + d) * a));
    }
    finish_row(p, b, h, r, sum.o + r * stride, sum.m[r], sum.l[r]);
  }
}

}  // namespace TERN_ABI
}  // namespace tern::detail

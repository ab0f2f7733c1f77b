// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/prompt.hpp
/// The path for many queries: keys and values are converted and packed into panels a block at a time, and every tile of rows
/// that sees part of the block takes two matrix products and one step of the online softmax over it.
///
///     S = Q K^T;  m' = max(m, rowmax S);  P = 2^(S - m');  l = l 2^(m - m') + rowsum P;  O = O 2^(m - m') + P V
///
/// Milakov and Gimelshein 2018 (arXiv:1805.02867), Dao et al. 2022 (arXiv:2205.14135).

#include <tern/attention/problem.hpp>
#include <tern/simd/shuffle.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// How many rows one work item takes: many share the cost of packing, but queries and sums should stay in the second-level cache,
/// and there should be items enough for all threads. By shape alone.
TERN_INLINE index prompt_item_rows(attention_extents const& n) {
  constexpr index enough_items = 16, cached_floats = index{1} << 17;
  index most = cached_floats / (n.dim + n.dim_v + 1);
  if (most < 32 * query_tile_rows) most = 32 * query_tile_rows;
  while (most > 4 * query_tile_rows && n.batch * n.kv_heads * divide_up(n.rows(), most) < enough_items) most /= 2;
  index const pieces = divide_up(n.rows(), most);
  return round_to_multiple(divide_up(n.rows(), pieces), query_tile_rows);
}

/// The memory of one work item, in floats.
struct prompt_scratch {
  float* q;      // (tiles, dim, query_tile_rows), scaled
  float* k;      // (panels, dim, panel_width)
  float* v;      // (panels, key_block, panel_width), the last panel narrower when dim_v is
  float* s;      // (query_tile_rows, key_block)
  float* o;      // (rows, padded dim_v)
  float* m;      // (rows)
  float* l;      // (rows)
  float* alpha;  // (query_tile_rows)

  TERN_INLINE static index padded_dim_v(attention_extents const& n) { return round_to_multiple(n.dim_v, simd::lanes); }
  /// Lays the pieces out from `base`; returns the floats used.
  TERN_INLINE static index lay_out(attention_extents const& n, index rows, float* base, prompt_scratch* to) {
    index used = 0;
    auto take = [&](index count) TERN_LAMBDA {
      float* const piece = base == nullptr ? nullptr : base + used;
      used += round_to_multiple(count, 16);
      return piece;
    };
    prompt_scratch const s{take(rows * n.dim),
                           take(key_block * n.dim),
                           take(key_block * padded_dim_v(n)),
                           take(query_tile_rows * key_block),
                           take(rows * padded_dim_v(n)),
                           take(rows),
                           take(rows),
                           take(query_tile_rows)};
    if (to != nullptr) *to = s;
    return used;
  }
};

/// A square of dst = factor * rows^T: `columns` elements of each row from d, `kept` of the lanes.
template <bool whole, class T>
TERN_INLINE void pack_square(T const* const* rows, index d, index columns, float factor, float* dst, index stride, index kept) {
  using packf = simd::pack<float>;
  constexpr index W = simd::lanes;
  packf x[W];
  TERN_UNROLL
  for (index i = 0; i < W; ++i) x[i] = (whole ? simd::load(rows[i] + d) : simd::load_n(rows[i] + d, columns)) * packf(factor);
  simd::transpose(x);
  TERN_UNROLL
  for (index i = 0; i < W; ++i) {
    if (!whole && i >= columns) continue;
    if (kept == W)
      simd::store(dst + i * stride, x[i]);
    else
      simd::store_n(dst + i * stride, x[i], kept);
  }
}

/// dst[d * width + i] = factor * row(i)[d] for d < dim and i < width; the last of `rows` stands for those behind it, whose
/// results nobody uses.
template <class RowAt>
TERN_INLINE void pack_transposed(RowAt const& row, index rows, index width, index dim, float factor, float* dst) {
  constexpr index W = simd::lanes;
  for (index g = 0; g < width; g += W) {
    decltype(row(g)) some[W];
    for (index i = 0; i < W; ++i) some[i] = row(g + i < rows ? g + i : rows - 1);
    index const kept = width - g < W ? width - g : W;
    index d = 0;
    for (; d + W <= dim; d += W) pack_square<true>(some, d, W, factor, dst + d * width + g, width, kept);
    if (d < dim) pack_square<false>(some, d, dim - d, factor, dst + d * width + g, width, kept);
  }
}

/// Rows [row0, row0 + rows) of the stack, scaled and interleaved by tile.
template <class Problem>
TERN_INLINE void pack_queries(Problem const& p, index b, index h, index row0, index rows, float* dst) {
  for (index tile = 0; tile < rows; tile += query_tile_rows) {
    index const first = row0 + tile, live = p.n.rows() - first;
    auto row = [&](index i) TERN_LAMBDA { return p.q.at(b, p.head_of(h, first + i), (first + i) / p.n.group()); };
    pack_transposed(row, live, query_tile_rows, p.n.dim, p.score.query_factor, dst + tile * p.n.dim);
  }
}

/// Keys [0, count) transposed into panels.
template <class K>
TERN_INLINE void pack_keys(K const* src, index row_stride, index count, index dim, float* dst) {
  for (index panel = 0; panel < count; panel += panel_width) {
    auto row = [&](index i) TERN_LAMBDA { return src + (panel + i) * row_stride; };
    pack_transposed(row, count - panel, panel_width, dim, 1.f, dst + panel * dim);
  }
}

/// Values of keys [0, count) cut into panels of columns, the last one padded with zeros to whole packs.
template <class V>
TERN_INLINE void pack_values(V const* src, index row_stride, index count, index dim_v, float* dst) {
  constexpr index W = simd::lanes;
  index const padded = round_to_multiple(dim_v, W);
  for (index j = 0; j < count; ++j, src += row_stride) {
    index d = 0;
    for (; d + panel_width <= dim_v; d += panel_width) {
      float* const to = dst + d * key_block + j * panel_width;
      simd::store(to, simd::load(src + d));
      simd::store(to + W, simd::load(src + d + W));
    }
    index const width = padded - d < panel_width ? W : panel_width;
    for (float* to = dst + d * key_block + j * width; d < dim_v; d += W, to += W)
      simd::store(to, d + W <= dim_v ? simd::load(src + d) : simd::load_n(src + d, dim_v - d));
  }
}

/// Whether the first `count` rows of packed values have neither infinity nor NaN.
TERN_INLINE bool all_finite(float const* v, index count, index padded) {
  using packf = simd::pack<float>;
  packf odd(0.f);  // NaN where a lane met one
  for (index d = 0; d < padded; d += panel_width) {
    index const width = padded - d < panel_width ? simd::lanes : panel_width;
    for (index i = 0; i < count * width; i += simd::lanes) odd = simd::fma(simd::load(v + d * key_block + i), packf(0.f), odd);
  }
  return simd::all(odd == packf(0.f));
}

/// o += p v by element where the mask shows it: a hidden value may be NaN, and zero times NaN is not nothing.
template <class Mask, class TokenOf>
inline void add_visible_values(prompt_scratch const& w, float const* p, Mask const& mask, TokenOf const& token_of, index block, index count,
                               index rows, index padded, float* o) {
  for (index r = 0; r < rows; ++r)
    for (index d = 0; d < padded; ++d) {
      index const panel = d / panel_width, width = padded - panel * panel_width < panel_width ? simd::lanes : panel_width;
      float const* const v = w.v + panel * panel_width * key_block + d % panel_width;
      float sum = o[r * padded + d] * w.alpha[r];
      for (index j = 0; j < count; ++j)
        if (mask.visible(token_of(r), block + j)) sum = __builtin_fmaf(p[r * key_block + j], v[j * width], sum);
      o[r * padded + d] = sum;
    }
}

/// One tile of rows against one packed block of keys.
template <class Problem>
inline void prompt_tile(Problem const& p, prompt_scratch const& w, index row0, index tile, index live, index block, index count,
                        bool finite) noexcept {
  index const group = p.n.group(), first_row = row0 + tile;
  index const i0 = first_row / group, i1 = (first_row + live - 1) / group + 1;
  coverage const covers = p.mask.covers(i0, i1, block, block + count);
  if (covers == coverage::none) return;
  key_range seen = p.mask.range(i0, i1);
  index const begin = seen.begin > block ? seen.begin - block : 0;
  index const end = seen.end < block + count ? seen.end - block : count;
  if (end <= begin) return;

  index const first_panel = begin / panel_width, last_panel = divide_up(end, panel_width);
  for (index n = first_panel; n < last_panel; ++n)
    tile_product<2, 1, query_tile_rows>(w.q + tile * p.n.dim, w.k + n * panel_width * p.n.dim, panel_width, p.n.dim, nullptr,
                                        w.s + n * panel_width, key_block);

  softmax_rows const state{w.m + tile, w.l + tile, w.alpha};
  auto token_of = [&](index r) TERN_LAMBDA { return (first_row + (r < live ? r : live - 1)) / group; };
  if (covers == coverage::all && end == last_panel * panel_width)
    softmax_tile(w.s, query_tile_rows, first_panel * 2, last_panel * 2, p.score, hide_nothing{}, state);
  else
    softmax_tile(w.s, query_tile_rows, first_panel * 2, last_panel * 2, p.score, hide_by_mask{p.mask, token_of, block}, state);

  index const padded = prompt_scratch::padded_dim_v(p.n);
  float* const o = w.o + tile * padded;
  if (!finite && covers != coverage::all) return add_visible_values(w, w.s, p.mask, token_of, block, count, query_tile_rows, padded, o);
  for (index d = 0; d < padded; d += panel_width) {
    float const* const v = w.v + d * key_block;
    if (d + panel_width <= padded)
      tile_product<2, key_block, 1>(w.s + begin, v + begin * panel_width, panel_width, end - begin, w.alpha, o + d, padded);
    else
      tile_product<1, key_block, 1>(w.s + begin, v + begin * simd::lanes, simd::lanes, end - begin, w.alpha, o + d, padded);
  }
}

/// Rows [row0, row0 + rows) of key head h in batch b.
template <class Problem>
inline void prompt_item(Problem const& p, index b, index h, index row0, index rows, float* memory) noexcept {
  prompt_scratch w;
  prompt_scratch::lay_out(p.n, rows, memory, &w);
  index const live = p.n.rows() - row0 < rows ? p.n.rows() - row0 : rows;
  index const padded = prompt_scratch::padded_dim_v(p.n);
  pack_queries(p, b, h, row0, rows, w.q);
  for (index i = 0; i < rows * padded; ++i) w.o[i] = 0;
  for (index i = 0; i < rows; ++i) {
    w.m[i] = negative_infinity;
    w.l[i] = 0;
  }

  index const i0 = row0 / p.n.group(), i1 = (row0 + live - 1) / p.n.group() + 1;
  key_range const seen = p.mask.range(i0, i1);
  for (index block = seen.begin / key_block * key_block; block < seen.end; block += key_block) {
    index const count = p.n.keys - block < key_block ? p.n.keys - block : key_block;
    coverage const covers = p.mask.covers(i0, i1, block, block + count);
    if (covers == coverage::none) continue;
    pack_keys(p.k.at(b, h, block), p.k.row_stride, count, p.n.dim, w.k);
    pack_values(p.v.at(b, h, block), p.v.row_stride, count, p.n.dim_v, w.v);
    bool const finite = covers == coverage::all || all_finite(w.v, count, padded);
    index const tiles = divide_up(live, query_tile_rows), ahead = p.n.keys - block - count < count ? p.n.keys - block - count : count;
    for (index t = 0; t < tiles; ++t) {
      // The next block's rows are fetched bit by bit, so that packing finds them near.
      for (index j = ahead * t / tiles; j < ahead * (t + 1) / tiles; ++j) {
        fetch_row(p.k.at(b, h, block + count + j), p.n.dim);
        fetch_row(p.v.at(b, h, block + count + j), p.n.dim_v);
      }
      index const tile = t * query_tile_rows;
      prompt_tile(p, w, row0, tile, live - tile < query_tile_rows ? live - tile : query_tile_rows, block, count, finite);
    }
  }
  for (index r = 0; r < live; ++r) finish_row(p, b, h, row0 + r, w.o + r * padded, w.m[r], w.l[r]);
}

}  // namespace TERN_ABI
}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/prompt.hpp
/// The path for many queries: keys and values are converted and packed into panels a block at a time, and every tile of rows
/// that sees part of the block takes two matrix products and one step of the online softmax over it.
///
///     S = Q K^T;  m' = max(m, rowmax S);  P = 2^(S - m');  l = l 2^(m - m') + rowsum P;  O = O 2^(m - m') + P V
///
/// Milakov and Gimelshein 2018 (arXiv:1805.02867), Dao et al. 2022 (arXiv:2205.14135).

#include <tern/attention/block.hpp>
#include <tern/attention/tile_f32.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// How many rows one work item takes: many share the cost of packing, but queries and sums should stay in the second-level cache,
/// and there should be items enough for all threads. By shape alone.
TERN_INLINE index prompt_item_rows(attention_extents const& n, index group_rows) {
  constexpr index enough_items = 16, cached_floats = index{1} << 17;
  index most = cached_floats / (n.dim + n.dim_v + 1);
  if (most < 32 * query_tile_rows) most = 32 * query_tile_rows;
  while (most > 4 * query_tile_rows && n.batch * n.units() * divide_up(group_rows, most) < enough_items) most /= 2;
  index const pieces = divide_up(group_rows, most);
  return round_to_multiple(divide_up(group_rows, pieces), query_tile_rows);
}

/// The memory of one work item.
template <class Problem, class Tile>
struct prompt_scratch {
  static constexpr bool top = Problem::spec_type::wants_top;
  index padded;    // dim_v, to whole packs
  std::byte* q;    // tiles of packed queries
  std::byte* k;    // packed keys of a block
  std::byte* v;    // packed values of a block
  std::byte* p;    // packed weights of a tile
  float* s;        // (Tile::rows, key_block)
  float* o;        // (rows, padded)
  float* m;        // (rows)
  float* l;        // (rows)
  float* alpha;    // (Tile::rows)
  float* row;      // (Tile::rows, dim or dim_v): rows widened
  top_rows largest;
  block_memory<Problem> block;

  TERN_INLINE static index lay_out(Problem const& p, index rows, std::byte* base, prompt_scratch* to) {
    arena a{base};
    index const tiles = divide_up(rows, Tile::rows), padded = round_to_multiple(p.n.dim_v, simd::lanes);
    index const widest = p.n.dim > padded ? round_to_multiple(p.n.dim, simd::lanes) : padded;
    index const count = top ? p.top_count() : 0;
    prompt_scratch s;
    s.padded = padded;
    s.q = a.take<std::byte>(tiles * Tile::query_bytes(p.n.dim));
    s.k = a.take<std::byte>(Tile::key_bytes(p.n.dim));
    s.v = a.take<std::byte>(Tile::value_bytes(p.n.dim_v));
    s.p = a.take<std::byte>(Tile::weight_bytes(p.n.dim_v));
    s.s = a.take<float>(Tile::rows * key_block);
    s.o = a.take<float>(tiles * Tile::rows * padded);
    s.m = a.take<float>(tiles * Tile::rows);
    s.l = a.take<float>(tiles * Tile::rows);
    s.alpha = a.take<float>(Tile::rows);
    s.row = a.take<float>(Tile::rows * widest);
    s.largest = {a.take<float>(tiles * Tile::rows * count), a.take<std::int32_t>(tiles * Tile::rows * count), count};
    s.block = block_memory<Problem>::lay_out(p, a);
    if (to != nullptr) *to = s;
    return a.used;
  }
};

/// Rows [row0, row0 + rows) of the stack, in f32, packed by tile. The last live one stands for those behind it.
template <class Tile, class Rows, class Scratch>
TERN_INLINE void pack_queries(Rows const& of, index row0, index live, Scratch const& w) {
  index const dim = of.p.n.dim, stride = round_to_multiple(dim, simd::lanes);
  float const* row[Tile::rows];
  for (index tile = 0; tile < live; tile += Tile::rows) {
    for (index r = 0; r < Tile::rows; ++r) {
      float* const to = w.row + r * stride;
      of.widen_query(row0 + (tile + r < live ? tile + r : live - 1), to);
      row[r] = to;
    }
    Tile::pack_queries(row, dim, w.q + tile / Tile::rows * Tile::query_bytes(dim));
  }
}

/// o += p v by element where the mask shows it: a hidden value may be NaN, and zero times NaN is not nothing.
template <class V, class Mask, class QueryOf>
inline void add_visible_values(V const* const* value, float const* p, float const* alpha, Mask const& mask, QueryOf const& query_of,
                               index block, index count, index rows, index dim_v, float* row, float* o, index o_stride) {
  for (index r = 0; r < rows; ++r)
    for (index d = 0; d < o_stride; ++d) o[r * o_stride + d] *= alpha[r];
  for (index j = 0; j < count; ++j) {
    widen_row(value[j], dim_v, 1.f, row);
    for (index r = 0; r < rows; ++r) {
      if (!mask.visible(query_of(r), block + j)) continue;
      for (index d = 0; d < dim_v; ++d) o[r * o_stride + d] = __builtin_fmaf(p[r * key_block + j], row[d], o[r * o_stride + d]);
    }
  }
}

/// One tile of rows against one packed block of keys.
template <class Tile, class Rows, class Mask, class Scratch, class V>
inline void prompt_tile(Rows const& of, Mask const& mask, Scratch const& w, index row0, index tile, index live, block_keys const& keys,
                        V const* const* value, bool finite) noexcept {
  auto const& p = of.p;
  index const first_row = row0 + tile, block = keys.first, count = keys.count;
  index const i0 = of.query(first_row), i1 = of.query(first_row + live - 1) + 1;
  coverage const covers = mask.covers(i0, i1, block, block + count);
  if (covers == coverage::none) return;
  key_range const seen = mask.range(i0, i1);
  index const begin = seen.begin > block ? seen.begin - block : 0;
  index const end = seen.end < block + count ? seen.end - block : count;
  if (end <= begin) return;

  index const first_panel = begin / panel_width, last_panel = divide_up(end, panel_width);
  Tile::scores(w.q + tile / Tile::rows * Tile::query_bytes(p.n.dim), w.k, p.n.dim, first_panel, last_panel, w.s);

  weight_rows const state{w.m + tile, w.l + tile, w.alpha};
  top_rows const top{w.largest.score + tile * w.largest.count, w.largest.id + tile * w.largest.count, w.largest.count};
  auto row_of = [&](index r) TERN_LAMBDA { return first_row + (r < live ? r : live - 1); };
  auto query_of = [&](index r) TERN_LAMBDA { return of.query(row_of(r)); };
  auto at_row = [&](index r) TERN_LAMBDA { return score_of_row(of, row_of(r)); };
  index const from = first_panel * 2, to = last_panel * 2;
  if (covers == coverage::all && end == last_panel * panel_width)
    weigh_tile(p.spec, w.s, Tile::rows, from, to, at_row, keys, hide_nothing{}, state, top);
  else
    weigh_tile(p.spec, w.s, Tile::rows, from, to, at_row, keys, hide_by_mask{mask, query_of, block}, state, top);

  float* const o = w.o + tile * w.padded;
  if (!finite && covers != coverage::all)
    return add_visible_values(value, w.s, w.alpha, mask, query_of, block, count, Tile::rows, p.n.dim_v, w.row, o, w.padded);
  Tile::pack_weights(w.s, first_panel, last_panel, w.v, p.n.dim_v, w.p);
  Tile::values(w.s, w.p, w.v, p.n.dim_v, begin, end, w.alpha, o, w.padded);
}

/// Rows [row0, row0 + rows) of a group.
template <class Tile, class Rows>
inline void prompt_item(Rows const& of, index row0, index rows, std::byte* memory) noexcept {
  using problem = std::remove_cvref_t<decltype(of.p)>;
  using scratch = prompt_scratch<problem, Tile>;
  auto const& p = of.p;
  scratch w;
  scratch::lay_out(p, rows, memory, &w);
  index const live = of.rows() - row0 < rows ? of.rows() - row0 : rows, tiles = divide_up(live, Tile::rows);
  pack_queries<Tile>(of, row0, live, w);
  for (index i = 0; i < tiles * Tile::rows * w.padded; ++i) w.o[i] = 0;
  start_rows(p.spec, tiles * Tile::rows, [&](index r) TERN_LAMBDA { return of.head(row0 + (r < live ? r : live - 1)); }, {w.m, w.l, nullptr});
  start_top(w.largest, tiles * Tile::rows);

  auto const mask = of.mask();
  index const i0 = of.query(row0), i1 = of.query(row0 + live - 1) + 1, keys = of.group.keys;
  key_range const seen = mask.range(i0, i1);
  for (index block = seen.begin / key_block * key_block; block < seen.end; block += key_block) {
    index const count = keys - block < key_block ? keys - block : key_block;
    coverage const covers = mask.covers(i0, i1, block, block + count);
    if (covers == coverage::none) continue;
    block_rows_of<Rows> const rows_here(of, w.block, block, count);
    Tile::pack_keys(rows_here.key, count, p.n.dim, w.k);
    Tile::pack_values(rows_here.value, count, p.n.dim_v, w.v);
    bool const finite = covers == coverage::all || rows_are_finite(rows_here.value, count, p.n.dim_v);
    index const ahead = keys - block - count < count ? keys - block - count : count;
    for (index t = 0; t < tiles; ++t) {
      // The next block's rows are fetched bit by bit, so that packing finds them near.
      rows_here.fetch(block + count + ahead * t / tiles, block + count + ahead * (t + 1) / tiles);
      index const tile = t * Tile::rows;
      prompt_tile<Tile>(of, mask, w, row0, tile, live - tile < Tile::rows ? live - tile : Tile::rows, rows_here.keys, rows_here.value, finite);
    }
  }
  for (index r = 0; r < live; ++r) of.finish(row0 + r, w.o + r * w.padded, w.m[r], w.l[r]);
  if constexpr (scratch::top)
    for (index r = 0; r < live; ++r) write_top(of, row0 + r, w.largest, r);
}

}  // namespace TERN_ABI
}  // namespace tern::detail

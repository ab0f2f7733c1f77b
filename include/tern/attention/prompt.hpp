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
#include <tern/attention/ranges.hpp>
#include <tern/attention/tile_f32.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// How many rows one work item takes: many share the cost of packing, but queries and sums should stay in the second-level cache,
/// and there should be items enough for all threads. By the shape of the call alone; where rows are cut does not change them.
template <class Tile>
TERN_INLINE index prompt_item_rows(attention_extents const& n, index groups, index group_rows) {
  constexpr index enough_items = 16, cached_floats = index{1} << 17;
  index most = cached_floats / (n.dim + n.dim_v + 1);
  if (most < 32 * query_tile_rows) most = 32 * query_tile_rows;
  while (most > 4 * query_tile_rows && n.batch * n.units() * groups * divide_up(group_rows, most) < enough_items) most /= 2;
  index const pieces = divide_up(group_rows, most);
  return round_to_multiple(divide_up(group_rows, pieces), Tile::rows);
}

/// The memory of one work item.
template <class Problem, class Tile>
struct prompt_scratch {
  static constexpr bool top = Problem::spec_type::wants_top;
  std::byte* q;   // tiles of packed queries
  std::byte* k;   // packed keys of a block
  std::byte* v;   // packed values of a block
  std::byte* p;   // packed weights of a tile
  float* s;       // (Tile::rows, key_block)
  float* alpha;   // (Tile::rows)
  float* row;     // (Tile::rows, dim or dim_v): rows widened
  float* finite;  // (key_block, dim_v to whole packs): values without what is not finite
  top_rows largest;
  block_memory<Problem, false> block;

  TERN_INLINE static index lay_out(Problem const& p, index rows, std::byte* base, prompt_scratch* to) {
    arena a{base};
    index const tiles = divide_up(rows, Tile::rows), padded = round_to_multiple(p.n.dim_v, simd::lanes);
    index const widest = p.n.dim > padded ? round_to_multiple(p.n.dim, simd::lanes) : padded;
    index const count = top ? p.top_count() : 0;
    prompt_scratch s;
    s.q = a.take<std::byte>(tiles * Tile::query_bytes(p.n.dim));
    s.k = a.take<std::byte>(Tile::key_bytes(p.n.dim));
    s.v = a.take<std::byte>(Tile::value_bytes(p.n.dim_v));
    s.p = a.take<std::byte>(Tile::weight_bytes(p.n.dim_v));
    s.s = a.take<float>(Tile::rows * key_block);
    s.alpha = a.take<float>(Tile::rows);
    s.row = a.take<float>(Tile::rows * widest);
    s.finite = a.take<float>(key_block * padded);
    s.largest = {a.take<float>(tiles * Tile::rows * count), a.take<std::int32_t>(tiles * Tile::rows * count), count};
    s.block = block_memory<Problem, false>::lay_out(p, a);
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

/// Adds values that are not finite to the rows that see them; they have been left out of the packed ones, since a hidden value may
/// be NaN, and zero times NaN is not nothing. With another normalizer than softmax, whose weights may be zero, the result is NaN.
template <class Spec, class V, class Mask, class QueryOf>
inline void add_odd_values(V const* const* value, Mask const& mask, QueryOf const& query_of, index block, index count, index rows,
                           index dim_v, float* row, float* o, index o_stride) {
  for (index j = 0; j < count; ++j) {
    widen_row(value[j], dim_v, 1.f, row);
    for (index d = 0; d < dim_v; ++d) {
      if (row[d] - row[d] == 0) continue;
      for (index r = 0; r < rows; ++r)
        if (mask.visible(query_of(r), block + j)) o[r * o_stride + d] += Spec::softmax ? row[d] : 0 * row[d];
    }
  }
}

/// Rows of values in f32 with zeros for what is not finite.
template <class V>
inline void leave_odd_out(V const* const* value, index count, index dim_v, index stride, float* memory, float const** to) {
  for (index j = 0; j < count; ++j) {
    float* const row = memory + j * stride;
    widen_row(value[j], dim_v, 1.f, row);
    for (index d = 0; d < dim_v; ++d) row[d] = row[d] - row[d] == 0 ? row[d] : 0.f;
    to[j] = row;
  }
}

/// One tile of rows against one packed block of keys.
template <class Tile, class Rows, class Mask, class Scratch, class V>
inline void prompt_tile(Rows const& of, Mask const& mask, Scratch const& w, range_sums const& sum, index row0, index tile, index live,
                        block_keys const& keys, V const* const* value, bool finite) noexcept {
  auto const& p = of.p;
  index const first_row = row0 + tile, block = keys.first, count = keys.count;
  index const i0 = of.query(first_row), i1 = of.query(first_row + live - 1) + 1;
  coverage const covers = mask.covers(i0, i1, block, block + count);
  if (covers == coverage::none) return;
  key_range const seen = mask.range(i0, i1);
  index const begin = seen.begin > block ? seen.begin - block : 0;
  index const end = seen.end < block + count ? seen.end - block : count;
  if (end <= begin) return;

  index const rows = Tile::rows == Tile::row_step ? Tile::rows : round_to_multiple(live, Tile::row_step);  // that are computed
  index const first_panel = begin / panel_width, last_panel = divide_up(end, panel_width);
  Tile::scores(w.q + tile / Tile::rows * Tile::query_bytes(p.n.dim), w.k, p.n.dim, rows, first_panel, last_panel, w.s);

  softmax_rows const state{sum.m + tile, sum.l + tile, w.alpha};
  top_rows const top{w.largest.score + tile * w.largest.count, w.largest.id + tile * w.largest.count, w.largest.count};
  auto row_of = [&](index r) TERN_LAMBDA { return first_row + (r < live ? r : live - 1); };
  auto query_of = [&](index r) TERN_LAMBDA { return of.query(row_of(r)); };
  auto at_row = [&](index r) TERN_LAMBDA { return score_of_row(of, row_of(r)); };
  if (covers == coverage::all && end == last_panel * panel_width)
    weigh_tile<Tile>(p.spec, w.s, rows, first_panel, last_panel, at_row, keys, hide_nothing{}, state, top, w.p);
  else
    weigh_tile<Tile>(p.spec, w.s, rows, first_panel, last_panel, at_row, keys, hide_by_mask{mask, query_of, block}, state, top, w.p);

  float* const o = sum.o + tile * sum.stride;
  Tile::values(w.p, w.v, p.n.dim_v, rows, first_panel, last_panel, w.alpha, o, sum.stride);
  if (!finite)
    add_odd_values<std::remove_cvref_t<decltype(p.spec)>>(value, mask, query_of, block, count, rows, p.n.dim_v, w.row, o, sum.stride);
}

/// Keys [from, to) for rows [row0, row0 + live) of a group, accumulated into `sum`. Only the range that starts at 0 sees the sink.
template <class Tile, class Rows>
inline void prompt_item(Rows const& of, index row0, index live, index from, index to, range_sums const& sum, std::byte* memory) noexcept {
  using problem = std::remove_cvref_t<decltype(of.p)>;
  using scratch = prompt_scratch<problem, Tile>;
  auto const& p = of.p;
  scratch w;
  scratch::lay_out(p, live, memory, &w);
  index const tiles = divide_up(live, Tile::rows);
  pack_queries<Tile>(of, row0, live, w);
  auto const head_of = [&](index r) TERN_LAMBDA { return of.head(row0 + (r < live ? r : live - 1)); };
  start_sums(p.spec, tiles * Tile::rows, from == 0, head_of, sum);
  start_top(w.largest, tiles * Tile::rows);

  auto const mask = of.mask();
  index const i0 = of.query(row0), i1 = of.query(row0 + live - 1) + 1;
  key_range const seen = mask.range(i0, i1);
  if (seen.begin > from) from = seen.begin / key_block * key_block;
  index const last = seen.end < to ? seen.end : to;
  for (index block = from; block < last; block += key_block) {
    index const count = to - block < key_block ? to - block : key_block;
    coverage const covers = mask.covers(i0, i1, block, block + count);
    if (covers == coverage::none) continue;
    block_rows_of<Rows, false> const rows_here(of, w.block, block, count);
    Tile::pack_keys(rows_here.key, count, p.n.dim, w.k);
    bool const finite = rows_are_finite(rows_here.value, count, p.n.dim_v);
    if (finite) {
      Tile::pack_values(rows_here.value, count, p.n.dim_v, w.v);
    } else {
      float const* row[key_block];
      leave_odd_out(rows_here.value, count, p.n.dim_v, sum.stride, w.finite, row);
      Tile::pack_values(row, count, p.n.dim_v, w.v);
    }
    index const ahead = to - block - count < count ? to - block - count : count;
    for (index t = 0; t < tiles; ++t) {
      // The next block's rows are fetched bit by bit, so that packing finds them near.
      rows_here.fetch(block + count + ahead * t / tiles, block + count + ahead * (t + 1) / tiles);
      index const tile = t * Tile::rows;
      prompt_tile<Tile>(of, mask, w, sum, row0, tile, live - tile < Tile::rows ? live - tile : Tile::rows, rows_here.keys, rows_here.value,
                        finite);
    }
  }
  if constexpr (scratch::top)
    for (index r = 0; r < live; ++r) write_top(of, row0 + r, w.largest, r);
}

}  // namespace TERN_ABI
}  // namespace tern::detail

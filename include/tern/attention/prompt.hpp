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
#include <tern/attention/kept_weights.hpp>
#include <tern/attention/ranges.hpp>
#include <tern/attention/tile_f32.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// How many rows one work item takes: many share the cost of packing, but queries and sums should stay in a second-level cache of 2 MB,
/// and there should be items enough for all threads. By the shape of the call alone; where rows are cut does not change them.
template <class Tile>
TERN_INLINE index prompt_item_rows(attention_extents const& n, index groups, index group_rows) {
  constexpr index enough_items = 16, cached_floats = index{1} << 18;
  index most = cached_floats / (n.dim + n.dim_v + 1);
  if (most < 32 * query_tile_rows) most = 32 * query_tile_rows;
  while (most > 4 * query_tile_rows && n.batch * n.units() * groups * divide_up(group_rows, most) < enough_items) most /= 2;
  index const pieces = divide_up(group_rows, most);
  return round_to_multiple(divide_up(group_rows, pieces), Tile::rows);
}

/// Packed keys and values of blocks: of all, where the rows of an item go over them more than once, or of the last one.
struct packed_blocks {
  struct state {
    bool packed, finite;  // of the values
  };
  std::byte* k;  // (blocks, key_bytes)
  std::byte* v;  // (blocks, value_bytes)
  state* of;     // (blocks)
  index blocks, key_bytes, value_bytes;

  template <class Tile>
  TERN_INLINE static packed_blocks lay_out(arena& a, index blocks, index dim, index dim_v) {
    index const key = round_to_multiple(Tile::key_bytes(dim), 64), value = round_to_multiple(Tile::value_bytes(dim_v), 64);
    return {a.take<std::byte>(blocks * key), a.take<std::byte>(blocks * value), a.take<state>(blocks), blocks, key, value};
  }
  TERN_INLINE void start() const {
    for (index i = 0; i < blocks; ++i) of[i] = {false, false};
  }
  TERN_INLINE index at(index block) const { return blocks > 1 ? block / key_block : 0; }
};

/// The memory of one work item.
template <class Problem, class Tile>
struct prompt_scratch {
  static constexpr bool top = Problem::spec_type::wants_top;
  static constexpr bool columns = Problem::spec_type::wants_key_weights;
  std::byte* q;                    // tiles of packed queries
  std::byte* p;                    // packed weights of a tile
  kept_tiles<Tile, columns> kept;  // scores, and then weights
  float* alpha;                    // (Tile::rows)
  float* row;                      // (Tile::rows, dim or dim_v): rows widened
  float* finite;                   // (key_block, dim_v to whole packs): values without what is not finite
  top_rows largest;
  packed_blocks packed;
  block_memory<Problem, false> block;

  TERN_INLINE static index lay_out(Problem const& p, index rows, std::byte* base, prompt_scratch* to) {
    arena a{base};
    index const tiles = divide_up(rows, Tile::rows), padded = round_to_multiple(p.n.dim_v, simd::lanes);
    index const widest = p.n.dim > padded ? round_to_multiple(p.n.dim, simd::lanes) : padded;
    index const count = top ? p.top_count() : 0;
    prompt_scratch s;
    s.q = a.take<std::byte>(tiles * Tile::query_bytes(p.n.dim));
    s.p = a.take<std::byte>(Tile::weight_bytes(p.n.dim_v));
    s.kept = kept_tiles<Tile, columns>::lay_out(a, rows, p.n.keys);
    s.alpha = a.take<float>(Tile::rows);
    s.row = a.take<float>(Tile::rows * widest);
    s.finite = a.take<float>(key_block * padded);
    s.largest = {a.take<float>(tiles * Tile::rows * count), a.take<std::int32_t>(tiles * Tile::rows * count), count};
    s.packed = packed_blocks::lay_out<Tile>(a, columns ? s.kept.blocks : 1, p.n.dim, p.n.dim_v);
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
      if (tile + Tile::rows + r < live) of.fetch_query(row0 + tile + Tile::rows + r);
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

/// Packs the keys and values of a block; says whether the values are finite.
template <class Tile, class BlockRows>
TERN_INLINE bool pack_block(BlockRows const& rows, index stride, float* finite_rows, std::byte* k, std::byte* v) {
  auto const& n = rows.of.p.n;
  index const count = rows.keys.count;
  Tile::pack_keys(rows.key, count, n.dim, k);
  bool const finite = rows_are_finite(rows.value, count, n.dim_v);
  if (finite) {
    Tile::pack_values(rows.value, count, n.dim_v, v);
  } else {
    float const* row[key_block];
    leave_odd_out(rows.value, count, n.dim_v, stride, finite_rows, row);
    Tile::pack_values(row, count, n.dim_v, v);
  }
  return finite;
}

/// Tile `t` of an item, which has `live` rows, against one packed block of keys. `kept`: where its weights are kept.
template <class Tile, class Mask, class Scratch, class BlockRows>
inline void prompt_tile(BlockRows const& block_rows, Mask const& mask, Scratch const& w, range_sums const& sum, index row0, index t,
                        index live, index kept) noexcept {
  auto const& of = block_rows.of;
  auto const& p = of.p;
  auto const& keys = block_rows.keys;
  index const tile = t * Tile::rows, first_row = row0 + tile, block = keys.first, count = keys.count;
  index const i0 = of.query(first_row), i1 = of.query(first_row + live - 1) + 1;
  coverage const covers = mask.covers(i0, i1, block, block + count);
  if (covers == coverage::none) return;
  key_range const seen = mask.range(i0, i1);
  index const begin = seen.begin > block ? seen.begin - block : 0;
  index const end = seen.end < block + count ? seen.end - block : count;
  if (end <= begin) return;

  index const rows = round_to_multiple(live, Tile::row_step);  // that are computed
  index const first_panel = begin / panel_width, last_panel = divide_up(end, panel_width), packed = w.packed.at(block);
  constexpr bool in_place = Scratch::columns && Tile::weights_like_scores, copied = Scratch::columns && !in_place;
  if constexpr (Scratch::columns) w.kept.seen[kept] = {first_panel, last_panel};
  float* const s = w.kept.weights(kept);  // (rows, key_block)
  std::byte* const weights = in_place ? reinterpret_cast<std::byte*>(s) : w.p;
  Tile::scores(w.q + t * Tile::query_bytes(p.n.dim), w.packed.k + packed * w.packed.key_bytes, p.n.dim, rows, begin, end, s);

  softmax_rows const state{sum.m + tile, sum.l + tile, w.alpha, w.kept.bases(kept)};
  top_rows const top{w.largest.score + tile * w.largest.count, w.largest.id + tile * w.largest.count, w.largest.count};
  auto row_of = [&](index r) TERN_LAMBDA { return first_row + (r < live ? r : live - 1); };
  auto query_of = [&](index r) TERN_LAMBDA { return of.query(row_of(r)); };
  auto at_row = [&](index r) TERN_LAMBDA { return score_of_row(of, row_of(r)); };
  if (covers == coverage::all && end == last_panel * panel_width)
    weigh_tile<Tile, copied>(p.spec, s, rows, first_panel, last_panel, at_row, keys, hide_nothing{}, state, top, weights);
  else
    weigh_tile<Tile, copied>(p.spec, s, rows, first_panel, last_panel, at_row, keys, hide_by_mask{mask, query_of, block}, state, top,
                             weights);

  float* const o = sum.o + tile * sum.stride;
  Tile::values(weights, w.packed.v + packed * w.packed.value_bytes, p.n.dim_v, rows, begin, end, w.alpha, o, sum.stride);
  if (!w.packed.of[packed].finite)
    add_odd_values<std::remove_cvref_t<decltype(p.spec)>>(block_rows.value, mask, query_of, block, count, rows, p.n.dim_v, w.row, o,
                                                          sum.stride);
}

/// Keys [from, to) for rows [first, end) of an item that begins at row0.
template <class Tile, class Rows, class Mask, class Scratch>
inline void prompt_rows(Rows const& of, Mask const& mask, Scratch const& w, range_sums const& sum, index row0, index first, index end,
                        index from, index to) noexcept {
  index const i0 = of.query(row0 + first), i1 = of.query(row0 + end - 1) + 1;
  key_range const seen = mask.range(i0, i1);
  if (seen.begin > from) from = seen.begin / key_block * key_block;
  index const last = seen.end < to ? seen.end : to, first_tile = first / Tile::rows, tiles = divide_up(end - first, Tile::rows);
  for (index block = from; block < last; block += key_block) {
    index const count = to - block < key_block ? to - block : key_block;
    if (mask.covers(i0, i1, block, block + count) == coverage::none) continue;
    block_rows_of<Rows, false> const here(of, w.block, block, count);
    index const packed = w.packed.at(block);
    if (w.packed.blocks == 1 || !w.packed.of[packed].packed) {
      bool const finite = pack_block<Tile>(here, sum.stride, w.finite, w.packed.k + packed * w.packed.key_bytes,
                                           w.packed.v + packed * w.packed.value_bytes);
      w.packed.of[packed] = {true, finite};
    }
    index const ahead = to - block - count < count ? to - block - count : count;
    Tile::start();
    for (index t = 0; t < tiles; ++t) {
      // The next block's rows are fetched bit by bit, so that packing finds them near.
      if (packed + 1 >= w.packed.blocks || !w.packed.of[packed + 1].packed)
        here.fetch(block + count + ahead * t / tiles, block + count + ahead * (t + 1) / tiles);
      index const rest = end - first - t * Tile::rows;
      prompt_tile<Tile>(here, mask, w, sum, row0, first_tile + t, rest < Tile::rows ? rest : Tile::rows, w.kept.at(block / key_block, t));
    }
    Tile::finish();
  }
}

/// Keys [from, to) for rows [row0, row0 + live) of a group, accumulated into `sum`. Only the range that starts at 0 sees the sink.
/// Where the weights of keys are asked for, [from, to) is all, and they are added to `columns`.
template <class Tile, class Rows>
inline void prompt_item(Rows const& of, index row0, index live, index from, index to, range_sums const& sum, key_columns const& columns,
                        std::byte* memory) noexcept {
  using problem = std::remove_cvref_t<decltype(of.p)>;
  using scratch = prompt_scratch<problem, Tile>;
  auto const& p = of.p;
  scratch w;
  scratch::lay_out(p, live, memory, &w);
  index const rows = round_to_multiple(live, Tile::rows);
  pack_queries<Tile>(of, row0, live, w);
  auto const head_of = [&](index r) TERN_LAMBDA { return of.head(row0 + (r < live ? r : live - 1)); };
  start_sums(p.spec, rows, from == 0, head_of, sum);
  start_top(w.largest, rows);
  w.packed.start();

  auto const mask = of.mask();
  if constexpr (scratch::columns) {
    index const step = w.kept.tiles * Tile::rows;
    for (index first = 0; first < live; first += step) {
      index const end = first + step < live ? first + step : live;
      w.kept.start();
      prompt_rows<Tile>(of, mask, w, sum, row0, first, end, from, to);
      add_key_weights(of, mask, w.kept, row0 + first, end - first, sum.m + first, sum.l + first, columns);
    }
  } else {
    prompt_rows<Tile>(of, mask, w, sum, row0, 0, live, from, to);
  }
  if constexpr (scratch::top)
    for (index r = 0; r < live; ++r) write_top(of, row0 + r, w.largest, r);
}

}  // namespace TERN_ABI
}  // namespace tern::detail

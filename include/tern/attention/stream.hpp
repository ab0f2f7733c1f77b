// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/stream.hpp
/// The path for few queries (the next token of a text, a draft of some): keys and values are read where they lie, for four rows of
/// all the heads that share them at a time, and converted on the way. Keys (values) of bf16 are multiplied as such by q (weights) rounded
/// to it, where products<bf16> are asked for and the CPU has them: errors as tile_bf16.hpp states them.

#include <tern/attention/block.hpp>
#include <tern/attention/ranges.hpp>
#include <tern/attention/tile_bf16.hpp>
#include <tern/attention/tile_values.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Up to this many rows (queries times heads of a unit) the path is taken: with more, packing keys and values once pays. Measured at
/// d = 128: 1.2 to 2 times faster than packing for 9 to 32 rows, in AVX-512 and AVX2; the two are even at 48.
inline constexpr index query_stream_rows = 32;

/// Some rows of a block of scores, which become weights of type T where they are.
template <class T>
struct stream_weights {
  static constexpr index rows = 8;
  static constexpr int exp2_degree = 6;
  static constexpr bool relative_to_block = false;
  using weight_row = f32_tile::weight_row;
};
/// Those of bf16 begin where the scores of their row do.
template <>
struct stream_weights<bf16> : stream_weights<float> {
  struct weight_row : bf16_tile::weight_row {
    TERN_INLINE weight_row(std::byte* p, index r) : bf16_tile::weight_row(p, 2 * r) {}
  };
};

/// The products of a problem over tiles, where keys (values) lie in such and are taken in their order, or by whole tiles.
template <class Rows>
struct tiled {
  using problem = std::remove_cvref_t<decltype(std::declval<Rows const&>().p)>;
  using spec = typename problem::spec_type;
  using group = std::remove_cvref_t<decltype(std::declval<Rows const&>().group)>;
  static constexpr bool in_order = std::same_as<group, dense_group> || requires { requires group::whole_pages; };
  static constexpr bool keys = decoding_source<decltype(problem::k)> && in_order && !spec::transforms;
  /// Weights of a softmax are not negative, as the integers want them.
  static constexpr bool values = decoding_source<decltype(problem::v)> && in_order && !spec::elementwise;
};

/// Whether keys lie in tiles of two bits, for which q becomes integers tile by tile.
template <class Source>
inline constexpr bool two_bit_keys = false;
template <class Source>
  requires requires { typename Source::format; }
inline constexpr bool two_bit_keys<Source> = Source::format::bits == 2;

/// Blocks are decoded first where a register is wider than half of one.
inline constexpr bool stream_decodes = simd::lanes > 16;

/// The memory of one work item of a call that multiplies as Tile does. Rows of q and o are padded to whole packs.
template <class Problem, class Tile = f32_tile>
struct stream_scratch {
  /// What elements of type T are multiplied by.
  template <class T>
  using factor = std::conditional_t<std::same_as<Tile, bf16_tile> && std::same_as<T, bf16>, bf16, float>;
  /// q and the weights. Rows of bf16 begin where those of f32 would.
  using query = factor<std::conditional_t<stages_keys<Problem, stream_decodes>, float, typename Problem::key_element>>;
  using weight = factor<std::conditional_t<stages_values<Problem, stream_decodes>, float, typename Problem::value_element>>;
  template <class T>
  static constexpr index stride = sizeof(float) / sizeof(T);  // of a row, in rows

  float* q;         // (rows, padded dim), scaled, zero behind dim
  float* s;         // (rows, key_block)
  float* alpha;     // (rows)
  std::int32_t* z;  // q as integers, where keys lie in tiles; of 2 bits, what makes them tile by tile
  top_rows largest;
  float* zeros;  // (dim_v), or fewer blocks
  block_memory<Problem, stream_decodes> block;

  TERN_INLINE static index lay_out(Problem const& p, index rows, std::byte* base, stream_scratch* to) {
    arena a{base};
    index const count = Problem::spec_type::wants_top ? p.top_count() : 0;
    stream_scratch s;
    s.q = a.take<float>(rows * round_to_multiple(p.n.dim, simd::lanes));
    s.s = a.take<float>(rows * key_block);
    s.alpha = a.take<float>(round_to_multiple(rows, simd::lanes));
    if constexpr (two_bit_keys<decltype(p.k)>)
      s.z = a.take<std::int32_t>(two_bit_query_words(p.n.dim));
    else
      s.z = a.take<std::int32_t>(decoding_source<decltype(p.k)> ? tile_query::size(rows, p.n.dim) : 0);
    s.largest = {a.take<float>(rows * count), a.take<std::int32_t>(rows * count), count};
    s.zeros = a.take<float>(round_to_multiple(p.n.dim_v, simd::lanes));
    s.block = block_memory<Problem, stream_decodes>::lay_out(p, a);
    if (to != nullptr) *to = s;
    return a.used;
  }
  TERN_INLINE query* query_row(Problem const& p, index r) const {
    return reinterpret_cast<query*>(q + r * round_to_multiple(p.n.dim, simd::lanes));
  }
  TERN_INLINE weight* weights(index r) const { return reinterpret_cast<weight*>(s + r * key_block); }
};

/// Calls f(number of rows as a constant, first row) until all rows are taken.
template <class F>
TERN_INLINE void each_rows(index rows, F&& f) {
  index r = 0;
  for (; r + 4 <= rows; r += 4) f(std::integral_constant<int, 4>{}, r);
  if (rows - r == 3) f(std::integral_constant<int, 3>{}, r);
  if (rows - r == 2) f(std::integral_constant<int, 2>{}, r);
  if (rows - r == 1) f(std::integral_constant<int, 1>{}, r);
}

/// Pointers to rows, or to tiles, of a range of keys: what the kernels fetch ahead, and what those of tiles work on.
template <class Rows>
struct stream_list {
  void const* row[key_block];
  index count = 0, bytes = 0;

  template <class Source>
  TERN_INLINE stream_list(Rows const& of, Source const& from, index head, index size, index first, index keys) {
    auto const index_of = [&](index i) TERN_LAMBDA { return of.group.key(first + i); };
    if constexpr (!decoding_source<Source>) {
      typename Source::element const* rows[key_block];
      from.rows(of.b, head, keys, index_of, rows);
      for (index i = 0; i < keys; ++i) row[i] = rows[i];
      count = keys;
      bytes = size / elements_of<typename Source::element>() * static_cast<index>(sizeof(typename Source::element));
    } else if constexpr (tiled<Rows>::in_order) {
      using format = typename Source::format;
      for (index j = 0; j < keys; j += format::tokens) row[count++] = from.tile(of.b, head, of.group.key(first + j));
      bytes = format::tile_bytes(size);
    }
  }
  TERN_INLINE fetch_ahead ahead() const { return {row, count, bytes}; }
};
template <class Rows>
TERN_INLINE stream_list<Rows> list_keys(Rows const& of, index first, index keys) {
  return {of, of.p.k, of.p.k_head(of.unit), of.p.n.dim, first, keys};
}
template <class Rows>
TERN_INLINE stream_list<Rows> list_values(Rows const& of, index first, index keys) {
  return {of, of.p.v, of.p.v_head(of.unit), of.p.n.dim_v, first, keys};
}
inline constexpr fetch_ahead nothing_ahead{nullptr, 0, 0};

/// Adds the weighted values of a block where the mask shows rows different keys: hidden ones, which may be no numbers, are read as zeros.
template <class Rows, class Mask, class Block, class Scratch>
TERN_INLINE void stream_add_visible(Rows const& of, Mask const& mask, Block const& block, Scratch const& w, range_sums const& sum) {
  using value = typename Block::value_type;
  index const count = block.keys.count, dim_v = of.p.n.dim_v;
  __builtin_memset(w.zeros, 0, static_cast<std::size_t>(dim_v / elements_of<value>()) * sizeof(value));
  for (index r = 0; r < of.rows(); ++r) {
    value const* row[key_block];
    for (index j = 0; j < count; ++j)
      row[j] = mask.visible(of.query(r), block.keys.first + j) ? block.value[j] : reinterpret_cast<value const*>(w.zeros);
    stream_values<1>(w.weights(r), row, count, dim_v, w.alpha + r, nothing_ahead, sum.o + r * sum.stride, sum.stride);
  }
}

/// The scores of a block for all rows of a group.
template <class Rows, class Block, class Scratch>
TERN_INLINE void stream_multiply_keys(Rows const& of, Block const& block, stream_list<Rows> const& values, Scratch const& w) {
  index const q_stride = round_to_multiple(of.p.n.dim, simd::lanes), count = block.keys.count;
  each_rows(of.rows(), [&](auto R, index r) TERN_LAMBDA {
    fetch_ahead const ahead = r == 0 ? values.ahead() : nothing_ahead;
    if constexpr (tiled<Rows>::keys) {
      auto const tiles = list_keys(of, block.keys.first, count);
      std::byte const* tile[key_block / 32];
      for (index t = 0; t < tiles.count; ++t) tile[t] = static_cast<std::byte const*>(tiles.row[t]);
      using format = typename decltype(of.p.k)::format;
      if constexpr (two_bit_keys<decltype(of.p.k)>)
        two_bit_scores<R.value>(w.q + r * q_stride, q_stride, reinterpret_cast<float*>(w.z), tile, count, of.p.n.dim, ahead,
                                w.s + r * key_block);
      else
        tile_scores<R.value, format>(w.z + tile_query::size(r, of.p.n.dim), tile, count, of.p.n.dim, ahead, w.s + r * key_block);
    } else {
      stream_scores<R.value>(w.query_row(of.p, r), q_stride * w.template stride<typename Scratch::query>, block.key, count, of.p.n.dim,
                             ahead, w.s + r * key_block);
    }
  });
}

/// Adds the weighted values of a block, from tiles or from rows, for all rows alike, while `keys` are fetched.
template <bool in_tiles, class Rows, class Block, class Scratch>
TERN_INLINE void stream_multiply_values(Rows const& of, Block const& block, stream_list<Rows> const& values, stream_list<Rows> const& keys,
                                        Scratch const& w, range_sums const& sum) {
  index const count = block.keys.count, dim_v = of.p.n.dim_v;
  each_rows(of.rows(), [&](auto R, index r) TERN_LAMBDA {
    fetch_ahead const ahead = r == 0 ? keys.ahead() : nothing_ahead;
    float* const o = sum.o + r * sum.stride;
    if constexpr (in_tiles) {
      std::byte const* tile[key_block / 32];
      for (index t = 0; t < values.count; ++t) tile[t] = static_cast<std::byte const*>(values.row[t]);
      tile_values<R.value, typename decltype(of.p.v)::format>(w.s + r * key_block, tile, count, dim_v, w.alpha + r, ahead, o, sum.stride);
    } else {
      stream_values<R.value>(w.weights(r), block.value, count, dim_v, w.alpha + r, ahead, o, sum.stride);
    }
  });
}

/// Scores to weights, for rows r0, r0 + 1, ...
template <class Rows, class Mask, class Scratch>
TERN_INLINE void stream_weigh(Rows const& of, Mask const& mask, block_keys const& keys, index r0, index panels, bool plain,
                              Scratch const& w, range_sums const& sum) {
  auto const& p = of.p;
  index const left = of.rows() - r0, rows = left < stream_weights<float>::rows ? left : stream_weights<float>::rows;
  float* const s = w.s + r0 * key_block;
  softmax_rows const state{sum.m + r0, sum.l + r0, w.alpha + r0};
  top_rows const top{w.largest.score + r0 * w.largest.count, w.largest.id + r0 * w.largest.count, w.largest.count};
  auto query_of = [&](index r) TERN_LAMBDA { return of.query(r0 + r); };
  auto at_row = [&](index r) TERN_LAMBDA { return score_of_row(of, r0 + r); };
  std::byte* const weights = reinterpret_cast<std::byte*>(s);
  using weights_of = stream_weights<typename Scratch::weight>;
  if (plain)
    weigh_tile<weights_of, false>(p.spec, s, rows, 0, panels, at_row, keys, hide_nothing{}, state, top, weights);
  else
    weigh_tile<weights_of, false>(p.spec, s, rows, 0, panels, at_row, keys, hide_by_mask{mask, query_of, keys.first}, state, top, weights);
}

/// Scores, weights and values of keys [first, first + count) for all rows of a group; `next` keys follow.
template <class Rows, class Mask, class Scratch>
TERN_INLINE void stream_block(Rows const& of, Mask const& mask, coverage covers, index first, index count, index next, Scratch const& w,
                              range_sums const& sum) {
  auto const& p = of.p;
  index const rows = of.rows(), panels = divide_up(count, panel_width);
  bool const all = covers == coverage::all;
  block_rows_of<Rows, stream_decodes> const block(of, w.block, first, count, !tiled<Rows>::keys, !tiled<Rows>::values || !all);
  auto const values = list_values(of, first, count), keys = list_keys(of, first + count, next);
  stream_multiply_keys(of, block, values, w);
  for (index r = 0; r < rows; ++r)
    for (index j = count; j < panels * panel_width; ++j) w.s[r * key_block + j] = negative_infinity;
  // Scores behind `count` are -inf, and a modifier would make numbers of them.
  bool const plain = all && (count == panels * panel_width || decltype(p.spec.chain)::empty);
  for (index r = 0; r < rows; r += stream_weights<float>::rows) stream_weigh(of, mask, block.keys, r, panels, plain, w, sum);
  if (all)
    stream_multiply_values<tiled<Rows>::values>(of, block, values, keys, w, sum);
  else if (rows_are_finite(block.value, count, p.n.dim_v))
    stream_multiply_values<false>(of, block, values, keys, w, sum);
  else
    stream_add_visible(of, mask, block, w, sum);
}

/// Scratch in `memory`, with the queries of a group as scores take them.
template <class Tile = f32_tile, class Rows>
TERN_INLINE auto stream_queries(Rows const& of, std::byte* memory) {
  auto const& p = of.p;
  stream_scratch<std::remove_cvref_t<decltype(p)>, Tile> w;
  using query = typename decltype(w)::query;
  index const rows = of.rows(), q_stride = round_to_multiple(p.n.dim, simd::lanes);
  w.lay_out(p, rows, memory, &w);
  for (index r = 0; r < rows; ++r) {
    of.widen_query(r, w.q + r * q_stride);
    for (index d = p.n.dim; d < q_stride; ++d) w.q[r * q_stride + d] = 0;
    if constexpr (std::same_as<query, bf16>)
      narrow_row(w.q + r * q_stride, q_stride, 1.f, w.query_row(p, r));
    else
      order_query<typename block_rows_of<Rows, stream_decodes>::key_type>(w.q + r * q_stride, p.n.dim);
  }
  if constexpr (tiled<Rows>::keys && !two_bit_keys<decltype(p.k)>)
    each_rows(rows, [&](auto R, index r) TERN_LAMBDA {
      quantize_query<R.value>(w.q + r * q_stride, q_stride, p.n.dim, w.z + tile_query::size(r, p.n.dim));
    });
  return w;
}

/// Keys [from, to) for all rows of a group, accumulated into `sum`. Only the range that starts at 0 sees the sink.
template <class Tile, class Rows>
inline void stream_item(Rows const& of, index from, index to, range_sums const& sum, std::byte* memory) noexcept {
  using problem = std::remove_cvref_t<decltype(of.p)>;
  auto const& p = of.p;
  auto const w = stream_queries<Tile>(of, memory);
  index const rows = of.rows();
  start_sums(p.spec, rows, from == 0, [&](index r) TERN_LAMBDA { return of.head(r); }, sum);
  start_top(w.largest, rows);

  auto const mask = of.mask();
  index const queries = of.group.queries;
  key_range const seen = mask.range(0, queries);
  if (seen.begin > from) from = seen.begin / key_block * key_block;
  index const last = seen.end < of.group.keys ? seen.end : of.group.keys;
  if (last < to) to = last;
  for (index block = from; block < to; block += key_block) {
    index const count = to - block < key_block ? to - block : key_block;
    coverage const covers = mask.covers(0, queries, block, block + count);
    // Behind the range too: whoever takes the next one finds its first keys.
    index const left = last - block - count, next = left < key_block ? left : key_block;
    if (covers != coverage::none) stream_block(of, mask, covers, block, count, next, w, sum);
  }
  if constexpr (problem::spec_type::wants_top)
    for (index r = 0; r < rows; ++r) write_top(of, r, w.largest, r);
}

}  // namespace TERN_ABI
}  // namespace tern::detail

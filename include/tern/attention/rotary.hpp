// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/rotary.hpp
/// Rotary position encoding inside the call: the cache keeps keys as the projection made them, and each call may place them anew.
///
///     q_i turns by row_q(i) of a table, k_j by row_k(j) (pointwise/rope.hpp has the rotation, pointwise/rope_table.hpp the table)
///
/// Option  attention(policy, q, k, v, out, rotary{table}, causal{}), table f32 (rows, d) as tern::rope_table and its kin fill it, from
///         position 0 on; d <= dim elements of a row turn, the others stay (partial rotation). Linear, NTK and YaRN scaling
///         (pointwise/rope_scaling.hpp) and sections for images and video (pointwise/rope_sections.hpp) are tables.
/// Pairing is said to rotary, whatever the options that the table was made with: a table is the same for both. By default
///         neighbors (interleaved); checkpoints of most models on hubs want rope_pairing::half.
/// Rows    by default that of the position as masks count it. `rotary_rows` says otherwise, for each side by itself:
///
///             row = min(p % period / divisor + shift, limit)     p the position, or with by_token the query's token or the key's index
///
///         so tables made from a caller's own positions, clamped distances, chunks and groups of positions are all this one option.
///         A row that the table does not have turns the query or key into NaN.
/// Stored  positions, of a cache that has lost tokens: `stored_rotary(table, keys)` turns each token by the position that keys,
///         which a kv_cache hands out, have with it, and a query by that of the key where it stands, of the head that it reads. Queries
///         behind the last key stand behind its position, one by one. With `stored` of rotary_rows set, the position that a token stands
///         at takes the place of p above. No layouts: queries of their groups stand elsewhere.
/// Exact   cosines and sines come from f64 and are rounded once; what bf16 angles break, relative positions far from 0, holds.
/// Cost    3 flop an element, for each row of q once, for each of k once for every work item that sees it.
/// Source  Su et al. 2021 (arXiv:2104.09864); Wang et al. 2024, "When Precision Meets Position" (arXiv:2411.13476), for what happens
///         in bf16.

#include <tern/attention/options.hpp>
#include <tern/attention/source.hpp>
#include <tern/pointwise/rope.hpp>

namespace tern {
inline namespace TERN_ABI {

/// The positions that the keys of each head have in their text. Made from what a kv_cache hands out as keys or values.
struct stored_positions {
  tensor_view<page_list const, 2> lists;  ///< (sequences, key heads); none: places are positions
  std::int32_t const* which = nullptr;    ///< as in paged_heads
  index batch = 0;

  TERN_INLINE constexpr stored_positions() = default;
  template <class Format>
  TERN_INLINE constexpr explicit stored_positions(paged_heads<Format> const& keys)
      : lists(keys.lists), which(keys.which), batch(keys.batch) {}

  TERN_INLINE bool given() const { return lists.data() != nullptr; }
  /// That of the key at a place, or of a query there.
  TERN_INLINE index at(index b, index h, index place) const {
    page_list const& of = lists(which != nullptr ? index{which[b]} : b, h);
    if (place < 0 || of.keys == 0) return place;
    return place < of.keys ? index{of.positions[place]} : index{of.positions[of.keys - 1]} + 1 + place - of.keys;
  }
};

/// Which row of a table a query or a key takes: see the top of this file.
struct rotary_rows {
  static constexpr index far = std::numeric_limits<index>::max();
  tensor_view<float const, 2> table;  ///< (rows, d)
  index period = far;
  index divisor = 1;
  index shift = 0;
  index limit = far;
  bool by_token = false;
  stored_positions stored = {};

  /// The cosines of a row, its sines behind them; null where the table ends.
  TERN_INLINE float const* row(row_at const& at) const {
    index const place = by_token ? at.token : index{at.position}, p = stored.given() ? stored.at(at.batch, at.key_head, place) : place;
    index const turned = p < 0 ? p : p % period / divisor + shift;
    index const r = turned < limit ? turned : limit;
    return r >= 0 && r < table.extent(0) ? table.data() + r * table.stride(0) : nullptr;
  }
};

/// Turns q and k.
struct rotary {
  rotary_rows queries, keys;
  rope_pairing pairing;

  template <tensor_like X>
  TERN_INLINE constexpr explicit rotary(X&& table, rope_pairing pairs = rope_pairing::interleaved)
      : queries{tern::view(table)}, keys{tern::view(table)}, pairing(pairs) {}
  TERN_INLINE constexpr rotary(rotary_rows const& of_queries, rotary_rows const& of_keys, rope_pairing pairs = rope_pairing::interleaved)
      : queries(of_queries), keys(of_keys), pairing(pairs) {}

  TERN_INLINE void query(float* row, index dim, row_at const& at) const { turn(row, dim, queries.row(at), queries.table.extent(1)); }
  TERN_INLINE void key(float* row, index dim, row_at const& at) const { turn(row, dim, keys.row(at), keys.table.extent(1)); }
  TERN_INLINE void check(attention_shape const& n) const {
    for (rotary_rows const* side : {&queries, &keys}) {
      index const d = side->table.extent(1);
      detail::expect(d % 2 == 0 && d <= n.dim, "attention", "the row length of rotary's table", d, "an even number, at most the dim of q");
      detail::expect(d == 0 || side->table.stride(1) == 1, "attention", "the last stride of rotary's table", side->table.stride(1),
                     "1 (contiguous rows)");
      detail::expect(side->period > 0 && side->divisor > 0, "attention", "the period or divisor of rotary_rows",
                     side->period < side->divisor ? side->period : side->divisor, "at least 1");
      if (side->stored.given()) expect_positions(side->stored, n);
    }
    expect_tokens(queries, n.tokens, "the rows of rotary's table of queries");
    expect_tokens(keys, n.keys, "the rows of rotary's table of keys");
  }

 private:
  TERN_INLINE static void expect_positions(stored_positions const& of, attention_shape const& n) {
    detail::expect_equal("attention", "the heads of rotary's stored positions", of.lists.extent(1), "those of k", n.k_heads);
    detail::expect_equal("attention", "the sequences of rotary's stored positions", of.batch, "the batch of k", n.batch);
    for (index b = 0; b < of.batch; ++b)
      for (index h = 0; h < n.k_heads; ++h) {
        page_list const& list = of.lists(of.which != nullptr ? index{of.which[b]} : b, h);
        detail::expect(list.keys == 0 || list.positions != nullptr, "attention", "the number of positions stored with a head's keys", 0,
                       "one for each key");
      }
  }
  TERN_INLINE static void expect_tokens(rotary_rows const& side, index count, char const* what) {
    bool const plain = side.period == rotary_rows::far && side.divisor == 1 && side.shift == 0 && side.limit == rotary_rows::far;
    if (side.by_token && plain && !side.stored.given())
      detail::expect(side.table.extent(0) >= count, "attention", what, side.table.extent(0), "one for each of them");
  }
  TERN_INLINE void turn(float* row, index dim, float const* cosines, index d) const {
    if (d == 0) return;
    if (cosines == nullptr) {
      for (index i = 0; i < dim; ++i) row[i] = __builtin_nanf("");
    } else if (pairing == rope_pairing::half) {
      detail::rope_row_half(row, row, cosines, cosines + d / 2, d);
    } else {
      detail::rope_row_interleaved(row, row, cosines, cosines + d / 2, d);
    }
  }
};

/// Tokens turned by the positions that a cache stores with its keys, which the call reads: see the top of this file.
template <class Format>
TERN_INLINE rotary stored_rotary(tensor_view<float const, 2> const& table, paged_heads<Format> const& keys,
                                 rope_pairing pairing = rope_pairing::interleaved) {
  rotary_rows queries{table}, of_keys{table};
  queries.stored = of_keys.stored = stored_positions(keys);
  of_keys.by_token = true;
  return {queries, of_keys, pairing};
}

}  // namespace TERN_ABI
}  // namespace tern

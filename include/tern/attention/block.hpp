// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/block.hpp
/// The keys and values of one block: pointers to their rows where they lie, or to f32 copies of those that are transformed on the
/// way, and the indices of the keys where somebody asks for them.

#include <tern/attention/weigh.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Whether keys (values) are copied as f32: because they are transformed, because a source makes them, or because blocks are to be
/// decoded.
template <class Problem, bool decode>
inline constexpr bool stages_keys =
    Problem::spec_type::transforms || decoding_source<decltype(Problem::k)> || (decode && is_block<typename Problem::key_element>);
template <class Problem, bool decode>
inline constexpr bool stages_values = decoding_source<decltype(Problem::v)> || (decode && is_block<typename Problem::value_element>);

template <class Problem>
inline constexpr bool needs_ids =
    Problem::spec_type::transforms || Problem::spec_type::wants_top || !decltype(Problem::spec_type::chain)::empty;

/// Memory for what a block needs besides the rows.
template <class Problem, bool decode>
struct block_memory {
  std::int32_t* ids;        // (key_block)
  std::int32_t* positions;  // (key_block)
  float* key;               // (key_block, dim to whole packs)
  float* value;             // (key_block, dim_v to whole packs)

  TERN_INLINE static block_memory lay_out(Problem const& p, arena& a) {
    index const ids = needs_ids<Problem> ? key_block : 0;
    index const staged = stages_keys<Problem, decode> ? key_block * round_to_multiple(p.n.dim, simd::lanes) : 0;
    index const values = stages_values<Problem, decode> ? key_block * round_to_multiple(p.n.dim_v, simd::lanes) : 0;
    return {a.take<std::int32_t>(ids), a.take<std::int32_t>(ids), a.take<float>(staged), a.take<float>(values)};
  }
};

/// Rows of keys [first, first + count) of a group.
template <class Rows, bool decode>
struct block_rows_of {
  using problem = std::remove_cvref_t<decltype(std::declval<Rows const&>().p)>;
  using key_type = std::conditional_t<stages_keys<problem, decode>, float, typename problem::key_element>;
  using value_type = std::conditional_t<stages_values<problem, decode>, float, typename problem::value_element>;

  Rows const& of;
  key_type const* key[key_block];
  value_type const* value[key_block];
  block_keys keys;

  /// `keys_too` and `values_too` say whether rows are wanted: who works on tiles does without.
  TERN_INLINE block_rows_of(Rows const& rows, block_memory<problem, decode> const& memory, index first, index count, bool keys_too = true,
                            bool values_too = true)
      : of(rows), keys{first, count, memory.ids, memory.positions} {
    if constexpr (needs_ids<problem>) list_ids(memory);
    if (keys_too) list_rows<stages_keys<problem, decode>>(of.p.k, of.p.k_head(of.unit), of.p.n.dim, memory.key, key);
    if (values_too) list_rows<stages_values<problem, decode>>(of.p.v, of.p.v_head(of.unit), of.p.n.dim_v, memory.value, value);
    if constexpr (problem::spec_type::transforms)
      for (index i = 0; i < count; ++i)
        of.p.spec.transform.key(memory.key + i * round_to_multiple(of.p.n.dim, simd::lanes), of.p.n.dim,
                                {of.b, of.p.k_head(of.unit), of.p.k_head(of.unit), memory.ids[i], memory.positions[i]});
  }

  /// Asks for the rows of keys [from, to) of the group.
  TERN_INLINE void fetch(index from, index to) const {
    for (index j = from; j < to; ++j) {
      fetch_row_of(of.p.k, of.b, of.p.k_head(of.unit), of.group.key(j), of.p.n.dim);
      fetch_row_of(of.p.v, of.b, of.p.v_head(of.unit), of.group.key(j), of.p.n.dim_v);
    }
  }

 private:
  TERN_INLINE void list_ids(block_memory<problem, decode> const& memory) const {
    for (index i = 0; i < key_block; ++i) {
      index const j = keys.first + (i < keys.count ? i : keys.count - 1), id = of.group.key(j);
      memory.ids[i] = static_cast<std::int32_t>(id);
      memory.positions[i] = static_cast<std::int32_t>(std::remove_cvref_t<decltype(of.group)>::local ? j : id);
    }
  }
  template <bool staged, class Source, class T>
  TERN_INLINE void list_rows(Source const& from, index head, index size, [[maybe_unused]] float* memory, T const** to) const {
    auto const index_of = [&](index i) TERN_LAMBDA { return of.group.key(keys.first + i); };
    if constexpr (!staged) {
      from.rows(of.b, head, keys.count, index_of, to);
    } else {
      index const stride = round_to_multiple(size, simd::lanes);
      for (index i = 0; i < keys.count; ++i) to[i] = memory + i * stride;
      if constexpr (decoding_source<Source>) {
        for (index i = 0; i < keys.count; ++i) from.decode(of.b, head, index_of(i), memory + i * stride);
      } else {
        typename Source::element const* row[key_block];
        from.rows(of.b, head, keys.count, index_of, row);
        for (index i = 0; i < keys.count; ++i) widen_row(row[i], size, 1.f, memory + i * stride);
      }
    }
  }
};

/// Where the scores of a row stand; its keys are filled in as they come.
template <class Rows>
TERN_INLINE score_at score_of_row(Rows const& of, index row) {
  return {of.b, of.head(row), of.token(row), of.position(row), nullptr, nullptr};
}

TERN_INLINE void start_top(top_rows const& top, index rows) {
  for (index i = 0; i < rows * top.count; ++i) {
    top.score[i] = negative_infinity;
    top.id[i] = -1;
  }
}
/// Writes the largest scores of row `row`, which are the r-th of `top`.
template <class Rows>
TERN_INLINE void write_top(Rows const& of, index row, top_rows const& top, index r) {
  using spec = typename std::remove_cvref_t<decltype(of.p)>::spec_type;
  for (index i = 0; i < top.count; ++i) {
    of.p.returns.top_ids(of.b, of.head(row), of.token(row), i) = top.id[r * top.count + i];
    of.p.returns.top_scores(of.b, of.head(row), of.token(row), i) = top.score[r * top.count + i] * (spec::softmax ? ln_2 : 1.f);
  }
}

}  // namespace TERN_ABI
}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/block.hpp
/// The keys and values of one block: pointers to their rows where they lie, or to f32 copies of those that are transformed on the
/// way, and the indices of the keys where somebody asks for them.

#include <tern/attention/weigh.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Whether keys (values) are copied as f32: because they are transformed, or because blocks are to be decoded.
template <class Problem, bool decode>
inline constexpr bool stages_keys = Problem::spec_type::transforms || (decode && is_block<typename Problem::key_element>);
template <class Problem, bool decode>
inline constexpr bool stages_values = decode && is_block<typename Problem::value_element>;
template <class Problem>
inline constexpr bool needs_ids = Problem::spec_type::transforms || Problem::spec_type::wants_top || !decltype(Problem::spec_type::chain)::empty;

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

  TERN_INLINE block_rows_of(Rows const& rows, block_memory<problem, decode> const& memory, index first, index count)
      : of(rows), keys{first, count, memory.ids, memory.positions} {
    auto const& p = of.p;
    auto const index_of = [&](index i) TERN_LAMBDA { return of.group.key(first + i); };
    if constexpr (needs_ids<problem>) {
      for (index i = 0; i < key_block; ++i) {
        index const j = i < count ? i : count - 1, id = of.group.key(first + j);
        memory.ids[i] = static_cast<std::int32_t>(id);
        memory.positions[i] = static_cast<std::int32_t>(std::remove_cvref_t<decltype(of.group)>::local ? first + j : id);
      }
    }
    if constexpr (stages_keys<problem, decode>) {
      typename problem::key_element const* row[key_block];
      p.k.rows(of.b, p.k_head(of.unit), count, index_of, row);
      for (index i = 0; i < count; ++i) {
        float* const to = widened(row[i], p.n.dim, i, memory.key);
        key[i] = to;
        if constexpr (problem::spec_type::transforms)
          p.spec.transform.key(to, p.n.dim, {of.b, p.k_head(of.unit), memory.ids[i], memory.positions[i]});
      }
    } else {
      p.k.rows(of.b, p.k_head(of.unit), count, index_of, key);
    }
    if constexpr (stages_values<problem, decode>) {
      typename problem::value_element const* row[key_block];
      p.v.rows(of.b, p.v_head(of.unit), count, index_of, row);
      for (index i = 0; i < count; ++i) value[i] = widened(row[i], p.n.dim_v, i, memory.value);
    } else {
      p.v.rows(of.b, p.v_head(of.unit), count, index_of, value);
    }
  }

  /// Asks for the rows of keys [from, to) of the group.
  TERN_INLINE void fetch(index from, index to) const {
    for (index j = from; j < to; ++j) {
      index const id = of.group.key(j);
      auto const same = [&](index) TERN_LAMBDA { return id; };
      typename problem::key_element const* k[1];
      typename problem::value_element const* v[1];
      of.p.k.rows(of.b, of.p.k_head(of.unit), 1, same, k);
      of.p.v.rows(of.b, of.p.v_head(of.unit), 1, same, v);
      fetch_row(k[0], of.p.n.dim);
      fetch_row(v[0], of.p.n.dim_v);
    }
  }
  /// Asks for the row of key j of the group, if there is one.
  TERN_INLINE void fetch_key(index j) const {
    if (j >= of.group.keys) return;
    auto const same = [&](index) TERN_LAMBDA { return of.group.key(j); };
    typename problem::key_element const* k[1];
    of.p.k.rows(of.b, of.p.k_head(of.unit), 1, same, k);
    fetch_row(k[0], of.p.n.dim);
  }

 private:
  template <class T>
  TERN_INLINE static float* widened(T const* row, index size, index i, float* memory) {
    float* const to = memory + i * round_to_multiple(size, simd::lanes);
    widen_row(row, size, 1.f, to);
    return to;
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

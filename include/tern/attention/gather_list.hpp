// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/gather_list.hpp
/// Attention to listed keys: each query, or each block of queries, has its own.
///
///     gather_list(starts, keys, query_block = 1)
///         tokens [n query_block, (n + 1) query_block) meet keys[starts[n] ... starts[n + 1])
///
/// Shapes    as in compressed_rows.hpp: for all heads, by head, or by batch and head. The last block of queries may be short.
/// Masks     and positions count by token and key index, and keys must ascend where a mask is given; without one any order is fine, and
///           a key that is listed twice counts twice.
/// Empty     a list without entries gives its queries zeros.
/// Errors    starts that descend or leave the list, entries that are no key, extents other than q's.
/// Cost      the listed pairs.
///           Lists by head take the heads that share keys one by one. Checking reads each list once.

#include <tern/attention/compressed_rows.hpp>

namespace tern {
namespace detail {

/// Single keys.
struct gather_list_group {
  static constexpr bool local = false;
  index queries, keys;
  index first_query;
  std::int32_t const* entries;
  index stride;
  TERN_INLINE constexpr index query(index i) const { return first_query + i; }
  TERN_INLINE constexpr index key(index j) const { return entries[j * stride]; }
};

template <int Rank>
struct bound_gather_list {
  static constexpr bool per_head = Rank >= 2;
  index query_block;
  compressed_rows<Rank> rows;
  index tokens;
  TERN_INLINE constexpr index groups(index, index) const { return (tokens + query_block - 1) / query_block; }
  TERN_INLINE constexpr gather_list_group group(index batch, index head, index g) const {
    auto const starts = rows.of(rows.starts, batch, head), list = rows.of(rows.entries, batch, head);
    index const first = g * query_block;
    return {tokens - first < query_block ? tokens - first : query_block, starts[g + 1] - starts[g], first,
            list.data() + starts[g] * list.stride(0), list.stride(0)};
  }
};

}  // namespace detail

/// Keys for each block of queries.
template <int Rank>
struct gather_list {
  index query_block;
  detail::compressed_rows<Rank> rows;
  template <tensor_like X, tensor_like Y>
  TERN_INLINE constexpr gather_list(X&& starts, Y&& keys, index of_queries = 1)
      : query_block(of_queries), rows{tern::view(starts), tern::view(keys)} {}
  TERN_INLINE constexpr detail::bound_gather_list<Rank> over(attention_shape const& n) const { return {query_block, rows, n.tokens}; }
  TERN_INLINE void check(attention_shape const& n) const {
    rows.check(n, query_block, [&](index key, index) TERN_LAMBDA {
      detail::expect(key >= 0 && key < n.keys, "attention", "a key of a list", key, "a key of k");
    });
  }
};
template <tensor_like X, tensor_like Y>
gather_list(X&&, Y&&, index = 1) -> gather_list<view_of<X>::rank>;

}  // namespace tern

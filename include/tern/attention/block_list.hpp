// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/block_list.hpp
/// Block-sparse attention: for each block of queries, a list of the blocks of keys that it meets.
///
///     block_list(query_block, key_block, starts, blocks)
///         tokens [n query_block, (n + 1) query_block) meet keys [b key_block, (b + 1) key_block) for b in blocks[starts[n] ... starts[n +
///         1])
///
/// Shapes    as in compressed_rows.hpp: for all heads, by head, or by batch and head. The last blocks may be short.
/// Masks     and positions count by token and key index: causal{} cuts blocks on the diagonal by element. Blocks ascend.
/// Limits    all blocks listed is dense.
/// Empty     a list without entries gives its queries zeros.
/// Errors    starts that descend or leave the list, blocks that do not ascend or lie beyond the keys, extents other than q's.
/// Cost      a list of density p costs p of dense attention, and packing the keys once more for each block of queries, which counts
///           where blocks of queries are short. Lists by head take the heads that share keys one by one. Checking reads each list once.
/// Source    Child et al. 2019 (arXiv:1904.10509); the layout of Ye et al. 2025, FlashInfer's block-sparse attention (arXiv:2501.01005).

#include <tern/attention/compressed_rows.hpp>

#include <bit>

namespace tern {
namespace detail {

/// Blocks of keys.
struct block_list_group {
  static constexpr bool local = false;
  index queries, keys;
  index first_query, block;
  int shift;  // log2 of block, or -1
  std::int32_t const* entries;
  index stride;
  TERN_INLINE constexpr index query(index i) const { return first_query + i; }
  TERN_INLINE constexpr index key(index j) const {
    index const b = shift >= 0 ? j >> shift : j / block;
    return entries[b * stride] * block + (j - b * block);
  }
};

template <int Rank>
struct bound_block_list {
  static constexpr bool per_head = Rank >= 2;
  index query_block, key_block;
  int shift;
  compressed_rows<Rank> rows;
  index tokens, keys;
  TERN_INLINE constexpr index groups(index, index) const { return (tokens + query_block - 1) / query_block; }
  TERN_INLINE constexpr block_list_group group(index batch, index head, index g) const {
    auto const starts = rows.of(rows.starts, batch, head), list = rows.of(rows.entries, batch, head);
    index const begin = starts[g], end = starts[g + 1], first = g * query_block;
    index const beyond = end > begin ? (list[end - 1] + 1) * key_block - keys : 0;  // of the last block
    return {tokens - first < query_block ? tokens - first : query_block,
            (end - begin) * key_block - (beyond > 0 ? beyond : 0),
            first,
            key_block,
            shift,
            list.data() + begin * list.stride(0),
            list.stride(0)};
  }
};

}  // namespace detail

/// Blocks of keys for each block of queries.
template <int Rank>
struct block_list {
  index query_block, key_block;
  detail::compressed_rows<Rank> rows;
  template <tensor_like X, tensor_like Y>
  TERN_INLINE constexpr block_list(index of_queries, index of_keys, X&& starts, Y&& blocks)
      : query_block(of_queries), key_block(of_keys), rows{tern::view(starts), tern::view(blocks)} {}
  TERN_INLINE constexpr detail::bound_block_list<Rank> over(attention_shape const& n) const {
    auto const size = static_cast<std::size_t>(key_block);
    return {query_block, key_block, std::has_single_bit(size) ? std::countr_zero(size) : -1, rows, n.tokens, n.keys};
  }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect(key_block > 0, "attention", "the key block of a list", key_block, "at least 1");
    index const count = (n.keys + key_block - 1) / key_block;
    rows.check(n, query_block, [&](index block, index before) TERN_LAMBDA {
      detail::expect(block > before && block < count, "attention", "a block of a list", block,
                     "more than the one before, and a block of k");
    });
  }
};
template <tensor_like X, tensor_like Y>
block_list(index, index, X&&, Y&&) -> block_list<view_of<X>::rank>;

}  // namespace tern

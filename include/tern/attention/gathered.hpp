// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/gathered.hpp
/// A layout of selected keys: every query sees the keys that a list of its key head names, one by one or in blocks (pages).
///
///     attention(policy, q, k, v, out, gathered{lists, heads, k_heads, tokens, keys});        ids are keys
///     attention(policy, q, k, v, out, gathered{lists, heads, k_heads, tokens, keys, 16});    ids are blocks of 16 keys, the last shorter
///     attention(policy, q, k, v, out, gathered_pages{lists, heads, k_heads, tokens, keys});  ids are pages of 64 keys, which may be tiles
///
/// Shapes    lists: row b * k_heads + h for key head h of sequence b, ascending; heads, k_heads, tokens and keys those of the call.
/// Masks     count token and key index, as if all keys were there: `causal{}` hides what lies behind the query.
/// Lengths   where the source is ragged (paged), `lengths` of the sequences, the source's own; blocks behind them are not to be listed.
/// Cost      that of attention over the listed keys; heads that share a key head read them once.
/// Fails     if a list is not ascending, or names what is not there.

#include <tern/attention/index_lists.hpp>
#include <tern/attention/layout.hpp>
#include <tern/attention/score.hpp>
#include <tern/attention/source.hpp>

namespace tern {
inline namespace TERN_ABI {

/// Selected keys of each key head: see the top of this file.
struct gathered {
  static constexpr bool per_head = false;  // lists belong to key heads

  index_lists lists;
  index heads, k_heads, tokens, keys;
  index block = 1;
  std::int32_t const* lengths = nullptr;

  /// All tokens of the call, and the keys of one list.
  struct group_type {
    static constexpr bool local = false;
    index queries, keys, block;
    std::int32_t const* ids;
    TERN_INLINE index query(index i) const { return i; }
    TERN_INLINE index key(index j) const { return block == 1 ? ids[j] : ids[j / block] * block + j % block; }
  };

  TERN_INLINE index keys_of(index batch) const { return lengths != nullptr ? static_cast<index>(lengths[batch]) : keys; }
  TERN_INLINE index groups(index, index) const { return 1; }
  TERN_INLINE group_type group(index batch, index head, index) const {
    index const row = batch * k_heads + head / (heads / k_heads), count = lists.count(row);
    index listed = count * block;
    if (count > 0) {
      index const end = (lists.row(row)[count - 1] + 1) * block, missing = end - keys_of(batch);
      if (missing > 0) listed -= missing;
    }
    return {tokens, listed, block, lists.row(row)};
  }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_equal("attention", "the tokens of gathered", tokens, "those of q", n.tokens);
    detail::expect_equal("attention", "the heads of gathered", heads, "those of q", n.heads);
    detail::expect_equal("attention", "the key heads of gathered", k_heads, "those of k", n.k_heads);
    detail::expect_equal("attention", "the keys of gathered", keys, "those of k", n.keys);
    detail::expect(block >= 1, "attention", "the block of gathered", block, "at least 1");
    lists.check("attention", n.batch * k_heads, (keys + block - 1) / block);
    for (index b = 0; b < n.batch; ++b)
      for (index h = 0; h < k_heads; ++h) {
        index const count = lists.count(b * k_heads + h);
        index const last = count > 0 ? lists.row(b * k_heads + h)[count - 1] * block : -1;
        detail::expect(last < keys_of(b), "attention", "a block of gathered", last, "before the end of its sequence");
      }
  }
};

/// `gathered` over pages of 64 keys (of a kv_cache): tiles among them are multiplied where they lie, where other lists decode them.
struct gathered_pages : gathered {
  struct group_type : gathered::group_type {
    static constexpr bool whole_pages = true;  // keys 64 j to 64 j + 63 of the group are those of a page
    TERN_INLINE index key(index j) const { return ids[j / page_rows] * page_rows + j % page_rows; }
  };
  TERN_INLINE gathered_pages(index_lists const& pages, index heads_of_q, index heads_of_k, index tokens_of_q, index keys_of_k,
                             std::int32_t const* lengths_of_keys = nullptr)
      : gathered{pages, heads_of_q, heads_of_k, tokens_of_q, keys_of_k, page_rows, lengths_of_keys} {}
  TERN_INLINE group_type group(index batch, index head, index g) const { return {gathered::group(batch, head, g)}; }
};

}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/compressed_rows.hpp
/// What the layouts share that lie in memory as compressed rows: list n is entries[starts[n] ... starts[n + 1]).
///
/// Shapes    starts int32 (lists + 1) and entries int32 for all heads; with heads, or batch and heads, in front of both for lists of
///           each: (heads, lists + 1), (heads, entries), of which each row has starts of its own.

#include <tern/attention/layout.hpp>
#include <tern/attention/options.hpp>

namespace tern::detail {

/// Lists in compressed rows: one for all heads, one for each, or for each of each batch.
template <int Rank>
struct compressed_rows {
  static_assert(Rank >= 1 && Rank <= 3, "tern: lists are for all heads, by head, or by batch and head");
  tensor_view<std::int32_t const, Rank> starts, entries;

  TERN_INLINE static constexpr tensor_view<std::int32_t const, 1> of(tensor_view<std::int32_t const, Rank> const& x, index batch,
                                                                     index head) {
    if constexpr (Rank == 1)
      return x;
    else if constexpr (Rank == 2)
      return x[head];
    else
      return x[batch][head];
  }
  /// Checks all, and calls one(entry, the one before it or -1) for each entry.
  template <class One>
  TERN_INLINE void check(attention_shape const& n, index query_block, One const& one) const {
    expect(query_block > 0, "attention", "the query block of a list", query_block, "at least 1");
    index const count = (n.tokens + query_block - 1) / query_block;
    expect_equal("attention", "the extent of starts", starts.extent(Rank - 1), "the blocks of queries + 1", count + 1);
    for (auto const* x : {&starts, &entries}) {
      if constexpr (Rank >= 2) expect_equal("attention", "the heads of a list", x->extent(Rank - 2), "the heads of q", n.heads);
      if constexpr (Rank == 3) expect_equal("attention", "the batch of a list", x->extent(0), "the batch of q", n.batch);
    }
    for (index b = 0; b < (Rank == 3 ? n.batch : 1); ++b)
      for (index h = 0; h < (Rank >= 2 ? n.heads : 1); ++h) check_one(of(starts, b, h), of(entries, b, h), count, one);
  }

 private:
  template <class One>
  TERN_INLINE static void check_one(tensor_view<std::int32_t const, 1> const& starts, tensor_view<std::int32_t const, 1> const& entries,
                                    index count, One const& one) {
    expect(starts[0] >= 0, "attention", "the first of starts", starts[0], "at least 0");
    for (index i = 0; i < count; ++i)
      expect(starts[i] <= starts[i + 1], "attention", "one of starts", starts[i + 1], "at least the one before");
    expect(starts[count] <= entries.extent(0), "attention", "the last of starts", starts[count], "at most the entries of the list");
    for (index i = 0; i < count; ++i)
      for (index e = starts[i]; e < starts[i + 1]; ++e) one(index{entries[e]}, e > starts[i] ? index{entries[e - 1]} : index{-1});
  }
};

}  // namespace tern::detail

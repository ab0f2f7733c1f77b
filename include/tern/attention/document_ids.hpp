// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/document_ids.hpp
/// Documents packed into one text: a query sees the keys of its own document, and the anchor, which all share.
///
///     document_ids(ids)                          id(i) == id(j)
///     document_ids(ids, anchor)                  the same, or j < anchor
///     document_ids(query_ids, key_ids, anchor)   where queries and keys are not the same tokens: ids int32 (tokens) and (keys)
///
///     document_ids_by_batch(ids, anchor)         the same as document_ids(ids, anchor) with ids of each batch: int32 (batch, tokens)
///
/// A mask by token and key index; positions run through all documents. Combine it with causal{}. Documents that all have positions
/// of their own, and no anchor, are a layout: varlen.hpp, which costs less to plan but cannot be combined with another layout.
/// Ids       ascend along the text, not necessarily by one.
/// Limits    one document is no mask; anchor >= keys too.
/// Cost      tiles of different documents are not computed; a test of a tile is two comparisons.
/// Errors    ids that descend, or whose number is not that of the tokens or keys.
/// Source    anchor: Wang et al. 2025, AnchorAttention (arXiv:2411.13476). An anchor that is a long prefix whose branches do not see
///           each other: Cao et al. 2025, FLAME (arXiv:2411.11927).

#include <tern/attention/mask.hpp>
#include <tern/attention/score.hpp>
#include <tern/core/tensor_view.hpp>

namespace tern {

/// Keys of the query's document, and the first `anchor` keys.
class document_ids {
 public:
  template <tensor_like X>
  TERN_INLINE constexpr explicit document_ids(X&& ids, index anchor = 0) : document_ids(ids, ids, anchor) {}
  template <tensor_like X, tensor_like Y>
  TERN_INLINE constexpr document_ids(X&& of_queries, Y&& of_keys, index anchor)
      : queries_(tern::view(of_queries)), keys_(tern::view(of_keys)), anchor_(anchor) {}

  TERN_INLINE constexpr key_range range(index i0, index i1) const {
    index const begin = first_at_least(queries_[i0]), end = first_at_least(index{queries_[i1 - 1]} + 1);
    return {anchor_ > 0 ? 0 : begin, anchor_ > end ? anchor_ : end};
  }
  TERN_INLINE constexpr coverage covers(index i0, index i1, index j0, index j1) const {
    if (j1 <= anchor_) return coverage::all;
    if (j0 < anchor_) return own(i0, i1, anchor_, j1) == coverage::all ? coverage::all : coverage::some;
    return own(i0, i1, j0, j1);
  }
  TERN_INLINE constexpr bool visible(index i, index j) const { return j < anchor_ || queries_[i] == keys_[j]; }

  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_equal("attention", "the extent of document_ids", queries_.extent(0), "the tokens of q", n.tokens);
    detail::expect_equal("attention", "the extent of document_ids of keys", keys_.extent(0), "the keys of k", n.keys);
    detail::expect(anchor_ >= 0, "attention", "the anchor of document_ids", anchor_, "at least 0");
    for (auto const* ids : {&queries_, &keys_})
      for (index i = 1; i < ids->extent(0); ++i)
        detail::expect((*ids)[i - 1] <= (*ids)[i], "attention", "a document id", (*ids)[i], "at least the one before");
  }

 private:
  tensor_view<std::int32_t const, 1> queries_, keys_;
  index anchor_;

  /// Ids ascend, so those of a range lie between its ends.
  TERN_INLINE constexpr coverage own(index i0, index i1, index j0, index j1) const {
    std::int32_t const q0 = queries_[i0], q1 = queries_[i1 - 1], k0 = keys_[j0], k1 = keys_[j1 - 1];
    if (q1 < k0 || k1 < q0) return coverage::none;
    return q0 == q1 && k0 == k1 ? coverage::all : coverage::some;
  }
  TERN_INLINE constexpr index first_at_least(index id) const {
    index low = 0, high = keys_.extent(0);
    while (low < high) {
      index const middle = low + (high - low) / 2;
      (keys_[middle] < id ? low : high) = keys_[middle] < id ? middle + 1 : middle;
    }
    return low;
  }
};

/// Documents of each batch.
struct document_ids_by_batch {
  tensor_view<std::int32_t const, 2> ids;
  index anchor;
  template <tensor_like X>
  TERN_INLINE constexpr explicit document_ids_by_batch(X&& x, index shared = 0) : ids(tern::view(x)), anchor(shared) {}
  TERN_INLINE constexpr document_ids at(index batch) const { return document_ids(ids[batch], anchor); }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_equal("attention", "the batch of document_ids", ids.extent(0), "the batch of q", n.batch);
    for (index b = 0; b < n.batch; ++b) at(b).check(n);
  }
};

}  // namespace tern

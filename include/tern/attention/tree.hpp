// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/tree.hpp
/// A tree of draft tokens that a model verifies in one pass: each sees the context, itself and its ancestors.
///
///     tree(parents)       int32 (tokens): of each draft token an earlier one, or -1 at the root
///     ancestors(bits)     uint64 (tokens, words): bit d % 64 of word d / 64 of row i, when i sees draft token d; rows need not be a tree
///
/// Both with a batch in front for a tree each: (batch, tokens), (batch, tokens, words).
/// Alignment draft token d is key d + offset, keys below are the context, and keys behind the last draft token are hidden;
///           bottom-right unless an offset is stated: the drafts are the last keys.
/// Limits    parents -1, 0, 1, ... are causal.
/// Errors    a parent that does not come before its child; extents other than q's; too few words.
/// Cost      a parent is looked up for each generation between a query and a key of the draft.
/// Source    Miao et al. 2024, SpecInfer (arXiv:2305.09781); Cai et al. 2024, Medusa (arXiv:2401.10774).

#include <tern/attention/mask.hpp>
#include <tern/attention/score.hpp>
#include <tern/core/tensor_view.hpp>

namespace tern {
namespace detail {

/// The context, and of the draft tokens what `sees(i, d)` says.
template <class Sees>
struct bound_tree {
  Sees sees;
  index offset, end;  // the first draft token's key, and the one behind the last
  TERN_INLINE constexpr key_range range(index, index) const { return {0, end}; }
  TERN_INLINE constexpr coverage covers(index, index, index j0, index j1) const {
    if (j0 >= end) return coverage::none;
    return j1 <= offset ? coverage::all : coverage::some;
  }
  TERN_INLINE constexpr bool visible(index i, index j) const { return j < end && (j < offset || sees(i, j - offset)); }
};
template <class Sees>
TERN_INLINE constexpr bound_tree<Sees> bind_tree(Sees const& sees, index tokens, index keys, index offset) {
  index const end = offset + tokens;
  return {sees, offset, end < keys ? end : keys};
}

/// Walks up from i.
struct sees_by_parents {
  tensor_view<std::int32_t const, 1> parents;
  TERN_INLINE constexpr bool operator()(index i, index d) const {
    while (i > d) i = parents[i];
    return i == d;
  }
};
struct sees_by_bits {
  tensor_view<std::uint64_t const, 2> bits;
  TERN_INLINE constexpr bool operator()(index i, index d) const { return (bits(i, d / 64) >> (d % 64) & 1) != 0; }
};

/// A tree for all batches.
template <class Sees>
struct one_tree {
  Sees sees;
  index tokens;
  index offset;
  TERN_INLINE constexpr auto aligned(index keys, index at) const { return bind_tree(sees, tokens, keys, at); }
};

/// One of several views, or the view.
template <class T, int R>
TERN_INLINE constexpr auto of_batch(tensor_view<T, R> const& x, index batch) {
  if constexpr (R == 1)
    return x;
  else
    return x[batch];
}

}  // namespace detail

/// Draft tokens by their parents.
template <int Rank>
struct tree {
  static_assert(Rank == 1 || Rank == 2, "tern: parents are (tokens) or (batch, tokens)");
  tensor_view<std::int32_t const, Rank> parents;
  index offset;
  template <tensor_like X>
  TERN_INLINE constexpr explicit tree(X&& x, index at = bottom_right) : parents(tern::view(x)), offset(at) {}
  TERN_INLINE constexpr auto at(index batch) const {
    auto const own = detail::of_batch(parents, batch);
    return detail::one_tree<detail::sees_by_parents>{{own}, own.extent(0), offset};
  }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_equal("attention", "the parents of tree", parents.extent(Rank - 1), "the tokens of q", n.tokens);
    if constexpr (Rank == 2) detail::expect_equal("attention", "the batch of tree", parents.extent(0), "the batch of q", n.batch);
    for (index b = 0; b < (Rank == 2 ? n.batch : 1); ++b)
      for (index i = 0; i < n.tokens; ++i) {
        index const parent = detail::of_batch(parents, b)[i];
        detail::expect(parent >= -1 && parent < i, "attention", "a parent of tree", parent, "-1, or a token before its child");
      }
  }
};
template <tensor_like X>
tree(X&&, index = bottom_right) -> tree<view_of<X>::rank>;

/// Draft tokens by the bits of what they see.
template <int Rank>
struct ancestors {
  static_assert(Rank == 2 || Rank == 3, "tern: bits of ancestors are (tokens, words) or (batch, tokens, words)");
  tensor_view<std::uint64_t const, Rank> bits;
  index offset;
  template <tensor_like X>
  TERN_INLINE constexpr explicit ancestors(X&& x, index at = bottom_right) : bits(tern::view(x)), offset(at) {}
  TERN_INLINE constexpr auto at(index batch) const {
    if constexpr (Rank == 3)
      return detail::one_tree<detail::sees_by_bits>{{bits[batch]}, bits.extent(1), offset};
    else
      return detail::one_tree<detail::sees_by_bits>{{bits}, bits.extent(0), offset};
  }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_equal("attention", "the rows of ancestors", bits.extent(Rank - 2), "the tokens of q", n.tokens);
    detail::expect(bits.extent(Rank - 1) * 64 >= n.tokens, "attention", "the words of ancestors", bits.extent(Rank - 1),
                   "a bit for each token");
    if constexpr (Rank == 3) detail::expect_equal("attention", "the batch of ancestors", bits.extent(0), "the batch of q", n.batch);
  }
};
template <tensor_like X>
ancestors(X&&, index = bottom_right) -> ancestors<view_of<X>::rank>;

}  // namespace tern

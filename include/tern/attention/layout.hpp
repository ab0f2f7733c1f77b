// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/layout.hpp
/// Which queries meet which keys at all. A layout cuts a call into groups, and each query of a group attends to the group's keys:
/// sequences packed side by side, windows of an image, blocks of a list. The engine gathers queries and keys where they lie; pairs
/// that share no group are never touched. Masks then say what is hidden within a group.
///
/// A layout is a type with
///
///     static constexpr bool per_head;                      // whether groups differ from head to head
///     index groups(index batch, index head) const;         // how many there are
///     G group(index batch, index head, index g) const;     // the g-th
///     void check(attention_shape const&) const;            // optional: compares itself with the tensors, reports errors
///
/// and a group G one with
///
///     index queries, keys;                                 // how many
///     index query(index i) const;                          // the token of query i of the group
///     index key(index j) const;                            // the index of its key j
///     static constexpr bool local;                         // masks and distances count within the group (i and j), or by token and
///                                                          // key index, which then ascend within the group
///     bool visible(index i, index j) const;                // optional: what is hidden within the group, by i and j,
///     coverage covers(index i0, index i1, index j0, index j1) const;  // as in mask.hpp
///     key_range row(index i) const;                        // optional, instead of these two: query i sees keys [begin, end) of the
///                                                          // group, and both ends grow with i
///
/// A layout that needs to know the extents of the call has `L over(attention_shape const&) const` instead, which gives the layout.
///
/// Groups that differ from key head to key head, but not among the heads that share one, need no `per_head`: a group is asked for
/// by the first head that shares its keys and values. Each query stands in one group; outputs of one that stands in none are not written.
/// The functions are called from several threads and may not throw.

#include <tern/attention/mask.hpp>

namespace tern {

/// A group of queries and keys: see the top of this file.
template <class G>
concept attention_group = requires(G const& g, index i) {
  { g.queries } -> std::convertible_to<index>;
  { g.keys } -> std::convertible_to<index>;
  { g.query(i) } -> std::convertible_to<index>;
  { g.key(i) } -> std::convertible_to<index>;
  { bool(G::local) };
};

/// A layout: see the top of this file.
template <class L>
concept attention_layout = requires(L const& l, index i) {
  { l.groups(i, i) } -> std::convertible_to<index>;
  { l.group(i, i, i) } -> attention_group;
  { bool(L::per_head) };
};

namespace detail {

/// Queries and keys [0, n) in their order.
struct dense_group {
  static constexpr bool local = true;
  index queries, keys;
  TERN_INLINE constexpr index query(index i) const { return i; }
  TERN_INLINE constexpr index key(index j) const { return j; }
};

template <class G>
concept masking_group = requires(G const& g, index i) {
  { g.visible(i, i) } -> std::convertible_to<bool>;
};

/// What a group hides by itself.
template <class G>
struct group_mask {
  G const& group;
  TERN_INLINE constexpr key_range range(index, index) const { return {0, group.keys}; }
  TERN_INLINE constexpr coverage covers(index i0, index i1, index j0, index j1) const { return group.covers(i0, i1, j0, j1); }
  TERN_INLINE constexpr bool visible(index i, index j) const { return group.visible(i, j); }
};

template <class G>
concept ranging_group = requires(G const& g, index i) {
  { g.row(i) } -> std::convertible_to<key_range>;
};

/// What a group shows by itself, a range of its keys for each query.
template <class G>
struct group_rows {
  G const& group;
  TERN_INLINE constexpr key_range row(index i) const { return group.row(i); }
  TERN_INLINE constexpr key_range range(index i0, index i1) const { return {row(i0).begin, row(i1 - 1).end}; }
  TERN_INLINE constexpr coverage covers(index i0, index i1, index j0, index j1) const {
    if (j1 <= row(i0).begin || j0 >= row(i1 - 1).end) return coverage::none;
    return row(i1 - 1).begin <= j0 && j1 <= row(i0).end ? coverage::all : coverage::some;
  }
  TERN_INLINE constexpr bool visible(index i, index j) const { return row(i).begin <= j && j < row(i).end; }
};

/// A mask by token and key index, seen from within a group. Indices ascend, so a tile of the group lies in a tile of the whole.
template <class M, class G>
struct mask_in_group {
  M mask;
  G const& group;
  TERN_INLINE constexpr key_range range(index, index) const { return {0, group.keys}; }
  TERN_INLINE constexpr coverage covers(index i0, index i1, index j0, index j1) const {
    j1 = j1 < group.keys ? j1 : group.keys;
    if (j0 >= j1) return coverage::none;
    return mask.covers(group.query(i0), group.query(i1 - 1) + 1, group.key(j0), group.key(j1 - 1) + 1);
  }
  TERN_INLINE constexpr bool visible(index i, index j) const { return j < group.keys && mask.visible(group.query(i), group.key(j)); }
};

/// The mask of a group: what the caller's shows of it, bound by `bind(mask, keys, offset)`, and what the group itself does.
template <class G, class M>
TERN_INLINE constexpr auto mask_of_group(G const& g, M const& mask, index keys, index offset) {
  auto const own = [&]() TERN_LAMBDA {
    if constexpr (std::same_as<M, no_mask>)
      return band{-band::far, band::far, g.keys};
    else if constexpr (G::local)
      return bind_mask(mask, g.keys, offset == bottom_right ? g.keys - g.queries : offset);
    else
      return mask_in_group<decltype(bind_mask(mask, keys, offset)), G>{bind_mask(mask, keys, offset), g};
  }();
  if constexpr (ranging_group<G> && std::same_as<M, no_mask>)
    return group_rows<G>{g};
  else if constexpr (ranging_group<G>)
    return bound_both<std::remove_const_t<decltype(own)>, group_rows<G>>{own, {g}};
  else if constexpr (masking_group<G>)
    return bound_both<std::remove_const_t<decltype(own)>, group_mask<G>>{own, {g}};
  else
    return own;
}

}  // namespace detail
}  // namespace tern

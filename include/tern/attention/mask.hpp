// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/mask.hpp
/// Which keys a query may see. Query i (of `tokens`) stands at position i + offset among the keys; unless a mask says otherwise
/// the last query stands at the last key (bottom-right alignment): offset = keys - tokens.
///
///     causal{}              keys j <= i + offset
///     causal{offset}        the same with an offset of the caller's, for every mask it is combined with
///     window{n}             the n keys that end at the query's own: i + offset - n < j <= i + offset
///     window{n, right}      and `right` keys after it:              i + offset - n < j <= i + offset + right
///     a & b                 keys that both show
///
/// A mask of one's own is a type with three functions over query and key indices, from which the engine learns which parts of
/// the score matrix to leave out (never computed), which to mask by element, and which to take whole:
///
///     key_range range(index i0, index i1) const;                           // no query in [i0, i1) sees a key outside
///     coverage covers(index i0, index i1, index j0, index j1) const;       // how much of these keys these queries see
///     bool visible(index i, index j) const;
///
/// The three are called from several threads, may not throw and call no kernel. A mask that goes by the position of a query has instead
///
///     index offset;                                   // stated by the caller, or bottom_right
///     M aligned(index keys, index offset) const;      // the three functions, for query i at position i + offset of `keys` keys, beyond
///                                                     // which it shows none; with `key_range row(index i) const` besides, where what
///                                                     // a query sees is one range, masking by element is faster
///
/// and one that differs from head to head, or from batch to batch, `M at(index batch, index head) const` or `M at(index batch) const`,
/// which gives the mask of a head or of a batch, whose offset holds for it.

#include <tern/core/error.hpp>

#include <concepts>
#include <limits>

namespace tern {

/// Offset that aligns the last query with the last key.
inline constexpr index bottom_right = std::numeric_limits<index>::min();

/// Keys [begin, end); empty when end <= begin.
struct key_range {
  index begin, end;
};
/// How many pairs of a tile of queries and a range of keys are visible. `some` is always a right answer, only slower.
enum class coverage { none, some, all };

/// Keys up to the query's own position.
struct causal {
  index offset = bottom_right;
};
/// The `length` keys that end at the query's own position, and `right` keys after it.
struct window {
  index length;
  index right = 0;
  index offset = bottom_right;
  template <class Shape>
  TERN_INLINE constexpr void check(Shape const&) const {
    detail::expect(length >= 0 && right >= 0, "attention", "the length or right of a window", length < right ? length : right,
                   "not negative");
  }
};

/// A mask of one's own: the three functions above.
template <class M>
concept custom_mask = requires(M const& m, index i) {
  { m.range(i, i) } -> std::convertible_to<key_range>;
  { m.covers(i, i, i, i) } -> std::same_as<coverage>;
  { m.visible(i, i) } -> std::convertible_to<bool>;
};

/// A mask that goes by the positions of queries.
template <class M>
concept aligned_mask = requires(M const& m, index i) {
  { m.aligned(i, i) } -> custom_mask;
  { m.offset } -> std::convertible_to<index>;
};

namespace detail {
template <class M>
concept mask_of_one = custom_mask<M> || aligned_mask<M> || std::same_as<M, causal> || std::same_as<M, window>;
}  // namespace detail

/// A mask for each head.
template <class M>
concept mask_by_head = requires(M const& m, index i) {
  { m.at(i, i) } -> detail::mask_of_one;
};
/// A mask for each batch.
template <class M>
concept mask_by_batch = requires(M const& m, index i) {
  { m.at(i) } -> detail::mask_of_one;
};

/// What both masks show; made by `a & b`.
template <class A, class B>
struct both_masks {
  A first;
  B second;
  /// Lets both compare themselves with a call.
  template <class Shape>
  TERN_INLINE constexpr void check(Shape const& n) const {
    if constexpr (requires { first.check(n); }) first.check(n);
    if constexpr (requires { second.check(n); }) second.check(n);
  }
};

namespace detail {

template <class M>
inline constexpr bool is_mask = mask_of_one<M> || mask_by_head<M> || mask_by_batch<M>;
template <class A, class B>
inline constexpr bool is_mask<both_masks<A, B>> = true;

}  // namespace detail

/// What attention takes as a mask, and what `&` joins.
template <class M>
concept attention_mask = detail::is_mask<M>;

template <attention_mask A, attention_mask B>
TERN_INLINE constexpr both_masks<A, B> operator&(A const& a, B const& b) {
  return {a, b};
}

namespace detail {

/// Where no mask is given.
struct no_mask {};

/// Whether a mask, or a part of it, differs from head to head.
template <class M>
inline constexpr bool differs_by_head = mask_by_head<M>;
template <class A, class B>
inline constexpr bool differs_by_head<both_masks<A, B>> = differs_by_head<A> || differs_by_head<B>;

/// The mask of one head.
template <class M>
TERN_INLINE constexpr auto mask_of_head(M const& m, index batch, index head) {
  if constexpr (mask_by_head<M>)
    return m.at(batch, head);
  else if constexpr (mask_by_batch<M>)
    return m.at(batch);
  else
    return m;
}
template <class A, class B>
TERN_INLINE constexpr auto mask_of_head(both_masks<A, B> const& m, index batch, index head) {
  return both_masks<decltype(mask_of_head(m.first, batch, head)), decltype(mask_of_head(m.second, batch, head))>{
      mask_of_head(m.first, batch, head), mask_of_head(m.second, batch, head)};
}

/// Query i sees keys [i + low, i + high) of [0, keys). All masks above are this one, so one engine serves them.
struct band {
  static constexpr index far = std::numeric_limits<index>::max() / 8;
  index low, high, keys;

  TERN_INLINE constexpr key_range row(index i) const {
    index const begin = i + low, end = i + high;
    return {begin > 0 ? begin : 0, end < keys ? end : keys};
  }
  // Both ends of a row grow with i.
  TERN_INLINE constexpr key_range range(index i0, index i1) const { return {row(i0).begin, row(i1 - 1).end}; }
  TERN_INLINE constexpr coverage covers(index i0, index i1, index j0, index j1) const {
    if (j1 <= row(i0).begin || j0 >= row(i1 - 1).end) return coverage::none;
    return row(i1 - 1).begin <= j0 && j1 <= row(i0).end ? coverage::all : coverage::some;
  }
  TERN_INLINE constexpr bool visible(index i, index j) const { return row(i).begin <= j && j < row(i).end; }
};

/// A mask that says what a query sees as one range.
template <class M>
concept row_mask = requires(M const& m, index i) {
  { m.row(i) } -> std::convertible_to<key_range>;
};

template <class A, class B>
struct bound_both {
  A a;
  B b;
  TERN_INLINE constexpr key_range range(index i0, index i1) const {
    key_range const x = a.range(i0, i1), y = b.range(i0, i1);
    return {x.begin > y.begin ? x.begin : y.begin, x.end < y.end ? x.end : y.end};
  }
  TERN_INLINE constexpr coverage covers(index i0, index i1, index j0, index j1) const {
    coverage const x = a.covers(i0, i1, j0, j1), y = b.covers(i0, i1, j0, j1);
    return x < y ? x : y;
  }
  TERN_INLINE constexpr bool visible(index i, index j) const { return a.visible(i, j) && b.visible(i, j); }
  TERN_INLINE constexpr key_range row(index i) const
    requires row_mask<A> && row_mask<B>
  {
    key_range const x = a.row(i), y = b.row(i);
    return {x.begin > y.begin ? x.begin : y.begin, x.end < y.end ? x.end : y.end};
  }
};

/// The offset that a mask states, or `bottom_right`; of several, the first.
template <class M>
TERN_INLINE constexpr index stated_offset(M const& m) {
  if constexpr (requires { m.offset; })
    return m.offset;
  else
    return bottom_right;
}
template <class A, class B>
TERN_INLINE constexpr index stated_offset(both_masks<A, B> const& m) {
  index const first = stated_offset(m.first);
  return first != bottom_right ? first : stated_offset(m.second);
}

/// Within what can be added to an index three times.
TERN_INLINE constexpr index within_far(index n) { return n > band::far ? band::far : n < -band::far ? -band::far : n; }

/// A mask with its alignment resolved. `offset` is that of query 0.
TERN_INLINE constexpr band bind_mask(causal const&, index keys, index offset) { return {-band::far, within_far(offset) + 1, keys}; }
TERN_INLINE constexpr band bind_mask(window const& m, index keys, index offset) {
  return {within_far(offset) - within_far(m.length) + 1, within_far(offset) + within_far(m.right) + 1, keys};
}
template <custom_mask M>
TERN_INLINE constexpr auto bind_mask(M const& m, index keys, index) {
  return bound_both<band, M>{band{-band::far, band::far, keys}, m};  // the band first: m is not asked about keys that do not exist
}
template <aligned_mask M>
TERN_INLINE constexpr auto bind_mask(M const& m, index keys, index offset) {
  return m.aligned(keys, within_far(offset));
}
template <class A, class B>
TERN_INLINE constexpr auto bind_mask(both_masks<A, B> const& m, index keys, index offset) {
  auto const a = bind_mask(m.first, keys, offset);
  auto const b = bind_mask(m.second, keys, offset);
  if constexpr (std::same_as<decltype(a), band const> && std::same_as<decltype(b), band const>)
    return band{a.low > b.low ? a.low : b.low, a.high < b.high ? a.high : b.high, keys};
  else
    return bound_both<std::remove_const_t<decltype(a)>, std::remove_const_t<decltype(b)>>{a, b};
}

}  // namespace detail
}  // namespace tern

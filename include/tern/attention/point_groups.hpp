// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/point_groups.hpp
/// Groups of points, voxels or tokens that lie anywhere: those of the same group see each other.
///
///     point_groups{order, starts}
///
/// `order` lists the points group by group, `starts` says where each group begins in it, and at last where the last one ends: group
/// g is order[starts[g]], ..., order[starts[g + 1] - 1]. Windows of sparse voxels, clusters, buckets of a hash are such lists.
///
/// Shapes  order (points), starts (groups + 1), both int32; points = tokens = keys. Masks and distances count within the group.
/// Errors  lists that do not name every place of `order`, and points that q does not have. That no point is listed twice is the
///         caller's to see to.
/// Cost    the lists are checked in every call: one pass over them.

#include <tern/attention/layout.hpp>
#include <tern/attention/score.hpp>
#include <tern/core/tensor_view.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// Queries order[0], ... that see keys seen[0], ...
struct listed_group {
  static constexpr bool local = true;
  index queries, keys;
  std::int32_t const *order, *seen;
  TERN_INLINE index query(index i) const { return static_cast<index>(order[i]); }
  TERN_INLINE index key(index j) const { return static_cast<index>(seen[j]); }
};

/// An order of all tokens.
TERN_INLINE void expect_order(char const* what, tensor_view<std::int32_t const, 1> const& order, attention_shape const& n) {
  expect_equal("attention", what, order.extent(0), "the tokens of q", n.tokens);
  expect_equal("attention", what, order.extent(0), "the keys of k", n.keys);
  expect(order.extent(0) <= 1 || order.stride(0) == 1, "attention", what, order.stride(0), "contiguous");
  for (index i = 0; i < order.extent(0); ++i)
    expect(order[i] >= 0 && static_cast<index>(order[i]) < n.tokens, "attention", what, order[i], "tokens of q");
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// A layout: see the top of this file.
struct point_groups {
  static constexpr bool per_head = false;
  tensor_view<std::int32_t const, 1> order, starts;
  template <tensor_like O, tensor_like S>
  TERN_INLINE constexpr point_groups(O&& points, S&& begins) : order(tern::view(points)), starts(tern::view(begins)) {}

  TERN_INLINE index groups(index, index) const { return starts.extent(0) - 1; }
  TERN_INLINE detail::listed_group group(index, index, index g) const {
    std::int32_t const* const from = order.data() + starts[g];
    index const n = static_cast<index>(starts[g + 1] - starts[g]);
    return {n, n, from, from};
  }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_order("the order of point_groups", order, n);
    index const last = starts.extent(0) - 1;
    detail::expect(last >= 0 && starts[0] == 0, "attention", "the first start of point_groups", last < 0 ? -1 : starts[0], "0");
    for (index g = 0; g < last; ++g)
      detail::expect(starts[g] <= starts[g + 1], "attention", "a start of point_groups", starts[g + 1], "at least the one before");
    detail::expect_equal("attention", "the last start of point_groups", static_cast<index>(starts[last]), "the tokens of q", n.tokens);
  }
};

}  // namespace TERN_ABI
}  // namespace tern

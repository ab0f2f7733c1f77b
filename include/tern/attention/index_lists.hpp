// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/index_lists.hpp
/// Lists of indices in memory of the caller's, and what fills them: the largest of many scores.
///
///     index_lists lists{ids, counts};        ids (rows, most), counts (rows): row r holds counts[r] indices, ascending
///     select_top(scores, k, to)              the indices of the k largest scores, ascending; of equal scores the first
///     select_above(scores, threshold, to)    the indices of the scores above a threshold, ascending
///
/// Both return how many there are, at most what `to` holds. A score of -inf is never selected; NaN counts as the largest. The result
/// follows from the scores alone. Cost: five passes over the scores for select_top, whatever k, and no memory; one for select_above.

#include <tern/core/error.hpp>
#include <tern/core/tensor_view.hpp>

#include <bit>
#include <cstdint>
#include <limits>

namespace tern {

namespace detail {
/// Fails unless `count` indices ascend and are below `limit`.
TERN_INLINE void expect_ascending(char const* op, char const* argument, std::int32_t const* ids, index count, index limit) {
  for (index i = 0; i < count; ++i)
    expect(ids[i] > (i > 0 ? ids[i - 1] : -1) && ids[i] < limit, op, argument, static_cast<index>(ids[i]),
           "one below the limit, after the one before");
}
}  // namespace detail

/// Rows of ascending indices, of different lengths: see the top of this file.
struct index_lists {
  tensor_view<std::int32_t, 2> ids;     // (rows, most), rows contiguous
  tensor_view<std::int32_t, 1> counts;  // (rows)

  TERN_INLINE index rows() const { return counts.extent(0); }
  TERN_INLINE index most() const { return ids.extent(1); }
  TERN_INLINE std::int32_t* row(index r) const { return ids.data() + r * ids.stride(0); }
  TERN_INLINE index count(index r) const { return static_cast<index>(counts[r]); }
  /// Row r as a view of all that it can hold.
  TERN_INLINE tensor_view<std::int32_t, 1> room(index r) const { return ids[r]; }

  /// Fails unless there are `wanted` rows, which hold as many indices as is said.
  TERN_INLINE void check_shape(char const* op, index wanted) const {
    detail::expect_equal(op, "the rows of a list of indices", rows(), "the rows that are needed", wanted);
    detail::expect(ids.extent(0) >= wanted, op, "ids.extent(0)", ids.extent(0), "a row for each count");
    detail::expect(ids.extent(1) <= 1 || ids.stride(1) == 1, op, "the last stride of ids", ids.stride(1), "1 (contiguous rows)");
    for (index r = 0; r < wanted; ++r)
      detail::expect(count(r) >= 0 && count(r) <= most(), op, "the count of a list", count(r), "at most what its row holds");
  }
  /// Fails unless there are `wanted` rows of ascending indices below `limit`.
  TERN_INLINE void check(char const* op, index wanted, index limit) const {
    check_shape(op, wanted);
    for (index r = 0; r < wanted; ++r) detail::expect_ascending(op, "an index of a list", row(r), count(r), limit);
  }
};

namespace detail {

/// An integer that orders as the score does; 0 for -inf, the largest for NaN.
TERN_INLINE std::uint32_t order_of(float x) {
  if (x != x) return 0xffffffffu;
  auto const bits = std::bit_cast<std::uint32_t>(x + 0.f);  // one zero
  std::uint32_t const order = (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
  return order - 0x007fffffu;  // that of -inf
}

/// The order of the k-th largest score, digit by digit of 8 bits, and how many of that order belong to the k largest.
struct kth_score {
  std::uint32_t order = 0;
  index equal;

  TERN_INLINE kth_score(tensor_view<float const, 1> const& scores, index k)
      : kth_score(scores, k, [](index) TERN_LAMBDA { return index{1}; }) {}
  /// Where score i stands for times(i) equal ones, of which there are at least k together.
  template <class Times>
  TERN_INLINE kth_score(tensor_view<float const, 1> const& scores, index k, Times const& times) : equal(k) {
    for (int shift = 24; shift >= 0; shift -= 8) {
      index histogram[256] = {};
      std::uint32_t const above = shift == 24 ? 0 : ~std::uint32_t{0} << (shift + 8);
      for (index i = 0; i < scores.extent(0); ++i) {
        std::uint32_t const x = order_of(scores[i]);
        if ((x & above) == order) histogram[(x >> shift) & 255u] += times(i);
      }
      std::uint32_t digit = 255;
      for (; digit > 0 && histogram[digit] < equal; --digit) equal -= histogram[digit];
      order |= digit << shift;
    }
  }
};

}  // namespace detail

/// The indices of the k largest scores, ascending; returns how many there are. See the top of this file.
TERN_INLINE index select_top(tensor_view<float const, 1> const& scores, index k, tensor_view<std::int32_t, 1> const& to) {
  index const n = scores.extent(0);
  k = k < n ? k : n;
  k = k < to.extent(0) ? k : to.extent(0);
  if (k <= 0) return 0;
  detail::kth_score const last(scores, k);
  index equal = last.equal, count = 0;
  for (index i = 0; i < n; ++i) {
    std::uint32_t const x = detail::order_of(scores[i]);
    if (x == 0 || x < last.order || (x == last.order && equal-- <= 0)) continue;
    to[count++] = static_cast<std::int32_t>(i);
  }
  return count;
}

/// The indices of the scores above `threshold`, ascending; returns how many there are. See the top of this file.
TERN_INLINE index select_above(tensor_view<float const, 1> const& scores, float threshold, tensor_view<std::int32_t, 1> const& to) {
  index count = 0;
  for (index i = 0; i < scores.extent(0) && count < to.extent(0); ++i)
    if (scores[i] > threshold || scores[i] != scores[i]) to[count++] = static_cast<std::int32_t>(i);
  return count;
}

}  // namespace tern

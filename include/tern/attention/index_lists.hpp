// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/index_lists.hpp
/// Lists of indices in memory of the caller's. What fills them: select_top and select_above (pointwise/select_top.hpp).
///
///     index_lists lists{ids, counts};        ids (rows, most), counts (rows): row r holds counts[r] indices, ascending

#include <tern/pointwise/select_top.hpp>

namespace tern {

namespace detail {
/// Fails unless `count` indices ascend and are below `limit`.
TERN_INLINE void expect_ascending(char const* op, char const* argument, std::int32_t const* ids, index count, index limit) {
  for (index i = 0; i < count; ++i) {
    std::int32_t const before = i > 0 ? ids[i - 1] : -1;
    if (ids[i] > before && ids[i] < limit) continue;
    message m;
    m << op << ": " << argument << " is " << ids[i] << ", expected ";
    if (ids[i] < 0 || ids[i] >= limit) (m << "at least 0 and less than " << limit).fail();
    (m << "more than the one before it, " << before).fail();
  }
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
      detail::expect(count(r) >= 0 && count(r) <= most(), op, "the count of a list", count(r), "0 to what its row holds");
  }
  /// Fails unless there are `wanted` rows of ascending indices below `limit`.
  TERN_INLINE void check(char const* op, index wanted, index limit) const {
    check_shape(op, wanted);
    for (index r = 0; r < wanted; ++r) detail::expect_ascending(op, "an index of a list", row(r), count(r), limit);
  }
};

}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/relative_bias.hpp
/// A learned number for each distance and head is added to the score.
///
///     s_ij + table(h, clip(j - i, -(L - 1), L - 1) + L - 1)          i, j positions as masks count them
///
/// Option  attention(policy, q, k, v, out, relative_bias{table}), table (heads, 2 L - 1), or (1, 2 L - 1) for all heads alike.
/// Source  Shaw et al. 2018 (arXiv:1803.02155) for the clipping; the order of the table is that of the relative position bias of
///         HSTU's public code.

#include <tern/attention/score.hpp>
#include <tern/core/tensor_view.hpp>
#include <tern/simd/gather.hpp>

namespace tern {
inline namespace TERN_ABI {

/// s + table(head, clipped j - i)
struct relative_bias {
  tensor_view<float const, 2> table;  ///< (heads or 1, 2 L - 1)
  template <tensor_like X>
  TERN_INLINE constexpr explicit relative_bias(X&& x) : table(tern::view(x)) {}
  TERN_INLINE floats operator()(floats s, score_at const& at) const {
    ints const far(static_cast<std::int32_t>(table.extent(1) / 2));
    ints const offset = at.key_position() - ints(at.position);
    return s + simd::gather(table.data() + (table.extent(0) > 1 ? at.head * table.stride(0) : 0),
                            simd::min(simd::max(offset, ints(0) - far), far) + far);
  }
  TERN_INLINE void check(attention_shape const& n) const {
    index const rows = table.extent(0);
    detail::expect(rows == n.heads || rows == 1, "attention", "the rows of relative_bias's table", rows, "the heads of q, or 1");
    detail::expect(table.extent(1) % 2 == 1, "attention", "the distances of relative_bias's table", table.extent(1), "an odd number");
    detail::expect(table.extent(1) == 1 || table.stride(1) == 1, "attention", "the last stride of relative_bias's table", table.stride(1),
                   "1 (contiguous rows)");
  }
};

}  // namespace TERN_ABI
}  // namespace tern

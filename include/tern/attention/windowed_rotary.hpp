// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/windowed_rotary.hpp
/// Causal attention whose keys near by stand at their own distance and whose keys farther off at others: two calls of the engine, one
/// over the `length` keys that end at the query's own, one over those before them, and their merge.
///
///     windowed_rotary(policy, q, k, v, out, lse, near, far, length, reach, options...)
///
/// Of the keys before the window only the first `reach` are seen; all of them where reach is at least their number.
///
///     clamped     far = clamped_rows(table, length): the query turned by `length`, keys as they are; every key beyond the window
///                 stands at distance `length` (ReRoPE, Su 2023; the sink keys of LM-Infinite)
///     grouped     far = grouped_rows(table, length, group): positions i / group + length - length / group and j / group
///                 (Self-Extend, Jin et al. 2024, arXiv:2401.01325)
///
/// Shapes  as attention's, k and v of any source; k is not rotated yet; lse (heads, tokens) or (batch, heads, tokens). Queries are
///         aligned bottom-right.
/// Memory  from the policy: two results of the shape of out, f32, and what the two calls take.
/// Cost    that of one causal call; each key is rotated by both.

#include <tern/attention/partials.hpp>
#include <tern/attention/rotary.hpp>

namespace tern {
namespace detail {

/// The first `reach` keys, but for those of a window that ends at the query's own.
struct before_window {
  index length, reach;
  index offset = bottom_right;
  TERN_INLINE constexpr band aligned(index keys, index at) const { return {-band::far, at - length + 1, reach < keys ? reach : keys}; }
};

}  // namespace detail

inline namespace TERN_ABI {

/// Queries stand at `distance`, keys at 0.
TERN_INLINE rotary clamped_rows(tensor_view<float const, 2> const& table, index distance,
                                rope_pairing pairing = rope_pairing::interleaved) {
  return {rotary_rows{table, 1, 1, distance}, rotary_rows{table, 1, 1, 0}, pairing};
}
/// Positions in groups; queries are shifted so that the last keys of the window and the first beyond it follow each other.
TERN_INLINE rotary grouped_rows(tensor_view<float const, 2> const& table, index length, index group,
                                rope_pairing pairing = rope_pairing::interleaved) {
  return {rotary_rows{table, rotary_rows::far, group, length - length / group}, rotary_rows{table, rotary_rows::far, group}, pairing};
}

/// See the top of this file.
inline constexpr struct windowed_rotary_fn {
  template <tensor_like Q, detail::key_source K, detail::key_source V, tensor_like O, tensor_like L, class... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, L&& lse, rotary const& near, rotary const& far, index length,
                  index reach, Options const&... options) const {
    detail::expect(length >= 1, "windowed_rotary", "the length of the window", length, "at least 1");
    constexpr int rank = view_of<O>::rank;
    auto const to = tern::view(out);
    detail::partial_results<rank> const parts(policy, 2, to);
    attention(policy, q, k, v, parts.out(0), parts.lse(0), window{length}, near, options...);
    // A mask of its own, not causal{offset - length}: queries stay where they stand.
    attention(policy, q, k, v, parts.out(1), parts.lse(1), detail::before_window{length, reach}, far, options...);
    parts.merge_into(policy, to, tern::view(lse));
  }
} windowed_rotary{};

}  // namespace TERN_ABI
}  // namespace tern

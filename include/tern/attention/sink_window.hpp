// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/sink_window.hpp
/// The first keys of a text and the last ones before the query: a mask in the shape of a lambda.
///
///     sink_window{sinks, length}      j < sinks, or p - length < j, and j <= p         with p = i + offset, the query's position
///
/// Alignment as in mask.hpp: bottom-right unless an offset is stated. The length counts the query's own key.
/// Limits    length >= keys is causal; sinks = 0 is window{length}.
/// Cost      tiles between the sinks and the window are not computed.
/// Source    Xiao et al. 2024, StreamingLLM (arXiv:2309.17453); Han et al. 2024, LM-Infinite (arXiv:2308.16137), whose clamped
///           distances are a matter of positions, not of the mask; the A-shape of MInference (arXiv:2407.02490).

#include <tern/attention/mask.hpp>
#include <tern/attention/score.hpp>

namespace tern {
namespace detail {

/// Two bands of which the first ends, and the second begins, at key `sinks`.
struct bound_sink_window {
  index sinks;
  band all, near;  // up to the query; the window
  TERN_INLINE constexpr key_range range(index i0, index i1) const {
    key_range const behind = all.range(i0, i1);
    return sinks > 0 ? behind : key_range{near.row(i0).begin, behind.end};
  }
  TERN_INLINE constexpr coverage covers(index i0, index i1, index j0, index j1) const {
    if (j1 <= sinks) return all.covers(i0, i1, j0, j1);
    if (j0 >= sinks) return near.covers(i0, i1, j0, j1);
    coverage const a = all.covers(i0, i1, j0, sinks), b = near.covers(i0, i1, sinks, j1);
    return a == b ? a : coverage::some;
  }
  TERN_INLINE constexpr bool visible(index i, index j) const { return j < sinks ? all.visible(i, j) : near.visible(i, j); }
};

}  // namespace detail

/// The first `sinks` keys and the `length` that end at the query's own.
struct sink_window {
  index sinks;
  index length;
  index offset = bottom_right;
  TERN_INLINE constexpr detail::bound_sink_window aligned(index keys, index at) const {
    return {sinks, detail::bind_mask(causal{}, keys, at), detail::bind_mask(window{length}, keys, at)};
  }
  TERN_INLINE void check(attention_shape const&) const {
    detail::expect(sinks >= 0, "attention", "the sinks of sink_window", sinks, "at least 0");
    detail::expect(length >= 0, "attention", "the length of sink_window", length, "at least 0");
  }
};

}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/smooth_scores.hpp
/// Scores of neighbouring tokens together: what is needed of a text is seldom one token.
///
///     average_neighbors(scores, width, to)    to_j = 1 / width sum of the scores of tokens j - width / 2 ... j + width / 2; what lies
///                                             outside counts as 0
///     largest_neighbor(scores, width, to)     to_j = the largest of them
///
/// Shapes    scores, to (kv_heads, keys) f32, to not scores. width is odd. Cost: width keys flop a head.
/// Source    SnapKV (arXiv:2404.14469) averages (its code), or takes the largest.

#include <tern/core/error.hpp>
#include <tern/core/tensor_view.hpp>

namespace tern {

namespace detail {
TERN_INLINE void check_smooth(char const* op, tensor_view<float const, 2> const& scores, index width, tensor_view<float, 2> const& to) {
  expect(width >= 1, op, "width", width, "at least 1");
  for (int d = 0; d < 2; ++d) expect_equal(op, "an extent of to", to.extent(d), "that of scores", scores.extent(d));
}
/// Calls f(first, end) of the neighbors of each j.
template <class F>
TERN_INLINE void each_neighborhood(index keys, index width, F&& f) {
  index const half = width / 2;
  for (index j = 0; j < keys; ++j) f(j, j - half > 0 ? j - half : 0, j + half < keys ? j + half + 1 : keys);
}
}  // namespace detail

/// The mean over `width` neighbors: see the top of this file.
TERN_INLINE void average_neighbors(tensor_view<float const, 2> const& scores, index width, tensor_view<float, 2> const& to) {
  detail::check_smooth("average_neighbors", scores, width, to);
  detail::expect(width % 2 == 1, "average_neighbors", "width", width, "an odd number");
  for (index h = 0; h < scores.extent(0); ++h)
    detail::each_neighborhood(scores.extent(1), width, [&](index j, index first, index end) TERN_LAMBDA {
      float sum = 0;
      for (index i = first; i < end; ++i) sum += scores(h, i);
      to(h, j) = sum / static_cast<float>(width);
    });
}
/// The largest of `width` neighbors: see the top of this file.
TERN_INLINE void largest_neighbor(tensor_view<float const, 2> const& scores, index width, tensor_view<float, 2> const& to) {
  detail::check_smooth("largest_neighbor", scores, width, to);
  detail::expect(width % 2 == 1, "largest_neighbor", "width", width, "an odd number");
  for (index h = 0; h < scores.extent(0); ++h)
    detail::each_neighborhood(scores.extent(1), width, [&](index j, index first, index end) TERN_LAMBDA {
      float most = scores(h, first);
      for (index i = first + 1; i < end; ++i) most = scores(h, i) > most || scores(h, i) != scores(h, i) ? scores(h, i) : most;
      to(h, j) = most;
    });
}

}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/select_windows.hpp
/// The tokens with the largest scores of each window of an image, or of each stretch of a sequence.
///
///     select_tokens_in_windows(policy, scores, {h, w}, {7, 7}, 24, kept)     24 of each window of 7 x 7 (ToC3D)
///     select_tokens_in_windows(policy, scores, {1, n}, {1, 16}, 4, kept)     4 of each 16 tokens that follow each other
///
/// Shapes    scores (samples, h w) f32, row by row; kept index_lists with a row for each sample and room for `count` tokens of each window.
/// Windows   start at multiples of their extents; those at the far edges may be smaller, and have at most as many tokens as they are.
/// Result    the chosen tokens of all windows together, ascending. Ties go to the token that comes first in its window, row by row; a
///           score of -inf is never selected.
/// Memory    from the policy: 4 bytes a token of all samples, and 2 numbers a token of a window for each thread.
/// Cost      that of select_top for each window, and two passes over the tokens.

#include <tern/core/rounding.hpp>
#include <tern/tokens/select_tokens.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// Marks the `count` largest of a window that starts at (y, x); window: memory for its scores and then its choice.
inline void mark_window(tensor_view<float const, 1> const& scores, shape<2> const& grid, shape<2> const& extent, index y, index x,
                        index count, float* window, std::int32_t* marks) noexcept {
  index const width = grid.extents[1];
  index const h = least(extent.extents[0], grid.extents[0] - y), w = least(extent.extents[1], width - x);
  for (index i = 0; i < h; ++i)
    for (index j = 0; j < w; ++j) window[i * w + j] = scores[(y + i) * width + x + j];
  auto* const chosen = reinterpret_cast<std::int32_t*>(window + extent.extents[0] * extent.extents[1]);
  index const some = select_top(tern::view(static_cast<float const*>(window), h * w), count, tern::view(chosen, h * w));
  for (index i = 0; i < some; ++i) marks[(y + chosen[i] / w) * width + x + chosen[i] % w] = 1;
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// The `count` tokens of each window with the largest scores: see the top of this file.
inline constexpr struct select_tokens_in_windows_fn {
  void operator()(cpu_policy const& policy, tensor_view<float const, 2> const& scores, shape<2> const& grid, shape<2> const& window,
                  index count, index_lists const& kept) const {
    constexpr char const* op = "select_tokens_in_windows";
    index const samples = scores.extent(0), n = scores.extent(1), height = grid.extents[0], width = grid.extents[1];
    detail::check_room(op, samples, kept);
    detail::expect_equal(op, "scores.extent(1)", n, "the tokens of the grid", height * width);
    detail::expect(count >= 0, op, "count", count, "at least 0");
    for (index e : window.extents) detail::expect(e >= 1, op, "an extent of the window", e, "at least 1");
    shape<2> const extent = within(window, grid);
    index const rows = detail::divide_up(height, window.extents[0]), columns = detail::divide_up(width, window.extents[1]);
    detail::expect(n == 0 || kept.most() >= detail::least(n, rows * columns * detail::least(count, extent.extents[0] * extent.extents[1])),
                   op, "the room of kept", kept.most(), "count for each window");
    std::size_t const all = bytes_of_marks(scores), each = bytes_of_window(extent);
    workspace::lease const memory(policy.scratch(), workspace_size(policy, scores, grid, window, count, kept));
    auto* const marks = reinterpret_cast<std::int32_t*>(memory.data());  // (samples, n)
    detail::parallel_for(policy, samples, [&](index b, index slot) TERN_LAMBDA {
      std::int32_t* const mark = marks + b * n;
      auto* const own = reinterpret_cast<float*>(memory.data() + all + static_cast<std::size_t>(slot) * each);
      for (index i = 0; i < n; ++i) mark[i] = 0;
      for (index y = 0; y < height; y += extent.extents[0])
        for (index x = 0; x < width; x += extent.extents[1]) detail::mark_window(scores[b], grid, extent, y, x, count, own, mark);
      index some = 0;
      for (index i = 0; i < n; ++i)
        if (mark[i] != 0) kept.row(b)[some++] = static_cast<std::int32_t>(i);
      kept.counts[b] = static_cast<std::int32_t>(some);
    });
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  std::size_t workspace_size(cpu_policy const& policy, tensor_view<float const, 2> const& scores, shape<2> const& grid,
                             shape<2> const& window, index, index_lists const&) const {
    return bytes_of_marks(scores) +
           static_cast<std::size_t>(detail::slots_for(policy, scores.extent(0))) * bytes_of_window(within(window, grid));
  }

 private:
  TERN_INLINE static shape<2> within(shape<2> const& window, shape<2> const& grid) {
    return {{detail::least(window.extents[0], grid.extents[0]), detail::least(window.extents[1], grid.extents[1])}};
  }
  TERN_INLINE static std::size_t bytes_of_marks(tensor_view<float const, 2> const& scores) {
    return workspace::rounded(static_cast<std::size_t>(scores.size()) * sizeof(std::int32_t));
  }
  /// The scores of a window, and what is chosen of them.
  TERN_INLINE static std::size_t bytes_of_window(shape<2> const& extent) {
    return workspace::rounded(static_cast<std::size_t>(2 * extent.extents[0] * extent.extents[1]) * sizeof(float));
  }
} select_tokens_in_windows{};

}  // namespace TERN_ABI
}  // namespace tern

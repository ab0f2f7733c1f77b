// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/window_partition.hpp
/// Windows of a text, an image or a volume: tokens of the same window see each other.
///
///     window_partition{shape{height, width}, shape{8, 8}}                  windows from the corner on
///     window_partition{shape{height, width}, shape{8, 8}, shape{4, 4}}     and shifted: windows start at shift + i * window
///
/// Swin (arXiv:2103.14030) rolls the image by -shift, cuts it, and hides from each other what a window joins from opposite ends of
/// the image. Here those pieces are groups of their own, which is that mask with less work. Where the windows do not divide the
/// image, those at its far ends are cut; Swin pads there instead, and lets tokens see the padding.
///
/// Shapes  q and k hold the tokens of `image`, row-major. Masks and distances count tokens.
/// Errors  a shift outside [0, window), a window below 1, and an image that q and k do not have.

#include <tern/attention/box.hpp>

namespace tern {
inline namespace TERN_ABI {

/// A layout: see the top of this file.
template <int N>
struct window_partition {
  static constexpr bool per_head = false;
  shape<N> image, window;
  shape<N> shift = {};

  TERN_INLINE constexpr index groups(index, index) const {
    index all = 1;
    for (int a = 0; a < N; ++a) all *= pieces(a);
    return all;
  }
  TERN_INLINE constexpr detail::box_group<N> group(index, index, index g) const {
    shape<N> begin{}, end{};
    detail::digits which{g};
    for (int a = N - 1; a >= 0; --a) {
      // With a shift, piece 0 is what lies before the first whole window.
      index const n = image.extents[a], w = window.extents[a], s = shift.extents[a];
      index const to = s + (which.next(pieces(a)) + (s > 0 ? 0 : 1)) * w;
      begin.extents[a] = detail::larger(to - w, 0);
      end.extents[a] = detail::smaller(to, n);
    }
    auto const box = detail::box_of(image, begin, end);
    return {box, box};
  }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_image("the image of window_partition", image, n);
    detail::expect_at_least("a window of window_partition", window, 1);
    for (int a = 0; a < N; ++a)
      detail::expect(shift.extents[a] >= 0 && shift.extents[a] < window.extents[a], "attention", "a shift of window_partition",
                     shift.extents[a], "at least 0 and less than the window");
  }

 private:
  TERN_INLINE constexpr index pieces(int a) const {
    index const n = image.extents[a], s = shift.extents[a], w = window.extents[a];
    if (n == 0) return 0;
    return (s > 0 ? 1 : 0) + (n > s ? (n - s + w - 1) / w : 0);
  }
};
template <int N>
window_partition(shape<N>, shape<N>) -> window_partition<N>;
template <int N>
window_partition(shape<N>, shape<N>, shape<N>) -> window_partition<N>;

}  // namespace TERN_ABI
}  // namespace tern

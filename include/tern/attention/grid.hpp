// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/grid.hpp
/// A dilated grid over a text, an image or a volume: `size` tokens of each axis, spread over all of it, see each other.
///
///     grid{shape{height, width}, shape{7, 7}}
///
/// Tokens x and y share a group if x_a = y_a modulo step_a along every axis a, with step_a = ceil(image_a / size_a): the grid
/// attention of MaxViT (Tu et al. 2022, arXiv:2204.01697), which asks for sizes that divide the image; where they do not, some groups
/// have fewer tokens.
///
/// Shapes  q and k hold the tokens of `image`, row-major. Masks and distances count tokens.
/// Errors  a size below 1, and an image that q and k do not have.

#include <tern/attention/box.hpp>

namespace tern {
inline namespace TERN_ABI {

/// A layout: see the top of this file.
template <int N>
struct grid {
  static constexpr bool per_head = false;
  shape<N> image, size;

  /// How far neighbors of a group stand apart.
  TERN_INLINE constexpr shape<N> steps() const {
    shape<N> all{};
    for (int a = 0; a < N; ++a) all.extents[a] = (image.extents[a] + size.extents[a] - 1) / size.extents[a];
    return all;
  }
  TERN_INLINE constexpr index groups(index, index) const { return detail::tokens_of(steps()); }
  TERN_INLINE constexpr detail::box_group<N> group(index, index, index g) const {
    shape<N> const step = steps();
    shape<N> begin{};
    detail::digits which{g};
    for (int a = N - 1; a >= 0; --a) begin.extents[a] = which.next(step.extents[a]);
    auto const box = detail::box_of(image, begin, image, step);
    return {box, box};
  }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_at_least("a size of grid", size, 1);
    detail::expect_image("the image of grid", image, n);
  }
};
template <int N>
grid(shape<N>, shape<N>) -> grid<N>;

}  // namespace TERN_ABI
}  // namespace tern

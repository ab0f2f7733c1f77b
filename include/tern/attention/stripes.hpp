// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/stripes.hpp
/// Stripes across an image: for some heads `width` whole columns see each other, for the others `width` whole rows.
///
///     stripes{shape{height, width}, stripe_width, heads / 2}
///
/// Heads below `vertical_heads` have vertical stripes (height x stripe_width), those from it on horizontal ones. The last stripe of an
/// image that the width does not divide is narrower.
///
/// Shapes  q and k hold the tokens of `image`, row-major. Masks and distances count tokens.
/// Errors  a width below 1, and an image that q and k do not have.

#include <tern/attention/box.hpp>

namespace tern {
inline namespace TERN_ABI {

/// A layout: see the top of this file.
struct stripes {
  static constexpr bool per_head = true;
  shape<2> image;
  index width;
  index vertical_heads;

  TERN_INLINE constexpr index groups(index, index head) const { return (image.extents[axis(head)] + width - 1) / width; }
  TERN_INLINE constexpr detail::box_group<2> group(index, index head, index g) const {
    shape<2> begin{}, end = image;
    int const a = axis(head);
    begin.extents[a] = g * width;
    end.extents[a] = detail::smaller((g + 1) * width, image.extents[a]);
    auto const box = detail::box_of(image, begin, end);
    return {box, box};
  }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_image("the image of stripes", image, n);
    detail::expect(width >= 1, "attention", "the width of stripes", width, "at least 1");
  }

 private:
  TERN_INLINE constexpr int axis(index head) const { return head < vertical_heads ? 1 : 0; }
};

}  // namespace TERN_ABI
}  // namespace tern

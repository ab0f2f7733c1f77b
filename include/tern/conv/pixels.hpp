// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/pixels.hpp
/// An image with its channels last as the matrix (pixels, channels) that products take; and images of the same extents.

#include <tern/core/tensor_view.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// x (batch, height, width, channels) as (batch height width, channels); fails where pixels are not equally far apart.
template <class T>
TERN_INLINE tensor_view<T, 2> pixels_of(char const* op, char const* argument, tensor_view<T, 4> const& x) {
  index const pixel = x.stride(2), row = pixel * x.extent(2), image = row * x.extent(1);
  for (int d = 1; d >= 0; --d)
    if (index const wanted = d == 1 ? row : image; x.extent(d) > 1 && x.stride(d) != wanted) [[unlikely]]
      (message() << op << ": " << argument << ".stride(" << d << ") is " << x.stride(d) << ", expected " << wanted << " (no gaps)").fail();
  return {x.data(), shape<2>{{x.extent(0) * x.extent(1) * x.extent(2), x.extent(3)}}, shape<2>{{pixel, x.stride(3)}}};
}

/// `memory` as an image of x's extents without gaps.
TERN_INLINE tensor_view<float, 4> image_like(float* memory, tensor_view<float const, 4> const& x) {
  return {memory, shape<4>{{x.extent(0), x.extent(1), x.extent(2), x.extent(3)}}};
}

}  // namespace TERN_ABI
}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/pixels.hpp
/// An image with its channels last as the matrix (pixels, channels) that products take.

#include <tern/core/tensor_view.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// x (batch, height, width, channels) as (batch height width, channels); fails where pixels are not equally far apart.
template <class T>
TERN_INLINE tensor_view<T, 2> pixels_of(char const* op, char const* argument, tensor_view<T, 4> const& x) {
  index const pixel = x.stride(2), row = pixel * x.extent(2), image = row * x.extent(1);
  bool const even = (x.extent(1) <= 1 || x.stride(1) == row) && (x.extent(0) <= 1 || x.stride(0) == image);
  if (!even) [[unlikely]]
    (message() << op << ": " << argument << ".stride(1) is " << x.stride(1) << ", expected rows and images without gaps: " << row).fail();
  return {x.data(), shape<2>{{x.extent(0) * x.extent(1) * x.extent(2), x.extent(3)}}, shape<2>{{pixel, x.stride(3)}}};
}

}  // namespace TERN_ABI
}  // namespace tern::detail

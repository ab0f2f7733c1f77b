// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/systems/convnext.hpp
/// The front of a ConvNeXt block: a depthwise convolution, then layer normalization of each pixel.
///
///     y = (z - mean z) / sqrt(var z + eps) * gain + shift,    z = w * x + b
///
///     convnext(policy, x, w, b, gain, shift, y)
///
/// Shapes  x, y (batch, height, width, C), w (7, 7, C), b, gain, shift (C); other odd kernels fit as well. f32, channels contiguous. What
///         follows in a block is matmul(..., bias{b1}, act::gelu{}), and matmul(..., bias{b2}) scaled by gamma, plus x.
/// Source  Liu et al. 2022, arXiv:2201.03545; github.com/facebookresearch/ConvNeXt, models/convnext.py (eps = 1e-6).

#include <tern/conv/depthwise_conv.hpp>
#include <tern/pointwise/layer_norm.hpp>

namespace tern {
inline namespace TERN_ABI {

/// convnext(policy, x, w, b, gain, shift, y, eps = 1e-6f): see the top of this file.
inline constexpr struct convnext_fn {
  void operator()(cpu_policy const& policy, tensor_view<float const, 4> const& x, tensor_view<float const, 3> const& w,
                  tensor_view<float const, 1> const& b, tensor_view<float const, 1> const& gain, tensor_view<float const, 1> const& shift,
                  tensor_view<float, 4> const& y, float eps = 1e-6f) const {
    depthwise_conv(policy, x, w, y, same_padding{}, detail::bias_if_any{b});
    layer_norm(policy, y, gain, shift, y, eps);
  }
} convnext{};

}  // namespace TERN_ABI
}  // namespace tern

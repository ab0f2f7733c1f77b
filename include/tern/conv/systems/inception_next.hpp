// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/systems/inception_next.hpp
/// InceptionNeXt's depthwise convolution: most channels stay as they are, the last ones see a small square, a wide band and a tall one.
///
///     y = [x_id, square * x_hw, wide * x_w, tall * x_h],    x = [x_id, x_hw, x_w, x_h] by channels: C - 3 g, g, g, g
///
///     inception_next(policy, x, square, wide, tall, y)
///     inception_next(policy, x, square, wide, tall, y, b)        b (3 g): the biases of square, wide and tall
///
/// Shapes  x, y (batch, height, width, C), square (3, 3, g), wide (11, g), tall (11, g); any odd sizes. f32, channels contiguous. The
///         model has g = C / 8, and norm, MLP and residual behind it.
/// Cost    2 g (9 + 11 + 11) flop a pixel, where a 7 x 7 kernel on all channels takes 98 C.
/// Source  Yu et al. 2024, arXiv:2303.16900; github.com/sail-sg/inceptionnext, models/inceptionnext.py.

#include <tern/conv/depthwise_conv.hpp>
#include <tern/pointwise/convert.hpp>

namespace tern {
inline namespace TERN_ABI {

/// inception_next(policy, x, square, wide, tall, y, bias): see the top of this file.
inline constexpr struct inception_next_fn {
  void operator()(cpu_policy const& policy, tensor_view<float const, 4> const& x, tensor_view<float const, 3> const& square,
                  tensor_view<float const, 2> const& wide, tensor_view<float const, 2> const& tall, tensor_view<float, 4> const& y,
                  tensor_view<float const, 1> const& bias = {}) const {
    index const channels = x.extent(3), g = square.extent(2), same = channels - 3 * g;
    detail::expect(same >= 0, "inception_next", "square.extent(2)", g, "at most a third of the channels");
    detail::expect_equal("inception_next", "wide.extent(1)", wide.extent(1), "square.extent(2)", g);
    detail::expect_equal("inception_next", "tall.extent(1)", tall.extent(1), "square.extent(2)", g);
    detail::expect_equal("inception_next", "y.extent(3)", y.extent(3), "x.extent(3)", channels);
    if (bias.data() != nullptr) detail::expect_equal("inception_next", "bias.extent(0)", bias.extent(0), "3 g", 3 * g);
    tensor_view<float const, 3> const column(tall.data(), shape<3>{{tall.extent(0), 1, g}}, shape<3>{{tall.stride(0), 0, tall.stride(1)}});
    tensor_view<float const, 3> const kernels[] = {square, wide.expanded(), column};
    convert(policy, x.slice(3, 0, same), y.slice(3, 0, same));
    for (index branch = 0; branch < 3; ++branch) {
      index const from = same + branch * g;
      auto const b = bias.data() != nullptr ? bias.slice(0, branch * g, branch * g + g) : bias;
      depthwise_conv(policy, x.slice(3, from, from + g), kernels[branch], y.slice(3, from, from + g), same_padding{},
                     detail::bias_if_any{b});
    }
  }
} inception_next{};

}  // namespace TERN_ABI
}  // namespace tern

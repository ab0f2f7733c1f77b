// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/oracle/conv.hpp
/// float64 references for conv/. Tensors are dense with the channels before space: x (batch, channels, depth, height, width).

#include "oracle/pointwise.hpp"

namespace tern::oracle {

/// Depth, height and width; what a dimension does not have is 1, and 0 for `before`.
struct conv_spec {
  std::ptrdiff_t batch = 1, channels = 1;
  std::ptrdiff_t in[3] = {1, 1, 1}, out[3] = {1, 1, 1}, kernel[3] = {1, 1, 1}, stride[3] = {1, 1, 1}, dilation[3] = {1, 1, 1};
  std::ptrdiff_t before[3] = {0, 0, 0};
  bool per_sample = false;  // w (batch, channels, ...)
};
/// w (channels, depth, height, width), bias (channels) or empty. Magnitude: |bias| + the sum of |w x|.
expected depthwise_conv(vector const& x, vector const& w, vector const& bias, conv_spec const& spec);

}  // namespace tern::oracle

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/dispatch/families.hpp
/// One function of each family of kernels, as a program would dispatch it.

#include <tern/core/tensor_view.hpp>
#include <tern/formats/block_matrix.hpp>

struct families {
  /// Causal attention with its log-sum-exp.
  void (*attend)(tern::tensor_view<float const, 3> q, tern::tensor_view<float const, 3> k, tern::tensor_view<float const, 3> v,
                 tern::tensor_view<float, 3> out, tern::tensor_view<float, 2> lse);
  void (*rms_norm)(tern::tensor_view<float const, 2> x, tern::tensor_view<float const, 1> weight, tern::tensor_view<float, 2> y);
  void (*swiglu)(tern::tensor_view<float const, 2> gate, tern::tensor_view<float const, 2> up, tern::tensor_view<float, 2> y);
  void (*softmax)(tern::tensor_view<float const, 2> x, tern::tensor_view<float, 2> y);
  /// With f32 products, or those of bytes.
  void (*matmul)(tern::tensor_view<float const, 2> x, tern::block_matrix const& w, tern::tensor_view<float, 2> y, bool int8);
  /// x, y (batch, height, width, channels), w (kh, kw, channels), with as many outputs as inputs.
  void (*depthwise_conv)(tern::tensor_view<float const, 4> x, tern::tensor_view<float const, 3> w, tern::tensor_view<float, 4> y);
  void (*long_conv)(tern::tensor_view<float const, 2> u, tern::tensor_view<float const, 2> k, tern::tensor_view<float, 2> y);
  /// Complex numbers are (..., 2).
  void (*fft)(tern::tensor_view<float const, 3> x, tern::tensor_view<float, 3> y);
  void (*real_fft)(tern::tensor_view<float const, 2> x, tern::tensor_view<float, 3> y);
};

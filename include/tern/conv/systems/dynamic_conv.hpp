// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/systems/dynamic_conv.hpp
/// Dynamic convolution, depthwise: each sample's kernel is a mixture of a few shared ones.
///
///     y_b = (sum over i of mix(b, i) w_i) * x_b
///
///     dynamic_conv(policy, x, kernels, mix, y, options...)      depthwise_conv's options but channels_first
///
/// Shapes  x, y (batch, height, width, C), kernels (n, kh, kw, C) without gaps, mix (batch, n): f32. Kernels of each sample's own need no
///         mixture: depthwise_conv takes w (batch, kh, kw, C).
/// Memory  scratch from the policy: the samples' kernels.
/// Source  Chen et al. 2020, "Dynamic Convolution: Attention over Convolution Kernels", arXiv:1912.03458 (mix: a softmax of what two
///         layers make of the pooled x). The paper mixes a bias of each kernel too: such a bias is a residual here.

#include <tern/conv/depthwise_conv.hpp>
#include <tern/matmul/matmul.hpp>

namespace tern {
inline namespace TERN_ABI {

/// dynamic_conv(policy, x, kernels, mix, y, options...): see the top of this file.
inline constexpr struct dynamic_conv_fn {
  template <detail::depthwise_option<2>... Options>
  void operator()(cpu_policy const& policy, tensor_view<float const, 4> const& x, tensor_view<float const, 4> const& kernels,
                  tensor_view<float const, 2> const& mix, tensor_view<float, 4> const& y, Options const&... options) const {
    detail::expect_extent("dynamic_conv", "mix", mix, 0, "x", x, 0);
    detail::expect_extent("dynamic_conv", "mix", mix, 1, "kernels", kernels, 0);
    if (!kernels.is_contiguous()) detail::fail("dynamic_conv: kernels have gaps, expected row-major order without any");
    workspace::lease const memory(policy.scratch(), mixed_bytes(x, kernels));
    auto* const mixed = reinterpret_cast<float*>(memory.data());
    matmul(policy, elements(kernels), mix, columns(kernels, mixed, x.extent(0)));
    depthwise_conv(policy, x, tern::view(mixed, x.extent(0), kernels.extent(1), kernels.extent(2), kernels.extent(3)), y, options...);
  }

  /// For tern::workspace_size: bytes of scratch of the same call.
  template <detail::depthwise_option<2>... Options>
  std::size_t workspace_size(cpu_policy const& policy, tensor_view<float const, 4> const& x, tensor_view<float const, 4> const& kernels,
                             tensor_view<float const, 2> const& mix, tensor_view<float, 4> const& y, Options const&... options) const {
    float* const mixed = nullptr;
    auto const own = tern::view(mixed, x.extent(0), kernels.extent(1), kernels.extent(2), kernels.extent(3));
    std::size_t const product = matmul.workspace_size(policy, elements(kernels), mix, columns(kernels, mixed, x.extent(0)));
    std::size_t const convolution = depthwise_conv.workspace_size(policy, x, own, y, options...);
    return workspace::rounded(mixed_bytes(x, kernels)) + (product > convolution ? product : convolution);
  }

 private:
  static std::size_t mixed_bytes(tensor_view<float const, 4> const& x, tensor_view<float const, 4> const& kernels) {
    return static_cast<std::size_t>(x.extent(0) * size_of(kernels)) * sizeof(float);
  }
  static index size_of(tensor_view<float const, 4> const& kernels) {
    return kernels.extent(0) > 0 ? kernels.size() / kernels.extent(0) : 0;
  }
  /// The product's rows are the kernels' elements: any strides serve there.
  static tensor_view<float const, 2> elements(tensor_view<float const, 4> const& kernels) {
    index const size = size_of(kernels);
    return {kernels.data(), shape<2>{{size, kernels.extent(0)}}, shape<2>{{1, size}}};
  }
  static tensor_view<float, 2> columns(tensor_view<float const, 4> const& kernels, float* mixed, index batch) {
    index const size = size_of(kernels);
    return {mixed, shape<2>{{size, batch}}, shape<2>{{1, size}}};
  }
} dynamic_conv{};

}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/systems/van.hpp
/// Large kernel attention of the Visual Attention Network: a 21 x 21 depthwise convolution and a product over channels, of which the
/// first is a 5 x 5 one and a 7 x 7 one with dilation 3, gate the input.
///
///     y = x . (W1 (dilated * (near * x + b0) + b1) + b2)                . by element
///
///     van(policy, x, {near, b0}, {dilated, b1}, {w1, b2}, y)
///
/// Shapes  x, y (batch, height, width, C), near (5, 5, C), dilated (7, 7, C), w1 (C, C), biases (C); other odd kernels fit as well. f32,
///         channels contiguous, no gaps between pixels; y is not x.
/// Memory  scratch from the policy: two tensors like x.
/// Source  Guo et al. 2022, arXiv:2202.09741; github.com/Visual-Attention-Network/VAN-Classification, models/van.py (LKA).

#include <tern/conv/depthwise_conv.hpp>
#include <tern/conv/pixels.hpp>
#include <tern/matmul/matmul.hpp>

namespace tern {
inline namespace TERN_ABI {

/// Weights (kernel, kernel, C) or (C, C), and a bias (C).
template <int Rank>
struct van_layer {
  tensor_view<float const, Rank> weights;
  tensor_view<float const, 1> bias;
};

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {
/// An epilogue: y(r, i) *= x(r, i).
struct van_gate {
  tensor_view<float const, 2> x;
  TERN_INLINE void check(index, index) const {}
  void finish(float* y, index row, index n0, index n1) const {
    float const* const g = x.data() + row * x.stride(0) + n0;
    each_pack(0, n1 - n0, [&](index i, auto part) TERN_LAMBDA { store(y + i, load(y + i, part) * load(g + i, part), part); });
  }
};
}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// van(policy, x, near, dilated, mixed, y, dilation = 3): see the top of this file.
inline constexpr struct van_fn {
  void operator()(cpu_policy const& policy, tensor_view<float const, 4> const& x, van_layer<3> const& near, van_layer<3> const& dilated,
                  van_layer<2> const& mixed, tensor_view<float, 4> const& y, index dilation = 3) const {
    detail::expect_like("van", "y", y, "x", x);
    detail::expect_own_memory("van", "y", y, "x", x);
    detail::expect(x.extent(3) <= 1 || x.stride(3) == 1, "van", "x.stride(3)", x.stride(3), "1 (contiguous channels)");
    auto const gates = detail::pixels_of("van", "x", x);    // (pixels, C)
    auto const outputs = detail::pixels_of("van", "y", y);  // (pixels, C)
    auto const size = static_cast<std::size_t>(x.size());
    workspace::lease const memory(policy.scratch(), 2 * size * sizeof(float));
    auto const first = detail::image_like(reinterpret_cast<float*>(memory.data()), x), second = detail::image_like(first.data() + size, x);
    depthwise_conv(policy, x, near.weights, first, same_padding{}, detail::bias_if_any{near.bias});
    depthwise_conv(policy, first, dilated.weights, second, same_padding{}, tern::dilation{dilation}, detail::bias_if_any{dilated.bias});
    matmul(policy, detail::pixels_of("van", "x", second), mixed.weights, outputs, bias{mixed.bias}, detail::van_gate{gates});
  }

  /// For tern::workspace_size: bytes of scratch of the same call.
  std::size_t workspace_size(cpu_policy const& policy, tensor_view<float const, 4> const& x, van_layer<3> const& near,
                             van_layer<3> const& dilated, van_layer<2> const& mixed, tensor_view<float, 4> const& y,
                             index dilation = 3) const {
    auto const between = detail::image_like(nullptr, x);
    std::size_t most = depthwise_conv.workspace_size(policy, x, near.weights, between, same_padding{}, detail::bias_if_any{near.bias});
    std::size_t const others[] = {
        depthwise_conv.workspace_size(policy, between, dilated.weights, between, same_padding{}, tern::dilation{dilation},
                                      detail::bias_if_any{dilated.bias}),
        matmul.workspace_size(policy, detail::pixels_of("van", "x", between), mixed.weights, detail::pixels_of("van", "y", y),
                              bias{mixed.bias}, detail::van_gate{detail::pixels_of("van", "x", x)})};
    for (std::size_t const next : others)
      if (next > most) most = next;
    return workspace::rounded(2 * static_cast<std::size_t>(x.size()) * sizeof(float)) + most;
  }
} van{};

}  // namespace TERN_ABI
}  // namespace tern

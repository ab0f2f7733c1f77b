// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/systems/sit.hpp
/// SiT's token slimming: each of few tokens is a soft mixture of all, with weights that a small network gives.
///
///     sit(policy, x, weights, y)
///
///     h_i = gelu(W1 LayerNorm(x_i) + b1),   A_ij = softmax over i of scale (W2 h_i)_j,   y_j = sum_i A_ij x_i
///
/// Shapes    x (samples, tokens, channels) f32, f16 or bf16; weights: gain, shift (channels), w1 (hidden, channels), b1 (hidden), w2 (slim,
///           hidden), f32; y (samples, slim, channels) f32. The second layer's bias is the same for all tokens, and cancels.
/// Composition  layer_norm, a matmul with bias and gelu, and one attention call whose queries are the rows of W2, keys h, values x.
/// Memory    from the policy: channels + hidden numbers a token of one sample, and what these take.
/// Cost      2 tokens hidden (channels + slim) + 2 tokens slim channels flop a sample.
/// Source    Zong et al. 2021, arXiv:2111.12624; models/lvvit.py of its authors (TokenSlimmingModule). Its reverse is for training.

#include <tern/attention/attention.hpp>
#include <tern/core/steps.hpp>
#include <tern/matmul/matmul.hpp>
#include <tern/pointwise/layer_norm.hpp>

namespace tern {

/// What is learned: see the top of this file.
struct sit_weights {
  tensor_view<float const, 1> gain, shift;  // (channels)
  tensor_view<float const, 2> w1;           // (hidden, channels)
  tensor_view<float const, 1> b1;           // (hidden)
  tensor_view<float const, 2> w2;           // (slim, hidden)
  float scale = 1;
  float eps = 1e-5f;
};

inline namespace TERN_ABI {

/// sit(policy, x, weights, y): see the top of this file.
inline constexpr struct sit_fn {
  template <tensor_like X>
  void operator()(cpu_policy const& policy, X&& x, sit_weights const& w, tensor_view<float, 3> const& y) const {
    static_assert(view_of<X>::rank == 3, "tern: sit takes x (samples, tokens, channels)");
    constexpr char const* op = "sit";
    auto const from = tern::view(x);
    detail::expect_extent(op, "w1", w.w1, 1, "x", from, 2);
    detail::expect_extent(op, "w2", w.w2, 1, "w1", w.w1, 0);
    detail::expect_extent(op, "y", y, 0, "x", from, 0);
    detail::run_steps steps(policy);
    slim(steps, from, w, y);
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like X>
  std::size_t workspace_size(cpu_policy const& policy, X&& x, sit_weights const& w, tensor_view<float, 3> const& y) const {
    detail::count_steps steps(policy);
    slim(steps, tern::view(x), w, y);
    return steps.bytes();
  }

 private:
  template <class Steps, class X>
  static void slim(Steps& steps, X const& x, sit_weights const& w, tensor_view<float, 3> const& y) {
    index const tokens = x.extent(1);
    auto const normed = detail::borrow<float>(steps, tokens, x.extent(2)), h = detail::borrow<float>(steps, tokens, w.w1.extent(0));
    for (index b = 0; b < (Steps::runs ? x.extent(0) : 1); ++b) {
      if constexpr (Steps::runs) layer_norm(steps.policy, x[b], w.gain, w.shift, normed.view, w.eps);
      steps(matmul, normed.view, w.w1, h.view, bias{w.b1}, act::gelu{});
      steps(attention, w.w2, h.view, x[b], y[b], tern::scale{w.scale});
    }
  }
} sit{};

}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/dlgsanet.hpp
/// Sparse global self-attention (SparseGSA): channels, not pixels, are what attends, and a ReLU leaves only similarities above zero.
///
///     out = relu(t_h qn kn^T) v,   qn, kn: each row of q and k divided by its length;  c x c for each head, no softmax
///
///     dlgsanet(policy, q, k, v, out, divisors)         divisors = 1 / t_h
///
/// Shapes  q, k, v, out (heads, channels of a head, pixels), or with a batch in front: what a feature map (channels, height, width)
///         is already, as a view. A map that stores the channels of a pixel together has to be transposed first, since the
///         pixels of a channel have to be contiguous here. divisors (heads), f32: the model learns t_h.
/// Notes   the module's convolutions are the caller's, and so are the overlapping tiles of 48 to 96 pixels that the authors' code
///         cuts large images into when it tests: one call for each. The paper's other half, MHDLSA, is a dynamic depthwise convolution.
/// Source  Li et al. 2023, arXiv:2301.02031; github.com/NeonLeexiang/DLGSANet, SparseAttention.

#include <tern/attention/attention.hpp>
#include <tern/attention/cosine.hpp>

namespace tern {
inline namespace TERN_ABI {

/// dlgsanet(policy, q, k, v, out, divisors, options...): see the top of this file.
inline constexpr struct dlgsanet_fn {
  template <tensor_like Q, detail::key_source K, detail::key_source V, tensor_like O, tensor_like T, detail::attention_option... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, T&& divisors, Options const&... options) const {
    attention(policy, q, k, v, out, cosine{divisors}, scale{1}, relu{}, options...);
  }
} dlgsanet{};

}  // namespace TERN_ABI
}  // namespace tern

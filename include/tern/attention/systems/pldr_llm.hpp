// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/pldr_llm.hpp
/// PLDR-LLM's power law graph attention, at inference with its energy-curvature tensor cached.
///
///     out = softmax(q G_h k^T / sqrt(dim)) v
///
///     pldr_llm(policy, q, g, k, v, out, options...)
///
/// G (heads, dim, dim), f32, is what the paper's G-cache keeps; G = I is scaled dot product attention. Rotation comes before G: give
/// q and k rotated, or rotary{...} before it among attention's options with bilinear{g} directly.
/// Shapes, errors, cost: attention/attention.hpp and attention/bilinear.hpp.
/// Source  Gokden 2025 (arXiv:2502.13502) and its public code, cg_align_one of v510G.

#include <tern/attention/attention.hpp>
#include <tern/attention/bilinear.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr struct pldr_llm_fn {
  template <tensor_like Q, tensor_like G, detail::key_source K, detail::key_source V, tensor_like O, class... Options>
  void operator()(cpu_policy const& policy, Q&& q, G&& g, K&& k, V&& v, O&& out, Options const&... options) const {
    attention(policy, q, k, v, out, bilinear{g}, options...);
  }
} pldr_llm{};

}  // namespace TERN_ABI
}  // namespace tern

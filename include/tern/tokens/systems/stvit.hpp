// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/systems/stvit.hpp
/// STViT: few semantic tokens, which start as pooled ones, take the place of an image's; where details matter, they are put back.
///
///     pool_grid(policy, x, {H, W}, s, {h, w})                             where semantic tokens start
///     stvit_refine(policy, q, k_s, k_x, v_s, v_x, out)                       they ask themselves and the image
///     stvit_recover(policy, q_x, k_s, v_s, out_x)                            the image asks them
///
///     out = softmax(q [k_s; k_x]^T / sqrt(dim)) [v_s; v_x];      out_x = softmax(q_x k_s^T / sqrt(dim)) v_s
///
/// Shapes    q, k_s, v_s, out (samples, heads, semantic, dim), k_x, v_x, q_x, out_x (samples, heads, tokens, dim), after the blocks'
///           projections; residuals, norms and MLPs are the blocks' own. The second refinement adds learned global centers to s before its
///           projections. In Swin the samples are windows.
/// Composition  attention with joined keys and values, and attention.
/// Cost      4 heads semantic (semantic + tokens) dim flop, and 4 heads tokens semantic dim.
/// Source    Chang et al. 2023, arXiv:2303.08685; models/swin_transformer.py of its authors' STViT-R.

#include <tern/attention/attention.hpp>

namespace tern {
inline namespace TERN_ABI {

/// stvit_refine(policy, q, k_s, k_x, v_s, v_x, out, options...): see the top of this file.
inline constexpr struct stvit_refine_fn {
  template <tensor_like Q, tensor_like KS, tensor_like KX, tensor_like VS, tensor_like VX, tensor_like O,
            detail::attention_option... Options>
  void operator()(cpu_policy const& policy, Q&& q, KS&& k_s, KX&& k_x, VS&& v_s, VX&& v_x, O&& out, Options const&... options) const {
    attention(policy, q, joined(k_s, k_x), joined(v_s, v_x), out, options...);
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like Q, tensor_like KS, tensor_like KX, tensor_like VS, tensor_like VX, tensor_like O,
            detail::attention_option... Options>
  std::size_t workspace_size(cpu_policy const& policy, Q&& q, KS&& k_s, KX&& k_x, VS&& v_s, VX&& v_x, O&& out,
                             Options const&... options) const {
    return attention.workspace_size(policy, q, joined(k_s, k_x), joined(v_s, v_x), out, options...);
  }
} stvit_refine{};

/// stvit_recover(policy, q_x, k_s, v_s, out_x, options...): see the top of this file.
inline constexpr struct stvit_recover_fn {
  template <tensor_like Q, tensor_like K, tensor_like V, tensor_like O, detail::attention_option... Options>
  void operator()(cpu_policy const& policy, Q&& q_x, K&& k_s, V&& v_s, O&& out_x, Options const&... options) const {
    attention(policy, q_x, k_s, v_s, out_x, options...);
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like Q, tensor_like K, tensor_like V, tensor_like O, detail::attention_option... Options>
  std::size_t workspace_size(cpu_policy const& policy, Q&& q_x, K&& k_s, V&& v_s, O&& out_x, Options const&... options) const {
    return attention.workspace_size(policy, q_x, k_s, v_s, out_x, options...);
  }
} stvit_recover{};

}  // namespace TERN_ABI
}  // namespace tern

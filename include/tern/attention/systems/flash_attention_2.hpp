// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/flash_attention_2.hpp
/// FlashAttention-2, forward: exact softmax attention by tiles, with the log-sum-exp that a backward pass or a merge needs.
///
///     out = softmax(q k^T / sqrt(dim)) v,  lse_i = log sum_j e^s_ij
///
///     flash_attention_2(policy, q, k, v, out, lse, options...)
///
/// The recipe is tern::attention's own: queries in the outer loop, an unnormalized output with one division at the end, only the
/// log-sum-exp kept, hidden tiles of a causal mask never computed, work split over rows of one head. Grouped and multi-query heads
/// as there; everything attention takes may be added.
/// Shapes, errors, cost: attention/attention.hpp; lse (heads, tokens), f32.
/// Source  Dao 2023 (arXiv:2307.08691).

#include <tern/attention/attention.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr struct flash_attention_2_fn {
  template <tensor_like Q, detail::key_source K, detail::key_source V, tensor_like O, tensor_like L, class... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, L&& lse, Options const&... options) const {
    attention(policy, q, k, v, out, log_sum_exp{lse}, options...);
  }
} flash_attention_2{};

}  // namespace TERN_ABI
}  // namespace tern

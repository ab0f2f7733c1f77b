// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/ring_attention.hpp
/// RingAttention's step (LWM), and the same for sequences spread over workers (distributed multi-head attention): keys and values come
/// block by block, and what was seen so far is a state of out and log-sum-exp.
///
///     (o', x') = attention over the block;   x'' = log(e^x + e^x'),   o'' = e^(x - x'') o + e^(x' - x'') o'
///
///     ring_attention_start(out, lse)                                      nothing seen yet: out 0, lse -inf
///     ring_attention_step(policy, q, k, v, out, lse, options...)          after the step, the block has been seen too
///
/// Blocks may come in any order, each once. Which keys of a block a query sees is what `options` say: causal{first query - first key}
/// by their places in the whole; packed sequences take a mask or layout of segments. Where workers hold parts each, tern::merge joins
/// any number of them.
/// Shapes  q (heads, tokens, dim), k and v a block, out f32 (heads, tokens, dim_v) and lse (heads, tokens), in place; or a batch of them.
/// Memory  from the policy: one result of the shape of out, f32, and what a call takes.
/// Source  Liu et al. 2023 (arXiv:2310.01889), 2024 (arXiv:2402.08268); for parts on workers "A Unified View of Long-Sequence Models",
///         Huang et al. 2023 (arXiv:2302.06218).

#include <tern/attention/partials.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
template <tensor_like O, tensor_like L>
void ring_attention_start(O&& out, L&& lse) {
  auto const to = detail::with_batch(tern::view(out));
  auto const sums = detail::with_batch_lse(tern::view(lse));
  for (index b = 0; b < to.extent(0); ++b)
    for (index h = 0; h < to.extent(1); ++h)
      for (index i = 0; i < to.extent(2); ++i) {
        for (index d = 0; d < to.extent(3); ++d) to(b, h, i, d) = 0;
        sums(b, h, i) = detail::negative_infinity;
      }
}

/// See the top of this file.
inline constexpr struct ring_attention_step_fn {
  template <tensor_like Q, detail::key_source K, detail::key_source V, tensor_like O, tensor_like L, class... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, L&& lse, Options const&... options) const {
    auto const to = tern::view(out);
    auto const sums = tern::view(lse);
    detail::partial_results<view_of<O>::rank> const part(policy, 1, to);
    attention(policy, q, k, v, part.out(0), part.lse(0), options...);
    merge(policy, to, sums, part.out(0), part.lse(0).out, to, sums);
  }
} ring_attention_step{};

}  // namespace TERN_ABI
}  // namespace tern

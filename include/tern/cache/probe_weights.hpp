// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/probe_weights.hpp
/// How much of the attention of some queries of a prompt, which stand anywhere in it, each of its keys gets.
///
///     w_j = mean over the heads and the probes i of softmax over the keys up to places_i of (q_i k^T / sqrt(dim))_j
///
///     probe_weights(policy, q, places, k, weights)
///
/// Shapes    q (heads, probes, dim), k (kv_heads, tokens, dim) of f32, f16 or bf16, rotated; places int32 (probes), ascending; weights f32
///           (tokens), which add up to 1.
/// Composition  attention with values of no elements, for its log-sum-exp; attention_key_weights.
/// Memory    scratch from the policy: a number for each key head and token, and for each head and probe.
/// Cost      4 heads probes tokens dim flop.
/// Source    ZipVL (arXiv:2410.08584). Where the queries are the last tokens: cache/observed_weights.hpp.

#include <tern/attention/key_weights.hpp>
#include <tern/cache/causal_at.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr struct probe_weights_fn {
  template <tensor_like Q, tensor_like X>
  void operator()(cpu_policy const& policy, Q&& q, tensor_view<std::int32_t const, 1> const& places, X&& k,
                  tensor_view<float, 1> const& weights) const {
    static_assert(view_of<Q>::rank == 3 && view_of<X>::rank == 3,
                  "tern: probe_weights takes q (heads, probes, dim), k (kv_heads, tokens, dim)");
    auto const x = tern::view(q);
    auto const y = tern::view(k);
    index const heads = x.extent(0), probes = x.extent(1), kv_heads = y.extent(0), tokens = y.extent(1);
    detail::expect_equal("probe_weights", "weights.extent(0)", weights.extent(0), "k.extent(1)", tokens);
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(heads * probes + kv_heads * tokens) * sizeof(float));
    auto const lse = tern::view(reinterpret_cast<float*>(memory.data()), heads, probes);
    auto const by_head = tern::view(lse.data() + lse.size(), kv_heads, tokens);
    tensor_view<float const, 3> const values(nullptr, shape<3>{{kv_heads, tokens, 0}}, shape<3>{{0, 0, 1}});
    tensor_view<float, 3> const nothing(nullptr, shape<3>{{heads, probes, 0}}, shape<3>{{0, 0, 1}});
    attention(policy, x, y, values, nothing, causal_at{places}, log_sum_exp{lse});
    attention_key_weights(policy, x, y, lse, by_head, causal_at{places});
    for (index j = 0; j < tokens; ++j) {
      float sum = 0;
      for (index h = 0; h < kv_heads; ++h) sum += by_head(h, j);
      weights[j] = sum / static_cast<float>(heads * probes);
    }
  }
} probe_weights{};

}  // namespace TERN_ABI
}  // namespace tern

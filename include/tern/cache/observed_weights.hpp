// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/observed_weights.hpp
/// How much of the attention of some queries each key of a cache gets: what most methods choose tokens by.
///
///     w_hj = 1 / (heads of h) / queries  sum over the query heads g that share key head h and the queries i of p_gij,
///     p_gij = softmax over the keys j that query i sees of q_gi . k_hj / sqrt(dim)
///
///     observed_weights(policy, q, k, weights)             the queries are the last tokens: query i sees keys up to its own
///     observed_weights(policy, q, k, weights, lse)        with the log-sum-exp of each, where attention gave it already
///     observed_log_sums(policy, q, k, lse)                that log-sum-exp, to change it first
///
/// Each takes products<bf16>{} behind its other arguments, to multiply as the attention of the prompt does (attention/options.hpp): with
/// AMX it is several times as fast. Few queries (queries * heads that share keys; at most 32) are multiplied as float in any case.
///
/// Shapes    q (heads, queries, dim), rotated as the keys are; k a tensor (kv_heads, keys, dim), or kv_cache::keys of a sequence;
///           weights (kv_heads, keys) f32; lse (heads, queries). Where heads have fewer keys than the longest, -inf stands behind.
/// Composition  attention with values of no elements, for its log-sum-exp; attention_key_weights.
/// Memory    scratch from the policy: that of these two, and the log-sum-exp.
/// Cost      4 heads queries keys dim flop; 2 of them where lse is given. Where queries are few, keys are read twice, or once where lse is
///           given.
/// Error     that of attention_key_weights: in bf16 a weight is wrong by at most e^2d - 1 of itself, d = 2^-7 sum |q_d k_d| / sqrt(dim) at
///           its largest.
/// Source    H2O (arXiv:2306.14048) and SnapKV (arXiv:2404.14469) sum the same probabilities.

#include <tern/attention/key_weights.hpp>

namespace tern {
inline namespace TERN_ABI {

/// observed_log_sums(policy, q, k, lse): the log-sum-exp (heads, queries) of queries that are the last tokens.
inline constexpr struct observed_log_sums_fn {
  template <tensor_like Q, detail::key_source K, tensor_like L, class T = float>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, L&& lse, products<T> const& multiply = {}) const {
    static_assert(view_of<Q>::rank == 3, "tern: observed_log_sums takes q (heads, queries, dim)");
    index const heads = tern::view(q).extent(0), queries = tern::view(q).extent(1);
    detail::argument const keys = detail::argument_of(1, detail::source_of(k), 1);
    tensor_view<float const, 3> const values(nullptr, shape<3>{{keys.extent[1], keys.extent[2], 0}}, shape<3>{{0, 0, 1}});
    tensor_view<float, 3> const nothing(nullptr, shape<3>{{heads, queries, 0}}, shape<3>{{0, 0, 1}});
    attention(policy, q, k, values, nothing, causal{}, log_sum_exp{tern::view(lse)}, multiply);
  }
} observed_log_sums{};

/// observed_weights(policy, q, k, weights): see the top of this file.
inline constexpr struct observed_weights_fn {
  template <tensor_like Q, detail::key_source K, tensor_like O, class T = float>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, O&& weights, products<T> const& multiply = {}) const {
    static_assert(view_of<Q>::rank == 3, "tern: observed_weights takes q (heads, queries, dim)");
    auto const x = tern::view(q);
    index const heads = x.extent(0), queries = x.extent(1);
    workspace::lease const scratch(policy.scratch(), static_cast<std::size_t>(heads * queries) * sizeof(float));
    auto const lse = tern::view(reinterpret_cast<float*>(scratch.data()), heads, queries);
    observed_log_sums(policy, x, k, lse, multiply);
    (*this)(policy, x, k, weights, lse, multiply);
  }
  template <tensor_like Q, detail::key_source K, tensor_like O, tensor_like L, class T = float>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, O&& weights, L&& lse, products<T> const& multiply = {}) const {
    static_assert(view_of<Q>::rank == 3 && view_of<O>::rank == 2 && view_of<L>::rank == 2,
                  "tern: observed_weights takes q (heads, queries, dim), weights (kv_heads, keys), lse (heads, queries)");
    auto const to = tern::view(weights);
    auto const source = detail::source_of(k);
    detail::argument const keys = detail::argument_of(1, source, 1);
    index const kv_heads = keys.extent[1];
    detail::expect_equal("observed_weights", "weights.extent(0)", to.extent(0), "the heads of k", kv_heads);
    attention_key_weights(policy, q, source, lse, to, causal{}, multiply);
    index const shared = tern::view(q).extent(0) / kv_heads * tern::view(q).extent(1);
    float const mean = 1 / static_cast<float>(shared > 0 ? shared : 1);
    auto const rows = detail::rows_of(source);
    for (index h = 0; h < kv_heads; ++h) {
      index const count = detail::keys_of_head(rows, 0, h, keys.extent[2]);
      for (index j = 0; j < count; ++j) to(h, j) *= mean;
      for (index j = count; j < to.extent(1); ++j) to(h, j) = detail::negative_infinity;
    }
  }
} observed_weights{};

}  // namespace TERN_ABI
}  // namespace tern

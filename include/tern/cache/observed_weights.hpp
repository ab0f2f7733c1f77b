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
/// Shapes    q (heads, queries, dim), rotated as the keys are; k a tensor (kv_heads, keys, dim), or kv_cache::keys of a sequence;
///           weights (kv_heads, keys) f32; lse (heads, queries). Where heads have fewer keys than the longest, -inf stands behind.
/// Composition  attention with values of no elements, for its log-sum-exp; attention_key_weights, 1024 keys at a time.
/// Memory    scratch from the policy: 1024 keys as floats, and the log-sum-exp.
/// Cost      4 heads queries keys dim flop; 2 of them where lse is given.
/// Error     that of attention_key_weights.
/// Source    H2O (arXiv:2306.14048) and SnapKV (arXiv:2404.14469) sum the same probabilities.

#include <tern/attention/key_weights.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// Keys first, first + 1, ... of a head as floats, (count, dim).
template <class Source>
TERN_INLINE void read_keys(Source const& from, index h, index first, index count, index dim, float* to) {
  if constexpr (decoding_source<Source>) {
    for (index i = 0; i < count; ++i) from.decode(0, h, first + i, to + i * dim);
  } else {
    for (index i = 0; i < count; ++i) {
      typename Source::element const* row[1];
      from.rows(0, h, 1, [&](index) TERN_LAMBDA { return first + i; }, row);
      widen_row(row[0], dim, 1.f, to + i * dim);
    }
  }
}
template <class Source>
TERN_INLINE index keys_of_head(Source const& from, index h, index most) {
  if constexpr (ragged_source<Source>)
    return from.keys(0, h, most);
  else
    return most;
}

inline constexpr index observed_chunk = 1024;

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// observed_log_sums(policy, q, k, lse): the log-sum-exp (heads, queries) of queries that are the last tokens.
inline constexpr struct observed_log_sums_fn {
  template <tensor_like Q, detail::key_source K, tensor_like L>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, L&& lse) const {
    static_assert(view_of<Q>::rank == 3, "tern: observed_log_sums takes q (heads, queries, dim)");
    auto const x = tern::view(q);
    detail::argument const keys = detail::argument_of(1, detail::source_of(k), 1);
    index const heads = x.extent(0), queries = x.extent(1);
    tensor_view<float const, 4> const values(nullptr, shape<4>{{1, keys.extent[1], keys.extent[2], 0}}, shape<4>{{0, 0, 0, 1}});
    tensor_view<float, 4> const nothing(nullptr, shape<4>{{1, heads, queries, 0}}, shape<4>{{0, 0, 0, 1}});
    if constexpr (tensor_like<K>)
      attention(policy, x.expanded(), tern::view(k).expanded(), values, nothing, causal{}, log_sum_exp{tern::view(lse).expanded()});
    else
      attention(policy, x.expanded(), k, values, nothing, causal{}, log_sum_exp{tern::view(lse).expanded()});
  }
} observed_log_sums{};

/// observed_weights(policy, q, k, weights): see the top of this file.
inline constexpr struct observed_weights_fn {
  template <tensor_like Q, detail::key_source K, tensor_like O>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, O&& weights) const {
    static_assert(view_of<Q>::rank == 3, "tern: observed_weights takes q (heads, queries, dim)");
    auto const x = tern::view(q);
    index const heads = x.extent(0), queries = x.extent(1);
    workspace::lease const scratch(policy.scratch(), static_cast<std::size_t>(heads * queries) * sizeof(float));
    auto const lse = tern::view(reinterpret_cast<float*>(scratch.data()), heads, queries);
    observed_log_sums(policy, x, k, lse);
    (*this)(policy, x, k, weights, lse);
  }
  template <tensor_like Q, detail::key_source K, tensor_like O, tensor_like L>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, O&& weights, L&& lse) const {
    static_assert(view_of<Q>::rank == 3 && view_of<O>::rank == 2 && view_of<L>::rank == 2,
                  "tern: observed_weights takes q (heads, queries, dim), weights (kv_heads, keys), lse (heads, queries)");
    auto const x = tern::view(q);
    auto const to = tern::view(weights);
    auto const sums = tern::view(lse);
    auto const source = detail::source_of(k);
    detail::argument const keys = detail::argument_of(1, source, 1);
    index const heads = x.extent(0), queries = x.extent(1), dim = x.extent(2), kv_heads = keys.extent[1];
    check(x, to, sums, keys);
    auto const rows = detail::rows_of(source);
    index const group = heads / kv_heads;
    float const mean = 1 / static_cast<float>(group * queries > 0 ? group * queries : 1);
    workspace::lease const scratch(policy.scratch(), static_cast<std::size_t>(detail::observed_chunk * (dim + 1)) * sizeof(float));
    float* const key = reinterpret_cast<float*>(scratch.data());
    float* const sum = key + detail::observed_chunk * dim;
    for (index h = 0; h < kv_heads; ++h) {
      index const count = detail::keys_of_head(rows, h, keys.extent[2]);
      auto const own = x.slice(0, h * group, (h + 1) * group);
      auto const own_sums = sums.slice(0, h * group, (h + 1) * group);
      for (index j = 0; j < count; j += detail::observed_chunk) {
        index const some = count - j < detail::observed_chunk ? count - j : detail::observed_chunk;
        detail::read_keys(rows, h, j, some, dim, key);
        attention_key_weights(policy, own, tern::view(key, index{1}, some, dim), own_sums, tern::view(sum, index{1}, some),
                              causal{count - queries - j});
        for (index i = 0; i < some; ++i) to(h, j + i) = sum[i] * mean;
      }
      for (index j = count; j < to.extent(1); ++j) to(h, j) = detail::negative_infinity;
    }
  }

 private:
  template <class Q, class O, class L>
  TERN_INLINE static void check(Q const& q, O const& out, L const& lse, detail::argument const& keys) {
    constexpr char const* op = "observed_weights";
    index const kv_heads = keys.extent[1];
    detail::expect(keys.extent[0] == 1, op, "the batch of k", keys.extent[0], "1");
    detail::expect(kv_heads > 0 && q.extent(0) % (kv_heads > 0 ? kv_heads : 1) == 0, op, "the heads of k", kv_heads,
                   "a divisor of those of q");
    detail::expect_equal(op, "q.extent(2)", q.extent(2), "the dim of k", keys.extent[3]);
    detail::expect(q.extent(2) <= 1 || q.stride(2) == 1, op, "q.stride(2)", q.stride(2), "1 (contiguous rows)");
    detail::expect(keys.stride == 1, op, keys.stride_name, keys.stride, "1 (contiguous rows)");
    detail::expect_equal(op, "lse.extent(0)", lse.extent(0), "q.extent(0)", q.extent(0));
    detail::expect_equal(op, "lse.extent(1)", lse.extent(1), "q.extent(1)", q.extent(1));
    detail::expect_equal(op, "weights.extent(0)", out.extent(0), "the heads of k", kv_heads);
    detail::expect_equal(op, "weights.extent(1)", out.extent(1), "the keys of k", keys.extent[2]);
  }
} observed_weights{};

}  // namespace TERN_ABI
}  // namespace tern

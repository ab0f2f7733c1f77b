// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/attention_received.hpp
/// How much attention each token receives: from one query, such as the class token's, from a few, or from all.
///
///     attention(policy, q, k, v, out, log_sum_exp{lse})
///     attention_received(policy, q, k, lse, {0, 1}, scores)            from query 0
///     attention_received(policy, q, k, lse, {0, tokens, tokens / 32}, scores)    from 32 of them, an estimate of that from all
///
///     attention(policy, q, k, v, out, key_weights{weights})
///     attention_received(policy, weights, tokens, scores)              from all `tokens` queries, as the call itself has seen it
///
///     scores(b, j) = mean over the heads h and the queries i of the range of e^(s_bhij - lse_bhi)
///
/// Shapes    q (samples, heads, tokens, dim), k (samples, k_heads, keys, dim), lse (samples, heads, tokens) as the attention call wrote it,
///           scores (samples, keys) f32, weights (samples, heads, keys).
/// Options   those of the attention call that decide on scores and look at keys alone: scale, proportional. None that goes by a query's
///           place: the queries of the range are all that is seen here.
/// Composition  attention_key_weights (attention/key_weights.hpp): a query that attention has just seen costs its products with the keys
///           once more, and nothing else; lse is what the fused call hands on. From all queries, the call keeps its weights until it
///           knows their sums (attention/kept_weights.hpp).
/// Weighted  where queries count differently, w_i times, lse_i - log(w_i) takes the place of lse_i.
/// Memory    from the policy: samples heads keys numbers, and what attention_key_weights takes. From weights, none.
/// Cost      2 heads keys dim flop a query: 1 / (2 tokens) of the attention call's. Up to 32 queries that share keys are streamed; more
///           go through the engine once more, which takes nearly as long as the call with values did: key_weights is for all of them.
/// Error     as attention_key_weights says, and 2^-24 heads relative to the mean of absolute values.

#include <tern/attention/key_weights.hpp>
#include <tern/pointwise/rows.hpp>

namespace tern {

/// Queries first, first + step, ... before last.
struct query_range {
  index first, last, step = 1;
  TERN_INLINE index count() const { return last > first ? (last - first + step - 1) / step : 0; }
};

namespace detail {

/// The tokens of a range; dim: which dimension they are.
template <class T, int Rank>
TERN_INLINE tensor_view<T, Rank> of_range(tensor_view<T, Rank> const& x, int dim, query_range const& range) {
  shape<Rank> extents{}, strides{};
  for (int d = 0; d < Rank; ++d) {
    extents.extents[d] = d == dim ? range.count() : x.extent(d);
    strides.extents[d] = d == dim ? x.stride(d) * range.step : x.stride(d);
  }
  return {x.data() + range.first * x.stride(dim), extents, strides};
}

}  // namespace detail

inline namespace TERN_ABI {

/// attention_received(policy, q, k, lse, queries, scores, options...): see the top of this file.
inline constexpr struct attention_received_fn {
  template <tensor_like Q, tensor_like K, tensor_like L, class... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, L&& lse, query_range const& queries, tensor_view<float, 2> const& scores,
                  Options const&... options) const {
    static_assert(view_of<Q>::rank == 4 && view_of<K>::rank == 4 && view_of<L>::rank == 3,
                  "tern: attention_received takes q and k (samples, heads, tokens, dim) and lse (samples, heads, tokens)");
    constexpr char const* op = "attention_received";
    auto const qs = tern::view(q);
    auto const ks = tern::view(k);
    auto const l = tern::view(lse);
    index const samples = qs.extent(0), heads = qs.extent(1), keys = ks.extent(2);
    detail::expect(queries.step >= 1, op, "the step of the queries", queries.step, "at least 1");
    detail::expect(queries.first >= 0 && queries.last <= qs.extent(2), op, "the end of the queries", queries.last, "a range of q's tokens");
    index const count = queries.count();
    detail::expect(count >= 1, op, "the number of queries", count, "at least 1");
    detail::expect_equal(op, "scores.extent(0)", scores.extent(0), "the samples", samples);
    detail::expect_equal(op, "scores.extent(1)", scores.extent(1), "the keys", keys);
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(samples * heads * keys) * sizeof(float));
    auto const weights = tern::view(reinterpret_cast<float*>(memory.data()), samples, heads, keys);
    attention_key_weights(policy, detail::of_range(qs, 2, queries), ks, detail::of_range(l, 2, queries), weights, options...);
    (*this)(policy, weights, count, scores);
  }

  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like Q, tensor_like K, tensor_like L, class... Options>
  std::size_t workspace_size(cpu_policy const& policy, Q&& q, K&& k, L&& lse, query_range const& queries,
                             tensor_view<float, 2> const& scores, Options const&... options) const {
    auto const qs = tern::view(q);
    tensor_view<float, 3> const weights(nullptr, shape<3>{{qs.extent(0), qs.extent(1), scores.extent(1)}});
    return workspace::rounded(static_cast<std::size_t>(weights.size()) * sizeof(float)) +
           attention_key_weights.workspace_size(policy, detail::of_range(qs, 2, queries), k, detail::of_range(tern::view(lse), 2, queries),
                                                weights, options...);
  }

  /// From the sums over `queries` queries: weights (samples, heads, keys).
  void operator()(cpu_policy const& policy, tensor_view<float const, 3> const& weights, index queries,
                  tensor_view<float, 2> const& scores) const {
    constexpr char const* op = "attention_received";
    index const samples = weights.extent(0), heads = weights.extent(1), keys = weights.extent(2);
    detail::expect(queries >= 1, op, "the number of queries", queries, "at least 1");
    detail::expect_equal(op, "scores.extent(0)", scores.extent(0), "the samples", samples);
    detail::expect_equal(op, "scores.extent(1)", scores.extent(1), "the keys", keys);
    float const share = 1.f / static_cast<float>(heads * queries);
    detail::for_rows(policy, samples, heads * keys, [&](index b) TERN_LAMBDA {
      for (index j = 0; j < keys; ++j) {
        float sum = 0;
        for (index h = 0; h < heads; ++h) sum += weights(b, h, j);
        scores(b, j) = sum * share;
      }
    });
  }
} attention_received{};

}  // namespace TERN_ABI
}  // namespace tern

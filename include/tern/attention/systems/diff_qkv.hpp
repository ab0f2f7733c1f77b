// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/diff_qkv.hpp
/// DiffQKV attention (Sigma): keys are compressed more than values, queries are wider, and values may be fetched for the largest
/// weights only.
///
///     diff_qkv(policy, q, k, v, out, options...)                           softmax(q k^T / sqrt(dim)) v
///     diff_qkv_selective(policy, q, k, v, out, ids, scores, options...)    the sum over the `count` keys of largest weight alone
///
/// The first is tern::attention with fewer key heads than value heads (4 and 16 of 32, say) and dim unlike dim_v. The second is two
/// calls: scores, log-sum-exp and the largest keys without any value (dim_v = 0), then values by index without any key (dim = 0):
///
///     out_i = sum_{j in top_i} e^(s_ij - lse_i) v_j                        weights are the softmax over all keys
///
/// Shapes  as attention's, q (heads, tokens, dim); ids int32 and scores f32 (heads, tokens, count) receive the keys and their scores.
/// Memory  from the policy: heads tokens floats, and what the two calls take. With count >= keys the second is the first.
/// Source  Lin et al. 2025 (arXiv:2501.13629), abstract and figure 3; that left-out weight is not redistributed is our reading.

#include <tern/attention/attention.hpp>
#include <tern/simd/gather.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// Each query is a group, whose keys are listed.
struct listed_keys {
  struct one {
    static constexpr bool local = true;
    index queries, keys;
    index token;
    std::int32_t const* ids;
    TERN_INLINE index query(index) const { return token; }
    TERN_INLINE index key(index j) const { return ids[j]; }
  };
  static constexpr bool per_head = true;
  tensor_view<std::int32_t const, 3> ids;  // (heads, tokens, count), -1 behind the last
  TERN_INLINE index groups(index, index) const { return ids.extent(1); }
  TERN_INLINE one group(index, index head, index g) const {
    std::int32_t const* const of = ids.data() + head * ids.stride(0) + g * ids.stride(1);
    index n = 0;
    while (n < ids.extent(2) && of[n] >= 0) ++n;
    return {1, n, g, of};
  }
};

/// Scores that are known, less the log-sum-exp of their query.
struct known_scores {
  tensor_view<float const, 3> scores;  // (heads, tokens, count)
  tensor_view<float const, 2> lse;     // (heads, tokens)
  TERN_INLINE floats operator()(floats, score_at const& at) const {
    float const* const of = scores.data() + at.head * scores.stride(0) + at.query * scores.stride(1);  // (count)
    return simd::gather(of, at.key_position()) - floats(lse(at.head, at.query));
  }
};
/// e^s for what is at most 0.
struct exponential_of_nonpositive {
  TERN_INLINE floats operator()(floats s) const { return simd::exp_nonpositive(s); }
};

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr struct diff_qkv_fn {
  template <tensor_like Q, detail::key_source K, detail::key_source V, tensor_like O, class... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, Options const&... options) const {
    attention(policy, q, k, v, out, options...);
  }
} diff_qkv{};

/// See the top of this file.
inline constexpr struct diff_qkv_selective_fn {
  template <tensor_like Q, tensor_like K, tensor_like V, tensor_like O, tensor_like I, tensor_like S, class... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, I&& ids, S&& scores, Options const&... options) const {
    using query = typename view_of<Q>::value_type;
    tensor_view<query const, 3> const qs = tern::view(q);
    auto const vs = tern::view(v);
    tensor_view<std::int32_t, 3> const which = tern::view(ids);
    tensor_view<float, 3> const what = tern::view(scores);
    index const heads = qs.extent(0), tokens = qs.extent(1), keys = vs.extent(1);
    detail::expect(which.extent(2) <= 1 || which.stride(2) == 1, "diff_qkv_selective", "the last stride of ids", which.stride(2), "1");
    detail::expect(what.extent(2) <= 1 || what.stride(2) == 1, "diff_qkv_selective", "the last stride of scores", what.stride(2), "1");
    workspace::lease const scratch(policy.scratch(), static_cast<std::size_t>(heads * tokens) * sizeof(float));
    tensor_view<float, 2> const lse(reinterpret_cast<float*>(scratch.data()), shape<2>{{heads, tokens}});
    auto const none = [](index h, index n) TERN_LAMBDA { return tensor_view<float, 3>(nullptr, shape<3>{{h, n, 0}}, shape<3>{{0, 0, 1}}); };
    attention(policy, q, k, none(1, keys), none(heads, tokens), log_sum_exp{lse}, top_keys{which, what}, options...);
    attention(policy, none(heads, tokens), none(1, keys), v, out, scale{0.f}, detail::listed_keys{which}, detail::known_scores{what, lse},
              weigh_by{detail::exponential_of_nonpositive{}});
  }
} diff_qkv_selective{};

}  // namespace TERN_ABI
}  // namespace tern

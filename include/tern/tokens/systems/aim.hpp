// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/systems/aim.hpp
/// AIM, adaptive inference of multi-modal language models: visual tokens are merged by similarity before the model, and pruned within its
/// layers by their importance in its attention.
///
///     aim_merge(policy, x, target, map, y)                                        rounds of bipartite matching until `target` are left
///     aim_importance(policy, q, k, importance, causal{}, ...)                         PageRank on a layer's attention
///     aim_prune(policy, importance, text, schedule.share(layer), kept)                the share of the visual tokens that matter most
///
///     merge: r = min(n / 2, n - target) pairs a round, of cosines of x itself; y the mean of two tokens, without weights
///     importance: M_h = softmax(q k^T / (0.1 sqrt(dim))),   pi_h <- pi_h M_h, five times from 1 / n,   I_j = sqrt(mean over h of pi_hj^2)
///     prune: text tokens (a list for each sample) and floor(share n_visual) others
///
/// Shapes    x (samples, tokens, channels), y (samples, target, channels) f32, f16 or bf16; map as in token_map.hpp, of x's tokens; q, k
///           (samples, heads, tokens, dim) of one prompt, importance (samples, tokens) f32; text, kept index_lists.
/// target = tokens   changes no bit.
/// Errors    tokens of NaN or infinity, which merge into none, where that leaves more than `target`.
/// Composition  bipartite_matching, average_tokens, chain_maps; attention without values for log-sum-exps, attention_key_weights with
///           lse - log(pi) for each step of the PageRank; select_tokens, ramp_schedule (keep_schedule.hpp). kept tokens' keys and values
///           go through gather_tokens, or cache.keep.
/// Memory    from the policy: two copies of x and a map; 3 numbers for each head's token.
/// Cost      tokens^2 channels flop for the merge; 12 heads tokens^2 dim flop for an importance: three calls of attention.
/// Source    Zhong et al. 2024, arXiv:2412.03248; token_merge.py and modeling_qwen2.py of its authors, where what is left of every other
///           token stands before the rest, while here tokens keep their order, which a language model's positions go by.

#include <tern/attention/key_weights.hpp>
#include <tern/tokens/systems/tome.hpp>

namespace tern {

/// How importance is computed: see the top of this file.
struct aim_options {
  float temperature = 0.1f;
  index rounds = 5;
};

inline namespace TERN_ABI {

/// aim_merge(policy, x, target, map, y): see the top of this file.
inline constexpr struct aim_merge_fn {
  template <tensor_like X, tensor_like Y>
  void operator()(cpu_policy const& policy, X&& x, index target, token_map const& map, Y&& y) const {
    constexpr char const* op = "aim_merge";
    using element = typename view_of<X>::value_type;
    tensor_view<element const, 3> const from = tern::view(x);
    tensor_view<element, 3> const to = tern::view(y);
    index const samples = from.extent(0), tokens = from.extent(1), channels = from.extent(2);
    detail::expect(target >= 1 && target <= tokens, op, "target", target, "1 to the number of tokens");
    detail::expect_rows(op, "x", from);
    detail::expect_equal(op, "y.extent(1)", to.extent(1), "target", target);
    map.check_shape(op, samples);
    detail::expect_equal(op, "the tokens of the map", map.tokens(), "x.extent(1)", tokens);
    std::size_t const half = workspace::rounded(static_cast<std::size_t>(from.size()) * sizeof(element));
    workspace::lease const memory(policy.scratch(), 2 * half + static_cast<std::size_t>(samples * (tokens + 1)) * sizeof(std::int32_t));
    auto* const ids = reinterpret_cast<std::int32_t*>(memory.data() + 2 * half);
    for (index b = 0; b < samples; ++b) {
      for (index i = 0; i < tokens; ++i) map.to(b, i) = static_cast<std::int32_t>(i);
      map.counts[b] = static_cast<std::int32_t>(tokens);
    }
    tensor_view<element const, 3> now = from;
    for (index n = tokens, round = 0; n > target || round == 0; ++round) {
      index const r = detail::least(n / 2, n - target), left = n - r;
      auto* const place = reinterpret_cast<element*>(memory.data() + static_cast<std::size_t>(round % 2) * half);
      tensor_view<element, 3> const next = left == target ? to : tern::view(place, samples, left, channels);
      token_map const step{tern::view(ids, samples, n), tern::view(ids + samples * tokens, samples)};
      tome(policy, now, r, {}, step, {}, {}, moved{now, next});
      chain_maps(map, step, map);
      now = next;
      n = left;
    }
  }
} aim_merge{};

/// aim_importance(policy, q, k, importance, options...): see the top of this file.
inline constexpr struct aim_importance_fn {
  template <tensor_like Q, tensor_like K, detail::attention_option... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, tensor_view<float, 2> const& importance, Options const&... options) const {
    (*this)(policy, q, k, importance, aim_options{}, options...);
  }
  template <tensor_like Q, tensor_like K, detail::attention_option... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, tensor_view<float, 2> const& importance, aim_options const& how,
                  Options const&... options) const {
    constexpr char const* op = "aim_importance";
    static_assert(view_of<Q>::rank == 4 && view_of<K>::rank == 4, "tern: aim_importance takes q and k (samples, heads, tokens, dim)");
    auto const qs = tern::view(q);
    auto const ks = tern::view(k);
    index const samples = qs.extent(0), heads = qs.extent(1), tokens = qs.extent(2), all = samples * heads * tokens;
    detail::expect_equal(op, "k.extent(2)", ks.extent(2), "q.extent(2)", tokens);
    detail::expect_equal(op, "importance.extent(0)", importance.extent(0), "the samples", samples);
    detail::expect_equal(op, "importance.extent(1)", importance.extent(1), "the tokens", tokens);
    detail::expect(how.temperature > 0, op, "the sign of the temperature", how.temperature < 0 ? -1 : 0, "that of a positive one");
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(3 * all) * sizeof(float));
    auto* const at = reinterpret_cast<float*>(memory.data());
    auto const lse = tern::view(at, samples, heads, tokens), shifted = tern::view(at + all, samples, heads, tokens),
               rank = tern::view(at + 2 * all, samples, heads, tokens);
    scale const sharp{1.f / (how.temperature * __builtin_sqrtf(static_cast<float>(qs.extent(3))))};
    tensor_view<float const, 4> const no_values(nullptr, shape<4>{{samples, ks.extent(1), tokens, 0}}, shape<4>{{0, 0, 0, 1}});
    tensor_view<float, 4> const nothing(nullptr, shape<4>{{samples, heads, tokens, 0}}, shape<4>{{0, 0, 0, 1}});
    attention(policy, qs, ks, no_values, nothing, log_sum_exp{lse}, sharp, options...);
    for (index i = 0; i < all; ++i) rank.data()[i] = 1.f / static_cast<float>(tokens);
    for (index round = 0; round < how.rounds; ++round) {
      detail::for_pieces(policy, 1, all, [&](index, index begin, index end) TERN_LAMBDA {
        detail::each_pack(begin, end, [&](index i, auto part) TERN_LAMBDA {
          auto const logarithm = simd::log(detail::load(static_cast<float const*>(rank.data()) + i, part));
          detail::store(shifted.data() + i, detail::load(static_cast<float const*>(lse.data()) + i, part) - logarithm, part);
        });
      });
      attention_key_weights(policy, qs, ks, shifted, rank, sharp, options...);
    }
    detail::for_rows(policy, samples, heads * tokens, [&](index b) TERN_LAMBDA {
      for (index j = 0; j < tokens; ++j) {
        float squares = 0;
        for (index h = 0; h < heads; ++h) squares += rank(b, h, j) * rank(b, h, j);
        importance(b, j) = __builtin_sqrtf(squares / static_cast<float>(heads));
      }
    });
  }
} aim_importance{};

/// aim_prune(policy, importance, text, share, kept): see the top of this file.
inline constexpr struct aim_prune_fn {
  void operator()(cpu_policy const& policy, tensor_view<float const, 2> const& importance, index_lists const& text, double share,
                  index_lists const& kept) const {
    constexpr char const* op = "aim_prune";
    index const samples = importance.extent(0), tokens = importance.extent(1);
    detail::expect_share(op, "share in percent", share);
    text.check(op, samples, tokens);
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(samples) * sizeof(std::int32_t));
    auto const budget = tern::view(reinterpret_cast<std::int32_t*>(memory.data()), samples);
    for (index b = 0; b < samples; ++b)
      budget[b] = static_cast<std::int32_t>(share * static_cast<double>(tokens - text.count(b))) + text.counts[b];
    select_tokens(policy, importance, tensor_view<std::int32_t const, 1>(budget), text, kept);
  }
} aim_prune{};

}  // namespace TERN_ABI
}  // namespace tern

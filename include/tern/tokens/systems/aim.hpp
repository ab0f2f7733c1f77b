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
    index const samples = from.extent(0), tokens = from.extent(1);
    detail::expect(target >= 1 && target <= tokens, op, "target", target, "1 to the number of tokens");
    detail::expect_rows(op, "x", from);
    detail::expect_equal(op, "y.extent(1)", to.extent(1), "target", target);
    map.check_shape(op, samples);
    detail::expect_equal(op, "the tokens of the map", map.tokens(), "x.extent(1)", tokens);
    for (index b = 0; b < samples; ++b) {
      for (index i = 0; i < tokens; ++i) map.to(b, i) = static_cast<std::int32_t>(i);
      map.counts[b] = static_cast<std::int32_t>(tokens);
    }
    detail::run_steps steps(policy);
    merge(steps, from, target, map, to);
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like X, tensor_like Y>
  std::size_t workspace_size(cpu_policy const& policy, X&& x, index target, token_map const& map, Y&& y) const {
    using element = typename view_of<X>::value_type;
    detail::count_steps steps(policy);
    merge(steps, tensor_view<element const, 3>(tern::view(x)), target, map, tensor_view<element, 3>(tern::view(y)));
    return steps.bytes();
  }

 private:
  template <class Steps, class T>
  static void merge(Steps& steps, tensor_view<T const, 3> const& from, index target, token_map const& map, tensor_view<T, 3> const& to) {
    index const samples = from.extent(0), tokens = from.extent(1), channels = from.extent(2);
    auto const even = detail::borrow<T>(steps, samples * tokens * channels), odd = detail::borrow<T>(steps, samples * tokens * channels);
    detail::borrowed_map<Steps> const memory(steps, samples, tokens);
    tensor_view<T const, 3> now = from;
    for (index n = tokens, round = 0; n > target || round == 0; ++round) {
      index const r = detail::least(n / 2, n - target), left = n - r;
      auto const next = left == target ? to : tern::view((round % 2 == 0 ? even : odd).view.data(), samples, left, channels);
      token_map const step{tern::view(memory.view.to.data(), samples, n), memory.view.counts};
      steps(tome, now, r, matching_options{}, step, tensor_view<float const, 2>(), tensor_view<float, 2>(), moved{now, next});
      if constexpr (Steps::runs) chain_maps(map, step, map);
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
    index const samples = qs.extent(0), tokens = qs.extent(2);
    detail::expect_equal(op, "k.extent(2)", ks.extent(2), "q.extent(2)", tokens);
    detail::expect_equal(op, "importance.extent(0)", importance.extent(0), "the samples", samples);
    detail::expect_equal(op, "importance.extent(1)", importance.extent(1), "the tokens", tokens);
    detail::expect(how.temperature > 0, op, "the sign of the temperature", how.temperature < 0 ? -1 : 0, "that of a positive one");
    detail::run_steps steps(policy);
    page_rank(steps, qs, ks, importance, how, options...);
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like Q, tensor_like K, detail::attention_option... Options>
  std::size_t workspace_size(cpu_policy const& policy, Q&& q, K&& k, tensor_view<float, 2> const& importance,
                             Options const&... options) const {
    return workspace_size(policy, q, k, importance, aim_options{}, options...);
  }
  template <tensor_like Q, tensor_like K, detail::attention_option... Options>
  std::size_t workspace_size(cpu_policy const& policy, Q&& q, K&& k, tensor_view<float, 2> const& importance, aim_options const& how,
                             Options const&... options) const {
    detail::count_steps steps(policy);
    page_rank(steps, tern::view(q), tern::view(k), importance, how, options...);
    return steps.bytes();
  }

 private:
  template <class Steps, class Q, class K, class... Options>
  static void page_rank(Steps& steps, Q const& q, K const& k, tensor_view<float, 2> const& importance, aim_options const& how,
                        Options const&... options) {
    index const samples = q.extent(0), heads = q.extent(1), tokens = q.extent(2), all = samples * heads * tokens;
    auto const lse = detail::borrow<float>(steps, samples, heads, tokens), shifted = detail::borrow<float>(steps, samples, heads, tokens),
               rank = detail::borrow<float>(steps, samples, heads, tokens);
    scale const sharp{1.f / (how.temperature * __builtin_sqrtf(static_cast<float>(q.extent(3))))};
    tensor_view<float const, 4> const no_values(nullptr, shape<4>{{samples, k.extent(1), tokens, 0}}, shape<4>{{0, 0, 0, 1}});
    tensor_view<float, 4> const nothing(nullptr, shape<4>{{samples, heads, tokens, 0}}, shape<4>{{0, 0, 0, 1}});
    steps(attention, q, k, no_values, nothing, log_sum_exp{lse.view}, sharp, options...);
    if constexpr (Steps::runs)
      for (index i = 0; i < all; ++i) rank.view.data()[i] = 1.f / static_cast<float>(tokens);
    for (index round = 0; round < (Steps::runs ? how.rounds : 1); ++round) {
      if constexpr (Steps::runs) shift(steps.policy, lse.view.data(), rank.view.data(), all, shifted.view.data());
      steps(attention_key_weights, q, k, shifted.view, rank.view, sharp, options...);
    }
    if constexpr (Steps::runs) mean_squares(steps.policy, rank.view, importance);
  }
  /// to = lse - log(rank), of n numbers.
  static void shift(cpu_policy const& policy, float const* lse, float const* rank, index n, float* to) {
    detail::for_pieces(policy, 1, n, [&](index, index begin, index end) TERN_LAMBDA {
      detail::each_pack(begin, end, [&](index i, auto part) TERN_LAMBDA {
        detail::store(to + i, detail::load(lse + i, part) - simd::log(detail::load(rank + i, part)), part);
      });
    });
  }
  /// The root of the mean over heads of squares.
  static void mean_squares(cpu_policy const& policy, tensor_view<float const, 3> const& rank, tensor_view<float, 2> const& importance) {
    index const samples = rank.extent(0), heads = rank.extent(1), tokens = rank.extent(2);
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
    detail::run_steps steps(policy);
    prune(steps, importance, text, share, kept);
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  std::size_t workspace_size(cpu_policy const& policy, tensor_view<float const, 2> const& importance, index_lists const& text, double share,
                             index_lists const& kept) const {
    detail::count_steps steps(policy);
    prune(steps, importance, text, share, kept);
    return steps.bytes();
  }

 private:
  template <class Steps>
  static void prune(Steps& steps, tensor_view<float const, 2> const& importance, index_lists const& text, double share,
                    index_lists const& kept) {
    index const samples = importance.extent(0), tokens = importance.extent(1);
    auto const budget = detail::borrow<std::int32_t>(steps, samples);
    if constexpr (Steps::runs)
      for (index b = 0; b < samples; ++b)
        budget.view[b] = static_cast<std::int32_t>(share * static_cast<double>(tokens - text.count(b))) + text.counts[b];
    steps(select_tokens, importance, token_budget(tensor_view<std::int32_t const, 1>(budget.view)), text, kept);
  }
} aim_prune{};

}  // namespace TERN_ABI
}  // namespace tern

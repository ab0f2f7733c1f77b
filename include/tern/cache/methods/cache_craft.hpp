// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/methods/cache_craft.hpp
/// Cache-Craft: Managing Chunk-Caches for Efficient Retrieval-Augmented Generation (Agarwal et al. 2025, arXiv:2502.15734).
///
/// When a text was read behind others, it is remembered how much its tokens looked at each of them; when it is to stand behind others
/// again, that says how many of its tokens, and which, must be read anew.
///
///     m_ij   = mean over heads of the weight that token i of the text gave to text j of those before it, the last being itself
///     inter_j = sum over i of m_ij,   a = sum over j of inter_j / (n n_j),   b = inter_itself / n^2        n, n_j: numbers of tokens
///     CCI    = 1 / (1 + exp(-a / b))                                                           how much the text leans on others
///     beta   = sum of inter_j over the texts that stand before it now too / sum over those that did
///     gamma  = the share of pairs of these that now stand in the other order (Kendall's tau)
///     CFO    = alpha CCI (1 - beta (1 - gamma));   the ceil(CFO n) tokens with the largest sum over others of m_ij are read anew
///
///     chunk_masses(policy, q, k, starts, masses)                        when the text is read, in each layer; the mean over layers is kept
///     cache_craft_impact(masses, starts)                                CCI
///     cache_craft_overlap(masses, before, now)                          beta (1 - gamma)
///     cache_craft_choose(masses, impact, overlap, alpha, scores, chosen)    the tokens, ascending; returns how many
///
/// and then cache_blend (cache/methods/cache_blend.hpp) on what append_chunk put together, with these tokens as places.
///
/// Shapes    q (heads, n, dim) of the text, k (kv_heads, tokens, dim) of those before it and itself, f32, f16 or bf16, rotated; starts
///           int32 (texts + 1): where in k each begins, and the end; masses f32 (n, texts); before, now int32: names of the texts that
///           stood before it, one for each but itself, and of those that do; scores f32 (n), for use; chosen int32 (n).
/// Edges     a text that nothing stood before is as it was: overlap 1. b = 0 gives CCI = 1. A share above 1 takes all.
/// Composition  attention without values over each text, for its log-sum-exp, and softmax over texts.
/// Memory    scratch from the policy: a number for each head, token and text.
/// Cost      2 heads n tokens dim flop.
/// Source    the paper's equations for inter, intra, CCI, beta, gamma and CFO, as a public re-implementation quotes them
///           (baselines/cachecraft: utils.py, controller.py). The authors' own code could not be had.

#include <tern/cache/methods/cache_blend.hpp>
#include <tern/pointwise/softmax.hpp>

namespace tern {
inline namespace TERN_ABI {

/// How much tokens look at each text: see the top of this file.
inline constexpr struct chunk_masses_fn {
  template <tensor_like Q, tensor_like X>
  void operator()(cpu_policy const& policy, Q&& q, X&& k, tensor_view<std::int32_t const, 1> const& starts,
                  tensor_view<float, 2> const& masses) const {
    static_assert(view_of<Q>::rank == 3 && view_of<X>::rank == 3, "tern: chunk_masses takes q (heads, n, dim), k (kv_heads, tokens, dim)");
    constexpr char const* op = "chunk_masses";
    auto const x = tern::view(q);
    auto const y = tern::view(k);
    index const heads = x.extent(0), n = x.extent(1), texts = starts.extent(0) - 1;
    detail::expect(texts >= 1 && starts[0] == 0, op, "the first of starts", texts >= 1 ? index{starts[0]} : -1, "0, and an end behind it");
    for (index j = 0; j < texts; ++j)
      detail::expect(starts[j] <= starts[j + 1], op, "one of starts", index{starts[j + 1]}, "at least the one before");
    detail::expect_equal(op, "the last of starts", starts[texts], "k.extent(1)", y.extent(1));
    detail::expect_equal(op, "the tokens of the last text", starts[texts] - starts[texts - 1], "q.extent(1)", n);
    detail::expect_equal(op, "masses.extent(0)", masses.extent(0), "q.extent(1)", n);
    detail::expect_equal(op, "masses.extent(1)", masses.extent(1), "the texts", texts);
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(heads * n * texts) * sizeof(float));
    auto const lse = tern::view(reinterpret_cast<float*>(memory.data()), heads, n, texts);
    tensor_view<float, 3> const nothing(nullptr, shape<3>{{heads, n, 0}}, shape<3>{{0, 0, 1}});
    for (index j = 0; j < texts; ++j) {
      auto const keys = y.slice(1, starts[j], starts[j + 1]);
      tensor_view<float const, 3> const values(nullptr, shape<3>{{keys.extent(0), keys.extent(1), 0}}, shape<3>{{0, 0, 1}});
      tensor_view<float, 2> const of_text(lse.data() + j, shape<2>{{heads, n}}, shape<2>{{n * texts, texts}});
      // The text itself ends with its last query; those before it are seen by all.
      index const offset = j + 1 < texts ? keys.extent(1) : 0;
      attention(policy, x, keys, values, nothing, causal{offset}, log_sum_exp{of_text});
    }
    softmax(policy, lse, lse);
    for (index i = 0; i < n; ++i)
      for (index j = 0; j < texts; ++j) {
        float sum = 0;
        for (index g = 0; g < heads; ++g) sum += lse(g, i, j);
        masses(i, j) = sum / static_cast<float>(heads);
      }
  }
} chunk_masses{};

}  // namespace TERN_ABI

namespace detail {
/// The sum of a column.
TERN_INLINE double mass_of(tensor_view<float const, 2> const& masses, index text) {
  double sum = 0;
  for (index i = 0; i < masses.extent(0); ++i) sum += static_cast<double>(masses(i, text));
  return sum;
}
}  // namespace detail

/// How much a text leans on those before it: see the top of this file.
TERN_INLINE double cache_craft_impact(tensor_view<float const, 2> const& masses, tensor_view<std::int32_t const, 1> const& starts) {
  index const texts = masses.extent(1);
  auto const n = static_cast<double>(masses.extent(0));
  detail::expect_equal("cache_craft_impact", "starts.extent(0)", starts.extent(0), "masses.extent(1) + 1", texts + 1);
  double a = 0;
  for (index j = 0; j + 1 < texts; ++j)
    if (starts[j + 1] > starts[j]) a += detail::mass_of(masses, j) / (n * static_cast<double>(starts[j + 1] - starts[j]));
  double const b = detail::mass_of(masses, texts - 1) / (n * n);
  return b > 0 ? 1 / (1 + __builtin_exp(-a / b)) : 1;
}

/// How much of what a text leaned on stands before it again, in the same order: see the top of this file.
TERN_INLINE double cache_craft_overlap(tensor_view<float const, 2> const& masses, tensor_view<std::int32_t const, 1> const& before,
                                       tensor_view<std::int32_t const, 1> const& now) {
  index const texts = before.extent(0);
  detail::expect_equal("cache_craft_overlap", "before.extent(0)", texts, "masses.extent(1) - 1", masses.extent(1) - 1);
  auto const place = [&](index j) TERN_LAMBDA {
    index at = 0;
    while (at < now.extent(0) && now[at] != before[j]) ++at;
    return at;
  };
  double all = 0, again = 0, pairs = 0, turned = 0;
  for (index j = 0; j < texts; ++j) {
    double const mass = detail::mass_of(masses, j);
    all += mass;
    if (place(j) == now.extent(0)) continue;
    again += mass;
    for (index i = 0; i < j; ++i) {
      if (place(i) == now.extent(0)) continue;
      pairs += 1;
      turned += place(i) > place(j);
    }
  }
  return all > 0 ? again / all * (pairs > 0 ? 1 - turned / pairs : 1) : 1;
}

/// Which tokens of a text are read anew: see the top of this file.
TERN_INLINE index cache_craft_choose(tensor_view<float const, 2> const& masses, double impact, double overlap, double alpha,
                                     tensor_view<float, 1> const& scores, tensor_view<std::int32_t, 1> const& chosen) {
  index const n = masses.extent(0);
  detail::expect_equal("cache_craft_choose", "scores.extent(0)", scores.extent(0), "masses.extent(0)", n);
  detail::expect(chosen.extent(0) >= n, "cache_craft_choose", "chosen.extent(0)", chosen.extent(0), "room for all tokens");
  for (index i = 0; i < n; ++i) {
    scores[i] = 0;
    for (index j = 0; j + 1 < masses.extent(1); ++j) scores[i] += masses(i, j);
  }
  double const share = alpha * impact * (1 - overlap);
  return select_top(scores, static_cast<index>(__builtin_ceil((share < 1 ? share : 1) * static_cast<double>(n))), chosen);
}

}  // namespace tern

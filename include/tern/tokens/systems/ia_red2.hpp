// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/systems/ia_red2.hpp
/// IA-RED2: patches that a policy token finds uninformative are dropped, as many of each image as there are.
///
///     ia_red2(policy, q, k, threshold, {1}, scores, kept)
///
///     score_i = mean over heads of sigmoid(q_hi . k_h);    kept: the tokens whose score is above the threshold, and the protected ones
///
/// Shapes    q (samples, heads, tokens, dim) of the patches' features, k (samples, heads, dim) of the policy token, after their
///           projections, f32, f16 or bf16; scores (samples, tokens) f32; kept index_lists, whose rows have different lengths.
/// threshold = 0   keeps all. The paper's is 0.5. gather_tokens and layouts such as varlen (attention/varlen.hpp) do the rest.
/// Composition  a matmul with a sigmoid for each head of each sample, select_tokens_above.
/// Memory    from the policy: a number a token, and what the matmul takes.
/// Cost      2 heads tokens dim flop a sample.
/// Source    Pan et al. 2021, arXiv:2106.12620 (section 3); from its description, as its authors published no code for this part.

#include <tern/core/steps.hpp>
#include <tern/matmul/matmul.hpp>
#include <tern/tokens/select_tokens.hpp>

namespace tern {
inline namespace TERN_ABI {

/// ia_red2(policy, q, k, threshold, always, scores, kept): see the top of this file.
inline constexpr struct ia_red2_fn {
  template <tensor_like Q, tensor_like K>
  void operator()(cpu_policy const& policy, Q&& features, K&& token, float threshold, protect const& always,
                  tensor_view<float, 2> const& scores, index_lists const& kept) const {
    static_assert(view_of<Q>::rank == 4 && view_of<K>::rank == 3,
                  "tern: ia_red2 takes q (samples, heads, tokens, dim) and k (samples, heads, dim)");
    constexpr char const* op = "ia_red2";
    auto const q = tern::view(features);
    auto const k = tern::view(token);
    detail::expect_rows(op, "q", q);
    detail::expect_rows(op, "k", k);
    for (int d = 0; d < 3; ++d) detail::expect_extent(op, "k", k, d, "q", q, d < 2 ? d : 3);
    detail::expect_extent(op, "scores", scores, 0, "q", q, 0);
    detail::expect_extent(op, "scores", scores, 1, "q", q, 2);
    detail::run_steps steps(policy);
    score(steps, q, k, scores);
    select_tokens_above(policy, scores, threshold, always, kept);
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like Q, tensor_like K>
  std::size_t workspace_size(cpu_policy const& policy, Q&& q, K&& k, float, protect const&, tensor_view<float, 2> const& scores,
                             index_lists const&) const {
    detail::count_steps steps(policy);
    score(steps, tern::view(q), tern::view(k), scores);
    return steps.bytes();
  }

 private:
  template <class Steps, class Q, class K>
  static void score(Steps& steps, Q const& q, K const& k, tensor_view<float, 2> const& scores) {
    index const samples = q.extent(0), heads = q.extent(1), tokens = q.extent(2);
    auto const one = detail::borrow<float>(steps, tokens, index{1});
    float const share = 1.f / static_cast<float>(heads);
    for (index b = 0; b < (Steps::runs ? samples : 1); ++b) {
      if constexpr (Steps::runs)
        for (index i = 0; i < tokens; ++i) scores(b, i) = 0;
      for (index h = 0; h < (Steps::runs ? heads : 1); ++h) {
        steps(matmul, q[b][h], k[b][h].expanded(), one.view, act::sigmoid{});
        if constexpr (Steps::runs)
          for (index i = 0; i < tokens; ++i) scores(b, i) += one.view(i, 0) * share;
      }
    }
  }
} ia_red2{};

}  // namespace TERN_ABI
}  // namespace tern

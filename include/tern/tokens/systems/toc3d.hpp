// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/systems/toc3d.hpp
/// ToC3D: tokens that the last frame's object queries find salient take the slow path, the others share one token's.
///
///     toc3d_scores(policy, x, {project, project_bias, gather, gather_bias}, queries, scores)
///     toc3d_compress(policy, x, scores, count, kept, map, slow)          slow: `count` tokens and the representative of the others
///     toc3d_restore(policy, kept, map, slow, done, x)                    once attention and MLP made `done` of slow
///
///     score_i = log softmax(gather (project x_i + project_bias) Q^T / sqrt(d) + gather_bias)_0
///     slow = the tokens of the `count` largest scores, in their order, then sum of score_i x_i / sum of score_i over the others
///     x_i <- done_j for token i = kept_j,   x_i <- x_i + (done - slow) of the representative for the others
///
/// Shapes    x (samples, tokens, channels) f32, f16 or bf16, tokens of one window a sample where windows are compressed one by one; project
///           (d, channels), project_bias (d), queries (samples, M, d), gather (2, M), gather_bias (2), scores (samples, tokens) f32; slow,
///           done (samples, count + 1, channels) of x's type, a row less where count = tokens; map as in token_map.hpp.
/// count = tokens   changes no bit: no other token is there.
/// Composition  three matmuls; select_tokens, map_kept with others::together, average_tokens with scores as weights; scatter_tokens,
///           add_tokens. Rotary positions of slow tokens are those of kept.
/// Memory    from the policy: d, M and 2 numbers a token of a sample; in restore, channels numbers a sample and a map.
/// Cost      2 tokens (channels d + d M + 2 M) flop for scores; compress and restore read and write each token once.
/// Source    Zhang et al. 2024, arXiv:2409.00633; toc3d_utils.py of its authors (NaiveQueryGuidedTokenSelector, merge_tokens), where slow
///           tokens stand in the order of their scores.

#include <tern/matmul/matmul.hpp>
#include <tern/tokens/average_tokens.hpp>
#include <tern/tokens/borrowed.hpp>
#include <tern/tokens/select_tokens.hpp>

namespace tern {

/// What scores are learned with: see the top of this file.
struct toc3d_weights {
  tensor_view<float const, 2> project;       // (d, channels)
  tensor_view<float const, 1> project_bias;  // (d)
  tensor_view<float const, 2> gather;        // (2, M)
  tensor_view<float const, 1> gather_bias;   // (2)
};

inline namespace TERN_ABI {

/// toc3d_scores(policy, x, weights, queries, scores): see the top of this file.
inline constexpr struct toc3d_scores_fn {
  template <tensor_like X>
  void operator()(cpu_policy const& policy, X&& x, toc3d_weights const& w, tensor_view<float const, 3> const& queries,
                  tensor_view<float, 2> const& scores) const {
    constexpr char const* op = "toc3d_scores";
    auto const from = tern::view(x);
    detail::expect_extent(op, "queries", queries, 0, "x", from, 0);
    detail::expect_extent(op, "queries", queries, 2, "project", w.project, 0);
    detail::expect_equal(op, "gather.extent(0)", w.gather.extent(0), "the classes", 2);
    detail::expect_extent(op, "gather", w.gather, 1, "queries", queries, 1);
    detail::expect_equal(op, "gather_bias.extent(0)", w.gather_bias.extent(0), "the classes", 2);
    detail::expect_extent(op, "scores", scores, 0, "x", from, 0);
    detail::expect_extent(op, "scores", scores, 1, "x", from, 1);
    detail::run_steps steps(policy);
    score(steps, from, w, queries, scores);
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like X>
  std::size_t workspace_size(cpu_policy const& policy, X&& x, toc3d_weights const& w, tensor_view<float const, 3> const& queries,
                             tensor_view<float, 2> const& scores) const {
    detail::count_steps steps(policy);
    score(steps, tern::view(x), w, queries, scores);
    return steps.bytes();
  }

 private:
  template <class Steps, class X>
  static void score(Steps& steps, X const& x, toc3d_weights const& w, tensor_view<float const, 3> const& queries,
                    tensor_view<float, 2> const& scores) {
    index const samples = x.extent(0), tokens = x.extent(1), d = w.project.extent(0);
    auto const projected = detail::borrow<float>(steps, tokens, d), seen = detail::borrow<float>(steps, tokens, queries.extent(1)),
               classes = detail::borrow<float>(steps, tokens, index{2});
    float const factor = 1.f / __builtin_sqrtf(static_cast<float>(d));
    for (index b = 0; b < (Steps::runs ? samples : 1); ++b) {
      steps(matmul, x[b], w.project, projected.view, bias{w.project_bias});
      steps(matmul, projected.view, queries[b], seen.view);
      steps(matmul, seen.view, w.gather, classes.view);
      if constexpr (!Steps::runs) continue;
      for (index i = 0; i < tokens; ++i)
        scores(b, i) = factor * (classes.view(i, 0) - classes.view(i, 1)) + (w.gather_bias[0] - w.gather_bias[1]);
      detail::for_rows(steps.policy, 1, tokens, [&](index) TERN_LAMBDA { log_of_sigmoid(scores[b]); });
    }
  }
  /// log(1 / (1 + e^-x)) = min(x, 0) - log(1 + e^-|x|), in place.
  static void log_of_sigmoid(tensor_view<float, 1> const& x) noexcept {
    for (index i = 0; i < x.extent(0); i += simd::lanes) {
      float lane[simd::lanes] = {};
      index const some = detail::least(simd::lanes, x.extent(0) - i);
      for (index l = 0; l < some; ++l) lane[l] = x[i + l];
      simd::pack<float> const v = simd::load(static_cast<float const*>(lane)), zero(0.f);
      simd::store(static_cast<float*>(lane), simd::min(v, zero) - simd::log(simd::exp_nonpositive(-simd::abs(v)) + 1.f));
      for (index l = 0; l < some; ++l) x[i + l] = lane[l];
    }
  }
} toc3d_scores{};

/// toc3d_compress(policy, x, scores, count, kept, map, slow): see the top of this file.
inline constexpr struct toc3d_compress_fn {
  template <tensor_like X, tensor_like Y>
  void operator()(cpu_policy const& policy, X&& x, tensor_view<float const, 2> const& scores, index count, index_lists const& kept,
                  token_map const& map, Y&& slow) const {
    constexpr char const* op = "toc3d_compress";
    index const tokens = scores.extent(1);
    detail::expect(count >= 0 && count <= tokens, op, "count", count, "0 to the number of tokens");
    detail::expect_equal(op, "slow.extent(1)", tern::view(slow).extent(1), "the slow tokens", count + (count < tokens));
    select_tokens(policy, scores, count, protect{}, kept);
    map_kept(kept, map, others::together);
    average_tokens(policy, map, scores, {}, moved{x, slow});
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like X, tensor_like Y>
  std::size_t workspace_size(cpu_policy const& policy, X&& x, tensor_view<float const, 2> const& scores, index, index_lists const&,
                             token_map const& map, Y&& slow) const {
    return average_tokens.workspace_size(policy, map, scores, {}, moved{x, slow});
  }
} toc3d_compress{};

/// toc3d_restore(policy, kept, map, slow, done, x): see the top of this file.
inline constexpr struct toc3d_restore_fn {
  template <tensor_like S, tensor_like D, tensor_like X>
  void operator()(cpu_policy const& policy, index_lists const& kept, token_map const& map, S&& slow, D&& done, X&& x) const {
    constexpr char const* op = "toc3d_restore";
    auto const before = tern::view(slow);
    auto const after = tern::view(done);
    auto const to = tern::view(x);
    check(kept, map, to);
    detail::expect_like(op, "done", after, "slow", before);
    detail::expect(map.most() <= after.extent(1), op, "a count of the map", map.most(), "at most the slow tokens");
    scatter_tokens(policy, kept, moved{after, to});
    detail::run_steps steps(policy);
    add_change(steps, kept, map, before, after, to);
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like S, tensor_like D, tensor_like X>
  std::size_t workspace_size(cpu_policy const& policy, index_lists const& kept, token_map const& map, S&& slow, D&& done, X&& x) const {
    detail::count_steps steps(policy);
    add_change(steps, kept, map, tern::view(slow), tern::view(done), tern::view(x));
    return steps.bytes();
  }

 private:
  /// What the representative became, for the tokens that it stands for alone.
  template <class Steps, class S, class D, class X>
  static void add_change(Steps& steps, index_lists const& kept, token_map const& map, S const& before, D const& after, X const& x) {
    using element = typename X::value_type;
    index const samples = x.extent(0), tokens = x.extent(1), channels = x.extent(2);
    auto const delta = detail::borrow<element>(steps, samples, index{1}, channels);
    detail::borrowed_map<Steps> const memory(steps, samples, tokens);
    if constexpr (Steps::runs) {
      token_map const& rest = memory.view;
      for (index b = 0; b < samples; ++b) {
        index const others = kept.count(b);
        bool const any = map.count(b) > others;
        rest.counts[b] = any;
        for (index i = 0; i < tokens; ++i) rest.to(b, i) = any && map.to(b, i) == others ? 0 : -1;
        for (index c = 0; c < channels; ++c)
          delta.view(b, 0, c) =
              any ? static_cast<element>(static_cast<float>(after(b, others, c)) - static_cast<float>(before(b, others, c))) : element(0.f);
      }
      add_tokens(steps.policy, rest, moved{delta.view, x});
    }
  }
  /// The map is that of the lists: their tokens, and one more for the others.
  template <class V>
  static void check(index_lists const& kept, token_map const& map, V const& x) {
    constexpr char const* op = "toc3d_restore";
    map.check(op);
    map.check_shape(op, x.extent(0));
    detail::expect_equal(op, "the tokens of the map", map.tokens(), "x.extent(1)", x.extent(1));
    kept.check(op, x.extent(0), x.extent(1));
  }
} toc3d_restore{};

}  // namespace TERN_ABI
}  // namespace tern

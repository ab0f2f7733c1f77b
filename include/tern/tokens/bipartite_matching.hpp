// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/bipartite_matching.hpp
/// Bipartite soft matching (ToMe): which tokens to merge, and into which.
///
///     bipartite_matching(policy, metric, r, pairs)
///     bipartite_matching(policy, metric, r, pairs, {.always = {1}, .lengths = lengths, .penalty = p})
///     bipartite_sources(tokens, always)      how many sources there are: pairs.most() has to be as many, or r where that is less
///
///     A = the tokens 0, 2, 4, ..., B = the tokens 1, 3, 5, ..., without protected ones
///     to(a) = argmax over b in B of cos(m_a, m_b),     the r tokens of A with the largest cos(m_a, m_to(a)) - p_a are paired
///
/// Shapes    metric (samples, tokens, dim) f32, f16 or bf16, rows contiguous: the means of keys over heads, for one; pairs token_pairs of
///           as many samples; lengths (samples) int32: tokens from there on are none; penalty (samples, tokens) f32.
/// Pairs     the largest similarity (less the penalty) first; of equal ones the first token, which goes to the first of equally similar
///           ones. Fewer than r where there are not as many sources, or where similarities are -inf or NaN.
/// Protected tokens at both ends (class and distillation tokens) neither merge nor are merged into.
/// Composition  most_similar, select_top, a sort of the chosen; map_merged (token_map.hpp) and average_tokens do the rest.
/// Memory    from the policy: 8 bytes a token of all samples, and what most_similar takes.
/// Cost      tokens^2 dim / 2 flop; the rest passes over tokens / 2 numbers.
/// Source    Bolya et al. 2023, Token Merging: Your ViT But Faster, arXiv:2210.09461 (section 3) and its code, tome/merge.py. There what
///           is left of A stands before B; here tokens keep their order (token_map.hpp).

#include <tern/core/heap_sort.hpp>
#include <tern/tokens/borrowed.hpp>
#include <tern/tokens/most_similar.hpp>
#include <tern/tokens/select_tokens.hpp>

namespace tern {

/// What a matching may have beside its metric: see the top of this file.
struct matching_options {
  protect always{};
  tensor_view<std::int32_t const, 1> lengths{};  ///< (samples)
  tensor_view<float const, 2> penalty{};         ///< (samples, tokens)
};

/// How many tokens may merge into others.
TERN_INLINE index bipartite_sources(index tokens, protect const& always) {
  index const first = (always.first + 1) / 2 * 2, end = tokens - always.last;
  return first < end ? (end - first + 1) / 2 : 0;
}

inline namespace TERN_ABI {

/// bipartite_matching(policy, metric, r, pairs, options): see the top of this file.
inline constexpr struct bipartite_matching_fn {
  template <tensor_like M>
  void operator()(cpu_policy const& policy, M&& metric, index r, token_pairs const& pairs, matching_options const& options = {},
                  compute mode = compute::f32) const {
    static_assert(view_of<M>::rank == 3, "tern: bipartite_matching takes a metric (samples, tokens, dim)");
    auto const m = tern::view(metric);
    check(m, r, pairs, options);
    detail::run_steps steps(policy);
    match(steps, m, r, pairs, options, mode);
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like M>
  std::size_t workspace_size(cpu_policy const& policy, M&& metric, index r, token_pairs const& pairs, matching_options const& options = {},
                             compute mode = compute::f32) const {
    detail::count_steps steps(policy);
    match(steps, tern::view(metric), r, pairs, options, mode);
    return steps.bytes();
  }

 private:
  template <class Steps, class V>
  static void match(Steps& steps, V const& m, index r, token_pairs const& pairs, matching_options const& options, compute mode) {
    index const samples = m.extent(0), tokens = m.extent(1), half = tokens / 2 + 1;
    detail::borrowed_lists<Steps> const from(steps, samples, half), into(steps, samples, half);
    auto const best = detail::borrow<std::int32_t>(steps, samples, half);
    auto const similarity = detail::borrow<float>(steps, samples, half);
    index_lists const &sources = from.view, &targets = into.view;
    if constexpr (Steps::runs)
      for (index b = 0; b < samples; ++b) {
        index const end = detail::length_of(options.lengths, b, tokens) - options.always.last;
        list(sources, b, (options.always.first + 1) / 2 * 2, end);
        list(targets, b, options.always.first / 2 * 2 + 1, end);
      }
    steps(most_similar, m, sources, targets, best.view, similarity.view, mode);
    if constexpr (Steps::runs)
      detail::for_rows(steps.policy, samples, 4 * tokens,
                       [&](index b) TERN_LAMBDA { choose(b, r, sources, targets, best.view[b], similarity.view[b], pairs, options); });
  }
  /// Every other token.
  TERN_INLINE static void list(index_lists const& to, index b, index first, index end) {
    std::int32_t count = 0;
    for (index i = first; i < end; i += 2) to.row(b)[count++] = static_cast<std::int32_t>(i);
    to.counts[b] = count;
  }
  /// The r best pairs of a sample. Its list of targets is of no use any more, and takes their order.
  static void choose(index b, index r, index_lists const& sources, index_lists const& targets, tensor_view<std::int32_t, 1> const& best,
                     tensor_view<float, 1> const& similarity, token_pairs const& pairs, matching_options const& options) noexcept {
    index const n = sources.count(b);
    for (index i = 0; i < n; ++i) {
      if (options.penalty.data() != nullptr) similarity[i] -= options.penalty(b, sources.row(b)[i]);
      if (similarity[i] != similarity[i]) similarity[i] = -__builtin_inff();
    }
    std::int32_t* const order = targets.row(b);
    index const room = r < pairs.most() ? r : pairs.most();
    index const count = select_top(similarity.slice(0, 0, n), room, tern::view(order, targets.most()));
    detail::heap_sort(order, count, [&](std::int32_t x, std::int32_t y) TERN_LAMBDA {
      return similarity[x] > similarity[y] || (similarity[x] == similarity[y] && x < y);
    });
    for (index p = 0; p < count; ++p) {
      pairs.from(b, p) = sources.row(b)[order[p]];
      pairs.to(b, p) = best[order[p]];
      pairs.similarity(b, p) = similarity[order[p]];
    }
    pairs.counts[b] = static_cast<std::int32_t>(count);
  }
  template <class V>
  static void check(V const& m, index r, token_pairs const& pairs, matching_options const& options) {
    constexpr char const* op = "bipartite_matching";
    index const samples = m.extent(0), tokens = m.extent(1);
    detail::expect(r >= 0, op, "r", r, "at least 0");
    detail::check_protect(op, options.always);
    pairs.check_shape(op, samples);
    index const wanted = detail::least(r, bipartite_sources(tokens, options.always));
    detail::expect_at_least(op, "pairs.from.extent(1)", pairs.most(), "at least r, or the sources where they are fewer", wanted);
    detail::check_lengths(op, options.lengths, samples, tokens);
    if (options.penalty.data() == nullptr) return;
    detail::expect_equal(op, "penalty.extent(0)", options.penalty.extent(0), "the samples", samples);
    detail::expect_equal(op, "penalty.extent(1)", options.penalty.extent(1), "the tokens", tokens);
  }
} bipartite_matching{};

}  // namespace TERN_ABI
}  // namespace tern

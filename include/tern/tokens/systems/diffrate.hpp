// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/systems/diffrate.hpp
/// DiffRate: in each layer the tokens that the class token looks at least are dropped, and the next ones merged into those that stay.
///
///     diffrate(policy, x, received, pruned, merged, map, sizes, merged_sizes, y)
///
///     the `pruned` tokens with the largest a_i survive, the `merged` ones with the largest stay; token 0, the class token, always
///     each other survivor e goes to argmax over the tokens j > 0 that stay of cos(x_e, x_j)
///     y_j = the mean, without weights, of what became j;     merged_sizes_j = s_j + sum over e of s_e cos(x_e, x_j)
///
/// Shapes    x (samples, tokens, channels) f32, f16 or bf16, behind the attention's residual; received (samples, tokens) as
///           attention_received writes it for the class token; map, sizes, merged_sizes and y as in average_tokens.hpp. The learned
///           numbers of each layer are 2 <= merged <= pruned <= tokens. merged = tokens changes no bit.
/// Sizes     fall where a token goes to one with a negative cosine, and are none any more below 0 (log_sizes makes NaN of these).
/// Composition  select_tokens twice, most_similar, average_tokens twice: with cosines in the sizes, and without weights.
/// Memory    from the policy: 24 bytes a token, and what these take.
/// Cost      2 merged (pruned - merged) channels flop, passes over the scores, and reads and writes each token once.
/// Source    Chen et al. 2023, arXiv:2305.17997; DiffRate/merge.py and patch/deit.py of its authors, where tokens leave in the order of
///           importance, while here they keep theirs.

#include <tern/tokens/average_tokens.hpp>
#include <tern/tokens/borrowed.hpp>
#include <tern/tokens/most_similar.hpp>
#include <tern/tokens/select_tokens.hpp>

namespace tern {
inline namespace TERN_ABI {

/// diffrate(policy, x, received, pruned, merged, map, sizes, merged_sizes, y): see the top of this file.
inline constexpr struct diffrate_fn {
  template <tensor_like X, tensor_like Y>
  void operator()(cpu_policy const& policy, X&& x, tensor_view<float const, 2> const& received, index pruned, index merged,
                  token_map const& map, tensor_view<float const, 2> const& sizes, tensor_view<float, 2> const& merged_sizes, Y&& y) const {
    auto const from = tern::view(x);
    check(from, received, pruned, merged, map, sizes);
    detail::run_steps steps(policy);
    reduce(steps, from, received, pruned, merged, map, sizes, merged_sizes, tern::view(y));
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like X, tensor_like Y>
  std::size_t workspace_size(cpu_policy const& policy, X&& x, tensor_view<float const, 2> const& received, index pruned, index merged,
                             token_map const& map, tensor_view<float const, 2> const& sizes, tensor_view<float, 2> const& merged_sizes,
                             Y&& y) const {
    detail::count_steps steps(policy);
    reduce(steps, tern::view(x), received, pruned, merged, map, sizes, merged_sizes, tern::view(y));
    return steps.bytes();
  }

 private:
  template <class Steps, class X, class Y>
  static void reduce(Steps& steps, X const& x, tensor_view<float const, 2> const& received, index pruned, index merged,
                     token_map const& map, tensor_view<float const, 2> const& sizes, tensor_view<float, 2> const& merged_sizes,
                     Y const& y) {
    index const samples = x.extent(0), tokens = x.extent(1);
    detail::borrowed_lists<Steps> const stay(steps, samples, merged), targets(steps, samples, merged), sources(steps, samples, pruned);
    auto const best = detail::borrow<std::int32_t>(steps, samples, pruned);
    auto const similarity = detail::borrow<float>(steps, samples, pruned);
    auto const weights = detail::borrow<float>(steps, samples, tokens);
    steps(select_tokens, received, pruned, protect{1}, sources.view);
    steps(select_tokens, received, merged, protect{1}, stay.view);
    if constexpr (Steps::runs)
      for (index b = 0; b < samples; ++b) split(b, stay.view, targets.view, sources.view);
    steps(most_similar, x, sources.view, targets.view, best.view, similarity.view);
    if constexpr (Steps::runs) {
      map_kept(stay.view, map);
      for (index b = 0; b < samples; ++b) {
        for (index i = 0; i < tokens; ++i) weights.view(b, i) = sizes.data() != nullptr ? sizes(b, i) : 1.f;
        for (index e = 0; e < sources.view.count(b); ++e) {
          index const i = sources.view.row(b)[e];
          map.to(b, i) = map.to(b, best.view(b, e));
          weights.view(b, i) *= similarity.view(b, e);
        }
      }
    }
    steps(average_tokens, map, weights.view, merged_sizes);
    steps(average_tokens, map, tensor_view<float const, 2>(), tensor_view<float, 2>(), moved{x, y});
  }
  /// What stays, without the class token, and what survives without what stays.
  TERN_INLINE static void split(index b, index_lists const& stay, index_lists const& targets, index_lists const& sources) {
    std::int32_t count = 0, next = 0;
    for (index i = 1; i < stay.count(b); ++i) targets.row(b)[i - 1] = stay.row(b)[i];
    targets.counts[b] = stay.counts[b] > 0 ? stay.counts[b] - 1 : 0;
    for (index i = 0; i < sources.count(b); ++i) {
      std::int32_t const token = sources.row(b)[i];
      if (next < stay.counts[b] && stay.row(b)[next] == token)
        ++next;
      else
        sources.row(b)[count++] = token;
    }
    sources.counts[b] = count;
  }
  template <class V>
  static void check(V const& x, tensor_view<float const, 2> const& received, index pruned, index merged, token_map const& map,
                    tensor_view<float const, 2> const& sizes) {
    constexpr char const* op = "diffrate";
    detail::expect_rows(op, "x", x);
    map.check_shape(op, x.extent(0));
    detail::expect_equal(op, "the tokens of the map", map.tokens(), "x.extent(1)", x.extent(1));
    for (int d = 0; d < 2; ++d) {
      detail::expect_extent(op, "received", received, d, "x", x, d);
      if (sizes.data() != nullptr) detail::expect_extent(op, "sizes", sizes, d, "x", x, d);
    }
    detail::expect(pruned <= x.extent(1), op, "pruned", pruned, "at most the tokens");
    detail::expect(merged >= 2 && merged <= pruned, op, "merged", merged, "2 to pruned");
  }
} diffrate{};

}  // namespace TERN_ABI
}  // namespace tern

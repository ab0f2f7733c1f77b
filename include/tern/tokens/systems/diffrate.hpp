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
    index const samples = from.extent(0), tokens = from.extent(1), all = samples * tokens;
    check(from, received, pruned, merged, map, sizes);
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(6 * all + 3 * samples) * 4);
    auto* const at = reinterpret_cast<std::int32_t*>(memory.data());
    auto const lists = [&](index n) {
      return index_lists{tern::view(at + n * all, samples, tokens), tern::view(at + 6 * all + n * samples, samples)};
    };
    index_lists const stay = lists(0), targets = lists(1), sources = lists(2);
    auto const best = tern::view(at + 3 * all, samples, tokens);
    auto const similarity = tern::view(reinterpret_cast<float*>(at + 4 * all), samples, tokens);
    auto const weights = tern::view(reinterpret_cast<float*>(at + 5 * all), samples, tokens);
    select_tokens(policy, received, pruned, protect{1}, sources);
    select_tokens(policy, received, merged, protect{1}, stay);
    for (index b = 0; b < samples; ++b) split(b, stay, targets, sources);
    most_similar(policy, from, sources, targets, best, similarity);
    map_kept(stay, map);
    for (index b = 0; b < samples; ++b) {
      for (index i = 0; i < tokens; ++i) weights(b, i) = sizes.data() != nullptr ? sizes(b, i) : 1.f;
      for (index e = 0; e < sources.count(b); ++e) {
        index const i = sources.row(b)[e];
        map.to(b, i) = map.to(b, best(b, e));
        weights(b, i) *= similarity(b, e);
      }
    }
    average_tokens(policy, map, weights, merged_sizes);
    average_tokens(policy, map, {}, {}, moved{from, y});
  }

 private:
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

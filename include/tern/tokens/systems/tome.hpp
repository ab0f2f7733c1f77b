// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/systems/tome.hpp
/// Token merging (ToMe): in each layer the r most similar pairs of tokens become one, weighted by how many tokens they stand for.
///
///     tome(policy, metric, r, {.always = {1}}, map, sizes, merged_sizes, moved{x, y}, ...)
///
///     pairs as bipartite_matching(policy, metric, r) finds them;   y_j = sum of s_i x_i / sum of s_i over the tokens i that became j
///
/// Shapes    metric (samples, tokens, dim): the mean of keys over heads; map, sizes, merged_sizes and tensors as in average_tokens.hpp.
/// r = 0     changes no bit. Attention takes proportional{log sizes} (tokens/proportional.hpp) wherever sizes are not one.
/// Composition  bipartite_matching, map_merged, average_tokens.
/// Memory    from the policy: 12 bytes a pair, and what these take.
/// Cost      tokens^2 dim / 2 flop for the matching, and reads and writes each tensor once.
/// Source    Bolya et al. 2023, arXiv:2210.09461; its code, tome/merge.py, where what is left of every other token stands before the rest,
///           while here tokens keep their order.

#include <tern/tokens/average_tokens.hpp>
#include <tern/tokens/bipartite_matching.hpp>

namespace tern {
inline namespace TERN_ABI {

/// tome(policy, metric, r, options, map, sizes, merged_sizes, moved...): see the top of this file.
inline constexpr struct tome_fn {
  template <tensor_like M, class... From, class... To>
  void operator()(cpu_policy const& policy, M&& metric, index r, matching_options const& options, token_map const& map,
                  tensor_view<float const, 2> const& sizes, tensor_view<float, 2> const& merged_sizes,
                  moved<From, To> const&... tensors) const {
    detail::run_steps steps(policy);
    merge(steps, tern::view(metric), r, options, map, sizes, merged_sizes, tensors...);
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like M, class... From, class... To>
  std::size_t workspace_size(cpu_policy const& policy, M&& metric, index r, matching_options const& options, token_map const& map,
                             tensor_view<float const, 2> const& sizes, tensor_view<float, 2> const& merged_sizes,
                             moved<From, To> const&... tensors) const {
    detail::count_steps steps(policy);
    merge(steps, tern::view(metric), r, options, map, sizes, merged_sizes, tensors...);
    return steps.bytes();
  }

 private:
  template <class Steps, class V, class... From, class... To>
  static void merge(Steps& steps, V const& m, index r, matching_options const& options, token_map const& map,
                    tensor_view<float const, 2> const& sizes, tensor_view<float, 2> const& merged_sizes,
                    moved<From, To> const&... tensors) {
    index const sources = bipartite_sources(m.extent(1), options.always);
    detail::borrowed_pairs<Steps> const pairs(steps, m.extent(0), r < 0 ? 0 : detail::least(r, sources));
    steps(bipartite_matching, m, r, pairs.view, options);
    if constexpr (Steps::runs) map_merged(pairs.view, map, options.lengths);
    steps(average_tokens, map, sizes, merged_sizes, tensors...);
  }
} tome{};

}  // namespace TERN_ABI
}  // namespace tern

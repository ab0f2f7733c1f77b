// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/systems/turbo.hpp
/// Turbo: tokens merge by mutual redundancy and semantic value together, so that what resembles others stays where the class token looks.
///
///     turbo(policy, metric, received, weight, r, {.always = {1}}, map, sizes, merged_sizes, moved{x, y}, ...)
///
///     E_ij = cos(m_i, m_j) - weight a_i,     a_i the attention that token i receives from the class token
///
/// Shapes    received (samples, tokens), as attention_received writes it; all else as in tome.hpp, with E in place of the cosine. `weight`
///           is what the paper calls alpha; its code multiplies by 30 and by beta^|gamma - layer|.
/// weight = 0   is ToMe to the bit.
/// Composition  tome with a penalty.
/// Memory    from the policy: a number a token, and what tome takes.
/// Cost      what tome takes, and a pass over received.
/// Source    Ju et al. 2024, arXiv:2407.11717, by its authors' code, where what is left of every other token stands before the rest.

#include <tern/tokens/systems/tome.hpp>

namespace tern {
inline namespace TERN_ABI {

/// turbo(policy, metric, received, weight, r, options, map, sizes, merged_sizes, moved...): see the top of this file.
inline constexpr struct turbo_fn {
  template <tensor_like M, class... From, class... To>
  void operator()(cpu_policy const& policy, M&& metric, tensor_view<float const, 2> const& received, float weight, index r,
                  matching_options const& options, token_map const& map, tensor_view<float const, 2> const& sizes,
                  tensor_view<float, 2> const& merged_sizes, moved<From, To> const&... tensors) const {
    auto const m = tern::view(metric);
    for (int d = 0; d < 2; ++d) detail::expect_extent("turbo", "received", received, d, "metric", m, d);
    detail::run_steps steps(policy);
    merge(steps, m, received, weight, r, options, map, sizes, merged_sizes, tensors...);
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like M, class... From, class... To>
  std::size_t workspace_size(cpu_policy const& policy, M&& metric, tensor_view<float const, 2> const& received, float weight, index r,
                             matching_options const& options, token_map const& map, tensor_view<float const, 2> const& sizes,
                             tensor_view<float, 2> const& merged_sizes, moved<From, To> const&... tensors) const {
    detail::count_steps steps(policy);
    merge(steps, tern::view(metric), received, weight, r, options, map, sizes, merged_sizes, tensors...);
    return steps.bytes();
  }

 private:
  template <class Steps, class V, class... From, class... To>
  static void merge(Steps& steps, V const& m, tensor_view<float const, 2> const& received, float weight, index r,
                    matching_options const& options, token_map const& map, tensor_view<float const, 2> const& sizes,
                    tensor_view<float, 2> const& merged_sizes, moved<From, To> const&... tensors) {
    index const samples = received.extent(0), tokens = received.extent(1);
    auto const penalty = detail::borrow<float>(steps, samples, tokens);
    if constexpr (Steps::runs)
      for (index b = 0; b < samples; ++b)
        for (index i = 0; i < tokens; ++i) penalty.view(b, i) = weight * received(b, i);
    matching_options with_penalty = options;
    with_penalty.penalty = penalty.view;
    steps(tome, m, r, with_penalty, map, sizes, merged_sizes, tensors...);
  }
} turbo{};

}  // namespace TERN_ABI
}  // namespace tern

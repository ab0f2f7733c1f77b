// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/systems/simvlg.hpp
/// SimVLG: inside the connector between an image encoder and a language model, similar visual tokens merge a little in each layer.
///
///     simvlg(policy, keys, r, map, sizes, merged_sizes, moved{x, y}, ...)        in each layer, on the keys of its attention
///
/// Shapes    keys (samples, heads, tokens, dim) f32, f16 or bf16; the metric is their mean over heads; all else as in tome.hpp, whose
/// matching has no
///           protected tokens here.
/// r = 0     changes no bit.
/// Composition  a mean over heads, tome. The soft temporal merging of videos is attention over frames: x_pool
///           (attention/systems/x_pool.hpp).
/// Memory    from the policy: dim numbers a token, and what tome takes.
/// Cost      reads the keys once, and what tome takes.
/// Source    Jian et al. 2023, arXiv:2310.03291 (SimVLG, later EVLGen), by its description; the matching as in ToMe.

#include <tern/tokens/systems/tome.hpp>

namespace tern {
inline namespace TERN_ABI {

/// simvlg(policy, keys, r, map, sizes, merged_sizes, moved...): see the top of this file.
inline constexpr struct simvlg_fn {
  template <tensor_like K, class... From, class... To>
  void operator()(cpu_policy const& policy, K&& k, index r, token_map const& map, tensor_view<float const, 2> const& sizes,
                  tensor_view<float, 2> const& merged_sizes, moved<From, To> const&... tensors) const {
    static_assert(view_of<K>::rank == 4, "tern: simvlg takes keys (samples, heads, tokens, dim)");
    auto const keys = tern::view(k);
    detail::expect_rows("simvlg", "keys", keys);
    detail::run_steps steps(policy);
    merge(steps, keys, r, map, sizes, merged_sizes, tensors...);
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like K, class... From, class... To>
  std::size_t workspace_size(cpu_policy const& policy, K&& k, index r, token_map const& map, tensor_view<float const, 2> const& sizes,
                             tensor_view<float, 2> const& merged_sizes, moved<From, To> const&... tensors) const {
    detail::count_steps steps(policy);
    merge(steps, tern::view(k), r, map, sizes, merged_sizes, tensors...);
    return steps.bytes();
  }

 private:
  template <class Steps, class V, class... From, class... To>
  static void merge(Steps& steps, V const& keys, index r, token_map const& map, tensor_view<float const, 2> const& sizes,
                    tensor_view<float, 2> const& merged_sizes, moved<From, To> const&... tensors) {
    index const samples = keys.extent(0), tokens = keys.extent(2), dim = keys.extent(3);
    auto const metric = detail::borrow<float>(steps, samples, tokens, dim);
    if constexpr (Steps::runs) average_heads(steps.policy, keys, metric.view);
    steps(tome, metric.view, r, matching_options{}, map, sizes, merged_sizes, tensors...);
  }
  template <class V>
  static void average_heads(cpu_policy const& policy, V const& keys, tensor_view<float, 3> const& metric) {
    index const samples = keys.extent(0), heads = keys.extent(1), tokens = keys.extent(2), dim = keys.extent(3);
    float const share = 1.f / static_cast<float>(heads);
    detail::for_rows(policy, samples * tokens, dim * heads, [&](index row) TERN_LAMBDA {
      index const b = row / tokens, i = row % tokens;
      detail::each_pack(0, dim, [&](index d, auto part) TERN_LAMBDA {
        simd::pack<float> sum(0.f);
        for (index h = 0; h < heads; ++h) sum += detail::load(&keys(b, h, i, 0) + d, part);
        detail::store(&metric(b, i, 0) + d, sum * simd::pack<float>(share), part);
      });
    });
  }
} simvlg{};

}  // namespace TERN_ABI
}  // namespace tern

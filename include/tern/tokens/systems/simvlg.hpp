// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/systems/simvlg.hpp
/// SimVLG: inside the connector between an image encoder and a language model, similar visual tokens merge a little in each layer.
///
///     simvlg(policy, keys, r, map, sizes, merged_sizes, moved{x, y}, ...)        in each layer, on the keys of its attention
///
/// Shapes    keys (samples, heads, tokens, dim) f32; the metric is their mean over heads; all else as in tome.hpp, whose matching has no
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
  template <class... From, class... To>
  void operator()(cpu_policy const& policy, tensor_view<float const, 4> const& keys, index r, token_map const& map,
                  tensor_view<float const, 2> const& sizes, tensor_view<float, 2> const& merged_sizes,
                  moved<From, To> const&... tensors) const {
    index const samples = keys.extent(0), heads = keys.extent(1), tokens = keys.extent(2), dim = keys.extent(3);
    detail::expect_rows("simvlg", "keys", keys);
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(samples * tokens * dim) * sizeof(float));
    auto const metric = tern::view(reinterpret_cast<float*>(memory.data()), samples, tokens, dim);
    float const share = 1.f / static_cast<float>(heads);
    detail::for_rows(policy, samples * tokens, dim * heads, [&](index row) TERN_LAMBDA {
      index const b = row / tokens, i = row % tokens;
      detail::each_pack(0, dim, [&](index d, auto part) TERN_LAMBDA {
        simd::pack<float> sum(0.f);
        for (index h = 0; h < heads; ++h) sum += detail::load(&keys(b, h, i, 0) + d, part);
        detail::store(&metric(b, i, 0) + d, sum * simd::pack<float>(share), part);
      });
    });
    tome(policy, metric, r, {}, map, sizes, merged_sizes, tensors...);
  }
} simvlg{};

}  // namespace TERN_ABI
}  // namespace tern

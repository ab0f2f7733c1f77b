// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/fit.hpp
/// FIT, Far-reaching Interleaved Transformers: data tokens attend within groups, each group has a few latents, and latents attend to
/// all latents.
///
///     local     x = x + attention(x, x)       within each group of n data tokens      tern::fit_groups{n, m}.local()
///     read      z = z + attention(z, x)       m latents of a group from its data      tern::fit_groups{n, m}.read()
///     global    z = z + attention(z, z)       all latents                             no layout
///     write     x = x + attention(x, z)       data of a group from its latents        tern::fit_groups{n, m}.write()
///
///     tern::attention(policy, q_latents, k_data, v_data, out_latents, tern::fit_groups{n, m}.read());
///
/// Shapes    data (heads, groups n, dim), latents (heads, groups m, dim), group by group.
/// Cost      L (n + 2 m) + (L m / n)^2 pairs for L data tokens: of the order of L^(4/3) with n = L^(1/3) and few latents.
/// Source    Chen and Li 2023 (arXiv:2305.12689), section 2: groups, latents, and the four attentions of a block, each between
///           projections, residuals and norms of its own.

#include <tern/attention/even_groups.hpp>

namespace tern {

/// Groups of data tokens with latents of their own.
struct fit_groups {
  index data, latents;
  TERN_INLINE constexpr even_groups local() const { return {data, data}; }
  TERN_INLINE constexpr even_groups read() const { return {latents, data}; }
  TERN_INLINE constexpr even_groups write() const { return {data, latents}; }
};

}  // namespace tern

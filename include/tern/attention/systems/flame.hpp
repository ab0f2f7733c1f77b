// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/flame.hpp
/// FLAME's facet-decoupled attention: several facet prompts follow one long caption and do not see each other, in one pass.
///
///     key j is seen by query i:   j <= i and (j < prefix or facet(i) == facet(j))
///
///     tern::attention(policy, q, k, v, out, tern::facet_decoupled(facets, prefix));
///
/// Shapes    facets int32 (tokens), ascending; those of the prefix lie below the others.
/// Positions are the tokens' indices; where each facet should continue the caption, give its tokens positions from `prefix` on when
///           rotating q and k.
/// Limits    one facet is causal.
/// Source    Cao et al. 2025 (arXiv:2411.11927), section 3, in words; the mask is the shared prefix of a tree of depth one.

#include <tern/attention/document_ids.hpp>

namespace tern {

/// The mask of facets that share a prefix.
template <tensor_like X>
TERN_INLINE constexpr auto facet_decoupled(X&& facets, index prefix) {
  return document_ids(facets, prefix) & causal{};
}

}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/causal_at.hpp
/// Causal attention of some tokens of a text that stand anywhere in it: probes, or those that are computed anew.
///
///     attention(policy, q, cache.keys(s, layer), cache.values(s, layer), out, causal_at{places})
///
/// A mask (attention/mask.hpp): query i sees key j where j <= places[i].
///
/// Shapes    places int32 (tokens of q), ascending.
/// Errors    places that do not ascend, as many as q has no tokens.
/// Source    the partial rows of CacheBlend (arXiv:2405.16444), the probes of ZipVL (arXiv:2410.08584).

#include <tern/attention/mask.hpp>
#include <tern/attention/score.hpp>
#include <tern/core/tensor_view.hpp>

namespace tern {

/// Keys up to each query's own place: see the top of this file.
struct causal_at {
  tensor_view<std::int32_t const, 1> places;

  template <tensor_like X>
  TERN_INLINE constexpr explicit causal_at(X&& x) : places(tern::view(x)) {}

  TERN_INLINE constexpr key_range row(index i) const { return {0, places[i] + 1}; }
  TERN_INLINE constexpr key_range range(index, index i1) const { return row(i1 - 1); }
  TERN_INLINE constexpr coverage covers(index i0, index i1, index j0, index j1) const {
    if (j0 >= row(i1 - 1).end) return coverage::none;
    return j1 <= row(i0).end ? coverage::all : coverage::some;
  }
  TERN_INLINE constexpr bool visible(index i, index j) const { return j < row(i).end; }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_equal("attention", "the extent of causal_at's places", places.extent(0), "the tokens of q", n.tokens);
    for (index i = 0; i < places.extent(0); ++i)
      detail::expect(places[i] > (i > 0 ? index{places[i - 1]} : -1), "attention", "a place of causal_at", index{places[i]},
                     "more than the one before");
  }
};

}  // namespace tern

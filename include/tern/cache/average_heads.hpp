// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/average_heads.hpp
/// Scores on which all heads of a layer agree, so that all keep the same tokens.
///
///     average_heads(cache, s, layer, scores)     scores_hj = the mean over the heads g of scores_gj
///
/// Shapes    scores (kv_heads, keys) f32. Fails unless all heads of the layer hold tokens at the same positions.

#include <tern/cache/kv_tables.hpp>

namespace tern {

/// See the top of this file.
TERN_INLINE void average_heads(detail::kv_tables const& cache, std::int32_t s, index layer, tensor_view<float, 2> const& scores) {
  constexpr char const* op = "average_heads";
  index const heads = cache.shape().kv_heads, keys = cache.longest(s, layer);
  detail::expect_equal(op, "scores.extent(0)", scores.extent(0), "kv_heads", heads);
  detail::expect_equal(op, "scores.extent(1)", scores.extent(1), "the tokens of the layer", keys);
  for (index h = 0; h < heads; ++h) {
    detail::expect_equal(op, "the number of a head's tokens", cache.length(s, layer, h), "that of the longest head", keys);
    for (index j = 0; j < keys; ++j)
      detail::expect_equal(op, "a token's position", cache.positions(s, layer, h)[j], "that in head 0", cache.positions(s, layer, 0)[j]);
  }
  for (index j = 0; j < keys; ++j) {
    float sum = 0;
    for (index h = 0; h < heads; ++h) sum += scores(h, j);
    for (index h = 0; h < heads; ++h) scores(h, j) = sum / static_cast<float>(heads);
  }
}

}  // namespace tern

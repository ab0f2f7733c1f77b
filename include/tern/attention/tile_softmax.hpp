// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/tile_softmax.hpp
/// One step of the online softmax over a tile's scores, whose weights go to where the second product wants them.
///
///     m' = max(m, max_j s_j);  p_j = 2^(s_j - m');  l' = l 2^(m - m') + sum_j p_j
///
/// A tile with few bits for a weight takes weights relative to the block's own maximum b instead, so that they fill its range: p_j = 2^(s_j
/// - b), and the factor 2^(b - m') beside them.

#include <tern/attention/tile.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Scores of key panels [first, last) to weights at p, by Tile::weight_row. `hide(r, c, s)` gives -inf for those lanes of pack c that
/// row r does not see. l and m of `state` are updated, alpha is set.
template <class Tile, class Score, class Hide>
TERN_INLINE void softmax_weights(float* TERN_RESTRICT s,  // (Tile::rows, key_block)
                                 index first, index last, Score const& score, Hide const& hide, softmax_rows const& state, std::byte* p) {
  using packf = simd::pack<float>;
  constexpr index W = simd::lanes, padded = (Tile::rows + W - 1) / W * W;
  float highest[padded], base[padded], factor[padded];
  for (index r = Tile::rows; r < padded; ++r) highest[r] = negative_infinity;
  for (index r = 0; r < Tile::rows; ++r) {
    float* const row = s + r * key_block;
    packf top(negative_infinity);
    for (index c = 2 * first; c < 2 * last; ++c) {
      packf x = simd::load(row + c * W);
      if constexpr (!Score::is_identity || Hide::hides) {
        x = hide(r, c, score(x));
        simd::store(row + c * W, x);
      }
      top = simd::max(top, x);
    }
    highest[r] = simd::reduce_max(top);
  }
  for (index r = 0; r < Tile::rows; r += W) {
    raise_maxima(highest + r, Tile::rows - r < W ? Tile::rows - r : W, {state.m + r, state.l + r, state.alpha + r}, base + r);
    if constexpr (Tile::relative_to_block) {
      packf const top = simd::load(static_cast<float const*>(highest + r));
      simd::store(factor + r, exp2_of_nonpositive(top - simd::load(static_cast<float const*>(base + r))));
      simd::store(base + r, simd::select(top == packf(negative_infinity), packf(0.f), top));
    }
  }
  for (index r = 0; r < Tile::rows; ++r) {
    float const* const row = s + r * key_block;
    packf const m(base[r]);
    typename Tile::weight_row weights(p, r);
    packf sum(0.f);
    for (index n = first; n < last; ++n) {
      packf const a = exp2_of_nonpositive(simd::load(row + n * panel_width) - m);
      packf const b = exp2_of_nonpositive(simd::load(row + n * panel_width + W) - m);
      weights.put(n, a, b);
      sum += a + b;
    }
    if constexpr (Tile::relative_to_block) {
      weights.put_factor(factor[r]);
      state.l[r] += factor[r] * simd::reduce_add(sum);
    } else {
      state.l[r] += simd::reduce_add(sum);
    }
  }
}

}  // namespace TERN_ABI
}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/tiled_rows.hpp
/// x in the order in which register tiles of f32 products read it.

#include <tern/matmul/float_panel.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Rows of x in a register tile: 2 sums each, beside 2 registers of weights and 1 of x.
inline constexpr int tile_rows = simd::many_registers ? 12 : 6;

/// x by chunks of columns, and within by tiles of rows; rows beyond the last are zeros.
///
///     [columns / chunk_columns][rows / tile_rows][chunk_columns][tile_rows]
struct tiled_rows {
  float* data = nullptr;  // none: x is read where it lies
  index rows = 0;         // a multiple of tile_rows
  TERN_INLINE static constexpr index size(index rows, index columns) { return round_to_multiple(rows, tile_rows) * columns; }
  /// Columns [k0, k1) of the tile that starts at `row`.
  TERN_INLINE float* at(index row, index k0, index k1) const { return data + k0 * rows + row * (k1 - k0); }
};
/// From how many rows on tiling x pays.
inline constexpr index least_tiled_rows = 2 * tile_rows;

/// A tile: `live` rows of x, `columns` columns, to out (columns, tile_rows).
inline void tile_chunk(float const* x, index x_stride, index live, index columns, float* out) noexcept {
  using simd::pack;
  constexpr index W = simd::lanes;
  index k = 0;
  for (; k + W <= columns; k += W)
    for (index first = 0; first < tile_rows; first += W) {
      pack<float> t[W];
      TERN_UNROLL
      for (index i = 0; i < W; ++i) t[i] = first + i < live ? simd::load(x + (first + i) * x_stride + k) : pack<float>(0.f);
      simd::transpose(t);
      for (index i = 0; i < W; ++i) simd::store_n(out + (k + i) * tile_rows + first, t[i], least(W, tile_rows - first));
    }
  for (; k < columns; ++k)
    for (index i = 0; i < tile_rows; ++i) out[k * tile_rows + i] = i < live ? x[i * x_stride + k] : 0.f;
}

}  // namespace TERN_ABI
}  // namespace tern::detail

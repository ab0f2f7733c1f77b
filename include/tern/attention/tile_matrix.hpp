// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/tile_matrix.hpp
/// Both products of attention in matrix registers (simd/tiles.hpp), on bf16 as tile_bf16.hpp packs it: 32 rows of queries or weights
/// times 32 keys or columns of values, which stay in the first cache for the next rows. The registers have been configured for 16 rows.
///
/// Measured on a Xeon with AMX, 64 rows, 128 keys, dim 128, cycles: products of tiles alone 2200 for scores and as many for values, all of
/// scores 4250, all of values 5150: sums that leave the registers are waited for, and stores that miss the first cache take 4 cycles a
/// line. Configuring and releasing takes 195, hence once for all tiles of rows.

#include <tern/attention/tile.hpp>
#include <tern/core/rounding.hpp>
#include <tern/simd/pack.hpp>
#include <tern/simd/tiles.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Bytes of a packed row of pairs: panel_width words.
inline constexpr index pair_bytes = 4 * panel_width;

/// Tiles 0 and 1 += the rows in tile 4 times 16 pairs of a panel whose rows are `stride` bytes apart, tiles 2 and 3 those in tile 5, where
/// there are `more`. `wide`: whether the panel has its second half.
TERN_INLINE void add_panel(std::byte const* b, index stride, bool wide, bool more) {
  using namespace simd;
  tiles::load<6>(b, stride);
  tiles::dot_bf16<0, 4, 6>();
  if (more) tiles::dot_bf16<2, 5, 6>();
  if (!wide) return;
  tiles::load<7>(b + 64, stride);
  tiles::dot_bf16<1, 4, 7>();
  if (more) tiles::dot_bf16<3, 5, 7>();
}

/// S = Q K^T for key panels [first, last). q: (rows, pairs), rows and pairs multiples of 16; k: (panels, pairs, panel_width);
/// s: (rows, key_block).
inline void matrix_scores(std::byte const* q, std::byte const* k, index pairs, index rows, index first, index last, float* s) noexcept {
  using namespace simd;
  constexpr index s_stride = 4 * key_block;
  index const q_stride = 4 * pairs;
  for (index n = first; n < last; ++n)
    for (index r = 0; r < rows; r += 2 * tiles::rows) {
      bool const more = r + tiles::rows < rows;
      tiles::zero<0>();
      tiles::zero<1>();
      tiles::zero<2>();
      tiles::zero<3>();
      for (index t = 0; t < pairs; t += 16) {
        tiles::load<4>(q + r * q_stride + 4 * t, q_stride);
        if (more) tiles::load<5>(q + (r + tiles::rows) * q_stride + 4 * t, q_stride);
        add_panel(k + (n * pairs + t) * pair_bytes, pair_bytes, true, more);
      }
      float* const to = s + r * key_block + n * panel_width;
      float* const lower = to + tiles::rows * key_block;
      tiles::store<0>(to, s_stride);
      tiles::store<1>(to + 16, s_stride);
      if (!more) continue;
      tiles::store<2>(lower, s_stride);
      tiles::store<3>(lower + 16, s_stride);
    }
}

/// Rows of o times alpha. width: a multiple of the lanes.
TERN_INLINE void scale_rows(float const* alpha, index rows, index width, float* o, index o_stride) {
  for (index r = 0; r < rows; ++r) {
    if (alpha[r] == 1.f) continue;  // most rows soon have seen their largest score
    for (index d = 0; d < width; d += simd::lanes) {
      float* const to = o + r * o_stride + d;
      simd::store(to, simd::load(static_cast<float const*>(to)) * simd::pack<float>(alpha[r]));
    }
  }
}

/// O = diag(alpha) O + P V over key panels [first, last). p: (rows, key_block), rows a multiple of 16; v: (panels of columns,
/// key_block / 2, panel_width) pairs, the last panel of half the width where no more is left.
inline void matrix_values(std::byte const* p, std::byte const* v, index dim_v, index rows, index first, index last, float const* alpha,
                          float* o, index o_stride) noexcept {
  using namespace simd;
  constexpr index p_stride = 2 * key_block;
  index const width = round_to_multiple(dim_v, simd::lanes), stride = 4 * o_stride;
  scale_rows(alpha, rows, width, o, o_stride);
  for (index d = 0; d < width; d += panel_width) {
    bool const wide = width - d > 16;
    index const v_stride = wide ? pair_bytes : pair_bytes / 2;
    std::byte const* const panel = v + 2 * d * key_block;
    for (index r = 0; r < rows; r += 2 * tiles::rows) {
      bool const more = r + tiles::rows < rows;
      float* const to = o + r * o_stride + d;
      float* const lower = to + tiles::rows * o_stride;
      tiles::load<0>(to, stride);
      if (wide) tiles::load<1>(to + 16, stride);
      if (more) tiles::load<2>(lower, stride);
      if (more && wide) tiles::load<3>(lower + 16, stride);
      for (index n = first; n < last; ++n) {
        std::byte const* const weights = p + r * p_stride + 2 * panel_width * n;
        tiles::load<4>(weights, p_stride);
        if (more) tiles::load<5>(weights + tiles::rows * p_stride, p_stride);
        add_panel(panel + panel_width / 2 * n * v_stride, v_stride, wide, more);
      }
      tiles::store<0>(to, stride);
      if (wide) tiles::store<1>(to + 16, stride);
      if (more) tiles::store<2>(lower, stride);
      if (more && wide) tiles::store<3>(lower + 16, stride);
    }
  }
}

}  // namespace TERN_ABI
}  // namespace tern::detail

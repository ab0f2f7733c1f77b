// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/tile_matrix.hpp
/// Both products of attention in matrix registers (simd/tiles.hpp), on bf16 as tile_bf16.hpp packs it: twelve rows of queries or weights
/// times 64 keys or columns of values.

#include <tern/attention/tile.hpp>
#include <tern/core/rounding.hpp>
#include <tern/simd/pack.hpp>
#include <tern/simd/tiles.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Bytes of a packed row of pairs: panel_width words.
inline constexpr index pair_bytes = 4 * panel_width;

/// Tiles 0 and 1 += 16 pairs of the rows in tile 4 times those of a panel whose rows are `stride` bytes apart; or tiles 2 and 3.
template <int First>
TERN_INLINE void add_panel(std::byte const* b, index stride, bool both) {
  using namespace simd;
  tiles::load<6>(b, stride);
  tiles::dot_bf16<First, 4, 6>();
  if (!both) return;
  tiles::load<7>(b + 64, stride);
  tiles::dot_bf16<First + 1, 4, 7>();
}

/// S = Q K^T for key panels [first, last). q: (query_tile_rows, pairs), pairs a multiple of 16; k: (panels, pairs, panel_width);
/// s: (query_tile_rows, key_block).
inline void matrix_scores(std::byte const* q, std::byte const* k, index pairs, index first, index last, float* s) noexcept {
  using namespace simd;
  constexpr index s_stride = 4 * key_block;
  tiles::configure(tiles::shape(query_tile_rows, query_tile_rows));
  for (index n = first; n < last; n += 2) {
    bool const two = n + 1 < last;
    std::byte const* const left = k + n * pairs * pair_bytes;
    std::byte const* const right = left + pairs * pair_bytes;
    tiles::zero<0>();
    tiles::zero<1>();
    tiles::zero<2>();
    tiles::zero<3>();
    for (index t = 0; t < pairs; t += 16) {
      tiles::load<4>(q + 4 * t, 4 * pairs);
      add_panel<0>(left + t * pair_bytes, pair_bytes, true);
      if (two) add_panel<2>(right + t * pair_bytes, pair_bytes, true);
    }
    float* const to = s + n * panel_width;
    tiles::store<0>(to, s_stride);
    tiles::store<1>(to + 16, s_stride);
    if (!two) continue;
    tiles::store<2>(to + panel_width, s_stride);
    tiles::store<3>(to + panel_width + 16, s_stride);
  }
  tiles::release();
}

/// Rows of o times alpha. width: a multiple of the lanes.
TERN_INLINE void scale_rows(float const* alpha, index width, float* o, index o_stride) {
  for (index r = 0; r < query_tile_rows; ++r) {
    if (alpha[r] == 1.f) continue;  // most rows soon have seen their largest score
    for (index d = 0; d < width; d += simd::lanes) {
      float* const to = o + r * o_stride + d;
      simd::store(to, simd::load(static_cast<float const*>(to)) * simd::pack<float>(alpha[r]));
    }
  }
}

/// O = diag(alpha) O + P V over key panels [first, last). p: (query_tile_rows, key_block); v: (panels of columns, key_block / 2,
/// panel_width) pairs, the last panel of half the width where no more is left.
inline void matrix_values(std::byte const* p, std::byte const* v, index dim_v, index first, index last, float const* alpha, float* o,
                          index o_stride) noexcept {
  using namespace simd;
  constexpr index panel_size = key_block / 2 * pair_bytes, p_stride = 2 * key_block;
  index const width = round_to_multiple(dim_v, simd::lanes), stride = 4 * o_stride;
  scale_rows(alpha, width, o, o_stride);
  tiles::configure(tiles::shape(query_tile_rows, query_tile_rows));
  for (index d = 0; d < width; d += 2 * panel_width) {
    index const parts = least(4, (width - d) / 16);  // of 16 columns
    std::byte const* const left = v + d / panel_width * panel_size;
    std::byte const* const right = left + panel_size;
    index const left_stride = parts > 1 ? pair_bytes : pair_bytes / 2, right_stride = parts > 3 ? pair_bytes : pair_bytes / 2;
    float* const to = o + d;
    tiles::load<0>(to, stride);
    if (parts > 1) tiles::load<1>(to + 16, stride);
    if (parts > 2) tiles::load<2>(to + 32, stride);
    if (parts > 3) tiles::load<3>(to + 48, stride);
    for (index n = first; n < last; ++n) {
      tiles::load<4>(p + 2 * panel_width * n, p_stride);
      add_panel<0>(left + panel_width / 2 * n * left_stride, left_stride, parts > 1);
      if (parts > 2) add_panel<2>(right + panel_width / 2 * n * right_stride, right_stride, parts > 3);
    }
    tiles::store<0>(to, stride);
    if (parts > 1) tiles::store<1>(to + 16, stride);
    if (parts > 2) tiles::store<2>(to + 32, stride);
    if (parts > 3) tiles::store<3>(to + 48, stride);
  }
  tiles::release();
}

}  // namespace TERN_ABI
}  // namespace tern::detail

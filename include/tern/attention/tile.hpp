// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/tile.hpp
/// The shape of a tile of rows and a block of keys, and what is kept of the rows from block to block.

#include <tern/attention/score.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Rows of a register tile, whose accumulators, operands and one broadcast fit the registers: 12 x 2 of 32, 6 x 2 of 16.
inline constexpr index query_tile_rows = simd::many_registers ? 12 : 6;
/// Rows that go from one product to the other together: two register tiles, so that the end of each step is waited for half as often.
inline constexpr index prompt_tile_rows = 2 * query_tile_rows;
/// Lanes over keys (scores) or over dim_v (values) in a tile: two packs.
inline constexpr index panel_width = 2 * simd::lanes;
/// Keys between two updates of the running softmax. Block boundaries are multiples of it, so that a row does not depend on
/// its neighbors.
inline constexpr index key_block = 128;
static_assert(key_block % panel_width == 0);

inline constexpr float negative_infinity = -__builtin_inff();

/// The running state of some rows: the maximum m and the sum l of weights relative to it, 2^(s - m), so far.
struct softmax_rows {
  float* m;               // (rows)
  float* l;               // (rows)
  float* alpha;           // (rows): by what earlier sums are to be multiplied
  float* base = nullptr;  // (rows) or null: what weights are relative to
};

}  // namespace TERN_ABI
}  // namespace tern::detail

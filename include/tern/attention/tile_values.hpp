// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/tile_values.hpp
/// The weighted sum of the values of a block that lie in tiles of 8 or 4 bits; of 2 bits, two_bit_kernels.hpp.

#include <tern/attention/two_bit_kernels.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// o[r] = alpha[r] o[r] + sum_j p[r * key_block + j] v[j] for weights p >= 0. Fetches the tiles of `ahead`.
template <int R, class Format>
  requires(Format::bits != 2)
[[gnu::noinline]] inline void tile_values(float const* p,                                                 // (R, key_block)
                                          std::byte const* const* tile, index count, index dim_v,         // (count <= key_block) tokens
                                          float const* alpha,                                             // (R)
                                          fetch_ahead const& ahead, float* o, index o_stride) noexcept {  // (R, dim_v)
  static_assert(!Format::keys);
  constexpr index T = Format::tokens;
  auto tokens_in = [&](index t) TERN_LAMBDA { return count - t * T < T ? count - t * T : T; };
  auto block_at = [&](index t, index b) TERN_LAMBDA { return reinterpret_cast<std::uint8_t const*>(tile[t]) + b * Format::block_bytes; };
  for (index r = 0; r < R; ++r)
    if (alpha[r] != 1)
      for (index d = 0; d < dim_v; d += simd::lanes)
        simd::store(o + r * o_stride + d, simd::load(o + r * o_stride + d) * simd::pack<float>(alpha[r]));
  index const blocks = dim_v / 32, tiles = (count + T - 1) / T;
  constexpr index within = tile_block_turns * passes_of_line, turns = 18 * passes_of_line;  // the others while weights are made
  tile_fetch const fetch(ahead, blocks, turns);
  tile_weights<R> weights[key_block / T];
  for (index t = 0; t < tiles; ++t) weights[t].take(p + t * T, tokens_in(t));
  // The integers of a block are made before the dot products of the one in front of it, beside which that then runs.
  tile_integers<R, weighs_in_halves<Format>> of[2];
  largest_scales scales;
  auto prepare = [&](index t, index b, index slot) TERN_LAMBDA {
    constexpr index n = largest_scales::blocks;
    if (b % n == 0) scales.find(blocks - b, tokens_in(t), 1, [&](index, index i) TERN_LAMBDA { return block_at(t, b + i); });
    of[slot].make(weights[t], block_at(t, b), tokens_in(t), scales.largest[b % n], scales.inverse[b % n]);
  };
  if (tiles * blocks > 0) prepare(0, 0, 0);
  index slot = 0;
  for (index t = 0; t < tiles; ++t)
    for (index b = 0; b < blocks; ++b, slot = 1 - slot) {
      char const* const next = ahead.at(t, tile[t]) + b * fetch.step;
      TERN_UNROLL
      for (index turn = within; turn < turns; ++turn) fetch(next, turn);
      if (b + 1 < blocks)
        prepare(t, b + 1, 1 - slot);
      else if (t + 1 < tiles)
        prepare(t + 1, 0, 1 - slot);
      tile_block<R, Format>(block_at(t, b) + Format::scale_bytes, of[slot], fetch, next, o + 32 * b, o_stride);
    }
}

}  // namespace TERN_ABI
}  // namespace tern::detail

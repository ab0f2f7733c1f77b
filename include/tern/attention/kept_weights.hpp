// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/kept_weights.hpp
/// The column sums of the softmax, within the call: the weights of some rows are kept over all keys, until the rows' sums are known.
///
///     w_j += sum_r p_rj 2^(b_r - m_r) / l_r      p_rj = 2^(s_rj - b_r), b_r what the second product's weights were relative to
///
/// Cost    2 flop a weight, which has taken 2 (dim + dim_v), and its way to the second-level cache and back. Rows are worked on so many
///         at a time that their weights have room there; keys and values, packed once, come from further away each time. Measured with
///         16 lanes, of the call: 2 to 4 % up to 512 keys, 9 % with 1024, 12 % with 2048, 20 % with 4096.

#include <tern/attention/problem.hpp>
#include <tern/attention/tile_softmax.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Floats kept side by side: what a second-level cache has room for beside packed keys and values.
inline constexpr index most_kept_floats = index{1} << 18;

/// How many rows of an item are worked on at a time.
template <class Tile>
TERN_INLINE index rows_at_a_time(index rows, index keys) {
  index const some = most_kept_floats / round_to_multiple(keys > 0 ? keys : 1, key_block) / Tile::rows * Tile::rows;
  index const most = some > 2 * Tile::rows ? some : 2 * Tile::rows;
  return rows < most ? rows : most;
}

/// What keys weigh, by head of a unit.
struct key_columns {
  float* sums;  // (unit_heads, stride), or null
  index stride;
};

/// The weights of tiles of rows against blocks of keys. Where none are kept, all tiles share the memory of one.
template <class Tile, bool keeps>
struct kept_tiles {
  struct span {
    index first, last;  // key panels of a block that have weights
  };
  float* p;     // (blocks, tiles, Tile::rows, key_block)
  float* base;  // (blocks, tiles, Tile::rows)
  span* seen;   // (blocks, tiles)
  index blocks, tiles;

  TERN_INLINE static kept_tiles lay_out(arena& a, index rows, index keys) {
    index const blocks = keeps ? divide_up(keys, key_block) : 1;
    index const tiles = keeps ? divide_up(rows_at_a_time<Tile>(rows, keys), Tile::rows) : 1, all = blocks * tiles;
    kept_tiles k{a.take<float>(all * Tile::rows * key_block), nullptr, nullptr, blocks, tiles};
    if constexpr (keeps) {
      k.base = a.take<float>(all * Tile::rows);
      k.seen = a.take<span>(all);
    }
    return k;
  }
  TERN_INLINE void start() const {
    if constexpr (keeps)
      for (index i = 0; i < blocks * tiles; ++i) seen[i] = {0, 0};
  }
  TERN_INLINE index at(index block, index tile) const { return keeps ? block * tiles + tile : 0; }
  TERN_INLINE float* weights(index i) const { return p + i * Tile::rows * key_block; }
  TERN_INLINE float* bases(index i) const { return keeps ? base + i * Tile::rows : nullptr; }
};

/// to[j] += sum of factor[r] p[r * key_block + j] over r = from, from + step, ... < rows, for `panels` key panels.
template <int panels>
TERN_INLINE void add_weighted_panels(float const* p, float const* factor, index from, index rows, index step, float* to) noexcept {
  using packf = simd::pack<float>;
  constexpr index W = simd::lanes;
  packf sum[2 * panels];
  for (index n = 0; n < 2 * panels; ++n) sum[n] = simd::load(to + n * W);
  for (index r = from; r < rows; r += step) {
    packf const f(factor[r]);
    TERN_UNROLL
    for (index n = 0; n < 2 * panels; ++n) sum[n] = simd::fma(f, simd::load(p + r * key_block + n * W), sum[n]);
  }
  for (index n = 0; n < 2 * panels; ++n) simd::store(to + n * W, sum[n]);
}
/// The same for key panels [first, last) of a block.
[[gnu::noinline]] inline void add_weighted_rows(float const* p, float const* factor, index from, index rows, index step, index first,
                                                index last, float* to) noexcept {
  constexpr int many = 4;
  index n = first;
  for (; n + many <= last; n += many) add_weighted_panels<many>(p + n * panel_width, factor, from, rows, step, to + n * panel_width);
  for (; n < last; ++n) add_weighted_panels<1>(p + n * panel_width, factor, from, rows, step, to + n * panel_width);
}

/// What the weights of `live` rows are to be multiplied with, now that m and l are known. A row that has seen nothing gives nothing; one
/// that has seen nothing of the block, whose weights are zeros, has a base that may lie above m.
TERN_INLINE void final_factors(float const* base, float const* m, float const* l, index live, float* factor) {
  using packf = simd::pack<float>;
  for (index r = 0; r < live; r += simd::lanes) {
    index const some = live - r < simd::lanes ? live - r : simd::lanes;
    packf const most = simd::load_n(m + r, some), sum = simd::load_n(l + r, some);
    packf const from = simd::select(most == packf(negative_infinity), packf(0.f), most);
    packf const x = simd::load_n(base + r, some) - from;
    packf const f = exp2_of_nonpositive(simd::select(x > packf(0.f), packf(0.f), x)) / sum;
    simd::store_n(factor + r, simd::select(sum == packf(0.f), packf(0.f), f), some);
  }
}

/// A row whose sum is not a number: its weights p become the sum where it sees a key, and zero elsewhere.
template <class Mask>
inline void spread_odd_sum(Mask const& mask, index query, index block, index first, index last, float sum, float* p) noexcept {
  for (index j = first * panel_width; j < last * panel_width; ++j) p[j] = mask.visible(query, block * key_block + j) ? sum : 0.f;
}

/// Adds the columns of rows [row0, row0 + live), whose m and l are final.
template <class Tile, class Rows, class Mask>
inline void add_key_weights(Rows const& of, Mask const& mask, kept_tiles<Tile, true> const& kept, index row0, index live, float const* m,
                            float const* l, key_columns const& to) noexcept {
  index const heads = of.p.n.unit_heads;
  float factor[round_to_multiple(Tile::rows, simd::lanes)];
  for (index block = 0; block < kept.blocks; ++block)
    for (index t = 0; t < kept.tiles && t * Tile::rows < live; ++t) {
      index const i = kept.at(block, t), tile = t * Tile::rows, here = live - tile < Tile::rows ? live - tile : Tile::rows;
      auto const [first, last] = kept.seen[i];
      if (last <= first) continue;
      final_factors(kept.bases(i), m + tile, l + tile, here, factor);
      for (index r = 0; r < here; ++r) {
        float const sum = l[tile + r];
        if (sum == sum) continue;
        spread_odd_sum(mask, of.query(row0 + tile + r), block, first, last, sum, kept.weights(i) + r * key_block);
        factor[r] = 1;
      }
      for (index r = 0; r < heads && r < here; ++r)
        add_weighted_rows(kept.weights(i), factor, r, here, heads, first, last,
                          to.sums + (row0 + tile + r) % heads * to.stride + block * key_block);
    }
}

}  // namespace TERN_ABI
}  // namespace tern::detail

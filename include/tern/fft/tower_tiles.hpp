// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file fft/tower_tiles.hpp
/// The last levels of a tower (fft/tower.hpp): `lanes` nodes of one register each are transposed, so that a lane is a node and a register a
/// coefficient, split to numbers, multiplied with a spectrum, and joined again.
///
/// A spectrum has the order in which the tiles leave their numbers, and nothing needs another: tile by tile, registers of lanes nodes.

#include <tern/fft/tower.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// What happens where the numbers are.
enum class tower_op {
  convolve,   ///< x = x h
  correlate,  ///< x = x conj(h)
  split,      ///< h = scale x; nothing is joined
  join,       ///< x = h; nothing was split
};

/// The roots of a tile: w^1, w^2, w^4, w^8, each lane its node's, as far as there are lanes.
struct tile_roots {
  cpack power[4];
};
TERN_INLINE tile_roots roots_of_tile(float const* tile, float const* lane) {
  tile_roots r;
  TERN_UNROLL
  for (int i = 0; (1 << i) < simd::lanes; ++i) r.power[i] = splat_complex(tile + 2 * i) * load_complex(lane + i * complex_pack);
  return r;
}

/// Registers of a tile at z, nodes one after the other, as coefficients whose lanes are nodes.
TERN_INLINE void load_tile(float const* z, cpack (&x)[simd::lanes]) {
  simd::pack<float> t[simd::lanes];
  simd::load_transposed(z, complex_pack, t);
  TERN_UNROLL
  for (index i = 0; i < simd::lanes; ++i) x[i].re = t[i];
  simd::load_transposed(z + simd::lanes, complex_pack, t);
  TERN_UNROLL
  for (index i = 0; i < simd::lanes; ++i) x[i].im = t[i];
}
TERN_INLINE void store_tile(cpack const (&x)[simd::lanes], float* z) {
  simd::pack<float> t[simd::lanes];
  TERN_UNROLL
  for (index i = 0; i < simd::lanes; ++i) t[i] = x[i].re;
  simd::store_transposed(t, z, complex_pack);
  TERN_UNROLL
  for (index i = 0; i < simd::lanes; ++i) t[i] = x[i].im;
  simd::store_transposed(t, z + simd::lanes, complex_pack);
}

/// x at place i of the spectrum h, as `op` says.
TERN_INLINE void meet(tower_op op, cpack& x, float* h, simd::pack<float> scale) {
  if (op == tower_op::convolve)
    x = x * load_complex(h);
  else if (op == tower_op::correlate)
    x = times_conjugate(x, load_complex(h));
  else if (op == tower_op::split)
    store_complex(h, {x.re * scale, x.im * scale});
  else
    x = load_complex(h);
}

/// Sixteen registers as four times four, and four times four again, between which the product stands: x is split by x[j], x[j + 4], ...
/// before, and joined so behind.
TERN_INLINE void middle_of_16(tower_op op, cpack (&x)[16], float* h, simd::pack<float> scale, tile_roots const& r) {
  static constexpr float eighth[2] = {0.70710678118654752f, 0.70710678118654752f};
  static constexpr float sixteenth[2] = {0.92387953251128676f, 0.38268343236508977f};
  static constexpr float three_sixteenths[2] = {0.38268343236508977f, 0.92387953251128676f};
  cpack const w1 = r.power[0], w2 = r.power[1], turned = w2 * splat_complex(eighth);
  auto const quarter = [&](index b, cpack const& v1, cpack const& v2, bool i_v2) TERN_LAMBDA {
    cpack a[4] = {x[4 * b], x[4 * b + 1], x[4 * b + 2], x[4 * b + 3]};
    if (op != tower_op::join) {
      i_v2 ? split_i(a[0], a[2], v2) : split(a[0], a[2], v2);
      i_v2 ? split_i(a[1], a[3], v2) : split(a[1], a[3], v2);
      split(a[0], a[1], v1);
      split_i(a[2], a[3], v1);
    }
    TERN_UNROLL
    for (index i = 0; i < 4; ++i) meet(op, a[i], h + (4 * b + i) * complex_pack, scale);
    if (op == tower_op::split) return;
    join(a[0], a[1], v1);
    join_i(a[2], a[3], v1);
    i_v2 ? join_i(a[0], a[2], v2) : join(a[0], a[2], v2);
    i_v2 ? join_i(a[1], a[3], v2) : join(a[1], a[3], v2);
    TERN_UNROLL
    for (index i = 0; i < 4; ++i) x[4 * b + i] = a[i];
  };
  quarter(0, w1, w2, false);
  quarter(1, w1 * splat_complex(eighth), w2, true);
  quarter(2, w1 * splat_complex(sixteenth), turned, false);
  quarter(3, w1 * splat_complex(three_sixteenths), turned, true);
}

/// The levels within a tile, for 16 lanes and for fewer.
template <index W>
TERN_INLINE void finish_tile(tower_op op, cpack (&x)[W], float* h, simd::pack<float> scale, tile_roots const& r) {
  if constexpr (W == 16) {
    cpack const w4 = r.power[2], w8 = r.power[3], w12 = w4 * w8;
    if (op != tower_op::join) {
      TERN_UNROLL
      for (index j = 0; j < 4; ++j) {
        cpack a[4] = {x[j], x[j + 4], x[j + 8], x[j + 12]};
        split4(a, w4, w8);
        for (index i = 0; i < 4; ++i) x[j + 4 * i] = a[i];
      }
    }
    middle_of_16(op, x, h, scale, r);
    if (op == tower_op::split) return;
    TERN_UNROLL
    for (index j = 0; j < 4; ++j) {
      cpack a[4] = {x[j], x[j + 4], x[j + 8], x[j + 12]};
      join4(a, w4, w8, w12);
      for (index i = 0; i < 4; ++i) x[j + 4 * i] = a[i];
    }
  } else {
    auto const meet_all = [&]() TERN_LAMBDA {
      TERN_UNROLL
      for (index i = 0; i < W; ++i) meet(op, x[i], h + i * complex_pack, scale);
    };
    if constexpr (W == 8) {
      static constexpr float eighth[2] = {0.70710678118654752f, 0.70710678118654752f};
      cpack const w1 = r.power[0], w2 = r.power[1], w4 = r.power[2];
      if (op != tower_op::join) split8(x, w1, w2, w4, w1 * splat_complex(eighth));
      meet_all();
      if (op == tower_op::split) return;
      cpack const w3 = w1 * w2;
      cpack const w[7] = {w1, w2, w3, w4, w1 * w4, w2 * w4, w3 * w4};
      join8(x, [&](int m) TERN_LAMBDA { return w[m - 1]; });
    } else if constexpr (W == 4) {
      if (op != tower_op::join) split4(x, r.power[0], r.power[1]);
      meet_all();
      if (op != tower_op::split) join4(x, r.power[0], r.power[1], r.power[0] * r.power[1]);
    } else {
      static_assert(W == 2, "tern: towers are for 2, 4, 8 or 16 lanes");
      if (op != tower_op::join) split(x[0], x[1], r.power[0]);
      meet_all();
      if (op != tower_op::split) join(x[0], x[1], r.power[0]);
    }
  }
}

/// Tiles [first, first + tiles) of z, which points at the first of them, as h does.
template <class Ahead>
inline void run_tiles(tower_plan const& t, tower_op op, index first, index tiles, float* z, float* h, float scale, Ahead& ahead) noexcept {
  constexpr index W = simd::lanes;
  float const* const lane = t.tables + t.lanes_at;
  for (index n = 0; n < tiles; ++n, z += W * complex_pack, h += W * complex_pack) {
    cpack x[W];
    ahead.reach(h);
    ahead.template ask<W * complex_pack / 64>();
    ahead.ask_at_tile();
    if (op != tower_op::join) load_tile(z, x);
    finish_tile(op, x, h, simd::pack<float>(scale), roots_of_tile(t.tables + t.tiles_at + 8 * (first + n), lane));
    if (op != tower_op::split) store_tile(x, z);
  }
}

}  // namespace TERN_ABI
}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file fft/tower_tiles.hpp
/// The last levels of a tower (fft/tower.hpp): `lanes` nodes of one register each are transposed, so that a lane is a node and a register a
/// coefficient, split, multiplied with a spectrum, and joined again.
///
/// Products stop one level before numbers, at pairs: modulo z^2 - w
///
///     (a + b z) (p + q z) = (a p + w b q) + (a q + b p) z
///
/// is 20 operations, and takes no roots of w; to split, multiply and join the numbers is 22 to 23. A spectrum that is to be summed with
/// others is of numbers.
///
/// A spectrum has the order in which the tiles leave its pairs or numbers, and nothing needs another: tile by tile, registers of nodes.

#include <tern/fft/tower.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// What happens where the pairs are, or the numbers.
enum class tower_op {
  convolve,   ///< x = x h, in pairs
  correlate,  ///< x = x conj(h), in pairs
  filter,     ///< h = scale x, in pairs; nothing is joined
  split,      ///< h = scale x, in numbers; nothing is joined
  join,       ///< x = h, in numbers; nothing was split
};
/// Whether samples are split, and joined.
constexpr bool has_split(tower_op op) { return op != tower_op::join; }
constexpr bool has_join(tower_op op) { return op != tower_op::split && op != tower_op::filter; }
constexpr bool is_of_pairs(tower_op op) { return op != tower_op::split && op != tower_op::join; }

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
/// Coefficients j, j + 4, j + 8 and j + 12 alone, where the passes beside have transposed within quarters: see turned_rows.
TERN_INLINE void transpose_quarters(cpack (&x)[4]) {
  simd::pack<float> re[4] = {x[0].re, x[1].re, x[2].re, x[3].re}, im[4] = {x[0].im, x[1].im, x[2].im, x[3].im};
  simd::transpose_quarters(re);
  simd::transpose_quarters(im);
  TERN_UNROLL
  for (index i = 0; i < 4; ++i) x[i] = {re[i], im[i]};
}
TERN_INLINE void load_four(float const* z, index j, cpack (&x)[4]) {
  TERN_UNROLL
  for (index i = 0; i < 4; ++i) x[i] = load_complex(z + (j + 4 * i) * complex_pack);
  transpose_quarters(x);
}
TERN_INLINE void store_four(cpack (&x)[4], float* z, index j) {
  transpose_quarters(x);
  TERN_UNROLL
  for (index i = 0; i < 4; ++i) store_complex(z + (j + 4 * i) * complex_pack, x[i]);
}

/// s + a w, s - a w
TERN_INLINE cpack add_product(cpack const& s, cpack const& a, cpack const& w) {
  return {simd::fnma(a.im, w.im, simd::fma(a.re, w.re, s.re)), simd::fma(a.im, w.re, simd::fma(a.re, w.im, s.im))};
}
TERN_INLINE cpack sub_product(cpack const& s, cpack const& a, cpack const& w) {
  return {simd::fma(a.im, w.im, simd::fnma(a.re, w.re, s.re)), simd::fnma(a.im, w.re, simd::fnma(a.re, w.im, s.im))};
}
/// s + a conj(w), s - a conj(w)
TERN_INLINE cpack add_conjugate(cpack const& s, cpack const& a, cpack const& w) {
  return {simd::fma(a.im, w.im, simd::fma(a.re, w.re, s.re)), simd::fma(a.im, w.re, simd::fnma(a.re, w.im, s.im))};
}
TERN_INLINE cpack sub_conjugate(cpack const& s, cpack const& a, cpack const& w) {
  return {simd::fnma(a.im, w.im, simd::fnma(a.re, w.re, s.re)), simd::fnma(a.im, w.re, simd::fma(a.re, w.im, s.im))};
}
TERN_INLINE void store_scaled(float* h, cpack const& x, simd::pack<float> scale) { store_complex(h, {x.re * scale, x.im * scale}); }

/// A pair a + b z modulo z^2 - w or, Minus, z^2 + w, and its two places of h. |w| = 1: conj(z) is 1 / z.
template <tower_op Op, bool Minus>
TERN_INLINE void meet_pair(cpack& a, cpack& b, float* h, simd::pack<float> scale, cpack const& w) {
  if (Op == tower_op::filter) {
    store_scaled(h, a, scale + scale);  // a level that is not joined
    store_scaled(h + complex_pack, b, scale + scale);
    return;
  }
  cpack const p = load_complex(h), q = load_complex(h + complex_pack);
  if (Op == tower_op::convolve) {
    cpack const s = a * p, t = b * q;
    b = add_product(a * q, b, p);
    a = Minus ? sub_product(s, t, w) : add_product(s, t, w);
  } else {
    cpack const s = times_conjugate(b, p), t = times_conjugate(a, q);
    a = add_conjugate(times_conjugate(a, p), b, q);
    b = Minus ? sub_conjugate(s, t, w) : add_conjugate(s, t, w);
  }
}
/// x at its place of the spectrum h.
template <tower_op Op>
TERN_INLINE void meet_number(cpack& x, float* h, simd::pack<float> scale) {
  if (Op == tower_op::split)
    store_scaled(h, x, scale);
  else
    x = load_complex(h);
}
/// Two pairs, modulo z^2 - w and z^2 + w, as they are or split to numbers, and their four places of h. root(): a root of w, for these.
template <tower_op Op, class Root>
TERN_INLINE void meet_pairs(cpack (&a)[4], float* h, simd::pack<float> scale, cpack const& w, Root&& root) {
  if constexpr (is_of_pairs(Op)) {
    meet_pair<Op, false>(a[0], a[1], h, scale, w);
    meet_pair<Op, true>(a[2], a[3], h + 2 * complex_pack, scale, w);
  } else {
    cpack const r = root();
    if (has_split(Op)) {
      split(a[0], a[1], r);
      split_i(a[2], a[3], r);
    }
    TERN_UNROLL
    for (index i = 0; i < 4; ++i) meet_number<Op>(a[i], h + i * complex_pack, scale);
    if (!has_join(Op)) return;
    join(a[0], a[1], r);
    join_i(a[2], a[3], r);
  }
}
/// Two pairs modulo z^4 - v^2 or, Turned, z^4 + v^2: x = {a, b} + {c, d} z^2 is split to them, and joined.
template <tower_op Op, bool Turned, class Root>
TERN_INLINE void meet_four(cpack (&a)[4], float* h, simd::pack<float> scale, cpack const& v, Root&& root) {
  if (has_split(Op)) {
    Turned ? split_i(a[0], a[2], v) : split(a[0], a[2], v);
    Turned ? split_i(a[1], a[3], v) : split(a[1], a[3], v);
  }
  meet_pairs<Op>(a, h, scale, Turned ? cpack{simd::pack<float>(0.f) - v.im, v.re} : v, root);
  if (!has_join(Op)) return;
  Turned ? join_i(a[0], a[2], v) : join(a[0], a[2], v);
  Turned ? join_i(a[1], a[3], v) : join(a[1], a[3], v);
}

/// e(1 / 8), e(1 / 16), e(3 / 16)
inline constexpr float eighth_root[2] = {0.70710678118654752f, 0.70710678118654752f};
inline constexpr float sixteenth_root[2] = {0.92387953251128676f, 0.38268343236508977f};
inline constexpr float three_sixteenths_root[2] = {0.38268343236508977f, 0.92387953251128676f};

/// Sixteen registers as four times four, and four times four again, between which the product stands: x is split by x[j], x[j + 4], ...
/// before, and joined so behind.
template <tower_op Op>
TERN_INLINE void middle_of_16(cpack (&x)[16], float* h, simd::pack<float> scale, tile_roots const& r) {
  cpack const w1 = r.power[0], w2 = r.power[1], turned = w2 * splat_complex(eighth_root);
  auto const quarter = [&](index b, auto is_turned, cpack const& v, auto const& root) TERN_LAMBDA {
    cpack a[4] = {x[4 * b], x[4 * b + 1], x[4 * b + 2], x[4 * b + 3]};
    meet_four<Op, is_turned()>(a, h + 4 * b * complex_pack, scale, v, root);
    if (!has_join(Op)) return;
    TERN_UNROLL
    for (index i = 0; i < 4; ++i) x[4 * b + i] = a[i];
  };
  quarter(0, std::false_type{}, w2, [&]() TERN_LAMBDA { return w1; });
  quarter(1, std::true_type{}, w2, [&]() TERN_LAMBDA { return w1 * splat_complex(eighth_root); });
  quarter(2, std::false_type{}, turned, [&]() TERN_LAMBDA { return w1 * splat_complex(sixteenth_root); });
  quarter(3, std::true_type{}, turned, [&]() TERN_LAMBDA { return w1 * splat_complex(three_sixteenths_root); });
}

/// The levels within a tile, for 16 lanes and for fewer. Coefficients are in x, or, with turned_rows beside, at z.
template <tower_op Op, index W>
TERN_INLINE void finish_tile(cpack (&x)[W], float* z, float* h, simd::pack<float> scale, tile_roots const& r) {
  [[maybe_unused]] cpack const w1 = r.power[0];
  if constexpr (W == 16) {
    cpack const w4 = r.power[2], w8 = r.power[3], w12 = w4 * w8;
    if (has_split(Op)) {
      TERN_UNROLL
      for (index j = 0; j < 4; ++j) {
        cpack a[4];
        if constexpr (simd::shuffles_freely)
          load_four(z, j, a);
        else
          for (index i = 0; i < 4; ++i) a[i] = x[j + 4 * i];
        split4(a, w4, w8, w12);
        for (index i = 0; i < 4; ++i) x[j + 4 * i] = a[i];
      }
    }
    middle_of_16<Op>(x, h, scale, r);
    if (!has_join(Op)) return;
    TERN_UNROLL
    for (index j = 0; j < 4; ++j) {
      cpack a[4] = {x[j], x[j + 4], x[j + 8], x[j + 12]};
      join4(a, w4, w8, w12);
      if constexpr (simd::shuffles_freely)
        store_four(a, z, j);
      else
        for (index i = 0; i < 4; ++i) x[j + 4 * i] = a[i];
    }
  } else if constexpr (W == 8) {
    cpack const w2 = r.power[1], w4 = r.power[2];
    if (has_split(Op)) {
      TERN_UNROLL
      for (index i = 0; i < 4; ++i) split(x[i], x[i + 4], w4);
    }
    auto const half = [&](index first, auto is_turned, auto const& root) TERN_LAMBDA {
      cpack a[4] = {x[first], x[first + 1], x[first + 2], x[first + 3]};
      meet_four<Op, is_turned()>(a, h + first * complex_pack, scale, w2, root);
      TERN_UNROLL
      for (index i = 0; i < 4; ++i) x[first + i] = a[i];
    };
    half(0, std::false_type{}, [&]() TERN_LAMBDA { return w1; });
    half(4, std::true_type{}, [&]() TERN_LAMBDA { return w1 * splat_complex(eighth_root); });
    if (!has_join(Op)) return;
    TERN_UNROLL
    for (index i = 0; i < 4; ++i) join(x[i], x[i + 4], w4);
  } else if constexpr (W == 4) {
    meet_four<Op, false>(x, h, scale, r.power[1], [&]() TERN_LAMBDA { return w1; });
  } else {
    static_assert(W == 2, "tern: towers are for 2, 4, 8 or 16 lanes");
    if constexpr (is_of_pairs(Op)) return meet_pair<Op, false>(x[0], x[1], h, scale, w1 * w1);
    if (has_split(Op)) split(x[0], x[1], w1);
    TERN_UNROLL
    for (index i = 0; i < W; ++i) meet_number<Op>(x[i], h + i * complex_pack, scale);
    if (has_join(Op)) join(x[0], x[1], w1);
  }
}

/// Tiles [first, first + tiles) of z, which points at the first of them, as h does.
template <tower_op Op, class Ahead>
inline void run_tiles_of(tower_plan const& t, index first, index tiles, float* z, float* h, float scale, Ahead& ahead) noexcept {
  constexpr index W = simd::lanes;
  float const* const lane = t.tables + t.lanes_at;
  for (index n = 0; n < tiles; ++n, z += W * complex_pack, h += W * complex_pack) {
    cpack x[W];
    ahead.reach(h);
    ahead.template ask<W * complex_pack / 64>();
    ahead.ask_at_tile();
    if (has_split(Op) && !simd::shuffles_freely) load_tile(z, x);
    finish_tile<Op>(x, z, h, simd::pack<float>(scale), roots_of_tile(t.tables + t.tiles_at + 8 * (first + n), lane));
    if (has_join(Op) && !simd::shuffles_freely) store_tile(x, z);
  }
}
/// Only a spectrum that is multiplied with may be far.
template <class Ahead>
inline void run_tiles(tower_plan const& t, tower_op op, index first, index tiles, float* z, float* h, float scale, Ahead& ahead) noexcept {
  no_rows_ahead none;
  switch (op) {
    case tower_op::convolve:
      return run_tiles_of<tower_op::convolve>(t, first, tiles, z, h, scale, ahead);
    case tower_op::correlate:
      return run_tiles_of<tower_op::correlate>(t, first, tiles, z, h, scale, ahead);
    case tower_op::filter:
      return run_tiles_of<tower_op::filter>(t, first, tiles, z, h, scale, none);
    case tower_op::split:
      return run_tiles_of<tower_op::split>(t, first, tiles, z, h, scale, none);
    case tower_op::join:
      return run_tiles_of<tower_op::join>(t, first, tiles, z, h, scale, none);
  }
}

}  // namespace TERN_ABI
}  // namespace tern::detail

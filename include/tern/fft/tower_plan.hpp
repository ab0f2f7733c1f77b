// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file fft/tower_plan.hpp
/// Lengths of transforms, and the roots of one that a transform multiplies with.
///
/// A tower of M = lanes * length points splits polynomials modulo z^M - i down to numbers: at first into `odd` remainders (1, 3, 5, 7 or
/// 9), then each by 8 or 4, until a remainder fills one register; the last log2(lanes) levels run within square tiles. The remainder of
/// node n behind d halvings is modulo z^h - e(phi), e(x) = e^(2 pi i x), where
///
///     phi(d, n) = phi(0, n / 2^d) / 2^d + reversed(n mod 2^d)        reversed(b) = sum over its bits b_i of 2^-(i + 1)
///
/// so the roots of a node are those of its polynomial times a product over bits. Tables are made in f64 and rounded once. They are short:
/// all elements of a node share its roots, and all lanes of a tile a factor.
///
/// The number of z = e((1/4 + f) / M) is frequency f: node n of R behind the first pass has those of one remainder f mod R, and all of
/// them. A plan may leave out some of these nodes: nothing of them is computed, and their numbers count as zeros.

#include <tern/core/rounding.hpp>
#include <tern/fft/unit.hpp>
#include <tern/simd/register.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

TERN_INLINE float* put(float* p, unit w) {
  p[0] = static_cast<float>(w.re);
  p[1] = static_cast<float>(w.im);
  return p + 2;
}
constexpr int log2_of(index n) {
  int log = 0;
  while (n > 1) {
    n /= 2;
    ++log;
  }
  return log;
}

/// The shape of a transform; `tables` point into memory of somebody else.
struct tower_plan {
  static constexpr int most_passes = 24;
  static constexpr unsigned all_nodes = ~0u;
  index length = 0;  // registers
  int odd = 1;
  int passes = 0;
  int radix[most_passes] = {};
  index nodes[most_passes] = {};     // before the pass; after the last, registers
  index table_at[most_passes] = {};  // of the pass, in floats
  index tiles_at = 0, lanes_at = 0;
  index table_floats = 0;
  float const* tables = nullptr;
  unsigned kept = all_nodes;  // nodes behind the first pass that are computed, from the lowest bit on; all, or some of 8

  TERN_INLINE index points() const { return length * simd::lanes; }
  /// Floats of a transform: points() complex numbers.
  TERN_INLINE index floats() const { return 2 * points(); }
  /// Registers of a node before the pass.
  TERN_INLINE index width(int pass) const { return length / nodes[pass]; }
  /// Calls body(first, count) for the nodes behind the first pass that are computed, neighbours together.
  template <class Body>
  TERN_INLINE void each_kept(Body&& body) const {
    index const all = radix[0];
    for (index first = 0, end = 0; first < all; first = end + 1) {
      for (end = first; end < all && keeps(end); ++end) {
      }
      if (end > first) body(first, end - first);
    }
  }
  TERN_INLINE bool keeps(index node) const { return (kept >> node & 1) != 0; }
};

/// The nodes of 8 behind a first pass by 8 that have the frequencies f with f mod `classes` < `few`; classes: 1, 2, 4 or 8.
constexpr unsigned nodes_of_classes(int few, int classes) {
  unsigned nodes = 0;
  for (int n = 0; n < 8; ++n) {
    int const remainder = (n & 1) << 2 | (n & 2) | n >> 2;  // of f by 8
    if (remainder % classes < few) nodes |= 1u << n;
  }
  return nodes;
}

/// Halvings of the shortest tower of one odd factor: whole tiles, and at least one pass by four.
inline constexpr int least_halvings = simd::lanes > 4 ? log2_of(simd::lanes) : 2;

/// The tower of odd 2^halvings registers, without tables.
inline tower_plan shape_tower(int odd, int halvings) noexcept {
  tower_plan t;
  t.odd = odd;
  index nodes = 1;
  auto const add = [&](int radix) TERN_LAMBDA {
    t.radix[t.passes] = radix;
    t.nodes[t.passes] = nodes;
    t.table_at[t.passes] = t.table_floats;
    t.table_floats += radix == 8 ? 16 * nodes : radix == 4 ? 8 * nodes : 4 * radix;
    nodes *= radix;
    ++t.passes;
  };
  if (odd > 1) add(odd);
  while (halvings > 0) {
    int const step = halvings == 2 || halvings == 4 ? 2 : 3;
    add(1 << step);
    halvings -= step;
  }
  t.length = t.nodes[t.passes] = nodes;
  t.tiles_at = round_to_multiple(t.table_floats, 16);
  t.lanes_at = round_to_multiple(t.tiles_at + 8 * (nodes / simd::lanes), 16);
  t.table_floats = t.lanes_at + 8 * simd::lanes;
  return t;
}

/// Calls body(n, w) for the nodes in their order, w = e(phi / parts).
template <class Body>
TERN_INLINE void each_root(int odd, index nodes, double parts, Body&& body) {
  int const families = nodes >= odd ? odd : 1;
  index const each = nodes / families;
  int const levels = log2_of(each);
  unit step[40], upper[41];
  for (int i = 0; i < levels; ++i) step[i] = turn(1 / (static_cast<double>(index{2} << i) * parts));
  for (int k = 0; k < families; ++k) {
    double const phase = families > 1 ? (0.25 + k) / odd : 0.25;
    upper[levels] = turn(phase / (static_cast<double>(each) * parts));
    for (int i = 0; i < levels; ++i) upper[i] = upper[levels];
    for (index n = 0; n < each; ++n) {
      if (n > 0) {  // upper[i]: the product over the bits of n from i on
        int const lowest = __builtin_ctzll(static_cast<unsigned long long>(n));
        unit const w = upper[lowest + 1] * step[lowest];
        for (int i = 0; i <= lowest; ++i) upper[i] = w;
      }
      body(k * each + n, upper[0]);
    }
  }
}

/// Makes the tables of `t` in `memory`, t.table_floats of them.
inline void fill_tower(tower_plan& t, float* memory) noexcept {
  for (int p = 0; p < t.passes; ++p) {
    int const radix = t.radix[p];
    float* const table = memory + t.table_at[p];
    each_root(t.odd, t.nodes[p], radix, [&](index n, unit w) TERN_LAMBDA {
      unit power = w;
      float* at = table + n * (radix == 8 ? 16 : 8);
      for (int m = 1; m < radix; ++m, power = power * w) at = put(at, power);
      if (radix % 2 == 0) put(at, {0, 0});
      if (radix % 2 == 1)
        for (int m = 0; m < radix; ++m) at = put(at, turn(static_cast<double>(m) / radix));
    });
  }
  constexpr index W = simd::lanes;
  float* const tiles = memory + t.tiles_at;
  each_root(t.odd, t.length / W, static_cast<double>(W * W), [&](index n, unit w) TERN_LAMBDA {
    float* at = tiles + 8 * n;
    for (int i = 0; i < 4; ++i, w = w * w) at = put(at, w);
  });
  for (int i = 0; i < 4; ++i)
    for (index s = 0; s < W; ++s) {
      double reversed = 0;
      for (index bit = 1, value = W / 2; bit < W; bit *= 2, value /= 2)
        if ((s & bit) != 0) reversed += static_cast<double>(value) / static_cast<double>(W);
      unit const w = turn(reversed * (1 << i) / static_cast<double>(W));
      memory[t.lanes_at + (2 * i) * W + s] = static_cast<float>(w.re);
      memory[t.lanes_at + (2 * i + 1) * W + s] = static_cast<float>(w.im);
    }
  t.tables = memory;
}

/// Calls body(plan) for the towers of at least `points` points, of each odd factor the shortest.
template <class Body>
TERN_INLINE void each_tower(index points, Body&& body) {
  index const length = divide_up(points, simd::lanes);
  for (int odd = 1; odd <= 9; odd += 2) {
    int halvings = least_halvings;
    while ((index{odd} << halvings) < length) ++halvings;
    body(odd, halvings);
  }
}
/// The shortest tower of at least `points` points, without tables.
inline tower_plan shortest_tower(index points) noexcept {
  int odd = 0, halvings = 0;
  each_tower(points, [&](int o, int h) TERN_LAMBDA {
    if (odd != 0 && (index{o} << h) >= (index{odd} << halvings)) return;
    odd = o;
    halvings = h;
  });
  return shape_tower(odd, halvings);
}

}  // namespace TERN_ABI
}  // namespace tern::detail

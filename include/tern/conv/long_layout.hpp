// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/long_layout.hpp
/// How a convolution of n samples with K taps is cut into blocks. A block of 2M samples is one product modulo z^(2M) + 1; of its results
/// those that the block's end has come back to are not used. Either one block holds all samples, or blocks of 2M samples overlap by K - 1,
/// rounded up to registers (overlap-save), whichever costs less; a handful of taps is multiplied directly. A circle of a length that towers
/// have is folded (conv/long_circle.hpp).
///
/// A filter with a sparse spectrum (conv/sparse_spectrum.hpp) has one block of places that do not depend on lanes or cost.
///
/// A layout depends on n, K, the mode and the spectrum alone, so that results depend on nothing else.

#include <tern/conv/long_options.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

struct long_layout {
  long_mode mode = long_mode::causal;
  index n = 0, taps = 0;  // taps that count: at most n, but for long_mode::same
  bool direct = false;
  int odd = 1, halvings = 0;
  int folds = 0;  // of a circle; then the tower above is the last factor's
  index blocks = 1, hop = 0;
  index origin = 0;                        // y_i = full_(i + origin)
  index lead = 0;                          // block b begins with sample b hop - lead
  index kept = 0;                          // the place in the block of result b hop
  unsigned nodes = tower_plan::all_nodes;  // of the tower, that are computed

  TERN_INLINE bool periodic() const { return mode == long_mode::circular; }
  /// The same for the correlation that is the gradient of u: r_m = sum over j of k_j x_(m + j - origin).
  TERN_INLINE long_layout transposed() const {
    long_layout t = *this;
    t.lead = origin;
    t.kept = 0;
    return t;
  }
};

/// Operations for a point of a block that do not grow with its length, against one for each level.
inline constexpr double long_fixed_cost = 6;
/// Operations for a sample that is folded and unfolded.
inline constexpr double long_fold_cost = 1.5;
/// Folds of a circle at most: further ones save less than a sixteenth.
inline constexpr int most_folds = 3;
/// Operations for a tap of a sample, where a level of a block costs one.
inline constexpr double long_direct_cost = 0.24;
/// Bytes of a block and its spectrum beyond which they come from farther away.
inline constexpr double long_near_bytes = 0x18p16;

/// Operations for a point of a tower with the odd factor 1, 3, 5, 7 or 9, beyond one for each halving that fits in it: counted, and
/// measured.
inline constexpr double long_odd_costs[] = {0, 1, 1, 1.5, 2.8};

/// The cost of a block of `points` points, in a tower with the factor `odd`.
TERN_INLINE double block_cost(index points, int odd) {
  double const bytes = 16 * static_cast<double>(points), each = long_fixed_cost + log2_of(points) + long_odd_costs[odd / 2];
  return static_cast<double>(points) * each * (bytes > long_near_bytes ? 1.2 : 1.0);
}

/// What does not depend on the way.
inline long_layout start_layout(long_mode mode, index n, index taps) noexcept {
  long_layout l;
  l.mode = mode;
  l.n = n;
  l.taps = mode != long_mode::same && taps > n ? n : taps;
  l.origin = mode == long_mode::same ? (l.taps - 1) / 2 : 0;
  return l;
}

/// Places of the shortest block with a sparse spectrum: on any machine its tower is split by 8 to nodes of whole tiles.
inline constexpr index least_sparse_places = 4096;

/// Of a filter some of whose frequencies count.
inline long_layout sparse_layout(long_mode mode, index n, index taps, sparse_spectrum const& s) noexcept {
  long_layout l = start_layout(mode, n, taps);
  index places = least_sparse_places;
  while (places < n + l.taps - 1) places *= 2;
  l.halvings = log2_of(places / (2 * simd::lanes));
  l.hop = n;
  l.kept = l.origin;
  l.nodes = nodes_of_classes(s.kept, s.classes);
  return l;
}

/// The cheapest way. `blocks_only`: neither the direct form nor a folded circle.
inline long_layout choose_layout(long_mode mode, index n, index taps, bool blocks_only = false) noexcept {
  long_layout best = start_layout(mode, n, taps);
  index const K = best.taps;
  index const whole = n + K - 1 - best.origin > n + best.origin ? n + K - 1 - best.origin : n + best.origin;
  double least = -1;
  if (!blocks_only && n > 0) {
    least = static_cast<double>(n) * static_cast<double>(K) * long_direct_cost;
    best.direct = true;
    best.hop = n;
    best.lead = K - 1 - best.origin;
  }
  auto const consider = [&](int odd, int halvings, bool one) TERN_LAMBDA {
    // Blocks begin, and their results, where registers do: those of a row that begins with a line are then whole parts of lines.
    index const points = (index{odd} << halvings) * simd::lanes, behind = one ? K - 1 : round_to_multiple(K - 1, simd::lanes);
    index const hop = one ? n : 2 * points - behind;
    if (hop <= 0) return;
    index const blocks = one ? 1 : divide_up(n, hop);
    double const cost = static_cast<double>(blocks) * block_cost(points, odd);
    if (least >= 0 && cost >= least) return;
    least = cost;
    best.direct = false;
    best.folds = 0;
    best.odd = odd;
    best.halvings = halvings;
    best.blocks = blocks;
    best.hop = hop;
    bool const from_first = one && mode != long_mode::circular;
    best.lead = from_first ? 0 : behind - best.origin;
    best.kept = from_first ? best.origin : behind;
  };
  index const single = mode == long_mode::circular ? n + K - 1 : whole;
  each_tower((single + 1) / 2, [&](int odd, int halvings) TERN_LAMBDA {
    consider(odd, halvings, true);
    for (int h = halvings - 1; h >= least_halvings; --h) consider(odd, h, false);
  });
  if (mode != long_mode::circular || blocks_only) return best;
  for (int odd = 1; odd <= 9; odd += 2)
    for (int folds = 1; folds <= most_folds; ++folds) {
      index const registers = n / (index{odd} * simd::lanes) >> folds;
      int const halvings = log2_of(registers);
      if (halvings <= least_halvings || (index{odd} << (halvings + folds)) * simd::lanes != n) continue;
      double cost = long_fold_cost * static_cast<double>(n) + block_cost(n >> folds, odd);
      for (int p = 1; p <= folds; ++p) cost += block_cost(n >> (p + 1), odd);
      if (cost >= least) continue;
      least = cost;
      best.direct = false;
      best.folds = folds;
      best.odd = odd;
      best.halvings = halvings;
      best.blocks = 1;
      best.hop = n;
      best.lead = best.kept = 0;
    }
  return best;
}

inline long_layout layout_of(long_mode mode, index n, index taps, sparse_spectrum const& s, bool blocks_only = false) noexcept {
  return s.kept < s.classes ? sparse_layout(mode, n, taps, s) : choose_layout(mode, n, taps, blocks_only);
}
/// The tower of a layout's blocks, without tables.
inline tower_plan shape_block(long_layout const& l) noexcept {
  tower_plan t = shape_tower(l.odd, l.halvings);
  t.kept = l.nodes;
  return t;
}

}  // namespace TERN_ABI
}  // namespace tern::detail

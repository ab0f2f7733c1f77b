// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/code_panel.hpp
/// Weights as integers in a panel whose lanes run over weight rows: what all products of a batch start from, whatever the format. Only
/// the packing is compiled for each format.
///
///     codes:  [k / 4][panel_rows][4]            u8, an element is scale * (u - offset) + min
///     scales: [k / granule][panel_rows]         f32
///     mins:   [k / granule][panel_rows]         f32, formats with a minimum

#include <tern/matmul/super_blocks.hpp>
#include <tern/simd/pair_sums.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Groups of 32 columns in a panel: with their scales, and without.
inline constexpr index panel_groups = 16, integer_groups = 32;

/// A thread's scratch.
struct code_panel {
  alignas(64) std::uint8_t codes[integer_groups * 32 * panel_rows];
  alignas(64) float scales[2 * panel_groups * panel_rows];
  alignas(64) float mins[2 * panel_groups * panel_rows];
};

/// Visits a block of 256 columns of `lanes` weight rows for its codes, to be stored at `to` in a panel.
template <class Ahead>
struct panel_codes {
  std::uint8_t* to;
  Ahead& ahead;
  TERN_INLINE void take(int piece, row_words const (&w)[4], int shift, int mask) const {
    if (piece % 2 == 1) ahead.step();
    TERN_UNROLL
    for (int j = 0; j < 4; ++j) simd::store(at(piece, j), field_of(w[j], shift, mask));
  }
  TERN_INLINE void take_digits(int piece, row_words const (&w)[4], row_words const (&)[4]) const {
    if (piece % 2 == 1) ahead.step();
    TERN_UNROLL
    for (int j = 0; j < 4; ++j) simd::store(at(piece, j), first_digit(w[j]));
  }
  TERN_INLINE std::uint8_t* at(index piece, index j) const { return to + 4 * (4 * piece + j) * panel_rows; }
};

/// Scales, and minima where there are any, of a group of a panel.
template <class W>
TERN_INLINE void store_scales(row_scales<W::granule> const& w, index g, index first, code_panel& panel) {
  constexpr index granules = 32 / W::granule;
  for (index j = 0; j < granules; ++j) {
    index const at = (g * granules + j) * panel_rows + first;
    simd::store(panel.scales + at, w.scale[j]);
    if constexpr (W::has_min) simd::store(panel.mins + at, w.min[j]);
  }
}
/// `lanes` weight rows from row n on to lanes first, first + 1, ... of a panel, through registers; rows from `end` on count as the last.
template <bool Scales, class W>
TERN_INLINE void pack_lanes(W const& weights, index n, index end, index g0, index groups, index first, code_panel& panel) {
  bool const whole = n + simd::lanes <= end;
  prefetch_rows<W, 1, 2> next(weights, n, n + panel_rows, g0);
  auto rows = walk_rows(weights, n);
  index g = 0;
  if constexpr (walks_blocks<decltype(rows)>)
    for (; whole && g < groups; g += rows.groups) {
      rows.visit((g0 + g) / rows.groups, [&](auto const& scales) TERN_LAMBDA {
        TERN_UNROLL
        for (int i = 0; i < (Scales ? 8 : 0); ++i) store_scales<W>(scales.of_group(i), g + i, first, panel);
        return panel_codes<decltype(next)>{panel.codes + 4 * (8 * g * panel_rows + first), next};
      });
    }
  for (; g < groups; ++g) {
    row_group<W::granule> w;
    if constexpr (walks_blocks<decltype(rows)>)
      load_rows(weights, n, end, g0 + g, w);
    else if (whole)
      rows.load(g0 + g, w);
    else
      load_rows(weights, n, end, g0 + g, w);
    next.step();
    for (index h = 0; h < 2; ++h) {
      if constexpr (!loads_quads<W>) simd::transpose_quads(w.u[h]);
      for (index j = 0; j < 4; ++j) simd::store(panel.codes + 4 * ((8 * g + 4 * h + j) * panel_rows + first), w.u[h][j]);
    }
    if constexpr (Scales) store_scales<W>(w, g, first, panel);
  }
}
/// One weight row to one lane.
template <bool Scales, class W>
TERN_INLINE void pack_lane(W const& weights, index n, index g0, index groups, index lane, code_panel& panel) {
  constexpr index granules = 32 / W::granule;
  for (index g = 0; g < groups; ++g) {
    std::uint8_t u[32];
    weights.unpack(n, g0 + g, u);
    for (index j = 0; j < 8; ++j) __builtin_memcpy(panel.codes + 4 * ((8 * g + j) * panel_rows + lane), u + 4 * j, 4);
    if constexpr (!Scales) continue;
    float scale[granules], min[granules];
    weights.scales(n, g0 + g, scale, min);
    for (index j = 0; j < granules; ++j) {
      index const at = (g * granules + j) * panel_rows + lane;
      panel.scales[at] = scale[j];
      if constexpr (W::has_min) panel.mins[at] = min[j];
    }
  }
}
/// Unpacks groups [g0, g1) of weight rows [n0, n1), n0 a multiple of the lanes, g1 - g0 <= panel_groups with their scales, integer_groups
/// without. Lanes beyond repeat the last row, and nobody stores what comes of them.
template <bool Scales, class W>
inline void pack_codes(W const& w, index n0, index n1, index g0, index g1, code_panel& panel) noexcept {
  constexpr index L = simd::lanes;
  auto const last = [&](index n) TERN_LAMBDA { return n < n1 ? n : n1 - 1; };
  for (index first = 0; first < panel_rows; first += L) {
    if constexpr (L % 4 == 0)
      pack_lanes<Scales>(w, last(n0 + first), n1, g0, g1 - g0, first, panel);
    else
      for (index lane = first; lane < first + L; ++lane) pack_lane<Scales>(w, last(n0 + lane), g0, g1 - g0, lane, panel);
  }
}

/// What products depend on in a format. Formats that agree share their code; offsets are known at run time.
template <index Granule, bool HasMin, bool Wide>
struct code_shape {
  static constexpr index granule = Granule;
  static constexpr bool has_min = HasMin;  // and no offset
  static constexpr bool wide = Wide;       // codes of eight bits, not seven, where the instructions differ
};
/// Whether codes are.
TERN_INLINE constexpr bool is_wide(code_kind const& codes) { return !simd::dot7_takes_bytes && codes.offset == 128; }
/// Calls f(code_shape) with that of codes.
template <class F>
TERN_INLINE void with_shape(code_kind const& codes, F&& f) {
  bool const wide = is_wide(codes);
  if (codes.granule == 32) {
    if (codes.has_min) return f(code_shape<32, true, false>{});
    if (wide) return f(code_shape<32, false, !simd::dot7_takes_bytes>{});
    return f(code_shape<32, false, false>{});
  }
  if (codes.has_min) return f(code_shape<16, true, false>{});
  if (wide) return f(code_shape<16, false, !simd::dot7_takes_bytes>{});
  return f(code_shape<16, false, false>{});
}

/// Codes of all kinds that meet bytes in [-128, 127].
struct any_byte_shape {
  static constexpr bool wide = false;
};
/// Codes as products with bytes in [-127, 127] take them. Wide ones are made signed: their offset is taken off.
template <class Shape>
TERN_INLINE auto code_factor(simd::pack<std::uint8_t> u) {
  if constexpr (Shape::wide)
    return simd::signed_factor(simd::bit_cast<std::int8_t>(u ^ simd::pack<std::uint8_t>(std::uint8_t{0x80})));
  else
    return u;
}
template <class Shape, class Factor>
TERN_INLINE simd::pack<std::int32_t> dot_codes(simd::pack<std::int32_t> sum, Factor const& w, simd::pack<std::int8_t> x) {
  if constexpr (std::is_same_v<Shape, any_byte_shape>)
    return simd::dot(sum, w, x);
  else if constexpr (!Shape::wide)
    return simd::dot7(sum, w, x);
  else if constexpr (std::is_same_v<Factor, simd::signed_factor>)
    return simd::dot127(sum, w, x);
  else
    return simd::dot127(sum, code_factor<Shape>(w), x);
}
/// The same of n registers u(i) of codes up to `most` with x(i). Where maddubs multiplies, as many products as fit are added up in 16 bits:
/// 2 * 127 most of each pair.
template <class Shape, index n, class Codes, class Columns>
TERN_INLINE simd::pack<std::int32_t> dot_several(simd::pack<std::int32_t> sum, Codes const& u, Columns const& x, int most) {
  static_assert(n == 2 || n == 4);
  if constexpr (simd::has_pair_sums && !Shape::wide) {
    index const at_once = most <= 128 / n ? n : most <= 64 ? 2 : 1;
    TERN_UNROLL
    for (index j = 0; j < n; j += at_once) {
      auto words = simd::no_words();
      TERN_UNROLL
      for (index i = j; i < j + at_once; ++i) words = simd::add_byte_pairs(words, u(i), x(i));
      sum = simd::add_words(sum, words);
    }
  } else {
    TERN_UNROLL
    for (index i = 0; i < n; ++i) sum = dot_codes<Shape>(sum, u(i), x(i));
  }
  return sum;
}
/// What is left to take off of their products.
template <class Shape>
TERN_INLINE constexpr std::int32_t offset_left(std::int32_t offset) {
  return Shape::wide ? 0 : offset;
}

}  // namespace TERN_ABI
}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/depthwise_strips.hpp
/// The loop of kernels with 5 or 7 rows of up to 7 taps, such as 7 x 7, on images whose columns are neighbors in memory: lanes are columns,
/// and the sums of up to 14 rows of outputs, or 7 where there are few registers, stay in them. For each column of taps a row of the signal
/// is read once and belongs to as many rows of outputs as there are taps:
///
///     out[h] = bias + sum over t, over r of w[r, t] x[h + r, t]

#include <tern/core/rounding.hpp>
#include <tern/simd/bytes.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// The most taps of a row, and outputs of a column whose sums are in registers beside a column of taps.
inline constexpr index strip_taps_most = 7, strip_rows_most = simd::many_registers ? 14 : 7;

/// A register of columns of some rows of outputs of one channel.
struct depthwise_strip {
  float const* x;  // where the first output's first tap is, or would be
  index x_row;
  index begin, end;                        // rows that are no zeros, from the first one on
  simd::lane_range seen[strip_taps_most];  // columns that are no zeros, at each tap of a row
  std::int32_t const* seen_bits;           // (strip_taps_most, lanes), all ones or all zeros: the same
  bool inside;                             // whatever lies in the other lanes, it is x's
  float const* taps;
  index taps_row, taps_column, taps_in_row;
  float bias;
  float* out;
  index out_row;
  index rows, stored;  // of outputs; of their lanes
};

template <index rows, index taps, bool inside>
inline void sum_strip(depthwise_strip const& p) noexcept {
  simd::pack<float> acc[rows];
  TERN_UNROLL
  for (index h = 0; h < rows; ++h) acc[h] = simd::pack<float>(p.bias);
  index const begin = p.begin, end = p.end, last = p.taps_in_row - 1, stored = p.stored, out_rows = p.rows, out_row = p.out_row;
  float* out = p.out;
  for (index t = 0; t <= last; ++t) {
    float const* w = p.taps + t * p.taps_column;
    simd::pack<float> k[taps];
    TERN_UNROLL
    for (index r = 0; r < taps; ++r, w = simd::stepped(w, p.taps_row)) k[r] = simd::in_register(simd::pack<float>(*w));
    simd::lane_range const seen = p.seen[t];
    // A load under a mask waits for the mask, which waits behind all sums; bits do not.
    simd::pack<std::int32_t> const bits = simd::in_register(simd::load(p.seen_bits + t * simd::lanes));
    float const* x = p.x + t;
    // Rows before the image end among the first: there are fewer than taps.
    auto const add_row = [&](index i) TERN_LAMBDA {
      float const* const at = x;
      x = simd::stepped(x, p.x_row);
      if ((i < taps - 1 && i < begin) || i >= end) return;
      simd::pack<float> const v = simd::in_register(inside ? simd::bit_cast<float>(simd::bit_cast<std::int32_t>(simd::load(at)) & bits)
                                                           : simd::load_range(at, seen));
      TERN_UNROLL
      for (index r = 0; r < taps; ++r)
        if (0 <= i - r && i - r < rows) acc[i - r] = simd::fma(v, k[r], acc[i - r]);
    };
    // Stores one at a time between the last sums: all together they would keep the next ones waiting.
    auto const store_row = [&](index h) TERN_LAMBDA {
      if (t != last || h >= out_rows) return;
      simd::store_n(out, acc[h], stored);
      out += out_row;
    };
    TERN_UNROLL
    for (index i = 0; i < taps - 1; ++i) add_row(i);
    TERN_UNROLL
    for (index h = 0; h < rows; ++h) add_row(h + taps - 1), store_row(h);
  }
}

using strip_function = void (*)(depthwise_strip const&) noexcept;
/// Of so many rows of outputs, and 5 or 7 taps.
template <bool inside>
TERN_INLINE strip_function strip_function_of(index rows, index taps) {
  constexpr index most = strip_rows_most;
  if (taps == 7) return rows > 7 ? &sum_strip<most, 7, inside> : &sum_strip<7, 7, inside>;
  return rows > 7 ? &sum_strip<most, 5, inside> : &sum_strip<7, 5, inside>;
}
inline void sum_strip(depthwise_strip const& p, index taps) noexcept {
  if constexpr (simd::masks_loads) (p.inside ? strip_function_of<true>(p.rows, taps) : strip_function_of<false>(p.rows, taps))(p);
}

}  // namespace TERN_ABI
}  // namespace tern::detail

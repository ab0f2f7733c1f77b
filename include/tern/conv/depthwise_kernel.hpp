// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/depthwise_kernel.hpp
/// The loop of depthwise convolution. Lanes are channels; a row of neighboring outputs stays in registers while all taps pass by. What
/// reaches it are rows of registers, zeros included: `signal` (columns, lanes) and `taps` (taps, lanes).
///
///     out[p] = bias + sum over pairs of rows, over t of signal[p + t] taps[t]
///
/// Up to four taps are held at a time, and each register of the signal serves all of them: (pixels + 2 taps - 1) loads for pixels taps
/// multiply-adds, where one tap at a time would wait for the loads.

#include <tern/core/rounding.hpp>
#include <tern/simd/pack.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Taps whose columns follow each other, and the column of the first. A row of taps is one of these, or several where taps or outputs
/// lie apart.
struct depthwise_run {
  index column;
  index tap;
  index count;
};

/// A row of the signal and the taps that it meets.
struct depthwise_pair {
  float const* signal;
  float const* taps;
};

/// Neighboring outputs, and what they are the sum of: over runs, over pairs.
struct depthwise_tile {
  depthwise_pair const* pairs;
  index pair_count;
  depthwise_run const* runs;
  index run_count;
  index column;       // where the first output's run starts, beside the run's own column
  float const* bias;  // (lanes)
  float* out;
  index out_step;  // floats from one pixel to the next
  index pixels;    // that are stored
};

/// acc[p] += sum over t of s[p + t] w[t], t ascending for each p; rows of s and w lie so many floats apart.
template <index pixels, index taps>
TERN_INLINE void add_taps(simd::pack<float> (&acc)[pixels], float const* s, index s_step, float const* w, index w_step) {
  simd::pack<float> k[taps];
  TERN_UNROLL
  for (index t = 0; t < taps; ++t) k[t] = simd::in_register(simd::load(w + t * w_step));
  TERN_UNROLL
  for (index i = 0; i < pixels; ++i) {
    simd::pack<float> const x = simd::in_register(simd::load(s + i * s_step));
    TERN_UNROLL
    for (index t = 0; t < taps; ++t)
      if (t <= i) acc[i - t] = simd::fma(x, k[t], acc[i - t]);
  }
  TERN_UNROLL
  for (index i = pixels; i < pixels + taps - 1; ++i) {
    simd::pack<float> const x = simd::in_register(simd::load(s + i * s_step));
    TERN_UNROLL
    for (index t = 1; t < taps; ++t)
      if (0 <= i - t && i - t < pixels) acc[i - t] = simd::fma(x, k[t], acc[i - t]);
  }
}

/// acc[p] += sum over pairs, over the run's taps t of signal[column + p + t] taps[t], by fours and what is left.
template <index pixels>
TERN_INLINE void add_run(simd::pack<float> (&acc)[pixels], depthwise_tile const& tile, depthwise_run const& run) {
  using simd::lanes;
  index const rest = run.count % 4 != 1 ? run.count % 4 : run.count < 5 ? 1 : 5, fours = (run.count - rest) / 4;
  index const column = (tile.column + run.column) * lanes, tap = run.tap * lanes;
  for (index i = 0; i < tile.pair_count; ++i) {
    float const* s = tile.pairs[i].signal + column;
    float const* w = tile.pairs[i].taps + tap;
    for (index n = 0; n < fours; ++n, s += 4 * lanes, w += 4 * lanes) add_taps<pixels, 4>(acc, s, lanes, w, lanes);
    if (rest >= 3) {
      add_taps<pixels, 3>(acc, s, lanes, w, lanes);
      s += 3 * lanes, w += 3 * lanes;
    }
    if (rest == 2 || rest == 5) add_taps<pixels, 2>(acc, s, lanes, w, lanes);
    if (rest == 1) add_taps<pixels, 1>(acc, s, lanes, w, lanes);
  }
}

template <index pixels>
inline void depthwise_pixels(depthwise_tile const& t) noexcept {
  simd::pack<float> acc[pixels];
  TERN_UNROLL
  for (index p = 0; p < pixels; ++p) acc[p] = simd::load(t.bias);
  for (index r = 0; r < t.run_count; ++r) add_run<pixels>(acc, t, t.runs[r]);
  TERN_UNROLL
  for (index p = 0; p < pixels; ++p)
    if (p < t.pixels) simd::store(t.out + p * t.out_step, acc[p]);
}

/// The most outputs that fit into registers beside taps and signal.
#if defined(TERN_SIMD_AVX512) || defined(TERN_SIMD_NEON)
inline constexpr index depthwise_pixels_most = 14;
#else
inline constexpr index depthwise_pixels_most = 10;
#endif

/// How many of `left` outputs come next. Tiles of equal widths, as fewer than eight sums wait for each other; the width is one that
/// there is a loop for, and may exceed what is left.
TERN_INLINE index depthwise_width(index left) {
  index const tiles = divide_up(left, depthwise_pixels_most), even = divide_up(left, tiles);
  constexpr index widths[] = {1, 4, 7, 8, 10, 12, 14};
  for (index w : widths)
    if (w >= even && w <= depthwise_pixels_most) return w;
  return depthwise_pixels_most;
}

inline void depthwise_pixels(depthwise_tile const& t, index width) noexcept {
  switch (width) {
    case 1:
      return depthwise_pixels<1>(t);
    case 4:
      return depthwise_pixels<4>(t);
    case 7:
      return depthwise_pixels<7>(t);
    case 8:
      return depthwise_pixels<8>(t);
    case 10:
      return depthwise_pixels<10>(t);
    default:
      break;
  }
  if constexpr (depthwise_pixels_most > 10) {
    if (width == 12) return depthwise_pixels<12>(t);
    return depthwise_pixels<14>(t);
  }
}

}  // namespace TERN_ABI
}  // namespace tern::detail

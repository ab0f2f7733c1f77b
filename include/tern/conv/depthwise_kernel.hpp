// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/depthwise_kernel.hpp
/// The loop of depthwise convolution. Lanes are channels; a row of neighboring outputs stays in registers while all taps pass by. What
/// reaches it are rows of registers, zeros included: `signal` (columns, lanes) and `taps` (taps, lanes).
///
///     out[p] = bias + sum over pairs of rows, over t of signal[p + t] taps[t]
///
/// A few taps are held at a time, and each register of the signal serves all of them: (pixels + 2 taps - 1) loads for pixels taps
/// multiply-adds, where one tap at a time would wait for the loads.

#include <tern/core/rounding.hpp>
#include <tern/simd/pack.hpp>

#include <cstdint>

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
  index begin, end;   // columns that are not zeros of the border
  float const* bias;  // (lanes)
  float* out;
  index out_step;  // floats from one pixel to the next
  index pixels;    // that are stored
};

/// The most outputs, and taps beside them, that fit into registers.
#if defined(TERN_SIMD_AVX512) || defined(TERN_SIMD_NEON)
inline constexpr index depthwise_pixels_most = 14, depthwise_taps_most = 7;
#else
inline constexpr index depthwise_pixels_most = 10, depthwise_taps_most = 4;
#endif

/// acc[p] += sum over t of s[p + t] w[t], t ascending for each p; rows of s and w lie so many floats apart. Where that is asked for,
/// rows of s are left out whose bit in `real` is not set: zeros.
template <index pixels, index taps, bool some = false>
TERN_INLINE void add_taps(simd::pack<float> (&acc)[pixels], float const* s, index s_step, float const* w, index w_step,
                          std::uint32_t real = 0) {
  simd::pack<float> k[taps];
  TERN_UNROLL
  for (index t = 0; t < taps; ++t) k[t] = simd::in_register(simd::load(w + t * w_step));
  TERN_UNROLL
  for (index i = 0; i < pixels; ++i) {
    if constexpr (some)
      if ((real >> i & 1u) == 0) continue;
    simd::pack<float> const x = simd::in_register(simd::load(s + i * s_step));
    TERN_UNROLL
    for (index t = 0; t < taps; ++t)
      if (t <= i) acc[i - t] = simd::fma(x, k[t], acc[i - t]);
  }
  TERN_UNROLL
  for (index i = pixels; i < pixels + taps - 1; ++i) {
    if constexpr (some)
      if ((real >> i & 1u) == 0) continue;
    simd::pack<float> const x = simd::in_register(simd::load(s + i * s_step));
    TERN_UNROLL
    for (index t = 1; t < taps; ++t)
      if (0 <= i - t && i - t < pixels) acc[i - t] = simd::fma(x, k[t], acc[i - t]);
  }
}

/// The same for 1 to depthwise_taps_most taps; if some columns are left out, for no less than half as many.
template <index pixels, bool some, index most = depthwise_taps_most>
TERN_INLINE void add_some_taps(simd::pack<float> (&acc)[pixels], float const* s, float const* w, index taps, std::uint32_t real) {
  if constexpr (most > (some ? (depthwise_taps_most + 1) / 2 : 1))
    if (taps < most) return add_some_taps<pixels, some, most - 1>(acc, s, w, taps, real);
  add_taps<pixels, most, some>(acc, s, simd::lanes, w, simd::lanes, real);
}

/// Bits begin to end - 1, of the 32 that there are.
TERN_INLINE std::uint32_t bits_between(index begin, index end) {
  auto const below = [](index n) { return n <= 0 ? 0u : n >= 32 ? ~0u : (1u << n) - 1; };
  return below(end) & ~below(begin);
}

/// acc[p] += sum over pairs, over the run's taps t of signal[column + p + t] taps[t]
template <index pixels, bool some>
TERN_INLINE void add_run(simd::pack<float> (&acc)[pixels], depthwise_tile const& tile, depthwise_run const& run) {
  constexpr index most = depthwise_taps_most;
  index const column = tile.column + run.column;
  for (index i = 0; i < tile.pair_count; ++i) {
    float const* s = tile.pairs[i].signal + column * simd::lanes;
    float const* w = tile.pairs[i].taps + run.tap * simd::lanes;
    index at = column;
    for (index left = run.count; left > 0;) {
      index const taps = left <= most ? left : left >= 2 * most ? most : (left + 1) / 2;  // not few at the end
      add_some_taps<pixels, some>(acc, s, w, taps, some ? bits_between(tile.begin - at, tile.end - at) : 0);
      s += taps * simd::lanes;
      w += taps * simd::lanes;
      at += taps;
      left -= taps;
    }
  }
}

template <index pixels>
inline void depthwise_pixels(depthwise_tile const& t) noexcept {
  simd::pack<float> acc[pixels];
  TERN_UNROLL
  for (index p = 0; p < pixels; ++p) acc[p] = simd::load(t.bias);
  for (index r = 0; r < t.run_count; ++r) {
    index const from = t.column + t.runs[r].column, count = t.runs[r].count;
    bool const zeros = from < t.begin || from + count + pixels - 1 > t.end;
    if (zeros && count > depthwise_taps_most)  // few taps waste less on zeros than it costs to look
      add_run<pixels, true>(acc, t, t.runs[r]);
    else
      add_run<pixels, false>(acc, t, t.runs[r]);
  }
  if (t.pixels == pixels) {
    TERN_UNROLL
    for (index p = 0; p < pixels; ++p) simd::store(t.out + p * t.out_step, acc[p]);
  } else {
    TERN_UNROLL
    for (index p = 0; p < pixels; ++p)
      if (p < t.pixels) simd::store(t.out + p * t.out_step, acc[p]);
  }
}

/// How many of `left` outputs come next: one of the widths that there is a loop for, which may exceed what is left. The last two tiles
/// are about even, as sums that are few wait for each other.
TERN_INLINE index depthwise_width(index left) {
  if (left >= 2 * depthwise_pixels_most) return depthwise_pixels_most;
  index const even = left > depthwise_pixels_most ? (left + 1) / 2 : left;
  return even > 10 ? depthwise_pixels_most : even > 7 ? 10 : even > 4 ? 7 : even > 1 ? 4 : 1;
}

inline void depthwise_pixels(depthwise_tile const& t, index width) noexcept {
  if (width == 1) return depthwise_pixels<1>(t);
  if (width == 4) return depthwise_pixels<4>(t);
  if (width == 7) return depthwise_pixels<7>(t);
  if constexpr (depthwise_pixels_most > 10)
    if (width == depthwise_pixels_most) return depthwise_pixels<depthwise_pixels_most>(t);
  depthwise_pixels<10>(t);
}

}  // namespace TERN_ABI
}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/depthwise_kernel.hpp
/// The loop of depthwise convolution. Lanes are channels; a row of neighboring outputs stays in registers while all taps pass by. What
/// reaches it are rows of registers: `signal` (columns, lanes) and `taps` (taps, lanes), where they lie or copies.
///
///     out[p] = bias + sum over rows, over t of signal[p + t] taps[t]
///
/// A few taps are held at a time, and each register of the signal serves all of them: (pixels + 2 taps - 1) loads for pixels taps
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

/// Rows of the signal and those of taps that they meet, both at even distances.
struct depthwise_rows {
  float const* signal;
  float const* taps;
  index count;
};

/// Floats from a row to the next, and from a column or a tap to the next.
struct depthwise_steps {
  index signal_row, taps_row, signal, taps;
};

/// The most outputs whose sums are in registers, and taps of a row that one call serves.
inline constexpr index depthwise_pixels_most = simd::many_registers ? 14 : 10, depthwise_taps_most = 7;
/// Columns at either end that may be zeros where not any may be: where loads are half as wide a test costs as much as what it guards.
inline constexpr index depthwise_zeros_most = simd::many_registers ? depthwise_taps_most : 0;

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

/// Neighboring outputs and a few taps, of registers of channels at even distances: out[p] = from[p] + sum over rows, over t of signal[p +
/// t] taps[t]. Columns before `begin` and from `end` on, counted from the first, are zeros that are left out.
struct depthwise_sum {
  depthwise_rows const* rows;
  depthwise_rows const* rows_end;
  depthwise_steps steps;
  index signal_at, taps_at;  // floats from what `rows` point to to the first column and tap
  index begin, end;
  float const* from;
  index from_step;
  float* out;
  index out_step;
  index pixels;  // that are stored
  index members;
  index next_signal, next_taps, next_from, next_out;  // floats from a register of channels to the next
};

/// Whether column v is left out, those from `begin` on being signal.
TERN_INLINE bool is_before(index v, index begin) { return v < begin; }

/// A row of taps where there are 16 registers: up to four are held beside ten sums and a register of the signal, 17 loads for 40
/// multiply-adds. Columns lie four to an address: one that waits for the last one's sum each time takes as long as the multiply-adds.
template <index pixels, index taps, bool any>
TERN_INLINE void add_row_by_few(simd::pack<float> (&acc)[pixels], depthwise_sum const& c, float const* s, float const* w) {
  constexpr index held = least(taps, 4), group = 4;
  index const begin = c.begin, end = c.end, step = c.steps.signal;
  TERN_UNROLL
  for (index first = 0; first < taps; first += held) {
    simd::pack<float> k[held];
    TERN_UNROLL
    for (index t = 0; t < held; ++t, w = simd::stepped(w, c.steps.taps))
      if (first + t < taps) k[t] = simd::in_register(simd::load(w));
    float const* columns = s;
    TERN_UNROLL
    for (index i = 0; i < pixels + held - 1; ++i) {
      float const* const at = columns + i % group * step;
      if (i % group == group - 1) columns = simd::stepped(columns, group * step);
      index const v = first + i;
      if (v >= pixels + taps - 1) continue;
      if (any && is_before(v, begin)) continue;
      if (any && v >= end) continue;
      simd::pack<float> const x = simd::in_register(simd::load(at));
      TERN_UNROLL
      for (index t = 0; t < held; ++t)
        if (first + t < taps && 0 <= i - t && i - t < pixels) acc[i - t] = simd::in_register(simd::fma(x, k[t], acc[i - t]));
    }
    s = simd::stepped(s, held * step);
  }
}

/// Which columns may be zeros: depthwise_zeros_most at either end, or any.
enum class depthwise_zeros { ends, any };

template <index pixels, index taps, depthwise_zeros zeros>
inline void depthwise_sums(depthwise_sum const& c) noexcept {
  constexpr index columns = pixels + taps - 1, most = depthwise_zeros_most;
  constexpr bool any = zeros == depthwise_zeros::any;
  index const begin = c.begin, end = c.end;
  index signal_at = c.signal_at, taps_at = c.taps_at;
  float const* from = c.from;
  float* out = c.out;
  for (index m = c.members; m > 0; --m) {
    simd::pack<float> acc[pixels];
    TERN_UNROLL
    for (index p = 0; p < pixels; ++p) acc[p] = simd::load(from + p * c.from_step);
    auto const add_row = [&](float const* s, float const* w) TERN_LAMBDA {
      if constexpr (simd::many_registers) {
        simd::pack<float> k[taps];
        TERN_UNROLL
        for (index t = 0; t < taps; ++t, w = simd::stepped(w, c.steps.taps)) k[t] = simd::in_register(simd::load(w));
        auto const add_column = [&](index v) TERN_LAMBDA {
          float const* const at = s;
          s = simd::stepped(s, c.steps.signal);
          if ((any || v < most) && is_before(v, begin)) return;
          if ((any || v >= columns - most) && v >= end) return;
          simd::pack<float> const x = simd::in_register(simd::load(at));
          TERN_UNROLL
          for (index t = 0; t < taps; ++t)
            if (0 <= v - t && v - t < pixels) acc[v - t] = simd::fma(x, k[t], acc[v - t]);
        };
        TERN_UNROLL
        for (index v = 0; v < pixels; ++v) add_column(v);
        TERN_UNROLL
        for (index v = pixels; v < columns; ++v) add_column(v);
      } else {
        add_row_by_few<pixels, taps, any>(acc, c, s, w);
      }
    };
    for (depthwise_rows const* r = c.rows; r != c.rows_end; ++r) {
      float const *s = r->signal + signal_at, *w = r->taps + taps_at;
      for (index i = r->count; i > 0; --i, s += c.steps.signal_row, w += c.steps.taps_row) add_row(s, w);
    }
    if (c.pixels == pixels) {
      TERN_UNROLL
      for (index p = 0; p < pixels; ++p) simd::store(out + p * c.out_step, acc[p]);
    } else {
      TERN_UNROLL
      for (index p = 0; p < pixels; ++p)
        if (p < c.pixels) simd::store(out + p * c.out_step, acc[p]);
    }
    signal_at += c.next_signal;
    taps_at += c.next_taps;
    from += c.next_from;
    out += c.next_out;
  }
}

/// How many of `left` outputs come next: one of the widths that there is a loop for, which may exceed what is left. The last two tiles
/// are about even, as sums that are few wait for each other.
TERN_INLINE index depthwise_width(index left) {
  if (left >= 2 * depthwise_pixels_most) return depthwise_pixels_most;
  index const even = left > depthwise_pixels_most ? (left + 1) / 2 : left;
  return even > 10 ? depthwise_pixels_most : even > 7 ? 10 : even > 4 ? 7 : even > 1 ? 4 : 1;
}

using depthwise_function = void (*)(depthwise_sum const&) noexcept;
template <index pixels, depthwise_zeros zeros, index... taps>
TERN_INLINE depthwise_function depthwise_function_of(index count, std::integer_sequence<index, taps...>) {
  static constexpr depthwise_function of[] = {&depthwise_sums<pixels, taps + 1, zeros>...};
  return of[count - 1];
}
template <index pixels>
TERN_INLINE depthwise_function depthwise_function_of(index count, bool ends) {
  constexpr std::make_integer_sequence<index, depthwise_taps_most> taps;
  return ends ? depthwise_function_of<pixels, depthwise_zeros::ends>(count, taps)
              : depthwise_function_of<pixels, depthwise_zeros::any>(count, taps);
}
inline depthwise_function depthwise_function_of(index width, index taps, bool ends) noexcept {
  if (width == 1) return depthwise_function_of<1>(taps, ends);
  if (width == 4) return depthwise_function_of<4>(taps, ends);
  if (width == 7) return depthwise_function_of<7>(taps, ends);
  if constexpr (depthwise_pixels_most > 10)
    if (width == depthwise_pixels_most) return depthwise_function_of<depthwise_pixels_most>(taps, ends);
  return depthwise_function_of<10>(taps, ends);
}

}  // namespace TERN_ABI
}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/scale_search.hpp
/// Encoders of formats whose blocks leave a choice: scales, and minima, that make the sum of squared errors about least.
///
///     search_scales    x is about d s_g v[code]           s_g: an integer for each part of the block; v: any ascending levels
///     search_lines     x is about d s_g code - e t_g      s_g, t_g: integers, not negative
///
/// Both fit each part alone first: codes by rounding under a few trial scales, then the scale by least squares under these codes.
/// Then d (and e) and the integers are chosen against the error that decoding will see, and refined in turns: d by least squares,
/// the integers among neighbours. Of equals, the first tried wins: the same input gives the same block.
///
/// best_scale and best_line fit one part of any multiple of 16 elements.

#include <tern/formats/q4.hpp>

namespace tern::formats {
inline namespace TERN_ABI {
namespace detail {

/// NaN becomes 0, and what lies beyond `largest` that.
TERN_INLINE void take_finite(float const* in, index n, float largest, float* out) {
  for (index i = 0; i < n; ++i) out[i] = in[i] >= largest ? largest : in[i] <= -largest ? -largest : in[i] == in[i] ? in[i] : 0.f;
}
/// Rounded, and not to infinity.
TERN_INLINE f16 nearest_f16(float x) { return f16(x > 65504.f ? 65504.f : x < -65504.f ? -65504.f : x); }
/// The nearest integer from 0 to `high`, halves up. Compares floats by their bits, as integers: loops of it become vector code.
TERN_INLINE int nearest_int(float x, int high) {
  auto const most = __builtin_bit_cast(std::int32_t, static_cast<float>(high));
  auto bits = __builtin_bit_cast(std::int32_t, x);
  bits = bits < most ? bits : most;
  bits = bits > 0 ? bits : 0;
  return static_cast<int>(__builtin_bit_cast(float, bits) + 0.5f);
}
/// The least magnitude that searches look at: f16 scales are 0 for less, and squares stay in range.
inline constexpr float least_searched = 0x1p-40f;

/// The sum of f(i) for i < n, in 16 partial sums: loops that a compiler puts into registers. n: a multiple of 16.
template <class F>
TERN_INLINE float sum_of(int n, F&& f) {
  float part[16] = {};
  for (int i = 0; i < n; i += 16)
    for (int j = 0; j < 16; ++j) part[j] += f(i + j);
  TERN_UNROLL
  for (int j = 0; j < 4; ++j) part[j] = (part[j] + part[j + 4]) + (part[j + 8] + part[j + 12]);
  return (part[0] + part[1]) + (part[2] + part[3]);
}

/// Calls f(part, count) for pieces of x of at most 256, the places that the searches have.
template <class F>
TERN_INLINE void for_pieces(float const* x, int n, F&& f) {
  for (int i = 0; i < n; i += 256) f(x + i, n - i < 256 ? n - i : 256);
}

/// The integers from -offset on, as levels.
template <int offset, int count>
struct even_levels {
  static constexpr float reach_step = (count <= 8 ? 0.2f : 0.1f), reach_from = count - 1 - offset - 0.9f;
  static constexpr int reaches = static_cast<int>(2.f / reach_step);
  TERN_INLINE static constexpr float value(int code) { return static_cast<float>(code - offset); }
  TERN_INLINE static int code(float x) { return nearest_int(x + static_cast<float>(offset), count - 1); }
  TERN_INLINE static float nearest(float x) { return value(code(x)); }
};

template <int Parts, int Size>
struct searched_scales {
  f16 d;
  int scale[Parts];
  std::uint8_t code[Parts * Size];
};

/// The levels v nearest to x / scale. Places for 256.
template <class Levels>
TERN_INLINE void snap_levels(float const* TERN_RESTRICT x, int n, float scale, float* TERN_RESTRICT v) {
  float const inverse = scale != 0.f ? 1.f / scale : 0.f;
  for (int i = 0; i < n; ++i) v[i] = Levels::nearest(x[i] * inverse);
}
/// Sums over a part under the levels that a scale gives.
struct level_sums {
  float xv, vv;
};
template <class Levels>
inline level_sums sum_levels(float const* x, int n, float scale) {
  level_sums sums{0.f, 0.f};
  for_pieces(x, n, [&](float const* part, int count) TERN_LAMBDA {
    float v[256];
    snap_levels<Levels>(part, count, scale, v);
    sums.xv += sum_of(count, [&](int i) TERN_LAMBDA { return part[i] * v[i]; });
    sums.vv += sum_of(count, [&](int i) TERN_LAMBDA { return v[i] * v[i]; });
  });
  return sums;
}
/// The sum of squared errors under a scale.
template <class Levels>
inline float scale_error(float const* x, int n, float scale) {
  float sum = 0.f;
  for_pieces(x, n, [&](float const* part, int count) TERN_LAMBDA {
    float v[256];
    snap_levels<Levels>(part, count, scale, v);
    sum += sum_of(count, [&](int i) TERN_LAMBDA { return (part[i] - scale * v[i]) * (part[i] - scale * v[i]); });
  });
  return sum;
}
/// The scale s for which x is about s times levels.
template <class Levels>
inline float best_scale(float const* x, int n) {
  float const farthest = extremes_of(x, n).farthest;
  if (__builtin_fabsf(farthest) < least_searched) return 0.f;
  float best = 0.f, saved = 0.f;
  auto const attempt = [&](float scale) TERN_LAMBDA {
    level_sums const s = sum_levels<Levels>(x, n, scale);
    if (!(s.xv * s.xv > saved * s.vv)) return false;
    saved = s.xv * s.xv / s.vv;
    best = s.xv / s.vv;
    return true;
  };
  for (int i = 0; i < Levels::reaches; ++i) {
    float const scale = farthest / (Levels::reach_from + static_cast<float>(i) * Levels::reach_step);
    attempt(scale);
    attempt(-scale);
  }
  for (int i = 0; i < 4 && attempt(best); ++i) continue;
  return best;
}
/// Integers from `Low` to `High` scale the parts.
template <class Levels, int Low, int High, int Parts, int Size>
inline searched_scales<Parts, Size> search_scales(float const* in) {
  constexpr int n = Parts * Size, farther = -Low > High ? Low : High;
  float x[n], wanted[Parts];
  take_finite(in, n, __builtin_fabsf(65504.f * Levels::value(0) * static_cast<float>(farther)), x);
  for (int g = 0; g < Parts; ++g) wanted[g] = best_scale<Levels>(x + g * Size, Size);

  searched_scales<Parts, Size> best{};
  float least = scale_error<Levels>(x, n, 0.f);
  // Under d, the integers; kept if the error is less.
  auto const attempt = [&](float real) TERN_LAMBDA {
    f16 const rounded = nearest_f16(real);
    float const d = rounded;
    if (d == 0.f) return false;
    int scale[Parts];
    float error = 0.f;
    for (int g = 0; g < Parts; ++g) {
      int const near = Low + nearest_int(wanted[g] / d - Low, High - Low);
      float part = __builtin_inff();
      for (int s = near - 1; s <= near + 1; ++s) {
        if (s < Low || s > High) continue;
        float const e = scale_error<Levels>(x + g * Size, Size, d * static_cast<float>(s));
        if (!(e < part)) continue;
        part = e;
        scale[g] = s;
      }
      error += part;
    }
    if (!(error < least)) return false;
    least = error;
    best.d = rounded;
    for (int g = 0; g < Parts; ++g) best.scale[g] = scale[g];
    return true;
  };
  // d by least squares under the integers and codes of the best.
  auto const refine = [&]() TERN_LAMBDA {
    float const d = best.d;
    float xv = 0.f, vv = 0.f;
    for (int g = 0; g < Parts; ++g) {
      float const s = static_cast<float>(best.scale[g]);
      if (s == 0.f) continue;
      level_sums const sums = sum_levels<Levels>(x + g * Size, Size, d * s);
      xv += s * sums.xv;
      vv += s * s * sums.vv;
    }
    return vv > 0.f && attempt(xv / vv);
  };
  float const farthest = extremes_of(wanted, Parts).farthest;
  if (farthest != 0.f) {
    constexpr int trials = High > 1 ? 4 : 1;
    for (int i = 0; i < trials; ++i) attempt(farthest / static_cast<float>(farther < 0 ? farther + i : farther - i));
    if constexpr (High > 1) attempt(farthest / static_cast<float>(High));
    for (int i = 0; i < 4 && refine(); ++i) continue;
  }
  for (int g = 0; g < Parts; ++g) {
    float const scale = static_cast<float>(best.d) * static_cast<float>(best.scale[g]), inverse = scale != 0.f ? 1.f / scale : 0.f;
    for (int i = g * Size; i < (g + 1) * Size; ++i) best.code[i] = static_cast<std::uint8_t>(Levels::code(x[i] * inverse));
  }
  return best;
}

template <int Parts, int Size>
struct searched_lines {
  f16 d, e;
  int scale[Parts], min[Parts];
  std::uint8_t code[Parts * Size];
};
struct line {
  float scale, min;  // min is at most 0
};
/// The codes nearest to x under a line. Places for 256.
template <int Most>
TERN_INLINE void snap_line(float const* TERN_RESTRICT x, int n, line a, float* TERN_RESTRICT code) {
  float const inverse = a.scale != 0.f ? 1.f / a.scale : 0.f;
  for (int i = 0; i < n; ++i) code[i] = static_cast<float>(nearest_int((x[i] - a.min) * inverse, Most));
}
/// Sums over a part under the codes c that a line gives.
struct line_sums {
  float c, cc, xc, x;
};
template <int Most>
inline line_sums sum_line(float const* x, int n, line a) {
  line_sums sums{0.f, 0.f, 0.f, 0.f};
  for_pieces(x, n, [&](float const* part, int count) TERN_LAMBDA {
    float c[256];
    snap_line<Most>(part, count, a, c);
    sums.c += sum_of(count, [&](int i) TERN_LAMBDA { return c[i]; });
    sums.cc += sum_of(count, [&](int i) TERN_LAMBDA { return c[i] * c[i]; });
    sums.xc += sum_of(count, [&](int i) TERN_LAMBDA { return part[i] * c[i]; });
    sums.x += sum_of(count, [&](int i) TERN_LAMBDA { return part[i]; });
  });
  return sums;
}
template <int Most>
inline float line_error(float const* x, int n, line a) {
  float sum = 0.f;
  for_pieces(x, n, [&](float const* part, int count) TERN_LAMBDA {
    float c[256];
    snap_line<Most>(part, count, a, c);
    sum += sum_of(count, [&](int i) TERN_LAMBDA {
      float const e = part[i] - (a.scale * c[i] + a.min);
      return e * e;
    });
  });
  return sum;
}
/// Least squares under the codes that `a` gives.
template <int Most>
inline line fit_line(float const* x, int n, line a) {
  line_sums const s = sum_line<Most>(x, n, a);
  auto const count = static_cast<float>(n);
  float const determinant = count * s.cc - s.c * s.c;
  if (determinant > 0.f) {
    line const fit{(count * s.xc - s.c * s.x) / determinant, (s.cc * s.x - s.c * s.xc) / determinant};
    if (fit.min <= 0.f && fit.scale >= 0.f) return fit;
  }
  return s.cc > 0.f && s.xc > 0.f ? line{s.xc / s.cc, 0.f} : line{0.f, s.x < 0.f ? s.x / count : 0.f};
}
/// Codes from 0 to Most.
template <int Most>
inline line best_line(float const* x, int n) {
  extremes const range = extremes_of(x, n);
  float const low = range.least < 0.f ? range.least : 0.f, width = (range.most > low ? range.most : low) - low;
  line best{0.f, low};
  if (__builtin_fabsf(range.farthest) < least_searched) return {0.f, 0.f};
  float least = line_error<Most>(x, n, best);
  auto const attempt = [&](line a) TERN_LAMBDA {
    float const error = line_error<Most>(x, n, a);
    if (!(error < least)) return false;
    least = error;
    best = a;
    return true;
  };
  if (width > 0.f)
    for (int i = 0; i < 20; ++i) {
      line const a{width / (static_cast<float>(Most) + 0.1f * static_cast<float>(i - 10)), low};
      if (i == 10) attempt(a);
      attempt(fit_line<Most>(x, n, a));
    }
  for (int i = 0; i < 4 && attempt(fit_line<Most>(x, n, best)); ++i) continue;
  return best;
}

/// Codes from 0 to Most, integers from 0 to High.
template <int Most, int High, int Parts, int Size>
inline searched_lines<Parts, Size> search_lines(float const* in) {
  constexpr int n = Parts * Size;
  float x[n], d_wanted = 0.f, e_wanted = 0.f;
  line wanted[Parts];
  take_finite(in, n, 65504.f * static_cast<float>(High), x);
  for (int g = 0; g < Parts; ++g) {
    wanted[g] = best_line<Most>(x + g * Size, Size);
    d_wanted = wanted[g].scale > d_wanted ? wanted[g].scale : d_wanted;
    e_wanted = -wanted[g].min > e_wanted ? -wanted[g].min : e_wanted;
  }

  searched_lines<Parts, Size> best{};
  float least = line_error<Most>(x, n, {0.f, 0.f});
  auto const line_of = [](float d, float e, int s, int t)
                           TERN_LAMBDA { return line{d * static_cast<float>(s), -(e * static_cast<float>(t))}; };
  auto const attempt = [&](float real_d, float real_e) TERN_LAMBDA {
    f16 const rounded_d = nearest_f16(real_d), rounded_e = nearest_f16(real_e);
    float const d = rounded_d, e = rounded_e;
    int scale[Parts], min[Parts];
    float error = 0.f;
    for (int g = 0; g < Parts; ++g) {
      int const s0 = d > 0.f ? nearest_int(wanted[g].scale / d, High) : 0, t0 = e > 0.f ? nearest_int(-wanted[g].min / e, High) : 0;
      float part = __builtin_inff();
      for (int s = s0 > 0 ? s0 - 1 : 0; s <= s0 + 1 && s <= High; ++s)
        for (int t = t0 > 0 ? t0 - 1 : 0; t <= t0 + 1 && t <= High; ++t) {
          float const trial = line_error<Most>(x + g * Size, Size, line_of(d, e, s, t));
          if (!(trial < part)) continue;
          part = trial;
          scale[g] = s;
          min[g] = t;
        }
      error += part;
    }
    if (!(error < least)) return false;
    least = error;
    best.d = rounded_d;
    best.e = rounded_e;
    for (int g = 0; g < Parts; ++g) {
      best.scale[g] = scale[g];
      best.min[g] = min[g];
    }
    return true;
  };
  // d and e by least squares under the integers and codes of the best.
  auto const refine = [&]() TERN_LAMBDA {
    float aa = 0.f, ab = 0.f, bb = 0.f, xa = 0.f, xb = 0.f;  // a: scale times code, b: min
    for (int g = 0; g < Parts; ++g) {
      auto const s = static_cast<float>(best.scale[g]), t = static_cast<float>(best.min[g]);
      line_sums const sums = sum_line<Most>(x + g * Size, Size, line_of(best.d, best.e, best.scale[g], best.min[g]));
      aa += s * s * sums.cc;
      ab += s * t * sums.c;
      bb += t * t * static_cast<float>(Size);
      xa += s * sums.xc;
      xb += t * sums.x;
    }
    float const determinant = aa * bb - ab * ab;
    if (determinant > 0.f) return attempt((xa * bb - xb * ab) / determinant, (xa * ab - xb * aa) / determinant);
    return aa > 0.f && attempt(xa / aa, 0.f);
  };
  for (int i = 0; i < 3; ++i) attempt(d_wanted / static_cast<float>(High - i), e_wanted / static_cast<float>(High - i));
  for (int i = 0; i < 4 && refine(); ++i) continue;
  for (int g = 0; g < Parts; ++g) {
    line const a = line_of(best.d, best.e, best.scale[g], best.min[g]);
    float const inverse = a.scale != 0.f ? 1.f / a.scale : 0.f;
    for (int i = g * Size; i < (g + 1) * Size; ++i) best.code[i] = static_cast<std::uint8_t>(nearest_int((x[i] - a.min) * inverse, Most));
  }
  return best;
}

}  // namespace detail
}  // namespace TERN_ABI
}  // namespace tern::formats

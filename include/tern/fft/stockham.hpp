// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file fft/stockham.hpp
/// The transform in natural order, for lengths of the factors 2, 3 and 5, of `columns` sequences side by side: Stockham's passes between
/// two pieces of memory. A pass splits sequences of n into r of n / r,
///
///     y(q, j, p) = e^(-2 pi i p j / n) sum over k < r of x(q, p, k) e^(-2 pi i j k / r)      p < n / r, j and k < r
///
/// q counts what earlier passes have split, and the columns. Real and imaginary parts lie apart; given to each other's place, they make the
/// inverse. Registers run along q, or, where it is short, along q and p.
///
/// Source  Van Loan, "Computational Frameworks for the Fast Fourier Transform", 1992 (from knowledge).

#include <tern/fft/butterflies.hpp>
#include <tern/fft/tower_plan.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Real and imaginary parts.
struct planar {
  float* re;
  float* im;
};

/// n = r1 r2 ... with factors 4, 2, 3, 5, and the roots of each pass: (p, j), 0 < j < r, then e^(2 pi i m / r), m < r.
struct stockham_plan {
  static constexpr int most_passes = 40;
  index n = 1;
  int passes = 0;
  int radix[most_passes] = {};
  index table_at[most_passes] = {};
  index table_floats = 0;
  float const* tables = nullptr;
};

/// Whether n has no other factors than 2, 3 and 5.
constexpr bool is_smooth(index n) {
  for (index r = 2; r <= 5; ++r)
    while (n > 1 && n % r == 0) n /= r;
  return n == 1;
}
inline stockham_plan shape_stockham(index n) noexcept {
  stockham_plan t;
  t.n = n;
  for (index rest = n; rest > 1; rest /= t.radix[t.passes++]) {
    t.radix[t.passes] = rest % 4 == 0 ? 4 : rest % 2 == 0 ? 2 : rest % 3 == 0 ? 3 : 5;
    t.table_at[t.passes] = t.table_floats;
    t.table_floats += 2 * (rest / t.radix[t.passes] * (t.radix[t.passes] - 1) + t.radix[t.passes]);
  }
  return t;
}
inline void fill_stockham(stockham_plan& t, float* memory) noexcept {
  index n = t.n;
  for (int pass = 0; pass < t.passes; n /= t.radix[pass++]) {
    index const r = t.radix[pass], m = n / r;
    float* at = memory + t.table_at[pass];
    for (index p = 0; p < m; ++p)
      for (index j = 1; j < r; ++j) at = put(at, turn(-static_cast<double>(p * j) / static_cast<double>(n)));
    for (index j = 0; j < r; ++j) at = put(at, turn(static_cast<double>(j) / static_cast<double>(r)));
  }
  t.tables = memory;
}

/// sum over k of x_k e^(-2 pi i j k / R)
template <int R>
TERN_INLINE void small_dft(cpack (&x)[R], float const* roots) {
  if constexpr (R == 2) {
    cpack const a = x[0];
    x[0] = a + x[1];
    x[1] = a - x[1];
  } else if constexpr (R == 4) {
    cpack const a = x[0] + x[2], b = x[0] - x[2], c = x[1] + x[3], d = x[1] - x[3];
    x[0] = a + c;
    x[1] = minus_i(b, d);
    x[2] = a - c;
    x[3] = plus_i(b, d);
  } else {
    dft_odd(x, roots, false);
  }
}

/// Lanes of (q, p), q fastest, from `first` on: `count` of them, with memory touched element by element.
template <int R>
inline void stockham_lanes(planar x, planar y, index s, index m, index first, index count, float const* table) noexcept {
  constexpr index W = simd::lanes;
  float part[R][2][W] = {}, root[R][2][W] = {};
  for (index l = 0; l < count; ++l)
    for (int k = 0; k < R; ++k) {
      part[k][0][l] = x.re[first + l + s * m * k];
      part[k][1][l] = x.im[first + l + s * m * k];
      if (k == 0) continue;
      float const* const w = table + 2 * ((first + l) / s * (R - 1) + k - 1);
      root[k][0][l] = w[0];
      root[k][1][l] = w[1];
    }
  cpack a[R];
  for (int k = 0; k < R; ++k) a[k] = load_complex(part[k][0]);
  small_dft(a, table + 2 * m * (R - 1));
  for (int j = 0; j < R; ++j) store_complex(part[j][0], j > 0 ? a[j] * load_complex(root[j][0]) : a[j]);
  for (index l = 0; l < count; ++l) {
    index const q = (first + l) % s, p = (first + l) / s;
    for (int j = 0; j < R; ++j) {
      y.re[q + s * (R * p + j)] = part[j][0][l];
      y.im[q + s * (R * p + j)] = part[j][1][l];
    }
  }
}

template <int R>
inline void stockham_pass(planar x, planar y, index s, index m, float const* table) noexcept {
  constexpr index W = simd::lanes;
  if (s < W) {
    for (index c = 0; c < s * m; c += W) stockham_lanes<R>(x, y, s, m, c, least(W, s * m - c), table);
    return;
  }
  for (index p = 0; p < m; ++p) {
    float const* const root = table + 2 * p * (R - 1);
    index q = 0;
    for (; q + W <= s; q += W) {
      cpack a[R];
      TERN_UNROLL
      for (int k = 0; k < R; ++k) a[k] = {simd::load(x.re + q + s * (p + m * k)), simd::load(x.im + q + s * (p + m * k))};
      small_dft(a, table + 2 * m * (R - 1));
      TERN_UNROLL
      for (int j = 0; j < R; ++j) {
        if (j > 0) a[j] = a[j] * splat_complex(root + 2 * (j - 1));
        simd::store(y.re + q + s * (R * p + j), a[j].re);
        simd::store(y.im + q + s * (R * p + j), a[j].im);
      }
    }
    if (q < s) stockham_lanes<R>(x, y, s, m, s * p + q, s - q, table);
  }
}

/// The transforms of `columns` sequences x(n, columns); y is scratch of the same size. Returns where the result is: x or y.
inline planar run_stockham(stockham_plan const& t, index columns, planar x, planar y) noexcept {
  index s = columns, n = t.n;
  for (int pass = 0; pass < t.passes; ++pass) {
    index const r = t.radix[pass], m = n / r;
    float const* const table = t.tables + t.table_at[pass];
    switch (r) {
      case 4:
        stockham_pass<4>(x, y, s, m, table);
        break;
      case 2:
        stockham_pass<2>(x, y, s, m, table);
        break;
      case 3:
        stockham_pass<3>(x, y, s, m, table);
        break;
      default:
        stockham_pass<5>(x, y, s, m, table);
        break;
    }
    planar const kept = x;
    x = y;
    y = kept;
    s *= r;
    n = m;
  }
  return x;
}

}  // namespace TERN_ABI
}  // namespace tern::detail

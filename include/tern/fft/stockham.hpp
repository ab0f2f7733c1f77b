// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file fft/stockham.hpp
/// The transform in natural order, for lengths of the factors 2, 3, 5, 7, 11 and 13, of sequences side by side: Stockham's passes between
/// two blocks. A pass splits sequences of n into r of n / r,
///
///     y(q, j, p) = e^(-2 pi i p j / n) sum over k < r of x(q, p, k) e^(-2 pi i j k / r)      p < n / r, j and k < r
///
/// q counts what earlier passes have split, and the columns.
///
///     block   (rows, columns), columns a multiple of the lanes: a register of real parts, one of imaginary parts, and so on
///
/// Source  Van Loan, "Computational Frameworks for the Fast Fourier Transform", 1992 (from knowledge).

#include <tern/fft/butterflies.hpp>
#include <tern/fft/tower_plan.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// n = r1 r2 ..., and the roots of each pass: (p, j), 0 < j < r, then e^(2 pi i m / r), m < r.
struct stockham_plan {
  static constexpr int most_passes = 24;
  index n = 1;
  int passes = 0;
  int radix[most_passes] = {};
  index table_at[most_passes] = {};
  index table_floats = 0;
  float const* tables = nullptr;
};

/// The factor of the next pass: 8, but of 16, which would leave a 2.
constexpr int radix_of(index n) {
  if (n % 8 == 0 && n != 16) return 8;
  constexpr int radices[] = {4, 2, 3, 5, 7, 11, 13};
  for (int r : radices)
    if (n % r == 0) return r;
  return 0;
}
/// Whether passes for n exist.
constexpr bool is_smooth(index n) {
  while (n > 1 && radix_of(n) != 0) n /= radix_of(n);
  return n == 1;
}
constexpr int passes_of(index n) {
  int passes = 0;
  for (; n > 1; n /= radix_of(n)) ++passes;
  return passes;
}
inline stockham_plan shape_stockham(index n) noexcept {
  stockham_plan t;
  t.n = n;
  for (index rest = n; rest > 1; rest /= t.radix[t.passes++]) {
    index const r = t.radix[t.passes] = radix_of(rest);
    t.table_at[t.passes] = t.table_floats;
    t.table_floats += 2 * (rest / r * (r - 1) + r);
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

TERN_INLINE void dft4(cpack& x0, cpack& x1, cpack& x2, cpack& x3) {
  cpack const a = x0 + x2, b = x0 - x2, c = x1 + x3, d = x1 - x3;
  x0 = a + c;
  x1 = minus_i(b, d);
  x2 = a - c;
  x3 = plus_i(b, d);
}
/// sum over k of x_k e^(-2 pi i j k / R)
template <int R>
TERN_INLINE void small_dft(cpack (&x)[R], float const* roots) {
  if constexpr (R == 2) {
    cpack const a = x[0];
    x[0] = a + x[1];
    x[1] = a - x[1];
  } else if constexpr (R == 4) {
    dft4(x[0], x[1], x[2], x[3]);
  } else if constexpr (R == 8) {
    dft4(x[0], x[2], x[4], x[6]);
    dft4(x[1], x[3], x[5], x[7]);
    cpack const even[] = {x[0], x[2], x[4], x[6]}, odd[] = {x[1], x[3], x[5], x[7]};
    x[0] = even[0] + odd[0];
    x[4] = even[0] - odd[0];
    x[2] = minus_i(even[2], odd[2]);
    x[6] = plus_i(even[2], odd[2]);
    x[1] = even[1];  // + e^(-i pi / 4) odd[1]
    join_eighth(x[1], x[5], odd[1].re + odd[1].im, odd[1].im - odd[1].re);
    x[3] = even[3];  // + e^(-3 i pi / 4) odd[3]
    join_eighth(x[3], x[7], odd[3].im - odd[3].re, simd::pack<float>(0.f) - (odd[3].re + odd[3].im));
  } else {
    dft_odd(x, roots, false);
  }
}

/// Rows of a block: what passes read and write between the first and the last.
struct packed_block {
  float* data;
  index width;
  TERN_INLINE cpack load(index row, index q) const { return load_complex(data + 2 * (row * width + q)); }
  TERN_INLINE void store(index row, index q, cpack const& x) const { store_complex(data + 2 * (row * width + q), x); }
};

/// Rows p + m k of `from`, k < R, to rows first + step j of `to`, times a root each if there are any. unity: e^(2 pi i m / R).
template <int R, bool Turned, class From, class To>
TERN_INLINE void stockham_row(From const& from, index p, index m, To const& to, index first, index step, index s, float const* root,
                              float const* unity) noexcept {
  for (index q = 0; q < s; q += simd::lanes) {
    cpack a[R];
    TERN_UNROLL
    for (int k = 0; k < R; ++k) a[k] = from.load(p + m * k, q);
    small_dft(a, unity);
    TERN_UNROLL
    for (int j = 0; j < R; ++j) to.store(first + step * j, q, Turned && j > 0 ? a[j] * splat_complex(root + 2 * (j - 1)) : a[j]);
  }
}
/// A pass whose rows are s wide.
template <int R, class From, class To>
inline void stockham_pass(From const& from, To const& to, index s, index m, float const* table) noexcept {
  float const* const unity = table + 2 * m * (R - 1);
  stockham_row<R, false>(from, 0, m, to, 0, 1, s, table, unity);
  for (index p = 1; p < m; ++p) stockham_row<R, true>(from, p, m, to, R * p, 1, s, table + 2 * p * (R - 1), unity);
}
/// The last pass, with rows as wide as the block: m of them go to each of the R parts of the result.
template <int R, class From, class To>
inline void stockham_last(From const& from, To const& to, index s, index m, float const* table) noexcept {
  for (index p = 0; p < m; ++p) stockham_row<R, false>(from, p, m, to, p, m, s, table, table + 2 * (R - 1));
}

/// A factor as a type.
template <int R>
struct radix_type {
  static constexpr int value = R;
};
/// Calls f with the type of a factor.
template <class F>
TERN_INLINE void with_radix(int radix, F&& f) {
  switch (radix) {
    case 2:
      return f(radix_type<2>{});
    case 3:
      return f(radix_type<3>{});
    case 4:
      return f(radix_type<4>{});
    case 5:
      return f(radix_type<5>{});
    case 7:
      return f(radix_type<7>{});
    case 8:
      return f(radix_type<8>{});
    case 11:
      return f(radix_type<11>{});
    default:
      return f(radix_type<13>{});
  }
}

/// The transforms of `columns` sequences side by side, which the first pass reads from rows of `from` and the last writes to rows of `to`.
/// x, y: blocks between.
template <class From, class To>
inline void run_stockham(stockham_plan const& t, index columns, From const& from, To const& to, float* x, float* y) noexcept {
  if (t.passes == 0) {
    for (index q = 0; q < columns; q += simd::lanes) to.store(0, q, from.load(0, q));
    return;
  }
  index s = columns, n = t.n;
  int const last = t.passes - 1;
  for (int pass = 0; pass < last; ++pass) {
    index const r = t.radix[pass], m = n / r;
    float const* const table = t.tables + t.table_at[pass];
    with_radix(t.radix[pass], [&](auto factor) TERN_LAMBDA {
      constexpr int R = decltype(factor)::value;
      if (pass == 0)
        stockham_pass<R>(from, packed_block{x, s}, s, m, table);
      else
        stockham_pass<R>(packed_block{y, s}, packed_block{x, s}, s, m, table);
    });
    float* const kept = x;
    x = y;
    y = kept;
    s *= r;
    n = m;
  }
  float const* const table = t.tables + t.table_at[last];
  with_radix(t.radix[last], [&](auto factor) TERN_LAMBDA {
    constexpr int R = decltype(factor)::value;
    if (last == 0)
      stockham_last<R>(from, to, columns, 1, table);
    else
      stockham_last<R>(packed_block{y, columns}, to, columns, t.n / R, table);
  });
}
/// The same within blocks: x (n, columns) is transformed to y, or in place where that is as easy; which of them is returned.
inline float* run_stockham(stockham_plan const& t, index columns, float* x, float* y) noexcept {
  float* const result = t.passes % 2 == 0 ? x : y;
  // Passes write y, x, y, ...: each reads what the one before it wrote.
  run_stockham(t, columns, packed_block{x, columns}, packed_block{result, columns}, y, x);
  return result;
}

}  // namespace TERN_ABI
}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file fft/matrix.hpp
/// One sequence of n = A B numbers as a matrix, whose columns are transformed side by side, and then its rows:
///
///     z(f, b) = e^(-2 pi i f b / n) sum over a < A of x(a B + b) e^(-2 pi i a f / A)
///     y(f + A g) = sum over b < B of z(f, b) e^(-2 pi i b g / B)
///
/// Registers run along the columns, and, behind a transposition, along the rows: both are Stockham's passes (fft/stockham.hpp), and each
/// touches memory of n numbers once. Short sequences have A = 1: several are transformed side by side.
///
/// Source  Bailey, "FFTs in external or hierarchical memory", 1990 (from knowledge).

#include <tern/fft/complex.hpp>
#include <tern/fft/stockham.hpp>
#include <tern/simd/shuffle.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// A and B, and the roots between (A, B rounded up to registers).
struct matrix_plan {
  index n = 1, A = 1, B = 1;
  stockham_plan down, right;
  index table_floats = 0;
  float const* roots = nullptr;

  TERN_INLINE index width() const { return round_to_multiple(B, simd::lanes); }
  /// Columns that are transformed side by side: they stay in the first-level cache if few enough do.
  TERN_INLINE index columns() const { return least(width(), simd::lanes * greatest(1, 1024 / (A * simd::lanes))); }
  /// Sequences that are transformed together.
  TERN_INLINE index together() const { return A == 1 ? simd::lanes : 1; }
  /// Which number row k of transform_block is.
  TERN_INLINE index place(index k) const { return k / B + k % B * A; }
  /// Floats of the two blocks of a step, and of z.
  TERN_INLINE index block_floats() const { return 4 * greatest(A > 1 ? A * columns() : 0, B * simd::lanes); }
  TERN_INLINE index z_floats() const { return A > 1 ? 2 * A * width() : 0; }

 private:
  TERN_INLINE static index greatest(index a, index b) { return a > b ? a : b; }
};

/// Sequences of at most four registers have A = 1; of others the split that costs least, in passes of full registers, and one more for
/// what is read and written between. Blocks of long columns or rows leave the cache.
inline matrix_plan shape_matrix(index n) noexcept {
  constexpr index W = simd::lanes;
  matrix_plan t;
  t.n = t.B = n;
  index least_cost = 0;
  for (index A = 2; A * A <= n && n > 4 * W; ++A) {
    if (n % A != 0) continue;
    for (int turn = 0; turn < 2; ++turn) {
      index const a = turn == 0 ? A : n / A, b = n / a;
      index const far = 1 + (a > 4 * b || b > 4 * a);
      index const cost = (a * round_to_multiple(b, W) * passes_of(a) + b * round_to_multiple(a, W) * (passes_of(b) + 1)) * far;
      if (least_cost > 0 && cost > least_cost) continue;
      least_cost = cost;
      t.A = a;
      t.B = b;
    }
  }
  t.down = shape_stockham(t.A);
  t.right = shape_stockham(t.B);
  t.table_floats = (t.A > 1 ? 2 * t.A * t.width() : 0) + t.down.table_floats + t.right.table_floats;
  return t;
}
inline void fill_matrix(matrix_plan& t, float* memory) noexcept {
  constexpr index W = simd::lanes;
  if (t.A > 1) {
    for (index f = 0; f < t.A; ++f)
      for (index b = 0; b < t.width(); ++b) {
        unit const w = turn(-static_cast<double>(f * b % t.n) / static_cast<double>(t.n));
        float* const at = memory + 2 * (f * t.width() + b / W * W) + b % W;
        at[0] = static_cast<float>(w.re);
        at[W] = static_cast<float>(w.im);
      }
    t.roots = memory;
    memory += 2 * t.A * t.width();
  }
  fill_stockham(t.down, memory);
  fill_stockham(t.right, memory + t.down.table_floats);
}

/// Where sequences and their transforms lie: `step` floats from one to the next. The inverse is the conjugate of the conjugate's transform,
/// times a factor.
struct points_call {
  points_view x, y;
  index x_step = 0, y_step = 0;
  float sign = 1.f, factor = 1.f;

  TERN_INLINE points_call of(index r) const {
    points_call c = *this;
    c.x.data += r * x_step;
    c.y.data += r * y_step;
    return c;
  }
  TERN_INLINE cpack taken(cpack const& x_) const { return {x_.re, x_.im * simd::pack<float>(sign)}; }
  TERN_INLINE cpack given(cpack const& sum) const {
    return {sum.re * simd::pack<float>(factor), sum.im * simd::pack<float>(sign * factor)};
  }
  TERN_INLINE cpack load(index first, index count) const { return taken(load_points(x, first, count)); }
  TERN_INLINE void store(index first, index count, cpack const& sum) const { store_points(y, first, count, given(sum)); }
};

/// A tile of complex registers, `step` floats apart, to as many columns; `used` of each are stored, one after the other.
TERN_INLINE void transpose_complex(float const* from, index step, index count, float* to, index used) {
  constexpr index W = simd::lanes;
  TERN_UNROLL
  for (index part = 0; part < 2 * W; part += W) {  // real parts, imaginary ones: together they exceed the registers
    simd::pack<float> tile[W];
    TERN_UNROLL
    for (index l = 0; l < W; ++l) tile[l] = l < count ? simd::load(from + l * step + part) : simd::pack<float>(0.f);
    simd::transpose(tile);
    TERN_UNROLL
    for (index l = 0; l < W; ++l)
      if (l < used) simd::store(to + 2 * l * W + part, tile[l]);
  }
}

/// Columns of the matrix that lie in whole registers, one number after the other.
struct matrix_columns {
  float const* data;
  index step;
  simd::pack<float> sign;
  TERN_INLINE cpack load(index a, index q) const {
    cpack x;
    simd::load_interleaved(data + a * step + 2 * q, x.re, x.im);
    return {x.re, x.im * sign};
  }
};
/// Columns of z, with the roots between.
struct z_columns {
  float* z;
  float const* roots;
  index width;
  TERN_INLINE void store(index f, index q, cpack const& x) const {
    index const at = 2 * (f * width + q);
    store_complex(z + at, x * load_complex(roots + at));
  }
};
/// Columns from `first` on, to z. block: block_floats().
inline void transform_columns(matrix_plan const& t, points_call const& call, index first, float* z, float* block) noexcept {
  constexpr index W = simd::lanes;
  index const S = least(t.columns(), t.width() - first);
  z_columns const to{z + 2 * first, t.roots + 2 * first, t.width()};
  float* const other = block + 2 * t.A * S;
  if (call.x.is_dense() && t.B % W == 0)
    return run_stockham(t.down, S, matrix_columns{call.x.at(first), 2 * t.B, simd::pack<float>(call.sign)}, to, block, other);
  for (index a = 0; a < t.A; ++a)
    for (index q = 0; q < S; q += W) store_complex(block + 2 * (a * S + q), call.load(a * t.B + first + q, least(W, t.B - first - q)));
  run_stockham(t.down, S, packed_block{block, S}, to, other, block);
}

/// Rows of y: registers of whole rows, one number after the other.
struct matrix_rows {
  float* data;
  index step;
  simd::pack<float> re, im;
  TERN_INLINE void store(index g, index, cpack const& x) const { simd::store_interleaved(data + g * step, x.re * re, x.im * im); }
};
/// A register of rows of z from `first` on, to y.
inline void transform_rows(matrix_plan const& t, points_call const& call, index first, float const* z, float* block) noexcept {
  constexpr index W = simd::lanes;
  index const count = least(W, t.A - first);
  for (index b = 0; b < t.B; b += W) transpose_complex(z + 2 * (first * t.width() + b), 2 * t.width(), count, block + 2 * b * W, t.B - b);
  float* const other = block + 2 * t.B * W;
  if (call.y.is_dense() && count == W) {
    matrix_rows const to{call.y.at(first), 2 * t.A, simd::pack<float>(call.factor), simd::pack<float>(call.sign * call.factor)};
    return run_stockham(t.right, W, packed_block{block, W}, to, other, block);
  }
  float const* const sums = run_stockham(t.right, W, block, other);
  for (index g = 0; g < t.B; ++g) call.store(first + t.A * g, count, load_complex(sums + 2 * g * W));
}

/// `count` short sequences side by side, at most a register of them.
inline void transform_together(matrix_plan const& t, points_call const& call, index count, float* block) noexcept {
  constexpr index W = simd::lanes;
  alignas(64) float tile[2 * W * W];
  for (index b = 0; b < t.n; b += W) {
    for (index l = 0; l < count; ++l) store_complex(tile + 2 * l * W, call.of(l).load(b, least(W, t.n - b)));
    transpose_complex(tile, 2 * W, count, block + 2 * b * W, t.n - b);
  }
  float const* const sums = run_stockham(t.right, W, block, block + 2 * t.n * W);
  for (index b = 0; b < t.n; b += W) {
    transpose_complex(sums + 2 * b * W, 2 * W, t.n - b, tile, count);
    for (index l = 0; l < count; ++l) call.of(l).store(b, least(W, t.n - b), load_complex(tile + 2 * l * W));
  }
}

/// The transforms of `columns` sequences side by side, of a block (n, columns). Returns where the result is, x or y, whose row k holds
/// number place(k).
inline float* transform_block(matrix_plan const& t, index columns, float* x, float* y) noexcept {
  constexpr index W = simd::lanes;
  float* z = run_stockham(t.down, t.B * columns, x, y);
  float* const other = z == x ? y : x;
  float* result = z;
  for (index f = 0; f < t.A; ++f) {
    for (index b = 1; f > 0 && b < t.B; ++b) {
      float const* const w = t.roots + 2 * (f * t.width() + b / W * W) + b % W;
      cpack const root{simd::pack<float>(w[0]), simd::pack<float>(w[W])};
      for (index q = 0; q < columns; q += W) {
        float* const at = z + 2 * ((f * t.B + b) * columns + q);
        store_complex(at, load_complex(at) * root);
      }
    }
    index const row = 2 * f * t.B * columns;
    result = run_stockham(t.right, columns, z + row, other + row) == z + row ? z : other;
  }
  return result;
}

}  // namespace TERN_ABI
}  // namespace tern::detail

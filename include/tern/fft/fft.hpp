// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file fft/fft.hpp
/// Discrete Fourier transforms of complex rows.
///
///     fft(policy, x, y)                        y_f = sum over j of x_j e^(-2 pi i j f / n)
///     fft(policy, x, y, fft_direction::inverse)    x_j = 1/n sum over f of y_f e^(+2 pi i j f / n)
///     fft(policy, plan, x, y, ...)             with an fft_plan of n, made once (fft/fft_plan.hpp)
///     fft_2d(policy, x, y, ...)                both of the last two dimensions
///
/// Shapes  x, y (..., n), for fft_2d (rows, columns) or (batch, rows, columns), n from 1 on; rows and elements of any strides, leading
///         dimensions without gaps between them. y may be x.
/// Types   std::complex<float>, complex_f32, or what has their memory.
/// Cost    5 n log2 n operations for lengths of the factors 2, 3 and 5; about six times as many for others (a convolution of twice the
///         length). Without a plan, one is made for the call, in memory of its own: sines cost more than the transform of one row.
/// Error   |y - y*|_2 <= plan.error() |x|_2 sqrt(n) forward, and without the root backward: a few roundings for each of log2 n levels.
/// Errors  extents that do not agree, plans of another length.
/// Same    rows do not depend on each other, nor on threads.

#include <tern/core/parallel_for.hpp>
#include <tern/fft/complex.hpp>
#include <tern/fft/fft_plan.hpp>

namespace tern {

/// Which way a transform goes.
enum class fft_direction { forward, inverse };

namespace detail {
inline namespace TERN_ABI {

TERN_INLINE planar turned(planar x) { return {x.im, x.re}; }

/// The transforms of x(n, columns): returns where the result is, x or scratch. The inverse is without its factor.
TERN_INLINE planar transform(fft_plan const& plan, fft_direction direction, planar x, index columns, float* scratch) {
  if (direction == fft_direction::forward) return plan.run(columns, x, scratch);
  return turned(plan.run(columns, turned(x), scratch));
}

inline void expect_rows_agree(char const* op, float_rows_view const& x, float_rows_view const& y) {
  expect_equal(op, "y's rows", y.rows, "x's rows", x.rows);
  expect_equal(op, "y's length", y.n, "x's length", x.n);
}

inline void fft_rows(char const* op, cpu_policy const& policy, fft_plan const& plan, float_rows_view const& x, float_rows_view const& y,
                     fft_direction direction) {
  expect_rows_agree(op, x, y);
  expect_equal(op, "plan.size()", plan.size(), "x's length", x.n);
  if (x.rows == 0) return;
  index const n = x.n, each = round_to_multiple(2 * n + plan.scratch_floats(1), 16);
  float const factor = direction == fft_direction::inverse ? 1.f / static_cast<float>(n) : 1.f;
  workspace::lease const lease(policy.scratch(), static_cast<std::size_t>(slots_for(policy, x.rows) * each) * sizeof(float));
  float* const memory = reinterpret_cast<float*>(lease.data());
  parallel_for(policy, x.rows, [&](index r, index slot) TERN_LAMBDA {
    float* const mine = memory + slot * each;
    planar const row{mine, mine + n};
    gather_planar(x.data + r * x.row_stride, x.stride, n, row);
    scatter_planar(transform(plan, direction, row, 1, mine + 2 * n), n, factor, y.data + r * y.row_stride, y.stride);
  });
}

/// The transforms along the rows' index of (rows, n), in place: columns, a few side by side.
inline void fft_columns(cpu_policy const& policy, fft_plan const& plan, float_rows_view const& y, fft_direction direction) {
  constexpr index side = 2 * simd::lanes;
  index const rows = y.rows, parts = divide_up(y.n, side);
  index const each = round_to_multiple(2 * rows * side + plan.scratch_floats(side), 16);
  float const factor = direction == fft_direction::inverse ? 1.f / static_cast<float>(rows) : 1.f;
  workspace::lease const lease(policy.scratch(), static_cast<std::size_t>(slots_for(policy, parts) * each) * sizeof(float));
  float* const memory = reinterpret_cast<float*>(lease.data());
  parallel_for(policy, parts, [&](index part, index slot) TERN_LAMBDA {
    float* const mine = memory + slot * each;
    index const first = part * side, count = least(side, y.n - first);
    planar const block{mine, mine + rows * count};
    for (index r = 0; r < rows; ++r)
      gather_planar(y.data + r * y.row_stride + first * y.stride, y.stride, count, {block.re + r * count, block.im + r * count});
    planar const result = transform(plan, direction, block, count, mine + 2 * rows * count);
    for (index r = 0; r < rows; ++r)
      scatter_planar({result.re + r * count, result.im + r * count}, count, factor, y.data + r * y.row_stride + first * y.stride, y.stride);
  });
}

/// Calls body(x matrix, y matrix) for the matrices (rows, columns) of (..., rows, columns).
template <class T, class U, int Rank, class Body>
TERN_INLINE void each_matrix(char const* op, tensor_view<T, Rank> const& x, tensor_view<U, Rank> const& y, Body&& body) {
  static_assert(Rank >= 2 && Rank <= 3, "tern: two-dimensional transforms are of (rows, columns) or (batch, rows, columns)");
  if constexpr (Rank == 2) {
    body(x, y);
  } else {
    expect_equal(op, "y.extent(0)", y.extent(0), "x.extent(0)", x.extent(0));
    for (index b = 0; b < x.extent(0); ++b) body(x[b], y[b]);
  }
}

template <class X, class Y>
TERN_INLINE void check_complex() {
  static_assert(complex_storage<typename X::element_type> && complex_storage<typename Y::element_type>,
                "tern: elements are std::complex<float> or tern::complex_f32");
  static_assert(!std::is_const_v<typename Y::element_type>, "tern: the result's elements are not const");
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// `tern::fft(policy, x, y, direction = forward)`, `tern::fft(policy, plan, x, y, direction = forward)`: see the top of fft/fft.hpp.
inline constexpr struct fft_fn {
  template <tensor_like X, tensor_like Y>
  void operator()(cpu_policy const& policy, X const& x, Y&& y, fft_direction direction = fft_direction::forward) const {
    auto const xs = tern::view(x);
    (*this)(policy, fft_plan(xs.extent(xs.rank - 1)), xs, y, direction);
  }
  template <tensor_like X, tensor_like Y>
  void operator()(cpu_policy const& policy, fft_plan const& plan, X const& x, Y&& y,
                  fft_direction direction = fft_direction::forward) const {
    auto const xs = tern::view(x);  // (..., n)
    auto const ys = tern::view(y);  // (..., n)
    detail::check_complex<view_of<X const>, view_of<Y>>();
    detail::fft_rows("fft", policy, plan, detail::rows_of("fft", "x", xs, 2), detail::rows_of("fft", "y", ys, 2), direction);
  }
} fft{};

/// `tern::fft_2d(policy, x, y, direction = forward)`: see the top of fft/fft.hpp.
inline constexpr struct fft_2d_fn {
  template <tensor_like X, tensor_like Y>
  void operator()(cpu_policy const& policy, X const& x, Y&& y, fft_direction direction = fft_direction::forward) const {
    auto const xs = tern::view(x);  // (..., rows, columns)
    auto const ys = tern::view(y);
    detail::check_complex<view_of<X const>, view_of<Y>>();
    fft_plan const along(xs.extent(xs.rank - 1)), across(xs.extent(xs.rank - 2));
    detail::each_matrix("fft_2d", xs, ys, [&](auto const& from, auto const& to) TERN_LAMBDA {
      auto const matrix = detail::rows_of("fft_2d", "y", to, 2);
      detail::fft_rows("fft_2d", policy, along, detail::rows_of("fft_2d", "x", from, 2), matrix, direction);
      detail::fft_columns(policy, across, matrix, direction);
    });
  }
} fft_2d{};

}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file fft/fft.hpp
/// Discrete Fourier transforms of complex rows.
///
///     fft(policy, x, y)                        y_f = sum over j of x_j e^(-2 pi i j f / n)
///     fft(policy, x, y, fft_direction::inverse)    x_j = 1/n sum over f of y_f e^(+2 pi i j f / n)
///     fft(policy, plan, x, y, ...)             with an fft_plan of n, made once (fft/fft_plan.hpp)
///     fft_2d(policy, x, y, ...)                both of the last two dimensions
///     fft_2d(policy, across, along, x, y, ...)    with plans of the number of rows, and of columns
///
/// Shapes  x, y (..., n), for fft_2d (rows, columns) or (batch, rows, columns), n from 1 on; rows and elements of any strides, leading
///         dimensions without gaps between them. y may be x.
/// Types   std::complex<float>, complex_f32, or what has their memory.
/// Memory  scratch from the policy. Without a plan, one is made for the call, in memory of its own.
/// Cost    5 n log2 n operations for lengths of the factors 2, 3, 5, 7, 11 and 13; about six times as many for others (a convolution of
///         twice the length). A plan's sines cost more than the transform of one row.
/// Error   |y - y*|_2 <= plan.error() |x|_2 sqrt(n) forward, and without the root backward: a few roundings for each of log2 n levels.
/// Errors  extents that do not agree, plans of another length.
/// Same    rows do not depend on each other, nor on threads.

#include <tern/fft/fft_rows.hpp>

namespace tern {

/// Which way a transform goes.
enum class fft_direction { forward, inverse };

namespace detail {
inline namespace TERN_ABI {

inline void expect_rows_agree(char const* op, float_rows_view const& x, float_rows_view const& y) {
  expect_equal(op, "y's rows", y.rows, "x's rows", x.rows);
  expect_equal(op, "y's length", y.n, "x's length", x.n);
}
/// The call for rows, the inverse with its factor.
TERN_INLINE points_call call_of_rows(float_rows_view const& x, float_rows_view const& y, fft_direction direction) {
  bool const inverse = direction == fft_direction::inverse;
  return {{x.data, x.stride, 1}, {y.data, y.stride, 1}, x.row_stride,
          y.row_stride,          inverse ? -1.f : 1.f,  inverse ? 1.f / static_cast<float>(x.n) : 1.f};
}
inline void fft_rows(char const* op, cpu_policy const& policy, fft_plan const& plan, float_rows_view const& x, float_rows_view const& y,
                     fft_direction direction) {
  expect_rows_agree(op, x, y);
  expect_equal(op, "the plan's size()", plan.size(), "x's length", x.n);
  transform_all_rows(policy, plan.shape(), call_of_rows(x, y, direction), x.rows);
}
inline void fft_columns(char const* op, cpu_policy const& policy, fft_plan const& plan, float_rows_view const& y, fft_direction direction) {
  expect_equal(op, "the plan's size()", plan.size(), "x's number of rows", y.rows);
  points_call call = call_of_rows(y, y, direction);
  call.factor = direction == fft_direction::inverse ? 1.f / static_cast<float>(y.rows) : 1.f;
  transform_all_columns(policy, plan.shape(), call, y.n);
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
/// The number of rows that all leading dimensions have together.
template <class View>
TERN_INLINE index count_rows(View const& x) {
  index rows = 1;
  for (int d = 0; d < x.rank - 1; ++d) rows *= x.extent(d);
  return rows;
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

  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like X, tensor_like Y>
  std::size_t workspace_size(cpu_policy const& policy, X const& x, Y const&, fft_direction = fft_direction::forward) const {
    auto const xs = tern::view(x);
    return detail::rows_bytes(policy, detail::shape_fft(xs.extent(xs.rank - 1)), detail::count_rows(xs));
  }
  template <tensor_like X, tensor_like Y>
  std::size_t workspace_size(cpu_policy const& policy, fft_plan const& plan, X const& x, Y const&,
                             fft_direction = fft_direction::forward) const {
    return detail::rows_bytes(policy, plan.shape(), detail::count_rows(tern::view(x)));
  }
} fft{};

/// `tern::fft_2d(policy, x, y, direction = forward)`, `tern::fft_2d(policy, across, along, x, y, direction = forward)`: see the top of
/// fft/fft.hpp.
inline constexpr struct fft_2d_fn {
  template <tensor_like X, tensor_like Y>
  void operator()(cpu_policy const& policy, X const& x, Y&& y, fft_direction direction = fft_direction::forward) const {
    auto const xs = tern::view(x);
    (*this)(policy, fft_plan(xs.extent(xs.rank - 2)), fft_plan(xs.extent(xs.rank - 1)), xs, y, direction);
  }
  template <tensor_like X, tensor_like Y>
  void operator()(cpu_policy const& policy, fft_plan const& across, fft_plan const& along, X const& x, Y&& y,
                  fft_direction direction = fft_direction::forward) const {
    detail::check_complex<view_of<X const>, view_of<Y>>();
    detail::each_matrix("fft_2d", tern::view(x), tern::view(y), [&](auto const& from, auto const& to) TERN_LAMBDA {
      auto const matrix = detail::rows_of("fft_2d", "y", to, 2);  // (rows, columns)
      detail::fft_rows("fft_2d", policy, along, detail::rows_of("fft_2d", "x", from, 2), matrix, direction);
      detail::fft_columns("fft_2d", policy, across, matrix, direction);
    });
  }

  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like X, tensor_like Y>
  std::size_t workspace_size(cpu_policy const& policy, X const& x, Y const&, fft_direction = fft_direction::forward) const {
    auto const xs = tern::view(x);
    index const rows = xs.extent(xs.rank - 2), columns = xs.extent(xs.rank - 1);
    return detail::matrix_bytes(policy, detail::shape_fft(rows), detail::shape_fft(columns), rows, columns);
  }
  template <tensor_like X, tensor_like Y>
  std::size_t workspace_size(cpu_policy const& policy, fft_plan const& across, fft_plan const& along, X const& x, Y const&,
                             fft_direction = fft_direction::forward) const {
    auto const xs = tern::view(x);
    return detail::matrix_bytes(policy, across.shape(), along.shape(), xs.extent(xs.rank - 2), xs.extent(xs.rank - 1));
  }
} fft_2d{};

}  // namespace TERN_ABI
}  // namespace tern

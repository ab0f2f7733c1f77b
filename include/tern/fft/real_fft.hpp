// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file fft/real_fft.hpp
/// Discrete Fourier transforms of real rows, of whose spectrum the first n / 2 + 1 numbers tell all.
///
///     real_fft(policy, x, y)              y_f = sum over j of x_j e^(-2 pi i j f / n), f <= n / 2
///     real_fft_inverse(policy, y, x)      x_j = 1/n sum over all f, y_(n - f) being conj(y_f)
///     real_fft_2d(policy, x, y), real_fft_2d_inverse(policy, y, x)
///     real_fft(policy, plan, x, y)        with a real_fft_plan of n, made once; the inverse as well
///     real_fft_2d(policy, across, along, x, y)    with an fft_plan of the rows' number and a real_fft_plan of n; the inverse as well
///
/// Shapes  x f32 (..., n), y complex (..., n / 2 + 1); in two dimensions x (..., rows, n), y (..., rows, n / 2 + 1). Strides as of fft.
///         Imaginary parts of y_0, and of y_(n/2) for even n, count for nothing in the inverse.
/// Memory  as of fft; the inverse in two dimensions has a copy of the spectrum.
/// Cost    half of a complex transform for even n: neighbors are taken for one complex number, and untangled with a root each. The whole
///         of one for odd n.
/// Error   that of tern::fft, and two roundings more.
/// Errors  extents that do not fit, plans of another length.

#include <tern/fft/real_rows.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// real: (rows, n); half: (rows, n / 2 + 1).
inline void fft_real_rows(char const* op, cpu_policy const& policy, real_fft_plan const& plan, float_rows_view const& real,
                          float_rows_view const& half, fft_direction direction) {
  expect_equal(op, "the spectrum's rows", half.rows, "the signal's rows", real.rows);
  expect_equal(op, "the spectrum's length", half.n, "n / 2 + 1", real.n / 2 + 1);
  expect_equal(op, "the plan's size()", plan.size(), "the signal's length", real.n);
  transform_real_rows(policy, plan, real, half, direction == fft_direction::inverse);
}

/// The inverse in two dimensions, with a copy of the spectrum whose columns are transformed.
inline void real_inverse_2d(cpu_policy const& policy, fft_plan const& across, real_fft_plan const& along, float_rows_view const& half,
                            float_rows_view const& real) {
  workspace::lease const lease(policy.scratch(), static_cast<std::size_t>(2 * half.rows * half.n) * sizeof(float));
  float_rows_view copy = half;
  copy.data = reinterpret_cast<float*>(lease.data());
  copy.stride = 2;
  copy.row_stride = 2 * half.n;
  for (index r = 0; r < half.rows; ++r)
    for (index j = 0; j < 2 * half.n; ++j) copy.row(r)[j] = half.row(r)[j / 2 * half.stride + j % 2];
  fft_columns("real_fft_2d_inverse", policy, across, copy, fft_direction::inverse);
  fft_real_rows("real_fft_2d_inverse", policy, along, real, copy, fft_direction::inverse);
}

template <class Real, class Half>
TERN_INLINE void check_real() {
  static_assert(std::is_same_v<std::remove_const_t<typename Real::element_type>, float>, "tern: the signal's elements are float");
  static_assert(complex_storage<typename Half::element_type>, "tern: the spectrum's elements are std::complex<float> or tern::complex_f32");
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// `tern::real_fft(policy, x, y)`, `tern::real_fft(policy, plan, x, y)`: see the top of fft/real_fft.hpp.
inline constexpr struct real_fft_fn {
  template <tensor_like X, tensor_like Y>
  void operator()(cpu_policy const& policy, X const& x, Y&& y) const {
    auto const xs = tern::view(x);
    (*this)(policy, real_fft_plan(xs.extent(xs.rank - 1)), xs, y);
  }
  template <tensor_like X, tensor_like Y>
  void operator()(cpu_policy const& policy, real_fft_plan const& plan, X const& x, Y&& y) const {
    detail::check_real<view_of<X const>, view_of<Y>>();
    detail::fft_real_rows("real_fft", policy, plan, detail::rows_of("real_fft", "x", tern::view(x), 1),
                          detail::rows_of("real_fft", "y", tern::view(y), 2), fft_direction::forward);
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like X, tensor_like Y>
  std::size_t workspace_size(cpu_policy const& policy, X const& x, Y const&) const {
    auto const xs = tern::view(x);
    return detail::real_bytes(policy, xs.extent(xs.rank - 1), detail::count_rows(xs));
  }
  template <tensor_like X, tensor_like Y>
  std::size_t workspace_size(cpu_policy const& policy, real_fft_plan const&, X const& x, Y const& y) const {
    return workspace_size(policy, x, y);
  }
} real_fft{};

/// `tern::real_fft_inverse(policy, y, x)`, `tern::real_fft_inverse(policy, plan, y, x)`: see the top of fft/real_fft.hpp.
inline constexpr struct real_fft_inverse_fn {
  template <tensor_like Y, tensor_like X>
  void operator()(cpu_policy const& policy, Y const& y, X&& x) const {
    auto const xs = tern::view(x);
    (*this)(policy, real_fft_plan(xs.extent(xs.rank - 1)), y, xs);
  }
  template <tensor_like Y, tensor_like X>
  void operator()(cpu_policy const& policy, real_fft_plan const& plan, Y const& y, X&& x) const {
    detail::check_real<view_of<X>, view_of<Y const>>();
    detail::fft_real_rows("real_fft_inverse", policy, plan, detail::rows_of("real_fft_inverse", "x", tern::view(x), 1),
                          detail::rows_of("real_fft_inverse", "y", tern::view(y), 2), fft_direction::inverse);
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like Y, tensor_like X>
  std::size_t workspace_size(cpu_policy const& policy, Y const& y, X const& x) const {
    return real_fft.workspace_size(policy, x, y);
  }
  template <tensor_like Y, tensor_like X>
  std::size_t workspace_size(cpu_policy const& policy, real_fft_plan const&, Y const& y, X const& x) const {
    return real_fft.workspace_size(policy, x, y);
  }
} real_fft_inverse{};

/// `tern::real_fft_2d(policy, x, y)`, `tern::real_fft_2d(policy, across, along, x, y)`: see the top of fft/real_fft.hpp.
inline constexpr struct real_fft_2d_fn {
  template <tensor_like X, tensor_like Y>
  void operator()(cpu_policy const& policy, X const& x, Y&& y) const {
    auto const xs = tern::view(x);
    (*this)(policy, fft_plan(xs.extent(xs.rank - 2)), real_fft_plan(xs.extent(xs.rank - 1)), xs, y);
  }
  template <tensor_like X, tensor_like Y>
  void operator()(cpu_policy const& policy, fft_plan const& across, real_fft_plan const& along, X const& x, Y&& y) const {
    detail::check_real<view_of<X const>, view_of<Y>>();
    detail::each_matrix("real_fft_2d", tern::view(x), tern::view(y), [&](auto const& from, auto const& to) TERN_LAMBDA {
      auto const half = detail::rows_of("real_fft_2d", "y", to, 2);
      detail::fft_real_rows("real_fft_2d", policy, along, detail::rows_of("real_fft_2d", "x", from, 1), half, fft_direction::forward);
      detail::fft_columns("real_fft_2d", policy, across, half, fft_direction::forward);
    });
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like X, tensor_like Y>
  std::size_t workspace_size(cpu_policy const& policy, X const& x, Y const&) const {
    auto const xs = tern::view(x);
    index const rows = xs.extent(xs.rank - 2), n = xs.extent(xs.rank - 1);
    std::size_t const first = detail::real_bytes(policy, n, rows);
    std::size_t const second = detail::columns_bytes(policy, detail::shape_fft(rows), n / 2 + 1);
    return first > second ? first : second;
  }
  template <tensor_like X, tensor_like Y>
  std::size_t workspace_size(cpu_policy const& policy, fft_plan const&, real_fft_plan const&, X const& x, Y const& y) const {
    return workspace_size(policy, x, y);
  }
} real_fft_2d{};

/// `tern::real_fft_2d_inverse(policy, y, x)`, `tern::real_fft_2d_inverse(policy, across, along, y, x)`: see the top of fft/real_fft.hpp.
inline constexpr struct real_fft_2d_inverse_fn {
  template <tensor_like Y, tensor_like X>
  void operator()(cpu_policy const& policy, Y const& y, X&& x) const {
    auto const xs = tern::view(x);
    (*this)(policy, fft_plan(xs.extent(xs.rank - 2)), real_fft_plan(xs.extent(xs.rank - 1)), y, xs);
  }
  template <tensor_like Y, tensor_like X>
  void operator()(cpu_policy const& policy, fft_plan const& across, real_fft_plan const& along, Y const& y, X&& x) const {
    detail::check_real<view_of<X>, view_of<Y const>>();
    detail::each_matrix("real_fft_2d_inverse", tern::view(x), tern::view(y), [&](auto const& to, auto const& from) TERN_LAMBDA {
      auto const real = detail::rows_of("real_fft_2d_inverse", "x", to, 1), half = detail::rows_of("real_fft_2d_inverse", "y", from, 2);
      detail::expect_equal("real_fft_2d_inverse", "y's rows", half.rows, "x's rows", real.rows);
      detail::real_inverse_2d(policy, across, along, half, real);
    });
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like Y, tensor_like X>
  std::size_t workspace_size(cpu_policy const& policy, Y const& y, X const& x) const {
    auto const xs = tern::view(x);
    index const rows = xs.extent(xs.rank - 2), bins = xs.extent(xs.rank - 1) / 2 + 1;
    return workspace::rounded(static_cast<std::size_t>(2 * rows * bins) * sizeof(float)) + real_fft_2d.workspace_size(policy, x, y);
  }
  template <tensor_like Y, tensor_like X>
  std::size_t workspace_size(cpu_policy const& policy, fft_plan const&, real_fft_plan const&, Y const& y, X const& x) const {
    return workspace_size(policy, y, x);
  }
} real_fft_2d_inverse{};

}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file fft/real_fft.hpp
/// Discrete Fourier transforms of real rows, of whose spectrum the first n / 2 + 1 numbers tell all.
///
///     real_fft(policy, x, y)              y_f = sum over j of x_j e^(-2 pi i j f / n), f <= n / 2
///     real_fft_inverse(policy, y, x)      x_j = 1/n sum over all f, y_(n - f) being conj(y_f)
///     real_fft_2d(policy, x, y), real_fft_2d_inverse(policy, y, x)
///
/// Shapes  x f32 (..., n), y complex (..., n / 2 + 1); in two dimensions x (..., rows, n), y (..., rows, n / 2 + 1). Strides as of fft.
///         Imaginary parts of y_0, and of y_(n/2) for even n, count for nothing in the inverse.
/// Cost    half of a complex transform for even n: neighbours are taken for one complex number, and untangled with a root each. The whole
///         of one for odd n.
/// Error   that of tern::fft, and one rounding more.
/// Errors  extents that do not fit.

#include <tern/fft/fft.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// A plan, and for even n the roots that untangle: e^(-2 pi i f / n), f <= n / 2.
struct real_plan {
  index n;
  fft_plan inner;
  owned_floats roots;

  inline explicit real_plan(index length) : n(length), inner(length > 0 && length % 2 == 0 ? length / 2 : length) {
    if (n % 2 != 0) return;
    roots = owned_floats(n + 2);
    float* at = roots.data();
    for (index f = 0; f <= n / 2; ++f) at = put(at, turn(-static_cast<double>(f) / static_cast<double>(n)));
  }
  real_plan(real_plan const&) = delete;
  ~real_plan() {}
  TERN_INLINE index scratch() const { return round_to_multiple(2 * (n + 1) + inner.scratch_floats(1), 16); }

  /// x (n), y (n / 2 + 1).
  inline void forward(float const* x, index x_stride, float* y, index y_stride, float* memory) const noexcept {
    index const points = inner.size();
    planar row{memory, memory + points};
    for (index j = 0; j < points; ++j) {
      row.re[j] = n % 2 == 0 ? x[2 * j * x_stride] : x[j * x_stride];
      row.im[j] = n % 2 == 0 ? x[(2 * j + 1) * x_stride] : 0.f;
    }
    row = inner.run(1, row, memory + 2 * points);
    if (n % 2 != 0) return scatter_planar(row, n / 2 + 1, 1.f, y, y_stride);
    for (index f = 0; f <= points; ++f) {
      index const a = f < points ? f : 0, b = f > 0 ? points - f : 0;
      float const even_re = 0.5f * (row.re[a] + row.re[b]), even_im = 0.5f * (row.im[a] - row.im[b]);
      float const odd_re = 0.5f * (row.im[a] + row.im[b]), odd_im = 0.5f * (row.re[b] - row.re[a]);
      float const c = roots.data()[2 * f], s = roots.data()[2 * f + 1];
      y[f * y_stride] = even_re + (odd_re * c - odd_im * s);
      y[f * y_stride + 1] = even_im + (odd_re * s + odd_im * c);
    }
  }
  inline void inverse(float const* y, index y_stride, float* x, index x_stride, float* memory) const noexcept {
    index const points = inner.size();
    planar row{memory, memory + points};
    auto const im = [&](index f) TERN_LAMBDA { return f == 0 || 2 * f == n ? 0.f : y[f * y_stride + 1]; };
    for (index f = 0; f < points; ++f) {
      if (n % 2 != 0) {
        index const a = 2 * f < n ? f : n - f;
        row.re[f] = y[a * y_stride];
        row.im[f] = a == f ? im(a) : -im(a);
        continue;
      }
      index const b = points - f;
      float const even_re = y[f * y_stride] + y[b * y_stride], even_im = im(f) - im(b);
      float const p = y[f * y_stride] - y[b * y_stride], q = im(f) + im(b);
      float const c = roots.data()[2 * f], s = -roots.data()[2 * f + 1];
      float const odd_re = p * c - q * s, odd_im = p * s + q * c;
      row.re[f] = even_re - odd_im;
      row.im[f] = even_im + odd_re;
    }
    row = transform(inner, fft_direction::inverse, row, 1, memory + 2 * points);
    float const factor = 1.f / static_cast<float>(n);
    for (index j = 0; j < points; ++j) {
      if (n % 2 != 0) {
        x[j * x_stride] = row.re[j] * factor;
        continue;
      }
      x[2 * j * x_stride] = row.re[j] * factor;
      x[(2 * j + 1) * x_stride] = row.im[j] * factor;
    }
  }
};

/// real: (rows, n); half: (rows, n / 2 + 1).
inline void transform_real_rows(char const* op, cpu_policy const& policy, real_plan const& plan, float_rows_view const& real,
                                float_rows_view const& half, bool forward) {
  expect_equal(op, "the spectrum's rows", half.rows, "the signal's rows", real.rows);
  expect_equal(op, "the spectrum's length", half.n, "n / 2 + 1", real.n / 2 + 1);
  if (real.rows == 0) return;
  index const each = plan.scratch();
  workspace::lease const lease(policy.scratch(), static_cast<std::size_t>(slots_for(policy, real.rows) * each) * sizeof(float));
  float* const memory = reinterpret_cast<float*>(lease.data());
  parallel_for(policy, real.rows, [&](index r, index slot) TERN_LAMBDA {
    float* const x = real.data + r * real.row_stride;
    float* const y = half.data + r * half.row_stride;
    if (forward)
      plan.forward(x, real.stride, y, half.stride, memory + slot * each);
    else
      plan.inverse(y, half.stride, x, real.stride, memory + slot * each);
  });
}

/// The inverse in two dimensions, with a copy of the spectrum whose columns are transformed.
inline void real_inverse_2d(cpu_policy const& policy, real_plan const& along, fft_plan const& across, float_rows_view const& half,
                            float_rows_view const& real) {
  workspace::lease const lease(policy.scratch(), static_cast<std::size_t>(2 * half.rows * half.n) * sizeof(float));
  float_rows_view copy = half;
  copy.data = reinterpret_cast<float*>(lease.data());
  copy.stride = 2;
  copy.row_stride = 2 * half.n;
  for (index r = 0; r < half.rows; ++r)
    for (index j = 0; j < 2 * half.n; ++j)
      copy.data[r * copy.row_stride + j] = half.data[r * half.row_stride + j / 2 * half.stride + j % 2];
  fft_columns(policy, across, copy, fft_direction::inverse);
  transform_real_rows("real_fft_2d_inverse", policy, along, real, copy, false);
}

template <class Real, class Half>
TERN_INLINE void check_real() {
  static_assert(std::is_same_v<std::remove_const_t<typename Real::element_type>, float>, "tern: the signal's elements are float");
  static_assert(complex_storage<typename Half::element_type>, "tern: the spectrum's elements are std::complex<float> or tern::complex_f32");
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// `tern::real_fft(policy, x, y)`: see the top of fft/real_fft.hpp.
inline constexpr struct real_fft_fn {
  template <tensor_like X, tensor_like Y>
  void operator()(cpu_policy const& policy, X const& x, Y&& y) const {
    detail::check_real<view_of<X const>, view_of<Y>>();
    auto const real = detail::rows_of("real_fft", "x", tern::view(x), 1);
    detail::transform_real_rows("real_fft", policy, detail::real_plan(real.n), real, detail::rows_of("real_fft", "y", tern::view(y), 2),
                                true);
  }
} real_fft{};

/// `tern::real_fft_inverse(policy, y, x)`: see the top of fft/real_fft.hpp.
inline constexpr struct real_fft_inverse_fn {
  template <tensor_like Y, tensor_like X>
  void operator()(cpu_policy const& policy, Y const& y, X&& x) const {
    detail::check_real<view_of<X>, view_of<Y const>>();
    auto const real = detail::rows_of("real_fft_inverse", "x", tern::view(x), 1);
    detail::transform_real_rows("real_fft_inverse", policy, detail::real_plan(real.n), real,
                                detail::rows_of("real_fft_inverse", "y", tern::view(y), 2), false);
  }
} real_fft_inverse{};

/// `tern::real_fft_2d(policy, x, y)`: see the top of fft/real_fft.hpp.
inline constexpr struct real_fft_2d_fn {
  template <tensor_like X, tensor_like Y>
  void operator()(cpu_policy const& policy, X const& x, Y&& y) const {
    detail::check_real<view_of<X const>, view_of<Y>>();
    auto const xs = tern::view(x);
    detail::real_plan const along(xs.extent(xs.rank - 1));
    fft_plan const across(xs.extent(xs.rank - 2));
    detail::each_matrix("real_fft_2d", xs, tern::view(y), [&](auto const& from, auto const& to) TERN_LAMBDA {
      auto const half = detail::rows_of("real_fft_2d", "y", to, 2);
      detail::transform_real_rows("real_fft_2d", policy, along, detail::rows_of("real_fft_2d", "x", from, 1), half, true);
      detail::fft_columns(policy, across, half, fft_direction::forward);
    });
  }
} real_fft_2d{};

/// `tern::real_fft_2d_inverse(policy, y, x)`: see the top of fft/real_fft.hpp.
inline constexpr struct real_fft_2d_inverse_fn {
  template <tensor_like Y, tensor_like X>
  void operator()(cpu_policy const& policy, Y const& y, X&& x) const {
    detail::check_real<view_of<X>, view_of<Y const>>();
    auto const xs = tern::view(x);
    detail::real_plan const along(xs.extent(xs.rank - 1));
    fft_plan const across(xs.extent(xs.rank - 2));
    detail::each_matrix("real_fft_2d_inverse", xs, tern::view(y), [&](auto const& to, auto const& from) TERN_LAMBDA {
      auto const real = detail::rows_of("real_fft_2d_inverse", "x", to, 1), half = detail::rows_of("real_fft_2d_inverse", "y", from, 2);
      detail::expect_equal("real_fft_2d_inverse", "y's rows", half.rows, "x's rows", real.rows);
      detail::real_inverse_2d(policy, along, across, half, real);
    });
  }
} real_fft_2d_inverse{};

}  // namespace TERN_ABI
}  // namespace tern

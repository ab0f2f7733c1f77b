// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/long_s4d.hpp
/// The filter of a diagonal state space, S4D, for tern::long_conv:
///
///     k_cj = 2 Re sum over n of C_cn (e^(dt_c A_cn) - 1) / A_cn e^(j dt_c A_cn)
///
/// that is x' = A x + B u, y = 2 Re C x, held between samples dt apart (zero-order hold), with B multiplied into C. Where A is 0 the
/// fraction is dt. The sum over n is a product with a Vandermonde matrix, which is walked and not stored.
///
/// Shapes  A, C complex (channels, states), dt f32 (channels), k f32 (channels, taps) of any strides. Errors: extents that do not fit.
/// Types   complex: std::complex<float> or complex_f32.
/// Error   |k - k*| <= s4d_filter.error(taps) 2 sum over n of |C (e^(dt A) - 1) / A|, for A whose real parts are not positive and
///         |dt Im A| <= 32: powers are made in f64, one from the other, and the sum is rounded once.
/// Cost    4 operations in f64 a tap and state.
/// Source  Gu et al., "On the Parameterization and Initialization of Diagonal State Space Models", 2022 (from knowledge).

#include <tern/core/parallel_for.hpp>
#include <tern/core/rounding.hpp>
#include <tern/fft/complex.hpp>
#include <tern/fft/unit.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// e^(re + i im)
TERN_INLINE unit exponential(double re, double im) {
  double const size = __builtin_exp(re);
  return {size * __builtin_cos(im), size * __builtin_sin(im)};
}
/// C (e^(dt A) - 1) / A
inline unit held_weight(unit a, unit c, double dt) {
  double const square = a.re * a.re + a.im * a.im;
  if (square == 0) return {c.re * dt, c.im * dt};
  unit step = exponential(dt * a.re, dt * a.im);
  if (square * dt * dt < 1e-6) {  // the difference to 1 by its series, where e^x - 1 would cancel
    unit const x{dt * a.re, dt * a.im};
    unit const half = x * x;
    unit const third = half * x;
    step = {x.re + half.re / 2 + third.re / 6, x.im + half.im / 2 + third.im / 6};
  } else {
    step.re -= 1;
  }
  unit const over = c * step * unit{a.re, -a.im};
  return {over.re / square, over.im / square};
}

inline constexpr index s4d_piece = 4096;
/// sum_j += Re(weight e^((first + j) x)) for j < count and what makes it a multiple of `side`: powers of a few taps, which the term at
/// their beginning is multiplied with.
inline void add_powers(unit weight, unit x, index first, index count, double (&sum)[s4d_piece]) noexcept {
  constexpr index side = 32;
  auto const power = [&](index j) TERN_LAMBDA { return exponential(static_cast<double>(j) * x.re, static_cast<double>(j) * x.im); };
  unit const ratio = power(1), jump = power(side);
  double re[side], im[side];
  unit within{1, 0};
  for (index l = 0; l < side; ++l, within = within * ratio) {
    re[l] = within.re;
    im[l] = within.im;
  }
  unit term = weight * power(first);
  for (index j = 0; j < count; j += side, term = term * jump)
    for (index l = 0; l < side; ++l) sum[j + l] += term.re * re[l] - term.im * im[l];
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// `tern::s4d_filter(policy, a, c, dt, k)`: see the top of conv/long_s4d.hpp.
inline constexpr struct s4d_filter_fn {
  template <tensor_like A, tensor_like C, tensor_like D, tensor_like K>
  void operator()(cpu_policy const& policy, A const& a, C const& c, D const& dt, K&& k) const {
    static_assert(detail::complex_storage<typename view_of<A const>::element_type> &&
                      detail::complex_storage<typename view_of<C const>::element_type>,
                  "tern: A and C are std::complex<float> or tern::complex_f32");
    auto const poles = detail::rows_of("s4d_filter", "A", tern::view(a), 2), weights = detail::rows_of("s4d_filter", "C", tern::view(c), 2);
    tensor_view<float const, 1> const steps = tern::view(dt);
    tensor_view<float, 2> const to = tern::view(k);
    detail::expect_equal("s4d_filter", "A's channels", poles.rows, "k.extent(0)", to.extent(0));
    detail::expect_equal("s4d_filter", "C's channels", weights.rows, "k.extent(0)", to.extent(0));
    detail::expect_equal("s4d_filter", "C's states", weights.n, "A's states", poles.n);
    detail::expect_equal("s4d_filter", "dt.extent(0)", steps.extent(0), "k.extent(0)", to.extent(0));
    // A piece of taps at a time, whose sums stay in f64 and near.
    detail::parallel_for(policy, to.extent(0), [&](index h, index) TERN_LAMBDA {
      double const step = static_cast<double>(steps[h]);
      double sum[detail::s4d_piece];
      for (index first = 0; first < to.extent(1); first += detail::s4d_piece) {
        index const count = detail::least(detail::s4d_piece, to.extent(1) - first);
        for (double& e : sum) e = 0;
        for (index n = 0; n < poles.n; ++n) {
          float const* const p = poles.data + h * poles.row_stride + n * poles.stride;
          float const* const w = weights.data + h * weights.row_stride + n * weights.stride;
          detail::unit const pole{static_cast<double>(p[0]), static_cast<double>(p[1])};
          detail::unit const weight = detail::held_weight(pole, {static_cast<double>(w[0]), static_cast<double>(w[1])}, step);
          detail::add_powers(weight, {step * pole.re, step * pole.im}, first, count, sum);
        }
        for (index j = 0; j < count; ++j) to(h, first + j) = static_cast<float>(2 * sum[j]);
      }
    });
  }
  /// Relative to the sum of the weights: rounding to f32, and the angle of j dt A in f64.
  static constexpr double error(index taps) { return 0x1.01p-24 + 0x1p-48 * static_cast<double>(taps); }
} s4d_filter{};

}  // namespace TERN_ABI
}  // namespace tern

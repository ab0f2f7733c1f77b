// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/long_s4.hpp
/// The filter of a state space whose matrix is diagonal plus low rank, S4, for tern::long_conv:
///
///     x' = A x + B u, y = 2 Re C x      A = diag(lambda) - sum over r of p_r p_r^H
///     k_j = 2 Re C M^j N                M = (1 - h A)^-1 (1 + h A), N = 2 h (1 - h A)^-1 B, h = dt / 2 (bilinear)
///
/// States come in conjugate pairs, of which one is given; p_r^H sums over both. The spectrum of k at w = e^(-2 pi i f / taps) is
///
///     K = 2 h (S_CB - h (1 + w) S_CP (1 + h (1 + w) S_PP)^-1 S_PB)     S_ab = sum over n of a_n b_n / ((1 - w) - h (1 + w) lambda_n)
///
/// by Woodbury's identity from Cauchy sums, with C (1 - M^taps) in the place of C; k is its inverse transform.
///
///     s4_filter(policy, lambda, p, b, c, dt, k)
///     s4_filter(policy, lambda, p, b, c, dt, k, true)      c is C (1 - M^taps) already, which is what S4 learns
///
/// Shapes  lambda, b, c complex (channels, states), p complex (channels, rank, states), dt f32 (channels), k f32 (channels, taps) of any
///         strides; any number of taps. A rank of 0 leaves a diagonal state space. Real parts of lambda below 0, dt above 0.
/// Types   complex: std::complex<float> or complex_f32.
/// Errors  extents that do not fit, a rank of more than 4.
/// Error   |k - k*| <= s4_filter.error(taps) |k*|_2, the root of the channel's sum of squares: that of the transform, as all else is
///         computed in f64. Taps far below the largest ones have fewer digits.
/// Memory  scratch from the policy: for each thread a channel's spectrum, and 8 states^2 f64.
/// Cost    4 (rank + 1)^2 + 10 operations in f64 a tap and state, a transform, and 16 states^3 log2(taps) for M^taps.
/// Source  Gu et al., "Efficiently Modeling Long Sequences with Structured State Spaces", 2022; github.com/state-spaces/s4,
///         models/s4/s4.py (SSMKernelDPLR), for the sign of p p^H, the halves of pairs and what is learned of C.

#include <tern/core/parallel_for.hpp>
#include <tern/fft/real_fft.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// One channel's state space in f64, and memory for its powers.
struct s4_space {
  static constexpr index most_rank = 4;
  index n, rank;
  double h = 0;                          // dt / 2
  unit *lambda, *left, *right;           // (n), C and conj(p) (rank + 1, n), B and p (rank + 1, n)
  double *power, *other, *row, *before;  // (2n, 2n) twice, (2n) twice: a complex number as two real ones

  TERN_INLINE static index doubles(index n, index rank) { return 2 * n * (2 * rank + 3) + 8 * n * n + 4 * n; }
  TERN_INLINE s4_space(index states, index r, double* memory) : n(states), rank(r) {
    lambda = reinterpret_cast<unit*>(memory);
    left = lambda + n;
    right = left + (rank + 1) * n;
    power = memory + 2 * n * (2 * rank + 3);
    other = power + 4 * n * n;
    row = other + 4 * n * n;
    before = row + 2 * n;
  }
};

/// power = (1 - h A)^-1 (1 + h A) = 2 (1 - h A)^-1 - 1. The symmetric part of 1 - h A is positive: it is inverted without pivots.
inline void s4_step(s4_space const& s) noexcept {
  index const m = 2 * s.n;
  double* const g = s.power;
  for (index i = 0; i < m; ++i)
    for (index j = 0; j < m; ++j) {
      double low = 0;
      for (index r = 1; r <= s.rank; ++r) {
        auto const* const p = reinterpret_cast<double const*>(s.right + r * s.n);
        low += p[i] * p[j];
      }
      g[i * m + j] = 2 * s.h * low;
    }
  for (index n = 0; n < s.n; ++n) {
    double* const block = g + 2 * n * (m + 1);
    block[0] += 1 - s.h * s.lambda[n].re;
    block[1] += s.h * s.lambda[n].im;
    block[m] -= s.h * s.lambda[n].im;
    block[m + 1] += 1 - s.h * s.lambda[n].re;
  }
  for (index q = 0; q < m; ++q) {
    double const pivot = 1 / g[q * m + q];
    g[q * m + q] = 1;
    for (index j = 0; j < m; ++j) g[q * m + j] *= pivot;
    for (index i = 0; i < m; ++i) {
      if (i == q) continue;
      double const factor = g[i * m + q];
      g[i * m + q] = 0;
      for (index j = 0; j < m; ++j) g[i * m + j] -= factor * g[q * m + j];
    }
  }
  for (index i = 0; i < m; ++i)
    for (index j = 0; j < m; ++j) g[i * m + j] = 2 * g[i * m + j] - (i == j ? 1 : 0);
}

/// to (rows, m) = a (rows, m) g (m, m)
inline void s4_product(double const* a, double const* g, index rows, index m, double* to) noexcept {
  for (index i = 0; i < rows; ++i) {
    double* const sum = to + i * m;
    for (index j = 0; j < m; ++j) sum[j] = 0;
    for (index k = 0; k < m; ++k)
      for (index j = 0; j < m; ++j) sum[j] += a[i * m + k] * g[k * m + j];
  }
}

/// C = C - C M^taps, by squares of M.
inline void s4_truncate(s4_space& s, index taps) noexcept {
  index const m = 2 * s.n;
  s4_step(s);
  for (index n = 0; n < s.n; ++n) {
    s.row[2 * n] = s.left[n].re;
    s.row[2 * n + 1] = -s.left[n].im;
  }
  for (index rest = taps; rest > 0; rest /= 2) {
    if (rest % 2 == 1) {
      s4_product(s.row, s.power, 1, m, s.before);
      for (index j = 0; j < m; ++j) s.row[j] = s.before[j];
    }
    if (rest == 1) break;
    s4_product(s.power, s.power, m, m, s.other);
    double* const squared = s.other;
    s.other = s.power;
    s.power = squared;
  }
  for (index n = 0; n < s.n; ++n) {
    s.left[n].re -= s.row[2 * n];
    s.left[n].im += s.row[2 * n + 1];
  }
}

/// Frequencies whose sums are made side by side; e^(i t) of each, t = pi f / taps.
inline constexpr index s4_piece = 32;
struct s4_angles {
  double c[s4_piece], s[s4_piece];
};
/// re + i im = sum over states and their conjugates of a_n b_n / (i sin t - h lambda_n cos t), for all pairs (a, b) of left and right.
struct s4_sums {
  double re[(s4_space::most_rank + 1) * (s4_space::most_rank + 1)][s4_piece],
      im[(s4_space::most_rank + 1) * (s4_space::most_rank + 1)][s4_piece];
};
/// Not inlined: within the loop over pieces gcc 12 makes code of it that takes half as long again.
[[gnu::noinline]] inline void s4_cauchy(s4_space const& s, s4_angles const& t, s4_sums& to) noexcept {
  index const side = s.rank + 1;
  for (index p = 0; p < side * side; ++p)
    for (index j = 0; j < s4_piece; ++j) to.re[p][j] = to.im[p][j] = 0;
  for (index n = 0; n < s.n; ++n) {
    // A pair's fractions add up to (a cos t + i b sin t) / (size cos^2 t - sin^2 t - 2 i real cos t sin t).
    unit const pole{s.h * s.lambda[n].re, s.h * s.lambda[n].im};
    double const size = pole.re * pole.re + pole.im * pole.im;
    double cr[s4_piece], ci[s4_piece], sr[s4_piece], si[s4_piece];
    for (index j = 0; j < s4_piece; ++j) {
      double const re = size * t.c[j] * t.c[j] - t.s[j] * t.s[j], im = 2 * pole.re * t.c[j] * t.s[j];
      double const inverse = 1 / (re * re + im * im);
      cr[j] = t.c[j] * re * inverse;
      ci[j] = t.c[j] * im * inverse;
      sr[j] = t.s[j] * re * inverse;
      si[j] = t.s[j] * im * inverse;
    }
    for (index p = 0; p < side * side; ++p) {
      unit const v = s.left[p / side * s.n + n] * s.right[p % side * s.n + n];
      double const a = -2 * (v.re * pole.re + v.im * pole.im), b = 2 * v.re;
      for (index j = 0; j < s4_piece; ++j) {
        to.re[p][j] += a * cr[j] - b * si[j];
        to.im[p][j] += a * ci[j] + b * sr[j];
      }
    }
  }
}

/// K of a piece's frequencies: h e^(i t) (T_CB - h cos t T_CP (1 + h cos t T_PP)^-1 T_PB), into T_CB; the rows of P are eliminated one by
/// one.
inline void s4_woodbury(s4_space const& s, s4_angles const& t, s4_sums& g) noexcept {
  index const side = s.rank + 1;
  for (index p = side; p < side * side; ++p)
    for (index j = 0; j < s4_piece; ++j) {
      g.re[p][j] = s.h * t.c[j] * g.re[p][j] + (p % (side + 1) == 0 ? 1 : 0);
      g.im[p][j] *= s.h * t.c[j];
    }
  for (index q = side - 1; q > 0; --q) {
    double const *const pivot_re = g.re[q * (side + 1)], *const pivot_im = g.im[q * (side + 1)];
    for (index a = 0; a < q; ++a) {
      double factor_re[s4_piece], factor_im[s4_piece];
      double const *const left_re = g.re[a * side + q], *const left_im = g.im[a * side + q];
      for (index j = 0; j < s4_piece; ++j) {
        double const inverse = 1 / (pivot_re[j] * pivot_re[j] + pivot_im[j] * pivot_im[j]);
        factor_re[j] = (left_re[j] * pivot_re[j] + left_im[j] * pivot_im[j]) * inverse;
        factor_im[j] = (left_im[j] * pivot_re[j] - left_re[j] * pivot_im[j]) * inverse;
      }
      for (index b = 0; b < q; ++b)
        for (index j = 0; j < s4_piece; ++j) {
          double const re = g.re[q * side + b][j], im = g.im[q * side + b][j];
          g.re[a * side + b][j] -= factor_re[j] * re - factor_im[j] * im;
          g.im[a * side + b][j] -= factor_re[j] * im + factor_im[j] * re;
        }
    }
  }
  for (index j = 0; j < s4_piece; ++j) {
    unit const k = unit{s.h * t.c[j], s.h * t.s[j]} * unit{g.re[0][j], g.im[0][j]};
    g.re[0][j] = k.re;
    g.im[0][j] = k.im;
  }
}

/// The spectrum (taps / 2 + 1) of a channel's filter, from C (1 - M^taps).
inline void s4_spectrum(s4_space const& s, index taps, float* spectrum) noexcept {
  index const count = taps / 2 + 1;
  auto const angle = [&](index f) TERN_LAMBDA { return turn(static_cast<double>(f) / static_cast<double>(2 * taps)); };
  unit within[s4_piece];
  for (index j = 0; j < s4_piece; ++j) within[j] = angle(j);
  s4_angles t;
  s4_sums sums;
  for (index first = 0; first < count; first += s4_piece) {
    unit const begin = angle(first);
    for (index j = 0; j < s4_piece; ++j) {
      unit const e = begin * within[j];
      t.c[j] = e.re;
      t.s[j] = e.im;
    }
    s4_cauchy(s, t, sums);
    s4_woodbury(s, t, sums);
    for (index j = 0; j < least(s4_piece, count - first); ++j) spectrum = put(spectrum, {sums.re[0][j], sums.im[0][j]});
  }
}

/// What describes all channels. p's rows are those of the first channel, the others' lie p_step floats apart.
struct s4_arguments {
  float_rows_view lambda, p, b, c;
  index p_channels, p_step;
  tensor_view<float const, 1> dt;
  tensor_view<float, 2> k;
  bool truncated;

  TERN_INLINE unit number(float_rows_view const& v, index row, index n, index offset = 0) const {
    float const* const z = v.data + offset + row * v.row_stride + n * v.stride;
    return {static_cast<double>(z[0]), static_cast<double>(z[1])};
  }
  inline void check() const {
    expect(p.rows <= s4_space::most_rank, "s4_filter", "p.extent(1)", p.rows, "at most 4");
    expect_equal("s4_filter", "lambda's channels", lambda.rows, "k.extent(0)", k.extent(0));
    expect_equal("s4_filter", "p's channels", p_channels, "k.extent(0)", k.extent(0));
    expect_equal("s4_filter", "b's channels", b.rows, "k.extent(0)", k.extent(0));
    expect_equal("s4_filter", "c's channels", c.rows, "k.extent(0)", k.extent(0));
    expect_equal("s4_filter", "dt.extent(0)", dt.extent(0), "k.extent(0)", k.extent(0));
    expect_equal("s4_filter", "p's states", p.n, "lambda's states", lambda.n);
    expect_equal("s4_filter", "b's states", b.n, "lambda's states", lambda.n);
    expect_equal("s4_filter", "c's states", c.n, "lambda's states", lambda.n);
  }
  inline void gather(index channel, s4_space& s) const {
    s.h = static_cast<double>(dt[channel]) / 2;
    for (index n = 0; n < s.n; ++n) {
      s.lambda[n] = number(lambda, channel, n);
      s.left[n] = number(c, channel, n);
      s.right[n] = number(b, channel, n);
      for (index r = 0; r < p.rows; ++r) {
        unit const low = s.right[(r + 1) * s.n + n] = number(p, r, n, channel * p_step);
        s.left[(r + 1) * s.n + n] = {low.re, -low.im};
      }
    }
  }
  inline void run(cpu_policy const& policy) const {
    index const taps = k.extent(1), states = lambda.n;
    if (k.size() == 0) return;
    real_fft_plan const plan(taps);
    auto const scratch = static_cast<index>(workspace::rounded(real_bytes(cpu.on(serial), taps, 1)));
    index const bins = taps / 2 + 1, spectrum = round_to_multiple(2 * bins, 16);
    index const space = round_to_multiple(2 * s4_space::doubles(states, p.rows), 16);
    index const each = space + spectrum + scratch / static_cast<index>(sizeof(float));
    workspace::lease const lease(policy.scratch(), static_cast<std::size_t>(slots_for(policy, k.extent(0)) * each) * sizeof(float));
    parallel_for(policy, k.extent(0), [&](index channel, index slot) TERN_LAMBDA {
      auto* const memory = reinterpret_cast<float*>(lease.data()) + slot * each;
      s4_space s(states, p.rows, reinterpret_cast<double*>(memory));
      gather(channel, s);
      if (!truncated) s4_truncate(s, taps);
      s4_spectrum(s, taps, memory + space);
      workspace own(memory + space + spectrum, static_cast<std::size_t>(scratch));
      transform_real_rows(cpu.on(serial).with(own), plan, {&k(channel, 0), 1, taps, 0, k.stride(1)}, {memory + space, 1, bins, 0, 2}, true);
    });
  }
};

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// `tern::s4_filter(policy, lambda, p, b, c, dt, k, truncated = false)`: see the top of conv/long_s4.hpp.
inline constexpr struct s4_filter_fn {
  template <tensor_like A, tensor_like P, tensor_like B, tensor_like C, tensor_like D, tensor_like K>
  void operator()(cpu_policy const& policy, A const& lambda, P const& p, B const& b, C const& c, D const& dt, K&& k,
                  bool truncated = false) const {
    static_assert(detail::complex_storage<typename view_of<A const>::element_type> &&
                      detail::complex_storage<typename view_of<P const>::element_type> &&
                      detail::complex_storage<typename view_of<B const>::element_type> &&
                      detail::complex_storage<typename view_of<C const>::element_type>,
                  "tern: lambda, p, b and c are std::complex<float> or tern::complex_f32");
    static_assert(view_of<P const>::rank == 3, "tern: s4_filter takes p (channels, rank, states)");
    auto const low = tern::view(p);  // (channels, rank, states)
    detail::s4_arguments const call{detail::rows_of("s4_filter", "lambda", tern::view(lambda), 2),
                                    detail::rows_of("s4_filter", "p", low[0], 2),
                                    detail::rows_of("s4_filter", "b", tern::view(b), 2),
                                    detail::rows_of("s4_filter", "c", tern::view(c), 2),
                                    low.extent(0),
                                    2 * low.stride(0),
                                    tern::view(dt),
                                    tern::view(k),
                                    truncated};
    call.check();
    call.run(policy);
  }
  /// Relative to the root of the sum of squares: roundings of the spectrum, of the levels of a transform of any length (fft/fft_plan.hpp),
  /// and of what makes real numbers of it.
  static constexpr double error(index taps) { return 0x1p-24 * (64 + 12 * static_cast<double>(detail::log2_of(taps))); }
} s4_filter{};

}  // namespace TERN_ABI
}  // namespace tern

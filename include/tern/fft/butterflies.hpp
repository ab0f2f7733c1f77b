// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file fft/butterflies.hpp
/// Complex numbers in two registers, and the steps that a tower of transforms is made of (fft/tower.hpp). A polynomial modulo z^(2h) - w^2
/// is split into its remainders modulo z^h - w and z^h + w, whose coefficients are a + w b and a - w b; `join` undoes it but for the
/// factor 2. Wider steps are the same for 4 and 8 remainders, in the order in which the narrow ones leave them.
///
/// a - w b is made as 2 a - (a + w b): 6 multiply-adds a pair instead of 8 operations.

#include <tern/simd/pack.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// `lanes` complex numbers.
struct cpack {
  simd::pack<float> re, im;
};

TERN_INLINE cpack splat_complex(float const* w) { return {simd::pack<float>(w[0]), simd::pack<float>(w[1])}; }
TERN_INLINE cpack load_complex(float const* p) { return {simd::load(p), simd::load(p + simd::lanes)}; }
TERN_INLINE void store_complex(float* p, cpack const& x) {
  simd::store(p, x.re);
  simd::store(p + simd::lanes, x.im);
}
TERN_INLINE cpack operator+(cpack const& a, cpack const& b) { return {a.re + b.re, a.im + b.im}; }
TERN_INLINE cpack operator-(cpack const& a, cpack const& b) { return {a.re - b.re, a.im - b.im}; }
TERN_INLINE cpack operator*(cpack const& a, cpack const& w) {
  return {simd::fnma(a.im, w.im, a.re * w.re), simd::fma(a.im, w.re, a.re * w.im)};
}
/// a conj(w)
TERN_INLINE cpack times_conjugate(cpack const& a, cpack const& w) {
  return {simd::fma(a.im, w.im, a.re * w.re), simd::fnma(a.re, w.im, a.im * w.re)};
}
/// a + i b, a - i b
TERN_INLINE cpack plus_i(cpack const& a, cpack const& b) { return {a.re - b.im, a.im + b.re}; }
TERN_INLINE cpack minus_i(cpack const& a, cpack const& b) { return {a.re + b.im, a.im - b.re}; }

/// a, b = a + w b, a - w b
TERN_INLINE void split(cpack& a, cpack& b, cpack const& w) {
  simd::pack<float> const two(2.f);
  auto const re = simd::fma(w.re, b.re, simd::fnma(w.im, b.im, a.re));
  auto const im = simd::fma(w.re, b.im, simd::fma(w.im, b.re, a.im));
  b = {simd::fms(two, a.re, re), simd::fms(two, a.im, im)};
  a = {re, im};
}
/// a, b = a + i w b, a - i w b
TERN_INLINE void split_i(cpack& a, cpack& b, cpack const& w) {
  simd::pack<float> const two(2.f);
  auto const re = simd::fnma(w.im, b.re, simd::fnma(w.re, b.im, a.re));
  auto const im = simd::fnma(w.im, b.im, simd::fma(w.re, b.re, a.im));
  b = {simd::fms(two, a.re, re), simd::fms(two, a.im, im)};
  a = {re, im};
}
/// The same, where a and b have no imaginary parts.
TERN_INLINE void split_real(cpack& a, cpack& b, cpack const& w) {
  auto const re = simd::fma(w.re, b.re, a.re), im = w.im * b.re;
  b = {simd::fms(simd::pack<float>(2.f), a.re, re), simd::pack<float>(0.f) - im};
  a = {re, im};
}
/// Twice what `split` was given.
TERN_INLINE void join(cpack& a, cpack& b, cpack const& w) {
  cpack const d = a - b;
  a = a + b;
  b = times_conjugate(d, w);
}
/// Twice what `split_i` was given: conj(i w) d = -i conj(w) d.
TERN_INLINE void join_i(cpack& a, cpack& b, cpack const& w) {
  cpack const d = times_conjugate(a - b, w);
  a = a + b;
  b = {d.im, simd::pack<float>(0.f) - d.re};
}

/// 4 remainders; w1^4 is the constant of the modulus, w2 = w1^2.
TERN_INLINE void split4(cpack (&x)[4], cpack const& w1, cpack const& w2) {
  split(x[0], x[2], w2);
  split(x[1], x[3], w2);
  split(x[0], x[1], w1);
  split_i(x[2], x[3], w1);
}
/// Four times what `split4` was given. w3 = w1^3.
TERN_INLINE void join4(cpack (&x)[4], cpack const& w1, cpack const& w2, cpack const& w3) {
  cpack const s = x[0] + x[1], d = x[0] - x[1], t = x[2] + x[3], e = x[2] - x[3];
  x[0] = s + t;
  x[1] = times_conjugate(minus_i(d, e), w1);
  x[2] = times_conjugate(s - t, w2);
  x[3] = times_conjugate(plus_i(d, e), w3);
}

/// 8 remainders; w1^8 is the constant of the modulus, w2 = w1^2, w4 = w1^4, v = w1 e^(i pi / 4). The first of the three levels is `first`.
template <class First>
TERN_INLINE void split8(cpack (&x)[8], cpack const& w1, cpack const& w2, cpack const& w4, cpack const& v, First&& first) {
  TERN_UNROLL
  for (int i = 0; i < 4; ++i) first(x[i], x[i + 4], w4);
  split(x[0], x[2], w2);
  split(x[1], x[3], w2);
  split_i(x[4], x[6], w2);
  split_i(x[5], x[7], w2);
  split(x[0], x[1], w1);
  split_i(x[2], x[3], w1);
  split(x[4], x[5], v);
  split_i(x[6], x[7], v);
}
TERN_INLINE void split8(cpack (&x)[8], cpack const& w1, cpack const& w2, cpack const& w4, cpack const& v) {
  split8(x, w1, w2, w4, v, [](cpack& a, cpack& b, cpack const& w) TERN_LAMBDA { split(a, b, w); });
}
/// a, b = a + r (p, q), a - r (p, q) for the root r of 1/2: what is left of a product with an eighth root of one.
TERN_INLINE void join_eighth(cpack& a, cpack& b, simd::pack<float> p, simd::pack<float> q) {
  simd::pack<float> const r(0.70710678118654752f);
  b = {simd::fnma(r, p, a.re), simd::fnma(r, q, a.im)};
  a = {simd::fma(r, p, a.re), simd::fma(r, q, a.im)};
}
/// Eight times what `split8` was given. w[m] = w1^m, m = 1 to 7.
template <class Power>
TERN_INLINE void join8(cpack (&x)[8], Power const& w) {
  cpack const e0 = x[0] + x[1], e1 = x[2] + x[3], e2 = x[4] + x[5], e3 = x[6] + x[7];
  cpack const d0 = x[0] - x[1], d1 = x[2] - x[3], d2 = x[4] - x[5], d3 = x[6] - x[7];
  cpack const p0 = e0 + e1, p1 = e0 - e1, p2 = e2 + e3, p3 = e2 - e3;
  x[0] = p0 + p2;
  x[4] = times_conjugate(p0 - p2, w(4));
  x[2] = times_conjugate(minus_i(p1, p3), w(2));
  x[6] = times_conjugate(plus_i(p1, p3), w(6));
  cpack a = minus_i(d0, d1), b, c = minus_i(d2, d3);  // e^(-i pi / 4) c
  join_eighth(a, b, c.re + c.im, c.im - c.re);
  x[1] = times_conjugate(a, w(1));
  x[5] = times_conjugate(b, w(5));
  a = plus_i(d0, d1);
  c = plus_i(d2, d3);  // e^(-3 i pi / 4) c
  join_eighth(a, b, c.im - c.re, simd::pack<float>(0.f) - (c.re + c.im));
  x[3] = times_conjugate(a, w(3));
  x[7] = times_conjugate(b, w(7));
}

/// The same where only the first `Few` of x, 1, 2 or 4, are not zeros.
template <int Few, class Power>
TERN_INLINE void join8_few(cpack (&x)[8], Power const& w) {
  cpack q[4] = {x[0], x[0], x[0], x[0]};  // of the eight results, q(m mod 4) turned
  if constexpr (Few == 2) {
    q[0] = q[2] = x[0] + x[1];
    q[1] = q[3] = x[0] - x[1];
  } else if constexpr (Few == 4) {
    cpack const s = x[0] + x[1], d = x[0] - x[1], t = x[2] + x[3], e = x[2] - x[3];
    q[0] = s + t;
    q[1] = minus_i(d, e);
    q[2] = s - t;
    q[3] = plus_i(d, e);
  }
  x[0] = q[0];
  TERN_UNROLL
  for (int m = 1; m < 8; ++m) x[m] = times_conjugate(q[m % 4], w(m));
}

/// The discrete Fourier transform of 3 numbers, in place: see dft_odd.
TERN_INLINE void dft_3(cpack& a, cpack& b, cpack& c, bool positive) {
  simd::pack<float> const half(0.5f), r(0.86602540378443865f);
  cpack const s = b + c, d = b - c, t{simd::fnma(half, s.re, a.re), simd::fnma(half, s.im, a.im)};
  cpack const up{simd::fnma(r, d.im, t.re), simd::fma(r, d.re, t.im)}, down{simd::fma(r, d.im, t.re), simd::fnma(r, d.re, t.im)};
  a = a + s;
  b = positive ? up : down;
  c = positive ? down : up;
}
/// That of 9 as three times three: 88 operations, where dft_odd takes 104.
TERN_INLINE void dft_9(cpack (&x)[9], float const* root, bool positive) {
  auto const turned = [&](cpack const& a, int m) TERN_LAMBDA {
    cpack const w = splat_complex(root + 2 * m);
    return positive ? a * w : times_conjugate(a, w);
  };
  TERN_UNROLL
  for (int j = 0; j < 3; ++j) dft_3(x[j], x[3 + j], x[6 + j], positive);
  x[4] = turned(x[4], 1);
  x[5] = turned(x[5], 2);
  x[7] = turned(x[7], 2);
  x[8] = turned(x[8], 4);
  cpack y[9];
  TERN_UNROLL
  for (int k = 0; k < 3; ++k) {
    dft_3(x[3 * k], x[3 * k + 1], x[3 * k + 2], positive);
    TERN_UNROLL
    for (int j = 0; j < 3; ++j) y[k + 3 * j] = x[3 * k + j];
  }
  TERN_UNROLL
  for (int k = 0; k < 9; ++k) x[k] = y[k];
}

/// The discrete Fourier transform of R numbers, R odd: x_k = sum over m of x_m e^(sign 2 pi i m k / R). root: e^(2 pi i m / R), m < R, as
/// pairs of floats.
template <int R>
TERN_INLINE void dft_odd(cpack (&x)[R], float const* root, bool positive) {
  if constexpr (R == 3) return dft_3(x[0], x[1], x[2], positive);
  if constexpr (R == 9) return dft_9(x, root, positive);
  constexpr int H = R / 2;
  cpack s[H], d[H];
  cpack const first = x[0];
  TERN_UNROLL
  for (int m = 0; m < H; ++m) {
    s[m] = x[m + 1] + x[R - 1 - m];
    d[m] = x[m + 1] - x[R - 1 - m];
  }
  TERN_UNROLL
  for (int m = 0; m < H; ++m) x[0] = x[0] + s[m];
  for (int k = 1; k <= H; ++k) {
    cpack a = first, b{simd::pack<float>(0.f), simd::pack<float>(0.f)};
    TERN_UNROLL
    for (int m = 0; m < H; ++m) {
      float const* const w = root + 2 * ((m + 1) * k % R);
      simd::pack<float> const c(w[0]), t(w[1]);
      a = {simd::fma(c, s[m].re, a.re), simd::fma(c, s[m].im, a.im)};
      b = {simd::fma(t, d[m].re, b.re), simd::fma(t, d[m].im, b.im)};
    }
    x[positive ? k : R - k] = plus_i(a, b);
    x[positive ? R - k : k] = minus_i(a, b);
  }
}

}  // namespace TERN_ABI
}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file fft/butterflies.hpp
/// Complex numbers in two registers, and the steps that a tower of transforms is made of (fft/tower.hpp). A polynomial modulo z^(2h) - w^2
/// is split into its remainders modulo z^h - w and z^h + w, whose coefficients are a + w b and a - w b; `join` undoes it but for the
/// factor 2. Wider steps are the same for 4 and 8 remainders, in the order in which the narrow ones leave them.
///
/// Products are made first and added then, as additions have units of their own beside those of multiply-adds on the processors this was
/// measured on. A step of 8 takes 36 operations of one kind and 44 of the other, one of 4 takes 12 and 16.

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
/// x, which is loaded once and not for each of its uses.
TERN_INLINE cpack loaded(cpack const& x) { return {simd::in_register(x.re), simd::in_register(x.im)}; }
/// a conj(w)
TERN_INLINE cpack times_conjugate(cpack const& a, cpack const& w) {
  return {simd::fma(a.im, w.im, a.re * w.re), simd::fnma(a.re, w.im, a.im * w.re)};
}
/// A root in memory, by two pointers of which the compiler does not know that they are one: it then multiplies with memory, which costs
/// nothing, instead of spreading each part over a register, which costs an operation.
struct root_place {
  float const *at, *again;
  TERN_INLINE root_place operator+(int m) const { return {at + 2 * m, again + 2 * m}; }
};
TERN_INLINE root_place root_at(float const* w) { return {w, simd::another(w)}; }
TERN_INLINE cpack operator*(cpack const& a, root_place const& w) {
  using pack = simd::pack<float>;
  return {simd::fnma(a.im, pack(w.at[1]), a.re * pack(w.at[0])), simd::fma(a.im, pack(w.again[0]), a.re * pack(w.again[1]))};
}
TERN_INLINE cpack times_conjugate(cpack const& a, root_place const& w) {
  using pack = simd::pack<float>;
  return {simd::fma(a.im, pack(w.at[1]), a.re * pack(w.at[0])), simd::fnma(a.re, pack(w.again[1]), a.im * pack(w.again[0]))};
}
/// The same for numbers without imaginary parts.
struct root_of_reals {
  root_place w;
};
TERN_INLINE cpack operator*(cpack const& a, root_of_reals const& r) {
  return {a.re * simd::pack<float>(r.w.at[0]), a.re * simd::pack<float>(r.w.at[1])};
}
/// a + i b, a - i b
TERN_INLINE cpack plus_i(cpack const& a, cpack const& b) { return {a.re - b.im, a.im + b.re}; }
TERN_INLINE cpack minus_i(cpack const& a, cpack const& b) { return {a.re + b.im, a.im - b.re}; }

/// a, b = a + w b, a - w b
TERN_INLINE void split(cpack& a, cpack& b, cpack const& w) {
  cpack const p = b * w;
  b = a - p;
  a = a + p;
}
/// a, b = a + i w b, a - i w b
TERN_INLINE void split_i(cpack& a, cpack& b, cpack const& w) {
  cpack const p = b * w;
  b = minus_i(a, p);
  a = plus_i(a, p);
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

/// 4 remainders; w1^4 is the constant of the modulus, w2 = w1^2, w3 = w1^3: registers, or places in memory.
template <class Root>
TERN_INLINE void split4(cpack (&x)[4], Root const& w1, Root const& w2, Root const& w3) {
  cpack const y0 = loaded(x[0]), y2 = loaded(x[2]) * w2, e = y0 + y2, d = y0 - y2;
  cpack const y1 = loaded(x[1]) * w1, y3 = loaded(x[3]) * w3, o = y1 + y3, q = y1 - y3;
  x[0] = e + o;
  x[1] = e - o;
  x[2] = plus_i(d, q);
  x[3] = minus_i(d, q);
}
/// Four times what `split4` was given.
template <class Root>
TERN_INLINE void join4(cpack (&x)[4], Root const& w1, Root const& w2, Root const& w3) {
  cpack const y0 = loaded(x[0]), y1 = loaded(x[1]), s = y0 + y1, d = y0 - y1;
  cpack const y2 = loaded(x[2]), y3 = loaded(x[3]), t = y2 + y3, e = y2 - y3;
  x[0] = s + t;
  x[1] = times_conjugate(minus_i(d, e), w1);
  x[2] = times_conjugate(s - t, w2);
  x[3] = times_conjugate(plus_i(d, e), w3);
}

/// a, b = a + r (p, q), a - r (p, q) for the root r of 1/2: what is left of a product with an eighth root of one.
TERN_INLINE void join_eighth(cpack& a, cpack& b, simd::pack<float> p, simd::pack<float> q) {
  simd::pack<float> const r(0.70710678118654752f);
  b = {simd::fnma(r, p, a.re), simd::fnma(r, q, a.im)};
  a = {simd::fma(r, p, a.re), simd::fma(r, q, a.im)};
}
/// 8 remainders; w1^8 is the constant of the modulus, w(m) = w1^m. done(0) is called when the first four are ready, done(4) at the end.
template <class Power, class Done>
TERN_INLINE void split8(cpack (&x)[8], Power const& w, Done&& done) {
  cpack const y0 = loaded(x[0]), y4 = loaded(x[4]) * w(4), p0 = y0 + y4, m0 = y0 - y4;
  cpack const y2 = loaded(x[2]) * w(2), y6 = loaded(x[6]) * w(6), p2 = y2 + y6, m2 = y2 - y6;
  cpack const e0 = p0 + p2, e1 = p0 - p2, d0 = plus_i(m0, m2), d1 = minus_i(m0, m2);
  cpack const y1 = loaded(x[1]) * w(1), y5 = loaded(x[5]) * w(5), p1 = y1 + y5, m1 = y1 - y5;
  cpack const y3 = loaded(x[3]) * w(3), y7 = loaded(x[7]) * w(7), p3 = y3 + y7, m3 = y3 - y7;
  cpack const o0 = p1 + p3, o1 = p1 - p3;
  x[0] = e0 + o0;
  x[1] = e0 - o0;
  x[2] = plus_i(e1, o1);
  x[3] = minus_i(e1, o1);
  done(0);
  cpack const q0 = plus_i(m1, m3), q1 = minus_i(m1, m3);
  x[4] = d0;  // + e^(i pi / 4) q0
  join_eighth(x[4], x[5], q0.re - q0.im, q0.re + q0.im);
  x[7] = d1;  // - e^(3 i pi / 4) q1
  join_eighth(x[7], x[6], q1.re + q1.im, q1.im - q1.re);
  done(4);
}
/// Eight times what `split8` was given. get(0) is called before the first four are used, get(4) before the others.
template <class Power, class Get>
TERN_INLINE void join8(cpack (&x)[8], Power const& w, Get&& get) {
  get(0);
  cpack const y0 = loaded(x[0]), y1 = loaded(x[1]), e0 = y0 + y1, d0 = y0 - y1;
  cpack const y2 = loaded(x[2]), y3 = loaded(x[3]), e1 = y2 + y3, d1 = y2 - y3;
  cpack const p0 = e0 + e1, p1 = e0 - e1;
  cpack a = minus_i(d0, d1), b = plus_i(d0, d1);
  get(4);
  cpack const y4 = loaded(x[4]), y5 = loaded(x[5]), e2 = y4 + y5, d2 = y4 - y5;
  cpack const y6 = loaded(x[6]), y7 = loaded(x[7]), e3 = y6 + y7, d3 = y6 - y7;
  cpack const p2 = e2 + e3, p3 = e2 - e3, c = minus_i(d2, d3), d = plus_i(d2, d3);
  x[0] = p0 + p2;
  x[4] = times_conjugate(p0 - p2, w(4));
  x[2] = times_conjugate(minus_i(p1, p3), w(2));
  x[6] = times_conjugate(plus_i(p1, p3), w(6));
  cpack lower;
  join_eighth(a, lower, c.re + c.im, c.im - c.re);  // e^(-i pi / 4) c
  x[1] = times_conjugate(a, w(1));
  x[5] = times_conjugate(lower, w(5));
  join_eighth(b, lower, d.re - d.im, d.re + d.im);  // - e^(-3 i pi / 4) d
  x[3] = times_conjugate(lower, w(3));
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

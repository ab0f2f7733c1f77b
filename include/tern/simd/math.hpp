// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file simd/math.hpp
/// Elementary functions by the pack. Errors are in units in the last place (ulp) of f32 against the exact value, and are
/// asserted by tests/simd/math_test.cpp. NaN stays NaN.
///
///     function    error            notes
///     exp         1.1 ulp          overflows above 88.7228; subnormal below -87.34, zero below -103.97
///     log         1.0 ulp          log 0 = -inf, log of a negative number is NaN
///     tanh        3 ulp
///     sigmoid     3 ulp            may be zero below -87.33
///     silu        4 ulp            may be zero below -87.33; -inf gives NaN, as the formula
///     gelu_tanh   2^-21 |x|        -inf gives NaN, as the formula
///     gelu        2^-21 |x|        -inf gives NaN, as the formula
///     sin         2^-23            for |x| <= 8192; beyond, some number from -1 to 1
///
/// Without fused multiply-add (SSE) the bounds are 1 ulp wider. Polynomials are minimax, fitted by reweighted least squares
/// on Chebyshev points, with coefficients rounded to f32 one after the other.

#include <tern/simd/pack.hpp>

namespace tern {
inline namespace TERN_ABI {
namespace simd {

namespace detail {
/// e^x = 2^n e^r with n whole and |r| <= ln 2 / 2, e^r = 1 + r + r^2 q; q is a polynomial of degree 4, error 2^-28 of e^r. ln 2 is
/// split so that n times its head is exact.
struct exp_reduced {
  pack<float> n, r, q;
};
TERN_INLINE exp_reduced reduce_exp(pack<float> x) {
  pack<float> const n = round(x * pack<float>(0x1.715476p+0f));
  pack<float> r = fnma(n, pack<float>(0x1.62e4p-1f), x);
  r = fnma(n, pack<float>(0x1.7f7d1cp-20f), r);
  pack<float> q(0x1.6a23cep-10f);
  q = fma(q, r, pack<float>(0x1.123a20p-7f));
  q = fma(q, r, pack<float>(0x1.5558f2p-5f));
  q = fma(q, r, pack<float>(0x1.555492p-3f));
  q = fma(q, r, pack<float>(0x1.fffffcp-2f));
  return {n, r, q};
}
/// e^x = 2^n (1 + m), n whole, |m| < 0.415.
struct exp_parts {
  pack<float> n, m;
};
TERN_INLINE exp_parts split_exp(pack<float> x) {
  exp_reduced const e = reduce_exp(x);
  return {e.n, fma(e.q, e.r * e.r, e.r)};
}
/// 2^n for whole n in [-126, 127].
TERN_INLINE pack<float> power_of_two(pack<std::int32_t> n) { return bit_cast<float>(shift_left<23>(n + pack<std::int32_t>(127))); }
}  // namespace detail

/// e^x. Where it is clamped, it has overflowed or rounded to zero.
TERN_INLINE pack<float> exp(pack<float> x) {
  pack<float> const within = min(pack<float>(89.f), max(pack<float>(-104.f), x));
  detail::exp_parts const e = detail::split_exp(within);
  pack<float> const p = e.m + pack<float>(1.f);
#if defined(TERN_SIMD_AVX512)
  return pack<float>(_mm512_maskz_scalef_ps(0xffff, p.v, e.n.v));
#else
  // 2^n in two factors, so that it neither overflows early nor skips the subnormals. Zeros must not arise by underflow, which
  // is slow, and masked scores are full of them.
  pack<std::int32_t> const whole = to_int(e.n);
  pack<std::int32_t> const half = shift_right<1>(whole);
  pack<float> const kept = select(x < pack<float>(-103.972084f), pack<float>(0.f), p);
  return kept * detail::power_of_two(half) * detail::power_of_two(whole - half);
#endif
}

#if defined(TERN_SIMD_AVX512)
/// Whether a number's fraction and the multiplication by a power of two are one instruction each.
inline constexpr bool splits_exponents = true;
/// x - floor(x) for numbers, rounded; NaN for NaN.
TERN_INLINE pack<float> fraction(pack<float> x) { return pack<float>(_mm512_maskz_reduce_ps(0xffff, x.v, 0x9)); }
/// p 2^floor(x) for x <= 127, or zero where x < -126, that is, no subnormal number where 1 <= p < 2. NaN stays NaN.
TERN_INLINE pack<float> times_power(pack<float> p, pack<float> x) {
  return pack<float>(_mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x.v, _mm512_set1_ps(-126.f), _CMP_NLT_UQ), p.v, x.v));
}
#else
inline constexpr bool splits_exponents = false;
namespace detail {
TERN_INLINE pack<float> floor(pack<float> x) {
  pack<float> const n = round(x);
  return n - select(n > x, pack<float>(1.f), pack<float>(0.f));
}
}  // namespace detail
TERN_INLINE pack<float> fraction(pack<float> x) { return x - detail::floor(x); }
TERN_INLINE pack<float> times_power(pack<float> p, pack<float> x) {
  pack<float> const y = p * detail::power_of_two(to_int(detail::floor(max(pack<float>(-126.f), x))));
  return select(x < pack<float>(-126.f), pack<float>(0.f), y);
}
#endif

/// e^x for x <= 0 (or NaN), what softmax takes: like exp, but may be zero where e^x is subnormal. Unspecified for x > 88.
TERN_INLINE pack<float> exp_nonpositive(pack<float> x) {
#if defined(TERN_SIMD_AVX512)
  detail::exp_parts const e = detail::split_exp(max(pack<float>(-104.f), x));
  return pack<float>(_mm512_maskz_scalef_ps(0xffff, (e.m + pack<float>(1.f)).v, e.n.v));
#else
  pack<float> const least(-87.3365402f);
  detail::exp_parts const e = detail::split_exp(max(least, x));
  pack<float> const y = (e.m + pack<float>(1.f)) * detail::power_of_two(to_int(e.n));
  return select(x < least, pack<float>(0.f), y);
#endif
}

/// The natural logarithm. x = 2^e (1 + t) with 1 + t in [sqrt 1/2, sqrt 2), log x = e ln 2 + t - t^2/2 + t^3 p(t); p has
/// degree 7, error 2^-27 of log(1 + t).
TERN_INLINE pack<float> log(pack<float> x) {
  mask<float> const tiny = x < pack<float>(0x1p-126f);
  pack<float> const normal = select(tiny, x * pack<float>(0x1p23f), x);
  pack<std::int32_t> const bits = bit_cast<std::int32_t>(normal);
  pack<std::int32_t> const e = shift_right<23>(bits - pack<std::int32_t>(0x3f3504f3));
  pack<float> const exponent = to_float(e) - select(tiny, pack<float>(23.f), pack<float>(0.f));
  pack<float> const t = bit_cast<float>(bits - shift_left<23>(e)) - pack<float>(1.f);
  pack<float> p(-0x1.38c9dep-4f);
  p = fma(p, t, pack<float>(0x1.055ec6p-3f));
  p = fma(p, t, pack<float>(-0x1.0d8242p-3f));
  p = fma(p, t, pack<float>(0x1.22d92ep-3f));
  p = fma(p, t, pack<float>(-0x1.54728ap-3f));
  p = fma(p, t, pack<float>(0x1.99a01cp-3f));
  p = fma(p, t, pack<float>(-0x1.000226p-2f));
  p = fma(p, t, pack<float>(0x1.555554p-2f));
  p = fma(p, t, pack<float>(-0.5f));
  // The smallest terms first; e times the head of ln 2 is exact.
  pack<float> const low = fma(exponent, pack<float>(0x1.7f7d1cp-20f), p * (t * t));
  pack<float> const y = fma(exponent, pack<float>(0x1.62e4p-1f), t + low);
  pack<float> const infinity(__builtin_inff());
  pack<float> const positive = select(x < infinity, y, x);
  pack<float> const other = select(x == pack<float>(0.f), -infinity, pack<float>(__builtin_nanf("")));
  return select(x <= pack<float>(0.f), other, positive);
}

/// -expm1(-2|x|) / (2 + expm1(-2|x|)) with the sign of x: no cancellation anywhere.
TERN_INLINE pack<float> tanh(pack<float> x) {
  detail::exp_parts const e = detail::split_exp(max(pack<float>(-40.f), abs(x) * pack<float>(-2.f)));
  pack<float> const scale = detail::power_of_two(to_int(e.n));
  pack<float> const less_one = fma(scale, e.m, scale - pack<float>(1.f));
  return copy_sign(less_one / (less_one + pack<float>(2.f)), x);
}

#if defined(TERN_SIMD_AVX512)
namespace detail {
/// 1 + e^-x, infinity for x < -88.73: one instruction takes all exponents, so that no sign needs to be looked at.
TERN_INLINE pack<float> one_and_exp_of_minus(pack<float> x) {
  pack<float> const one(1.f);
  exp_reduced const e = reduce_exp(min(pack<float>(104.f), max(pack<float>(-104.f), -x)));
  return one + pack<float>(_mm512_maskz_scalef_ps(0xffff, fma(fma(e.q, e.r, one), e.r, one).v, e.n.v));
}
}  // namespace detail
/// 1 / (1 + e^-x)
TERN_INLINE pack<float> sigmoid(pack<float> x) { return pack<float>(1.f) / detail::one_and_exp_of_minus(x); }
/// x / (1 + e^-x), the activation of SwiGLU.
TERN_INLINE pack<float> silu(pack<float> x) { return x / detail::one_and_exp_of_minus(x); }
#else
/// 1 / (1 + e^-x), by way of e^-|x|, which cannot overflow.
TERN_INLINE pack<float> sigmoid(pack<float> x) {
  pack<float> const e = exp_nonpositive(-abs(x));
  return select(x < pack<float>(0.f), e, pack<float>(1.f)) / (pack<float>(1.f) + e);
}
/// x / (1 + e^-x), the activation of SwiGLU.
TERN_INLINE pack<float> silu(pack<float> x) {
  pack<float> const e = exp_nonpositive(-abs(x));
  return select(x < pack<float>(0.f), x * e, x) / (pack<float>(1.f) + e);
}
#endif

/// x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, which is x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)).
TERN_INLINE pack<float> gelu_tanh(pack<float> x) {
  constexpr float slope = 1.5957691216057308f;
  return x * sigmoid(x * fma(x * x, pack<float>(slope * 0.044715f), pack<float>(slope)));
}

/// x (1 + erf(x / sqrt 2)) / 2. With z = |x| / sqrt 2 and t = 1 / (1 + z / 2), half of erfc z is e^(-z^2) t p(t); p has degree 8,
/// error 2^-24 for |x| < 14.5, beyond which e^(-z^2) is zero.
TERN_INLINE pack<float> gelu(pack<float> x) {
  pack<float> const size = abs(x);
  pack<float> const t = pack<float>(1.f) / fma(size, pack<float>(0.35355339059327373f), pack<float>(1.f));
  pack<float> p(-0x1.e470e6p-6f);
  p = fma(p, t, pack<float>(0x1.23bd88p-3f));
  p = fma(p, t, pack<float>(-0x1.f39724p-3f));
  p = fma(p, t, pack<float>(0x1.1d8ad4p-3f));
  p = fma(p, t, pack<float>(-0x1.bd1b92p-7f));
  p = fma(p, t, pack<float>(0x1.9f92f8p-4f));
  p = fma(p, t, pack<float>(0x1.f1c1bep-4f));
  p = fma(p, t, pack<float>(0x1.21291cp-3f));
  p = fma(p, t, pack<float>(0x1.20db24p-3f));
  pack<float> const tail = p * t * exp_nonpositive(x * x * pack<float>(-0.5f));
  return x * select(x < pack<float>(0.f), tail, pack<float>(1.f) - tail);
}

/// The sine. x = n pi + r with n whole and |r| <= pi / 2 and what rounding x / pi adds; sin x = +-(r + r^3 p(r^2)); p has degree 3, error
/// 2^-27 of sin r. pi is split in three, so that n times the first and the second is exact.
TERN_INLINE pack<float> sin(pack<float> x) {
  pack<float> const n = round(x * pack<float>(0x1.45f306p-2f));
  pack<float> r = fnma(n, pack<float>(0x1.92p+1f), x);
  r = fnma(n, pack<float>(0x1.fb6p-11f), r);
  r = fnma(n, pack<float>(-0x1.777a5cp-24f), r);
  pack<float> const square = r * r;
  pack<float> p(0x1.5dc84ap-19f);
  p = fma(p, square, pack<float>(-0x1.9f70eap-13f));
  p = fma(p, square, pack<float>(0x1.110edap-7f));
  p = fma(p, square, pack<float>(-0x1.55554cp-3f));
  pack<float> const y = min(pack<float>(1.f), max(pack<float>(-1.f), fma(p * square, r, r)));
  return bit_cast<float>(bit_cast<std::int32_t>(y) ^ shift_left<31>(to_int(n)));
}

}  // namespace simd
}  // namespace TERN_ABI
}  // namespace tern

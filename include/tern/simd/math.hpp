// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file simd/math.hpp
/// Elementary functions by the pack.

#include <tern/simd/pack.hpp>

namespace tern {
inline namespace TERN_ABI {
namespace simd {

/// e^x within 2 units in the last place of f32 (tests/simd/math_test.cpp walks every float). Overflows to infinity above
/// 88.7228, rounds through the subnormals to zero below -103.97, NaN stays NaN.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2, e^x = 2^n (1 + r + r^2 q(r)); q is the minimax polynomial of degree 4, relative
/// error 2^-28 (fitted by reweighted least squares on Chebyshev points). ln 2 is split so that n times its head is exact.
TERN_INLINE pack<float> exp(pack<float> x) {
  pack<float> const n = round(x * pack<float>(0x1.715476p+0f));
  pack<float> r = fnma(n, pack<float>(0x1.62e4p-1f), x);
  r = fnma(n, pack<float>(0x1.7f7d1cp-20f), r);
  pack<float> q(0x1.6a23cep-10f);
  q = fma(q, r, pack<float>(0x1.123a20p-7f));
  q = fma(q, r, pack<float>(0x1.5558f2p-5f));
  q = fma(q, r, pack<float>(0x1.555492p-3f));
  q = fma(q, r, pack<float>(0x1.fffffcp-2f));
  pack<float> const p = fma(q, r * r, r) + pack<float>(1.f);
#if defined(TERN_SIMD_AVX512)
  // Infinite x makes r NaN: those lanes are taken from x's limit.
  pack<float> const y(_mm512_maskz_scalef_ps(0xffff, p.v, n.v));
#else
  // 2^n in two factors, so that it neither overflows early nor skips the subnormals.
  pack<std::int32_t> const whole = to_int(max(min(n, pack<float>(254.f)), pack<float>(-252.f)));
  pack<std::int32_t> const half = to_int(to_float(whole) * pack<float>(0.5f));
  pack<std::int32_t> const bias(127);
  pack<float> const y = p * bit_cast<float>(shift_left<23>(half + bias)) * bit_cast<float>(shift_left<23>(whole - half + bias));
#endif
  pack<float> const limited = select(x > pack<float>(88.7228394f), pack<float>(__builtin_inff()), y);
  return select(x < pack<float>(-103.972084f), pack<float>(0.f), limited);
}

/// 1 / (1 + e^-x), within 4 units in the last place.
TERN_INLINE pack<float> sigmoid(pack<float> x) { return pack<float>(1.f) / (pack<float>(1.f) + exp(-x)); }

/// x / (1 + e^-x), the activation of SwiGLU, within 5 units in the last place.
TERN_INLINE pack<float> silu(pack<float> x) { return x / (pack<float>(1.f) + exp(-x)); }

}  // namespace simd
}  // namespace TERN_ABI
}  // namespace tern

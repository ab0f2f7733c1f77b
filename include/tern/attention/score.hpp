// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/score.hpp
/// From the product q.k to the exponent of two in the softmax: e^s = 2^(s log2 e), and log2 e is folded into the scaled query.

#include <tern/simd/math.hpp>
#include <tern/simd/pack.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// 2^x for x <= 0, within 3 units in the last place; below -126.5 the result is zero. NaN stays NaN.
/// 2^x = 2^n 2^r with n the nearest integer; adding 3 * 2^22 + 127 leaves n + 127 in the low bits of the sum. The polynomial is
/// the minimax one of degree 6 with constant term 1, relative error 2^-28.5 (Remez exchange).
TERN_INLINE simd::pack<float> exp2_of_nonpositive(simd::pack<float> x) {
  using packf = simd::pack<float>;
  x = simd::max(packf(-127.f), x);
  packf const magic(0x1.8p23f + 127.f);
  packf const shifted = x + magic;
  packf const r = x - (shifted - magic);
  packf p(0x1.470b4ap-13f);
  p = simd::fma(p, r, packf(0x1.5f7276p-10f));
  p = simd::fma(p, r, packf(0x1.3b270ep-7f));
  p = simd::fma(p, r, packf(0x1.c6ae72p-5f));
  p = simd::fma(p, r, packf(0x1.ebfbe2p-3f));
  p = simd::fma(p, r, packf(0x1.62e432p-1f));
  p = simd::fma(p, r, packf(1.f));
  return p * simd::bit_cast<float>(simd::shift_left<23>(simd::bit_cast<std::int32_t>(shifted)));
}

inline constexpr float log2_e = 0x1.715476p+0f;
inline constexpr float ln_2 = 0x1.62e43p-1f;

/// scale * q.k
struct plain_score {
  static constexpr bool is_identity = true;
  float query_factor;

  TERN_INLINE explicit plain_score(float scale) : query_factor(scale * log2_e) {}
  TERN_INLINE simd::pack<float> operator()(simd::pack<float> s) const { return s; }
};

/// limit * tanh(scale * q.k / limit)
struct capped_score {
  static constexpr bool is_identity = false;
  float query_factor;
  float limit;

  TERN_INLINE capped_score(float scale, float cap) : query_factor(scale / cap), limit(cap * log2_e) {}
  TERN_INLINE simd::pack<float> operator()(simd::pack<float> s) const { return simd::pack<float>(limit) * simd::tanh(s); }
};

}  // namespace TERN_ABI
}  // namespace tern::detail

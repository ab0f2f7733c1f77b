// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file simd/pack.hpp
/// The operations that every kernel is written in, on `pack<T>` for T = float or int32. This folder is the only one that
/// knows xsimd or intrinsics, and the only one that knows what differs between xsimd 8 and 14.

#include <tern/simd/reduce.hpp>
#include <tern/simd/register.hpp>

#include <bit>

namespace tern {
inline namespace TERN_ABI {
namespace simd {

// ---- arithmetic ------------------------------------------------------------------------------------------------------

/// What the generic arithmetic accepts; narrower lanes have none.
template <class T>
concept word_lane = std::is_same_v<T, float> || std::is_same_v<T, std::int32_t>;

#if defined(TERN_SIMD_EMULATED)
/// Integers wrap, as registers do.
template <word_lane T>
using wrapping = std::conditional_t<std::is_same_v<T, float>, float, std::uint32_t>;
#define TERN_SIMD_BINARY(op)                                                                                                           \
  template <word_lane T>                                                                                                               \
  TERN_INLINE pack<T> operator op(pack<T> a, pack<T> b) {                                                                              \
    return lanewise<T>([&](index i) { return static_cast<T>(static_cast<wrapping<T>>(a.v[i]) op static_cast<wrapping<T>>(b.v[i])); }); \
  }
#define TERN_SIMD_COMPARE(op)                                           \
  template <word_lane T>                                                \
  TERN_INLINE mask<T> operator op(pack<T> a, pack<T> b) {               \
    return lanewise_mask<T>([&](index i) { return a.v[i] op b.v[i]; }); \
  }
#define TERN_SIMD_LOGICAL(op)                                                           \
  template <word_lane T>                                                                \
  TERN_INLINE mask<T> operator op(mask<T> a, mask<T> b) {                               \
    return lanewise_mask<T>([&](index i) { return bool(int(a.v[i]) op int(b.v[i])); }); \
  }
#else
#define TERN_SIMD_BINARY(op)                              \
  template <word_lane T>                                  \
  TERN_INLINE pack<T> operator op(pack<T> a, pack<T> b) { \
    return pack<T>(a.v op b.v);                           \
  }
#define TERN_SIMD_COMPARE(op)                             \
  template <word_lane T>                                  \
  TERN_INLINE mask<T> operator op(pack<T> a, pack<T> b) { \
    return {a.v op b.v};                                  \
  }
#define TERN_SIMD_LOGICAL(op)                             \
  template <word_lane T>                                  \
  TERN_INLINE mask<T> operator op(mask<T> a, mask<T> b) { \
    return {a.v op b.v};                                  \
  }
#endif
TERN_SIMD_BINARY(+)
TERN_SIMD_BINARY(-)
TERN_SIMD_BINARY(*)
TERN_SIMD_COMPARE(<)
TERN_SIMD_COMPARE(<=)
TERN_SIMD_COMPARE(>)
TERN_SIMD_COMPARE(>=)
TERN_SIMD_COMPARE(==)
TERN_SIMD_LOGICAL(&)
TERN_SIMD_LOGICAL(|)
#undef TERN_SIMD_BINARY
// With one number for all lanes.
#define TERN_SIMD_SCALAR(op)                                              \
  template <word_lane T>                                                  \
  TERN_INLINE pack<T> operator op(pack<T> a, std::type_identity_t<T> b) { \
    return a op pack<T>(b);                                               \
  }                                                                       \
  template <word_lane T>                                                  \
  TERN_INLINE pack<T> operator op(std::type_identity_t<T> a, pack<T> b) { \
    return pack<T>(a) op b;                                               \
  }
TERN_SIMD_SCALAR(+)
TERN_SIMD_SCALAR(-)
TERN_SIMD_SCALAR(*)
#undef TERN_SIMD_SCALAR
#undef TERN_SIMD_COMPARE
#undef TERN_SIMD_LOGICAL

TERN_INLINE pack<float> operator/(pack<float> a, pack<float> b) {
#if defined(TERN_SIMD_EMULATED)
  return lanewise<float>([&](index i) { return a.v[i] / b.v[i]; });
#elif defined(TERN_SIMD_NEON)
  return pack<float>(vdivq_f32(a.v, b.v));  // xsimd 8.1 refines an estimate, which rounds wrongly
#else
  return pack<float>(a.v / b.v);
#endif
}
template <word_lane T>
TERN_INLINE pack<T> operator-(pack<T> a) {
#if defined(TERN_SIMD_EMULATED)
  return lanewise<T>([&](index i) { return static_cast<T>(-static_cast<wrapping<T>>(a.v[i])); });
#else
  if constexpr (std::is_same_v<T, float>)
    return pack<T>(a.v ^ pack<T>(-0.f).v);  // 0 - a would lose the sign of zero
  else
    return pack<T>(T{0}) - a;
#endif
}
template <word_lane T>
TERN_INLINE pack<T>& operator+=(pack<T>& a, pack<T> b) {
  return a = a + b;
}
template <word_lane T>
TERN_INLINE pack<T>& operator-=(pack<T>& a, pack<T> b) {
  return a = a - b;
}
template <word_lane T>
TERN_INLINE pack<T>& operator*=(pack<T>& a, pack<T> b) {
  return a = a * b;
}

/// a * b + c with one rounding where the machine has it (all but SSE, whose two roundings stay within every kernel's bound).
TERN_INLINE pack<float> fma(pack<float> a, pack<float> b, pack<float> c) {
#if defined(TERN_SIMD_AVX512)
  return pack<float>(_mm512_fmadd_ps(a.v, b.v, c.v));
#elif defined(TERN_SIMD_AVX2)
  return pack<float>(_mm256_fmadd_ps(a.v, b.v, c.v));
#elif defined(TERN_SIMD_NEON)
  return pack<float>(vfmaq_f32(c.v, a.v, b.v));
#elif defined(TERN_SIMD_SSE) && defined(__FMA__)
  return pack<float>(_mm_fmadd_ps(a.v, b.v, c.v));
#elif defined(TERN_SIMD_EMULATED)
  return lanewise<float>([&](index i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
#else
  return a * b + c;
#endif
}
/// a * b - c
TERN_INLINE pack<float> fms(pack<float> a, pack<float> b, pack<float> c) {
#if defined(TERN_SIMD_AVX512)
  return pack<float>(_mm512_fmsub_ps(a.v, b.v, c.v));
#elif defined(TERN_SIMD_AVX2)
  return pack<float>(_mm256_fmsub_ps(a.v, b.v, c.v));
#else
  return fma(a, b, -c);
#endif
}
/// c - a * b
TERN_INLINE pack<float> fnma(pack<float> a, pack<float> b, pack<float> c) {
#if defined(TERN_SIMD_AVX512)
  return pack<float>(_mm512_fnmadd_ps(a.v, b.v, c.v));
#elif defined(TERN_SIMD_AVX2)
  return pack<float>(_mm256_fnmadd_ps(a.v, b.v, c.v));
#elif defined(TERN_SIMD_NEON)
  return pack<float>(vfmsq_f32(c.v, a.v, b.v));
#elif defined(TERN_SIMD_SSE) && defined(__FMA__)
  return pack<float>(_mm_fnmadd_ps(a.v, b.v, c.v));
#elif defined(TERN_SIMD_EMULATED)
  return lanewise<float>([&](index i) { return __builtin_fmaf(-a.v[i], b.v[i], c.v[i]); });
#else
  return c - a * b;
#endif
}

/// The smaller of a and b; if either is NaN, b.
template <word_lane T>
TERN_INLINE pack<T> min(pack<T> a, pack<T> b) {
#if defined(TERN_SIMD_EMULATED)
  return lanewise<T>([&](index i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
#elif defined(TERN_SIMD_AVX512)
  if constexpr (std::is_same_v<T, float>)
    return pack<T>(_mm512_maskz_min_ps(0xffff, a.v, b.v));
  else
    return pack<T>(_mm512_maskz_min_epi32(0xffff, a.v, b.v));
#elif defined(TERN_SIMD_NEON)
  return pack<T>(xsimd::select(a.v < b.v, a.v, b.v));
#else
  if constexpr (!std::is_same_v<T, float>)
    return pack<T>(xsimd::min(a.v, b.v));
  else  // xsimd 8.1 and 14 disagree about NaN
#if defined(TERN_SIMD_AVX2)
    return pack<T>(_mm256_min_ps(a.v, b.v));
#else
    return pack<T>(_mm_min_ps(a.v, b.v));
#endif
#endif
}
/// The larger of a and b; if either is NaN, b.
template <word_lane T>
TERN_INLINE pack<T> max(pack<T> a, pack<T> b) {
#if defined(TERN_SIMD_EMULATED)
  return lanewise<T>([&](index i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
#elif defined(TERN_SIMD_AVX512)
  if constexpr (std::is_same_v<T, float>)
    return pack<T>(_mm512_maskz_max_ps(0xffff, a.v, b.v));
  else
    return pack<T>(_mm512_maskz_max_epi32(0xffff, a.v, b.v));
#elif defined(TERN_SIMD_NEON)
  return pack<T>(xsimd::select(a.v > b.v, a.v, b.v));
#else
  if constexpr (!std::is_same_v<T, float>)
    return pack<T>(xsimd::max(a.v, b.v));
  else  // xsimd 8.1 and 14 disagree about NaN
#if defined(TERN_SIMD_AVX2)
    return pack<T>(_mm256_max_ps(a.v, b.v));
#else
    return pack<T>(_mm_max_ps(a.v, b.v));
#endif
#endif
}
/// Lane by lane: m ? a : b.
template <class T>
TERN_INLINE pack<T> select(mask<T> m, pack<T> a, pack<T> b) {
#if defined(TERN_SIMD_EMULATED)
  return lanewise<T>([&](index i) { return m.v[i] ? a.v[i] : b.v[i]; });
#else
#if defined(TERN_SIMD_AVX512)
  if constexpr (std::is_same_v<T, std::int32_t>)  // xsimd 8.1's does not compile without optimization
    return pack<T>(_mm512_mask_blend_epi32(m.v, b.v, a.v));
  else
#endif
    return pack<T>(xsimd::select(m.v, a.v, b.v));
#endif
}
/// |a|, by clearing the sign.
TERN_INLINE pack<float> abs(pack<float> a) {
#if defined(TERN_SIMD_EMULATED)
  return lanewise<float>([&](index i) { return __builtin_fabsf(a.v[i]); });
#else
  return pack<float>(xsimd::abs(a.v));
#endif
}
/// Correctly rounded.
TERN_INLINE pack<float> sqrt(pack<float> a) {
#if defined(TERN_SIMD_EMULATED)
  return lanewise<float>([&](index i) { return __builtin_sqrtf(a.v[i]); });
#elif defined(TERN_SIMD_AVX512)
  return pack<float>(_mm512_maskz_sqrt_ps(0xffff, a.v));
#elif defined(TERN_SIMD_NEON)
  return pack<float>(vsqrtq_f32(a.v));  // as for division
#else
  return pack<float>(xsimd::sqrt(a.v));
#endif
}
/// To the nearest integer, ties to even.
TERN_INLINE pack<float> round(pack<float> a) {
#if defined(TERN_SIMD_EMULATED)
  return lanewise<float>([&](index i) { return __builtin_nearbyintf(a.v[i]); });
#elif defined(TERN_SIMD_AVX512)
  return pack<float>(_mm512_maskz_roundscale_ps(0xffff, a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  return pack<float>(xsimd::nearbyint(a.v));
#endif
}

// ---- conversions -----------------------------------------------------------------------------------------------------

/// To the nearest integer, ties to even; -2^31 <= a < 2^31. Other numbers and NaN give some integer.
TERN_INLINE pack<std::int32_t> to_int(pack<float> a) {
#if defined(TERN_SIMD_EMULATED)
  return lanewise<std::int32_t>(
      [&](index i) { return -0x1p31f <= a.v[i] && a.v[i] < 0x1p31f ? static_cast<std::int32_t>(__builtin_nearbyintf(a.v[i])) : 0; });
#elif defined(TERN_SIMD_AVX512)
  return pack<std::int32_t>(_mm512_maskz_cvtps_epi32(0xffff, a.v));
#elif defined(TERN_SIMD_AVX2)
  return pack<std::int32_t>(_mm256_cvtps_epi32(a.v));
#elif defined(TERN_SIMD_SSE)
  return pack<std::int32_t>(_mm_cvtps_epi32(a.v));
#else
  return pack<std::int32_t>(vcvtnq_s32_f32(a.v));
#endif
}
/// Rounded to nearest even.
TERN_INLINE pack<float> to_float(pack<std::int32_t> a) {
#if defined(TERN_SIMD_EMULATED)
  return lanewise<float>([&](index i) { return static_cast<float>(a.v[i]); });
#elif defined(TERN_SIMD_AVX512)
  return pack<float>(_mm512_maskz_cvtepi32_ps(0xffff, a.v));
#else
  return pack<float>(xsimd::to_float(a.v));
#endif
}
/// The same bits as lanes of another type.
template <word_lane To, word_lane From>
TERN_INLINE pack<To> bit_cast(pack<From> a) {
  static_assert(!std::is_same_v<To, From>);
#if defined(TERN_SIMD_EMULATED)
  return lanewise<To>([&](index i) { return std::bit_cast<To>(a.v[i]); });
#elif defined(TERN_SIMD_NEON)
  if constexpr (std::is_same_v<To, float>)
    return pack<To>(vreinterpretq_f32_s32(a.v));
  else
    return pack<To>(vreinterpretq_s32_f32(a.v));
#elif defined(TERN_SIMD_AVX512)
  if constexpr (std::is_same_v<To, float>)
    return pack<To>(_mm512_castsi512_ps(a.v));
  else
    return pack<To>(_mm512_castps_si512(a.v));
#elif defined(TERN_SIMD_AVX2)
  if constexpr (std::is_same_v<To, float>)
    return pack<To>(_mm256_castsi256_ps(a.v));
  else
    return pack<To>(_mm256_castps_si256(a.v));
#else
  if constexpr (std::is_same_v<To, float>)
    return pack<To>(_mm_castsi128_ps(a.v));
  else
    return pack<To>(_mm_castps_si128(a.v));
#endif
}
/// Shifts every lane left by n bits.
template <int n>
TERN_INLINE pack<std::int32_t> shift_left(pack<std::int32_t> a) {
#if defined(TERN_SIMD_EMULATED)
  return lanewise<std::int32_t>([&](index i) { return static_cast<std::int32_t>(static_cast<std::uint32_t>(a.v[i]) << n); });
#elif defined(TERN_SIMD_AVX512)
  return pack<std::int32_t>(_mm512_maskz_slli_epi32(0xffff, a.v, n));
#else
  return pack<std::int32_t>(a.v << n);
#endif
}
/// Shifts every lane right by n bits, filling with the sign.
template <int n>
TERN_INLINE pack<std::int32_t> shift_right(pack<std::int32_t> a) {
#if defined(TERN_SIMD_EMULATED)
  return lanewise<std::int32_t>([&](index i) { return a.v[i] >> n; });
#elif defined(TERN_SIMD_AVX512)
  return pack<std::int32_t>(_mm512_maskz_srai_epi32(0xffff, a.v, n));
#elif defined(TERN_SIMD_AVX2)
  return pack<std::int32_t>(_mm256_srai_epi32(a.v, n));
#elif defined(TERN_SIMD_SSE)
  return pack<std::int32_t>(_mm_srai_epi32(a.v, n));
#else
  return pack<std::int32_t>(vshrq_n_s32(a.v, n));
#endif
}
/// The same by a number that is known when the program runs, 0 to 31.
TERN_INLINE pack<std::int32_t> shift_right(pack<std::int32_t> a, int n) {
#if defined(TERN_SIMD_EMULATED)
  return lanewise<std::int32_t>([&](index i) { return a.v[i] >> n; });
#elif defined(TERN_SIMD_AVX512)
  return pack<std::int32_t>(_mm512_maskz_sra_epi32(0xffff, a.v, _mm_cvtsi32_si128(n)));
#elif defined(TERN_SIMD_AVX2)
  return pack<std::int32_t>(_mm256_srai_epi32(a.v, n));
#elif defined(TERN_SIMD_SSE)
  return pack<std::int32_t>(_mm_srai_epi32(a.v, n));
#else
  return pack<std::int32_t>(vshlq_s32(a.v, vdupq_n_s32(-n)));
#endif
}

/// The same, each lane by its own number.
TERN_INLINE pack<std::int32_t> shift_right(pack<std::int32_t> a, pack<std::int32_t> n) {
#if defined(TERN_SIMD_AVX512)
  return pack<std::int32_t>(_mm512_maskz_srav_epi32(0xffff, a.v, n.v));
#elif defined(TERN_SIMD_AVX2)
  return pack<std::int32_t>(_mm256_srav_epi32(a.v, n.v));
#elif defined(TERN_SIMD_NEON)
  return pack<std::int32_t>(vshlq_s32(a.v, vnegq_s32(n.v)));
#else
  std::int32_t lane[lanes], by[lanes];
  store(static_cast<std::int32_t*>(lane), a);
  store(static_cast<std::int32_t*>(by), n);
  for (index i = 0; i < lanes; ++i) lane[i] >>= by[i];
  return load(static_cast<std::int32_t const*>(lane));
#endif
}

// ---- bits --------------------------------------------------------------------------------------------------------------

#if defined(TERN_SIMD_EMULATED)
#define TERN_SIMD_BITS(op)                                                                 \
  TERN_INLINE pack<std::int32_t> operator op(pack<std::int32_t> a, pack<std::int32_t> b) { \
    return lanewise<std::int32_t>([&](index i) { return a.v[i] op b.v[i]; });              \
  }
#else
#define TERN_SIMD_BITS(op) \
  TERN_INLINE pack<std::int32_t> operator op(pack<std::int32_t> a, pack<std::int32_t> b) { return pack<std::int32_t>(a.v op b.v); }
#endif
TERN_SIMD_BITS(&)
TERN_SIMD_BITS(|)
TERN_SIMD_BITS(^)
#undef TERN_SIMD_BITS

/// The magnitude of a with the sign of b.
TERN_INLINE pack<float> copy_sign(pack<float> a, pack<float> b) {
#if defined(TERN_SIMD_EMULATED)
  return lanewise<float>([&](index i) { return __builtin_copysignf(a.v[i], b.v[i]); });
#else
  pack<std::int32_t> const sign = bit_cast<std::int32_t>(b) & pack<std::int32_t>(std::int32_t{-0x7fffffff - 1});
  return bit_cast<float>((bit_cast<std::int32_t>(a) & pack<std::int32_t>(0x7fffffff)) | sign);
#endif
}

}  // namespace simd
}  // namespace TERN_ABI
}  // namespace tern

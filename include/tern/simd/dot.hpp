// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file simd/dot.hpp
/// Dot products of 4 bytes or 2 bf16 into each 32-bit lane.
///
///     dot(acc, u8 a, s8 b)      acc[i] += sum_j a[4i+j] b[4i+j]    exact for all inputs; acc wraps as int32 does
///     dot(acc, s8 a, s8 b)      the same
///     dot7(acc, u8 a, s8 b)     a in [0, 127] (4-bit to 7-bit codes); for other a the result is unspecified
///     dot127(acc, s8 a, s8 b)   b in [-127, 127] (symmetric 8-bit codes); for other b the result is unspecified
///     dot(acc, bf16 a, bf16 b)  acc[i] += a[2i+1] b[2i+1], then acc[i] += a[2i] b[2i]
///
/// Instructions for each: with VNNI 1, 4, 1, 4; with AVX-VNNI 1, 4, 1, 3; maddubs 8, 7, 3, 5.
///
/// The bf16 form multiplies exactly and rounds each sum once, to nearest even; SSE without FMA rounds the same way, since the
/// product of two bf16 is exact in f32. AVX512-BF16 alone takes subnormal inputs as zero and flushes subnormal results to zero.

#include <tern/simd/bytes.hpp>

namespace tern {
inline namespace TERN_ABI {
namespace simd {

namespace detail {
#if !defined(TERN_SIMD_EMULATED)
/// The 32-bit register of a pack.
TERN_INLINE auto native(pack<std::int32_t> a) {
#if defined(TERN_SIMD_AVX512)
  return static_cast<__m512i>(a.v);
#elif defined(TERN_SIMD_AVX2)
  return static_cast<__m256i>(a.v);
#elif defined(TERN_SIMD_SSE)
  return static_cast<__m128i>(a.v);
#elif defined(TERN_SIMD_NEON)
  return static_cast<int32x4_t>(a.v);
#endif
}
#endif

#if defined(TERN_SIMD_AVX512)
using bytes = __m512i;
TERN_INLINE bytes pairs_u8s8(bytes a, bytes b) { return _mm512_maddubs_epi16(a, b); }
TERN_INLINE bytes pairs_i16(bytes a, short by) { return _mm512_madd_epi16(a, _mm512_set1_epi16(by)); }
TERN_INLINE bytes add32(bytes a, bytes b) { return _mm512_add_epi32(a, b); }
TERN_INLINE bytes sub16(bytes a, bytes b) { return _mm512_sub_epi16(a, b); }
#elif defined(TERN_SIMD_AVX2)
using bytes = __m256i;
TERN_INLINE bytes pairs_u8s8(bytes a, bytes b) { return _mm256_maddubs_epi16(a, b); }
TERN_INLINE bytes pairs_i16(bytes a, short by) { return _mm256_madd_epi16(a, _mm256_set1_epi16(by)); }
TERN_INLINE bytes add32(bytes a, bytes b) { return _mm256_add_epi32(a, b); }
TERN_INLINE bytes sub16(bytes a, bytes b) { return _mm256_sub_epi16(a, b); }
#elif defined(TERN_SIMD_SSE) && defined(__SSSE3__)
using bytes = __m128i;
TERN_INLINE bytes pairs_u8s8(bytes a, bytes b) { return _mm_maddubs_epi16(a, b); }
TERN_INLINE bytes pairs_i16(bytes a, short by) { return _mm_madd_epi16(a, _mm_set1_epi16(by)); }
TERN_INLINE bytes add32(bytes a, bytes b) { return _mm_add_epi32(a, b); }
TERN_INLINE bytes sub16(bytes a, bytes b) { return _mm_sub_epi16(a, b); }
#elif defined(TERN_SIMD_SSE)
/// Even and odd bytes widened to 16 bits: what SSE2 has to multiply with.
TERN_INLINE __m128i even_u8(__m128i a) { return _mm_and_si128(a, _mm_set1_epi16(0xff)); }
TERN_INLINE __m128i odd_u8(__m128i a) { return _mm_srli_epi16(a, 8); }
TERN_INLINE __m128i even_s8(__m128i a) { return _mm_srai_epi16(_mm_slli_epi16(a, 8), 8); }
TERN_INLINE __m128i odd_s8(__m128i a) { return _mm_srai_epi16(a, 8); }
TERN_INLINE __m128i dot16(__m128i acc, __m128i a0, __m128i b0, __m128i a1, __m128i b1) {
  return _mm_add_epi32(acc, _mm_add_epi32(_mm_madd_epi16(a0, b0), _mm_madd_epi16(a1, b1)));
}
#elif defined(TERN_SIMD_NEON)
/// Sums of 4 neighbors of 16 products.
TERN_INLINE int32x4_t sum4(int16x8_t low, int16x8_t high) { return vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)); }
#endif

#if defined(TERN_SIMD_AVX512) && defined(__AVX512VNNI__)
#define TERN_SIMD_VNNI 1
TERN_INLINE __m512i vnni(__m512i acc, __m512i a, __m512i b) { return _mm512_dpbusd_epi32(acc, a, b); }
#elif defined(TERN_SIMD_AVX2) && defined(__AVXVNNI__)
#define TERN_SIMD_VNNI 1
TERN_INLINE __m256i vnni(__m256i acc, __m256i a, __m256i b) { return _mm256_dpbusd_avx_epi32(acc, a, b); }
#endif
}  // namespace detail

TERN_INLINE pack<std::int32_t> dot(pack<std::int32_t> acc, pack<std::uint8_t> a, pack<std::int8_t> b) {
#if defined(TERN_SIMD_EMULATED)
  for (index i = 0; i < b.size; ++i) {
    auto const product = static_cast<std::uint32_t>(std::int32_t{a.v.lane[i]} * std::int32_t{b.v.lane[i]});
    acc.v[i / 4] = static_cast<std::int32_t>(static_cast<std::uint32_t>(acc.v[i / 4]) + product);
  }
  return acc;
#elif defined(TERN_SIMD_VNNI)
  return pack<std::int32_t>(detail::vnni(detail::native(acc), a.v, b.v));
#elif defined(TERN_SIMD_NEON) && defined(__ARM_FEATURE_MATMUL_INT8)
  return pack<std::int32_t>(vusdotq_s32(acc.v, a.v, b.v));
#elif defined(TERN_SIMD_NEON) && defined(__ARM_FEATURE_DOTPROD)
  // a - 128 is signed; what that takes away is put back by subtracting -128 b.
  int8x16_t const signed_a = vreinterpretq_s8_u8(veorq_u8(a.v, vdupq_n_u8(0x80)));
  int32x4_t const taken = vdotq_s32(vdupq_n_s32(0), vdupq_n_s8(-128), b.v);
  return pack<std::int32_t>(vsubq_s32(vdotq_s32(detail::native(acc), signed_a, b.v), taken));
#elif defined(TERN_SIMD_NEON)
  // 255 * 128 fits 16 bits.
  int16x8_t const low = vmulq_s16(vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(a.v))), vmovl_s8(vget_low_s8(b.v)));
  int16x8_t const high = vmulq_s16(vreinterpretq_s16_u16(vmovl_high_u8(a.v)), vmovl_high_s8(b.v));
  return pack<std::int32_t>(vaddq_s32(detail::native(acc), detail::sum4(low, high)));
#elif defined(TERN_SIMD_SSE) && !defined(__SSSE3__)
  return pack<std::int32_t>(
      detail::dot16(detail::native(acc), detail::even_u8(a.v), detail::even_s8(b.v), detail::odd_u8(a.v), detail::odd_s8(b.v)));
#else
  // maddubs saturates at 16 bits; the low 7 bits of a and its top bit separately stay within: 2 * 127 * 128, 2 * 128 * -128.
  detail::bytes const low = detail::pairs_u8s8((a & pack<std::uint8_t>(0x7f)).v, b.v);
  detail::bytes const top = detail::pairs_u8s8((a & pack<std::uint8_t>(0x80)).v, b.v);
  detail::bytes const sum = detail::add32(detail::pairs_i16(low, 1), detail::pairs_i16(top, 1));
  return pack<std::int32_t>(detail::add32(detail::native(acc), sum));
#endif
}

TERN_INLINE pack<std::int32_t> dot(pack<std::int32_t> acc, pack<std::int8_t> a, pack<std::int8_t> b) {
#if defined(TERN_SIMD_EMULATED)
  for (index i = 0; i < b.size; ++i) {
    auto const product = static_cast<std::uint32_t>(std::int32_t{a.v.lane[i]} * std::int32_t{b.v.lane[i]});
    acc.v[i / 4] = static_cast<std::int32_t>(static_cast<std::uint32_t>(acc.v[i / 4]) + product);
  }
  return acc;
#elif defined(TERN_SIMD_VNNI)
  // a + 128 is unsigned; what that adds, 128 b, is subtracted.
  pack<std::uint8_t> const top(0x80);
  auto const added = detail::vnni(detail::native(pack<std::int32_t>(0)), top.v, b.v);
  return pack<std::int32_t>(detail::vnni(detail::native(acc), a.v ^ top.v, b.v)) - pack<std::int32_t>(added);
#elif defined(TERN_SIMD_NEON) && defined(__ARM_FEATURE_DOTPROD)
  return pack<std::int32_t>(vdotq_s32(detail::native(acc), a.v, b.v));
#elif defined(TERN_SIMD_NEON)
  int32x4_t const sum = detail::sum4(vmull_s8(vget_low_s8(a.v), vget_low_s8(b.v)), vmull_high_s8(a.v, b.v));
  return pack<std::int32_t>(vaddq_s32(detail::native(acc), sum));
#elif defined(TERN_SIMD_SSE) && !defined(__SSSE3__)
  return pack<std::int32_t>(
      detail::dot16(detail::native(acc), detail::even_s8(a.v), detail::even_s8(b.v), detail::odd_s8(a.v), detail::odd_s8(b.v)));
#else
  // a = (a & 127) - (a & 128). Two products a b reach from -32512 to 32768, so their negative is what fits 16 bits.
  pack<std::int8_t> const top(static_cast<std::int8_t>(-128));
  detail::bytes const low = detail::pairs_u8s8((a & pack<std::int8_t>(0x7f)).v, b.v);
  detail::bytes const negative = detail::sub16(detail::pairs_u8s8((a & top).v, b.v), low);
  return pack<std::int32_t>(detail::add32(detail::native(acc), detail::pairs_i16(negative, -1)));
#endif
}

#if !defined(TERN_SIMD_NEON) && (defined(TERN_SIMD_VNNI) || defined(TERN_SIMD_EMULATED) || !defined(__SSSE3__))
/// Whether dot7 is dot, and so takes all bytes.
inline constexpr bool dot7_takes_bytes = true;
TERN_INLINE pack<std::int32_t> dot7(pack<std::int32_t> acc, pack<std::uint8_t> a, pack<std::int8_t> b) { return dot(acc, a, b); }
#else
inline constexpr bool dot7_takes_bytes = false;
TERN_INLINE pack<std::int32_t> dot7(pack<std::int32_t> acc, pack<std::uint8_t> a, pack<std::int8_t> b) {
#if defined(TERN_SIMD_NEON)
  return dot(acc, bit_cast<std::int8_t>(a), b);
#else
  return pack<std::int32_t>(detail::add32(detail::native(acc), detail::pairs_i16(detail::pairs_u8s8(a.v, b.v), 1)));
#endif
}
#endif

/// Signed bytes that meet many others, which lie in [-127, 127]: what their products take of them, made once.
struct signed_factor {
  pack<std::int8_t> value;
#if defined(TERN_SIMD_AVX2) || (defined(TERN_SIMD_SSE) && defined(__SSSE3__))
  pack<std::uint8_t> magnitude;
#endif
  TERN_INLINE explicit signed_factor(pack<std::int8_t> a)
      : value(a)
#if defined(TERN_SIMD_AVX2)
        ,
        magnitude(_mm256_abs_epi8(a.v))
#elif defined(TERN_SIMD_SSE) && defined(__SSSE3__)
        ,
        magnitude(_mm_abs_epi8(a.v))
#endif
  {
  }
};
TERN_INLINE pack<std::int32_t> dot127(pack<std::int32_t> acc, signed_factor const& a, pack<std::int8_t> b) {
#if defined(TERN_SIMD_AVX2)
  return dot7(acc, a.magnitude, pack<std::int8_t>(_mm256_sign_epi8(b.v, a.value.v)));
#elif defined(TERN_SIMD_SSE) && defined(__SSSE3__)
  return dot7(acc, a.magnitude, pack<std::int8_t>(_mm_sign_epi8(b.v, a.value.v)));
#else
  return dot(acc, a.value, b);
#endif
}

TERN_INLINE pack<std::int32_t> dot127(pack<std::int32_t> acc, pack<std::int8_t> a, pack<std::int8_t> b) {
  return dot127(acc, signed_factor(a), b);
}

TERN_INLINE pack<float> dot(pack<float> acc, pack<bf16> a, pack<bf16> b) {
#if defined(TERN_SIMD_AVX512) && defined(__AVX512BF16__)
  return pack<float>(_mm512_dpbf16_ps(acc.v, reinterpret_cast<__m512bh>(a.v), reinterpret_cast<__m512bh>(b.v)));
#else
  return fma(even(a), even(b), fma(odd(a), odd(b), acc));
#endif
}

}  // namespace simd
}  // namespace TERN_ABI
}  // namespace tern

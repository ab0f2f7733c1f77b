// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file simd/convert.hpp
/// f16 and bf16 in memory, f32 in registers: the same bits as core/float16.hpp gives, on every architecture. Bytes in memory,
/// int32 in registers.

#include <tern/core/float16.hpp>
#include <tern/simd/pack.hpp>

namespace tern {
inline namespace TERN_ABI {
namespace simd {

namespace detail {
/// Lanes through the scalar conversions.
template <class Storage>
TERN_INLINE pack<float> widen(Storage const* p) {
  float lane[lanes];
  for (index i = 0; i < lanes; ++i) lane[i] = static_cast<float>(p[i]);
  return load(lane);
}
template <class Storage>
TERN_INLINE void narrow(Storage* p, pack<float> x) {
  float lane[lanes];
  store(lane, x);
  for (index i = 0; i < lanes; ++i) p[i] = Storage(lane[i]);
}
}  // namespace detail

TERN_INLINE pack<float> load(f16 const* p) {
#if defined(TERN_SIMD_AVX512)
  return pack<float>(_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<__m256i const*>(p))));
#elif defined(TERN_SIMD_AVX2)
  return pack<float>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<__m128i const*>(p))));
#elif defined(TERN_SIMD_NEON)
  return pack<float>(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<std::uint16_t const*>(p)))));
#else
  return detail::widen(p);
#endif
}
TERN_INLINE void store(f16* p, pack<float> x) {
#if defined(TERN_SIMD_AVX512)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_maskz_cvtps_ph(0xffff, x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(TERN_SIMD_AVX2)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(TERN_SIMD_NEON)
  vst1_u16(reinterpret_cast<std::uint16_t*>(p), vreinterpret_u16_f16(vcvt_f16_f32(x.v)));
#else
  detail::narrow(p, x);
#endif
}

TERN_INLINE pack<float> load(bf16 const* p) {
#if defined(TERN_SIMD_AVX512)
  __m256i const half = _mm256_loadu_si256(reinterpret_cast<__m256i const*>(p));
  return pack<float>(_mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, half), 16)));
#elif defined(TERN_SIMD_AVX2)
  __m128i const half = _mm_loadu_si128(reinterpret_cast<__m128i const*>(p));
  return pack<float>(_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16)));
#elif defined(TERN_SIMD_SSE)
  __m128i const half = _mm_loadl_epi64(reinterpret_cast<__m128i const*>(p));
  return pack<float>(_mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(), half)));
#elif defined(TERN_SIMD_NEON)
  return pack<float>(vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(reinterpret_cast<std::uint16_t const*>(p)), 16)));
#else
  return detail::widen(p);
#endif
}
/// Rounds to nearest, ties to even, with integer arithmetic: the machine's own instruction flushes subnormals to zero.
TERN_INLINE void store(bf16* p, pack<float> x) {
#if defined(TERN_SIMD_AVX512)
  __m512i const bits = _mm512_castps_si512(x.v);
  __m512i const odd = _mm512_and_si512(_mm512_maskz_srli_epi32(0xffff, bits, 16), _mm512_set1_epi32(1));
  __m512i const rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  __m512i const quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  __m512i const chosen = _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(x.v, x.v, _CMP_UNORD_Q), quiet);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_maskz_cvtepi32_epi16(0xffff, _mm512_maskz_srli_epi32(0xffff, chosen, 16)));
#elif defined(TERN_SIMD_AVX2)
  __m256i const bits = _mm256_castps_si256(x.v);
  __m256i const odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  __m256i const rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  __m256i const quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  __m256i const nan = _mm256_castps_si256(_mm256_cmp_ps(x.v, x.v, _CMP_UNORD_Q));
  __m256i const chosen = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_packus_epi32(_mm256_castsi256_si128(chosen), _mm256_extracti128_si256(chosen, 1)));
#elif defined(TERN_SIMD_NEON)
  uint32x4_t const bits = vreinterpretq_u32_f32(x.v);
  uint32x4_t const odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  uint32x4_t const rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
  uint32x4_t const quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
  uint32x4_t const chosen = vbslq_u32(vceqq_f32(x.v, x.v), rounded, quiet);
  vst1_u16(reinterpret_cast<std::uint16_t*>(p), vshrn_n_u32(chosen, 16));
#elif defined(TERN_SIMD_SSE)
  __m128i const bits = _mm_castps_si128(x.v);
  __m128i const odd = _mm_and_si128(_mm_srli_epi32(bits, 16), _mm_set1_epi32(1));
  __m128i const rounded = _mm_add_epi32(bits, _mm_add_epi32(odd, _mm_set1_epi32(0x7fff)));
  __m128i const quiet = _mm_or_si128(bits, _mm_set1_epi32(0x400000));
  __m128i const nan = _mm_castps_si128(_mm_cmpunord_ps(x.v, x.v));
  __m128i const chosen = _mm_or_si128(_mm_and_si128(nan, quiet), _mm_andnot_si128(nan, rounded));
  __m128i const narrow = _mm_srai_epi32(chosen, 16);  // signed, so that packs keeps all 16 bits
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi32(narrow, narrow));
#else
  detail::narrow(p, x);
#endif
}

/// *p in every lane.
TERN_INLINE pack<float> splat(f16 const* p) {
#if defined(TERN_SIMD_AVX512)
  return pack<float>(_mm512_maskz_cvtph_ps(0xffff, _mm256_set1_epi16(static_cast<short>(p->bits))));
#elif defined(TERN_SIMD_AVX2)
  return pack<float>(_mm256_cvtph_ps(_mm_set1_epi16(static_cast<short>(p->bits))));
#elif defined(TERN_SIMD_NEON)
  return pack<float>(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(p->bits))));
#else
  return pack<float>(static_cast<float>(*p));
#endif
}

namespace detail {
TERN_INLINE std::int32_t four_bytes(void const* p) {
  std::int32_t word;
  __builtin_memcpy(&word, p, sizeof(word));
  return word;
}
}  // namespace detail
/// `lanes` bytes, widened.
TERN_INLINE pack<std::int32_t> load_widened(std::int8_t const* p) {
#if defined(TERN_SIMD_AVX512)
  return pack<std::int32_t>(_mm512_maskz_cvtepi8_epi32(0xffff, _mm_loadu_si128(reinterpret_cast<__m128i const*>(p))));
#elif defined(TERN_SIMD_AVX2)
  return pack<std::int32_t>(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<__m128i const*>(p))));
#elif defined(TERN_SIMD_SSE) && defined(__SSE4_1__)
  return pack<std::int32_t>(_mm_cvtepi8_epi32(_mm_cvtsi32_si128(detail::four_bytes(p))));
#elif defined(TERN_SIMD_NEON)
  return pack<std::int32_t>(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(detail::four_bytes(p)))))));
#else
  std::int32_t lane[lanes];
  for (index i = 0; i < lanes; ++i) lane[i] = p[i];
  return load(static_cast<std::int32_t const*>(lane));
#endif
}
TERN_INLINE pack<std::int32_t> load_widened(std::uint8_t const* p) {
#if defined(TERN_SIMD_AVX512)
  return pack<std::int32_t>(_mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128(reinterpret_cast<__m128i const*>(p))));
#elif defined(TERN_SIMD_AVX2)
  return pack<std::int32_t>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<__m128i const*>(p))));
#elif defined(TERN_SIMD_SSE) && defined(__SSE4_1__)
  return pack<std::int32_t>(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(detail::four_bytes(p))));
#elif defined(TERN_SIMD_NEON)
  return pack<std::int32_t>(
      vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_s32(vdup_n_s32(detail::four_bytes(p))))))));
#else
  std::int32_t lane[lanes];
  for (index i = 0; i < lanes; ++i) lane[i] = p[i];
  return load(static_cast<std::int32_t const*>(lane));
#endif
}

/// 64-bit words that hold `lanes` bytes.
inline constexpr index words_of_bytes = lanes < 8 ? 1 : lanes / 8;
/// The first `lanes` bytes of words, widened; element 0 is the lowest byte of the first. The words need not pass through memory.
TERN_INLINE pack<std::int32_t> widen_bytes(std::uint64_t const (&word)[words_of_bytes]) {
#if defined(TERN_SIMD_AVX512)
  __m128i const bytes = _mm_set_epi64x(static_cast<long long>(word[1]), static_cast<long long>(word[0]));
  return pack<std::int32_t>(_mm512_maskz_cvtepu8_epi32(0xffff, bytes));
#else
  std::uint8_t bytes[sizeof(word)];
  __builtin_memcpy(bytes, word, sizeof(word));
  return load_widened(static_cast<std::uint8_t const*>(bytes));
#endif
}

/// The first n elements (0 <= n <= lanes) of f16 or bf16; the other lanes are zero.
template <class T>
  requires(std::is_same_v<T, f16> || std::is_same_v<T, bf16>)
TERN_INLINE pack<float> load_n(T const* p, index n) {
#if defined(TERN_SIMD_AVX512)
  __m256i const half = _mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << n) - 1), p);
  if constexpr (std::is_same_v<T, f16>)
    return pack<float>(_mm512_maskz_cvtph_ps(0xffff, half));
  else
    return pack<float>(_mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, half), 16)));
#else
  T lane[lanes] = {};
  for (index i = 0; i < n; ++i) lane[i] = p[i];
  return load(static_cast<T const*>(lane));
#endif
}
template <class T>
  requires(std::is_same_v<T, f16> || std::is_same_v<T, bf16>)
TERN_INLINE void store_n(T* p, pack<float> x, index n) {
  T lane[lanes];
  store(lane, x);
  for (index i = 0; i < n; ++i) p[i] = lane[i];
}

}  // namespace simd
}  // namespace TERN_ABI
}  // namespace tern

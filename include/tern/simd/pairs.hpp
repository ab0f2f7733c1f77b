// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file simd/pairs.hpp
/// Neighboring lanes as pairs: what rotating (x[2i], x[2i+1]) takes.

#include <tern/simd/pack.hpp>

namespace tern {
inline namespace TERN_ABI {
namespace simd {

/// a1, a0, a3, a2, ...
TERN_INLINE pack<float> swap_pairs(pack<float> a) {
#if defined(TERN_SIMD_AVX512)
  return pack<float>(_mm512_maskz_permute_ps(0xffff, a.v, 0xb1));
#elif defined(TERN_SIMD_AVX2)
  return pack<float>(_mm256_permute_ps(a.v, 0xb1));
#elif defined(TERN_SIMD_SSE)
  return pack<float>(_mm_shuffle_ps(a.v, a.v, 0xb1));
#elif defined(TERN_SIMD_NEON)
  return pack<float>(vrev64q_f32(a.v));
#else
  static_assert(lanes % 2 == 0);
  return lanewise<float>([&](index i) { return a.v[i ^ 1]; });
#endif
}

/// p0, p0, p1, p1, ...: reads lanes / 2 elements.
TERN_INLINE pack<float> load_twice(float const* p) {
#if defined(TERN_SIMD_AVX512)
  __m512i const twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  return pack<float>(_mm512_maskz_permutexvar_ps(0xffff, twice, _mm512_castps256_ps512(_mm256_loadu_ps(p))));
#elif defined(TERN_SIMD_AVX2)
  __m256i const twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
  return pack<float>(_mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), twice));
#elif defined(TERN_SIMD_SSE)
  __m128 const two = _mm_castsi128_ps(_mm_loadl_epi64(reinterpret_cast<__m128i const*>(p)));
  return pack<float>(_mm_unpacklo_ps(two, two));
#elif defined(TERN_SIMD_NEON)
  float32x2_t const two = vld1_f32(p);
  return pack<float>(vcombine_f32(vzip1_f32(two, two), vzip2_f32(two, two)));
#else
  return lanewise<float>([&](index i) { return p[i / 2]; });
#endif
}

/// a0, b0, a1, b1, ...: writes 2 lanes elements.
TERN_INLINE void store_interleaved(float* p, pack<float> a, pack<float> b) {
#if defined(TERN_SIMD_AVX512)
  __m512i const low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  __m512i const high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  _mm512_storeu_ps(p, _mm512_permutex2var_ps(a.v, low, b.v));
  _mm512_storeu_ps(p + 16, _mm512_permutex2var_ps(a.v, high, b.v));
#elif defined(TERN_SIMD_AVX2)
  __m256 const low = _mm256_unpacklo_ps(a.v, b.v), high = _mm256_unpackhi_ps(a.v, b.v);
  _mm256_storeu_ps(p, _mm256_permute2f128_ps(low, high, 0x20));
  _mm256_storeu_ps(p + 8, _mm256_permute2f128_ps(low, high, 0x31));
#elif defined(TERN_SIMD_SSE)
  _mm_storeu_ps(p, _mm_unpacklo_ps(a.v, b.v));
  _mm_storeu_ps(p + 4, _mm_unpackhi_ps(a.v, b.v));
#elif defined(TERN_SIMD_NEON)
  vst1q_f32(p, vzip1q_f32(a.v, b.v));
  vst1q_f32(p + 4, vzip2q_f32(a.v, b.v));
#else
  for (index i = 0; i < lanes; ++i) {
    p[2 * i] = a.v[i];
    p[2 * i + 1] = b.v[i];
  }
#endif
}

/// -x, x, -x, x, ...
TERN_INLINE pack<float> alternating(float x) {
  float lane[lanes];
  for (index i = 0; i < lanes; ++i) lane[i] = i % 2 == 0 ? -x : x;
  return load(static_cast<float const*>(lane));
}

}  // namespace simd
}  // namespace TERN_ABI
}  // namespace tern

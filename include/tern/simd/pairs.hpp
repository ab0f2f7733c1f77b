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

/// a, b become a0, b0, a1, b1, ... and what follows.
TERN_INLINE void zip(pack<float>& a, pack<float>& b) {
#if defined(TERN_SIMD_AVX512)
  __m512i const low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  __m512i const high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  __m512 const first = _mm512_permutex2var_ps(a.v, low, b.v);
  b = pack<float>(_mm512_permutex2var_ps(a.v, high, b.v));
  a = pack<float>(first);
#elif defined(TERN_SIMD_AVX2)
  __m256 const low = _mm256_unpacklo_ps(a.v, b.v), high = _mm256_unpackhi_ps(a.v, b.v);
  a = pack<float>(_mm256_permute2f128_ps(low, high, 0x20));
  b = pack<float>(_mm256_permute2f128_ps(low, high, 0x31));
#elif defined(TERN_SIMD_SSE)
  __m128 const low = _mm_unpacklo_ps(a.v, b.v);
  b = pack<float>(_mm_unpackhi_ps(a.v, b.v));
  a = pack<float>(low);
#elif defined(TERN_SIMD_NEON)
  float32x4_t const low = vzip1q_f32(a.v, b.v);
  b = pack<float>(vzip2q_f32(a.v, b.v));
  a = pack<float>(low);
#else
  pack<float> const x = a, y = b;
  for (index i = 0; i < 2 * lanes; ++i) (i < lanes ? a : b).v[i % lanes] = (i % 2 == 0 ? x : y).v[i / 2];
#endif
}
/// What zip was given: a0, a2, ..., b0, b2, ... and a1, a3, ..., b1, b3, ...
TERN_INLINE void unzip(pack<float>& a, pack<float>& b) {
#if defined(TERN_SIMD_AVX512)
  __m512i const even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  __m512i const odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  __m512 const first = _mm512_permutex2var_ps(a.v, even, b.v);
  b = pack<float>(_mm512_permutex2var_ps(a.v, odd, b.v));
  a = pack<float>(first);
#elif defined(TERN_SIMD_AVX2)
  __m256 const low = _mm256_permute2f128_ps(a.v, b.v, 0x20), high = _mm256_permute2f128_ps(a.v, b.v, 0x31);
  a = pack<float>(_mm256_shuffle_ps(low, high, 0x88));
  b = pack<float>(_mm256_shuffle_ps(low, high, 0xdd));
#elif defined(TERN_SIMD_SSE)
  __m128 const even = _mm_shuffle_ps(a.v, b.v, 0x88);
  b = pack<float>(_mm_shuffle_ps(a.v, b.v, 0xdd));
  a = pack<float>(even);
#elif defined(TERN_SIMD_NEON)
  float32x4_t const even = vuzp1q_f32(a.v, b.v);
  b = pack<float>(vuzp2q_f32(a.v, b.v));
  a = pack<float>(even);
#else
  pack<float> const x = a, y = b;
  for (index i = 0; i < 2 * lanes; ++i) (i % 2 == 0 ? a : b).v[i / 2] = (i < lanes ? x : y).v[i % lanes];
#endif
}
/// a0, b0, a1, b1, ...: writes 2 lanes elements.
TERN_INLINE void store_interleaved(float* p, pack<float> a, pack<float> b) {
  zip(a, b);
  store(p, a);
  store(p + lanes, b);
}
/// a, b = p0, p2, p4, ... and p1, p3, p5, ...: reads 2 lanes elements.
TERN_INLINE void load_interleaved(float const* p, pack<float>& a, pack<float>& b) {
  a = load(p);
  b = load(p + lanes);
  unzip(a, b);
}
/// The same with n pairs, 0 < n < lanes.
TERN_INLINE void store_interleaved_n(float* p, pack<float> a, pack<float> b, index n) {
  zip(a, b);
  if (2 * n < lanes) return store_n(p, a, 2 * n);
  store(p, a);
  store_n(p + lanes, b, 2 * n - lanes);
}
/// Missing lanes read as zero.
TERN_INLINE void load_interleaved_n(float const* p, pack<float>& a, pack<float>& b, index n) {
  bool const few = 2 * n < lanes;
  a = few ? load_n(p, 2 * n) : load(p);
  b = few ? pack<float>(0.f) : load_n(p + lanes, 2 * n - lanes);
  unzip(a, b);
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

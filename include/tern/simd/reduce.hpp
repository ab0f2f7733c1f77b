// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file simd/reduce.hpp
/// Across lanes: any and all of a mask, sums and maxima of a pack.

#include <tern/simd/register.hpp>

namespace tern {
inline namespace TERN_ABI {
namespace simd {

template <class T>
TERN_INLINE bool any(mask<T> m) {
#if defined(TERN_SIMD_EMULATED)
  bool r = false;
  for (index i = 0; i < m.size; ++i) r |= m.v[i];
  return r;
#else
  return xsimd::any(m.v);
#endif
}
template <class T>
TERN_INLINE bool all(mask<T> m) {
#if defined(TERN_SIMD_EMULATED)
  bool r = true;
  for (index i = 0; i < m.size; ++i) r &= m.v[i];
  return r;
#else
  return xsimd::all(m.v);
#endif
}

/// f over all lanes, halving: the order is fixed by the lane count.
template <class T, class F>
TERN_INLINE T reduce(pack<T> a, F f) {
  T lane[pack<T>::size];
  store(lane, a);
  for (index half = pack<T>::size / 2; half > 0; half /= 2)
    for (index i = 0; i < half; ++i) lane[i] = f(lane[i], lane[i + half]);
  return lane[0];
}
TERN_INLINE float reduce_add(pack<float> a) {
#if defined(TERN_SIMD_AVX512) || defined(TERN_SIMD_AVX2)
#if defined(TERN_SIMD_AVX512)
  __m256 const half = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
#else
  __m256 const half = a.v;
#endif
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
#else
  return reduce(a, [](float x, float y) { return x + y; });
#endif
}
TERN_INLINE std::int32_t reduce_add(pack<std::int32_t> a) {
#if defined(TERN_SIMD_AVX512)
  return _mm512_reduce_add_epi32(a.v);
#else
  return reduce(a, [](std::int32_t x, std::int32_t y) { return x + y; });
#endif
}
/// The largest lane; unspecified if a lane is NaN.
TERN_INLINE float reduce_max(pack<float> a) {
#if defined(TERN_SIMD_AVX512) || defined(TERN_SIMD_AVX2)
#if defined(TERN_SIMD_AVX512)
  __m256 const half = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
#else
  __m256 const half = a.v;
#endif
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
#else
  return reduce(a, [](float x, float y) { return x > y ? x : y; });
#endif
}
/// The smallest lane; unspecified if a lane is NaN.
TERN_INLINE float reduce_min(pack<float> a) {
#if defined(TERN_SIMD_AVX512) || defined(TERN_SIMD_AVX2)
#if defined(TERN_SIMD_AVX512)
  __m256 const half = _mm256_min_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
#else
  __m256 const half = a.v;
#endif
  __m128 x = _mm_min_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  x = _mm_min_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_min_ss(x, _mm_movehdup_ps(x)));
#else
  return reduce(a, [](float x, float y) { return x < y ? x : y; });
#endif
}

/// sums[i] = the sum of a[i]. How one is summed does not depend on the others.
template <int n>
TERN_INLINE void reduce_add_each(pack<float> const (&a)[n], float* sums) {
  for (int i = 0; i < n; ++i) sums[i] = reduce_add(a[i]);
}

}  // namespace simd
}  // namespace TERN_ABI
}  // namespace tern

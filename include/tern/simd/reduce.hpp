// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file simd/reduce.hpp
/// Across lanes: any and all of a mask, sums and maxima of a pack.

#include <tern/simd/register.hpp>

namespace tern {
inline namespace TERN_ABI {
namespace simd {

/// Whether a lane is set.
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
/// Whether all lanes are set.
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
#if defined(TERN_SIMD_AVX512)
namespace detail {
struct word_sum {
  TERN_INLINE __m256i operator()(__m256i a, __m256i b) const { return _mm256_add_epi32(a, b); }
  TERN_INLINE __m128i operator()(__m128i a, __m128i b) const { return _mm_add_epi32(a, b); }
};
struct word_bits {
  TERN_INLINE __m256i operator()(__m256i a, __m256i b) const { return _mm256_or_si256(a, b); }
  TERN_INLINE __m128i operator()(__m128i a, __m128i b) const { return _mm_or_si128(a, b); }
};
struct larger_word {
  TERN_INLINE __m256i operator()(__m256i a, __m256i b) const { return _mm256_max_epi32(a, b); }
  TERN_INLINE __m128i operator()(__m128i a, __m128i b) const { return _mm_max_epi32(a, b); }
};
/// f of all words, halving.
template <class F>
TERN_INLINE std::int32_t reduce_words(__m512i a, F f) {
  __m256i const half = f(_mm512_castsi512_si256(a), _mm512_maskz_extracti32x8_epi32(0xff, a, 1));
  __m128i x = f(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  x = f(x, _mm_shuffle_epi32(x, 0x4e));
  return _mm_cvtsi128_si32(f(x, _mm_shuffle_epi32(x, 0xb1)));
}
}  // namespace detail
#endif
/// The sum of all lanes, halving.
TERN_INLINE float reduce_add(pack<float> a) {
#if defined(TERN_SIMD_AVX512) || defined(TERN_SIMD_AVX2)
#if defined(TERN_SIMD_AVX512)
  __m256 const half = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_maskz_extractf32x8_ps(0xff, a.v, 1));
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
  return detail::reduce_words(a.v, detail::word_sum{});
#else
  return reduce(a, [](std::int32_t x, std::int32_t y) {
    return static_cast<std::int32_t>(static_cast<std::uint32_t>(x) + static_cast<std::uint32_t>(y));  // wraps, as registers do
  });
#endif
}
/// The bits that a lane has.
TERN_INLINE std::int32_t reduce_or(pack<std::int32_t> a) {
#if defined(TERN_SIMD_AVX512)
  return detail::reduce_words(a.v, detail::word_bits{});
#else
  return reduce(a, [](std::int32_t x, std::int32_t y) { return x | y; });
#endif
}
/// The largest lane; unspecified if a lane is NaN.
TERN_INLINE float reduce_max(pack<float> a) {
#if defined(TERN_SIMD_AVX512) || defined(TERN_SIMD_AVX2)
#if defined(TERN_SIMD_AVX512)
  __m256 const half = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_maskz_extractf32x8_ps(0xff, a.v, 1));
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
TERN_INLINE std::int32_t reduce_max(pack<std::int32_t> a) {
#if defined(TERN_SIMD_AVX512)
  return detail::reduce_words(a.v, detail::larger_word{});
#else
  return reduce(a, [](std::int32_t x, std::int32_t y) { return x > y ? x : y; });
#endif
}
/// The smallest lane; unspecified if a lane is NaN.
TERN_INLINE float reduce_min(pack<float> a) {
#if defined(TERN_SIMD_AVX512) || defined(TERN_SIMD_AVX2)
#if defined(TERN_SIMD_AVX512)
  __m256 const half = _mm256_min_ps(_mm512_castps512_ps256(a.v), _mm512_maskz_extractf32x8_ps(0xff, a.v, 1));
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

namespace detail {
#if defined(TERN_SIMD_AVX512)
struct plus {
  TERN_INLINE __m512 operator()(__m512 a, __m512 b) const { return _mm512_add_ps(a, b); }
};
struct larger {
  TERN_INLINE __m512 operator()(__m512 a, __m512 b) const { return _mm512_max_ps(a, b); }
};
/// Each 128 bits are f of four lanes each, of a[0], ... a[3].
template <class F>
TERN_INLINE __m512 join_quarters(pack<float> const* a, F f) {
  __m512 const x = a[0].v, y = a[1].v, z = a[2].v, w = a[3].v;
  __m512d const xy = _mm512_castps_pd(f(_mm512_maskz_unpacklo_ps(0xffff, x, y), _mm512_maskz_unpackhi_ps(0xffff, x, y)));
  __m512d const zw = _mm512_castps_pd(f(_mm512_maskz_unpacklo_ps(0xffff, z, w), _mm512_maskz_unpackhi_ps(0xffff, z, w)));
  return f(_mm512_castpd_ps(_mm512_maskz_unpacklo_pd(0xff, xy, zw)), _mm512_castpd_ps(_mm512_maskz_unpackhi_pd(0xff, xy, zw)));
}
/// f of neighboring 128 bits of x, then of y.
template <class F>
TERN_INLINE __m512 join_halves(__m512 x, __m512 y, F f) {
  return f(_mm512_maskz_shuffle_f32x4(0xffff, x, y, 0x88), _mm512_maskz_shuffle_f32x4(0xffff, x, y, 0xdd));
}
/// Lane i is f of the lanes of a[i], for n <= 4.
template <int n, class F>
TERN_INLINE pack<float> join_few(pack<float> const (&a)[n], F f) {
  pack<float> some[4];
  TERN_UNROLL
  for (index i = 0; i < 4; ++i) some[i] = a[i < n ? i : 0];
  __m512 const quarter = join_quarters(some, f), half = join_halves(quarter, quarter, f);
  return pack<float>(f(half, _mm512_maskz_shuffle_f32x4(0xffff, half, half, 0x55)));
}
/// Lane i is f of the lanes of a[i].
template <class F>
TERN_INLINE pack<float> join_lanes(pack<float> const (&a)[lanes], F f) {
  __m512 quarter[4];
  TERN_UNROLL
  for (index g = 0; g < 4; ++g) quarter[g] = join_quarters(a + 4 * g, f);
  return pack<float>(join_halves(join_halves(quarter[0], quarter[1], f), join_halves(quarter[2], quarter[3], f), f));
}
#endif
/// Lane i is the sum of a[i]: halving `lanes` registers together takes a third of the shuffles of halving each.
TERN_INLINE pack<float> sum_each(pack<float> const (&a)[lanes]) {
#if defined(TERN_SIMD_AVX512)
  return join_lanes(a, plus{});
#elif defined(TERN_SIMD_AVX2)
  __m256 const low = _mm256_hadd_ps(_mm256_hadd_ps(a[0].v, a[1].v), _mm256_hadd_ps(a[2].v, a[3].v));
  __m256 const high = _mm256_hadd_ps(_mm256_hadd_ps(a[4].v, a[5].v), _mm256_hadd_ps(a[6].v, a[7].v));
  return pack<float>(_mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31)));
#elif defined(TERN_SIMD_SSE)
  __m128 const xy = _mm_add_ps(_mm_unpacklo_ps(a[0].v, a[1].v), _mm_unpackhi_ps(a[0].v, a[1].v));
  __m128 const zw = _mm_add_ps(_mm_unpacklo_ps(a[2].v, a[3].v), _mm_unpackhi_ps(a[2].v, a[3].v));
  return pack<float>(_mm_add_ps(_mm_movelh_ps(xy, zw), _mm_movehl_ps(zw, xy)));
#elif defined(TERN_SIMD_NEON)
  return pack<float>(vpaddq_f32(vpaddq_f32(a[0].v, a[1].v), vpaddq_f32(a[2].v, a[3].v)));
#else
  return lanewise<float>([&](index i) { return reduce_add(a[i]); });
#endif
}
}  // namespace detail

/// to[i] = the sum of a[i]. Whole packs are written: a multiple of `lanes` numbers, of which those behind n have no meaning.
template <int n>
TERN_INLINE void add_each(pack<float> const (&a)[n], float* to) {
#if defined(TERN_SIMD_AVX512)
  if constexpr (n <= 4) return store(to, detail::join_few(a, detail::plus{}));
#endif
  for (index g = 0; g < n; g += lanes) {
    pack<float> some[lanes];
    TERN_UNROLL
    for (index i = 0; i < lanes; ++i) some[i] = a[g + i < n ? g + i : 0];
    store(to + g, detail::sum_each(some));
  }
}
/// The same for the largest lane of each. Unspecified where one is NaN.
template <int n>
TERN_INLINE void max_each(pack<float> const (&a)[n], float* to) {
#if defined(TERN_SIMD_AVX512)
  if constexpr (n <= 4) return store(to, detail::join_few(a, detail::larger{}));
  if constexpr (n == lanes) return store(to, detail::join_lanes(a, detail::larger{}));
#endif
  for (index i = 0; i < n; ++i) to[i] = reduce_max(a[i]);
}

/// sums[i] = the sum of a[i], for any number of packs. How one is summed does not depend on the others.
template <int n>
TERN_INLINE void reduce_add_each(pack<float> const (&a)[n], float* sums) {
#if defined(TERN_SIMD_AVX512)
  if constexpr (n <= 4) {  // and no masked store, which what is loaded soon would have to wait for
    __m128 const sum = _mm512_castps512_ps128(detail::join_few(a, detail::plus{}).v);
    float lane[4];
    _mm_storeu_ps(static_cast<float*>(lane), sum);
    __builtin_memcpy(sums, lane, n * sizeof(float));
    return;
  }
#endif
  TERN_UNROLL
  for (index g = 0; g < n; g += lanes) {
    pack<float> some[lanes];
    TERN_UNROLL
    for (index i = 0; i < lanes; ++i) some[i] = g + i < n ? a[g + i < n ? g + i : 0] : pack<float>(0.f);
    pack<float> const sum = detail::sum_each(some);
    if (n - g >= lanes)
      store(sums + g, sum);
    else
      store_n(sums + g, sum, n % lanes);
  }
}

}  // namespace simd
}  // namespace TERN_ABI
}  // namespace tern

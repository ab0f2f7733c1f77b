// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file simd/pack.hpp
/// One register of lanes, `pack<T>` for T = float or int32, and the operations that every kernel is written in. Lane counts
/// follow the architecture; nothing may assume one. This file and its neighbors are the only ones that know xsimd or
/// intrinsics, and the only ones that know what differs between xsimd 8 and 14.
///
/// Loads and stores need no alignment. `load_n` and `store_n` touch exactly n elements, and missing lanes read as zero.

#include <tern/simd/arch.hpp>

#include <bit>
#include <cstdint>
#include <type_traits>

namespace tern {
inline namespace TERN_ABI {
namespace simd {

#if defined(TERN_SIMD_EMULATED)

template <class T>
struct mask {
  static constexpr index size = TERN_EMULATE_LANES;
  bool v[size];
};

template <class T>
struct pack {
  static constexpr index size = TERN_EMULATE_LANES;
  T v[size];
  pack() = default;
  TERN_INLINE pack(T x) {
    for (index i = 0; i < size; ++i) v[i] = x;
  }
};

template <class T, class F>
TERN_INLINE pack<T> lanewise(F f) {
  pack<T> r;
  for (index i = 0; i < pack<T>::size; ++i) r.v[i] = f(i);
  return r;
}
template <class T, class F>
TERN_INLINE mask<T> lanewise_mask(F f) {
  mask<T> r;
  for (index i = 0; i < mask<T>::size; ++i) r.v[i] = f(i);
  return r;
}

#else

template <class T>
struct mask {
  static constexpr index size = static_cast<index>(xsimd::batch<T, arch>::size);
  xsimd::batch_bool<T, arch> v;
};

template <class T>
struct pack {
  using batch = xsimd::batch<T, arch>;
  static constexpr index size = static_cast<index>(batch::size);
  batch v;
  pack() = default;
  TERN_INLINE pack(T x) : v(x) {}
  TERN_INLINE pack(batch const& b) : v(b) {}
};

#endif

/// Lanes of f32 in a register: the W of all blocking.
inline constexpr index lanes = pack<float>::size;

// ---- loads and stores ----------------------------------------------------------------------------------------------

template <class T>
  requires(std::is_same_v<T, float> || std::is_same_v<T, std::int32_t>)
TERN_INLINE pack<T> load(T const* p) {
#if defined(TERN_SIMD_EMULATED)
  return lanewise<T>([&](index i) { return p[i]; });
#else
  return pack<T>::batch::load_unaligned(p);
#endif
}
template <class T>
TERN_INLINE void store(T* p, pack<T> x) {
#if defined(TERN_SIMD_EMULATED)
  for (index i = 0; i < pack<T>::size; ++i) p[i] = x.v[i];
#else
  x.v.store_unaligned(p);
#endif
}

#if defined(TERN_SIMD_AVX2)
/// All bits set in the first n of 8 lanes.
TERN_INLINE __m256i first_lanes(index n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#elif defined(TERN_SIMD_AVX512)
TERN_INLINE __mmask16 first_lanes(index n) { return static_cast<__mmask16>((1u << n) - 1u); }
#endif

/// The first n elements (0 <= n <= size); the other lanes are zero.
template <class T>
  requires(std::is_same_v<T, float> || std::is_same_v<T, std::int32_t>)
TERN_INLINE pack<T> load_n(T const* p, index n) {
#if defined(TERN_SIMD_AVX512)
  if constexpr (std::is_same_v<T, float>)
    return pack<T>(_mm512_maskz_loadu_ps(first_lanes(n), p));
  else
    return pack<T>(_mm512_maskz_loadu_epi32(first_lanes(n), p));
#elif defined(TERN_SIMD_AVX2)
  if constexpr (std::is_same_v<T, float>)
    return pack<T>(_mm256_maskload_ps(p, first_lanes(n)));
  else
    return pack<T>(_mm256_maskload_epi32(p, first_lanes(n)));
#else
  T lane[pack<T>::size] = {};
  for (index i = 0; i < n; ++i) lane[i] = p[i];
  return load(lane);
#endif
}
/// Writes the first n lanes and nothing else.
template <class T>
TERN_INLINE void store_n(T* p, pack<T> x, index n) {
#if defined(TERN_SIMD_AVX512)
  if constexpr (std::is_same_v<T, float>)
    _mm512_mask_storeu_ps(p, first_lanes(n), x.v);
  else
    _mm512_mask_storeu_epi32(p, first_lanes(n), x.v);
#elif defined(TERN_SIMD_AVX2)
  if constexpr (std::is_same_v<T, float>)
    _mm256_maskstore_ps(p, first_lanes(n), x.v);
  else
    _mm256_maskstore_epi32(p, first_lanes(n), x.v);
#else
  T lane[pack<T>::size];
  store(lane, x);
  for (index i = 0; i < n; ++i) p[i] = lane[i];
#endif
}

/// 0, 1, 2, ...
template <class T>
TERN_INLINE pack<T> iota() {
  static constexpr std::int32_t count[] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                           16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
  static constexpr float countf[] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                     16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
  static_assert(pack<T>::size <= 32);
  if constexpr (std::is_same_v<T, float>)
    return load(countf);
  else
    return load(count);
}

// ---- arithmetic ------------------------------------------------------------------------------------------------------

#if defined(TERN_SIMD_EMULATED)
#define TERN_SIMD_BINARY(op)                                                       \
  template <class T>                                                               \
  TERN_INLINE pack<T> operator op(pack<T> a, pack<T> b) {                          \
    return lanewise<T>([&](index i) { return static_cast<T>(a.v[i] op b.v[i]); }); \
  }
#define TERN_SIMD_COMPARE(op)                                           \
  template <class T>                                                    \
  TERN_INLINE mask<T> operator op(pack<T> a, pack<T> b) {               \
    return lanewise_mask<T>([&](index i) { return a.v[i] op b.v[i]; }); \
  }
#define TERN_SIMD_LOGICAL(op)                                                           \
  template <class T>                                                                    \
  TERN_INLINE mask<T> operator op(mask<T> a, mask<T> b) {                               \
    return lanewise_mask<T>([&](index i) { return bool(int(a.v[i]) op int(b.v[i])); }); \
  }
#else
#define TERN_SIMD_BINARY(op)                              \
  template <class T>                                      \
  TERN_INLINE pack<T> operator op(pack<T> a, pack<T> b) { \
    return pack<T>(a.v op b.v);                           \
  }
#define TERN_SIMD_COMPARE(op)                             \
  template <class T>                                      \
  TERN_INLINE mask<T> operator op(pack<T> a, pack<T> b) { \
    return {a.v op b.v};                                  \
  }
#define TERN_SIMD_LOGICAL(op)                             \
  template <class T>                                      \
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
#undef TERN_SIMD_COMPARE
#undef TERN_SIMD_LOGICAL

TERN_INLINE pack<float> operator/(pack<float> a, pack<float> b) {
#if defined(TERN_SIMD_EMULATED)
  return lanewise<float>([&](index i) { return a.v[i] / b.v[i]; });
#else
  return pack<float>(a.v / b.v);
#endif
}
template <class T>
TERN_INLINE pack<T> operator-(pack<T> a) {
  return pack<T>(T{0}) - a;
}
template <class T>
TERN_INLINE pack<T>& operator+=(pack<T>& a, pack<T> b) {
  return a = a + b;
}
template <class T>
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
template <class T>
TERN_INLINE pack<T> min(pack<T> a, pack<T> b) {
#if defined(TERN_SIMD_EMULATED)
  return lanewise<T>([&](index i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
#elif defined(TERN_SIMD_NEON)
  return pack<T>(xsimd::select(a.v < b.v, a.v, b.v));
#else
  return pack<T>(xsimd::min(a.v, b.v));
#endif
}
/// The larger of a and b; if either is NaN, b.
template <class T>
TERN_INLINE pack<T> max(pack<T> a, pack<T> b) {
#if defined(TERN_SIMD_EMULATED)
  return lanewise<T>([&](index i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
#elif defined(TERN_SIMD_NEON)
  return pack<T>(xsimd::select(a.v > b.v, a.v, b.v));
#else
  return pack<T>(xsimd::max(a.v, b.v));
#endif
}
/// Lane by lane: m ? a : b.
template <class T>
TERN_INLINE pack<T> select(mask<T> m, pack<T> a, pack<T> b) {
#if defined(TERN_SIMD_EMULATED)
  return lanewise<T>([&](index i) { return m.v[i] ? a.v[i] : b.v[i]; });
#else
  return pack<T>(xsimd::select(m.v, a.v, b.v));
#endif
}
TERN_INLINE pack<float> abs(pack<float> a) {
#if defined(TERN_SIMD_EMULATED)
  return lanewise<float>([&](index i) { return __builtin_fabsf(a.v[i]); });
#else
  return pack<float>(xsimd::abs(a.v));
#endif
}
TERN_INLINE pack<float> sqrt(pack<float> a) {
#if defined(TERN_SIMD_EMULATED)
  return lanewise<float>([&](index i) { return __builtin_sqrtf(a.v[i]); });
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

/// To the nearest integer, ties to even; |a| < 2^31.
TERN_INLINE pack<std::int32_t> to_int(pack<float> a) {
#if defined(TERN_SIMD_EMULATED)
  return lanewise<std::int32_t>([&](index i) { return static_cast<std::int32_t>(__builtin_nearbyintf(a.v[i])); });
#elif defined(TERN_SIMD_AVX512)
  return pack<std::int32_t>(_mm512_cvtps_epi32(a.v));
#elif defined(TERN_SIMD_AVX2)
  return pack<std::int32_t>(_mm256_cvtps_epi32(a.v));
#elif defined(TERN_SIMD_SSE)
  return pack<std::int32_t>(_mm_cvtps_epi32(a.v));
#else
  return pack<std::int32_t>(vcvtnq_s32_f32(a.v));
#endif
}
TERN_INLINE pack<float> to_float(pack<std::int32_t> a) {
#if defined(TERN_SIMD_EMULATED)
  return lanewise<float>([&](index i) { return static_cast<float>(a.v[i]); });
#else
  return pack<float>(xsimd::to_float(a.v));
#endif
}
/// The same bits as lanes of another type.
template <class To, class From>
TERN_INLINE pack<To> bit_cast(pack<From> a) {
  static_assert(sizeof(To) == sizeof(From));
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

// ---- across lanes ----------------------------------------------------------------------------------------------------

TERN_INLINE bool any(mask<float> m) {
#if defined(TERN_SIMD_EMULATED)
  bool r = false;
  for (index i = 0; i < m.size; ++i) r |= m.v[i];
  return r;
#else
  return xsimd::any(m.v);
#endif
}
TERN_INLINE bool all(mask<float> m) {
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

}  // namespace simd
}  // namespace TERN_ABI
}  // namespace tern

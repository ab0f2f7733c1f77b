// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file simd/register.hpp
/// One register of lanes: `pack<T>` for T = float or int32, its `mask<T>`, and how they reach memory. Lane counts follow the
/// architecture; nothing may assume one. bytes.hpp adds lanes narrower than 32 bits.
///
/// Loads and stores need no alignment. `load_n` and `store_n` touch exactly n elements, and missing lanes read as zero.

#include <tern/simd/arch.hpp>

#include <cstdint>
#include <type_traits>

namespace tern {
inline namespace TERN_ABI {
namespace simd {

#if defined(TERN_SIMD_EMULATED)

/// One bit for each lane of a pack<T>.
template <class T>
struct mask {
  static constexpr index size = TERN_EMULATE_LANES;
  bool v[size];
};

/// The lanes of one register.
template <class T>
struct pack {
  static constexpr index size = TERN_EMULATE_LANES;
  T v[size];
  pack() = default;
  TERN_INLINE pack(T x) {
    for (index i = 0; i < size; ++i) v[i] = x;
  }
};

/// A pack of f(0), f(1), ...: the emulated lanes only.
template <class T, class F>
TERN_INLINE pack<T> lanewise(F f) {
  pack<T> r;
  for (index i = 0; i < pack<T>::size; ++i) r.v[i] = f(i);
  return r;
}
/// A mask of f(0), f(1), ...
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
#if defined(TERN_SIMD_AVX512) || defined(TERN_SIMD_NEON)
/// Whether there are 32 registers; otherwise 16.
inline constexpr bool many_registers = true;
#else
/// Whether there are 32 registers; otherwise 16.
inline constexpr bool many_registers = false;
#endif

/// x, which the compiler then keeps in a register: gcc loads an operand again for each of its uses, where loads are what is scarce.
template <class T>
TERN_INLINE pack<T> in_register(pack<T> x) {
#if defined(TERN_SIMD_AVX512)
  auto v = static_cast<typename pack<T>::batch::register_type>(x.v);
  __asm__("" : "+v"(v));
  return pack<T>(typename pack<T>::batch(v));
#elif defined(TERN_SIMD_AVX2) || defined(TERN_SIMD_SSE)
  auto v = static_cast<typename pack<T>::batch::register_type>(x.v);
  __asm__("" : "+x"(v));
  return pack<T>(typename pack<T>::batch(v));
#else
  return x;
#endif
}

/// p + step, which the compiler then counts on from p to p: gcc keeps a table of the multiples of `step` in memory otherwise.
TERN_INLINE float const* stepped(float const* p, index step) {
  p += step;
  __asm__("" : "+r"(p));
  return p;
}

/// p, of which the compiler does not know that it is p: what is read there is read again, where that costs less than to keep it.
TERN_INLINE float const* another(float const* p) {
#if defined(TERN_SIMD_AVX512)
  __asm__("" : "+r"(p));
#endif
  return p;
}

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
  if (n == 8) return store(p, x);
  // In pieces: a store under a mask is many operations on AMD's cores.
  __m256i rest = __builtin_bit_cast(__m256i, x.v.data);
  if ((n & 4) != 0) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(rest));
    rest = _mm256_permute2x128_si256(rest, rest, 0x11);
    p += 4;
  }
  __m128i last = _mm256_castsi256_si128(rest);
  if ((n & 2) != 0) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), last);
    last = _mm_unpackhi_epi64(last, last);
    p += 2;
  }
  if ((n & 1) != 0) _mm_storeu_si32(p, last);
#else
  T lane[pack<T>::size];
  store(lane, x);
  for (index i = 0; i < n; ++i) p[i] = lane[i];
#endif
}

/// Lanes `begin` to end - 1.
struct lane_range {
#if defined(TERN_SIMD_AVX512)
  __mmask16 bits = 0;
  TERN_INLINE lane_range() = default;
  TERN_INLINE lane_range(index begin, index end) : bits(static_cast<__mmask16>(first_lanes(end) & ~first_lanes(begin))) {}
#elif defined(TERN_SIMD_AVX2)
  __m256i bits = _mm256_setzero_si256();
  TERN_INLINE lane_range() = default;
  TERN_INLINE lane_range(index begin, index end) : bits(_mm256_andnot_si256(first_lanes(begin), first_lanes(end))) {}
#else
  index begin = 0, end = 0;
#endif
};
/// Whether load_range costs what a load does, or nothing counts.
inline constexpr bool masks_loads =
#if defined(TERN_SIMD_AVX512) || defined(TERN_SIMD_AVX2) || defined(TERN_SIMD_EMULATED)
    true;
#else
    false;
#endif
/// p[i] in the lanes of `range`, zero in the others, whose memory is not touched.
TERN_INLINE pack<float> load_range(float const* p, lane_range range) {
#if defined(TERN_SIMD_AVX512)
  return pack<float>(_mm512_maskz_loadu_ps(range.bits, p));
#elif defined(TERN_SIMD_AVX2)
  return pack<float>(_mm256_maskload_ps(p, range.bits));
#else
  float lane[lanes] = {};
  for (index i = range.begin; i < range.end; ++i) lane[i] = p[i];
  return load(lane);
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

/// True in the first n lanes (0 <= n <= size).
template <class T = float>
TERN_INLINE mask<T> first(index n) {
#if defined(TERN_SIMD_EMULATED)
  return lanewise_mask<T>([&](index i) { return i < n; });
#elif defined(TERN_SIMD_AVX512)
  return {xsimd::batch_bool<T, arch>(first_lanes(n))};
#else
  return {iota<T>().v < pack<T>(static_cast<T>(n)).v};
#endif
}

}  // namespace simd
}  // namespace TERN_ABI
}  // namespace tern

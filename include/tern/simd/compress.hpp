// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file simd/compress.hpp
/// Lanes that a mask chooses, moved together.
///
///     compress_store(p, x, m)      the lanes of x where m is set, in order, to p; returns how many. All `lanes` places at p are written.
///     mask_bits(m)                 bit i is lane i of m
///
/// AVX-512 has an instruction; AVX2 permutes by a table of 2 KiB; elsewhere a loop over lanes without branches.

#include <tern/simd/pack.hpp>

namespace tern {
inline namespace TERN_ABI {
namespace simd {

/// Bit i is lane i of m.
TERN_INLINE std::uint32_t mask_bits(mask<std::int32_t> m) {
#if defined(TERN_SIMD_AVX512)
  return static_cast<std::uint32_t>(static_cast<__mmask16>(m.v));
#elif defined(TERN_SIMD_AVX2)
  return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(m.v)));
#elif defined(TERN_SIMD_SSE)
  return static_cast<std::uint32_t>(_mm_movemask_ps(_mm_castsi128_ps(m.v)));
#else
  std::int32_t lane[lanes];
  store(static_cast<std::int32_t*>(lane), select(m, pack<std::int32_t>(1), pack<std::int32_t>(0)));
  std::uint32_t bits = 0;
  for (index i = 0; i < lanes; ++i) bits |= static_cast<std::uint32_t>(lane[i]) << i;
  return bits;
#endif
}

#if defined(TERN_SIMD_AVX2)
namespace detail {
/// For each mask of eight lanes the numbers of the chosen ones, a byte each.
struct compress_table {
  std::uint64_t order[256];
  constexpr compress_table() : order() {
    for (unsigned m = 0; m < 256; ++m) {
      int count = 0;
      for (unsigned i = 0; i < 8; ++i)
        if ((m >> i & 1u) != 0) order[m] |= std::uint64_t{i} << (8 * count++);
    }
  }
};
inline constexpr compress_table compress_orders{};
}  // namespace detail
#endif

/// The lanes of x where m is set, in order, to p, where `lanes` places are written; returns how many there are.
TERN_INLINE index compress_store(std::int32_t* p, pack<std::int32_t> x, mask<std::int32_t> m) {
#if defined(TERN_SIMD_AVX512)
  __mmask16 const bits = m.v;
  _mm512_storeu_si512(p, _mm512_maskz_compress_epi32(bits, x.v));
  return __builtin_popcount(static_cast<unsigned>(bits));
#elif defined(TERN_SIMD_AVX2)
  std::uint32_t const bits = mask_bits(m);
  __m128i const order = _mm_cvtsi64_si128(static_cast<long long>(detail::compress_orders.order[bits]));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permutevar8x32_epi32(x.v, _mm256_cvtepu8_epi32(order)));
  return __builtin_popcount(bits);
#else
  std::int32_t lane[lanes], chosen[lanes], found[lanes + 1] = {};
  store(static_cast<std::int32_t*>(lane), x);
  store(static_cast<std::int32_t*>(chosen), select(m, pack<std::int32_t>(1), pack<std::int32_t>(0)));
  index count = 0;
  for (index i = 0; i < lanes; ++i) {
    found[count] = lane[i];
    count += chosen[i];
  }
  __builtin_memcpy(p, found, sizeof(std::int32_t) * static_cast<std::size_t>(lanes));
  return count;
#endif
}

}  // namespace simd
}  // namespace TERN_ABI
}  // namespace tern

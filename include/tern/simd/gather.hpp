// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file simd/gather.hpp
/// Elements of a table by index, or words by address, lane by lane.

#include <tern/simd/pack.hpp>

namespace tern {
inline namespace TERN_ABI {
namespace simd {

/// Lane i is table[at_i]. Not checked.
TERN_INLINE pack<float> gather(float const* table, pack<std::int32_t> at) {
#if defined(TERN_SIMD_AVX512)
  return pack<float>(_mm512_mask_i32gather_ps(_mm512_setzero_ps(), 0xffff, at.v, table, 4));
#elif defined(TERN_SIMD_AVX2)
  return pack<float>(_mm256_i32gather_ps(table, at.v, 4));
#else
  std::int32_t from[lanes];
  float lane[lanes];
  store(static_cast<std::int32_t*>(from), at);
  for (index i = 0; i < lanes; ++i) lane[i] = table[from[i]];
  return load(static_cast<float const*>(lane));
#endif
}

/// Lane i is the 4 bytes `offset` behind at[i], for at[0], ... at[lanes - 1].
TERN_INLINE pack<std::int32_t> gather_words(std::uint8_t const* const* at, index offset) {
#if defined(TERN_SIMD_AVX512)
  auto const half = [&](index i) TERN_LAMBDA {
    __m512i const address = _mm512_maskz_add_epi64(0xff, _mm512_maskz_loadu_epi64(0xff, at + i), _mm512_set1_epi64(offset));
    return _mm512_mask_i64gather_epi32(_mm256_setzero_si256(), 0xff, address, nullptr, 1);
  };
  return pack<std::int32_t>(_mm512_maskz_inserti64x4(0xff, _mm512_castsi256_si512(half(0)), half(8), 1));
#else
  std::int32_t lane[lanes];
  for (index i = 0; i < lanes; ++i) __builtin_memcpy(lane + i, at[i] + offset, 4);
  return load(static_cast<std::int32_t const*>(lane));
#endif
}

}  // namespace simd
}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file simd/stream.hpp
/// Stores that go past the caches: for results larger than these, as memory is then not read before it is written.

#include <tern/simd/register.hpp>

namespace tern {
inline namespace TERN_ABI {
namespace simd {

/// Whether `store_past` may write here.
TERN_INLINE bool can_store_past(float const* p) {
  return reinterpret_cast<std::uintptr_t>(p) % (static_cast<std::uintptr_t>(lanes) * sizeof(float)) == 0;
}
/// Writes where `can_store_past`; others see it after `finish_stores_past`.
TERN_INLINE void store_past(float* p, pack<float> x) {
#if defined(TERN_SIMD_AVX512)
  _mm512_stream_ps(p, x.v);
#elif defined(TERN_SIMD_AVX2)
  _mm256_stream_ps(p, x.v);
#elif defined(TERN_SIMD_SSE)
  _mm_stream_ps(p, x.v);
#else
  store(p, x);
#endif
}
/// Copies whole lines of 64 bytes to where a line starts, past the caches; others see them after `finish_stores_past`.
TERN_INLINE void copy_lines_past(std::byte* to, std::byte const* from, index bytes) {
  index i = 0;
#if defined(TERN_SIMD_AVX512)
  for (; i + 256 <= bytes; i += 256) {  // rows of 256 bytes are the usual ones
    TERN_UNROLL
    for (index j = i; j < i + 256; j += 64) _mm512_stream_si512(reinterpret_cast<__m512i*>(to + j), _mm512_loadu_si512(from + j));
  }
#endif
  for (; i < bytes; i += 64) {
#if defined(TERN_SIMD_AVX512)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + i), _mm512_loadu_si512(from + i));
#elif defined(TERN_SIMD_AVX2)
    for (index j = i; j < i + 64; j += 32)
      _mm256_stream_si256(reinterpret_cast<__m256i*>(to + j), _mm256_loadu_si256(reinterpret_cast<__m256i const*>(from + j)));
#elif defined(TERN_SIMD_SSE)
    for (index j = i; j < i + 64; j += 16)
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + j), _mm_loadu_si128(reinterpret_cast<__m128i const*>(from + j)));
#else
    __builtin_memcpy(to + i, from + i, 64);
#endif
  }
}
/// Orders what this thread stored so before what it stores from now on, such as the news that it is done.
TERN_INLINE void finish_stores_past() {
#if defined(TERN_SIMD_AVX512) || defined(TERN_SIMD_AVX2) || defined(TERN_SIMD_SSE)
  _mm_sfence();
#endif
}

}  // namespace simd
}  // namespace TERN_ABI
}  // namespace tern

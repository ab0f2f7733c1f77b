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
/// Orders what this thread stored so before what it stores from now on, such as the news that it is done.
TERN_INLINE void finish_stores_past() {
#if defined(TERN_SIMD_AVX512) || defined(TERN_SIMD_AVX2) || defined(TERN_SIMD_SSE)
  _mm_sfence();
#endif
}

}  // namespace simd
}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file simd/gather.hpp
/// Elements of a table by index, lane by lane.

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

}  // namespace simd
}  // namespace TERN_ABI
}  // namespace tern

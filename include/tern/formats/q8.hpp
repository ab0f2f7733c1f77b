// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/q8.hpp
/// Eight bits an element, in blocks of 32 with one scale.
///
///     q8_0: | d f16 | 32 signed bytes |      d q
///
/// Source: GGUF files' type 8.

#include <tern/formats/q4.hpp>

namespace tern::formats {
inline namespace TERN_ABI {

/// 32 elements in 34 bytes: 8 bits each, d q.
struct q8_0 {
  struct block {
    f16 d;
    std::int8_t q[32];
  };
  static_assert(sizeof(block) == 34);
  static constexpr index elements = 32;
  static constexpr index granule = 32;
  static constexpr int codes = 256;
  static constexpr int offset = 128;
  static constexpr bool has_min = false;

  TERN_INLINE static void decode(block const& b, float* out) { detail::decode_parts<q8_0>(b, out); }
  /// Halves round away from zero.
  TERN_INLINE static block encode(float const* in) {
    float const d = __builtin_fabsf(detail::extremes_of(in, 32).farthest) / 127.f;
    float const inverse = d != 0.f ? 1.f / d : 0.f;
    block b;
    b.d = f16(d);
    for (int j = 0; j < 32; ++j) {
      float const code = __builtin_roundf(in[j] * inverse);
      // Past 127 where the inverse has overflowed; NaN gives 0.
      b.q[j] = static_cast<std::int8_t>(code >= 127.f ? 127 : code > -127.f ? static_cast<int>(code) : code <= -127.f ? -127 : 0);
    }
    return b;
  }
  TERN_INLINE static void put(block& b, std::uint8_t const* code) {
    for (int j = 0; j < 32; j += 8)
      detail::store8(reinterpret_cast<std::uint8_t*>(b.q) + j, detail::load8(code + j) ^ 128 * detail::each_byte);
  }
  TERN_INLINE static void unpack(block const& b, index, std::uint8_t* u) {
    for (int j = 0; j < 32; j += 8) detail::store8(u + j, detail::load8(b.q + j) ^ 128 * detail::each_byte);
  }
  TERN_INLINE static void scales(block const& b, index, float* scale, float*) { scale[0] = b.d; }
};

}  // namespace TERN_ABI
}  // namespace tern::formats

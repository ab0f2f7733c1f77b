// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/q5.hpp
/// Five bits an element, in blocks of 32 with one scale: four as in formats/q4.hpp, and bit j of a little-endian 32-bit word is
/// the fifth of element j.
///
///     q5_0: | d f16 | 4 bytes of fifth bits | 16 bytes |              d (q - 16)
///     q5_1: | d f16 | m f16 | 4 bytes of fifth bits | 16 bytes |      d q + m
///
/// Source: GGUF files' type 6 and 7.

#include <tern/formats/q4.hpp>

namespace tern::formats {
inline namespace TERN_ABI {

namespace detail {
/// q: 16 bytes of halves; h: 4 bytes of fifth bits.
TERN_INLINE void unpack_five_bits(std::uint8_t const* q, std::uint8_t const* h, std::uint8_t* u) {
  unpack_halves(q, u);
  for (int j = 0; j < 4; ++j) {
    // Bit i of the byte stays in byte i; any bit carries into its byte's top one, which moves to where 16 stands.
    std::uint64_t const bits = h[j] * each_byte & 0x8040201008040201u;
    std::uint64_t const top = (bits | ((bits & 127 * each_byte) + 127 * each_byte)) & 128 * each_byte;
    store8(u + 8 * j, load8(u + 8 * j) | top >> 3);
  }
}
TERN_INLINE void pack_five_bits(std::uint8_t const* u, std::uint8_t* q, std::uint8_t* h) {
  for (int j = 0; j < 4; ++j) h[j] = 0;
  for (int j = 0; j < 16; ++j) q[j] = static_cast<std::uint8_t>((u[j] & 15) | (u[j + 16] & 15) << 4);
  for (int j = 0; j < 32; ++j) h[j / 8] = static_cast<std::uint8_t>(h[j / 8] | (u[j] >> 4) << j % 8);
}
}  // namespace detail

/// 32 elements in 22 bytes: 5 bits each, d (q - 16).
struct q5_0 {
  struct block {
    f16 d;
    std::uint8_t h[4];
    std::uint8_t q[16];
  };
  static_assert(sizeof(block) == 22);
  static constexpr index elements = 32;
  static constexpr index granule = 32;
  static constexpr int codes = 32;
  static constexpr int offset = 16;
  static constexpr bool has_min = false;

  TERN_INLINE static void decode(block const& b, float* out) { detail::decode_parts<q5_0>(b, out); }
  TERN_INLINE static block encode(float const* in) {
    float const d = detail::extremes_of(in, 32).farthest / -16.f;
    float const inverse = d != 0.f ? 1.f / d : 0.f;
    block b;
    b.d = f16(d);
    std::uint8_t u[32];
    for (int j = 0; j < 32; ++j) u[j] = static_cast<std::uint8_t>(detail::clamp_to_int(in[j] * inverse + 16.5f, 31));
    put(b, u);
    return b;
  }
  TERN_INLINE static void put(block& b, std::uint8_t const* code) { detail::pack_five_bits(code, b.q, b.h); }
  TERN_INLINE static void unpack(block const& b, index, std::uint8_t* u) { detail::unpack_five_bits(b.q, b.h, u); }
  TERN_INLINE static void scales(block const& b, index, float* scale, float*) { scale[0] = b.d; }
};

/// 32 elements in 24 bytes: 5 bits each, d q + m.
struct q5_1 {
  struct block {
    f16 d, m;
    std::uint8_t h[4];
    std::uint8_t q[16];
  };
  static_assert(sizeof(block) == 24);
  static constexpr index elements = 32;
  static constexpr index granule = 32;
  static constexpr int codes = 32;
  static constexpr int offset = 0;
  static constexpr bool has_min = true;

  TERN_INLINE static void decode(block const& b, float* out) { detail::decode_parts<q5_1>(b, out); }
  TERN_INLINE static block encode(float const* in) {
    detail::extremes const e = detail::extremes_of(in, 32);
    float const d = (e.most - e.least) / 31.f;
    float const inverse = d != 0.f ? 1.f / d : 0.f;
    block b;
    b.d = f16(d);
    b.m = f16(e.least);
    std::uint8_t u[32];
    for (int j = 0; j < 32; ++j) u[j] = static_cast<std::uint8_t>(detail::clamp_to_int((in[j] - e.least) * inverse + 0.5f, 31));
    put(b, u);
    return b;
  }
  TERN_INLINE static void put(block& b, std::uint8_t const* code) { detail::pack_five_bits(code, b.q, b.h); }
  TERN_INLINE static void unpack(block const& b, index, std::uint8_t* u) { detail::unpack_five_bits(b.q, b.h, u); }
  TERN_INLINE static void scales(block const& b, index, float* scale, float* min) {
    scale[0] = b.d;
    min[0] = b.m;
  }
};

}  // namespace TERN_ABI
}  // namespace tern::formats

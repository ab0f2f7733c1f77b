// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/k_quants.hpp
/// Blocks of 256 elements whose parts have small integer scales of their own.
///
///     q4_k: | d f16 | e f16 | 12 bytes of scales | 128 bytes |
///           (d s_g) q - (e t_g) for the elements of part g = 0..7, 32 each. Parts 2i and 2i + 1 are the low and high halves of
///           bytes 32 i to 32 i + 31. The 6-bit s_g and t_g lie in the 12 bytes c as
///               g < 4:   s_g = c[g] & 63,                          t_g = c[g + 4] & 63
///               g >= 4:  s_g = c[g + 4] & 15 | (c[g - 4] >> 6) << 4,  t_g = c[g + 4] >> 4 | (c[g] >> 6) << 4
///     q6_k: | 128 bytes of low halves | 64 bytes of upper two bits | 16 signed scales | d f16 |
///           (d s_g) (q - 32) for the elements of part g = 0..15, 16 each. Each half of the block (128 elements) has 64 bytes l
///           of low halves and 32 bytes h: its element 32 r + j has the low bits l[32 (r % 2) + j] >> 4 (r / 2) and the upper
///           two h[j] >> 2 r.
///
/// All products are exact in f32. Source: GGUF files' type 12 and 14.

#include <tern/formats/q4.hpp>

namespace tern::formats {
inline namespace TERN_ABI {

/// 256 elements in 144 bytes: 4 bits each, a 6-bit scale and minimum for each 32.
struct q4_k {
  struct block {
    f16 d, e;
    std::uint8_t c[12];
    std::uint8_t q[128];
  };
  static_assert(sizeof(block) == 144);
  static constexpr index elements = 256;
  static constexpr index granule = 32;
  static constexpr int offset = 0;
  static constexpr bool has_min = true;

  TERN_INLINE static void decode(block const& b, float* out) {
    for (index g = 0; g < 8; ++g) {
      std::uint8_t u[32];
      float scale, min;
      unpack(b, g, u);
      scales(b, g, &scale, &min);
      detail::decode_codes<0>(u, 32, scale, min, out + 32 * g);
    }
  }
  TERN_INLINE static void unpack(block const& b, index g, std::uint8_t* u) {
    std::uint8_t const* const q = b.q + g / 2 * 32;
    int const shift = g % 2 == 0 ? 0 : 4;
    for (int j = 0; j < 32; j += 8) detail::store8(u + j, (detail::load8(q + j) >> shift) & 15 * detail::each_byte);
  }
  TERN_INLINE static void scales(block const& b, index g, float* scale, float* min) {
    std::uint8_t const* const c = b.c;
    int const s = g < 4 ? c[g] & 63 : (c[g + 4] & 15) | (c[g - 4] >> 6) << 4;
    int const t = g < 4 ? c[g + 4] & 63 : (c[g + 4] >> 4) | (c[g] >> 6) << 4;
    scale[0] = static_cast<float>(b.d) * static_cast<float>(s);
    min[0] = -(static_cast<float>(b.e) * static_cast<float>(t));
  }
};

/// 256 elements in 210 bytes: 6 bits each, an 8-bit scale for each 16.
struct q6_k {
  struct block {
    std::uint8_t l[128];
    std::uint8_t h[64];
    std::int8_t s[16];
    f16 d;
  };
  static_assert(sizeof(block) == 210);
  static constexpr index elements = 256;
  static constexpr index granule = 16;
  static constexpr int offset = 32;
  static constexpr bool has_min = false;

  TERN_INLINE static void decode(block const& b, float* out) {
    for (index g = 0; g < 8; ++g) {
      std::uint8_t u[32];
      float scale[2];
      unpack(b, g, u);
      scales(b, g, scale, nullptr);
      detail::decode_codes<32>(u, 16, scale[0], out + 32 * g);
      detail::decode_codes<32>(u + 16, 16, scale[1], out + 32 * g + 16);
    }
  }
  TERN_INLINE static void unpack(block const& b, index g, std::uint8_t* u) {
    index const r = g % 4;
    std::uint8_t const* const l = b.l + g / 4 * 64 + r % 2 * 32;
    std::uint8_t const* const h = b.h + g / 4 * 32;
    int const low = static_cast<int>(r / 2 * 4), high = static_cast<int>(2 * r);
    for (int j = 0; j < 32; j += 8) {
      std::uint64_t const bits = (detail::load8(l + j) >> low) & 15 * detail::each_byte;
      detail::store8(u + j, bits | ((detail::load8(h + j) >> high) & 3 * detail::each_byte) << 4);
    }
  }
  TERN_INLINE static void scales(block const& b, index g, float* scale, float*) {
    float const d = b.d;
    scale[0] = d * static_cast<float>(b.s[2 * g]);
    scale[1] = d * static_cast<float>(b.s[2 * g + 1]);
  }
};

}  // namespace TERN_ABI
}  // namespace tern::formats

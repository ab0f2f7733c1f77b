// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/iq4.hpp
/// Four bits an element that name one of 16 values, denser near zero as weights are:
///
///     v = -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113
///
///     iq4_nl: | d f16 | 16 bytes |                                       d v[q], 32 elements, 4.5 bits each
///             Element j is the low half of byte j, element j + 16 the high half.
///     iq4_xs: | d f16 | 16 bits a | 4 bytes c | 128 bytes |              (d (s_g - 32)) v[q], 256 elements, 4.25 bits each
///             Part g = 0..7 has 16 of the bytes, as iq4_nl's, and s_g = c[g / 2] >> 4 (g % 2) & 15 | (a >> 2 g & 3) << 4.
///
/// All products are exact in f32: decoding is, for every block. Encoding searches scales (formats/scale_search.hpp); tests hold the
/// root mean square error of a block to 12/113 of its largest magnitude (iq4_nl) or 12/113 + 1/62 (iq4_xs): half the widest gap
/// between levels, and half a step of the integer scales. f16 rounds d beside. NaN counts as 0, infinity as the largest that can be stored.
/// Source: GGUF files' type 20 and 23.

#include <tern/formats/scale_search.hpp>

namespace tern::formats {
inline namespace TERN_ABI {

namespace detail {
/// The levels of iq4 formats; code c stands for value(c).
struct iq4_levels {
  static constexpr std::uint8_t biased[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};  // v + 128
  /// Where the farthest element may come to lie: what a search tries.
  static constexpr float reach_from = 90.f, reach_step = 3.f;
  static constexpr int reaches = 15;

  TERN_INLINE static constexpr float value(int code) { return static_cast<float>(biased[code] - 128); }
  /// The nearest level, and its code: by all midpoints, the same work for every x.
  TERN_INLINE static float nearest(float x) {
    float v = value(0);
    TERN_UNROLL
    for (int c = 1; c < 16; ++c) v += x >= 0.5f * (value(c - 1) + value(c)) ? value(c) - value(c - 1) : 0.f;
    return v;
  }
  TERN_INLINE static int code(float x) {
    int code = 0;
    for (int c = 1; c < 16; ++c) code += x >= 0.5f * (value(c - 1) + value(c));
    return code;
  }
};
}  // namespace detail

/// 32 elements in 18 bytes: 4 bits each, d v[q].
struct iq4_nl {
  struct block {
    f16 d;
    std::uint8_t q[16];
  };
  static_assert(sizeof(block) == 18);
  static constexpr index elements = 32;
  static constexpr index granule = 32;
  static constexpr int codes = 16;
  static constexpr int offset = 128;
  static constexpr bool has_min = false;
  static constexpr auto const& levels = detail::iq4_levels::biased;

  TERN_INLINE static void decode(block const& b, float* out) { detail::decode_parts<iq4_nl>(b, out); }
  static block encode(float const* in) {
    auto const r = detail::search_scales<detail::iq4_levels, 1, 1, 1, 32>(in);
    block b;
    b.d = r.d;
    put(b, r.code);
    return b;
  }
  TERN_INLINE static void put(block& b, std::uint8_t const* code) { detail::pack_halves(code, 16, b.q); }
  TERN_INLINE static void unpack(block const& b, index, std::uint8_t* u) { detail::unpack_levels(b.q, levels, u); }
  TERN_INLINE static void scales(block const& b, index, float* scale, float*) { scale[0] = b.d; }
};

/// 256 elements in 136 bytes: 4 bits each, a 6-bit scale for each 32.
struct iq4_xs {
  struct block {
    f16 d;
    std::uint8_t a[2];
    std::uint8_t c[4];
    std::uint8_t q[128];
  };
  static_assert(sizeof(block) == 136);
  static constexpr index elements = 256;
  static constexpr index granule = 32;
  static constexpr int codes = 16;
  static constexpr int offset = 128;
  static constexpr bool has_min = false;
  static constexpr auto const& levels = detail::iq4_levels::biased;

  TERN_INLINE static void decode(block const& b, float* out) { detail::decode_parts<iq4_xs>(b, out); }
  static block encode(float const* in) {
    auto const r = detail::search_scales<detail::iq4_levels, -32, 31, 8, 32>(in);
    block b{};
    b.d = r.d;
    for (int g = 0; g < 8; ++g) {
      int const s = r.scale[g] + 32;
      b.c[g / 2] = static_cast<std::uint8_t>(b.c[g / 2] | (s & 15) << 4 * (g % 2));
      b.a[g / 4] = static_cast<std::uint8_t>(b.a[g / 4] | s >> 4 << 2 * (g % 4));
    }
    put(b, r.code);
    return b;
  }
  TERN_INLINE static void put(block& b, std::uint8_t const* code) {
    for (int g = 0; g < 8; ++g) detail::pack_halves(code + 32 * g, 16, b.q + 16 * g);
  }
  TERN_INLINE static void unpack(block const& b, index g, std::uint8_t* u) { detail::unpack_levels(b.q + 16 * g, levels, u); }
  TERN_INLINE static void scales(block const& b, index g, float* scale, float*) {
    int const low = b.c[g / 2] >> 4 * (g % 2) & 15, high = b.a[g / 4] >> 2 * (g % 4) & 3;
    scale[0] = static_cast<float>(b.d) * static_cast<float>((low | high << 4) - 32);
  }
};

}  // namespace TERN_ABI
}  // namespace tern::formats

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/k_quants.hpp
/// Blocks of 256 elements whose parts have small integer scales of their own.
///
///     q2_k: | 16 bytes of scales c | 64 bytes | d f16 | e f16 |
///           (d s_g) q - (e t_g) for the elements of part g = 0..15, 16 each; s_g = c[g] & 15, t_g = c[g] >> 4. Element
///           128 i + 32 r + j has the bits q[32 i + j] >> 2 r & 3.
///     q3_k: | 32 bytes of upper bits | 64 bytes of lower two bits | 12 bytes of scales c | d f16 |
///           (d (s_g - 32)) (q - 4) for the elements of part g = 0..15, 16 each. The lower bits lie as q2_k's; the upper bit of
///           element 32 r + j is h[j] >> r & 1. s_g = c[g % 8] >> 4 (g / 8) & 15 | (c[8 + g % 4] >> 2 (g / 4) & 3) << 4
///     q4_k: | d f16 | e f16 | 12 bytes of scales | 128 bytes |
///           (d s_g) q - (e t_g) for the elements of part g = 0..7, 32 each. Parts 2i and 2i + 1 are the low and high halves of
///           bytes 32 i to 32 i + 31. The 6-bit s_g and t_g lie in the 12 bytes c as
///               g < 4:   s_g = c[g] & 63,                          t_g = c[g + 4] & 63
///               g >= 4:  s_g = c[g + 4] & 15 | (c[g - 4] >> 6) << 4,  t_g = c[g + 4] >> 4 | (c[g] >> 6) << 4
///     q5_k: | d f16 | e f16 | 12 bytes of scales | 32 bytes of upper bits | 128 bytes of lower four bits |
///           as q4_k, with the upper bit of element 32 g + j in h[j] >> g & 1
///     q6_k: | 128 bytes of low halves | 64 bytes of upper two bits | 16 signed scales | d f16 |
///           (d s_g) (q - 32) for the elements of part g = 0..15, 16 each. Each half of the block (128 elements) has 64 bytes l
///           of low halves and 32 bytes h: its element 32 r + j has the low bits l[32 (r % 2) + j] >> 4 (r / 2) and the upper
///           two h[j] >> 2 r.
///
/// Products are exact in f32, so decoding rounds once where there is a minimum and not at all elsewhere. Encoding searches scales
/// (formats/scale_search.hpp). With M the largest magnitude of a block, tests hold its root mean square error to c M, where c is
///
///     q2_k 1/3 + 1.5/15    q3_k 1/6 + 1/62    q4_k 1/15 + 1.5/63    q5_k 1/31 + 1.5/63    q6_k 1/62 + 1/254
///
/// (half a step of codes that reach M on both sides, and half a step of the integer scales; normal numbers have a fraction of it),
/// beside what f16 rounds of d and e. NaN counts as 0, infinity as the largest that can be stored.
/// Source: GGUF files' type 10 to 14.

#include <tern/formats/scale_search.hpp>

namespace tern::formats {
inline namespace TERN_ABI {

namespace detail {
/// The 6-bit scales and minima of q4_k and q5_k, as the top of this file has them.
template <class Block>
TERN_INLINE void take_six_bits(Block const& b, index g, float* scale, float* min) {
  std::uint8_t const* const c = b.c;
  int const s = g < 4 ? c[g] & 63 : (c[g + 4] & 15) | (c[g - 4] >> 6) << 4;
  int const t = g < 4 ? c[g + 4] & 63 : (c[g + 4] >> 4) | (c[g] >> 6) << 4;
  *scale = static_cast<float>(b.d) * static_cast<float>(s);
  *min = -(static_cast<float>(b.e) * static_cast<float>(t));
}
TERN_INLINE void put_six_bits(int const* s, int const* t, std::uint8_t* c) {
  for (int g = 0; g < 4; ++g) {
    c[g] = static_cast<std::uint8_t>(s[g] | s[g + 4] >> 4 << 6);
    c[g + 4] = static_cast<std::uint8_t>(t[g] | t[g + 4] >> 4 << 6);
    c[g + 8] = static_cast<std::uint8_t>((s[g + 4] & 15) | (t[g + 4] & 15) << 4);
  }
}

/// 32 codes whose `bits` lower bits lie at `low_shift` of the bytes low, and whose upper ones at `high_shift` of the bytes high.
struct split_codes {
  int bits;
  unsigned high_mask;
  TERN_INLINE void add(std::uint8_t const* code, int low_shift, std::uint8_t* low, int high_shift, std::uint8_t* high) const {
    std::uint8_t l[32], h[32];
    take_bits(code, 0, (1u << bits) - 1, l);
    take_bits(code, bits, high_mask, h);
    add_bits(l, low_shift, low);
    add_bits(h, high_shift, high);
  }
  TERN_INLINE void take(std::uint8_t const* low, index low_shift, std::uint8_t const* high, index high_shift, std::uint8_t* u) const {
    std::uint8_t h[32];
    take_bits(low, static_cast<int>(low_shift), (1u << bits) - 1, u);
    take_bits(high, static_cast<int>(high_shift), high_mask, h);
    add_bits(h, bits, u);
  }
};
}  // namespace detail

/// 256 elements in 84 bytes: 2 bits each, a 4-bit scale and minimum for each 16.
struct q2_k {
  struct block {
    std::uint8_t c[16];
    std::uint8_t q[64];
    f16 d, e;
  };
  static_assert(sizeof(block) == 84);
  static constexpr index elements = 256;
  static constexpr index granule = 16;
  static constexpr int codes = 4;
  static constexpr int offset = 0;
  static constexpr bool has_min = true;

  TERN_INLINE static void decode(block const& b, float* out) { detail::decode_parts<q2_k>(b, out); }
  static block encode(float const* in) {
    auto const r = detail::search_lines<3, 15, 16, 16>(in);
    block b{};
    b.d = r.d;
    b.e = r.e;
    for (int g = 0; g < 16; ++g) b.c[g] = static_cast<std::uint8_t>(r.scale[g] | r.min[g] << 4);
    put(b, r.code);
    return b;
  }
  TERN_INLINE static void put(block& b, std::uint8_t const* code) {
    detail::clear(b.q);
    for (int g = 0; g < 8; ++g) detail::add_bits(code + 32 * g, 2 * (g % 4), b.q + g / 4 * 32);
  }
  TERN_INLINE static void unpack(block const& b, index g, std::uint8_t* u) {
    detail::take_bits(b.q + g / 4 * 32, static_cast<int>(g % 4 * 2), 3, u);
  }
  TERN_INLINE static void scales(block const& b, index g, float* scale, float* min) {
    float const d = b.d, e = b.e;
    for (index j = 0; j < 2; ++j) {
      scale[j] = d * static_cast<float>(b.c[2 * g + j] & 15);
      min[j] = -(e * static_cast<float>(b.c[2 * g + j] >> 4));
    }
  }
};

/// 256 elements in 110 bytes: 3 bits each, a 6-bit scale for each 16.
struct q3_k {
  struct block {
    std::uint8_t h[32];
    std::uint8_t q[64];
    std::uint8_t c[12];
    f16 d;
  };
  static_assert(sizeof(block) == 110);
  static constexpr index elements = 256;
  static constexpr index granule = 16;
  static constexpr int codes = 8;
  static constexpr int offset = 4;
  static constexpr bool has_min = false;
  static constexpr detail::split_codes split{2, 1};

  TERN_INLINE static void decode(block const& b, float* out) { detail::decode_parts<q3_k>(b, out); }
  static block encode(float const* in) {
    auto const r = detail::search_scales<detail::even_levels<4, 8>, -32, 31, 16, 16>(in);
    block b{};
    b.d = r.d;
    for (int g = 0; g < 16; ++g) {
      int const s = r.scale[g] + 32;
      b.c[g % 8] = static_cast<std::uint8_t>(b.c[g % 8] | (s & 15) << 4 * (g / 8));
      b.c[8 + g % 4] = static_cast<std::uint8_t>(b.c[8 + g % 4] | s >> 4 << 2 * (g / 4));
    }
    put(b, r.code);
    return b;
  }
  TERN_INLINE static void put(block& b, std::uint8_t const* code) {
    detail::clear(b.q);
    detail::clear(b.h);
    for (int g = 0; g < 8; ++g) split.add(code + 32 * g, 2 * (g % 4), b.q + g / 4 * 32, g, b.h);
  }
  TERN_INLINE static void unpack(block const& b, index g, std::uint8_t* u) { split.take(b.q + g / 4 * 32, g % 4 * 2, b.h, g, u); }
  TERN_INLINE static void scales(block const& b, index g, float* scale, float*) {
    float const d = b.d;
    for (index j = 0; j < 2; ++j) {
      index const p = 2 * g + j;
      int const s = (b.c[p % 8] >> 4 * (p / 8) & 15) | (b.c[8 + p % 4] >> 2 * (p / 4) & 3) << 4;
      scale[j] = d * static_cast<float>(s - 32);
    }
  }
};

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
  static constexpr int codes = 16;
  static constexpr int offset = 0;
  static constexpr bool has_min = true;

  TERN_INLINE static void decode(block const& b, float* out) { detail::decode_parts<q4_k>(b, out); }
  static block encode(float const* in) {
    auto const r = detail::search_lines<15, 63, 8, 32>(in);
    block b{};
    b.d = r.d;
    b.e = r.e;
    detail::put_six_bits(r.scale, r.min, b.c);
    put(b, r.code);
    return b;
  }
  TERN_INLINE static void put(block& b, std::uint8_t const* code) {
    detail::clear(b.q);
    for (int g = 0; g < 8; ++g) detail::add_bits(code + 32 * g, 4 * (g % 2), b.q + g / 2 * 32);
  }
  TERN_INLINE static void unpack(block const& b, index g, std::uint8_t* u) {
    detail::take_bits(b.q + g / 2 * 32, static_cast<int>(g % 2 * 4), 15, u);
  }
  TERN_INLINE static void scales(block const& b, index g, float* scale, float* min) { detail::take_six_bits(b, g, scale, min); }
};

/// 256 elements in 176 bytes: 5 bits each, a 6-bit scale and minimum for each 32.
struct q5_k {
  struct block {
    f16 d, e;
    std::uint8_t c[12];
    std::uint8_t h[32];
    std::uint8_t q[128];
  };
  static_assert(sizeof(block) == 176);
  static constexpr index elements = 256;
  static constexpr index granule = 32;
  static constexpr int codes = 32;
  static constexpr int offset = 0;
  static constexpr bool has_min = true;
  static constexpr detail::split_codes split{4, 1};

  TERN_INLINE static void decode(block const& b, float* out) { detail::decode_parts<q5_k>(b, out); }
  static block encode(float const* in) {
    auto const r = detail::search_lines<31, 63, 8, 32>(in);
    block b{};
    b.d = r.d;
    b.e = r.e;
    detail::put_six_bits(r.scale, r.min, b.c);
    put(b, r.code);
    return b;
  }
  TERN_INLINE static void put(block& b, std::uint8_t const* code) {
    detail::clear(b.q);
    detail::clear(b.h);
    for (int g = 0; g < 8; ++g) split.add(code + 32 * g, 4 * (g % 2), b.q + g / 2 * 32, g, b.h);
  }
  TERN_INLINE static void unpack(block const& b, index g, std::uint8_t* u) { split.take(b.q + g / 2 * 32, g % 2 * 4, b.h, g, u); }
  TERN_INLINE static void scales(block const& b, index g, float* scale, float* min) { detail::take_six_bits(b, g, scale, min); }
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
  static constexpr int codes = 64;
  static constexpr int offset = 32;
  static constexpr bool has_min = false;
  static constexpr detail::split_codes split{4, 3};

  TERN_INLINE static void decode(block const& b, float* out) { detail::decode_parts<q6_k>(b, out); }
  static block encode(float const* in) {
    auto const r = detail::search_scales<detail::even_levels<32, 64>, -128, 127, 16, 16>(in);
    block b{};
    b.d = r.d;
    for (int g = 0; g < 16; ++g) b.s[g] = static_cast<std::int8_t>(r.scale[g]);
    put(b, r.code);
    return b;
  }
  TERN_INLINE static void put(block& b, std::uint8_t const* code) {
    detail::clear(b.l);
    detail::clear(b.h);
    for (int g = 0; g < 8; ++g) split.add(code + 32 * g, g % 4 / 2 * 4, b.l + g / 4 * 64 + g % 2 * 32, 2 * (g % 4), b.h + g / 4 * 32);
  }
  TERN_INLINE static void unpack(block const& b, index g, std::uint8_t* u) {
    split.take(b.l + g / 4 * 64 + g % 2 * 32, g % 4 / 2 * 4, b.h + g / 4 * 32, g % 4 * 2, u);
  }
  TERN_INLINE static void scales(block const& b, index g, float* scale, float*) {
    float const d = b.d;
    scale[0] = d * static_cast<float>(b.s[2 * g]);
    scale[1] = d * static_cast<float>(b.s[2 * g + 1]);
  }
};

}  // namespace TERN_ABI
}  // namespace tern::formats

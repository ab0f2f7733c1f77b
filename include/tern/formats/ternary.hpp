// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/ternary.hpp
/// -1, 0 or 1 times one scale, in blocks of 256: d (q - 1).
///
///     tq1_0: | 48 bytes | 4 bytes | d f16 |      1.6875 bits an element: a byte p holds five digits q of base 3, most significant
///            first, as a fraction p / 256: digit n is floor(3 (p 3^n mod 256) / 256). Of bytes 0 to 31, digit n is element 32 n + j;
///            of bytes 32 to 47, element 160 + 16 n + j; of the last four bytes, which hold four digits, element 240 + 4 n + j.
///     tq2_0: | 64 bytes | d f16 |                2.0625 bits an element: element 128 h + 32 r + j is byte 32 h + j >> 2 r & 3, where
///            3 means 2 d (no encoder writes it)
///
/// Decoding is exact for every block. Encoding: d is the block's largest magnitude and each element goes to the nearest of -d, 0
/// and d, halves away from zero: the error is at most half the largest magnitude, beside what f16 rounds of d. NaN counts as 0;
/// where the largest magnitude is more than f16 holds, or infinite, d is 65504. Source: GGUF files' type 34 and 35.

#include <tern/formats/scale_search.hpp>

namespace tern::formats {
inline namespace TERN_ABI {

namespace detail {
struct ternary_codes {
  f16 d;
  std::uint8_t u[256];
};
TERN_INLINE ternary_codes encode_ternary(float const* in) {
  float x[256];
  take_finite(in, 256, 0x1.fffffep127f, x);
  float const d = __builtin_fabsf(extremes_of(x, 256).farthest);
  ternary_codes c;
  c.d = nearest_f16(d);
  for (int i = 0; i < 256; ++i) {
    float const twice = x[i] / d * 2.f;  // NaN if d is 0
    c.u[i] = static_cast<std::uint8_t>(1 + (twice >= 1.f) - (twice <= -1.f));
  }
  return c;
}
}  // namespace detail

/// 256 elements in 54 bytes, five to a byte: d (q - 1).
struct tq1_0 {
  struct block {
    std::uint8_t q[48];
    std::uint8_t h[4];
    f16 d;
  };
  static_assert(sizeof(block) == 54);
  static constexpr index elements = 256;
  static constexpr index granule = 32;
  static constexpr int codes = 3;
  static constexpr int offset = 1;
  static constexpr bool has_min = false;

  TERN_INLINE static void decode(block const& b, float* out) { detail::decode_parts<tq1_0>(b, out); }
  static block encode(float const* in) {
    auto const c = detail::encode_ternary(in);
    block b;
    b.d = c.d;
    put(b, c.u);
    return b;
  }
  TERN_INLINE static void put(block& b, std::uint8_t const* code) {
    for (int j = 0; j < 32; ++j) b.q[j] = pack(code + j, 32, 5);
    for (int j = 0; j < 16; ++j) b.q[32 + j] = pack(code + 160 + j, 16, 5);
    for (int j = 0; j < 4; ++j) b.h[j] = pack(code + 240 + j, 4, 4);
  }
  TERN_INLINE static void unpack(block const& b, index g, std::uint8_t* u) {
    if (g < 5) return digits(b.q, 32, g, u);
    index const n = 2 * g - 10;
    digits(b.q + 32, 16, n, u);
    if (g < 7) return digits(b.q + 32, 16, n + 1, u + 16);
    for (index i = 0; i < 4; ++i) digits(b.h, 4, i, u + 16 + 4 * i);
  }
  TERN_INLINE static void scales(block const& b, index, float* scale, float*) { scale[0] = b.d; }

 private:
  /// Digit n of each of `count` bytes.
  TERN_INLINE static void digits(std::uint8_t const* p, index count, index n, std::uint8_t* u) {
    constexpr std::uint8_t power[5] = {1, 3, 9, 27, 81};
    for (index j = 0; j < count; ++j) u[j] = static_cast<std::uint8_t>((p[j] * power[n] & 255) * 3 >> 8);
  }
  /// `count` digits, `stride` apart, as the least p for which p / 256 is at least the fraction that they write.
  TERN_INLINE static std::uint8_t pack(std::uint8_t const* u, int stride, int count) {
    int number = 0;
    for (int n = 0; n < 5; ++n) number = 3 * number + (n < count ? u[n * stride] : 0);
    return static_cast<std::uint8_t>((number * 256 + 242) / 243);
  }
};

/// 256 elements in 66 bytes, four to a byte: d (q - 1).
struct tq2_0 {
  struct block {
    std::uint8_t q[64];
    f16 d;
  };
  static_assert(sizeof(block) == 66);
  static constexpr index elements = 256;
  static constexpr index granule = 32;
  static constexpr int codes = 3;
  static constexpr int offset = 1;
  static constexpr bool has_min = false;

  TERN_INLINE static void decode(block const& b, float* out) { detail::decode_parts<tq2_0>(b, out); }
  static block encode(float const* in) {
    auto const c = detail::encode_ternary(in);
    block b{};
    b.d = c.d;
    put(b, c.u);
    return b;
  }
  TERN_INLINE static void put(block& b, std::uint8_t const* code) {
    detail::clear(b.q);
    for (int g = 0; g < 8; ++g) detail::add_bits(code + 32 * g, 2 * (g % 4), b.q + g / 4 * 32);
  }
  TERN_INLINE static void unpack(block const& b, index g, std::uint8_t* u) {
    detail::take_bits(b.q + g / 4 * 32, static_cast<int>(2 * (g % 4)), 3, u);
  }
  TERN_INLINE static void scales(block const& b, index, float* scale, float*) { scale[0] = b.d; }
};

}  // namespace TERN_ABI
}  // namespace tern::formats

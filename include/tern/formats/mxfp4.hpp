// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/mxfp4.hpp
/// Four-bit floating-point elements (a sign, two bits of exponent, one of fraction) in blocks of 32 that share a power of two.
///
///     mxfp4: | e | 16 bytes |      2^(e - 127) v[q],  v = 0 1/2 1 3/2 2 3 4 6 and the same negated, 4.25 bits an element
///            Element j is the low half of byte j, element j + 16 the high half.
///
/// Decoding is exact: no code gives -0, e = 255 is 2^128 (the MX standard's NaN; GGUF files know none) and what is too large
/// becomes infinity. Encoding is the standard's: e is that of the largest magnitude less 2, elements go to the nearest value, ties
/// to the even code, and what is more than 6 becomes 6. The error is at most a quarter of the block's largest magnitude where
/// that is at least 2^-125, and 2^-128 below. NaN counts as 0, infinity as the largest of f32.
/// Source: Open Compute Project, OCP Microscaling Formats (MX) Specification 1.0, 2023, and GGUF files' type 39.

#include <tern/formats/scale_search.hpp>

namespace tern::formats {
inline namespace TERN_ABI {

/// 32 elements in 17 bytes: 4 bits each, 2^(e - 127) v[q].
struct mxfp4 {
  struct block {
    std::uint8_t e;
    std::uint8_t q[16];
  };
  static_assert(sizeof(block) == 17);
  static constexpr index elements = 32;
  static constexpr index granule = 32;
  static constexpr int codes = 16;
  static constexpr int offset = 12;  // integers are 2 v, scales half the power
  static constexpr bool has_min = false;
  static constexpr std::uint8_t levels[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

  TERN_INLINE static void decode(block const& b, float* out) { detail::decode_parts<mxfp4>(b, out); }
  TERN_INLINE static block encode(float const* in) {
    float x[32];
    detail::take_finite(in, 32, 0x1.fffffep127f, x);
    float const largest = __builtin_fabsf(detail::extremes_of(x, 32).farthest);
    int const exponent = static_cast<int>(__builtin_bit_cast(std::uint32_t, largest) >> 23) - 2;
    block b;
    b.e = static_cast<std::uint8_t>(exponent > 0 ? exponent : 0);
    float const inverse = __builtin_bit_cast(float, (254u - b.e) << 23);
    std::uint8_t u[32];
    for (int j = 0; j < 32; ++j) u[j] = nearest(x[j] * inverse);
    put(b, u);
    return b;
  }
  TERN_INLINE static void put(block& b, std::uint8_t const* code) { detail::pack_halves(code, 16, b.q); }
  TERN_INLINE static void unpack(block const& b, index, std::uint8_t* u) { detail::unpack_levels(b.q, levels, u); }
  TERN_INLINE static void scales(block const& b, index, float* scale, float*) {
    // 2^(e - 128): below 2^-126 by the bits of f32's subnormals.
    scale[0] = __builtin_bit_cast(float, b.e < 2 ? 0x200000u << b.e : (b.e - 1u) << 23);
  }

 private:
  TERN_INLINE static std::uint8_t nearest(float x) {
    float const m = __builtin_fabsf(x);
    int const code = (m > 0.25f) + (m >= 0.75f) + (m > 1.25f) + (m >= 1.75f) + (m > 2.5f) + (m >= 3.5f) + (m > 5.f);
    return static_cast<std::uint8_t>(x < 0.f && code != 0 ? code + 8 : code);
  }
};

}  // namespace TERN_ABI
}  // namespace tern::formats

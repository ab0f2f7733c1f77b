// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/q4.hpp
/// Four bits an element, in blocks of 32 with one scale. Element j is the low half of byte j, element j + 16 the high half.
///
///     q4_0: | d f16 | 16 bytes |              d (q - 8)
///     q4_1: | d f16 | m f16 | 16 bytes |      d q + m
///
/// All arithmetic of decoding is exact in f32 but the last addition. Source: GGUF files' type 2 and 3.
///
/// Each format of these headers offers
///     block                           the bytes
///     elements                        of a block
///     decode(block, float* out)       all elements, exact to the bit
///     encode(float const* in)         the format's reference rounding, or a search where its blocks leave a choice
/// and for dot products of integers, where an element is scale * (u - offset) + min with u in [0, 255]:
///     granule                         elements that share a scale and a min
///     offset, has_min                 not both: offset is 0 where there is a min
///     unpack(block, g, u)             the integers of elements 32 g to 32 g + 31
///     scales(block, g, scale, min)    32 / granule of each (min only if has_min)
///     levels                          formats whose codes of four bits choose among 16 integers u: these
/// and for those who choose codes themselves (a code is an integer u or, where there are levels, the number of one):
///     codes                           how many codes there are
///     put(block, code)                writes the codes of all elements and leaves the scales as they are

#include <tern/core/config.hpp>
#include <tern/core/float16.hpp>

#include <cstdint>

namespace tern::formats {
inline namespace TERN_ABI {

namespace detail {
/// Rounds down what is not negative, and is as defined for the rest of the floats (NaN gives 0).
TERN_INLINE int clamp_to_int(float x, int high) { return x >= static_cast<float>(high) ? high : x > 0.f ? static_cast<int>(x) : 0; }

/// Eight bytes at a time.
TERN_INLINE std::uint64_t load8(void const* p) {
  std::uint64_t w;
  __builtin_memcpy(&w, p, 8);
  return w;
}
TERN_INLINE void store8(std::uint8_t* p, std::uint64_t w) { __builtin_memcpy(p, &w, 8); }
inline constexpr std::uint64_t each_byte = 0x0101010101010101u;

/// The low halves of 16 bytes, then the high halves.
TERN_INLINE void unpack_halves(std::uint8_t const* q, std::uint8_t* u) {
  for (int j = 0; j < 16; j += 8) {
    std::uint64_t const w = load8(q + j);
    store8(u + j, w & 15 * each_byte);
    store8(u + 16 + j, (w >> 4) & 15 * each_byte);
  }
}
/// The same halves as choices among `levels`.
TERN_INLINE void unpack_levels(std::uint8_t const* q, std::uint8_t const (&levels)[16], std::uint8_t* u) {
  for (int j = 0; j < 16; ++j) {
    u[j] = levels[q[j] & 15];
    u[j + 16] = levels[q[j] >> 4];
  }
}
/// Codes below 16, of which `n` pairs lie n apart, as low and high halves of n bytes.
TERN_INLINE void pack_halves(std::uint8_t const* u, int n, std::uint8_t* q) {
  for (int j = 0; j < n; ++j) q[j] = static_cast<std::uint8_t>(u[j] | u[j + n] << 4);
}
/// u = q >> shift & mask, for each of 32 bytes; mask: at most 8 - shift bits.
TERN_INLINE void take_bits(std::uint8_t const* q, int shift, unsigned mask, std::uint8_t* u) {
  for (int j = 0; j < 32; j += 8) store8(u + j, (load8(q + j) >> shift) & mask * each_byte);
}
template <std::size_t N>
TERN_INLINE void clear(std::uint8_t (&q)[N]) {
  for (std::uint8_t& byte : q) byte = 0;
}
/// q |= u << shift, for each of 32 bytes; no bit of u leaves its byte.
TERN_INLINE void add_bits(std::uint8_t const* u, int shift, std::uint8_t* q) {
  for (int j = 0; j < 32; j += 8) store8(q + j, load8(q + j) | load8(u + j) << shift);
}
/// out[j] = scale (u[j] - offset) + min: exact but for the last addition.
template <int offset>
TERN_INLINE void decode_codes(std::uint8_t const* u, int n, float scale, float min, float* TERN_RESTRICT out) {
  for (int j = 0; j < n; ++j) out[j] = static_cast<float>(u[j] - offset) * scale + min;
}
template <int offset>
TERN_INLINE void decode_codes(std::uint8_t const* u, int n, float scale, float* TERN_RESTRICT out) {
  for (int j = 0; j < n; ++j) out[j] = static_cast<float>(u[j] - offset) * scale;
}

/// A block by its integers, scales and minima.
template <class Format>
TERN_INLINE void decode_parts(typename Format::block const& b, float* out) {
  constexpr int granule = Format::granule;
  for (index g = 0; g < Format::elements / 32; ++g) {
    std::uint8_t u[32];
    float scale[32 / granule], min[32 / granule];
    Format::unpack(b, g, u);
    Format::scales(b, g, scale, min);
    for (int j = 0; j < 32 / granule; ++j, out += granule) {
      if constexpr (Format::has_min)
        decode_codes<Format::offset>(u + granule * j, granule, scale[j], min[j], out);
      else
        decode_codes<Format::offset>(u + granule * j, granule, scale[j], out);
    }
  }
}

struct extremes {
  float least, most, farthest;  // farthest from zero, with its sign; the first of equals
};
TERN_INLINE extremes extremes_of(float const* x, index n) {
  extremes e{x[0], x[0], 0.f};
  float magnitude = 0.f;
  for (index i = 0; i < n; ++i) {
    if (x[i] < e.least) e.least = x[i];
    if (x[i] > e.most) e.most = x[i];
    if (__builtin_fabsf(x[i]) > magnitude) {
      magnitude = __builtin_fabsf(x[i]);
      e.farthest = x[i];
    }
  }
  return e;
}
}  // namespace detail

/// 32 elements in 18 bytes: 4 bits each, d (q - 8).
struct q4_0 {
  struct block {
    f16 d;
    std::uint8_t q[16];
  };
  static_assert(sizeof(block) == 18);
  static constexpr index elements = 32;
  static constexpr index granule = 32;
  static constexpr int codes = 16;
  static constexpr int offset = 8;
  static constexpr bool has_min = false;

  TERN_INLINE static void decode(block const& b, float* out) { detail::decode_parts<q4_0>(b, out); }
  TERN_INLINE static block encode(float const* in) {
    float const d = detail::extremes_of(in, 32).farthest / -8.f;
    float const inverse = d != 0.f ? 1.f / d : 0.f;
    std::uint8_t u[32];
    for (int j = 0; j < 32; ++j) u[j] = static_cast<std::uint8_t>(detail::clamp_to_int(in[j] * inverse + 8.5f, 15));
    block b;
    b.d = f16(d);
    put(b, u);
    return b;
  }
  TERN_INLINE static void put(block& b, std::uint8_t const* code) { detail::pack_halves(code, 16, b.q); }
  TERN_INLINE static void unpack(block const& b, index, std::uint8_t* u) { detail::unpack_halves(b.q, u); }
  TERN_INLINE static void scales(block const& b, index, float* scale, float*) { scale[0] = b.d; }
};

/// 32 elements in 20 bytes: 4 bits each, d q + m.
struct q4_1 {
  struct block {
    f16 d, m;
    std::uint8_t q[16];
  };
  static_assert(sizeof(block) == 20);
  static constexpr index elements = 32;
  static constexpr index granule = 32;
  static constexpr int codes = 16;
  static constexpr int offset = 0;
  static constexpr bool has_min = true;

  TERN_INLINE static void decode(block const& b, float* out) { detail::decode_parts<q4_1>(b, out); }
  TERN_INLINE static block encode(float const* in) {
    detail::extremes const e = detail::extremes_of(in, 32);
    float const d = (e.most - e.least) / 15.f;
    float const inverse = d != 0.f ? 1.f / d : 0.f;
    std::uint8_t u[32];
    for (int j = 0; j < 32; ++j) u[j] = static_cast<std::uint8_t>(detail::clamp_to_int((in[j] - e.least) * inverse + 0.5f, 15));
    block b;
    b.d = f16(d);
    b.m = f16(e.least);
    put(b, u);
    return b;
  }
  TERN_INLINE static void put(block& b, std::uint8_t const* code) { detail::pack_halves(code, 16, b.q); }
  TERN_INLINE static void unpack(block const& b, index, std::uint8_t* u) { detail::unpack_halves(b.q, u); }
  TERN_INLINE static void scales(block const& b, index, float* scale, float* min) {
    scale[0] = b.d;
    min[0] = b.m;
  }
};

}  // namespace TERN_ABI
}  // namespace tern::formats

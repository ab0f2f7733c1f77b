// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/kv_tiles.hpp
/// A cache of keys and values in 8 or 4 bits, laid out so that decoding a token reads it at the speed of memory. Keys and values have
/// layouts of their own, and each side its own number of bits:
///
///     format     side    bytes an element    step                    |decoded - x| at most
///     keys8      keys    1.0625              d = max |x| / 127       d / 2 + 2^-11 |x|
///     keys4      keys    0.5625              16 d, d = max |x| / 120  8 d   + 2^-11 |x|
///     values8    values  1.0625              as keys8
///     values4    values  0.5625              as keys4
///
/// An element is d c with an integer c in [-127, 127] (8 bits), or c = 16 n + 8 with n in [-8, 7] (4 bits: the middle of sixteen
/// 8-bit codes, so that both widths meet the same instructions). d is an f16 for each token and 32 elements, the block over which
/// the maximum goes. It is zero for zeros and NaN where the block holds infinity, NaN, or more than 7.8e6: the block then decodes as NaN.
///
/// A tile holds 64 tokens of one key head; dim is a multiple of 32. Tiles are multiples of 64 bytes and want to be aligned to that.
/// A line below is 64 bytes. The layout does not depend on the machine that wrote it (but for the order of bytes in an f16: little).
///
///     keys: twice (tokens 0 to 31, then 32 to 63)
///       for each block of 32 elements
///         | d of 32 tokens |                                               1 line
///         | 4 elements of tokens 0, 1, ... 15 | of tokens 16, ... 31 | x 8   2 lines each: byte 4 t + e of a line is c + 128
///       4 bits: the 2 lines are one; its high halves of bytes are tokens 16 to 31, the low ones 0 to 15, n + 8 each
///
///     values: for each block of 32 elements
///         | d of 64 tokens |                                               2 lines
///         | elements 0, 1, ... 15 of 4 tokens | 16, ... 31 of the same | x 16   2 lines each: byte 4 e + m of a line is c of
///                                                                        token g + 16 m, g = 0, ... 15
///       4 bits: the 2 lines are one; its high halves of bytes are elements 16 to 31, the low ones 0 to 15, n each
///
/// So 32-bit lanes stand for tokens in the scores and for elements in the sum of values, integer dot products add four bytes to
/// each, and a scale is applied once in 8 of them.
///
/// A token is written in place, whatever is in the rest of its tile, and no other token changes. Appending one by one gives the
/// bytes that writing all at once gives. Memory need not be initialized; what lies behind the last token is never used.

#include <tern/core/error.hpp>
#include <tern/core/tensor_view.hpp>
#include <tern/simd/convert.hpp>

namespace tern {
namespace formats {
inline namespace TERN_ABI {

namespace detail {
/// 32 elements as bytes c and the scale d.
struct kv_codes {
  f16 scale;
  std::int8_t c[32];
};
/// Rounds 32 elements, halves away from zero.
template <int bits>
TERN_INLINE kv_codes kv_encode(float const* x) {
  float most = 0;
  bool numbers = true;
  for (index i = 0; i < 32; ++i) {
    float const a = __builtin_fabsf(x[i]);
    numbers &= a <= 7.8e6f;
    most = a > most ? a : most;
  }
  kv_codes to;
  to.scale = numbers ? f16(most / (bits == 8 ? 127.f : 120.f)) : f16::from_bits(0x7e00);
  float const inverse = to.scale > 0.f ? (bits == 8 ? 127.f : 7.5f) / most : 0.f;
  for (index i = 0; i < 32; ++i) {
    float const y = numbers ? x[i] * inverse : 0.f;  // in [-127, 127] or [-7.5, 7.5], give or take a rounding
    if constexpr (bits == 8) {
      float const n = y + (y < 0.f ? -0.5f : 0.5f);
      to.c[i] = static_cast<std::int8_t>(n >= 127.f ? 127 : n <= -127.f ? -127 : static_cast<int>(n));
    } else {
      float const n = y + 8.f;
      to.c[i] = static_cast<std::int8_t>((n >= 15.f ? 15 : n > 0.f ? static_cast<int>(n) : 0) * 16 - 120);
    }
  }
  return to;
}

/// What a byte holds: an element of 8 bits, or two of 4 of which `high` is one.
template <int bits>
TERN_INLINE void kv_put(std::uint8_t& byte, bool high, int c) {
  if constexpr (bits == 8)
    byte = static_cast<std::uint8_t>(c);
  else
    byte = static_cast<std::uint8_t>(high ? (byte & 0x0f) | (c & 0xf0) : (byte & 0xf0) | ((c & 0xf0) >> 4));
}
template <int bits>
TERN_INLINE int kv_get(std::uint8_t byte, bool high) {
  if constexpr (bits == 8)
    return byte;
  else
    return (high ? byte & 0xf0 : (byte << 4) & 0xf0) + 8;
}

template <int bits_, bool keys_>
struct kv_format {
  static constexpr int bits = bits_;
  static constexpr bool keys = keys_;
  /// Tokens in a tile.
  static constexpr index tokens = 64;
  /// Elements that share a scale.
  static constexpr index elements = 32;

  /// Bytes of a block: its scales and its codes. Keys have two blocks of 32 tokens in a tile where values have one of 64.
  static constexpr index block_tokens = keys ? 32 : 64;
  static constexpr index scale_bytes = 2 * block_tokens;
  static constexpr index block_bytes = scale_bytes + block_tokens * elements * bits / 8;
  TERN_INLINE static constexpr index tile_bytes(index dim) { return tokens / block_tokens * (dim / elements) * block_bytes; }

  /// Writes elements 32 b, ... 32 b + 31 of token t of a tile.
  TERN_INLINE static void encode(float const* x, index dim, index b, index t, std::byte* tile) {
    auto* const block = reinterpret_cast<std::uint8_t*>(tile) + at(dim, b, t);
    kv_codes const from = kv_encode<bits>(x);
    __builtin_memcpy(block + t % block_tokens * 2, &from.scale, 2);
    for (index e = 0; e < elements; ++e) {
      place const p(e, t % block_tokens);
      kv_put<bits>(block[p.byte], p.high, from.c[e] + (keys ? 128 : 0));
    }
  }
  /// Reads the same, exactly.
  TERN_INLINE static void decode(std::byte const* tile, index dim, index b, index t, float* x) {
    auto const* const block = reinterpret_cast<std::uint8_t const*>(tile) + at(dim, b, t);
    f16 scale;
    __builtin_memcpy(&scale, block + t % block_tokens * 2, 2);
    for (index e = 0; e < elements; ++e) {
      place const p(e, t % block_tokens);
      int const byte = kv_get<bits>(block[p.byte], p.high);
      x[e] = static_cast<float>(keys ? byte - 128 : static_cast<std::int8_t>(byte)) * scale;
    }
  }

 private:
  TERN_INLINE static index at(index dim, index b, index t) { return (t / block_tokens * (dim / elements) + b) * block_bytes; }
  /// Where element e of token t of a block is.
  struct place {
    index byte;
    bool high;
    TERN_INLINE place(index e, index t) {
      index const group = keys ? e / 4 : t % 16;
      index const lane = keys ? t % 16 : e % 16;
      index const part = keys ? e % 4 : t / 16;
      high = (keys ? t : e) >= 16;
      byte = scale_bytes + (bits == 8 ? group * 128 + (high ? 64 : 0) : group * 64) + 4 * lane + part;
    }
  };
};
}  // namespace detail

/// Keys in 8 bits: 136 bytes for a token of 128 elements.
using keys8 = detail::kv_format<8, true>;
/// Keys in 4 bits: 72 bytes for a token of 128 elements.
using keys4 = detail::kv_format<4, true>;
/// Values in 8 bits: 136 bytes for a token of 128 elements.
using values8 = detail::kv_format<8, false>;
/// Values in 4 bits: 72 bytes for a token of 128 elements.
using values4 = detail::kv_format<4, false>;

}  // namespace TERN_ABI
}  // namespace formats

inline namespace TERN_ABI {

/// The keys or the values of a cache, in tiles of one of the formats above. Does not own its memory.
template <class Format>
struct kv_tiles {
  using format = Format;
  std::byte* data;
  index kv_heads, tokens, dim;
  index head_stride;  // bytes between heads: at least bytes(room for tokens, dim)

  /// The bytes of `tokens` tokens of one head.
  TERN_INLINE static constexpr index bytes(index tokens, index dim) {
    return (tokens + Format::tokens - 1) / Format::tokens * Format::tile_bytes(dim);
  }
  /// The tile of head h that holds token t.
  TERN_INLINE std::byte* tile(index h, index t) const { return data + h * head_stride + t / Format::tokens * Format::tile_bytes(dim); }

  /// Writes tokens at, at + 1, ... of all heads from rows (kv_heads, count, dim) of f32, f16 or bf16, whose elements are contiguous.
  /// The memory has to have room for them.
  template <class T, int Rank>
    requires(Rank == 3 && float_storage<T>)
  void append(index at, tensor_view<T, Rank> const& rows) const {
    check(at, rows.extent(0), rows.extent(2), rows.stride(2));
    for (index h = 0; h < kv_heads; ++h)
      for (index t = 0; t < rows.extent(1); ++t)
        for (index b = 0; b < dim / Format::elements; ++b) {
          T const* const from = rows.data() + h * rows.stride(0) + t * rows.stride(1) + b * Format::elements;
          float x[Format::elements];
          for (index e = 0; e < Format::elements; ++e) x[e] = static_cast<float>(from[e]);
          Format::encode(x, dim, b, (at + t) % Format::tokens, tile(h, at + t));
        }
  }
  /// Token t of head h as dim floats, exactly as the format says.
  TERN_INLINE void decode(index h, index t, float* x) const {
    for (index b = 0; b < dim / Format::elements; ++b) Format::decode(tile(h, t), dim, b, t % Format::tokens, x + b * Format::elements);
  }

 private:
  TERN_INLINE void check(index at, index heads, index elements, index stride) const {
    constexpr char const* op = "kv_tiles::append";
    tern::detail::expect(dim % Format::elements == 0, op, "dim", dim, "a multiple of 32");
    tern::detail::expect(at >= 0, op, "at", at, "at least 0");
    tern::detail::expect_equal(op, "rows.extent(0)", heads, "kv_heads", kv_heads);
    tern::detail::expect_equal(op, "rows.extent(2)", elements, "dim", dim);
    tern::detail::expect(elements <= 1 || stride == 1, op, "the stride of rows' last dimension", stride, "1 (contiguous rows)");
  }
};

}  // namespace TERN_ABI
}  // namespace tern

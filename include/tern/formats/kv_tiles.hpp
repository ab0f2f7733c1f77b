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
#include <tern/simd/reduce.hpp>
#include <tern/simd/rows.hpp>
#include <tern/simd/shuffle.hpp>

namespace tern {
namespace formats {
inline namespace TERN_ABI {

namespace detail {
/// 32 elements as bytes c and the scale d.
struct kv_codes {
  f16 scale;
  std::int8_t c[32];
};
/// Rounds 32 elements to the nearest.
template <int bits>
TERN_INLINE kv_codes kv_encode(float const* x) {
  using packf = simd::pack<float>;
  using packi = simd::pack<std::int32_t>;
  constexpr index W = simd::lanes;
  packf largest(0.f), nothing(0.f);  // x - x: NaN where there is no number
  for (index i = 0; i < 32; i += W) {
    packf const v = simd::load(x + i);
    largest = simd::max(largest, simd::abs(v));
    nothing = nothing + (v - v);
  }
  float const most = simd::reduce_max(largest);
  bool const numbers = simd::all(nothing == packf(0.f)) && most <= 7.8e6f;
  kv_codes to;
  to.scale = numbers ? f16(most / (bits == 8 ? 127.f : 120.f)) : f16::from_bits(0x7e00);
  packf const inverse(to.scale > 0.f ? (bits == 8 ? 127.f : 7.5f) / most : 0.f);
  for (index i = 0; i < 32; i += W) {
    // In [-127, 127] or [-7.5, 7.5], give or take a rounding.
    packf const y = numbers ? simd::load(x + i) * inverse : packf(0.f);
    if constexpr (bits == 8) {
      simd::store_low_bytes(to.c + i, simd::to_int(y));
    } else {
      packi const n = simd::to_int(simd::min(simd::max(y + packf(7.5f), packf(0.f)), packf(15.f)));
      simd::store_low_bytes(to.c + i, simd::shift_left<4>(n) - packi(120));
    }
  }
  return to;
}

/// What may be done beside the gathering of a tile, a little in each of its turns: here nothing.
struct no_turns {
  TERN_INLINE void turn() const {}
};
/// A token of a tile.
struct tile_token {
  std::byte const* tile;
  index t;
};

/// The f16 `offset` bytes behind from[0], ... from[3], with one store.
TERN_INLINE void copy_four_scales(std::uint8_t const* const* from, index offset, std::uint8_t* to) {
  std::uint64_t four = 0;
  TERN_UNROLL
  for (int i = 0; i < 4; ++i) {
    std::uint16_t scale;
    __builtin_memcpy(&scale, from[i] + offset, 2);
    four |= std::uint64_t{scale} << 16 * i;
  }
  __builtin_memcpy(to, &four, 8);
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
    put(kv_encode<bits>(x), t % block_tokens, reinterpret_cast<std::uint8_t*>(tile) + at(dim, b, t));
  }
  /// Reads the same, exactly.
  TERN_INLINE static void decode(std::byte const* tile, index dim, index b, index t, float* x) {
    kv_codes const from = get(reinterpret_cast<std::uint8_t const*>(tile) + at(dim, b, t), t % block_tokens);
    for (index e = 0; e < elements; ++e) x[e] = static_cast<float>(from.c[e]) * static_cast<float>(from.scale);
  }
  /// Tokens of other tiles become tokens 0, 1, ... of `to`, to the bit; the last one fills what is left. 1 <= count <= 64. Calls
  /// beside.turn() gather_turns(dim) times.
  template <class Beside = no_turns>
  TERN_INLINE static void gather(tile_token const* from, index count, index dim, std::byte* to, Beside&& beside = {}) {
    sources const of(from, count, dim);
    index const blocks = dim / elements;
    for (index t = 0; t < tokens; t += block_tokens) {
      auto* const block = reinterpret_cast<std::uint8_t*>(to) + at(dim, 0, t);
      for (index b = 0; b < blocks; ++b)
        for (index i = 0; i < block_tokens; i += 4) copy_four_scales(of.scale + t + i, b * block_bytes, block + b * block_bytes + 2 * i);
    }
    if constexpr (keys) {
      words const codes(of);
      for (index t = 0; t < tokens; t += block_tokens)
        gather_keys(of, codes, t, blocks, reinterpret_cast<std::uint8_t*>(to) + at(dim, 0, t) + scale_bytes, beside);
    } else {
      gather_values(of, blocks, reinterpret_cast<std::uint8_t*>(to) + scale_bytes, beside);
    }
  }
  TERN_INLINE static constexpr index gather_turns(index dim) {
    return dim / elements * (keys ? tokens / block_tokens * (16 / simd::lanes) * 8 : 16);
  }

 private:
  TERN_INLINE static index at(index dim, index b, index t) { return (t / block_tokens * (dim / elements) + b) * block_bytes; }
  // Keys: four elements are a word, of which tokens 16 to 31 have the high halves of bytes. Values: an element is a byte, or two 16 apart.
  TERN_INLINE static void put(kv_codes const& from, index t, std::uint8_t* block) {
    __builtin_memcpy(block + 2 * t, &from.scale, 2);
    std::uint8_t* const to = block + first_byte(t);
    if constexpr (keys) {
      for (index g = 0; g < 8; ++g) {
        std::uint32_t word;
        __builtin_memcpy(&word, from.c + 4 * g, 4);
        word ^= 0x80808080u;  // c + 128
        if constexpr (bits == 4) {
          std::uint32_t other;
          __builtin_memcpy(&other, to + line * g, 4);
          word = t < 16 ? (other & 0xf0f0f0f0u) | (word >> 4 & 0x0f0f0f0fu) : (other & 0x0f0f0f0fu) | (word & 0xf0f0f0f0u);
        }
        __builtin_memcpy(to + line * g, &word, 4);
      }
    } else {
      for (index e = 0; e < 16; ++e) {
        auto const low = static_cast<std::uint8_t>(from.c[e]), high = static_cast<std::uint8_t>(from.c[e + 16]);
        to[4 * e] = bits == 8 ? low : static_cast<std::uint8_t>((high & 0xf0) | (low >> 4));
        if constexpr (bits == 8) to[4 * e + 64] = high;
      }
    }
  }
  TERN_INLINE static kv_codes get(std::uint8_t const* block, index t) {
    kv_codes to;
    __builtin_memcpy(&to.scale, block + 2 * t, 2);
    std::uint8_t const* const from = block + first_byte(t);
    if constexpr (keys) {
      for (index g = 0; g < 8; ++g) {
        std::uint32_t word;
        __builtin_memcpy(&word, from + line * g, 4);
        if constexpr (bits == 4) word = ((t < 16 ? word << 4 : word) & 0xf0f0f0f0u) | 0x08080808u;
        word ^= 0x80808080u;
        __builtin_memcpy(to.c + 4 * g, &word, 4);
      }
    } else {
      for (index e = 0; e < 16; ++e) {
        std::uint8_t const byte = from[4 * e];
        to.c[e] = static_cast<std::int8_t>(bits == 8 ? byte : (byte << 4 & 0xf0) | 8);
        to.c[e + 16] = static_cast<std::int8_t>(bits == 8 ? from[4 * e + 64] : (byte & 0xf0) | 8);
      }
    }
    return to;
  }
  /// Tokens that are read, each in the first block that has it: its scale, and the line of its codes.
  struct sources {
    std::uint8_t const *scale[tokens], *line[tokens];
    std::int32_t word[tokens], shift[tokens];  // of keys in their line; of codes within bytes or words
    TERN_INLINE sources(tile_token const* from, index count, index dim) {
      for (index i = 0; i < tokens; ++i) {
        tile_token const& of = from[i < count ? i : count - 1];
        index const t = of.t % block_tokens;
        auto const* const block = reinterpret_cast<std::uint8_t const*>(of.tile) + at(dim, 0, of.t);
        scale[i] = block + 2 * t;
        line[i] = block + first_byte(t) - (keys ? t % 16 * 4 : t / 16);
        word[i] = static_cast<std::int32_t>(t % 16);
        shift[i] = static_cast<std::int32_t>(keys ? (bits == 4 ? t / 16 * 4 : 0) : t / 16 * 8);
      }
    }
  };
  /// Words of keys: packs of them, each from the few lines that its tokens lie in.
  class words {
    using packi = simd::pack<std::int32_t>;
    static constexpr index W = simd::lanes;

   public:
    TERN_INLINE explicit words(sources const& of) : of_(of) {
      for (index i = 0; i < tokens; ++i) {
        if (i % W == 0) begin_[i / W] = runs_;
        if (i % W == 0 || of.line[i] != run_[runs_ - 1].line) run_[runs_++] = {of.line[i], {}};
        run_[runs_ - 1].mine[i % W] = -1;
      }
      begin_[tokens / W] = runs_;
    }
    /// Of tokens i, i + 1, ..., `offset` bytes behind those of the first block.
    TERN_INLINE packi load(index i, index offset) const {
      packi const which = simd::load(of_.word + i);
      packi all(0);
      for (index r = begin_[i / W]; r < begin_[i / W + 1]; ++r) {
        auto const table = simd::load_table(reinterpret_cast<float const*>(run_[r].line + offset));
        all = simd::select_bits(simd::load(run_[r].mine), simd::bit_cast<std::int32_t>(simd::lookup(table, which)), all);
      }
      return all;
    }

   private:
    struct run {
      std::uint8_t const* line;
      std::int32_t mine[W];
    };
    sources const& of_;
    run run_[tokens];
    index begin_[tokens / W + 1], runs_ = 0;
  };
  /// Words of 4 elements, of tokens t and t + 16; the first is token `first`.
  template <class Beside>
  TERN_INLINE static void gather_keys(sources const& of, words const& from, index first, index blocks, std::uint8_t* to, Beside& beside) {
    using packi = simd::pack<std::int32_t>;
    packi const low(0x0f0f0f0f), none(0);
    for (index t = 0; t < 16; t += simd::lanes) {
      auto const high_a = none < simd::load(of.shift + first + t), high_b = none < simd::load(of.shift + first + t + 16);
      for (index at = 0; at < blocks * block_bytes; at += block_bytes)
        for (index g = 0; g < 8; ++g) {
          beside.turn();
          packi const x = from.load(first + t, at + line * g), y = from.load(first + t + 16, at + line * g);
          auto* const into = reinterpret_cast<std::int32_t*>(to + at + line * g + 4 * t);
          if constexpr (bits == 4) {
            packi const halves_a = simd::select(high_a, simd::shift_right<4>(x), x),
                        halves_b = simd::select(high_b, y, simd::shift_left<4>(y));
            simd::store(into, (halves_a & low) | (halves_b & packi(~0x0f0f0f0f)));
          } else {
            simd::store(into, x);
            simd::store(into + 16, y);
          }
        }
    }
  }
  /// Lines of 16 elements, of tokens g, g + 16, g + 32, g + 48.
  template <class Beside>
  TERN_INLINE static void gather_values(sources const& of, index blocks, std::uint8_t* to, Beside& beside) {
    using packi = simd::pack<std::int32_t>;
    for (index g = 0; g < 16; ++g)
      for (index at = 0; at < blocks * block_bytes; at += block_bytes) {
        beside.turn();
        for (index e = 0; e < line; e += 4 * simd::lanes) {
          packi w(0);
          TERN_UNROLL
          for (int m = 0; m < 4; ++m) {  // token g + 16 m becomes byte m of the words
            index const i = g + 16 * m;
            packi const words = simd::load(reinterpret_cast<std::int32_t const*>(of.line[i] + at + e));
            w = simd::select_bits(packi(static_cast<std::int32_t>(0xffu << 8 * m)), simd::move_bits(words, 8 * m - of.shift[i]), w);
          }
          simd::store(reinterpret_cast<std::int32_t*>(to + at + line * g + e), w);
        }
      }
  }
  static constexpr index line = bits == 8 ? 128 : 64;  // bytes from a group to the next
  TERN_INLINE static index first_byte(index t) {
    return scale_bytes + (keys ? 4 * (t % 16) + (bits == 8 ? t / 16 * 64 : 0) : line * (t % 16) + t / 16);
  }
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

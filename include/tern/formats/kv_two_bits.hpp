// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/kv_two_bits.hpp
/// A cache in 2 bits: keys with a scale for each channel, whose outliers sit in few channels; values with one for each token.
///
///     format     side    bytes an element    x is about            over                                  |decoded - x| at most
///     keys2      keys    0.3125              m + d c, c in 0 ... 3  64 tokens of an element               d / 2 + 2^-10 max |x|
///     values2    values  0.375               the same               32 elements of a token                the same
///
/// m is the smallest of them and d = (max - min) / 3, both f16. What holds infinity, NaN or more than 6e4 decodes as NaN.
///
/// A tile holds 64 tokens of one key head, as those of formats/kv_tiles.hpp do; dim is a multiple of 32. Values are written token by token.
/// Keys cannot: a scale needs its 64 tokens, so that a tile is written at once, and who appends keeps the latest tokens elsewhere.
/// A line below is 64 bytes; fields of a byte are of two bits, the lowest first.
///
///     keys:   | d of all elements | m of all elements |
///             | 4 elements e of tokens t, t + 16, t + 32, t + 48, for t = 0, ... 15: byte 4 t + e, a field a token | x dim / 4
///     values: for each block of 32 elements
///             | d of 64 tokens | m of 64 tokens |                                                                4 lines
///             | 8 tokens g + 8 u + 16 m of elements e, e + 16, for e = 0, ... 15: byte 4 e + m, fields (e, u = 0), (e, 1), (e + 16, 0),
///               (e + 16, 1) | x 8, g = 0, ... 7                                                                  1 line each
///
/// Source: KIVI (Liu et al. 2024, arXiv:2402.02750): keys by channel, values by token, asymmetric; groups of 32 there.

#include <tern/formats/kv_tiles.hpp>

#include <cstddef>
#include <cstdint>

namespace tern::formats {
inline namespace TERN_ABI {

namespace detail {

/// d and m of numbers, of which there are as many sets as lanes, or one whose parts are lanes.
struct two_bit_scale {
  using packf = simd::pack<float>;
  packf low{__builtin_inff()}, high{-__builtin_inff()}, nothing{0.f};  // x - x: NaN where there is no number

  TERN_INLINE void add(packf x) {
    low = simd::min(low, x);
    high = simd::max(high, x);
    nothing = nothing + (x - x);
  }
  /// Writes step and least, lane by lane.
  TERN_INLINE void write(f16* step, f16* least) const {
    packf const most = simd::max(simd::abs(low), simd::abs(high)), none(__builtin_nanf(""));
    auto const numbers = (nothing == packf(0.f)) & (most <= packf(6e4f));
    simd::store(least, simd::select(numbers, low, none));
    simd::store(step, simd::select(numbers, (high - simd::load(least)) * packf(1 / 3.f), none));
  }
};
/// The nearest codes of x, by 1 / d (0 where d is) and m.
TERN_INLINE simd::pack<std::int32_t> two_bit_codes_of(simd::pack<float> x, simd::pack<float> inverse, simd::pack<float> least) {
  using packf = simd::pack<float>;
  return simd::to_int(simd::min(simd::max((x - least) * inverse, packf(0.f)), packf(3.f)));
}
TERN_INLINE simd::pack<float> inverse_or_zero(simd::pack<float> d) {
  using packf = simd::pack<float>;
  return simd::select(d > packf(0.f), packf(1.f) / d, packf(0.f));
}

TERN_INLINE unsigned field_of(std::uint8_t byte, index field) { return (byte >> (2 * field)) & 3u; }
TERN_INLINE float f16_at(std::uint8_t const* p) {
  f16 x;
  __builtin_memcpy(&x, p, 2);
  return x;
}

}  // namespace detail

/// Keys in 2 bits: 40 bytes for a token of 128 elements.
struct keys2 {
  static constexpr int bits = 2;
  static constexpr bool keys = true;
  static constexpr index tokens = 64;
  static constexpr index elements = 32;

  TERN_INLINE static constexpr index scale_bytes(index dim) { return 4 * dim; }
  TERN_INLINE static constexpr index tile_bytes(index dim) { return scale_bytes(dim) + dim / 4 * 64; }

  /// Writes elements 32 b, ... 32 b + 31 of a tile, from 64 rows of as many floats.
  TERN_INLINE static void encode_tokens(float const* x, index stride, index dim, index b, std::byte* tile) {
    constexpr index W = simd::lanes;
    auto* const step = reinterpret_cast<f16*>(tile) + elements * b;
    f16* const least = step + dim;
    std::uint8_t* const lines = reinterpret_cast<std::uint8_t*>(tile) + scale_bytes(dim) + elements * b * 16;
    for (index e = 0; e < elements; e += W) {
      detail::two_bit_scale of;
      for (index t = 0; t < tokens; ++t) of.add(simd::load(x + t * stride + e));
      of.write(step + e, least + e);
      simd::pack<float> const inverse = detail::inverse_or_zero(simd::load(step + e)), m = simd::load(least + e);
      for (index t = 0; t < 16; ++t) {
        auto const code = [&](index field)
                              TERN_LAMBDA { return detail::two_bit_codes_of(simd::load(x + (t + 16 * field) * stride + e), inverse, m); };
        std::int8_t bytes[W];
        simd::store_low_bytes(bytes,
                              (code(0) | simd::shift_left<2>(code(1))) | (simd::shift_left<4>(code(2)) | simd::shift_left<6>(code(3))));
        constexpr index some = W < 4 ? W : 4;
        for (index i = 0; i < W; i += some) __builtin_memcpy(lines + (e + i) / 4 * 64 + 4 * t + (e + i) % 4, bytes + i, some);
      }
    }
  }
  /// Elements 32 b, ... 32 b + 31 of token t, exactly.
  TERN_INLINE static void decode(std::byte const* tile, index dim, index b, index t, float* x) {
    constexpr index W = simd::lanes;
    auto const* const step = reinterpret_cast<f16 const*>(tile) + elements * b;
    f16 const* const least = step + dim;
    auto const* const lines = reinterpret_cast<std::uint8_t const*>(tile) + scale_bytes(dim) + elements * b * 16 + t % 16 * 4;
    std::uint8_t bytes[elements];
    for (index g = 0; g < elements / 4; ++g) __builtin_memcpy(bytes + 4 * g, lines + 64 * g, 4);
    for (index e = 0; e < elements; e += W) {
      auto const code = simd::shift_right(simd::load_widened(bytes + e), static_cast<int>(t / 16 * 2)) & simd::pack<std::int32_t>(3);
      simd::store(x + e, simd::load(least + e) + simd::load(step + e) * simd::to_float(code));
    }
  }
  /// Tokens of other tiles become tokens 0, 1, ... of `to`, rounded anew; the last one fills what is left. 1 <= count <= 64. Calls
  /// beside.turn() gather_turns(dim) times.
  template <class Beside = detail::no_turns>
  TERN_INLINE static void gather(detail::tile_token const* from, index count, index dim, std::byte* to, Beside&& beside = {}) {
    for (index b = 0; b < dim / elements; ++b) {
      float x[tokens * elements];
      for (index i = 0; i < tokens; ++i) {
        beside.turn();
        detail::tile_token const& of = from[i < count ? i : count - 1];
        decode(of.tile, dim, b, of.t, x + i * elements);
      }
      encode_tokens(x, elements, dim, b, to);
    }
  }
  TERN_INLINE static constexpr index gather_turns(index dim) { return dim / elements * tokens; }
};

/// Values in 2 bits: 48 bytes for a token of 128 elements.
struct values2 {
  static constexpr int bits = 2;
  static constexpr bool keys = false;
  static constexpr index tokens = 64;
  static constexpr index elements = 32;

  static constexpr index scale_bytes = 4 * tokens;
  static constexpr index block_bytes = scale_bytes + tokens * elements / 4;
  TERN_INLINE static constexpr index tile_bytes(index dim) { return dim / elements * block_bytes; }

  /// Writes elements 32 b, ... 32 b + 31 of token t of a tile.
  TERN_INLINE static void encode(float const* x, index, index b, index t, std::byte* tile) {
    constexpr index W = simd::lanes;
    auto* const block = reinterpret_cast<std::uint8_t*>(tile) + b * block_bytes;
    detail::two_bit_scale of;
    for (index e = 0; e < elements; e += W) of.add(simd::load(x + e));
    of.low = simd::pack<float>(simd::reduce_min(of.low));
    of.high = simd::pack<float>(simd::reduce_max(of.high));
    of.nothing = simd::pack<float>(simd::reduce_add(of.nothing));
    f16 step[W], least[W];
    of.write(step, least);
    __builtin_memcpy(block + 2 * t, step, 2);
    __builtin_memcpy(block + 2 * (tokens + t), least, 2);
    simd::pack<float> const inverse = detail::inverse_or_zero(simd::load(step)), m = simd::load(least);
    std::int8_t code[elements];
    for (index e = 0; e < elements; e += W) simd::store_low_bytes(code + e, detail::two_bit_codes_of(simd::load(x + e), inverse, m));
    put(code, t, block);
  }
  /// Reads the same, exactly.
  TERN_INLINE static void decode(std::byte const* tile, index, index b, index t, float* x) {
    auto const* const block = reinterpret_cast<std::uint8_t const*>(tile) + b * block_bytes;
    float const step = detail::f16_at(block + 2 * t), least = detail::f16_at(block + 2 * (tokens + t));
    for (index e = 0; e < elements; ++e) x[e] = least + step * static_cast<float>(detail::field_of(block[byte(e, t)], field(e, t)));
  }
  /// Tokens of other tiles become tokens 0, 1, ... of `to`, to the bit; the last one fills what is left. 1 <= count <= 64. Calls
  /// beside.turn() gather_turns(dim) times.
  template <class Beside = detail::no_turns>
  TERN_INLINE static void gather(detail::tile_token const* from, index count, index dim, std::byte* to, Beside&& beside = {}) {
    std::uint8_t const* line[tokens];  // of a token in the first block
    int shift[tokens];
    auto* const block = reinterpret_cast<std::uint8_t*>(to);
    for (index i = 0; i < tokens; ++i) {
      detail::tile_token const& of = from[i < count ? i : count - 1];
      auto const* const source = reinterpret_cast<std::uint8_t const*>(of.tile);
      for (index b = 0; b < dim / elements; ++b)
        for (index part : {i, tokens + i})
          __builtin_memcpy(block + b * block_bytes + 2 * part, source + b * block_bytes + 2 * (part - i + of.t), 2);
      line[i] = source + byte(0, of.t % 16);
      shift[i] = static_cast<int>(of.t / 16 * 8 + field(0, of.t) * 2);
    }
    for (index g = 0; g < 8; ++g) gather_lines(line, shift, g, dim / elements, block + scale_bytes + 64 * g, beside);
  }
  TERN_INLINE static constexpr index gather_turns(index dim) { return dim / elements * 8; }

 private:
  /// Fields of tokens g + 8 u + 16 m, in each block.
  template <class Beside>
  TERN_INLINE static void gather_lines(std::uint8_t const* const (&line)[tokens], int const (&shift)[tokens], index g, index blocks,
                                       std::uint8_t* to, Beside& beside) {
    using packi = simd::pack<std::int32_t>;
    for (index at = 0; at < blocks * block_bytes; at += block_bytes) {
      beside.turn();
      for (index e = 0; e < 64; e += 4 * simd::lanes) {
        auto const byte = [&](index m) TERN_LAMBDA {
          auto const fields = [&](index i) TERN_LAMBDA {
            return simd::shift_right(simd::load(reinterpret_cast<std::int32_t const*>(line[i] + at + e)), shift[i]) & packi(0x33);
          };
          return fields(g + 16 * m) | simd::shift_left<2>(fields(g + 8 + 16 * m));
        };
        packi const w = (byte(0) | simd::shift_left<8>(byte(1))) | (simd::shift_left<16>(byte(2)) | simd::shift_left<24>(byte(3)));
        simd::store(reinterpret_cast<std::int32_t*>(to + at + e), w);
      }
    }
  }
  /// The codes of token t: two fields of 16 bytes.
  TERN_INLINE static void put(std::int8_t const* code, index t, std::uint8_t* block) {
    int const shift = t % 16 < 8 ? 0 : 2, others = t % 16 < 8 ? 0xcc : 0x33;
    for (index e = 0; e < 16; ++e) {
      std::uint8_t& to = block[byte(e, t)];
      to = static_cast<std::uint8_t>((to & others) | ((code[e] | code[e + 16] << 4) << shift));
    }
  }
  TERN_INLINE static index byte(index e, index t) { return scale_bytes + t % 8 * 64 + e % 16 * 4 + t / 16; }
  TERN_INLINE static index field(index e, index t) { return e / 16 * 2 + t % 16 / 8; }
};

}  // namespace TERN_ABI
}  // namespace tern::formats

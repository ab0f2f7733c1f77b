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
/// Attention of few queries multiplies them as integers: q times d, for each tile, in 8 bits (attention/two_bit_kernels.hpp has the error).
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
#include <tern/simd/shuffle.hpp>

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

/// Tokens of tiles of keys, which become a tile: 32 elements at a time. Only four numbers stand for an element in each tile that is read,
/// so that codes go through a table of four instead of being decoded one by one.
class two_bit_tokens {
  using packf = simd::pack<float>;
  using packi = simd::pack<std::int32_t>;
  static constexpr index tokens = 64, elements = 32, groups = elements / 4, W = simd::lanes;
  static constexpr std::int32_t lowest_field = 0x03030303;

 public:
  static constexpr index turns = elements / W + groups;
  /// The last of `count` tokens fills what is left.
  TERN_INLINE two_bit_tokens(tile_token const* from, index count) {
    index first = 0;
    for (index i = 0; i < tokens; ++i) {
      tile_token const& of = from[i < count ? i : count - 1];
      if (i == 0 || of.tile != tile_[tiles_ - 1]) {
        add_runs(first, i);
        tile_[tiles_++] = of.tile;
        first = i;
      }
      word_[i] = static_cast<std::int32_t>(of.t % 16);
      shift_[i] = static_cast<std::int32_t>(of.t / 16 * 2);
    }
    add_runs(first, tokens);
  }
  /// Writes elements 32 b, ... of the tile `to`. Calls beside.turn() `turns` times.
  template <class Beside>
  TERN_INLINE void write(index dim, index b, std::byte* to, Beside& beside) {
    index const scales = elements * b, lines = 4 * dim + scales * 16;
    read_codes(lines);
    for (index e = 0; e < elements; e += W) {
      beside.turn();
      make_tables(dim, scales, e, reinterpret_cast<f16*>(to) + scales + e);
    }
    translate();
    for (index g = 0; g < groups; ++g) {
      beside.turn();
      write_line(g, reinterpret_cast<std::int32_t*>(to + lines + 64 * g));
    }
  }

 private:
  /// Tokens of one tile in one pack of those that are made.
  struct run {
    index tile, at;
    bool ends;  // the last of its tile
    std::int32_t mine[W];
  };
  TERN_INLINE void add_runs(index first, index end) {
    for (index at = first / W * W; at < end; at += W) {
      run& r = run_[runs_++];
      r.tile = tiles_ - 1;
      r.at = at;
      r.ends = at + W >= end;
      packi const t = simd::iota<std::int32_t>() + packi(static_cast<std::int32_t>(at));
      auto const mine = (packi(static_cast<std::int32_t>(first - 1)) < t) & (t < packi(static_cast<std::int32_t>(end)));
      simd::store(r.mine, simd::select(mine, packi(-1), packi(0)));
    }
  }
  /// Codes as 4 e + c, e the element in its group, and which of them occur in each tile.
  TERN_INLINE void read_codes(index lines) {
    simd::byte_table const bits = simd::load_table(bit_of_code);
    packi seen[groups];
    TERN_UNROLL
    for (index g = 0; g < groups; ++g) seen[g] = packi(0);
    for (index i = 0; i < runs_; ++i) {
      run const& r = run_[i];
      packi const which = simd::load(word_ + r.at), shift = simd::load(shift_ + r.at), mine = simd::load(r.mine);
      std::byte const* const line = tile_[r.tile] + lines;
      TERN_UNROLL
      for (index g = 0; g < groups; ++g) {
        auto const words = simd::lookup(simd::load_table(reinterpret_cast<float const*>(line + 64 * g)), which);
        packi const fields = simd::shift_right(simd::bit_cast<std::int32_t>(words), shift) & packi(lowest_field);
        packi const code = fields | packi(0x0c080400);
        std::int32_t* const to = code_[g] + r.at;
        simd::store(to, simd::select_bits(mine, code, simd::load(static_cast<std::int32_t const*>(to))));
        seen[g] = seen[g] | (simd::bit_cast<std::int32_t>(simd::lookup(bits, simd::bit_cast<std::uint8_t>(code))) & mine);
      }
      if (!r.ends) continue;
      TERN_UNROLL
      for (index g = 0; g < groups; ++g) {
        std::int32_t const all = simd::reduce_or(seen[g]);
        __builtin_memcpy(seen_[r.tile] + 4 * g, &all, 4);
        seen[g] = packi(0);
      }
    }
  }
  /// d and m of elements e, e + 1, ..., and what the codes of each tile become.
  TERN_INLINE void make_tables(index dim, index scales, index e, f16* step) {
    auto const number = [&](index tile, index c) TERN_LAMBDA {
      auto const* const d = reinterpret_cast<f16 const*>(tile_[tile]) + scales + e;
      return simd::fma(simd::load(d), packf(static_cast<float>(c)), simd::load(d + dim));  // exact: c has two bits
    };
    two_bit_scale of;
    for (index i = 0; i < tiles_; ++i) {
      packi const seen = simd::load_widened(seen_[i] + e);
      packf lowest = number(i, 3), highest = number(i, 0);
      for (index c = 1; c < 4; ++c) {
        auto const occurs = [&](index k) TERN_LAMBDA { return packf(0.f) < simd::to_float(seen & packi(1 << k)); };
        lowest = simd::select(occurs(3 - c), number(i, 3 - c), lowest);
        highest = simd::select(occurs(c), number(i, c), highest);
      }
      of.add(lowest);
      of.add(highest);
    }
    of.write(step, step + dim);
    packf const inverse = inverse_or_zero(simd::load(static_cast<f16 const*>(step))),
                least = simd::load(static_cast<f16 const*>(step) + dim);
    for (index i = 0; i < tiles_; ++i) {
      auto const code = [&](index c) TERN_LAMBDA { return two_bit_codes_of(number(i, c), inverse, least); };
      simd::store(table_[i] + e,
                  (code(0) | simd::shift_left<8>(code(1))) | (simd::shift_left<16>(code(2)) | simd::shift_left<24>(code(3))));
    }
  }
  /// Codes to those that they become.
  TERN_INLINE void translate() {
    for (index i = 0; i < runs_; ++i) {
      run const& r = run_[i];
      packi const mine = simd::load(r.mine);
      TERN_UNROLL
      for (index g = 0; g < groups; ++g) {
        std::int32_t* const at = code_[g] + r.at;
        packi const from = simd::load(static_cast<std::int32_t const*>(at));
        auto const table = simd::load_table(reinterpret_cast<std::int8_t const*>(table_[r.tile] + 4 * g));
        packi const code = simd::bit_cast<std::int32_t>(simd::lookup(table, simd::bit_cast<std::uint8_t>(from)));
        simd::store(at, simd::select_bits(mine, code, from));
      }
    }
  }
  TERN_INLINE void write_line(index g, std::int32_t* to) const {
    for (index t = 0; t < 16; t += W) {
      auto const field = [&](index f) TERN_LAMBDA { return simd::load(code_[g] + 16 * f + t); };
      simd::store(to + t, (field(0) | simd::shift_left<2>(field(1))) | (simd::shift_left<4>(field(2)) | simd::shift_left<6>(field(3))));
    }
  }

  static_assert(W <= 16);
  static constexpr std::int8_t bit_of_code[16] = {1, 2, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8};

  std::byte const* tile_[tokens];
  index tiles_ = 0, runs_ = 0;
  run run_[tokens + tokens / W];
  std::int32_t word_[tokens], shift_[tokens];  // of each token in a line, and in the words of one
  std::int32_t code_[groups][tokens];
  std::uint8_t seen_[tokens][elements];   // bit c: code c occurs
  std::int32_t table_[tokens][elements];  // byte c: what becomes of code c
};

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
    detail::two_bit_tokens of(from, count);
    for (index b = 0; b < dim / elements; ++b) of.write(dim, b, to, beside);
  }
  TERN_INLINE static constexpr index gather_turns(index dim) { return dim / elements * detail::two_bit_tokens::turns; }
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
    std::uint8_t const *scale[tokens], *line[tokens];  // of a token in the first block
    int shift[tokens];
    auto* const block = reinterpret_cast<std::uint8_t*>(to);
    for (index i = 0; i < tokens; ++i) {
      detail::tile_token const& of = from[i < count ? i : count - 1];
      auto const* const source = reinterpret_cast<std::uint8_t const*>(of.tile);
      scale[i] = source + 2 * of.t;
      line[i] = source + byte(0, of.t % 16);
      shift[i] = static_cast<int>(of.t / 16 * 8 + field(0, of.t) * 2);
    }
    for (index at = 0; at < dim / elements * block_bytes; at += block_bytes)
      for (index part = at; part <= at + 2 * tokens; part += 2 * tokens)
        for (index i = 0; i < tokens; i += 4) detail::copy_four_scales(scale + i, part, block + part + 2 * i);
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

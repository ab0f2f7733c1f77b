// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/tile_sums.hpp
/// Integer sums of products with the codes of tiles (formats/kv_tiles.hpp): of keys with a query, and of values with weights. Exact.
///
/// Where one instruction multiplies four bytes, codes are dot products' operands as they are. Where several do (AVX2 without VNNI), each
/// width of a code has a form of its own in fewer of them.

#include <tern/formats/kv_tiles.hpp>
#include <tern/simd/dot.hpp>
#include <tern/simd/pair_sums.hpp>
#include <tern/simd/shuffle.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Two packs of 4 codes a lane: lanes from, from + 1, ... of group g's two halves. Values are c. Keys are c + 128; of 4 bits, what a byte
/// has of n + 8: its low half, and its high half, times 16. The middle of a code is added, not set: Zen 4 does three logical steps in one
/// instruction, where it then cannot multiply.
template <class Format>
TERN_INLINE void tile_codes(std::uint8_t const* codes, index g, index from, simd::pack<std::uint8_t> (&x)[2]) {
  static_assert(simd::lanes <= 16);
  using packb = simd::pack<std::uint8_t>;
  if constexpr (Format::bits == 8) {
    // Once, not with each product.
    x[0] = simd::in_register(packb(simd::load_narrow(codes + 128 * g + 4 * from)));
    x[1] = simd::in_register(packb(simd::load_narrow(codes + 128 * g + 64 + 4 * from)));
  } else {
    packb const y = simd::in_register(packb(simd::load_narrow(codes + 64 * g + 4 * from))), high(std::uint8_t{0xf0}),
                middle(std::uint8_t{8});
    if constexpr (Format::keys) {
      x[0] = y & packb(std::uint8_t{0x0f});
      x[1] = y & high;
    } else {
      x[0] = simd::add_bytes(simd::bit_cast<std::uint8_t>(simd::shift_left<4>(simd::bit_cast<std::int32_t>(y))) & high, middle);
      x[1] = simd::add_bytes(y & high, middle);
    }
  }
}

/// Sums of z times keys' codes, of which tile_codes makes c: where they start, and what makes them sum z c. z8 is -8 sum z.
template <class Format>
TERN_INLINE void start_key_sums(simd::pack<std::int32_t> z8, simd::pack<std::int32_t> (&acc)[2]) {
  acc[0] = Format::bits == 8 ? simd::shift_left<4>(z8) : z8;
  acc[1] = Format::bits == 8 ? simd::shift_left<4>(z8) : simd::shift_left<4>(z8) - z8;
}
template <class Format>
TERN_INLINE simd::pack<std::int32_t> end_key_sum(simd::pack<std::int32_t> acc, index half, simd::pack<std::int32_t> z8) {
  return Format::bits == 8 || half == 1 ? acc : simd::shift_left<4>(acc) - z8;
}

/// Sums of 32 elements of keys, two packs of tokens for each of R rows: z c. Where dot products of bytes take several instructions. z8 is
/// -8 sum z for each row.
template <int R, class Format>
struct key_sums;
/// |z| <= 127, so that signs can move from codes of 8 bits to z.
template <int R, class Format>
  requires(simd::has_pair_sums && Format::bits == 8)
struct key_sums<R, Format> {
  simd::pack<std::int32_t> acc[R][2];

  TERN_INLINE explicit key_sums(std::int32_t const*) {
    TERN_UNROLL
    for (index i = 0; i < 2 * R; ++i) acc[i / 2][i % 2] = simd::pack<std::int32_t>(0);
  }
  TERN_INLINE void add(std::uint8_t const* codes, index g, index from, std::int32_t const* z) {
    simd::pack<std::uint8_t> x[2];
    tile_codes<Format>(codes, g, from, x);
    auto const factor = [&](index i) TERN_LAMBDA {
      return simd::signed_factor(simd::bit_cast<std::int8_t>(x[i] ^ simd::pack<std::uint8_t>(std::uint8_t{0x80})));
    };
    simd::signed_factor const of[2] = {factor(0), factor(1)};
    TERN_UNROLL
    for (index r = 0; r < R; ++r) {
      simd::pack<std::int8_t> const y = simd::splat4<std::int8_t>(z[r]);
      TERN_UNROLL
      for (index i = 0; i < 2; ++i) acc[r][i] = simd::dot127(acc[r][i], of[i], y);
    }
  }
  TERN_INLINE simd::pack<std::int32_t> end(index r, index half, std::int32_t const*) const { return acc[r][half]; }
};
/// n + 8 <= 15: the sums of all 32 elements fit 16 bits, 16 * 15 * 127 = 30480.
template <int R, class Format>
  requires(simd::has_pair_sums && Format::bits == 4)
struct key_sums<R, Format> {
  simd::pack_of_words acc[R][2];

  TERN_INLINE explicit key_sums(std::int32_t const*) {
    TERN_UNROLL
    for (index i = 0; i < 2 * R; ++i) acc[i / 2][i % 2] = simd::no_words();
  }
  TERN_INLINE void add(std::uint8_t const* codes, index g, index from, std::int32_t const* z) {
    using packb = simd::pack<std::uint8_t>;
    packb const y = simd::in_register(packb(simd::load_narrow(codes + 64 * g + 4 * from)));
    packb const x[2] = {y & packb(std::uint8_t{0x0f}), simd::shift_right<4>(y)};
    TERN_UNROLL
    for (index r = 0; r < R; ++r) {
      simd::pack<std::int8_t> const q = simd::splat4<std::int8_t>(z[r]);
      TERN_UNROLL
      for (index i = 0; i < 2; ++i) acc[r][i] = simd::add_byte_pairs(acc[r][i], x[i], q);
    }
  }
  /// Of 16 n + 8.
  TERN_INLINE simd::pack<std::int32_t> end(index r, index half, std::int32_t const* z8) const {
    using packi = simd::pack<std::int32_t>;
    packi const z(z8[r]);
    return simd::shift_left<4>(simd::add_words(z, acc[r][half])) - z;
  }
};

/// Sums of w c over the tokens of a tile, for two packs of elements and R rows. Where dot products of bytes take several instructions.
template <int R, class Format>
struct value_sums;
/// w reaches 255, and pairs of products with codes of 8 bits do not fit 16 bits.
template <int R, class Format>
  requires(simd::has_pair_sums && Format::bits == 8)
struct value_sums<R, Format> {
  simd::pack<std::int32_t> acc[R][2];

  TERN_INLINE value_sums() {
    TERN_UNROLL
    for (index r = 0; r < R; ++r) acc[r][0] = acc[r][1] = simd::pack<std::int32_t>(0);
  }
  /// of.w[r]: the weights of a row, in words g and 16 + g (tile_integers).
  template <class Integers>
  TERN_INLINE void add(std::uint8_t const* codes, index g, index from, Integers const& of) {
    simd::pack<std::uint8_t> x[2];
    tile_codes<Format>(codes, g, from, x);
    simd::pack_of_words even[2], odd[2];
    TERN_UNROLL
    for (index i = 0; i < 2; ++i) {
      even[i] = simd::even_words(simd::bit_cast<std::int8_t>(x[i]));
      odd[i] = simd::odd_words(simd::bit_cast<std::int8_t>(x[i]));
    }
    TERN_UNROLL
    for (index r = 0; r < R; ++r) {
      auto const y = simd::splat_words(of.w[r][g]), z = simd::splat_words(of.w[r][16 + g]);
      TERN_UNROLL
      for (index i = 0; i < 2; ++i) acc[r][i] = simd::add_word_products(simd::add_word_products(acc[r][i], even[i], y), odd[i], z);
    }
  }
  TERN_INLINE void pause() {}
  TERN_INLINE simd::pack<std::int32_t> end(index r, index half) const { return acc[r][half]; }
};
/// c / 8 = 2 n + 1 of 4 bits is at most 15 and has four times fit 16 bits: 8 * 15 * 255 = 30600.
template <int R, class Format>
  requires(simd::has_pair_sums && Format::bits == 4)
struct value_sums<R, Format> {
  simd::pack<std::int32_t> acc[R][2];
  simd::pack_of_words sum[R][2];
  simd::byte_table odd;

  TERN_INLINE value_sums() {
    static constexpr std::int8_t odds[16] = {1, 3, 5, 7, 9, 11, 13, 15, -15, -13, -11, -9, -7, -5, -3, -1};
    odd = simd::load_table(odds);
    TERN_UNROLL
    for (index i = 0; i < 2 * R; ++i) {
      acc[i / 2][i % 2] = simd::pack<std::int32_t>(0);
      sum[i / 2][i % 2] = simd::no_words();
    }
  }
  /// of.w[r]: the weights of a row, four a word.
  template <class Integers>
  TERN_INLINE void add(std::uint8_t const* codes, index g, index from, Integers const& of) {
    using packb = simd::pack<std::uint8_t>;
    packb const y = simd::in_register(packb(simd::load_narrow(codes + 64 * g + 4 * from)));
    simd::pack<std::int8_t> const x[2] = {simd::lookup(odd, y & packb(std::uint8_t{0x0f})), simd::lookup(odd, simd::shift_right<4>(y))};
    TERN_UNROLL
    for (index r = 0; r < R; ++r) {
      packb const w = simd::splat4<std::uint8_t>(of.w[r][g]);
      TERN_UNROLL
      for (index i = 0; i < 2; ++i) sum[r][i] = simd::add_byte_pairs(sum[r][i], w, x[i]);
    }
  }
  TERN_INLINE void pause() {
    TERN_UNROLL
    for (index i = 0; i < 2 * R; ++i) {
      acc[i / 2][i % 2] = simd::add_words(acc[i / 2][i % 2], sum[i / 2][i % 2]);
      sum[i / 2][i % 2] = simd::no_words();
    }
  }
  TERN_INLINE simd::pack<std::int32_t> end(index r, index half) const { return simd::shift_left<3>(acc[r][half]); }
};

}  // namespace TERN_ABI
}  // namespace tern::detail

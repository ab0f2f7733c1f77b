// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/super_blocks.hpp
/// Blocks of 256 elements in registers, `lanes` rows at once, a row a lane: what the scales of a block's eight groups of 32 columns share
/// is found for all rows together, then its codes are visited in the order in which they lie: each byte is loaded once, whatever the groups
/// that share it.

#include <tern/matmul/row_group.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

TERN_INLINE row_words byte_of(row_words a, int i) { return bits_of(a, 8 * i, 255); }
TERN_INLINE row_words signed_byte_of(row_words a, int i) { return simd::shift_right<24>(simd::shift_left(a, 24 - 8 * i)); }
/// A byte in all bytes.
TERN_INLINE row_words each_byte(int byte) { return row_words(0x01010101 * byte); }
/// Bits moved to the left, or to the right where n < 0. What comes from a neighboring byte is for the caller to leave out.
TERN_INLINE row_words moved_left(row_words a, int n) { return n > 0 ? simd::shift_left(a, n) : n < 0 ? simd::shift_right(a, -n) : a; }
/// The bits of every byte from `shift` on that `mask` has.
TERN_INLINE simd::pack<std::uint8_t> field_of(row_words a, int shift, int mask) {
  return simd::bit_cast<std::uint8_t>(moved_left(a, -shift)) & simd::pack<std::uint8_t>(static_cast<std::uint8_t>(mask));
}

/// Scales and minima of a block of each row: what all parts share, and the words that hold the parts' own integers, from which those of a
/// part are made where they are needed: 16 or 32 of them kept would fill the registers.
template <class Format>
struct super_scales {
  row_words w[4];
  simd::pack<float> d, negative_e;  // negative_e: formats with a minimum
  /// Those of 32 columns.
  TERN_INLINE row_scales<Format::granule> of_group(int g) const;
};

// For each format: `find_scales` for a block of each row, `scale_code` and `min_code` of a part (none: one scale for all), and
// `visit_codes`, which hands all codes of a block to `to` in registers. The layouts are those of formats/k_quants.hpp and its neighbours.
//
//     to.take(part, w, shift, mask)    columns 16 part to 16 part + 15 of each row: column 4 j + i is byte i of the row's word w[j],
//                                      >> shift & mask
//     to.take_digits(part, w, next)    the same in base 3: column 4 j + i is 3 p / 256 rounded down, p being byte i of w[j]; next: the
//                                      bytes 3 p mod 256
//
// Within 32 columns, the first 16 come first.

/// d, e and twelve bytes of six-bit scales and minima: q4_k and q5_k. They become whole bytes, of parts 0 to 3 and 4 to 7: w[0] and w[1] of
/// scales, w[2] and w[3] of minima.
template <class Format, class Blocks>
TERN_INLINE void find_six_bits(Blocks const& b, super_scales<Format>& out) {
  row_words w[4];
  b.words(0, w);
  out.d = simd::low_f16(w[0]);
  out.negative_e = -simd::high_f16(w[0]);
  auto const upper = [](row_words c) TERN_LAMBDA { return simd::shift_right(c, 2) & each_byte(48); };
  out.w[0] = w[1] & each_byte(63);
  out.w[1] = (w[3] & each_byte(15)) | upper(w[1]);
  out.w[2] = w[2] & each_byte(63);
  out.w[3] = (simd::shift_right(w[3], 4) & each_byte(15)) | upper(w[2]);
}
TERN_INLINE row_words scale_code(formats::q4_k, row_words const (&w)[4], int g) { return byte_of(w[g / 4], g % 4); }
TERN_INLINE row_words min_code(formats::q4_k, row_words const (&w)[4], int g) { return byte_of(w[2 + g / 4], g % 4); }
template <class Blocks>
TERN_INLINE void find_scales(formats::q4_k, Blocks const& b, super_scales<formats::q4_k>& out) {
  find_six_bits(b, out);
}
template <class Blocks, class To>
TERN_INLINE void visit_codes(formats::q4_k, Blocks const& b, To& to) {
  TERN_UNROLL
  for (int i = 0; i < 4; ++i) {
    TERN_UNROLL
    for (int h = 0; h < 2; ++h) {
      row_words w[4];
      b.words(16 + 32 * i + 16 * h, w);
      to.take(4 * i + h, w, 0, 15);
      to.take(4 * i + 2 + h, w, 4, 15);
    }
  }
}

TERN_INLINE row_words scale_code(formats::q5_k, row_words const (&w)[4], int g) { return byte_of(w[g / 4], g % 4); }
TERN_INLINE row_words min_code(formats::q5_k, row_words const (&w)[4], int g) { return byte_of(w[2 + g / 4], g % 4); }
template <class Blocks>
TERN_INLINE void find_scales(formats::q5_k, Blocks const& b, super_scales<formats::q5_k>& out) {
  find_six_bits(b, out);
}
template <class Blocks, class To>
TERN_INLINE void visit_codes(formats::q5_k, Blocks const& b, To& to) {
  TERN_UNROLL
  for (int h = 0; h < 2; ++h) {
    row_words top[4];
    b.words(16 + 16 * h, top);
    TERN_UNROLL
    for (int i = 0; i < 4; ++i) {
      row_words w[4];
      b.words(48 + 32 * i + 16 * h, w);
      TERN_UNROLL
      for (int r = 0; r < 2; ++r) {
        int const g = 2 * i + r;
        row_words u[4];
        TERN_UNROLL
        for (int j = 0; j < 4; ++j) u[j] = simd::select_bits(each_byte(16), moved_left(top[j], 4 - g), moved_left(w[j], -4 * r));
        to.take(2 * g + h, u, 0, 31);
      }
    }
  }
}

TERN_INLINE row_words scale_code(formats::q2_k, row_words const (&w)[4], int part) { return bits_of(w[part / 4], 8 * (part % 4), 15); }
TERN_INLINE row_words min_code(formats::q2_k, row_words const (&w)[4], int part) { return bits_of(w[part / 4], 8 * (part % 4) + 4, 15); }
template <class Blocks>
TERN_INLINE void find_scales(formats::q2_k, Blocks const& b, super_scales<formats::q2_k>& out) {
  b.words(0, out.w);
  row_words const head = b.word(80);
  out.d = simd::low_f16(head);
  out.negative_e = -simd::high_f16(head);
}
/// Two bits: columns 128 i + 32 r + j have bits 2 r of byte at + 32 i + j.
template <class Blocks, class To>
TERN_INLINE void visit_pairs(Blocks const& b, index at, To& to) {
  TERN_UNROLL
  for (int i = 0; i < 2; ++i) {
    TERN_UNROLL
    for (int h = 0; h < 2; ++h) {
      row_words w[4];
      b.words(at + 32 * i + 16 * h, w);
      TERN_UNROLL
      for (int r = 0; r < 4; ++r) to.take(8 * i + 2 * r + h, w, 2 * r, 3);
    }
  }
}
template <class Blocks, class To>
TERN_INLINE void visit_codes(formats::q2_k, Blocks const& b, To& to) {
  visit_pairs(b, 16, to);
}

/// Of the last two bytes of q, twelve of scales, d.
TERN_INLINE row_words scale_code(formats::q3_k, row_words const (&w)[4], int part) {
  auto const c = [&](int i) TERN_LAMBDA { return byte_of(w[(i + 2) / 4], (i + 2) % 4); };
  row_words const s = bits_of(c(part % 8), 4 * (part / 8), 15) | simd::shift_left<4>(bits_of(c(8 + part % 4), 2 * (part / 4), 3));
  return s - row_words(32);
}
template <class Blocks>
TERN_INLINE void find_scales(formats::q3_k, Blocks const& b, super_scales<formats::q3_k>& out) {
  out.d = b.last_words(out.w);
}
template <class Blocks, class To>
TERN_INLINE void visit_codes(formats::q3_k, Blocks const& b, To& to) {
  TERN_UNROLL
  for (int h = 0; h < 2; ++h) {
    row_words top[4];
    b.words(16 * h, top);
    TERN_UNROLL
    for (int i = 0; i < 2; ++i) {
      row_words w[4];
      b.words(32 + 32 * i + 16 * h, w);
      TERN_UNROLL
      for (int r = 0; r < 4; ++r) {
        int const g = 4 * i + r, at = r < 2 ? 2 * r : 4;  // where the code comes to lie: mostly where its lower bits are
        row_words u[4];
        TERN_UNROLL
        for (int j = 0; j < 4; ++j)
          u[j] = simd::select_bits(each_byte(4 << at), moved_left(top[j], at + 2 - g), moved_left(w[j], at - 2 * r));
        to.take(2 * g + h, u, at, 7);
      }
    }
  }
}

TERN_INLINE row_words scale_code(formats::q6_k, row_words const (&w)[4], int part) { return signed_byte_of(w[part / 4], part % 4); }
template <class Blocks>
TERN_INLINE void find_scales(formats::q6_k, Blocks const& b, super_scales<formats::q6_k>& out) {
  b.words(192, out.w);
  out.d = b.last_f16();
}
template <class Blocks, class To>
TERN_INLINE void visit_codes(formats::q6_k, Blocks const& b, To& to) {
  TERN_UNROLL
  for (int i = 0; i < 2; ++i) {
    TERN_UNROLL
    for (int h = 0; h < 2; ++h) {
      row_words w[2][4], top[4];
      b.words(64 * i + 16 * h, w[0]);
      b.words(64 * i + 32 + 16 * h, w[1]);
      b.words(128 + 32 * i + 16 * h, top);
      TERN_UNROLL
      for (int r = 0; r < 4; ++r) {
        row_words u[4];
        TERN_UNROLL
        for (int j = 0; j < 4; ++j)
          u[j] = simd::select_bits(each_byte(48), moved_left(top[j], 4 - 2 * r), moved_left(w[r % 2][j], r / 2 * -4));
        to.take(8 * i + 2 * r + h, u, 0, 63);
      }
    }
  }
}

/// Of d, a; four bytes c; codes.
TERN_INLINE row_words scale_code(formats::iq4_xs, row_words const (&w)[4], int g) {
  row_words const s = bits_of(w[1], 4 * g, 15) | simd::shift_left<4>(bits_of(w[0], 16 + 2 * g, 3));
  return s - row_words(32);
}
template <class Blocks>
TERN_INLINE void find_scales(formats::iq4_xs, Blocks const& b, super_scales<formats::iq4_xs>& out) {
  b.words(0, out.w);
  out.d = simd::low_f16(out.w[0]);
}
template <class Blocks, class To>
TERN_INLINE void visit_codes(formats::iq4_xs, Blocks const& b, To& to) {
  auto const table = simd::load_table(reinterpret_cast<std::int8_t const*>(formats::iq4_xs::levels));
  TERN_UNROLL
  for (int g = 0; g < 8; ++g) {
    row_words w[4];
    b.words(8 + 16 * g, w);
    TERN_UNROLL
    for (int h = 0; h < 2; ++h) {
      row_words u[4];
      TERN_UNROLL
      for (int j = 0; j < 4; ++j) u[j] = simd::bit_cast<std::int32_t>(simd::lookup(table, field_of(w[j], 4 * h, 15)));
      to.take(2 * g + h, u, 0, 255);
    }
  }
}

template <class Blocks>
TERN_INLINE void find_scales(formats::tq2_0, Blocks const& b, super_scales<formats::tq2_0>& out) {
  out.d = b.last_f16();
}
template <class Blocks, class To>
TERN_INLINE void visit_codes(formats::tq2_0, Blocks const& b, To& to) {
  visit_pairs(b, 0, to);
}

/// Ternary codes, five to a byte p, a fraction of 256: the first digit, 3 p / 256 rounded down, which two means of 255 - p have as what
/// their upper two bits lack; and what is left for the others.
TERN_INLINE simd::pack<std::uint8_t> first_digit(row_words p) {
  simd::pack<std::uint8_t> const all(std::uint8_t{255}), a = simd::bit_cast<std::uint8_t>(p) ^ all;
  return simd::shift_right<6>(simd::mean_bytes(a, simd::mean_bytes(a, all)) ^ all);
}
TERN_INLINE row_words next_digits(row_words p) {
  auto const bytes = simd::bit_cast<std::uint8_t>(p);
  return simd::bit_cast<std::int32_t>(simd::add_bytes(bytes, simd::add_bytes(bytes, bytes)));
}
template <class Blocks>
TERN_INLINE void find_scales(formats::tq1_0, Blocks const& b, super_scales<formats::tq1_0>& out) {
  out.d = b.last_f16();
}
template <class Blocks, class To>
TERN_INLINE void visit_codes(formats::tq1_0, Blocks const& b, To& to) {
  TERN_UNROLL
  for (int piece = 0; piece < 3; ++piece) {  // bytes 0 to 15, 16 to 31, 32 to 47
    row_words w[4], next[4];
    b.words(16 * piece, w);
    TERN_UNROLL
    for (int n = 0; n < 5; ++n) {
      TERN_UNROLL
      for (int j = 0; j < 4; ++j) next[j] = next_digits(w[j]);
      to.take_digits(piece < 2 ? 2 * n + piece : 10 + n, w, next);
      TERN_UNROLL
      for (int j = 0; j < 4; ++j) w[j] = next[j];
    }
  }
  row_words w[4], digits[5];
  b.last_words(w);  // six bytes of q, four of h, d
  digits[0] = (simd::shift_right<16>(w[2]) & row_words(0xffff)) | simd::shift_left<16>(w[3]);
  TERN_UNROLL
  for (int n = 0; n < 4; ++n) digits[n + 1] = next_digits(digits[n]);
  row_words const first[4] = {digits[0], digits[1], digits[2], digits[3]}, next[4] = {digits[1], digits[2], digits[3], digits[4]};
  to.take_digits(15, first, next);
}

template <class Format>
TERN_INLINE row_scales<Format::granule> super_scales<Format>::of_group(int g) const {
  constexpr int granules = 32 / static_cast<int>(Format::granule);
  row_scales<Format::granule> of;
  TERN_UNROLL
  for (int j = 0; j < granules; ++j) {
    if constexpr (requires { scale_code(Format{}, w, j); })
      of.scale[j] = d * simd::to_float(scale_code(Format{}, w, g * granules + j));
    else
      of.scale[j] = d;
    if constexpr (Format::has_min) of.min[j] = negative_e * simd::to_float(min_code(Format{}, w, g * granules + j));
  }
  return of;
}

/// `lanes` rows of blocks of 32, group after group. Rows: at(b) is block b of each row.
template <class Format, class Rows>
struct block_walk {
  Rows rows;
  TERN_INLINE explicit block_walk(Rows const& r) : rows(r) {}
  TERN_INLINE void load(index g, row_group<Format::granule>& out) { load_group(Format{}, rows.at(g), out); }
};
/// The same of blocks of 256, block after block.
template <class Format, class Rows>
  requires(Format::elements == 256)
struct block_walk<Format, Rows> {
  using format = Format;
  static constexpr index groups = 8;  // of a block
  Rows rows;
  TERN_INLINE explicit block_walk(Rows const& r) : rows(r) {}
  /// visit_codes with what `make`, called with the block's scales, returns.
  template <class Make>
  TERN_INLINE auto visit(index block, Make const& make) const {
    auto const b = rows.at(block);
    super_scales<Format> scales;
    find_scales(Format{}, b, scales);
    auto to = make(scales);
    visit_codes(Format{}, b, to);
    return to;
  }
};
/// Whether a walk goes by such blocks.
template <class Walk>
inline constexpr bool walks_blocks = requires { Walk::groups; };

/// Weights that have no such state.
template <class W>
struct plain_walk {
  W const& w;
  index n;
  TERN_INLINE void load(index g, row_group<W::granule>& out) { load_rows(w, n, g, out); }
};
/// Rows as the file has them.
template <class Format>
struct strided_rows {
  using blocks = strided_blocks<Format>;
  std::uint8_t const* p;
  index row_bytes;
  TERN_INLINE blocks at(index b) const { return {simd::row_places(p + b * blocks::bytes, row_bytes)}; }
};
template <class Format>
TERN_INLINE block_walk<Format, strided_rows<Format>> walk_rows(block_rows<Format> const& w, index n) {
  return block_walk<Format, strided_rows<Format>>(strided_rows<Format>{w.m.row(n), w.m.row_bytes});
}
template <class W>
TERN_INLINE auto walk_rows(W const& w, index n) {
  if constexpr (requires { w.walk(n); })
    return w.walk(n);
  else
    return plain_walk<W>{w, n};
}

}  // namespace TERN_ABI
}  // namespace tern::detail

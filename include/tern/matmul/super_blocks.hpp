// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/super_blocks.hpp
/// Blocks of 256 elements in registers, `lanes` rows at once: at a block's beginning the scales of its eight groups of 32 columns are
/// worked out for all rows together and kept, then each group takes its codes.

#include <tern/matmul/row_group.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

TERN_INLINE row_words byte_of(row_words a, int i) { return bits_of(a, 8 * i, 255); }
TERN_INLINE row_words signed_byte_of(row_words a, int i) {
  return simd::shift_right<24>(simd::shift_left<24>(simd::shift_right(a, 8 * i)));
}

/// Codes of 32 columns: u = bits of 32 bytes of each row.
template <class Blocks>
TERN_INLINE void take_codes(Blocks const& b, index at, int shift, std::uint8_t mask, simd::pack<std::uint8_t> (&u)[2][4]) {
  TERN_UNROLL
  for (index h = 0; h < 2; ++h) {
    b.codes(at + 16 * h, u[h]);
    TERN_UNROLL
    for (index r = 0; r < 4; ++r)
      u[h][r] =
          simd::bit_cast<std::uint8_t>(simd::shift_right(simd::bit_cast<std::int32_t>(u[h][r]), shift)) & simd::pack<std::uint8_t>(mask);
  }
}
/// u |= such bits << left, where none leaves its byte.
template <int left, class Blocks>
TERN_INLINE void add_codes(Blocks const& b, index at, int shift, std::uint8_t mask, simd::pack<std::uint8_t> (&u)[2][4]) {
  simd::pack<std::uint8_t> v[2][4];
  take_codes(b, at, shift, mask, v);
  TERN_UNROLL
  for (index h = 0; h < 2; ++h) {
    TERN_UNROLL
    for (index r = 0; r < 4; ++r)
      u[h][r] = u[h][r] | simd::bit_cast<std::uint8_t>(simd::shift_left<left>(simd::bit_cast<std::int32_t>(v[h][r])));
  }
}

/// Scales and minima of a block of each row, part by part.
template <class Format>
struct super_scales {
  static constexpr index parts = 256 / Format::granule;
  alignas(64) float scale[parts][simd::lanes], min[Format::has_min ? parts : 1][simd::lanes];
  TERN_INLINE void set(index part, simd::pack<float> s) { simd::store(scale[part], s); }
  TERN_INLINE void set(index part, simd::pack<float> s, simd::pack<float> m) {
    simd::store(scale[part], s);
    simd::store(min[part], m);
  }
};

// For each format: `find_scales` for a block of each row, and `find_codes` for its group g. The layouts are those of
// formats/k_quants.hpp and its neighbours.

/// d, e and twelve bytes of six-bit scales and minima: q4_k and q5_k.
template <class Format, class Blocks>
TERN_INLINE void find_six_bits(Blocks const& b, super_scales<Format>& out) {
  row_words w[4];
  b.words(0, w);
  auto const d = simd::low_f16(w[0]), negative_e = -simd::high_f16(w[0]);
  TERN_UNROLL
  for (int g = 0; g < 8; ++g) {
    int const at = g % 4;
    row_words const s = g < 4 ? bits_of(w[1], 8 * at, 63) : bits_of(w[3], 8 * at, 15) | simd::shift_left<4>(bits_of(w[1], 8 * at + 6, 3));
    row_words const t =
        g < 4 ? bits_of(w[2], 8 * at, 63) : bits_of(w[3], 8 * at + 4, 15) | simd::shift_left<4>(bits_of(w[2], 8 * at + 6, 3));
    out.set(g, d * simd::to_float(s), negative_e * simd::to_float(t));
  }
}
template <class Blocks>
TERN_INLINE void find_scales(formats::q4_k, Blocks const& b, super_scales<formats::q4_k>& out) {
  find_six_bits(b, out);
}
template <class Blocks>
TERN_INLINE void find_codes(formats::q4_k, Blocks const& b, index g, simd::pack<std::uint8_t> (&u)[2][4]) {
  take_codes(b, 16 + g / 2 * 32, static_cast<int>(g % 2 * 4), 15, u);
}

template <class Blocks>
TERN_INLINE void find_scales(formats::q5_k, Blocks const& b, super_scales<formats::q5_k>& out) {
  find_six_bits(b, out);
}
template <class Blocks>
TERN_INLINE void find_codes(formats::q5_k, Blocks const& b, index g, simd::pack<std::uint8_t> (&u)[2][4]) {
  take_codes(b, 48 + g / 2 * 32, static_cast<int>(g % 2 * 4), 15, u);
  add_codes<4>(b, 16, static_cast<int>(g), 1, u);
}

template <class Blocks>
TERN_INLINE void find_scales(formats::q2_k, Blocks const& b, super_scales<formats::q2_k>& out) {
  row_words w[4];
  b.words(0, w);
  row_words const head = b.word(80);
  auto const d = simd::low_f16(head), negative_e = -simd::high_f16(head);
  TERN_UNROLL
  for (int part = 0; part < 16; ++part) {
    row_words const s = bits_of(w[part / 4], 8 * (part % 4), 15), t = bits_of(w[part / 4], 8 * (part % 4) + 4, 15);
    out.set(part, d * simd::to_float(s), negative_e * simd::to_float(t));
  }
}
template <class Blocks>
TERN_INLINE void find_codes(formats::q2_k, Blocks const& b, index g, simd::pack<std::uint8_t> (&u)[2][4]) {
  take_codes(b, 16 + g / 4 * 32, static_cast<int>(g % 4 * 2), 3, u);
}

template <class Blocks>
TERN_INLINE void find_scales(formats::q3_k, Blocks const& b, super_scales<formats::q3_k>& out) {
  row_words w[4];
  b.last_words(w);  // the last two bytes of q, twelve of scales, d
  auto const d = b.last_f16();
  auto const c = [&](int i) TERN_LAMBDA { return byte_of(w[(i + 2) / 4], (i + 2) % 4); };
  TERN_UNROLL
  for (int part = 0; part < 16; ++part) {
    row_words const s = bits_of(c(part % 8), 4 * (part / 8), 15) | simd::shift_left<4>(bits_of(c(8 + part % 4), 2 * (part / 4), 3));
    out.set(part, d * simd::to_float(s - row_words(32)));
  }
}
template <class Blocks>
TERN_INLINE void find_codes(formats::q3_k, Blocks const& b, index g, simd::pack<std::uint8_t> (&u)[2][4]) {
  take_codes(b, 32 + g / 4 * 32, static_cast<int>(g % 4 * 2), 3, u);
  add_codes<2>(b, 0, static_cast<int>(g), 1, u);
}

template <class Blocks>
TERN_INLINE void find_scales(formats::q6_k, Blocks const& b, super_scales<formats::q6_k>& out) {
  row_words w[4];
  b.words(192, w);
  auto const d = b.last_f16();
  TERN_UNROLL
  for (int part = 0; part < 16; ++part) out.set(part, d * simd::to_float(signed_byte_of(w[part / 4], part % 4)));
}
template <class Blocks>
TERN_INLINE void find_codes(formats::q6_k, Blocks const& b, index g, simd::pack<std::uint8_t> (&u)[2][4]) {
  take_codes(b, g / 4 * 64 + g % 2 * 32, static_cast<int>(g % 4 / 2 * 4), 15, u);
  add_codes<4>(b, 128 + g / 4 * 32, static_cast<int>(g % 4 * 2), 3, u);
}

template <class Blocks>
TERN_INLINE void find_scales(formats::iq4_xs, Blocks const& b, super_scales<formats::iq4_xs>& out) {
  row_words w[4];
  b.words(0, w);  // d, a; four bytes c; codes
  auto const d = simd::low_f16(w[0]);
  TERN_UNROLL
  for (int g = 0; g < 8; ++g) {
    row_words const s = bits_of(w[1], 4 * g, 15) | simd::shift_left<4>(bits_of(w[0], 16 + 2 * g, 3));
    out.set(g, d * simd::to_float(s - row_words(32)));
  }
}
template <class Blocks>
TERN_INLINE void find_codes(formats::iq4_xs, Blocks const& b, index g, simd::pack<std::uint8_t> (&u)[2][4]) {
  load_halves(formats::iq4_xs{}, b, 8 + 16 * g, u);
}

/// One scale for the block, at its end: ternary.
template <class Format, class Blocks>
TERN_INLINE void find_one_scale(Blocks const& b, super_scales<Format>& out) {
  auto const d = b.last_f16();
  for (index part = 0; part < super_scales<Format>::parts; ++part) out.set(part, d);
}
template <class Blocks>
TERN_INLINE void find_scales(formats::tq2_0, Blocks const& b, super_scales<formats::tq2_0>& out) {
  find_one_scale(b, out);
}
template <class Blocks>
TERN_INLINE void find_codes(formats::tq2_0, Blocks const& b, index g, simd::pack<std::uint8_t> (&u)[2][4]) {
  take_codes(b, g / 4 * 32, static_cast<int>(g % 4 * 2), 3, u);
}

/// Ternary codes, five to a byte p: digit n is the integer part of 3 (p 3^n mod 256) / 256. Bytes are taken by twos.
TERN_INLINE void take_digit(index n, simd::pack<std::uint8_t>& bytes) {
  constexpr std::int32_t power[5] = {1, 3, 9, 27, 81};
  row_words const words = simd::bit_cast<std::int32_t>(bytes), low(0x00ff00ff);
  auto const thrice = [&](row_words two) TERN_LAMBDA {
    row_words const rest = two * row_words(power[n]) & low;
    return rest + simd::shift_left<1>(rest);
  };
  row_words const even = thrice(words & low), odd = thrice(simd::shift_right<8>(words) & low);
  bytes = simd::bit_cast<std::uint8_t>((simd::shift_right<8>(even) & row_words(0x00030003)) | (odd & row_words(0x03000300)));
}
TERN_INLINE void take_digit(index n, simd::pack<std::uint8_t> (&u)[4]) {
  TERN_UNROLL
  for (index r = 0; r < 4; ++r) take_digit(n, u[r]);
}
template <class Blocks>
TERN_INLINE void find_scales(formats::tq1_0, Blocks const& b, super_scales<formats::tq1_0>& out) {
  find_one_scale(b, out);
}
template <class Blocks>
TERN_INLINE void find_codes(formats::tq1_0, Blocks const& b, index g, simd::pack<std::uint8_t> (&u)[2][4]) {
  b.codes(g < 5 ? 0 : 32, u[0]);
  take_digit(g < 5 ? g : 2 * g - 10, u[0]);
  if (g < 7) {
    b.codes(g < 5 ? 16 : 32, u[1]);
    return take_digit(g < 5 ? g : 2 * g - 9, u[1]);
  }
  row_words const last = b.word(48);
  for (index n = 0; n < 4; ++n) {
    u[1][n] = simd::bit_cast<std::uint8_t>(last);
    take_digit(n, u[1][n]);
  }
  from_quads<Blocks>(u[1]);
}

/// Where the bytes that `find_codes` takes lie in a block: most of them several times, as groups share bytes.
struct code_range {
  index first = 0, bytes = 0;
};
template <class Format>
inline constexpr code_range code_range_of{};
template <>
inline constexpr code_range code_range_of<formats::q2_k>{16, 64};
template <>
inline constexpr code_range code_range_of<formats::q3_k>{0, 96};
template <>
inline constexpr code_range code_range_of<formats::q4_k>{16, 128};
template <>
inline constexpr code_range code_range_of<formats::q5_k>{16, 160};
template <>
inline constexpr code_range code_range_of<formats::q6_k>{0, 192};
template <>
inline constexpr code_range code_range_of<formats::tq1_0>{0, 48};
template <>
inline constexpr code_range code_range_of<formats::tq2_0>{0, 64};

/// A block of each row, whose codes have been loaded to memory in the order of registers: a load from there takes the place of four and of
/// what joins them (measured on Sapphire Rapids, one row of x times 4096 x 14336, memory read at 16.5 GB/s: q3_k 7.2 GB/s without, 8.5 so,
/// 10.3 with a block's groups unrolled; q2_k 8.1, 9.0, 10.0; q5_k 13.1, 14.2, 14.9).
template <class Format, class Blocks>
struct gathered_blocks {
  static constexpr bool quads = Blocks::quads;
  static constexpr index piece = 4 * simd::pack<std::uint8_t>::size;  // 16 bytes of each row
  Blocks const& b;
  std::uint8_t* memory;
  TERN_INLINE void gather() const {
    for (index at = 0; at < code_range_of<Format>.bytes; at += 16) {
      simd::pack<std::uint8_t> u[4];
      b.codes(code_range_of<Format>.first + at, u);
      TERN_UNROLL
      for (index r = 0; r < 4; ++r) simd::store(memory + at / 16 * piece + r * u[r].size, u[r]);
    }
  }
  TERN_INLINE void codes(index at, simd::pack<std::uint8_t> (&u)[4]) const {
    std::uint8_t const* const p = memory + (at - code_range_of<Format>.first) / 16 * piece;
    TERN_UNROLL
    for (index r = 0; r < 4; ++r) u[r] = simd::load(p + r * u[r].size);
  }
  TERN_INLINE row_words word(index at) const { return b.word(at); }
};

/// `lanes` rows of blocks of 32, group after group. Rows: at(b) is block b of each row.
template <class Format, class Rows>
struct block_walk {
  Rows rows;
  TERN_INLINE explicit block_walk(Rows const& r) : rows(r) {}
  TERN_INLINE void load(index g, row_group<Format::granule>& out) { load_group(Format{}, rows.at(g), out); }
};
/// The same of blocks of 256, whose scales are found for all rows together.
template <class Format, class Rows>
  requires(Format::elements == 256)
struct block_walk<Format, Rows> {
  Rows rows;
  using blocks = typename Rows::blocks;
  static constexpr bool gathers = !blocks::quads && code_range_of<Format>.bytes > 0;
  index block = -1;
  super_scales<Format> kept;
  alignas(64) std::uint8_t codes[gathers ? code_range_of<Format>.bytes * simd::lanes : 1];

  TERN_INLINE explicit block_walk(Rows const& r) : rows(r) {}
  TERN_INLINE void load(index g, row_group<Format::granule>& out) {
    if (g / parts != block) enter(g / parts);
    take(g % parts, out);
  }
  /// The same in two steps, where a block's groups are taken one after the other: their numbers are known to the compiler then.
  static constexpr index parts = Format::elements / 32;
  /// Codes of up to two bits: few enough operations that those of several registers of rows, with all parts of a block, stay in the
  /// decoded instructions' cache.
  static constexpr bool brief = sizeof(typename Format::block) < 96;
  TERN_INLINE void enter(index next) {
    block = next;
    blocks const b = rows.at(block);
    find_scales(Format{}, b, kept);
    if constexpr (gathers) gathered_blocks<Format, blocks>{b, codes}.gather();
  }
  TERN_INLINE void take(index part, row_group<Format::granule>& out) {
    constexpr index granules = 32 / Format::granule;
    blocks const b = rows.at(block);
    if constexpr (gathers)
      find_codes(Format{}, gathered_blocks<Format, blocks>{b, codes}, part, out.u);
    else
      find_codes(Format{}, b, part, out.u);
    TERN_UNROLL
    for (index j = 0; j < granules; ++j) {
      out.scale[j] = simd::load(kept.scale[part * granules + j]);
      if constexpr (Format::has_min) out.min[j] = simd::load(kept.min[part * granules + j]);
    }
  }
};

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
  TERN_INLINE blocks at(index b) const { return {p + b * blocks::bytes, row_bytes}; }
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

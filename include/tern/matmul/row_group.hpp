// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/row_group.hpp
/// 32 columns of `lanes` weight rows, from their blocks to registers: what both integer products and decoding start from.

#include <tern/formats/decode.hpp>
#include <tern/matmul/types.hpp>
#include <tern/simd/codes.hpp>
#include <tern/simd/core.hpp>
#include <tern/simd/rows.hpp>
#include <tern/simd/shuffle.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// 32 columns of `lanes` weight rows: u[h][r] has bytes 16 h to 16 h + 15 of rows r, r + 4, r + 8, ... Or, where the weights' `quads` says
/// so, u[h][j] has columns 16 h + 4 j to 16 h + 4 j + 3 of every row, a row a lane: what transpose_quads makes of the former.
/// Granule: columns that share a scale (and a minimum, in formats that have one), 16 or 32.
template <index Granule>
struct row_scales {
  static constexpr index granules = 32 / Granule;
  simd::pack<float> scale[granules], min[granules];
};
template <index Granule>
struct row_group : row_scales<Granule> {
  simd::pack<std::uint8_t> u[2][4];
};

/// Whether weights load groups by quads.
template <class W>
inline constexpr bool loads_quads = requires { requires W::quads; };

/// Whether registers of weights are tiles of memory.
template <class W>
inline constexpr bool lies_in_tiles = requires { requires W::tiles; };

/// Whether weights lie in blocks of more than 32 columns.
template <class W>
inline constexpr bool in_large_blocks = requires { requires W::parts > 1; };

/// The largest integer u among a format's codes.
template <class Format>
consteval int largest_of_format() {
  int most = Format::codes - 1;
  if constexpr (requires { Format::levels; }) {
    most = 0;
    for (int level : Format::levels) most = level > most ? level : most;
  }
  return most;
}
/// The same among those of weights, where it is known to be less than what seven bits hold.
template <class W>
inline constexpr int largest_code = 127;

/// The block of 32 columns in the row at `row`.
template <class Format>
TERN_INLINE typename Format::block const& block_of(std::uint8_t const* row, index g) {
  return reinterpret_cast<typename Format::block const*>(row)[g / (Format::elements / 32)];
}

/// Any weights, through memory. Rows from `end` on are taken as the last one.
template <class W>
TERN_INLINE void load_rows(W const& w, index n, index end, index g, row_group<W::granule>& out) {
  constexpr index L = simd::lanes, granules = 32 / W::granule;
  std::uint8_t bytes[L * 32];
  float scale[granules][L], min[granules][L];
  for (index i = 0; i < L; ++i) {
    index const row = n + i < end ? n + i : end - 1;
    w.unpack(row, g, bytes + 32 * i);
    float s[granules], m[granules] = {};
    w.scales(row, g, s, m);
    for (index j = 0; j < granules; ++j) {
      scale[j][i] = s[j];
      min[j][i] = m[j];
    }
  }
  for (index h = 0; h < 2; ++h) {
    simd::load_rows16(bytes + 16 * h, 32, out.u[h]);
    if constexpr (loads_quads<W>) simd::transpose_quads(out.u[h]);
  }
  for (index j = 0; j < granules; ++j) {
    out.scale[j] = simd::load(scale[j]);
    if constexpr (W::has_min) out.min[j] = simd::load(min[j]);
  }
}
/// `lanes` whole rows from n on: as the weights load them, or through memory.
template <class W>
TERN_INLINE void load_rows(W const& w, index n, index g, row_group<W::granule>& out) {
  if constexpr (requires { w.load(n, g, out); })
    w.load(n, g, out);
  else
    load_rows(w, n, n + simd::lanes, g, out);
}

using row_words = simd::pack<std::int32_t>;  // one a row

/// The bits [shift, shift + n) of every lane, mask = 2^n - 1.
TERN_INLINE row_words bits_of(row_words a, int shift, std::int32_t mask) { return simd::shift_right(a, shift) & row_words(mask); }

/// A block of each of `lanes` rows that lie where the file has them, row_bytes apart. Offsets are within the block.
template <class Format>
struct strided_blocks {
  static constexpr bool quads = false;
  static constexpr index bytes = sizeof(typename Format::block);
  simd::row_places rows;
  /// 16 bytes of each row, as u[h] of a row_group.
  TERN_INLINE void codes(index at, simd::pack<std::uint8_t> (&u)[4]) const { rows.load16(at, u); }
  /// The same as four words a row.
  TERN_INLINE void words(index at, row_words (&out)[4]) const {
    simd::pack<std::uint8_t> t[4];
    codes(at, t);
    simd::transpose_quads(t);
    TERN_UNROLL
    for (index r = 0; r < 4; ++r) out[r] = simd::bit_cast<std::int32_t>(t[r]);
  }
  /// One of them; in the company of three, where words alone take a load and a shuffle for each row.
  TERN_INLINE row_words word(index at) const {
    if constexpr (simd::row_places::loads_lanes) {
      return rows.load_words(at);
    } else {
      bool const first = at + 16 <= bytes;
      row_words four[4];
      words(first ? at : at - 12, four);
      return four[first ? 0 : 3];
    }
  }
  TERN_INLINE simd::pack<float> f16_at(index at) const {
    if constexpr (simd::row_places::loads_lanes)
      return rows.load_f16(at);
    else
      return at == 0 ? simd::low_f16(word(0)) : simd::high_f16(word(at - 2));
  }
  /// What a block starts with, or the f16 that it ends with.
  TERN_INLINE row_words first_byte() const { return word(0) & row_words(255); }
  TERN_INLINE simd::pack<float> first_f16() const { return f16_at(0); }
  TERN_INLINE simd::pack<float> last_f16() const { return f16_at(bytes - 2); }
  /// The last 16 bytes, and the f16 at their end.
  TERN_INLINE simd::pack<float> last_words(row_words (&out)[4]) const {
    words(bytes - 16, out);
    return simd::high_f16(out[3]);
  }
};

/// The halves of bytes, the low ones first: codes, or choices among the format's levels.
template <class Format, index N>
TERN_INLINE void split_codes(Format, simd::pack<std::uint8_t> const (&bytes)[N], simd::pack<std::uint8_t> (&u)[2][N]) {
  simd::split_halves(bytes, u);
  if constexpr (requires { Format::levels; }) {
    auto const table = simd::load_table(reinterpret_cast<std::int8_t const*>(Format::levels));
    TERN_UNROLL
    for (index h = 0; h < 2; ++h) {
      TERN_UNROLL
      for (index r = 0; r < N; ++r) u[h][r] = simd::bit_cast<std::uint8_t>(simd::lookup(table, u[h][r]));
    }
  }
}
template <class Format, class Blocks>
TERN_INLINE void load_halves(Format f, Blocks const& b, index at, simd::pack<std::uint8_t> (&u)[2][4]) {
  simd::pack<std::uint8_t> v[4];
  b.codes(at, v);
  split_codes(f, v, u);
}
template <class Blocks>
TERN_INLINE void load_group(formats::q4_0 f, Blocks const& b, row_group<formats::q4_0::granule>& out) {
  load_halves(f, b, 2, out.u);
  out.scale[0] = b.first_f16();
}
template <class Blocks>
TERN_INLINE void load_group(formats::iq4_nl f, Blocks const& b, row_group<formats::iq4_nl::granule>& out) {
  load_halves(f, b, 2, out.u);
  out.scale[0] = b.first_f16();
}
template <class Blocks>
TERN_INLINE void load_group(formats::q4_1 f, Blocks const& b, row_group<formats::q4_1::granule>& out) {
  load_halves(f, b, 4, out.u);
  row_words const head = b.word(0);
  out.scale[0] = simd::low_f16(head);
  out.min[0] = simd::high_f16(head);
}
template <class Blocks>
TERN_INLINE void load_group(formats::mxfp4 f, Blocks const& b, row_group<formats::mxfp4::granule>& out) {
  load_halves(f, b, 1, out.u);
  // A power of two is an exponent's bits: 2^(e - 128), below 2^-126 those of f32's subnormals.
  row_words const e = b.first_byte();
  row_words const subnormal = simd::select(e == row_words(0), row_words(0x200000), row_words(0x400000));
  out.scale[0] = simd::bit_cast<float>(simd::select(e < row_words(2), subnormal, simd::shift_left<23>(e - row_words(1))));
}
template <class Blocks>
TERN_INLINE void load_group(formats::q8_0, Blocks const& b, row_group<formats::q8_0::granule>& out) {
  simd::pack<std::uint8_t> const top(std::uint8_t{0x80});
  TERN_UNROLL
  for (index h = 0; h < 2; ++h) {
    b.codes(2 + 16 * h, out.u[h]);
    TERN_UNROLL
    for (index r = 0; r < 4; ++r) out.u[h][r] = out.u[h][r] ^ top;
  }
  out.scale[0] = b.first_f16();
}

/// From a row a lane to how these blocks fill a row_group: the transposition is its own inverse.
template <class Blocks>
TERN_INLINE void from_quads(simd::pack<std::uint8_t> (&u)[4]) {
  if constexpr (!Blocks::quads) simd::transpose_quads(u);
}
/// Bits `first` to first + 15 of a word a row, to bit 4 of the row's 16 codes.
template <int first>
TERN_INLINE void add_fifth(row_words top, simd::pack<std::uint8_t> (&u)[4]) {
  u[0] = u[0] | simd::spread_bits16<first, 4, 0>(top);
  u[1] = u[1] | simd::spread_bits16<first, 4, 1>(top);
  u[2] = u[2] | simd::spread_bits16<first, 4, 2>(top);
  u[3] = u[3] | simd::spread_bits16<first, 4, 3>(top);
}
/// Five bits: four as halves behind a word of the fifth ones of 32 columns.
template <class Format, class Blocks>
TERN_INLINE void load_five_bits(Format f, Blocks const& b, index at, row_group<Format::granule>& out) {
  load_halves(f, b, at + 4, out.u);
  row_words const top = b.word(at);
  if constexpr (simd::has_spread_bits16 && !Blocks::quads) {
    add_fifth<0>(top, out.u[0]);
    add_fifth<16>(top, out.u[1]);
  } else {
    simd::pack<std::uint8_t> fifth[2][4] = {
        {simd::spread_bits<0, 4>(top), simd::spread_bits<4, 4>(top), simd::spread_bits<8, 4>(top), simd::spread_bits<12, 4>(top)},
        {simd::spread_bits<16, 4>(top), simd::spread_bits<20, 4>(top), simd::spread_bits<24, 4>(top), simd::spread_bits<28, 4>(top)}};
    TERN_UNROLL
    for (int h = 0; h < 2; ++h) {
      from_quads<Blocks>(fifth[h]);
      TERN_UNROLL
      for (int j = 0; j < 4; ++j) out.u[h][j] = out.u[h][j] | fifth[h][j];
    }
  }
}
template <class Blocks>
TERN_INLINE void load_group(formats::q5_0 f, Blocks const& b, row_group<formats::q5_0::granule>& out) {
  load_five_bits(f, b, 2, out);
  out.scale[0] = b.first_f16();
}
template <class Blocks>
TERN_INLINE void load_group(formats::q5_1 f, Blocks const& b, row_group<formats::q5_1::granule>& out) {
  load_five_bits(f, b, 4, out);
  row_words const head = b.word(0);
  out.scale[0] = simd::low_f16(head);
  out.min[0] = simd::high_f16(head);
}

/// While `Registers` times `lanes` rows are walked, the memory that is to come is asked for: in each row or tile some way ahead, and where
/// they end, in those that the walk turns to. The machine's own prefetchers do not keep up with so many places. Lines are asked for evenly.
/// Where rows are packed, a panel has the first cache, and Cache is 2. Past the end of a matrix it does no harm. Weights that lie otherwise
/// are left to the machine.
///
/// Measured with one row of x times 4096 x 14336:
/// Sapphire Rapids (it has matrix registers), interleaved q2_k, memory read at 16.5 GB/s: 8.0 GB/s when nothing was asked for, 9.9 when
/// every other line was, 14.5 so. To the first cache: each line takes one of the few buffers for lines on their way once, not twice. Zen 4,
/// of what memory gives: tiles of blocks of 32, which lie one after the other, q4_0: 0.72 when all was asked for, 0.80 when nothing was,
/// 0.90 when only the first lines of each page of 4 KB are: the machine's prefetchers stop where a page ends. Tiles of blocks of 256, which
/// are not read in order, need all lines, q6_k: 0.69 so, 0.24 with those of pages alone. Rows: `prefetch_runs`.
template <class W, index Registers, int Cache = 1>
struct prefetch_rows {
  static constexpr index side = lies_in_tiles<W> ? simd::lanes : 1;  // rows of one place
  static constexpr index registers = Registers, places = Registers * simd::lanes / side;
  static constexpr bool intel = simd::on_sapphire_rapids, pages = lies_in_tiles<W> && Cache == 1 && !intel && !in_large_blocks<W>;
  static constexpr bool first_cache = Cache == 1 && (intel || (lies_in_tiles<W> && in_large_blocks<W>));
  static constexpr index in_tile = pages ? 1024 : 4096, in_rows = 16384;
  static constexpr index most_ahead = Cache == 2 ? 8192 / places : lies_in_tiles<W> ? in_tile : in_rows / places;  // in each
  std::uintptr_t at = 0;
  index stride = 0, end = 0, turn = 0, each = 0;  // to the next place, of a place, from there to the next ones, of a step
  index reached = 0, asked = 0;                   // in each place
  /// Rows row, row + 1, ... from group g on; then those from `next` on.
  TERN_INLINE prefetch_rows(W const& w, index row, index next, index g) {
    if constexpr (requires { w.memory(row); }) {
      row_memory const first = w.memory(0);
      if (w.columns <= 0) return;
      at = reinterpret_cast<std::uintptr_t>(first.data) + static_cast<std::uintptr_t>(row * first.stride);
      stride = side * first.stride;
      end = side * first.bytes;
      turn = (next - row) * first.stride - end;
      each = end * 32 / w.columns;
      reached = asked = each * g + (end < most_ahead ? end : most_ahead);
    }
  }
  /// Goes on with what `groups` of 32 columns read.
  TERN_INLINE void step(index groups = 1) {
    for (reached += groups * each; asked < reached; asked += 64) {
      std::uintptr_t const line = at + static_cast<std::uintptr_t>(asked < end ? asked : asked + turn);
      TERN_UNROLL
      for (index i = 0; i < places; i += 4) ask_four(line + static_cast<std::uintptr_t>(i * stride), least(4, places - i));
    }
  }

 private:
  /// The compiler takes the address as unknown: see simd::row_places.
  TERN_INLINE void ask_four(std::uintptr_t line, index count) const {
    asm("" : "+r"(line));
    for (index i = 0; i < count; ++i) ask(line + static_cast<std::uintptr_t>(i * stride));
  }
  TERN_INLINE static void ask(std::uintptr_t line) {
    if (!pages || line % 4096 < 256) __builtin_prefetch(reinterpret_cast<void const*>(line), 0, first_cache ? 3 : 2);
  }
};

/// The same of `lanes` rows, to the second cache, in runs of a whole row: one place of memory at a time, a row after the other, while as
/// many bytes of the rows before are read. Rows so long that two sets of them would not stay there are taken in pieces, which are the runs
/// then.
///
/// Zen 4, one row of x times 4096 x 14336 of q4_0, of what memory gives: 0.65 when nothing was asked for, 0.71 when each row was 1 KB
/// ahead, in `lanes` places at once, 0.78 in runs of 4 KB, 0.86 in runs of a row. Of q8_0, whose rows are longer, 0.88 so, 0.90 in `lanes`
/// places.
struct prefetch_runs {
  static constexpr index registers = 1, rows = simd::lanes, most = 12288, at_once = 256;
  std::uintptr_t first = 0, at = 0, run_end = 0;
  index stride = 0, run = 0, bytes = 0, each = 0, due = 0;
  index row = 0, piece = 0;  // of the run, where its piece starts in the row
  bool last = false;
  /// While rows n to n + lanes - 1 of [.., end) are walked.
  template <class W>
  TERN_INLINE prefetch_runs(W const& w, index n, index end) {
    if constexpr (requires { w.memory(n); }) {
      if (w.columns <= 0) return;
      row_memory const m = w.memory(n);
      if (m.bytes <= 0) return;
      first = reinterpret_cast<std::uintptr_t>(m.data);
      stride = m.stride;
      bytes = m.bytes;
      run = divide_up(bytes, divide_up(bytes, most));
      each = rows * bytes * 32 / w.columns;
      last = n + 2 * rows > end;
      turn_to(run);
    }
  }
  /// Goes on with what `groups` of 32 columns read.
  TERN_INLINE void step(index groups = 1) {
    for (due += groups * each; due > 0; due -= at_once) {
      TERN_UNROLL
      for (index i = 0; i < at_once; i += 64) __builtin_prefetch(reinterpret_cast<void const*>(at + static_cast<std::uintptr_t>(i)), 0, 2);
      at += static_cast<std::uintptr_t>(at_once);
      if (at >= run_end) turn();
    }
  }

 private:
  TERN_INLINE void turn() {
    if (++row < rows)
      start();
    else
      turn_to(piece + run);
  }
  TERN_INLINE void turn_to(index next) {
    row = 0;
    piece = next;
    if (piece >= bytes && last) each = due = 0;
    start();
  }
  TERN_INLINE void start() {
    index const of_row = piece < bytes ? row * stride + piece : (row + rows) * stride + (piece - bytes);
    at = first + static_cast<std::uintptr_t>(of_row);
    run_end = at + static_cast<std::uintptr_t>(run);
  }
};

/// What asks for memory while `Registers` times `lanes` rows from n on, of [.., end), meet one row of x.
template <index Registers, class W>
TERN_INLINE auto ahead_of(W const& w, index n, index end) {
  if constexpr (lies_in_tiles<W> || simd::on_sapphire_rapids)
    return prefetch_rows<W, Registers>(w, n, n + Registers * simd::lanes, 0);
  else
    return prefetch_runs(w, n, end);
}

/// The blocks of a matrix as weights whose elements are integers with scales (formats/weights.hpp).
template <class Format>
struct block_rows {
  static constexpr index granule = Format::granule;
  static constexpr int offset = Format::offset;
  static constexpr bool has_min = Format::has_min;
  static constexpr index parts = Format::elements / 32;
  block_matrix const& m;
  index columns = m.columns;

  TERN_INLINE row_memory memory(index i) const {
    return {m.row(i), columns / Format::elements * index{sizeof(typename Format::block)}, m.row_bytes};
  }
  TERN_INLINE void unpack(index i, index g, std::uint8_t* u) const { Format::unpack(block_of<Format>(m.row(i), g), g % parts, u); }
  TERN_INLINE void scales(index i, index g, float* scale, float* min) const {
    Format::scales(block_of<Format>(m.row(i), g), g % parts, scale, min);
  }
  TERN_INLINE void decode(index i, index k0, index k1, float* out) const {
    auto const* b = &block_of<Format>(m.row(i), k0 / 32);
    for (index k = k0; k < k1; k += Format::elements) Format::decode(*b++, out + (k - k0));
  }
};
template <class Format>
inline constexpr int largest_code<block_rows<Format>> = largest_of_format<Format>();

}  // namespace TERN_ABI
}  // namespace tern::detail

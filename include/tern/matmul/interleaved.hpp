// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/interleaved.hpp
/// Products with an interleaved_matrix (formats/interleaved.hpp): what matmul/row_group.hpp gathers from rows is one load each.

#include <tern/formats/interleaved.hpp>
#include <tern/matmul/operations.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// A block of each row of a tile: what strided_blocks is to rows that lie apart.
template <class Format>
struct tile_blocks {
  static constexpr bool quads = true;
  static constexpr interleaved_layout layout{type_of_format<Format>, Format::elements};
  std::uint8_t const *words_at, *rest_at;

  TERN_INLINE std::uint8_t const* at(index offset) const { return words_at + (offset - layout.head) * simd::lanes; }
  TERN_INLINE void codes(index offset, simd::pack<std::uint8_t> (&u)[4]) const {
    TERN_UNROLL
    for (index j = 0; j < 4; ++j) u[j] = simd::load(at(offset + 4 * j));
  }
  TERN_INLINE void words(index offset, row_words (&out)[4]) const {
    TERN_UNROLL
    for (index j = 0; j < 4; ++j) out[j] = word(offset + 4 * j);
  }
  TERN_INLINE row_words word(index offset) const { return simd::bit_cast<std::int32_t>(simd::load(at(offset))); }
  TERN_INLINE row_words first_byte() const { return simd::load_widened(rest_at); }
  TERN_INLINE simd::pack<float> first_f16() const { return simd::load(reinterpret_cast<f16 const*>(rest_at)); }
  TERN_INLINE simd::pack<float> last_f16() const { return first_f16(); }
  /// All but the last two of the last 16 bytes, which begin within a word, and the f16 that these are.
  TERN_INLINE simd::pack<float> last_words(row_words (&out)[4]) const {
    index const first = 4 * layout.words - 16;
    TERN_UNROLL
    for (index j = 0; j < 4; ++j) {
      out[j] = simd::shift_right<16>(word(first + 4 * j)) & row_words(0xffff);
      if (j < 3) out[j] = out[j] | simd::shift_left<16>(word(first + 4 * j + 4));
    }
    return last_f16();
  }
};

/// A tile's rows, block after block.
template <class Format>
struct tile_rows_of {
  using blocks = tile_blocks<Format>;
  std::uint8_t const *words_at, *rest_at;
  TERN_INLINE blocks at(index b) const {
    constexpr index of_words = 4 * blocks::layout.words * simd::lanes, of_rest = blocks::layout.rest * simd::lanes;
    return {words_at + b * of_words, rest_at + b * of_rest};
  }
};

/// An interleaved matrix as weights whose elements are integers with scales (formats/weights.hpp).
template <class Format>
struct interleaved_rows {
  static constexpr index granule = Format::granule, parts = Format::elements / 32;
  static constexpr int offset = Format::offset;
  static constexpr bool has_min = Format::has_min;
  static constexpr bool quads = true, tiles = true;
  interleaved_matrix const& m;
  index columns = m.columns;
  interleaved_layout layout{type_of_format<Format>, m.columns};

  /// Rows of a tile share its memory.
  TERN_INLINE row_memory memory(index i) const {
    return {static_cast<std::uint8_t const*>(m.data) + i * layout.row_bytes(), layout.row_bytes(), layout.row_bytes()};
  }
  /// Where the tile of a row starts.
  TERN_INLINE std::uint8_t const* tile(index i) const { return memory(i / simd::lanes * simd::lanes).data; }
  TERN_INLINE typename Format::block block(index row, index b) const {
    typename Format::block one;
    gather_block(m, layout, row, b, reinterpret_cast<std::uint8_t*>(&one));
    return one;
  }
  TERN_INLINE void unpack(index row, index g, std::uint8_t* u) const { Format::unpack(block(row, g / parts), g % parts, u); }
  TERN_INLINE void scales(index row, index g, float* scale, float* min) const {
    Format::scales(block(row, g / parts), g % parts, scale, min);
  }
};
template <class Format>
inline constexpr int largest_code<interleaved_rows<Format>> = largest_of_format<Format>();
template <class Format>
TERN_INLINE block_walk<Format, tile_rows_of<Format>> walk_rows(interleaved_rows<Format> const& w, index n) {
  std::uint8_t const* const tile = w.tile(n);
  return block_walk<Format, tile_rows_of<Format>>(tile_rows_of<Format>{tile, tile + w.layout.rest_of(0, 0)});
}

struct interleaved_operations {
  template <class F>
  TERN_INLINE static void with_rows(void const* w, F&& f) {
    interleaved_matrix const& m = *static_cast<interleaved_matrix const*>(w);
    with_block_format(m.type, [&]<class Format>(Format) TERN_LAMBDA { f(interleaved_rows<Format>{m}); });
  }
  static void decode(void const* w, index row, index k0, index k1, float* out) noexcept {
    decode_interleaved(*static_cast<interleaved_matrix const*>(w), row, k0, k1, out);
  }
  static void pack_codes(void const* w, index n0, index n1, index g0, index g1, code_panel& panel) noexcept {
    with_rows(w, [&](auto const& rows) TERN_LAMBDA { detail::pack_codes<true>(rows, n0, n1, g0, g1, panel); });
  }
  static void stream_codes(matmul_job const& job, index n0, index n1, q8_rows const& x, bool add) noexcept {
    with_rows(job.w.object, [&](auto const& rows) TERN_LAMBDA { stream_stripe(rows, job, n0, n1, x, add); });
  }
  static constexpr weight_operations table{&decode, nullptr, nullptr, &pack_codes, nullptr, &stream_codes, nullptr, nullptr, nullptr};
};

/// bf16: whole panels are taken where they lie, the last rows are packed as ever.
struct interleaved_pair_operations {
  static interleaved_matrix const& of(void const* w) { return *static_cast<interleaved_matrix const*>(w); }
  static void pack_floats(void const* w, index n0, index n1, index k0, index k1, matmul_panel& panel) noexcept {
    auto const decode = [&](index n, index from, index to, float* out) TERN_LAMBDA { decode_interleaved(of(w), n, from, to, out); };
    for (index first = 0; first < panel_rows; first += simd::lanes)
      pack_rows(decode, n0 + first, n1, k0, k1, panel.rows, panel.floats + first);
  }
  static void pack_halves(void const* w, index n0, index n1, index k0, index k1, matmul_panel& panel) noexcept {
    auto const copy = [&](index n, index from, index to, bf16* out) TERN_LAMBDA { gather_pairs(of(w), n, from, to, out); };
    detail::pack_halves(copy, n0, n1, k0, k1, panel);
  }
  static constexpr weight_operations table{
      &interleaved_operations::decode, &pack_floats, &pack_halves, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
};

TERN_INLINE any_weights weights_of(interleaved_matrix const& w) {
  expect_interleaved("matmul", w);
  if (w.type == weight_type::bf16) {
    any_weights numbers{&w, &interleaved_pair_operations::table, w.rows, w.columns};
    numbers.bf16 = true;
    numbers.data = w.data != nullptr;
    numbers.panels = static_cast<bf16 const*>(w.data);
    return numbers;
  }
  return {&w,
          &interleaved_operations::table,
          w.rows,
          w.columns,
          info(w.type).elements,
          code_kind_of_blocks(w.type),
          false,
          false,
          false,
          w.data != nullptr};
}

}  // namespace TERN_ABI
}  // namespace tern::detail

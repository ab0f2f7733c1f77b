// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/float_panel.hpp
/// Weights as numbers in a panel whose lanes run over weight rows: what products in f32 and bf16 start from.
///
///     [k / step][panel_rows][step]      step: elements of k that one lane takes, 1 (f32) or 2 (bf16)

#include <tern/formats/decode.hpp>
#include <tern/matmul/code_panel.hpp>
#include <tern/simd/narrow.hpp>
#include <tern/simd/shuffle.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Columns that are summed before they are added to y: bounds both the panel, which fits L1, and the rounding error.
inline constexpr index chunk_columns = 256;

/// A thread's scratch, whatever it computes.
struct matmul_panel {
  alignas(64) float floats[chunk_columns * panel_rows];
  alignas(64) bf16 halves[chunk_columns * panel_rows];
  alignas(64) float rows[simd::lanes * chunk_columns];
  alignas(64) bf16 half_rows[simd::lanes * 2 * chunk_columns];
  code_panel codes;
};

/// `lanes` rows of 32-bit words, `stride` bytes apart, become columns of `lanes` words, `out_stride` bytes apart.
/// words: a multiple of `lanes`.
TERN_INLINE void transpose_words(std::uint8_t const* rows, index stride, index words, std::uint8_t* out, index out_stride) {
  using simd::pack;
  constexpr index W = simd::lanes;
  for (index k = 0; k < words; k += W) {
    pack<float> tile[W];
    TERN_UNROLL
    for (index i = 0; i < W; ++i) tile[i] = simd::bit_cast<float>(simd::load(rows + i * stride + 4 * k));
    simd::transpose(tile);
    TERN_UNROLL
    for (index i = 0; i < W; ++i) simd::store(out + (k + i) * out_stride, simd::bit_cast<std::uint8_t>(tile[i]));
  }
}

/// Columns [k0, k1) of `lanes` weight rows from row n on, fewer at n1, row by row through `rows` and transposed; what is missing is
/// zero. Element: what they are decoded to by `decode(row, k0, k1, out)`. lying: where row 0 of them lies, where they are Elements already.
template <class Element, class Decode>
TERN_INLINE void pack_rows(Decode const& decode, index n, index n1, index k0, index k1, Element* rows, Element* out,
                           row_memory const& lying = {}) {
  constexpr index W = simd::lanes, step = 4 / index{sizeof(Element)}, stride = chunk_columns * step;
  index const columns = round_to_multiple(k1 - k0, W * step);
  if (lying.data != nullptr && n + W <= n1 && columns == k1 - k0)
    return transpose_words(lying.data + n * lying.stride + k0 * index{sizeof(Element)}, lying.stride, columns / step,
                           reinterpret_cast<std::uint8_t*>(out), panel_rows * 4);
  for (index i = 0; i < W; ++i, ++n) {
    Element* const row = rows + i * stride;
    if (n < n1) decode(n, k0, k1, row);
    for (index k = n < n1 ? k1 - k0 : 0; k < columns; ++k) row[k] = Element(0.f);
  }
  transpose_words(reinterpret_cast<std::uint8_t const*>(rows), stride * index{sizeof(Element)}, columns / step,
                  reinterpret_cast<std::uint8_t*>(out), panel_rows * 4);
}

/// Where weights that are f32 in memory lie (matmul/operations.hpp): most are not.
template <class Weights>
TERN_INLINE row_memory floats_of(Weights const&) {
  return {};
}

/// Decodes columns [k0, k1) of weight rows [n0, n1), n1 - n0 <= panel_rows, into a panel; rows and columns beyond are zero.
template <class Weights>
inline void pack_floats(Weights const& w, index n0, index n1, index k0, index k1, matmul_panel& panel) noexcept {
  auto const decode = [&](index n, index from, index to, float* out) TERN_LAMBDA { decode_row(w, n, from, to, out); };
  for (index first = 0; first < panel_rows; first += simd::lanes)
    pack_rows(decode, n0 + first, n1, k0, k1, panel.rows, panel.floats + first, floats_of(w));
}
/// The same for weights that are bf16, which copy(row, k0, k1, out) copies, into a panel of bf16.
template <class Copy>
TERN_INLINE void pack_halves(Copy const& copy, index n0, index n1, index k0, index k1, matmul_panel& panel, row_memory const& lying = {}) {
  for (index first = 0; first < panel_rows; first += simd::lanes)
    pack_rows(copy, n0 + first, n1, k0, k1, panel.half_rows, panel.halves + 2 * first, lying);
}

/// Scales and minima of `lanes` weight rows of a panel, and their codes of four columns as numbers. The same bits as `decode` where scales
/// have no more bits than f16: products of a scale and a code are exact, or rounded once as there. Other scales beside a minimum may
/// differ by that rounding.
template <class Shape>
struct code_decoder {
  simd::pack<std::int32_t> offset;
  simd::pack<float> scale, min;
  TERN_INLINE code_decoder(code_panel const& panel, std::int32_t code_offset, index part, index lane)
      : offset(code_offset), scale(simd::load(panel.scales + part * panel_rows + lane)), min(0.f) {
    if constexpr (Shape::has_min) min = simd::load(panel.mins + part * panel_rows + lane);
  }
  TERN_INLINE void decode(std::uint8_t const* codes, simd::pack<float> (&w)[4]) const {
    using simd::pack;
    pack<std::int32_t> const low(255), c = simd::bit_cast<std::int32_t>(simd::load(codes));
    pack<std::int32_t> const u[4] = {c & low, simd::shift_right<8>(c) & low, simd::shift_right<16>(c) & low,
                                     simd::shift_right<24>(c) & low};
    TERN_UNROLL
    for (index k = 0; k < 4; ++k) {
      pack<float> const q = simd::to_float(Shape::has_min ? u[k] : u[k] - offset);
      w[k] = Shape::has_min ? simd::fma(q, scale, min) : q * scale;
    }
  }
};
/// Calls f(quad, lane, w) with all numbers of a panel, w: columns 4 quad to 4 quad + 3 of weight rows lane, lane + 1, ...
template <class Shape, class F>
TERN_INLINE void for_each_quad(code_panel const& panel, std::int32_t offset, index groups, F&& f) {
  constexpr index parts = 32 / Shape::granule, quads = Shape::granule / 4;
  for (index part = 0; part < groups * parts; ++part)
    for (index lane = 0; lane < panel_rows; lane += simd::lanes) {
      code_decoder<Shape> const decoder(panel, offset, part, lane);
      for (index quad = part * quads; quad < (part + 1) * quads; ++quad) {
        simd::pack<float> w[4];
        decoder.decode(panel.codes + 4 * (quad * panel_rows + lane), w);
        f(quad, lane, w);
      }
    }
}
template <class Shape>
inline void decode_panel(code_panel const& panel, std::int32_t offset, index groups, float* out) noexcept {
  for_each_quad<Shape>(panel, offset, groups, [&](index quad, index lane, simd::pack<float> const(&w)[4]) TERN_LAMBDA {
    TERN_UNROLL
    for (index k = 0; k < 4; ++k) simd::store(out + (4 * quad + k) * panel_rows + lane, w[k]);
  });
}
/// Rounded to bf16, columns in pairs.
template <class Shape>
inline void decode_panel(code_panel const& panel, std::int32_t offset, index groups, bf16* out) noexcept {
  for_each_quad<Shape>(panel, offset, groups, [&](index quad, index lane, simd::pack<float> const(&w)[4]) TERN_LAMBDA {
    TERN_UNROLL
    for (index k = 0; k < 4; k += 2) simd::store(out + (4 * quad + k) * panel_rows + 2 * lane, simd::narrow_pairs(w[k], w[k + 1]));
  });
}
/// A panel of f32 rounded to bf16. columns: what there is; zeros follow up to 32.
inline void narrow_panel(float const* floats, index columns, bf16* out) noexcept {
  index const whole = round_to_multiple(columns, 2);
  for (index k = 0; k < whole; k += 2)
    for (index lane = 0; lane < panel_rows; lane += simd::lanes) {
      float const* const from = floats + k * panel_rows + lane;
      simd::store(out + k * panel_rows + 2 * lane, simd::narrow_pairs(simd::load(from), simd::load(from + panel_rows)));
    }
  for (index i = whole * panel_rows; i < round_to_multiple(columns, 32) * panel_rows; ++i) out[i] = bf16::from_bits(0);
}

/// Calls f(shape) with what decoding depends on.
template <class F>
TERN_INLINE void with_decoded_shape(code_kind const& codes, F&& f) {
  with_shape(codes, [&]<class Shape>(Shape) TERN_LAMBDA { f(code_shape<Shape::granule, Shape::has_min, false>{}); });
}
/// Columns [k0, k1) of weight rows [n0, n1), whose elements are codes, to `out`, of f32 or bf16.
template <class T>
TERN_INLINE void fill_from_codes(any_weights const& w, index n0, index n1, index k0, index k1, code_panel& codes, T* out) {
  w.operations->pack_codes(w.object, n0, n1, k0 / 32, k1 / 32, codes);
  with_decoded_shape(w.codes, [&]<class Shape>(Shape) TERN_LAMBDA { decode_panel<Shape>(codes, w.codes.offset, (k1 - k0) / 32, out); });
}
/// Columns [k0, k1) of weight rows [n0, n1) to panel.floats.
TERN_INLINE void fill_floats(any_weights const& w, index n0, index n1, index k0, index k1, matmul_panel& panel) {
  if (w.codes.granule == 0) return w.operations->pack_floats(w.object, n0, n1, k0, k1, panel);
  fill_from_codes(w, n0, n1, k0, k1, panel.codes, panel.floats);
}
/// The same to panel.halves.
TERN_INLINE void fill_halves(any_weights const& w, index n0, index n1, index k0, index k1, matmul_panel& panel) {
  if (w.bf16) return w.operations->pack_halves(w.object, n0, n1, k0, k1, panel);
  if (w.codes.granule > 0) return fill_from_codes(w, n0, n1, k0, k1, panel.codes, panel.halves);
  w.operations->pack_floats(w.object, n0, n1, k0, k1, panel);
  narrow_panel(panel.floats, k1 - k0, panel.halves);
}

}  // namespace TERN_ABI
}  // namespace tern::detail

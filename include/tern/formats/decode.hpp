// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/decode.hpp
/// Rows of a block matrix, or of any other weights (formats/weights.hpp), as f32, exact to the bit.
///
///     decode(weights, row, out)    out: weights.columns floats

#include <tern/formats/block_formats.hpp>
#include <tern/formats/interleaved.hpp>
#include <tern/formats/weights.hpp>
#include <tern/simd/convert.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

template <class T>
TERN_INLINE void decode_plain(std::uint8_t const* row, index n, float* out) {
  T const* const x = reinterpret_cast<T const*>(row);
  index i = 0;
  for (; i + simd::lanes <= n; i += simd::lanes) simd::store(out + i, simd::load(x + i));
  if (i < n) simd::store_n(out + i, simd::load_n(x + i, n - i), n - i);
}
template <class Format>
TERN_INLINE void decode_whole_blocks(std::uint8_t const* row, index n, float* out) {
  auto const* b = reinterpret_cast<typename Format::block const*>(row);
  for (index i = 0; i < n; i += Format::elements) Format::decode(*b++, out + i);
}

/// Columns [begin, end) of the row that starts at `row`: both are multiples of the format's block.
inline void decode_columns(weight_type type, std::uint8_t const* row, index begin, index end, float* out) noexcept {
  weight_info const format = info(type);
  std::uint8_t const* const p = row + begin / format.elements * format.bytes;
  index const n = end - begin;
  if (type == weight_type::f32) return decode_plain<float>(p, n, out);
  if (type == weight_type::f16) return decode_plain<f16>(p, n, out);
  if (type == weight_type::bf16) return decode_plain<bf16>(p, n, out);
  with_block_format(type, [&]<class Format>(Format) TERN_LAMBDA { decode_whole_blocks<Format>(p, n, out); });
}

}  // namespace TERN_ABI
}  // namespace tern::detail

namespace tern {
inline namespace TERN_ABI {

/// One row of `m` as m.columns floats: an embedding lookup.
inline constexpr struct decode_fn {
  TERN_INLINE void operator()(block_matrix const& m, index row, float* out) const {
    detail::expect(row >= 0 && row < m.rows, "decode", "row", row, "at least 0 and less than the matrix's rows");
    detail::decode_columns(m.type, m.row(row), 0, m.columns, out);
  }
  void operator()(interleaved_matrix const& m, index row, float* out) const {
    detail::expect_interleaved("decode", m);
    detail::expect(row >= 0 && row < m.rows, "decode", "row", row, "at least 0 and less than the matrix's rows");
    detail::decode_interleaved(m, row, 0, m.columns, out);
  }
  template <custom_weights W>
  TERN_INLINE void operator()(W const& w, index row, float* out) const {
    detail::expect(row >= 0 && row < w.rows, "decode", "row", row, "at least 0 and less than the matrix's rows");
    detail::decode_row(w, row, 0, w.columns, out);
  }
} decode{};

}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/row_group.hpp
/// 32 columns of `lanes` weight rows, from their blocks to registers: what both integer products and decoding start from.

#include <tern/formats/block_formats.hpp>
#include <tern/matmul/types.hpp>
#include <tern/simd/rows.hpp>
#include <tern/simd/shuffle.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// 32 columns of `lanes` weight rows: u[h][r] has bytes 16 h to 16 h + 15 of rows r, r + 4, r + 8, ...
template <class Format>
struct row_group {
  static constexpr index granules = 32 / Format::granule;
  simd::pack<std::uint8_t> u[2][4];
  simd::pack<float> scale[granules], min[granules];  // min: formats that have one
};

/// The block of 32 columns in the row at `row`.
template <class Format>
TERN_INLINE typename Format::block const& block_of(std::uint8_t const* row, index g) {
  return reinterpret_cast<typename Format::block const*>(row)[g / (Format::elements / 32)];
}

/// Scales and minima, row by row.
template <class Format>
TERN_INLINE void load_scales(std::uint8_t const* rows, index row_bytes, index g, row_group<Format>& out) {
  constexpr index W = simd::lanes, granules = row_group<Format>::granules;
  float scale[granules][W], min[granules][W];
  for (index i = 0; i < W; ++i) {
    float s[granules], m[granules];
    Format::scales(block_of<Format>(rows + i * row_bytes, g), g % (Format::elements / 32), s, m);
    for (index j = 0; j < granules; ++j) {
      scale[j][i] = s[j];
      if constexpr (Format::has_min) min[j][i] = m[j];
    }
  }
  for (index j = 0; j < granules; ++j) {
    out.scale[j] = simd::load(scale[j]);
    if constexpr (Format::has_min) out.min[j] = simd::load(min[j]);
  }
}

/// Through memory: any format.
template <class Format>
TERN_INLINE void load_group(std::uint8_t const* rows, index row_bytes, index g, row_group<Format>& out) {
  constexpr index W = simd::lanes, parts = Format::elements / 32;
  std::uint8_t bytes[W * 32];
  for (index i = 0; i < W; ++i) Format::unpack(block_of<Format>(rows + i * row_bytes, g), g % parts, bytes + 32 * i);
  for (index h = 0; h < 2; ++h)
    for (index r = 0; r < 4; ++r) out.u[h][r] = simd::load_rows16(bytes + 32 * r + 16 * h, 4 * 32);
  load_scales(rows, row_bytes, g, out);
}

/// The halves of 16 bytes at q in each row: codes, or choices among the format's levels.
template <class Format>
TERN_INLINE void load_halves(std::uint8_t const* q, index row_bytes, row_group<Format>& out) {
  simd::pack<std::uint8_t> const low(std::uint8_t{15});
  TERN_UNROLL
  for (index r = 0; r < 4; ++r) {
    auto const v = simd::load_rows16(q + r * row_bytes, 4 * row_bytes);
    out.u[0][r] = v & low;
    out.u[1][r] = simd::shift_right<4>(v);
  }
  if constexpr (requires { Format::levels; }) {
    auto const table = simd::load_table(reinterpret_cast<std::int8_t const*>(Format::levels));
    TERN_UNROLL
    for (index r = 0; r < 4; ++r) {
      out.u[0][r] = simd::bit_cast<std::uint8_t>(simd::lookup(table, out.u[0][r]));
      out.u[1][r] = simd::bit_cast<std::uint8_t>(simd::lookup(table, out.u[1][r]));
    }
  }
}
/// Such halves after one or two f16.
template <class Format>
TERN_INLINE void load_f16_halves(std::uint8_t const* rows, index row_bytes, index g, row_group<Format>& out) {
  using block = typename Format::block;
  std::uint8_t const* const p = rows + g * static_cast<index>(sizeof(block));
  load_halves(p + static_cast<index>(offsetof(block, q)), row_bytes, out);
  auto const head = simd::gather_rows32(p, row_bytes);
  out.scale[0] = simd::low_f16(head);
  if constexpr (Format::has_min) out.min[0] = simd::high_f16(head);
}
TERN_INLINE void load_group(std::uint8_t const* rows, index row_bytes, index g, row_group<formats::q4_0>& out) {
  load_f16_halves(rows, row_bytes, g, out);
}
TERN_INLINE void load_group(std::uint8_t const* rows, index row_bytes, index g, row_group<formats::q4_1>& out) {
  load_f16_halves(rows, row_bytes, g, out);
}
TERN_INLINE void load_group(std::uint8_t const* rows, index row_bytes, index g, row_group<formats::iq4_nl>& out) {
  load_f16_halves(rows, row_bytes, g, out);
}
TERN_INLINE void load_group(std::uint8_t const* rows, index row_bytes, index g, row_group<formats::iq4_xs>& out) {
  load_halves(block_of<formats::iq4_xs>(rows, g).q + g % 8 * 16, row_bytes, out);
  load_scales(rows, row_bytes, g, out);
}
TERN_INLINE void load_group(std::uint8_t const* rows, index row_bytes, index g, row_group<formats::mxfp4>& out) {
  load_halves(block_of<formats::mxfp4>(rows, g).q, row_bytes, out);
  load_scales(rows, row_bytes, g, out);
}
TERN_INLINE void load_group(std::uint8_t const* rows, index row_bytes, index g, row_group<formats::q8_0>& out) {
  std::uint8_t const* const p = rows + g * 34;
  simd::pack<std::uint8_t> const top(std::uint8_t{0x80});
  TERN_UNROLL
  for (index r = 0; r < 4; ++r) {
    out.u[0][r] = simd::load_rows16(p + 2 + r * row_bytes, 4 * row_bytes) ^ top;
    out.u[1][r] = simd::load_rows16(p + 18 + r * row_bytes, 4 * row_bytes) ^ top;
  }
  out.scale[0] = simd::low_f16(simd::gather_rows32(p, row_bytes));
}

/// Short rows give the machine's own prefetcher nothing to go by: while `lanes` rows are walked, the next ones are asked for, in
/// the order of memory. Past the end of a matrix nothing happens.
struct prefetch_rows {
  std::uintptr_t at;
  index bytes;
  /// The walk has `groups` steps.
  TERN_INLINE prefetch_rows(std::uint8_t const* rows, index row_bytes, index groups)
      : at(reinterpret_cast<std::uintptr_t>(rows)), bytes(groups > 0 && row_bytes > 0 ? simd::lanes * row_bytes / groups : 0) {
    at += static_cast<std::uintptr_t>(bytes) * static_cast<std::uintptr_t>(groups);
  }
  TERN_INLINE void step() {
    for (index b = 0; b < bytes; b += 64) __builtin_prefetch(reinterpret_cast<void const*>(at + static_cast<std::uintptr_t>(b)), 0, 2);
    at += static_cast<std::uintptr_t>(bytes);
  }
};

}  // namespace TERN_ABI
}  // namespace tern::detail

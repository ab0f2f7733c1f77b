// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/interleaved.hpp
/// A block_matrix repacked for products: as many neighboring rows as a register has lanes lie side by side, so that one load takes four
/// bytes of each. Same bytes in number, same values; a product with one row of x then keeps up with memory. bf16 lies as bf16 products take
/// it, which other weights are packed to in each call: products of many rows gain a tenth to a half.
///
///     interleaved_matrix fast = interleave(policy, w, memory);    // w.rows * (bytes of a row) of them; may be where w lies
///     matmul(policy, x, fast, y, compute::int8);
///
///     a tile of `lanes` rows:   words  [blocks][bytes of a block / 4][lanes][4]
///                               rest   [blocks][lanes][what is left, 0 to 2 bytes: the scale that blocks of these formats begin or end
///                               with]
///     bf16, 2 lanes rows:       words  [columns / 2][2 lanes][4]
///     the last rows, fewer than that, lie as before
///
/// bf16 comes in multiples of 32 columns. Its products add up in one order, that of many rows of x, however few there are. f32 and f16 gain
/// nothing.
///
/// A matrix that is repacked where it lies is no block_matrix any more: only the interleaved_matrix may be used then.
///
/// Cost: each byte is read and written once, a tile at a time through scratch memory: `lanes` rows for each thread.

#include <tern/core/parallel_for.hpp>
#include <tern/core/rounding.hpp>
#include <tern/formats/block_formats.hpp>
#include <tern/simd/register.hpp>

namespace tern {

/// A read-only interleaved matrix (rows, columns) that somebody else owns, made by `interleave`.
struct interleaved_matrix {
  void const* data = nullptr;
  weight_type type = weight_type::q4_0;
  index rows = 0;
  index columns = 0;
  index lanes = 0;  // of the code that made it; only code with as many reads it
};

namespace detail {
inline namespace TERN_ABI {

/// Columns come in multiples of these; 0 for types that are not interleaved.
TERN_INLINE constexpr index interleaved_columns(weight_type type) {
  return type == weight_type::bf16 ? 32 : info(type).elements > 1 ? info(type).elements : 0;
}
/// Rows that lie side by side.
TERN_INLINE constexpr index rows_side_by_side(weight_type type) { return type == weight_type::bf16 ? 2 * simd::lanes : simd::lanes; }

/// Fails unless m is what `interleave` returned to code with as many lanes.
inline void expect_interleaved(char const* op, interleaved_matrix const& m) {
  index const elements = interleaved_columns(m.type);
  if (elements == 0)
    (message() << op << ": the interleaved matrix's type is none of these, expected what tern::interleave returned").fail();
  expect(m.rows >= 0, op, "the interleaved matrix's rows", m.rows, "at least 0");
  expect(m.columns >= 0 && m.columns % elements == 0, op, "the interleaved matrix's columns", m.columns, "a whole number of blocks");
  if (m.lanes != simd::lanes)
    (message() << op << ": the matrix was interleaved for another number of lanes, expected tern::interleave by code for the same CPU")
        .fail();
}

/// Where a block's words begin: after the scale, where the rest comes first.
TERN_INLINE constexpr index interleaved_head(weight_type type) {
  bool const first = type == weight_type::q4_0 || type == weight_type::q5_0 || type == weight_type::q8_0 || type == weight_type::iq4_nl ||
                     type == weight_type::mxfp4;
  return first ? info(type).bytes % 4 : 0;
}

/// The pieces of a matrix's tiles.
struct interleaved_layout {
  index blocks, bytes, words, rest, head, rest_at;
  TERN_INLINE constexpr interleaved_layout(weight_type type, index columns)
      : blocks(columns / info(type).elements),
        bytes(info(type).bytes),
        words(bytes / 4),
        rest(bytes % 4),
        head(interleaved_head(type)),
        rest_at(head > 0 ? 0 : 4 * words) {}
  /// Of a row.
  TERN_INLINE index row_bytes() const { return blocks * bytes; }
  /// From the start of a tile to word w of a block in a lane, and to the block's rest.
  TERN_INLINE index word(index block, index w, index lane) const { return 4 * ((block * words + w) * simd::lanes + lane); }
  TERN_INLINE index rest_of(index block, index lane) const {
    return 4 * blocks * words * simd::lanes + (block * simd::lanes + lane) * rest;
  }

  /// A block of a tile's row, as it was.
  TERN_INLINE void gather(std::uint8_t const* tile, index block, index lane, std::uint8_t* out) const {
    for (index w = 0; w < words; ++w) __builtin_memcpy(out + head + 4 * w, tile + word(block, w, lane), 4);
    for (index i = 0; i < rest; ++i) out[rest_at + i] = tile[rest_of(block, lane) + i];
  }
  TERN_INLINE void scatter(std::uint8_t const* in, index block, index lane, std::uint8_t* tile) const {
    for (index w = 0; w < words; ++w) __builtin_memcpy(tile + word(block, w, lane), in + head + 4 * w, 4);
    for (index i = 0; i < rest; ++i) tile[rest_of(block, lane) + i] = in[rest_at + i];
  }
};

/// A block of an interleaved matrix as it was: out of a tile, or of the last rows.
TERN_INLINE void gather_block(interleaved_matrix const& m, interleaved_layout const& layout, index row, index block, std::uint8_t* out) {
  index const first = row / simd::lanes * simd::lanes;
  auto const* const tile = static_cast<std::uint8_t const*>(m.data) + first * layout.row_bytes();
  if (first + simd::lanes <= m.rows)
    layout.gather(tile, block, row - first, out);
  else
    __builtin_memcpy(out, tile + (row - first) * layout.row_bytes() + block * layout.bytes, static_cast<std::size_t>(layout.bytes));
}
/// Columns [k0, k1) of a row of bf16, both even, as they are.
inline void gather_pairs(interleaved_matrix const& m, index row, index k0, index k1, bf16* out) noexcept {
  index const side = rows_side_by_side(m.type), first = row / side * side, within = row - first;
  bool const whole = first + side <= m.rows;
  bf16 const* const panel = static_cast<bf16 const*>(m.data) + first * m.columns;
  for (index k = k0; k < k1; k += 2)
    __builtin_memcpy(static_cast<void*>(out + (k - k0)), panel + (whole ? k * side + 2 * within : within * m.columns + k), 4);
}
/// Columns [k0, k1), whole blocks or pairs of bf16, of a row.
inline void decode_interleaved(interleaved_matrix const& m, index row, index k0, index k1, float* out) noexcept {
  if (m.type == weight_type::bf16) {
    for (index k = k0; k < k1; k += 2) {
      bf16 pair[2];
      gather_pairs(m, row, k, k + 2, pair);
      for (index i = 0; i < 2; ++i) out[k - k0 + i] = static_cast<float>(pair[i]);
    }
    return;
  }
  with_block_format(m.type, [&]<class Format>(Format) TERN_LAMBDA {
    interleaved_layout const layout(type_of_format<Format>, m.columns);
    for (index k = k0; k < k1; k += Format::elements) {
      typename Format::block one;
      gather_block(m, layout, row, k / Format::elements, reinterpret_cast<std::uint8_t*>(&one));
      Format::decode(one, out + (k - k0));
    }
  });
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// `tern::interleave(policy, w, to)`: see the top of formats/interleaved.hpp. Fails if w holds f32 or f16, or bf16 whose columns are no
/// multiple of 32, if `to` is null, or where w lies with gaps between its rows.
inline constexpr struct interleave_fn {
  interleaved_matrix operator()(cpu_policy const& policy, block_matrix const& w, void* to) const {
    index const wanted = detail::interleaved_columns(w.type), side = detail::rows_side_by_side(w.type);
    if (wanted == 0) detail::fail("interleave: w holds f32 or f16, expected bf16 or a format of blocks");
    detail::expect(w.columns % wanted == 0, "interleave", "w.columns", w.columns, "a multiple of 32");
    detail::interleaved_layout const layout(w.type, w.columns);
    index const row = layout.row_bytes(), tile = side * row;
    detail::expect(to != nullptr || w.rows * row == 0, "interleave", "to", 0, "not null");
    detail::expect(w.data != nullptr || w.rows * row == 0, "interleave", "w.data", 0, "not null");
    detail::expect(to != w.data || w.row_bytes == row, "interleave", "w.row_bytes", w.row_bytes, "no gaps, where it is repacked in place");
    if (to != w.data && overlap(w, to, w.rows * row)) detail::fail("interleave: `to` overlaps w, expected the place of w or other memory");
    auto const misaligned = static_cast<index>(reinterpret_cast<std::uintptr_t>(to) % static_cast<std::uintptr_t>(info(w.type).alignment));
    detail::expect(misaligned == 0, "interleave", "to's misalignment", misaligned, "0");
    auto* const out = static_cast<std::uint8_t*>(to);
    workspace::lease const scratch(policy.scratch(), static_cast<std::size_t>(policy.concurrency() * tile));
    detail::parallel_for(policy, detail::divide_up(w.rows, side), [&](index item, index slot) TERN_LAMBDA {
      auto* const rows = reinterpret_cast<std::uint8_t*>(scratch.data()) + slot * tile;
      index const n = item * side, count = n + side <= w.rows ? side : w.rows - n;
      for (index i = 0; i < count; ++i) __builtin_memcpy(rows + i * row, w.row(n + i), static_cast<std::size_t>(row));
      if (count < side) {
        __builtin_memcpy(out + n * row, rows, static_cast<std::size_t>(count * row));
        return;
      }
      if (w.type == weight_type::bf16) {
        for (index word = 0; word < row / 4; ++word)
          for (index i = 0; i < side; ++i) __builtin_memcpy(out + n * row + 4 * (word * side + i), rows + i * row + 4 * word, 4);
        return;
      }
      for (index b = 0; b < layout.blocks; ++b)
        for (index i = 0; i < count; ++i) layout.scatter(rows + i * row + b * layout.bytes, b, i, out + n * row);
    });
    return {to, w.type, w.rows, w.columns, simd::lanes};
  }
  std::size_t workspace_size(cpu_policy const& policy, block_matrix const& w, void*) const {
    return static_cast<std::size_t>(policy.concurrency() * detail::rows_side_by_side(w.type) *
                                    detail::interleaved_layout(w.type, w.columns).row_bytes());
  }

 private:
  static bool overlap(block_matrix const& w, void const* to, index bytes) {
    if (w.rows == 0) return false;
    auto const at = reinterpret_cast<std::uintptr_t>(to), from = reinterpret_cast<std::uintptr_t>(w.row(0));
    return at < reinterpret_cast<std::uintptr_t>(w.row(w.rows - 1)) + static_cast<std::uintptr_t>(bytes / w.rows) &&
           from < at + static_cast<std::uintptr_t>(bytes);
  }
} interleave{};

}  // namespace TERN_ABI
}  // namespace tern

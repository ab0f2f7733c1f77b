// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/tile_kernel.hpp
/// The products of a panel with up to 32 rows of x in matrix registers (simd/tiles.hpp), where there are any: two tiles of x's rows times
/// two of the panel's lanes, so that a load serves two products.

#include <tern/matmul/piece_rows.hpp>
#include <tern/matmul/quantize.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Bytes of a row of a panel.
inline constexpr index panel_row_bytes = 4 * panel_rows;

/// Rows [r0, r1) in blocks: f(r, rows) with registers shaped for rows <= 32 and `depth` bytes of x.
template <class F>
TERN_INLINE void for_tile_blocks(index r0, index r1, index depth, F const& f) {
  index shaped = 0;
  for (index r = r0; r < r1; r += tile_block_rows) {
    index const rows = least(tile_block_rows, r1 - r), upper = least(rows, 16);
    if (rows != shaped) simd::tiles::configure(simd::tiles::shape(upper, rows - upper, depth));
    shaped = rows;
    f(r, rows);
  }
  simd::tiles::release();
}

/// Sums start at zero or from memory, and go to memory: [rows][panel_rows] words, of which 16 rows are upper ones.
TERN_INLINE void zero_sums(bool lower) {
  simd::tiles::zero<0>();
  simd::tiles::zero<1>();
  if (!lower) return;
  simd::tiles::zero<2>();
  simd::tiles::zero<3>();
}
template <class T>
TERN_INLINE void load_sums(T const* from, bool lower) {
  simd::tiles::load<0>(from, panel_row_bytes);
  simd::tiles::load<1>(from + 16, panel_row_bytes);
  if (!lower) return;
  simd::tiles::load<2>(from + 16 * panel_rows, panel_row_bytes);
  simd::tiles::load<3>(from + 16 * panel_rows + 16, panel_row_bytes);
}
template <class T>
TERN_INLINE void store_sums(T* to, bool lower) {
  simd::tiles::store<0>(to, panel_row_bytes);
  simd::tiles::store<1>(to + 16, panel_row_bytes);
  if (!lower) return;
  simd::tiles::store<2>(to + 16 * panel_rows, panel_row_bytes);
  simd::tiles::store<3>(to + 16 * panel_rows + 16, panel_row_bytes);
}

struct tile_bf16 {
  template <int C, int A, int B>
  TERN_INLINE static void dot() {
    simd::tiles::dot_bf16<C, A, B>();
  }
};
struct tile_s8 {
  template <int C, int A, int B>
  TERN_INLINE static void dot() {
    simd::tiles::dot_s8<C, A, B>();
  }
};
struct tile_s8u8 {
  template <int C, int A, int B>
  TERN_INLINE static void dot() {
    simd::tiles::dot_s8u8<C, A, B>();
  }
};

/// Adds `depth` bytes of each of x's rows times as many of the panel's lanes.
template <class Products>
TERN_INLINE void add_tiles(std::byte const* x, index x_stride, std::byte const* panel, bool lower) {
  simd::tiles::load<6>(panel, panel_row_bytes);
  simd::tiles::load<4>(x, x_stride);
  simd::tiles::load<7>(panel + 64, panel_row_bytes);
  Products::template dot<0, 4, 6>();
  Products::template dot<1, 4, 7>();
  if (!lower) return;
  simd::tiles::load<5>(x + 16 * x_stride, x_stride);
  Products::template dot<2, 5, 6>();
  Products::template dot<3, 5, 7>();
}
/// The same for `steps` times 64 bytes.
template <class Products>
TERN_INLINE void add_tile_steps(void const* x, index x_stride, void const* panel, index steps, bool lower) {
  auto const* a = static_cast<std::byte const*>(x);
  auto const* b = static_cast<std::byte const*>(panel);
  for (index s = 0; s < steps; ++s, a += 64, b += 16 * panel_row_bytes) add_tiles<Products>(a, x_stride, b, lower);
}

/// bf16: rows [0, rows) of x (rows, 32 steps) times a panel, added to sums. memory: tile_block_rows rows of a panel.
inline void multiply_halves(bf16 const* panel, index steps, bf16 const* x, index x_stride, index rows, piece_rows const& sums,
                            float* memory) noexcept {
  for_tile_blocks(0, rows, 64, [&](index r, index count) TERN_LAMBDA {
    bool const lower = count > 16;
    zero_sums(lower);
    add_tile_steps<tile_bf16>(x + r * x_stride, 2 * x_stride, panel, steps, lower);
    store_sums(memory, lower);
    for (index i = 0; i < count; ++i) {
      float const* const own = memory + i * panel_rows;
      sums.add(r + i, 0, simd::load(own));
      sums.add(r + i, 1, simd::load(own + simd::lanes));
    }
  });
}

/// Integers: rows [0, rows) of x times a panel's `groups` groups, added to sums (rows, panel_rows) unless they are the first. Columns are
/// taken by 64: after an odd number of groups there is memory behind x's rows, and zeros are put into the panel.
inline void multiply_integer_tiles(code_panel& panel, index groups, std::int8_t const* x, index x_stride, index rows, std::int32_t* sums,
                                   bool first) noexcept {
  if (groups % 2 != 0) __builtin_memset(panel.codes + groups * 32 * panel_rows, 0, static_cast<std::size_t>(32 * panel_rows));
  for_tile_blocks(0, rows, 64, [&](index r, index count) TERN_LAMBDA {
    bool const lower = count > 16;
    std::int32_t* const to = sums + r * panel_rows;
    first ? zero_sums(lower) : load_sums(static_cast<std::int32_t const*>(to), lower);
    add_tile_steps<tile_s8u8>(x + r * x_stride, x_stride, panel.codes, (groups + 1) / 2, lower);
    store_sums(to, lower);
  });
}

/// Takes the offset, 0 to 128, from a panel's codes, which then have a sign.
inline void sign_codes(code_panel& panel, std::int32_t offset, index groups) noexcept {
  using simd::pack;
  if (offset == 0) return;
  // A top bit that is set keeps a byte from borrowing.
  constexpr std::uint32_t each_byte = 0x01010101u;
  pack<std::int32_t> const top(static_cast<std::int32_t>(0x80u * each_byte));
  pack<std::int32_t> const taken(static_cast<std::int32_t>(static_cast<std::uint32_t>(offset) * each_byte));
  for (index i = 0; i < groups * 32 * panel_rows; i += 4 * simd::lanes) {
    auto const codes = simd::bit_cast<std::int32_t>(simd::load(panel.codes + i));
    auto const with_sign = offset == 128 ? codes ^ top : ((codes | top) - taken) ^ top;
    simd::store(panel.codes + i, simd::bit_cast<std::uint8_t>(with_sign));
  }
}

/// Adds what `parts` integer products stand for to the sums of `Rows` rows of x: the operations of add_group (int8_stream.hpp), in its
/// order.
template <class Shape, int Rows>
TERN_INLINE void scale_products(code_panel const& panel, index part, index parts, std::int32_t const* products, q8_scales const* scales,
                                index blocks, float* sums) {
  using simd::pack;
  constexpr index W = simd::lanes, granules = 32 / Shape::granule;
  pack<float> sum[Rows][2];
  TERN_UNROLL
  for (int r = 0; r < Rows; ++r)
    for (int h = 0; h < 2; ++h) sum[r][h] = simd::load(static_cast<float const*>(sums + r * panel_rows + h * W));
  for (index p = 0; p < parts; ++p, products += tile_block_rows * panel_rows) {
    index const at = (part + p) * panel_rows, g = (part + p) / granules;
    pack<float> const scale[2] = {simd::load(panel.scales + at), simd::load(panel.scales + at + W)};
    TERN_UNROLL
    for (int r = 0; r < Rows; ++r) {
      q8_scales const& own = scales[r * blocks + g];
      TERN_UNROLL
      for (int h = 0; h < 2; ++h) {
        pack<float> const product = simd::to_float(simd::load(products + r * panel_rows + h * W));
        sum[r][h] = simd::fma(product, scale[h] * pack<float>(own.scale), sum[r][h]);
        if constexpr (Shape::has_min) {
          std::int32_t const total = (part + p) % granules == 0 ? own.first : own.total - own.first;
          pack<float> const taken(granules == 1 ? own.sum : own.scale * static_cast<float>(total));
          sum[r][h] = simd::fma(simd::load(panel.mins + at + h * W), taken, sum[r][h]);
        }
      }
    }
  }
  TERN_UNROLL
  for (int r = 0; r < Rows; ++r)
    for (int h = 0; h < 2; ++h) simd::store(sums + r * panel_rows + h * W, sum[r][h]);
}

/// Codes with scales: rows [0, rows) of x times a panel's `groups` groups, added to sums. The panel's codes have a sign.
template <class Shape>
inline void multiply_code_tiles(code_panel const& panel, index groups, std::int8_t const* x, index x_stride, q8_scales const* scales,
                                index blocks, index rows, piece_rows const& sums, tile_memory& memory) noexcept {
  constexpr index granule = Shape::granule, each = 6;
  index const parts = groups * (32 / granule);
  for_tile_blocks(0, rows, granule, [&](index r, index count) TERN_LAMBDA {
    bool const lower = count > 16;
    for (index i = 0; i < count; ++i)
      for (index h = 0; h < 2; ++h) simd::store(memory.sums + i * panel_rows + h * simd::lanes, sums.load(r + i, h));
    for (index part = 0; part < parts; part += tile_parts) {
      index const here = least(tile_parts, parts - part);
      for (index p = 0; p < here; ++p) {
        zero_sums(lower);
        add_tiles<tile_s8>(reinterpret_cast<std::byte const*>(x + r * x_stride + (part + p) * granule), x_stride,
                           reinterpret_cast<std::byte const*>(panel.codes + (part + p) * granule * panel_rows), lower);
        store_sums(memory.products + p * tile_block_rows * panel_rows, lower);
      }
      auto const scale = [&]<int Rows>(index i) TERN_LAMBDA {
        scale_products<Shape, Rows>(panel, part, here, memory.products + i * panel_rows, scales + (r + i) * blocks, blocks,
                                    memory.sums + i * panel_rows);
      };
      index i = 0;
      for (; i + each <= count; i += each) scale.template operator()<each>(i);
      for (; i < count; ++i) scale.template operator()<1>(i);
    }
    for (index i = 0; i < count; ++i)
      for (index h = 0; h < 2; ++h)
        sums.store(r + i, h, simd::load(static_cast<float const*>(memory.sums + i * panel_rows + h * simd::lanes)));
  });
}

}  // namespace TERN_ABI
}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/tile_kernel.hpp
/// The products of a panel with up to 32 rows of x in matrix registers (simd/tiles.hpp), where there are any: two tiles of x's rows times
/// two of the panel's lanes, so that a load serves two products.

#include <tern/matmul/ahead.hpp>
#include <tern/matmul/piece_rows.hpp>
#include <tern/simd/tiles.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

static_assert(!simd::tiles::exist || simd::lanes == simd::tiles::rows);

/// Rows of x that are multiplied at once, and bytes of a row of a panel.
inline constexpr index tile_block_rows = 32, panel_row_bytes = 4 * panel_rows;

/// All rows in blocks: f(r, count) with registers shaped for count <= 32 rows of x.
template <class F>
TERN_INLINE void for_tile_blocks(index rows, F const& f) {
  index shaped = 0;
  for (index r = 0; r < rows; r += tile_block_rows) {
    index const count = least(tile_block_rows, rows - r), upper = least(count, simd::tiles::rows);
    if (count != shaped) simd::tiles::configure(simd::tiles::shape(upper, count - upper));
    shaped = count;
    f(r, count);
  }
  simd::tiles::release();
}

/// Sums start at zero or from memory, and go to memory: [rows][panel_rows] words. The lower ones are those of rows 16 and on.
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
struct tile_bytes {
  template <int C, int A, int B>
  TERN_INLINE static void dot() {
    simd::tiles::dot_bytes<C, A, B>();
  }
};

/// Adds 64 bytes of each of x's rows times as many of the panel's lanes.
template <class Products>
TERN_INLINE void add_tiles(std::byte const* x, index x_stride, std::byte const* panel, bool lower) {
  simd::tiles::load<6>(panel, panel_row_bytes);
  simd::tiles::load<7>(panel + 64, panel_row_bytes);
  simd::tiles::load<4>(x, x_stride);
  Products::template dot<0, 4, 6>();
  Products::template dot<1, 4, 7>();
  if (!lower) return;
  simd::tiles::load<5>(x + 16 * x_stride, x_stride);
  Products::template dot<2, 5, 6>();
  Products::template dot<3, 5, 7>();
}
/// `steps` times 64 bytes of x's rows times the panel, to memory; added to what is there unless they are the first. Asks for `lines` lines
/// of what follows with each step.
template <class Products, class T>
TERN_INLINE void multiply_tiles(void const* x, index x_stride, void const* panel, index steps, bool first, bool lower, T* to,
                                memory_ahead& ahead, index lines) {
  auto const* a = static_cast<std::byte const*>(x);
  auto const* b = static_cast<std::byte const*>(panel);
  first ? zero_sums(lower) : load_sums(static_cast<T const*>(to), lower);
  for (index s = 0; s < steps; ++s, a += 64, b += 16 * panel_row_bytes) {
    for (index l = 0; l < lines; ++l) ahead.ask();
    add_tiles<Products>(a, x_stride, b, lower);
  }
  store_sums(to, lower);
}

/// Lines to ask for with each step of a panel against `rows` rows of x.
TERN_INLINE index lines_a_step(memory_ahead const& ahead, index rows, index steps) {
  return divide_up(ahead.lines(), divide_up(rows, tile_block_rows) * (steps > 0 ? steps : 1));
}

/// bf16: `rows` rows of x (rows, 32 steps) times a panel, added to sums. memory: tile_block_rows rows of a panel.
inline void multiply_halves(bf16 const* panel, index steps, bf16 const* x, index x_stride, index rows, piece_rows const& sums,
                            float* memory, memory_ahead& ahead) noexcept {
  index const lines = lines_a_step(ahead, rows, steps);
  for_tile_blocks(rows, [&](index r, index count) TERN_LAMBDA {
    multiply_tiles<tile_bf16>(x + r * x_stride, 2 * x_stride, panel, steps, true, count > 16, memory, ahead, lines);
    for (index i = 0; i < count; ++i) {
      float const* const own = memory + i * panel_rows;
      sums.add(r + i, 0, simd::load(own));
      sums.add(r + i, 1, simd::load(own + simd::lanes));
    }
  });
}

/// Rows of x that meet weights where these lie, in matrix registers: more would read weights again and again, from rows that push each
/// other out of the first cache. Fewer rows of bf16 than the least, and one row of bytes, are streamed as fast (measured on Sapphire
/// Rapids, memory read at 16.7 GB/s, weights of 4096 x 4096. bf16: 32 rows of x 10.8 GB/s so, 8.0 with weights transposed into panels; 16
/// rows 11.3, streamed 5.4. Bytes: 32 rows 11.0, with panels 7.6; 4 rows 12.8 and 9.8).
inline constexpr index least_lying_rows = 5, most_lying_rows = panel_rows;
/// Whether bf16 weights can be taken so: nothing may be read behind a row.
TERN_INLINE bool halves_lie_ready(any_weights const& w) {
  return simd::tiles::ready() && w.bf16 && w.panels == nullptr && w.memory.data != nullptr && w.columns % 32 == 0;
}
TERN_INLINE bool bytes_lie_ready(any_weights const& w) { return simd::tiles::ready() && w.signed_bytes && w.columns % 64 == 0; }
/// So far ahead they are asked for in each row, in bytes (bf16 with 128 and 512: 2 percent slower).
inline constexpr index lying_ahead = 256;

struct tile_signed {
  template <int C, int A, int B>
  TERN_INLINE static void dot() {
    simd::tiles::dot_signed<C, A, B>();
  }
};

/// The other way round: bytes [from, to) of `width` weight rows from n on, where they lie, times a panel of x, to (width, panel_rows)
/// words. A multiple of 64 bytes.
template <class Products, class T>
TERN_INLINE void multiply_lying(row_memory const& w, index n, index width, index from, index to, void const* panel, T* sums) {
  auto const* a = reinterpret_cast<std::byte const*>(w.data) + n * w.stride;
  auto const* const b = static_cast<std::byte const*>(panel);
  // What follows a row's end is the row that is taken when this one is done.
  index const turn = panel_rows * w.stride - w.bytes;
  for_tile_blocks(width, [&](index, index count) TERN_LAMBDA {
    bool const lower = count > simd::tiles::rows;
    zero_sums(lower);
    for (index at = from; at < to; at += 64) {
      index const ahead = at + lying_ahead;
      auto next = reinterpret_cast<std::uintptr_t>(a) + static_cast<std::uintptr_t>(ahead < w.bytes ? ahead : ahead + turn);
      for (index i = 0; i < count; ++i, next += static_cast<std::uintptr_t>(w.stride))
        __builtin_prefetch(reinterpret_cast<void const*>(next), 0, 2);
      add_tiles<Products>(a + at, w.stride, b + (at - from) / 4 * panel_row_bytes, lower);
    }
    store_sums(sums, lower);
  });
}
/// Calls f(row, half, words) for each of `rows` rows of x, half a panel of weight rows at a time: the sums turned over.
template <class F>
TERN_INLINE void for_lying_rows(void const* sums, index width, index rows, F const& f) {
  constexpr index W = simd::lanes;
  auto const* const words = static_cast<std::uint8_t const*>(sums);
  for (index half = 0; half * W < width; ++half)
    for (index first = 0; first < rows; first += W) {
      simd::pack<float> t[W];
      TERN_UNROLL
      for (index i = 0; i < W; ++i) t[i] = simd::bit_cast<float>(simd::load(words + 4 * ((half * W + i) * panel_rows + first)));
      simd::transpose(t);
      for (index i = 0; i < least(W, rows - first); ++i) f(first + i, half, t[i]);
    }
}
/// bf16: columns [k0, k1) times a panel of `rows` rows of x, added to sums. The same sums of the same products as multiply_halves. memory:
/// panel_rows rows of a panel.
inline void multiply_lying_halves(any_weights const& w, index n, index width, index k0, index k1, bf16 const* panel, index rows,
                                  piece_rows const& sums, float* memory) noexcept {
  constexpr index bytes = sizeof(bf16);
  multiply_lying<tile_bf16>(w.memory, n, width, bytes * k0, bytes * k1, panel + k0 * panel_rows, memory);
  for_lying_rows(memory, width, rows, [&](index r, index half, simd::pack<float> part) TERN_LAMBDA { sums.add(r, half, part); });
}
/// Bytes: all columns, to sums (rows, panel_rows).
inline void multiply_lying_bytes(any_weights const& w, index n, index width, std::int8_t const* panel, index rows, std::int32_t* sums,
                                 std::int32_t* memory) noexcept {
  multiply_lying<tile_signed>(w.memory, n, width, 0, w.memory.bytes, panel, memory);
  for_lying_rows(memory, width, rows, [&](index r, index half, simd::pack<float> part) TERN_LAMBDA {
    simd::store(sums + r * panel_rows + half * simd::lanes, simd::bit_cast<std::int32_t>(part));
  });
}

/// Integers: `rows` rows of x times a panel's `groups` groups, added to sums (rows, panel_rows) unless they are the first. Columns are
/// taken by 64: after an odd number of groups there is memory behind x's rows, and zeros are put into the panel.
inline void multiply_integer_tiles(code_panel& panel, index groups, std::int8_t const* x, index x_stride, index rows, std::int32_t* sums,
                                   bool first, memory_ahead& ahead) noexcept {
  if (groups % 2 != 0) __builtin_memset(panel.codes + groups * 32 * panel_rows, 0, static_cast<std::size_t>(32 * panel_rows));
  index const steps = (groups + 1) / 2, lines = lines_a_step(ahead, rows, steps);
  for_tile_blocks(rows, [&](index r, index count) TERN_LAMBDA {
    multiply_tiles<tile_bytes>(x + r * x_stride, x_stride, panel.codes, steps, first, count > 16, sums + r * panel_rows, ahead, lines);
  });
}

}  // namespace TERN_ABI
}  // namespace tern::detail

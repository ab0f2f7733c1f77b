// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/piece_rows.hpp
/// Where the sums of a panel's products come from and go to.

#include <tern/matmul/tiled_rows.hpp>
#include <tern/simd/core.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Rows of x whose sums are kept while all chunks of columns pass, and panels that a chunk of them meets one after the other: a chunk
/// of 576 rows stays in the second cache meanwhile, where all of x would not. Tiles are so fast that reading x for each few panels
/// would bound them, and CPUs that have them have second caches of 2 MB.
inline constexpr index kept_rows = 576, panels_at_once = simd::on_sapphire_rapids ? 8 : 4;
static_assert(kept_rows % tile_rows == 0);
/// Sums of a panel, as elements.
TERN_INLINE constexpr index kept_size(index rows) {
  return round_to_multiple(rows < kept_rows ? rows : kept_rows, panel_rows) * panel_rows;
}

/// Scratch memory of a thread, whatever it computes: a panel and sums.
inline constexpr index panel_bytes = round_to_multiple(sizeof(matmul_panel), 64);
TERN_INLINE constexpr index slot_bytes(index rows) { return panel_bytes + panels_at_once * kept_size(rows) * index{sizeof(float)}; }
TERN_INLINE matmul_panel& panel_at(std::byte* memory) { return *reinterpret_cast<matmul_panel*>(memory); }
TERN_INLINE float* kept_at(std::byte* memory) { return reinterpret_cast<float*>(memory + panel_bytes); }

/// Sums of rows against a panel of `width` weight rows. They come from and go to y itself at the first and last chunk of columns, and
/// memory of `panel_rows` a row between.
struct piece_rows {
  float const* from;  // none: zeros
  float* to;
  index from_stride, to_stride, width;
  float* kept;
  bool first, last;
  TERN_INLINE piece_rows(float* y, index y_stride, float* between, bool add, bool first_chunk, bool last_chunk, index n)
      : from(!first_chunk ? between
             : add        ? y
                          : nullptr),
        to(last_chunk ? y : between),
        from_stride(first_chunk ? y_stride : panel_rows),
        to_stride(last_chunk ? y_stride : panel_rows),
        width(n),
        kept(between),
        first(first_chunk),
        last(last_chunk) {}

  /// Register `half`, 0 or 1, of a row.
  TERN_INLINE simd::pack<float> load(index row, index half) const {
    index const at = half * simd::lanes, left = width - at;
    if (from == nullptr || left <= 0) return simd::pack<float>(0.f);
    float const* const p = from + row * from_stride + at;
    return left >= simd::lanes ? simd::load(p) : simd::load_n(p, left);
  }
  TERN_INLINE void store(index row, index half, simd::pack<float> sum) const {
    index const at = half * simd::lanes, left = width - at;
    float* const p = to + row * to_stride + at;
    if (left >= simd::lanes)
      simd::store(p, sum);
    else if (left > 0)
      simd::store_n(p, sum, left);
  }
  TERN_INLINE void add(index row, index half, simd::pack<float> sum) const { store(row, half, load(row, half) + sum); }
  /// The sums of `live` rows from `row` on.
  template <int Rows>
  TERN_INLINE void add(index row, index live, simd::pack<float> const (&sum)[Rows][2]) const {
    if (live == Rows && width == panel_rows) return add_whole(row, sum);
    TERN_UNROLL
    for (int i = 0; i < Rows; ++i) {
      if (i >= live) return;
      add(row + i, 0, sum[i][0]);
      add(row + i, 1, sum[i][1]);
    }
  }
  /// Asks for what rows of sums will be added to.
  TERN_INLINE void ask(index row, index rows) const {
    if (from == nullptr) return;
    for (index r = row; r < row + rows; ++r) {
      float const* const p = from + r * from_stride;
      __builtin_prefetch(p);
      __builtin_prefetch(p + width - 1);
    }
  }

 private:
  template <int Rows>
  TERN_INLINE void add_whole(index row, simd::pack<float> const (&sum)[Rows][2]) const {
    constexpr index W = simd::lanes;
    float* p = to + row * to_stride;
    if (from == nullptr) {
      TERN_UNROLL
      for (int i = 0; i < Rows; ++i, p += to_stride) {
        simd::store(p, sum[i][0]);
        simd::store(p + W, sum[i][1]);
      }
      return;
    }
    float const* q = from + row * from_stride;
    TERN_UNROLL
    for (int i = 0; i < Rows; ++i, p += to_stride, q += from_stride) {
      simd::store(p, simd::load(q) + sum[i][0]);
      simd::store(p + W, simd::load(q + W) + sum[i][1]);
    }
  }
};

}  // namespace TERN_ABI
}  // namespace tern::detail

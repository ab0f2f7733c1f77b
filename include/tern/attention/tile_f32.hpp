// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/tile_f32.hpp
/// The two matrix products of a tile of queries and a block of keys, in f32: queries interleaved by tile, keys transposed and
/// values cut into panels two registers wide.

#include <tern/attention/rows.hpp>
#include <tern/attention/weigh.hpp>
#include <tern/simd/shuffle.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Rows of a register tile, whose accumulators, operands and one broadcast fit the registers: 12 x 2 of 32, 6 x 2 of 16.
#if defined(TERN_SIMD_AVX512) || defined(TERN_SIMD_NEON)
inline constexpr index query_tile_rows = 12;
#else
inline constexpr index query_tile_rows = 6;
#endif
/// Lanes over keys (scores) or over dim_v (values) in a tile: two packs.
inline constexpr index panel_width = 2 * simd::lanes;
static_assert(key_block % panel_width == 0);

/// c = diag(alpha) c + a b, or a b where alpha is null. `a(r, t)` is at a[r * row_stride + t * step_stride].
/// Not inlined: gcc spills accumulators where it knows too much about the arguments.
template <int packs, index row_stride, index step_stride>
[[gnu::noinline]] inline void tile_product(float const* TERN_RESTRICT a,      // (query_tile_rows, steps)
                                           float const* TERN_RESTRICT b,      // (steps, packs * lanes), rows panel_stride apart
                                           index panel_stride, index steps,   //
                                           float const* TERN_RESTRICT alpha,  // (query_tile_rows) or null
                                           float* TERN_RESTRICT c, index c_stride) noexcept {
  using packf = simd::pack<float>;
  packf acc[query_tile_rows][packs];
  if (alpha == nullptr) {
    TERN_UNROLL
    for (index r = 0; r < query_tile_rows; ++r) TERN_UNROLL
    for (index n = 0; n < packs; ++n) acc[r][n] = packf(0.f);
  } else {
    TERN_UNROLL
    for (index r = 0; r < query_tile_rows; ++r) TERN_UNROLL
    for (index n = 0; n < packs; ++n) acc[r][n] = simd::load(c + r * c_stride + n * simd::lanes) * packf(alpha[r]);
  }
  for (index t = 0; t < steps; ++t) {
    packf x[packs];
    TERN_UNROLL
    for (index n = 0; n < packs; ++n) x[n] = simd::load(b + n * simd::lanes);
    TERN_UNROLL
    for (index r = 0; r < query_tile_rows; ++r) {
      packf const y(a[r * row_stride]);
      TERN_UNROLL
      for (index n = 0; n < packs; ++n) acc[r][n] = simd::fma(y, x[n], acc[r][n]);
    }
    a += step_stride;
    b += panel_stride;
  }
  TERN_UNROLL
  for (index r = 0; r < query_tile_rows; ++r) TERN_UNROLL
  for (index n = 0; n < packs; ++n) simd::store(c + r * c_stride + n * simd::lanes, acc[r][n]);
}

/// A square of dst = rows^T: `columns` elements of each row from d, `kept` of the lanes.
template <bool whole, class T>
TERN_INLINE void pack_square(T const* const* rows, index d, index columns, float* dst, index stride, index kept) {
  using packf = simd::pack<float>;
  constexpr index W = simd::lanes;
  packf x[W];
  TERN_UNROLL
  for (index i = 0; i < W; ++i) x[i] = whole ? simd::load(rows[i] + d) : simd::load_n(rows[i] + d, columns);
  simd::transpose(x);
  TERN_UNROLL
  for (index i = 0; i < W; ++i) {
    if (!whole && i >= columns) continue;
    if (kept == W)
      simd::store(dst + i * stride, x[i]);
    else
      simd::store_n(dst + i * stride, x[i], kept);
  }
}

/// dst[d * width + i] = rows[i][d] for d < dim and i < width; the last of `count` rows stands for those behind it, whose results
/// nobody uses.
template <class T>
TERN_INLINE void pack_transposed(T const* const* row, index count, index width, index dim, float* dst) {
  constexpr index W = simd::lanes;
  for (index g = 0; g < width; g += W) {
    T const* some[W];
    for (index i = 0; i < W; ++i) some[i] = row[g + i < count ? g + i : count - 1];
    index const kept = width - g < W ? width - g : W;
    index d = 0;
    for (; d + W <= dim; d += W) pack_square<true>(some, d, W, dst + d * width + g, width, kept);
    if (d < dim) pack_square<false>(some, d, dim - d, dst + d * width + g, width, kept);
  }
}

/// Products in f32.
struct f32_tile {
  static constexpr index rows = query_tile_rows;
  static index query_bytes(index dim) { return round_to_multiple(rows * dim * index{sizeof(float)}, 64); }
  static index key_bytes(index dim) { return key_block * dim * index{sizeof(float)}; }
  static index value_bytes(index dim_v) { return key_block * round_to_multiple(dim_v, simd::lanes) * index{sizeof(float)}; }
  static index weight_bytes(index) { return 0; }

  TERN_INLINE static void pack_queries(float const* const* q, index dim, std::byte* dst) {
    pack_transposed(q, rows, rows, dim, reinterpret_cast<float*>(dst));
  }
  template <class T>
  TERN_INLINE static void pack_keys(T const* const* row, index count, index dim, std::byte* dst) {
    float* const to = reinterpret_cast<float*>(dst);
    for (index panel = 0; panel < count; panel += panel_width) pack_transposed(row + panel, count - panel, panel_width, dim, to + panel * dim);
  }
  /// Values cut into panels of columns, the last one padded with zeros to whole packs.
  template <class T>
  TERN_INLINE static void pack_values(T const* const* row, index count, index dim_v, std::byte* dst) {
    constexpr index W = simd::lanes;
    float* const base = reinterpret_cast<float*>(dst);
    index const padded = round_to_multiple(dim_v, W);
    for (index j = 0; j < count; ++j) {
      T const* const src = row[j];
      index d = 0;
      for (; d + panel_width <= dim_v; d += panel_width) {
        float* const to = base + d * key_block + j * panel_width;
        simd::store(to, simd::load(src + d));
        simd::store(to + W, simd::load(src + d + W));
      }
      index const width = padded - d < panel_width ? W : panel_width;
      for (float* to = base + d * key_block + j * width; d < dim_v; d += W, to += W)
        simd::store(to, d + W <= dim_v ? simd::load(src + d) : simd::load_n(src + d, dim_v - d));
    }
  }
  TERN_INLINE static void scores(std::byte const* q, std::byte const* k, index dim, index first, index last, float* s) {
    for (index n = first; n < last; ++n)
      tile_product<2, 1, query_tile_rows>(reinterpret_cast<float const*>(q), reinterpret_cast<float const*>(k) + n * panel_width * dim,
                                          panel_width, dim, nullptr, s + n * panel_width, key_block);
  }
  TERN_INLINE static void pack_weights(float const*, index, index, std::byte const*, index, std::byte*) {}
  /// `begin` and `end` are keys of the block.
  TERN_INLINE static void values(float const* s, std::byte const*, std::byte const* v, index dim_v, index begin, index end,
                                 float const* alpha, float* o, index o_stride) {
    index const padded = round_to_multiple(dim_v, simd::lanes);
    for (index d = 0; d < padded; d += panel_width) {
      float const* const x = reinterpret_cast<float const*>(v) + d * key_block;
      if (d + panel_width <= padded)
        tile_product<2, key_block, 1>(s + begin, x + begin * panel_width, panel_width, end - begin, alpha, o + d, o_stride);
      else
        tile_product<1, key_block, 1>(s + begin, x + begin * simd::lanes, simd::lanes, end - begin, alpha, o + d, o_stride);
    }
  }
};

}  // namespace TERN_ABI
}  // namespace tern::detail

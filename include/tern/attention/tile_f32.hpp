// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/tile_f32.hpp
/// The compute tile of the prompt path in f32: every type of key and value is decoded while it is packed.
///
/// Errors, for dim n and a block of c keys, e = 2^-24: scores n e sum_d |q_d k_d|, values (c + 1) e sum_j p_j |v_j|; both grow with
/// the square root of n and c where signs are random. NaN and infinity act as in f32 arithmetic.

#include <tern/attention/tile_product.hpp>
#include <tern/attention/tile_rows.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Keys in panels (dim, panel_width), values in panels (key_block, panel_width), queries in groups (dim, group_rows), weights (rows,
/// key_block).
struct f32_tile {
  static constexpr index group_rows = query_tile_rows, rows = prompt_tile_rows, row_step = group_rows;
  static constexpr int exp2_degree = 6;
  static constexpr bool relative_to_block = false;
  static constexpr bool weights_like_scores = true;  // in memory

  /// Before the products with a block of keys, and after them.
  TERN_INLINE static void start() {}
  TERN_INLINE static void finish() {}

  TERN_INLINE static index query_bytes(index dim) { return round_to_multiple(4 * rows * dim, 64); }
  TERN_INLINE static index key_bytes(index dim) { return 4 * key_block * dim; }
  TERN_INLINE static index value_bytes(index dim_v) { return 4 * key_block * round_to_multiple(dim_v, simd::lanes); }
  TERN_INLINE static index weight_bytes(index) { return 4 * rows * key_block; }

  /// dst[r / some * some * dim + d * some + r % some] = q[r][d], some = group_rows
  TERN_INLINE static void pack_queries(float const* const* q, index dim, std::byte* dst) {
    constexpr index W = simd::lanes, some = group_rows;
    for (index r = 0; r < rows; r += some)
      for (index g = 0; g < some; g += W) {
        auto read = [&](index i, index d) TERN_LAMBDA {
          if (g + i >= some) return simd::pack<float>(0.f);
          return read_pack_n(q[r + g + i], d, dim - d < W ? dim - d : W);
        };
        auto place = [&](index d) TERN_LAMBDA { return reinterpret_cast<float*>(dst) + r * dim + d * some + g; };
        transpose_words(read, dim, place, some - g < W ? some - g : W);
      }
  }

  /// Rows behind `count`, to the end of the last panel, are zero.
  template <tile_source T>
  static void pack_keys(T const* const* row, index count, index dim, std::byte* dst) {
    constexpr index W = simd::lanes;
    for (index j = 0; j < count; j += panel_width)
      for (index g = 0; g < panel_width; g += W) {
        auto read = [&](index i, index d) TERN_LAMBDA {
          if (j + g + i >= count) return simd::pack<float>(0.f);
          return read_pack_n(row[j + g + i], d, dim - d < W ? dim - d : W);
        };
        auto place = [&](index d) TERN_LAMBDA { return reinterpret_cast<float*>(dst) + j * dim + d * panel_width + g; };
        transpose_words(read, dim, place);
      }
  }

  /// Rows behind `count`, to the end of the last panel, and columns behind dim_v, to a whole pack, are zero.
  template <tile_source T>
  static void pack_values(T const* const* row, index count, index dim_v, std::byte* dst) {
    constexpr index W = simd::lanes;
    float* const to = reinterpret_cast<float*>(dst);
    index const all = (count + panel_width - 1) / panel_width * panel_width;
    for (index j = 0; j < all; ++j)
      for (index d = 0; d < dim_v; d += W) {
        index const panel = d / panel_width * panel_width, width = dim_v - panel > W ? panel_width : W;
        simd::store(to + panel * key_block + j * width + (d - panel),
                    j < count ? read_pack_n(row[j], d, dim_v - d < W ? dim_v - d : W) : simd::pack<float>(0.f));
      }
  }

  TERN_INLINE static void scores(std::byte const* q, std::byte const* k, index dim, index some, index begin, index end, float* s) {
    score_panels<f32_word, group_rows>(q, k, dim, some, begin, end, s);
  }

  /// Where the weights of row r go.
  struct weight_row {
    float* to;
    TERN_INLINE weight_row(std::byte* p, index r) : to(reinterpret_cast<float*>(p) + r * key_block) {}
    /// Those of the two packs of key panel n.
    TERN_INLINE void put(index n, simd::pack<float> a, simd::pack<float> b) {
      simd::store(to + n * panel_width, a);
      simd::store(to + n * panel_width + simd::lanes, b);
    }
  };

  TERN_INLINE static void values(std::byte const* p, std::byte const* v, index dim_v, index some, index begin, index end,
                                 float const* alpha, float* o, index o_stride) {
    value_panels<f32_word, group_rows>(p, v, dim_v, some, begin, end, alpha, o, o_stride);
  }
};

}  // namespace TERN_ABI
}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/tile_bf16.hpp
/// The compute tile of the prompt path on dot products of bf16 pairs, added up in f32: pairs of dimensions for scores, pairs of keys for
/// values. Where there are matrix registers (AMX), these do it (tile_matrix.hpp).
///
/// Errors beside those of f32 (tile_f32.hpp), u = 2^-8, with one u for each operand that was not bf16 already: a score 2 u sum_d |q_d k_d|,
/// one weight or value u of itself, so that an output is off by 2 u sum_j p_j |v_j|. Weights below 2^-126 and subnormals count as zero.
/// Infinity and NaN act as in f32 arithmetic; so do values that round to infinity, beyond 2^128 (1 - u).

#include <tern/attention/tile_f32.hpp>
#include <tern/attention/tile_matrix.hpp>
#include <tern/simd/narrow.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Keys in panels (pairs of dims, panel_width), values in panels (pairs of keys, panel_width), queries in groups (pairs of dims,
/// group_rows), or (rows, dim) for matrix registers, weights (rows, key_block).
struct bf16_tile {
  // Matrix registers multiply faster than the second cache reads: more rows share what was read of it.
  static constexpr index rows = simd::tiles::exist ? 64 : prompt_tile_rows;
  static constexpr index row_step = simd::tiles::exist ? simd::tiles::rows : query_tile_rows;
  static constexpr int exp2_degree = 4;
  static constexpr bool relative_to_block = false;
  static constexpr bool weights_like_scores = false;

  TERN_INLINE static void start() {
    if (simd::tiles::ready()) simd::tiles::configure(simd::tiles::shape(simd::tiles::rows, simd::tiles::rows));
  }
  TERN_INLINE static void finish() {
    if (simd::tiles::ready()) simd::tiles::release();
  }

  /// Of a row's dims; zeros fill what matrix registers take at once.
  TERN_INLINE static index pairs(index dim) { return simd::tiles::exist ? round_to_multiple(dim, 32) / 2 : (dim + 1) / 2; }
  TERN_INLINE static index query_bytes(index dim) { return round_to_multiple(4 * rows * pairs(dim), 64); }
  TERN_INLINE static index key_bytes(index dim) { return 4 * key_block * pairs(dim); }
  TERN_INLINE static index value_bytes(index dim_v) { return 2 * key_block * round_to_multiple(dim_v, simd::lanes); }
  TERN_INLINE static index weight_bytes(index) { return 2 * rows * key_block; }

  TERN_INLINE static void pack_queries(float const* const* q, index dim, std::byte* dst) {
    constexpr index W = simd::lanes;
    if (simd::tiles::ready()) {
      for (index r = 0; r < rows; ++r)
        for (index t = 0; t < pairs(dim); t += W)
          simd::store(reinterpret_cast<float*>(dst) + r * pairs(dim) + t, read_pairs(q[r], 2 * t, dim - 2 * t));
      return;
    }
    constexpr index some = group_rows;
    for (index r = 0; r < rows; r += some)
      for (index g = 0; g < some; g += W) {
        auto read = [&](index i, index t)
                        TERN_LAMBDA { return g + i < some ? read_pairs(q[r + g + i], 2 * t, dim - 2 * t) : simd::pack<float>(0.f); };
        auto place = [&](index t) TERN_LAMBDA { return reinterpret_cast<float*>(dst) + r * pairs(dim) + t * some + g; };
        transpose_words(read, pairs(dim), place, some - g < W ? some - g : W);
      }
  }

  /// Rows behind `count`, to the end of the last panel, are zero.
  template <tile_source T>
  static void pack_keys(T const* const* row, index count, index dim, std::byte* dst) {
    constexpr index W = simd::lanes;
    for (index j = 0; j < count; j += panel_width)
      for (index g = 0; g < panel_width; g += W) {
        auto read = [&](index i, index t)
                        TERN_LAMBDA { return j + g + i < count ? read_pairs(row[j + g + i], 2 * t, dim - 2 * t) : simd::pack<float>(0.f); };
        auto place = [&](index t) TERN_LAMBDA { return reinterpret_cast<float*>(dst) + j * pairs(dim) + t * panel_width + g; };
        transpose_words(read, pairs(dim), place);
      }
  }

  /// Rows behind `count`, to the end of the last panel, and columns behind dim_v, to a whole pack, are zero.
  template <tile_source T>
  static void pack_values(T const* const* row, index count, index dim_v, std::byte* dst) {
    constexpr index W = simd::lanes;
    bf16* const to = reinterpret_cast<bf16*>(dst);
    index const all = (count + panel_width - 1) / panel_width * panel_width;
    for (index j = 0; j < all; j += 2)
      for (index d = 0; d < dim_v; d += W) {
        index const panel = d / panel_width * panel_width, width = dim_v - panel > W ? panel_width : W;
        auto read = [&](index i)
                        TERN_LAMBDA { return i < count ? read_pack_n(row[i], d, dim_v - d < W ? dim_v - d : W) : simd::pack<float>(0.f); };
        simd::pack<float> const a = read(j), b = read(j + 1);
        simd::store(to + panel * key_block + j * width + 2 * (d - panel),
                    std::same_as<T, bf16> ? simd::join_pairs(a, b) : simd::narrow_pairs(a, b));
      }
  }

  /// Of `some` rows, a multiple of row_step, and keys [begin, end), to whole packs, or panels.
  TERN_INLINE static void scores(std::byte const* q, std::byte const* k, index dim, index some, index begin, index end, float* s) {
    if (simd::tiles::ready()) return matrix_scores(q, k, pairs(dim), some, begin / panel_width, divide_up(end, panel_width), s);
    score_panels<bf16_word, group_rows>(q, k, pairs(dim), some, begin, end, s);
  }

  /// Where the weights of row r go.
  struct weight_row {
    bf16* to;
    TERN_INLINE weight_row(std::byte* p, index r) : to(reinterpret_cast<bf16*>(p) + r * key_block) {}
    /// Those of the two packs of key panel n.
    TERN_INLINE void put(index n, simd::pack<float> a, simd::pack<float> b) { simd::store(to + n * panel_width, simd::narrow(a, b)); }
  };

  /// Of keys [begin, end), to whole pairs, or panels.
  TERN_INLINE static void values(std::byte const* p, std::byte const* v, index dim_v, index some, index begin, index end,
                                 float const* alpha, float* o, index o_stride) {
    if (simd::tiles::ready()) return matrix_values(p, v, dim_v, some, begin / panel_width, divide_up(end, panel_width), alpha, o, o_stride);
    value_panels<bf16_word, group_rows>(p, v, dim_v, some, begin, end, alpha, o, o_stride);
  }

 private:
  /// Rows of a register tile without matrix registers.
  static constexpr index group_rows = simd::tiles::exist ? 8 : query_tile_rows;

  /// Elements d to d + 2 lanes of a row as pairs, of which `left` exist, if any.
  template <tile_source T>
  TERN_INLINE static simd::pack<float> read_pairs(T const* row, index d, index left) {
    constexpr index W = simd::lanes;
    if (left <= 0) return simd::pack<float>(0.f);
    simd::pack<bf16> x;
    if constexpr (std::same_as<T, bf16>) {
      x = left >= 2 * W ? simd::load_narrow(row + d) : simd::load_narrow_n(row + d, left);
    } else {
      simd::pack<float> const a = read_pack_n(row, d, left < W ? left : W);
      x = simd::narrow(a, left <= W ? simd::pack<float>(0.f) : read_pack_n(row, d + W, left < 2 * W ? left - W : W));
    }
    return simd::bit_cast<float>(simd::bit_cast<std::int32_t>(x));
  }
};

/// What computes with bf16 inputs: f32 where it is as fast.
using best_bf16_tile = std::conditional_t<simd::has_bf16_dot, bf16_tile, f32_tile>;

}  // namespace TERN_ABI
}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/tile_codes.hpp
/// The compute tile of the prompt path for 8-bit keys where there are matrix registers (AMX): from 65 dims on, scores are sums of products
/// of bytes, with one scale for each row of q and of k; weights and values are bf16, as in tile_bf16.hpp. With fewer dims, and where there
/// are no such registers, all is bf16: scaling the sums takes longer then than the products save.
///
/// Measured on a Xeon with AMX, of the time with bf16 keys and values: dim 64 1.07, 128 0.99 to 1.02, 256 0.87 to 0.90.
///
///     q, k      rows:    x = scale c,  |c| <= 127,  scale = max |x| / 127; of q8_0 the largest scale of the row's blocks
///
/// Errors beside those of tile_bf16.hpp's values, with Q, K the largest |q|, |k| of a row (of q8_0: 127 times the largest scale):
///
///     score     (Q sum |k_d| + K sum |q_d|) / 254 + dim Q K / 254^2
///
/// at most; signs are random, so that it grows with the square root of dim. |x| below 2^-100 counts as zero. Infinity and NaN have no code:
/// in a row of q or k they make its scores NaN.

#include <tern/attention/tile_int8.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// As many dims as the bytes of a register.
inline constexpr index code_chunk = 4 * simd::lanes;

/// What |x| of a row is at most, and in `odd` NaN where a number is not finite, otherwise zero.
template <tile_source T>
TERN_INLINE float row_range(T const* row, index dim, float& odd) {
  using packf = simd::pack<float>;
  constexpr index W = simd::lanes;
  packf largest(0.f), none(0.f);
  for (index d = 0; d < dim; d += W) {
    packf const x = read_pack_n(row, d, dim - d < W ? dim - d : W);
    largest = simd::max(largest, simd::abs(x));
    none = simd::fma(x, packf(0.f), none);
  }
  odd = simd::reduce_add(none);
  return simd::reduce_max(largest);
}
TERN_INLINE float row_range(formats::q8_0::block const* row, index dim, float& odd) {
  float largest = 0;
  odd = 0;
  for (index b = 0; b < dim / 32; ++b) {
    float const d = __builtin_fabsf(static_cast<float>(row[b].d));
    largest = d > largest ? d : largest;
    odd += d * 0.f;
  }
  return 127 * largest;
}

/// Elements d to d + code_chunk of a row, times `inverse`, as bytes; zeros behind the row's end.
template <tile_source T>
TERN_INLINE void row_codes(T const* row, index d, index dim, simd::pack<float> inverse, std::int8_t* to) {
  constexpr index W = simd::lanes;
  simd::pack<std::int32_t> c[4];
  TERN_UNROLL
  for (index i = 0; i < 4; ++i) {
    index const left = dim - d - i * W;
    c[i] = left <= 0 ? simd::pack<std::int32_t>(0) : codes_of(read_pack_n(row, d + i * W, left < W ? left : W), inverse);
  }
  simd::store_as_bytes(to, c);
}

/// Queries (rows, words) of 4 codes, then (rows) scales; keys in panels (words, panel_width) of 4 codes, then (key_block) scales; the rest
/// as bf16_tile has it.
struct code_tile : bf16_tile {
  /// Whether scores are products of codes.
  TERN_INLINE static bool takes_codes(index dim) { return dim > 64 && simd::tiles::ready(); }
  /// Of a row of codes; zeros fill what matrix registers take at once.
  TERN_INLINE static index words(index dim) { return round_to_multiple(dim, 64 < code_chunk ? code_chunk : 64) / 4; }
  TERN_INLINE static index query_bytes(index dim) {
    index const codes = round_to_multiple(4 * rows * (words(dim) + 1), 64), pairs = bf16_tile::query_bytes(dim);
    return codes > pairs ? codes : pairs;
  }
  TERN_INLINE static index key_bytes(index dim) {
    index const codes = 4 * key_block * (words(dim) + 1), pairs = bf16_tile::key_bytes(dim);
    return codes > pairs ? codes : pairs;
  }

  TERN_INLINE static void pack_queries(float const* const* q, index dim, std::byte* dst) {
    if (!takes_codes(dim)) return bf16_tile::pack_queries(q, dim, dst);
    index const bytes = 4 * words(dim);
    float* const scale = reinterpret_cast<float*>(dst + rows * bytes);
    for (index r = 0; r < rows; ++r) {
      simd::pack<float> const inverse = scale_of(q[r], dim, scale[r]);
      for (index d = 0; d < bytes; d += code_chunk) row_codes(q[r], d, dim, inverse, reinterpret_cast<std::int8_t*>(dst) + r * bytes + d);
    }
  }

  /// Rows behind `count`, to the end of the last panel, are zero.
  template <tile_source T>
  static void pack_keys(T const* const* row, index count, index dim, std::byte* dst) {
    if (!takes_codes(dim)) return bf16_tile::pack_keys(row, count, dim, dst);
    constexpr index W = simd::lanes;
    float* const scale = reinterpret_cast<float*>(dst + 4 * key_block * words(dim));
    for (index j = 0; j < round_to_multiple(count, panel_width); j += W) {
      simd::pack<float> inverse[W];
      for (index i = 0; i < W; ++i) {
        inverse[i] = simd::pack<float>(0.f);
        scale[j + i] = 0;
        if (j + i < count) inverse[i] = scale_of(row[j + i], dim, scale[j + i]);
      }
      auto read = [&](index i, index t) TERN_LAMBDA {
        if (j + i >= count) return simd::pack<float>(0.f);
        std::int8_t code[code_chunk];
        row_codes(row[j + i], 4 * t, dim, inverse[i], code);
        return simd::bit_cast<float>(simd::bit_cast<std::int32_t>(simd::load(static_cast<std::int8_t const*>(code))));
      };
      float* const to = reinterpret_cast<float*>(dst) + j / panel_width * panel_width * words(dim) + j % panel_width;
      auto place = [&](index t) TERN_LAMBDA { return to + t * panel_width; };
      transpose_words(read, words(dim), place);
    }
  }

  TERN_INLINE static void scores(std::byte const* q, std::byte const* k, index dim, index some, index first, index last, float* s) {
    if (!takes_codes(dim)) return bf16_tile::scores(q, k, dim, some, first, last, s);
    index const n = words(dim);
    matrix_code_scores(q, reinterpret_cast<float const*>(q + 4 * rows * n), k, reinterpret_cast<float const*>(k + 4 * key_block * n), n,
                       some, first, last, s);
  }

 private:
  /// What multiplies a row to give its codes.
  template <tile_source T>
  TERN_INLINE static simd::pack<float> scale_of(T const* row, index dim, float& scale) {
    using packf = simd::pack<float>;
    float odd;
    float const largest = row_range(row, dim, odd);
    scale = largest * (1 / 127.f) + odd;
    return packf(largest > 0x1p-100f ? 127.f / largest : 0.f);
  }
};

/// What computes with 8-bit keys and values: where there is nothing, f32 is as fast.
using best_int8_tile = std::conditional_t<simd::tiles::exist, code_tile, std::conditional_t<simd::has_int8_dot, int8_tile, f32_tile>>;

}  // namespace TERN_ABI
}  // namespace tern::detail

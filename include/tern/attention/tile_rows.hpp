// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/tile_rows.hpp
/// Rows of keys and values in any of the types a cache may hold, read as packs of f32: float, f16, bf16, and the blocks of q8_0,
/// q4_0 and e8p, whose rows are a whole number of blocks. Decoding is exact to the bit.

#include <tern/attention/rows.hpp>
#include <tern/simd/rows.hpp>
#include <tern/simd/shuffle.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// What a row pointer may point to.
template <class T>
concept tile_source = float_storage<T> || is_block<T>;

/// Elements d to d + lanes of a row; d is a multiple of `lanes`.
template <float_storage T>
TERN_INLINE simd::pack<float> read_pack(T const* row, index d) {
  return simd::load(row + d);
}
TERN_INLINE simd::pack<float> read_pack(formats::q8_0::block const* row, index d) {
  static_assert(simd::lanes <= 32);
  formats::q8_0::block const& b = row[d / 32];
  return simd::to_float(simd::load_widened(b.q + d % 32)) * simd::splat(&b.d);
}
TERN_INLINE simd::pack<float> read_pack(formats::q4_0::block const* row, index d) {
  using packi = simd::pack<std::int32_t>;
  formats::q4_0::block const& b = row[d / 32];
  if constexpr (simd::lanes <= 16) {
    packi const bytes = simd::load_widened(b.q + d % 16);
    packi const code = d % 32 < 16 ? bytes & packi(15) : simd::shift_right<4>(bytes);
    // A table of the sixteen values takes a shuffle where there are 16 lanes; elsewhere arithmetic is shorter.
    if constexpr (simd::lanes == 16) {
      static constexpr float values[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
      return simd::lookup(simd::load_table(values), code) * simd::splat(&b.d);
    } else {
      return simd::to_float(code - packi(8)) * simd::splat(&b.d);
    }
  } else {
    float x[32];
    formats::q4_0::decode(b, x);
    return simd::load(static_cast<float const*>(x));
  }
}
TERN_INLINE simd::pack<float> read_pack(formats::e8p::block const* row, index d) {
  return formats::e8p::integers(row[d / 32], d % 32) * simd::splat(&row[d / 32].d);
}

/// As above where only n of them are left (0 < n <= lanes): the other lanes are zero.
template <tile_source T>
TERN_INLINE simd::pack<float> read_pack_n(T const* row, index d, index n) {
  if (n == simd::lanes) return read_pack(row, d);
  if constexpr (float_storage<T>)
    return simd::load_n(row + d, n);
  else
    return simd::pack<float>(0.f);  // a row of blocks ends with a whole pack
}

/// place(t)[i] = word t of row i, for t < words and i < kept. `read(i, t)` gives words t to t + lanes of row i as the bits of a pack of
/// f32, zeros behind the row's end.
template <class Read, class Place>
TERN_INLINE void transpose_words(Read const& read, index words, Place const& place, index kept = simd::lanes) {
  constexpr index W = simd::lanes;
  for (index t = 0; t < words; t += W) {
    simd::pack<float> x[W];
    TERN_UNROLL
    for (index i = 0; i < W; ++i) x[i] = read(i, t);
    simd::transpose(x);
    TERN_UNROLL
    for (index i = 0; i < W; ++i) {
      if (t + i >= words) break;
      if (kept == W)
        simd::store(place(t + i), x[i]);
      else
        simd::store_n(place(t + i), x[i], kept);
    }
  }
}

}  // namespace TERN_ABI
}  // namespace tern::detail

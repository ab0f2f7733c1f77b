// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/rows.hpp
/// Rows of queries, keys and values as f32, whatever they are stored as: f32, f16, bf16, or whole blocks of a format.

#include <tern/attention/tile.hpp>
#include <tern/core/rounding.hpp>
#include <tern/formats/e8p.hpp>
#include <tern/formats/q4.hpp>
#include <tern/formats/q8.hpp>
#include <tern/simd/convert.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Positions are 32 bits wide; so much is kept free above the number of keys.
inline constexpr index key_limit_slack = 1024;

/// The format whose blocks are `T`; void for plain numbers.
template <class T>
struct block_format {
  using type = void;
};
template <>
struct block_format<formats::q8_0::block> {
  using type = formats::q8_0;
};
template <>
struct block_format<formats::q4_0::block> {
  using type = formats::q4_0;
};
template <>
struct block_format<formats::e8p::block> {
  using type = formats::e8p;
};
template <class T>
inline constexpr bool is_block = !std::is_void_v<typename block_format<T>::type>;
/// What k and v may hold.
template <class T>
inline constexpr bool stored_element = float_storage<T> || is_block<T>;
/// Elements in one T.
template <class T>
TERN_INLINE constexpr index elements_of() {
  if constexpr (is_block<T>)
    return block_format<T>::type::elements;
  else
    return 1;
}

/// Asks for bytes to be brought into the second-level cache.
TERN_INLINE void fetch_bytes(std::byte const* from, index count) {
  for (index at = 0; at < count; at += 64) __builtin_prefetch(from + at, 0, 2);
}
/// The same for a row of `size` elements.
template <class T>
TERN_INLINE void fetch_row(T const* row, index size) {
  fetch_bytes(reinterpret_cast<std::byte const*>(row), size / elements_of<T>() * static_cast<index>(sizeof(T)));
}

/// dst[0, count) = factor * src[0, count)
template <class T>
TERN_INLINE void widen_row(T const* src, index count, float factor, float* dst) {
  constexpr index W = simd::lanes;
  simd::pack<float> const f(factor);
  if constexpr (is_block<T>) {
    using format = typename block_format<T>::type;
    for (index d = 0; d < count; d += format::elements) {
      format::decode(*src++, dst + d);
      if (factor != 1.f)
        for (index i = 0; i < format::elements; ++i) dst[d + i] *= factor;
    }
  } else {
    index d = 0;
    for (; d + W <= count; d += W) simd::store(dst + d, simd::load(src + d) * f);
    for (; d < count; ++d) dst[d] = static_cast<float>(src[d]) * factor;
  }
}

/// dst[0, count) = factor * src[0, count), rounded to dst's type. `src` may be read up to a multiple of `lanes`.
template <class T>
TERN_INLINE void narrow_row(float const* src, index count, float factor, T* dst) {
  constexpr index W = simd::lanes;
  simd::pack<float> const f(factor);
  index d = 0;
  for (; d + W <= count; d += W) simd::store(dst + d, simd::load(src + d) * f);
  if (d < count) simd::store_n(dst + d, simd::load(src + d) * f, count - d);
}

/// Whether `count` rows of `size` elements have neither infinity nor NaN.
template <class T>
TERN_INLINE bool rows_are_finite(T const* const* row, index count, index size) {
  using packf = simd::pack<float>;
  constexpr index W = simd::lanes;
  packf odd(0.f);  // NaN where a lane met one
  float sum = 0;
  for (index j = 0; j < count; ++j) {
    if constexpr (is_block<T>) {
      for (index b = 0; b < size / elements_of<T>(); ++b) sum += 0.f * static_cast<float>(row[j][b].d);
    } else {
      index d = 0;
      for (; d + W <= size; d += W) odd = simd::fma(simd::load(row[j] + d), packf(0.f), odd);
      for (; d < size; ++d) sum += 0.f * static_cast<float>(row[j][d]);
    }
  }
  return simd::all(odd == packf(0.f)) && sum == 0;
}

}  // namespace TERN_ABI
}  // namespace tern::detail

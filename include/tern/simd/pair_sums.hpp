// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file simd/pair_sums.hpp
/// Sums of products of bytes in 16-bit lanes, and products of 16-bit lanes: what exact dot products of bytes are made of where none is one
/// instruction.
///
///     add_byte_pairs(acc, u8 a, s8 b)   acc[i] += a[2i] b[2i] + a[2i+1] b[2i+1]   each pair, and each sum, must fit 16 bits
///     add_words(acc, x)                 acc[i] += x[2i] + x[2i+1]                  into 32-bit lanes
///     add_word_products(acc, x, y)      acc[i] += x[2i] y[2i] + x[2i+1] y[2i+1]    must fit 32 bits
///
/// Two instructions each, with AVX2. Codes of 4 bits are worth several add_byte_pairs for one add_words.

#include <tern/simd/dot.hpp>

namespace tern {
inline namespace TERN_ABI {
namespace simd {

#if defined(TERN_SIMD_AVX2) && !defined(TERN_SIMD_VNNI)
/// Whether these are worth more than dot products of four bytes.
inline constexpr bool has_pair_sums = true;
/// Lanes of 16 bits with a sign.
struct pack_of_words {
  __m256i v;
};
/// Zeros.
TERN_INLINE pack_of_words no_words() { return {_mm256_setzero_si256()}; }
TERN_INLINE pack_of_words add_byte_pairs(pack_of_words acc, pack<std::uint8_t> a, pack<std::int8_t> b) {
  return {_mm256_add_epi16(acc.v, _mm256_maddubs_epi16(a.v, b.v))};
}
TERN_INLINE pack<std::int32_t> add_word_products(pack<std::int32_t> acc, pack_of_words x, pack_of_words y) {
  return pack<std::int32_t>(_mm256_add_epi32(detail::native(acc), _mm256_madd_epi16(x.v, y.v)));
}
TERN_INLINE pack<std::int32_t> add_words(pack<std::int32_t> acc, pack_of_words x) {
  return add_word_products(acc, x, {_mm256_set1_epi16(1)});
}
/// Bytes 0, 2, 4, ... widened.
TERN_INLINE pack_of_words even_words(pack<std::int8_t> a) { return {_mm256_srai_epi16(_mm256_slli_epi16(a.v, 8), 8)}; }
/// Bytes 1, 3, 5, ... widened.
TERN_INLINE pack_of_words odd_words(pack<std::int8_t> a) { return {_mm256_srai_epi16(a.v, 8)}; }
/// The two halves of `two`, the low one first, in every pair of lanes.
TERN_INLINE pack_of_words splat_words(std::int32_t two) { return {_mm256_set1_epi32(two)}; }
#else
inline constexpr bool has_pair_sums = false;
struct pack_of_words {
  std::int16_t v[2 * lanes];
};
TERN_INLINE pack_of_words no_words() { return {}; }
TERN_INLINE pack_of_words add_byte_pairs(pack_of_words acc, pack<std::uint8_t> a, pack<std::int8_t> b) {
  std::uint8_t x[4 * lanes];
  std::int8_t y[4 * lanes];
  store(x, a);
  store(y, b);
  for (index i = 0; i < 2 * lanes; ++i) acc.v[i] = static_cast<std::int16_t>(acc.v[i] + x[2 * i] * y[2 * i] + x[2 * i + 1] * y[2 * i + 1]);
  return acc;
}
TERN_INLINE pack<std::int32_t> add_word_products(pack<std::int32_t> acc, pack_of_words x, pack_of_words y) {
  std::int32_t sum[lanes];
  for (index i = 0; i < lanes; ++i) sum[i] = x.v[2 * i] * y.v[2 * i] + x.v[2 * i + 1] * y.v[2 * i + 1];
  return acc + load(static_cast<std::int32_t const*>(sum));
}
TERN_INLINE pack<std::int32_t> add_words(pack<std::int32_t> acc, pack_of_words x) {
  std::int32_t sum[lanes];
  for (index i = 0; i < lanes; ++i) sum[i] = x.v[2 * i] + x.v[2 * i + 1];
  return acc + load(static_cast<std::int32_t const*>(sum));
}
/// Bytes first, first + 2, ... widened.
TERN_INLINE pack_of_words every_second_byte(pack<std::int8_t> a, index first) {
  std::int8_t x[4 * lanes];
  store(x, a);
  pack_of_words y;
  for (index i = 0; i < 2 * lanes; ++i) y.v[i] = x[2 * i + first];
  return y;
}
TERN_INLINE pack_of_words even_words(pack<std::int8_t> a) { return every_second_byte(a, 0); }
TERN_INLINE pack_of_words odd_words(pack<std::int8_t> a) { return every_second_byte(a, 1); }
TERN_INLINE pack_of_words splat_words(std::int32_t two) {
  pack_of_words y;
  for (index i = 0; i < 2 * lanes; ++i) y.v[i] = static_cast<std::int16_t>(i % 2 == 0 ? two : two >> 16);
  return y;
}
#endif

}  // namespace simd
}  // namespace TERN_ABI
}  // namespace tern

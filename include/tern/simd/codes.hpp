// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file simd/codes.hpp
/// Codes of 1 to 8 bits that lie side by side, the low bits of a byte first, become bytes.

#include <tern/simd/shuffle.hpp>

namespace tern {
inline namespace TERN_ABI {
namespace simd {

namespace detail {
/// The bits of `each` in every `width` of 64 bits.
TERN_INLINE constexpr std::uint64_t repeated_bits(int each, int width) {
  std::uint64_t mask = 0;
  for (int i = 0; i < 64; i += width) mask |= ((std::uint64_t{1} << each) - 1) << i;
  return mask;
}
/// Eight codes side by side as eight bytes: the halves of all that is together move apart, three times.
template <int bits>
TERN_INLINE constexpr std::uint64_t spread_bits(std::uint64_t w) {
  constexpr std::uint64_t four = repeated_bits(4 * bits, 64), two = repeated_bits(2 * bits, 32), one = repeated_bits(bits, 16);
  w = (w & four) | (w & four << 4 * bits) << (32 - 4 * bits);
  w = (w & two) | (w & two << 2 * bits) << (16 - 2 * bits);
  return (w & one) | (w & one << bits) << (8 - bits);
}
}  // namespace detail

/// Byte i of each lane: bits [shift + bits i, shift + bits (i + 1)) of the lane; shift + 4 bits is at most 32.
template <int bits, int shift>
TERN_INLINE pack<std::uint8_t> spread_codes(pack<std::int32_t> a) {
  static_assert(shift + 4 * bits <= 32);
  constexpr auto one = static_cast<std::int32_t>(detail::repeated_bits(bits, 8));
#if defined(TERN_SIMD_AVX512) && defined(__AVX512VBMI__)
  // Bytes of bits from anywhere in 64: those of two lanes.
  std::uint64_t from = 0;
  for (int i = 0; i < 8; ++i) from |= static_cast<std::uint64_t>(i / 4 * 32 + shift + bits * (i % 4)) << 8 * i;
  __m512i const bytes = _mm512_maskz_multishift_epi64_epi8(~__mmask64{0}, _mm512_set1_epi64(static_cast<long long>(from)), a.v);
  return bit_cast<std::uint8_t>(pack<std::int32_t>(bytes) & pack<std::int32_t>(one));
#else
  if constexpr (bits == 8) {
    return bit_cast<std::uint8_t>(a);
  } else {
    constexpr std::int32_t pair = (1 << 2 * bits) - 1, low = one & 0x00ff00ff;
    if constexpr (shift > 0) a = shift_right<shift>(a);
    a = (a & pack<std::int32_t>(pair)) | (shift_left<16 - 2 * bits>(a) & pack<std::int32_t>(pair << 16));
    return bit_cast<std::uint8_t>((a & pack<std::int32_t>(low)) |
                                  (shift_left<8 - bits>(a) & pack<std::int32_t>(static_cast<std::int32_t>(std::uint32_t{low} << 8))));
  }
#endif
}

/// Byte i of each lane: bit first + i of the lane as bit `at`, others 0; first + 4 is at most 32.
template <int first, int at>
TERN_INLINE pack<std::uint8_t> spread_bits(pack<std::int32_t> a) {
  static_assert(first >= 0 && first + 4 <= 32 && at >= 0 && at < 8);
#if defined(TERN_SIMD_AVX512) && defined(__AVX512VBMI__)
  std::uint64_t from = 0;  // bits from anywhere in 64, around their end too
  for (int i = 0; i < 8; ++i) from |= static_cast<std::uint64_t>((i / 4 * 32 + first + i % 4 - at) & 63) << 8 * i;
  __m512i const bytes = _mm512_maskz_multishift_epi64_epi8(~__mmask64{0}, _mm512_set1_epi64(static_cast<long long>(from)), a.v);
  return bit_cast<std::uint8_t>(pack<std::int32_t>(bytes) & pack<std::int32_t>(0x01010101 << at));
#else
  pack<std::int32_t> const four = shift_right<first>(a) & pack<std::int32_t>(15);
  pack<std::int32_t> const apart = four | shift_left<7>(four) | shift_left<14>(four) | shift_left<21>(four);
  return bit_cast<std::uint8_t>(shift_left<at>(apart & pack<std::int32_t>(0x01010101)));
#endif
}
/// Byte i of 16, in each 128-bit part: bit first + i of the part's lane r as bit `at`, others 0; first + 16 is at most 32. Only for lane
/// counts that are a multiple of 4.
template <int first, int at, int r>
TERN_INLINE pack<std::uint8_t> spread_bits16(pack<std::int32_t> a) {
  static_assert(first >= 0 && first + 16 <= 32 && at >= 0 && at < 8 && r >= 0 && r < 4);
#if defined(TERN_SIMD_AVX512) && defined(__AVX512VBMI__)
  std::uint64_t low = 0, high = 0;
  for (int i = 0; i < 8; ++i) {
    low |= static_cast<std::uint64_t>((first + i - at) & 63) << 8 * i;
    high |= static_cast<std::uint64_t>((first + 8 + i - at) & 63) << 8 * i;
  }
  auto const l = static_cast<long long>(low), h = static_cast<long long>(high);
  __m512i const all = _mm512_maskz_shuffle_epi32(0xffff, a.v, static_cast<_MM_PERM_ENUM>(0x55 * r));
  __m512i const bytes = _mm512_maskz_multishift_epi64_epi8(~__mmask64{0}, _mm512_setr_epi64(l, h, l, h, l, h, l, h), all);
  return bit_cast<std::uint8_t>(pack<std::int32_t>(bytes) & pack<std::int32_t>(0x01010101 << at));
#elif defined(TERN_SIMD_AVX2)
  if constexpr (first % 8 == 0) {
    // Each byte finds the one that its bit lies in, then the bit.
    constexpr char low = static_cast<char>(4 * r + first / 8), high = static_cast<char>(low + 1);
    __m128i const from = _mm_setr_epi8(low, low, low, low, low, low, low, low, high, high, high, high, high, high, high, high);
    __m256i const bit = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201));
    __m256i const all = _mm256_and_si256(_mm256_shuffle_epi8(a.v, _mm256_broadcastsi128_si256(from)), bit);
    return pack<std::uint8_t>(_mm256_and_si256(_mm256_cmpeq_epi8(all, bit), _mm256_set1_epi8(static_cast<char>(1 << at))));
  } else {
    return spread_bits16<0, at, r>(shift_right<first>(a));
  }
#else
  std::int32_t words[lanes];
  std::uint8_t bytes[pack<std::uint8_t>::size];
  store(static_cast<std::int32_t*>(words), a);
  for (index i = 0; i < pack<std::uint8_t>::size; ++i)
    bytes[i] = static_cast<std::uint8_t>((words[i / 16 * 4 + r] >> (first + i % 16) & 1) << at);
  return load(static_cast<std::uint8_t const*>(bytes));
#endif
}
/// Whether `spread_bits16` is a few instructions, for bits that start with a byte.
inline constexpr bool has_spread_bits16 =
#if (defined(TERN_SIMD_AVX512) && defined(__AVX512VBMI__)) || defined(TERN_SIMD_AVX2)
    true;
#else
    false;
#endif

/// The 32 codes in the 4 bits bytes at p, to u.
template <int bits>
TERN_INLINE void unpack_codes(std::uint8_t const* p, std::uint8_t* u) {
  if constexpr (bits == 8) {
    __builtin_memcpy(u, p, 32);
  } else {
#if defined(TERN_SIMD_AVX512) && defined(__AVX512VBMI__)
    constexpr __mmask32 all = ~__mmask32{0};
    constexpr std::uint64_t eight = 0x0706050403020100;  // the bytes of eight codes, to 64 bits; and where each code starts there
    std::uint64_t starts = 0;
    for (int i = 0; i < 8; ++i) starts |= static_cast<std::uint64_t>(bits * i) << 8 * i;
    auto const place = [](int i) { return static_cast<long long>(eight + detail::repeated_bits(1, 8) * static_cast<unsigned>(bits * i)); };
    __m256i const packed = _mm256_maskz_loadu_epi8((__mmask32{1} << (4 * bits)) - 1, p);
    __m256i const apart = _mm256_maskz_permutexvar_epi8(all, _mm256_setr_epi64x(place(0), place(1), place(2), place(3)), packed);
    __m256i const bytes = _mm256_maskz_multishift_epi64_epi8(all, _mm256_set1_epi64x(static_cast<long long>(starts)), apart);
    auto const mask = static_cast<long long>(detail::repeated_bits(bits, 8));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(u), _mm256_and_si256(bytes, _mm256_set1_epi64x(mask)));
#else
    std::uint64_t w[4] = {};
    for (int j = 0; j < 4; ++j) __builtin_memcpy(w + j, p + j * bits, bits);
    for (int j = 0; j < 4; ++j) w[j] = detail::spread_bits<bits>(w[j]);
    __builtin_memcpy(u, w, 32);
#endif
  }
}

/// Whether `widen_small_floats` is there: f16 holds what has up to five bits of exponent and ten of fraction.
inline constexpr bool has_small_floats =
#if defined(TERN_SIMD_AVX512) || (defined(TERN_SIMD_AVX2) && defined(__F16C__))
    true;
#else
    false;
#endif
/// `lanes` numbers of 8 bits, a sign, 7 - y of exponent (at most five) and y of fraction: their values as if the exponent's bias were 15,
/// infinity and NaN those of f16. `nan`: the largest magnitude is NaN.
template <int y, bool nan>
TERN_INLINE pack<float> widen_small_floats([[maybe_unused]] std::uint8_t const* p) {
  static_assert(y >= 2 && y <= 7);
#if defined(TERN_SIMD_AVX512)
  constexpr __mmask16 all = 0xffff;
  __m256i half = _mm256_maskz_slli_epi16(all, _mm256_maskz_cvtepu8_epi16(all, _mm_loadu_si128(reinterpret_cast<__m128i const*>(p))), 8);
  if constexpr (y > 2)
    half = _mm256_and_si256(_mm256_maskz_srai_epi16(all, half, y - 2), _mm256_set1_epi16(static_cast<short>(0x8000 | 127 << (10 - y))));
  if constexpr (nan) {
    __m256i const magnitude = _mm256_set1_epi16(127 << (10 - y));
    half = _mm256_mask_mov_epi16(half, _mm256_cmpeq_epi16_mask(_mm256_and_si256(half, magnitude), magnitude), _mm256_set1_epi16(0x7e00));
  }
  return pack<float>(_mm512_maskz_cvtph_ps(all, half));
#elif defined(TERN_SIMD_AVX2) && defined(__F16C__)
  __m128i half = _mm_slli_epi16(_mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<__m128i const*>(p))), 8);
  if constexpr (y > 2) half = _mm_and_si128(_mm_srai_epi16(half, y - 2), _mm_set1_epi16(static_cast<short>(0x8000 | 127 << (10 - y))));
  if constexpr (nan) {
    __m128i const magnitude = _mm_set1_epi16(127 << (10 - y));
    half = _mm_blendv_epi8(half, _mm_set1_epi16(0x7e00), _mm_cmpeq_epi16(_mm_and_si128(half, magnitude), magnitude));
  }
  return pack<float>(_mm256_cvtph_ps(half));
#else
  return pack<float>(0.f);
#endif
}

/// 64 bytes to look up: a register's lanes, or memory.
struct byte_table64 {
#if defined(TERN_SIMD_AVX512) && defined(__AVX512VBMI__)
  pack<std::uint8_t> entry;
#else
  std::uint8_t const* entry;
#endif
};
/// `entries` is to outlive the table.
TERN_INLINE byte_table64 load_table64(std::uint8_t const* entries) {
#if defined(TERN_SIMD_AVX512) && defined(__AVX512VBMI__)
  return {load(entries)};
#else
  return {entries};
#endif
}
/// Lane by lane: entries[which]; `which` must be below 64.
TERN_INLINE pack<std::uint8_t> lookup(byte_table64 const& table, pack<std::uint8_t> which) {
#if defined(TERN_SIMD_AVX512) && defined(__AVX512VBMI__)
  return _mm512_maskz_permutexvar_epi8(~__mmask64{0}, which.v, table.entry.v);
#else
  std::uint8_t at[pack<std::uint8_t>::size];
  store(static_cast<std::uint8_t*>(at), which);
  for (std::uint8_t& u : at) u = table.entry[u & 63];
  return load(static_cast<std::uint8_t const*>(at));
#endif
}

}  // namespace simd
}  // namespace TERN_ABI
}  // namespace tern

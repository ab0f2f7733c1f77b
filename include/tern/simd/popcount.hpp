// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file simd/popcount.hpp
/// How many bits are set.
///
///     count_bits(acc, bits)    acc[i] += the number of ones in bytes 4 i to 4 i + 3 of bits
///
/// With VPOPCNTDQ 2 instructions; NEON 3; elsewhere two look-ups in a table of 16 and a sum of bytes, 7 and more.

#include <tern/simd/dot.hpp>
#include <tern/simd/shuffle.hpp>

namespace tern {
inline namespace TERN_ABI {
namespace simd {

TERN_INLINE pack<std::int32_t> count_bits(pack<std::int32_t> acc, pack<std::uint8_t> bits) {
#if defined(TERN_SIMD_AVX512) && defined(__AVX512VPOPCNTDQ__)
  return acc + pack<std::int32_t>(_mm512_popcnt_epi32(bits.v));
#elif defined(TERN_SIMD_NEON)
  return pack<std::int32_t>(vreinterpretq_s32_u32(vpadalq_u16(vreinterpretq_u32_s32(detail::native(acc)), vpaddlq_u8(vcntq_u8(bits.v)))));
#elif defined(TERN_SIMD_EMULATED)
  for (index i = 0; i < bits.size; ++i) acc.v[i / 4] += __builtin_popcount(bits.v.lane[i]);
  return acc;
#elif defined(TERN_SIMD_SSE) && !defined(__SSSE3__)
  // Sums of 2, 4, then 8 bits, each in their place.
  pack<std::uint8_t> const odd(0x55), pairs(0x33), low(0x0f);
  __m128i const twos = _mm_sub_epi8(bits.v, (shift_right<1>(bits) & odd).v);
  pack<std::uint8_t> const two(twos);
  __m128i const fours = _mm_add_epi8((two & pairs).v, (shift_right<2>(two) & pairs).v);
  pack<std::uint8_t> const four(fours);
  __m128i const eights = _mm_and_si128(_mm_add_epi8(four.v, shift_right<4>(four).v), low.v);
  return dot7(acc, pack<std::uint8_t>(eights), pack<std::int8_t>(std::int8_t{1}));
#else
  constexpr std::int8_t ones[16] = {0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};
  byte_table const table = load_table(ones);
  pack<std::uint8_t> const low(15);
  pack<std::int8_t> const one(std::int8_t{1});
  // At most 4 a byte: the sum of both halves' counts is taken with the sum of four bytes.
  auto const counts = [&](pack<std::uint8_t> halves) TERN_LAMBDA { return bit_cast<std::uint8_t>(lookup(table, halves)); };
  return dot7(dot7(acc, counts(bits & low), one), counts(shift_right<4>(bits)), one);
#endif
}

}  // namespace simd
}  // namespace TERN_ABI
}  // namespace tern

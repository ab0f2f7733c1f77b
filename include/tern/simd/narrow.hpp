// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file simd/narrow.hpp
/// f32 rounded to bf16 and laid out as bf16 dot products take it: two neighbors of a row, or the same column of two rows, in each
/// 32-bit lane. And which dot products of dot.hpp are one instruction, and so worth converting for.

#include <tern/simd/convert.hpp>
#include <tern/simd/dot.hpp>

namespace tern {
inline namespace TERN_ABI {
namespace simd {

#if defined(TERN_SIMD_AVX512) && defined(__AVX512BF16__)
/// Whether a dot product of bf16 is one instruction, and so does more multiplications in a cycle than one of f32.
inline constexpr bool has_bf16_dot = true;
#else
inline constexpr bool has_bf16_dot = false;
#endif
#if defined(TERN_SIMD_VNNI) || (defined(TERN_SIMD_NEON) && defined(__ARM_FEATURE_MATMUL_INT8))
/// The same of unsigned with signed bytes.
inline constexpr bool has_int8_dot = true;
#else
inline constexpr bool has_int8_dot = false;
#endif

/// The lanes of a, then those of b, rounded to nearest, ties to even; NaN stays NaN. Subnormals may become zero.
TERN_INLINE pack<bf16> narrow(pack<float> a, pack<float> b) {
#if defined(TERN_SIMD_AVX512) && defined(__AVX512BF16__)
  return pack<bf16>(reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b.v, a.v)));
#else
  bf16 lane[2 * lanes];
  store(static_cast<bf16*>(lane), a);
  store(lane + lanes, b);
  return load_narrow(static_cast<bf16 const*>(lane));
#endif
}

/// The pack whose `even` is a and whose `odd` is b, rounded as `narrow` does.
TERN_INLINE pack<bf16> narrow_pairs(pack<float> a, pack<float> b) {
#if defined(TERN_SIMD_AVX512) && defined(__AVX512BF16__)
  // Words 0 and 16, 1 and 17, ...
  __m512i const order = _mm512_setr_epi32(0x100000, 0x110001, 0x120002, 0x130003, 0x140004, 0x150005, 0x160006, 0x170007, 0x180008,
                                          0x190009, 0x1a000a, 0x1b000b, 0x1c000c, 0x1d000d, 0x1e000e, 0x1f000f);
  return pack<bf16>(_mm512_permutexvar_epi16(order, narrow(a, b).v));
#else
  auto const round_bits = [](pack<float> x) TERN_LAMBDA {
    pack<std::int32_t> const bits = bit_cast<std::int32_t>(x);
    pack<std::int32_t> const rounded = bits + (shift_right<16>(bits) & pack<std::int32_t>(1)) + pack<std::int32_t>(0x7fff);
    pack<float> const quiet = bit_cast<float>(bits | pack<std::int32_t>(0x400000));
    return bit_cast<std::int32_t>(select(x == x, bit_cast<float>(rounded), quiet));
  };
  pack<std::int32_t> const low = shift_right<16>(round_bits(a)) & pack<std::int32_t>(0xffff);
  return bit_cast<bf16>(low | (round_bits(b) & pack<std::int32_t>(-65536)));
#endif
}

/// The pack whose `even` is a and whose `odd` is b, which must be bf16 already: their low halves are dropped.
TERN_INLINE pack<bf16> join_pairs(pack<float> a, pack<float> b) {
  pack<std::int32_t> const high(-65536);
#if defined(TERN_SIMD_AVX512)
  __m512i const low = _mm512_maskz_srli_epi32(0xffff, _mm512_castps_si512(a.v), 16);
  return pack<bf16>(_mm512_or_si512(low, _mm512_and_si512(_mm512_castps_si512(b.v), high.v)));
#else
  return bit_cast<bf16>((shift_right<16>(bit_cast<std::int32_t>(a)) & pack<std::int32_t>(0xffff)) | (bit_cast<std::int32_t>(b) & high));
#endif
}

/// In each 32-bit lane the four bytes a[0], a[1], a[2], a[3] of it, in memory order, clamped to [-128, 127].
TERN_INLINE pack<std::int8_t> join_bytes(pack<std::int32_t> const (&a)[4]) {
#if defined(TERN_SIMD_AVX512)
  __m512i const order = _mm512_set4_epi32(0x0f0b0703, 0x0e0a0602, 0x0d090501, 0x0c080400);
  __m512i const bytes = _mm512_packs_epi16(_mm512_packs_epi32(a[0].v, a[1].v), _mm512_packs_epi32(a[2].v, a[3].v));
  return pack<std::int8_t>(_mm512_shuffle_epi8(bytes, order));
#elif defined(TERN_SIMD_AVX2)
  __m256i const order = _mm256_setr_epi32(0x0c080400, 0x0d090501, 0x0e0a0602, 0x0f0b0703, 0x0c080400, 0x0d090501, 0x0e0a0602, 0x0f0b0703);
  __m256i const bytes = _mm256_packs_epi16(_mm256_packs_epi32(a[0].v, a[1].v), _mm256_packs_epi32(a[2].v, a[3].v));
  return pack<std::int8_t>(_mm256_shuffle_epi8(bytes, order));
#else
  std::int32_t lane[lanes];
  std::int8_t byte[4 * lanes];
  for (index j = 0; j < 4; ++j) {
    store(static_cast<std::int32_t*>(lane), a[j]);
    for (index i = 0; i < lanes; ++i) byte[4 * i + j] = static_cast<std::int8_t>(lane[i] < -128 ? -128 : lane[i] > 127 ? 127 : lane[i]);
  }
  return load(static_cast<std::int8_t const*>(byte));
#endif
}

/// A pack of int32 that only dot products are added to, for tiles of many. On x86 it has a register type of its own: gcc 12 gives every
/// change between the types of a register a register, and then spills.
struct dot_sums {
#if defined(TERN_SIMD_AVX512) || defined(TERN_SIMD_AVX2) || defined(TERN_SIMD_SSE)
  using native = std::int32_t __attribute__((vector_size(4 * lanes)));
#else
  using native = pack<std::int32_t>;
#endif
  native v;
};
/// a, to add to.
TERN_INLINE dot_sums as_dot_sums(pack<std::int32_t> a) { return {__builtin_bit_cast(dot_sums::native, a)}; }
/// What was added up.
TERN_INLINE pack<std::int32_t> to_pack(dot_sums a) { return __builtin_bit_cast(pack<std::int32_t>, a.v); }
/// As dot.hpp's.
TERN_INLINE dot_sums dot(dot_sums acc, pack<std::uint8_t> a, pack<std::int8_t> b) { return as_dot_sums(dot(to_pack(acc), a, b)); }

}  // namespace simd
}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file simd/rows.hpp
/// Pieces of several rows of memory in one register, for dot products of bytes that lie along the rows: each 128-bit part of a
/// register takes 16 bytes of one row, and `sum_quads` turns four such registers into one lane a row.
/// Only for lane counts that are a multiple of 4.

#include <tern/simd/bytes.hpp>

namespace tern {
inline namespace TERN_ABI {
namespace simd {

#if defined(TERN_SIMD_AVX512)
namespace detail {
TERN_INLINE pack<std::uint8_t> join16(__m128i a, __m128i b, __m128i c, __m128i d) {
  __m256i const low = _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
  __m256i const high = _mm256_inserti128_si256(_mm256_castsi128_si256(c), d, 1);
  return pack<std::uint8_t>(_mm512_maskz_inserti64x4(0xff, _mm512_castsi256_si512(low), high, 1));
}
}  // namespace detail
#endif
/// `lanes` rows, `stride` bytes apart. Four neighbors share an address that the compiler takes as unknown, like the distances: it would
/// keep an address for every row and place, in memory or vector registers.
struct row_places {
  static constexpr index quads = lanes < 4 ? 1 : lanes / 4;
  std::uint8_t const* base[quads];
  index stride, thrice;
  /// The first is at p.
  TERN_INLINE row_places(std::uint8_t const* p, index row_stride) : stride(row_stride) {
    asm("" : "+r"(stride));
    thrice = 3 * stride;
    asm("" : "+r"(thrice));
    TERN_UNROLL
    for (index i = 0; i < quads; ++i) {
      base[i] = p + 4 * i * stride;
      asm("" : "+r"(base[i]));
    }
  }
  /// Row r of the four at base[i].
  TERN_INLINE std::uint8_t const* row(index i, index r) const { return base[i] + (r == 3 ? thrice : r * stride); }
  /// 16 bytes of each row from `at` on: u[r] takes those of rows r, r + 4, r + 8, ...
  TERN_INLINE void load16(index at, pack<std::uint8_t> (&u)[4]) const {
    TERN_UNROLL
    for (index r = 0; r < 4; ++r) {
      auto const of = [&](index i) TERN_LAMBDA { return row(i, r) + at; };
#if defined(TERN_SIMD_AVX512)
      auto const part = [&](index i) TERN_LAMBDA { return detail::read<__m128i>(of(i)); };
      u[r] = detail::join16(part(0), part(1), part(2), part(3));
#elif defined(TERN_SIMD_AVX2)
      u[r] = pack<std::uint8_t>(
          _mm256_inserti128_si256(_mm256_castsi128_si256(detail::read<__m128i>(of(0))), detail::read<__m128i>(of(1)), 1));
#else
      std::uint8_t bytes[4 * lanes];
      for (index i = 0; i < lanes / 4; ++i) __builtin_memcpy(bytes + 16 * i, of(i), 16);
      u[r] = load(static_cast<std::uint8_t const*>(bytes));
#endif
    }
  }
  /// Whether `load_words` and `load_f16` are loads that write one lane each.
#if defined(TERN_SIMD_AVX512) || defined(TERN_SIMD_AVX2)
  static constexpr bool loads_lanes = true;
#else
  static constexpr bool loads_lanes = false;
#endif
  /// The word at `at` of each row, a row a lane.
  TERN_INLINE pack<std::int32_t> load_words(index at) const {
#if defined(TERN_SIMD_AVX512)
    auto const four = [&](index i) TERN_LAMBDA {
      auto const place = [&](index r) TERN_LAMBDA { return row(i, r) + (at - 4 * r); };
      __m128i w = _mm_cvtsi32_si128(detail::read<std::int32_t>(place(0)));
      w = _mm_mask_loadu_epi32(w, 2, place(1));
      w = _mm_mask_loadu_epi32(w, 4, place(2));
      return _mm_mask_loadu_epi32(w, 8, place(3));
    };
    return bit_cast<std::int32_t>(detail::join16(four(0), four(1), four(2), four(3)));
#elif defined(TERN_SIMD_AVX2)
    auto const word = [&](index r) TERN_LAMBDA { return detail::read<std::int32_t>(row(r / 4, r % 4) + at); };
    return pack<std::int32_t>(_mm256_setr_epi32(word(0), word(1), word(2), word(3), word(4), word(5), word(6), word(7)));
#else
    std::int32_t words[lanes];
    for (index i = 0; i < lanes; ++i) __builtin_memcpy(words + i, row(i / 4, i % 4) + at, 4);
    return load(static_cast<std::int32_t const*>(words));
#endif
  }
  /// The f16 at `at` of each row.
  TERN_INLINE pack<float> load_f16(index at) const {
#if defined(TERN_SIMD_AVX512)
    auto const eight = [&](index i) TERN_LAMBDA {
      auto const place = [&](index r) TERN_LAMBDA { return row(i + r / 4, r % 4) + (at - 2 * r); };
      __m128i w = _mm_cvtsi32_si128(detail::read<std::uint16_t>(place(0)));
      TERN_UNROLL
      for (index r = 1; r < 8; ++r) w = _mm_mask_loadu_epi16(w, static_cast<__mmask8>(1 << r), place(r));
      return w;
    };
    __m256i const both = _mm256_inserti128_si256(_mm256_castsi128_si256(eight(0)), eight(2), 1);
    return pack<float>(_mm512_maskz_cvtph_ps(0xffff, both));
#elif defined(TERN_SIMD_AVX2)
    auto const half = [&](index r) TERN_LAMBDA { return detail::read<std::int16_t>(row(r / 4, r % 4) + at); };
    return pack<float>(_mm256_cvtph_ps(_mm_setr_epi16(half(0), half(1), half(2), half(3), half(4), half(5), half(6), half(7))));
#else
    float values[lanes];
    for (index i = 0; i < lanes; ++i) values[i] = f16::from_bits(detail::read<std::uint16_t>(row(i / 4, i % 4) + at));
    return load(static_cast<float const*>(values));
#endif
  }
};
/// The first 16 bytes of each.
TERN_INLINE void load_rows16(std::uint8_t const* p, index stride, pack<std::uint8_t> (&u)[4]) { row_places(p, stride).load16(0, u); }

/// Bytes that hold two codes: their low halves to u[0], their high ones to u[1].
template <index N>
TERN_INLINE void split_halves(pack<std::uint8_t> const (&bytes)[N], pack<std::uint8_t> (&u)[2][N]) {
  pack<std::uint8_t> const low(std::uint8_t{15});
  TERN_UNROLL
  for (index r = 0; r < N; ++r) {
    u[0][r] = bytes[r] & low;
    u[1][r] = shift_right<4>(bytes[r]);
  }
}

/// Whether there is `four_blocks`.
inline constexpr bool has_four_blocks =
#if defined(TERN_SIMD_AVX512) && defined(__AVX512VBMI__)
    true;
#else
    false;
#endif
/// Four blocks of a row, one after the other, each of an f16 and 16 bytes.
template <index bytes>
class four_blocks;
#if defined(TERN_SIMD_AVX512) && defined(__AVX512VBMI__)
/// Which bytes a shuffle takes, made when it is compiled.
struct byte_choice {
  alignas(64) std::uint8_t from[64];
  template <class Choose>
  constexpr explicit byte_choice(Choose const& choose) : from{} {
    for (int i = 0; i < 64; ++i) from[i] = static_cast<std::uint8_t>(choose(i));
  }
  TERN_INLINE __m512i places() const { return detail::read<__m512i>(from); }
};
template <>
class four_blocks<18> {
 public:
  TERN_INLINE explicit four_blocks(std::uint8_t const* p) : first_(load(p)), last_(load(p + 8)) {}
  /// The 16 bytes of each, a block a quarter.
  TERN_INLINE pack<std::uint8_t> codes() const {
    static constexpr byte_choice choice([](int i) { return i < 48 ? i / 16 * 18 + 2 + i % 16 : 64 + i; });
    return pack<std::uint8_t>(_mm512_permutex2var_epi8(first_.v, choice.places(), last_.v));
  }
  /// The f16 of each to half h of lane r of its quarter; the rest stays.
  template <index r, index h>
  TERN_INLINE void heads(pack<std::int32_t>& to) const {
    static constexpr byte_choice choice([](int i) { return i / 16 * 18 + i % 2; });
    constexpr std::uint64_t where = std::uint64_t{0x0003000300030003} << (4 * r + 2 * h);
    to.v = _mm512_mask_permutexvar_epi8(to.v, where, choice.places(), first_.v);
  }
  /// heads[j] has row 8 j + 4 h + r in half h of lane r of every quarter: to each block's f16, a row a lane.
  TERN_INLINE static void widen_heads(pack<std::int32_t> const (&heads)[2], pack<float> (&of)[4]) {
    widen_two<0>(heads, of[0], of[1]);
    widen_two<2>(heads, of[2], of[3]);
  }
  /// The first and the second 16 of each 32 bytes of 128, to halves[0] and halves[1], a block a quarter.
  TERN_INLINE static void load_columns(std::int8_t const* p, pack<std::int8_t> (&halves)[2]) {
    __m512i const a = load(p).v, b = load(p + 64).v;
    halves[0] = pack<std::int8_t>(_mm512_maskz_shuffle_i32x4(0xffff, a, b, 0x88));
    halves[1] = pack<std::int8_t>(_mm512_maskz_shuffle_i32x4(0xffff, a, b, 0xdd));
  }

 private:
  template <int first>
  TERN_INLINE static void widen_two(pack<std::int32_t> const (&heads)[2], pack<float>& a, pack<float>& b) {
    static constexpr byte_choice choice([](int i) {  // of two bytes each
      int const block = first + i / 32, row = i / 2 % 16;
      return i % 2 == 1 ? 0 : row / 8 * 32 + 8 * block + 2 * (row % 4) + row / 4 % 2;
    });
    __m512i const both = _mm512_permutex2var_epi16(heads[0].v, choice.places(), heads[1].v);
    a = pack<float>(_mm512_maskz_cvtph_ps(0xffff, _mm512_castsi512_si256(both)));
    b = pack<float>(_mm512_maskz_cvtph_ps(0xffff, _mm512_maskz_extracti64x4_epi64(0xf, both, 1)));
  }
  pack<std::uint8_t> first_, last_;  // the first three of them, the last
};
#endif

/// The same 16 bytes in each 128-bit part.
TERN_INLINE pack<std::int8_t> repeat16(std::int8_t const* p) {
#if defined(TERN_SIMD_AVX512)
  return pack<std::int8_t>(_mm512_maskz_broadcast_i32x4(0xffff, detail::read<__m128i>(p)));
#elif defined(TERN_SIMD_AVX2)
  return pack<std::int8_t>(_mm256_broadcastsi128_si256(detail::read<__m128i>(p)));
#else
  std::int8_t bytes[4 * lanes];
  for (index i = 0; i < lanes / 4; ++i) __builtin_memcpy(bytes + 16 * i, p, 16);
  return load(static_cast<std::int8_t const*>(bytes));
#endif
}

/// Lane 4 i + r is the sum of lanes 4 i to 4 i + 3 of a[r].
TERN_INLINE pack<std::int32_t> sum_quads(pack<std::int32_t> const (&a)[4]) {
#if defined(TERN_SIMD_AVX512)
  constexpr __mmask16 all = 0xffff;
  __m512i const x = _mm512_add_epi32(_mm512_maskz_unpacklo_epi32(all, a[0].v, a[1].v), _mm512_maskz_unpackhi_epi32(all, a[0].v, a[1].v));
  __m512i const y = _mm512_add_epi32(_mm512_maskz_unpacklo_epi32(all, a[2].v, a[3].v), _mm512_maskz_unpackhi_epi32(all, a[2].v, a[3].v));
  return pack<std::int32_t>(_mm512_add_epi32(_mm512_maskz_unpacklo_epi64(0xff, x, y), _mm512_maskz_unpackhi_epi64(0xff, x, y)));
#elif defined(TERN_SIMD_AVX2)
  __m256i const x = _mm256_add_epi32(_mm256_unpacklo_epi32(a[0].v, a[1].v), _mm256_unpackhi_epi32(a[0].v, a[1].v));
  __m256i const y = _mm256_add_epi32(_mm256_unpacklo_epi32(a[2].v, a[3].v), _mm256_unpackhi_epi32(a[2].v, a[3].v));
  return pack<std::int32_t>(_mm256_add_epi32(_mm256_unpacklo_epi64(x, y), _mm256_unpackhi_epi64(x, y)));
#elif defined(TERN_SIMD_SSE)
  __m128i const x = _mm_add_epi32(_mm_unpacklo_epi32(a[0].v, a[1].v), _mm_unpackhi_epi32(a[0].v, a[1].v));
  __m128i const y = _mm_add_epi32(_mm_unpacklo_epi32(a[2].v, a[3].v), _mm_unpackhi_epi32(a[2].v, a[3].v));
  return pack<std::int32_t>(_mm_add_epi32(_mm_unpacklo_epi64(x, y), _mm_unpackhi_epi64(x, y)));
#elif defined(TERN_SIMD_NEON)
  return pack<std::int32_t>(vpaddq_s32(vpaddq_s32(a[0].v, a[1].v), vpaddq_s32(a[2].v, a[3].v)));
#else
  pack<std::int32_t> sums;
  for (index i = 0; i < lanes; i += 4)
    for (index r = 0; r < 4; ++r) sums.v[i + r] = a[r].v[i] + a[r].v[i + 1] + a[r].v[i + 2] + a[r].v[i + 3];
  return sums;
#endif
}

/// Lane 4 i + r of a[j] becomes lane 4 i + j of a[r]: each 128-bit part of the four registers is a tile that is transposed.
TERN_INLINE void transpose_quads(pack<std::uint8_t> (&a)[4]) {
#if defined(TERN_SIMD_AVX512)
  constexpr __mmask16 all = 0xffff;
  constexpr __mmask8 half = 0xff;
  __m512i const x = _mm512_maskz_unpacklo_epi32(all, a[0].v, a[1].v), y = _mm512_maskz_unpacklo_epi32(all, a[2].v, a[3].v);
  __m512i const z = _mm512_maskz_unpackhi_epi32(all, a[0].v, a[1].v), w = _mm512_maskz_unpackhi_epi32(all, a[2].v, a[3].v);
  a[0].v = _mm512_maskz_unpacklo_epi64(half, x, y);
  a[1].v = _mm512_maskz_unpackhi_epi64(half, x, y);
  a[2].v = _mm512_maskz_unpacklo_epi64(half, z, w);
  a[3].v = _mm512_maskz_unpackhi_epi64(half, z, w);
#elif defined(TERN_SIMD_AVX2)
  __m256i const x = _mm256_unpacklo_epi32(a[0].v, a[1].v), y = _mm256_unpacklo_epi32(a[2].v, a[3].v);
  __m256i const z = _mm256_unpackhi_epi32(a[0].v, a[1].v), w = _mm256_unpackhi_epi32(a[2].v, a[3].v);
  a[0].v = _mm256_unpacklo_epi64(x, y);
  a[1].v = _mm256_unpackhi_epi64(x, y);
  a[2].v = _mm256_unpacklo_epi64(z, w);
  a[3].v = _mm256_unpackhi_epi64(z, w);
#elif defined(TERN_SIMD_SSE)
  __m128i const x = _mm_unpacklo_epi32(a[0].v, a[1].v), y = _mm_unpacklo_epi32(a[2].v, a[3].v);
  __m128i const z = _mm_unpackhi_epi32(a[0].v, a[1].v), w = _mm_unpackhi_epi32(a[2].v, a[3].v);
  a[0].v = _mm_unpacklo_epi64(x, y);
  a[1].v = _mm_unpackhi_epi64(x, y);
  a[2].v = _mm_unpacklo_epi64(z, w);
  a[3].v = _mm_unpackhi_epi64(z, w);
#elif defined(TERN_SIMD_NEON)
  uint32x4_t v[4];
  TERN_UNROLL
  for (index r = 0; r < 4; ++r) v[r] = vreinterpretq_u32_u8(a[r].v);
  uint64x2_t const x = vreinterpretq_u64_u32(vzip1q_u32(v[0], v[1])), y = vreinterpretq_u64_u32(vzip1q_u32(v[2], v[3]));
  uint64x2_t const z = vreinterpretq_u64_u32(vzip2q_u32(v[0], v[1])), w = vreinterpretq_u64_u32(vzip2q_u32(v[2], v[3]));
  a[0].v = vreinterpretq_u8_u64(vzip1q_u64(x, y));
  a[1].v = vreinterpretq_u8_u64(vzip2q_u64(x, y));
  a[2].v = vreinterpretq_u8_u64(vzip1q_u64(z, w));
  a[3].v = vreinterpretq_u8_u64(vzip2q_u64(z, w));
#else
  std::uint8_t from[4][4 * lanes], to[4][4 * lanes];
  for (index j = 0; j < 4; ++j) store(static_cast<std::uint8_t*>(from[j]), a[j]);
  for (index j = 0; j < 4; ++j)
    for (index r = 0; r < 4; ++r)
      for (index i = 0; i < lanes; i += 4) __builtin_memcpy(to[r] + 4 * (i + j), from[j] + 4 * (i + r), 4);
  for (index j = 0; j < 4; ++j) a[j] = load(static_cast<std::uint8_t const*>(to[j]));
#endif
}

/// The low byte of each lane, to `lanes` bytes.
TERN_INLINE void store_low_bytes(std::int8_t* p, pack<std::int32_t> a) {
#if defined(TERN_SIMD_AVX512)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_maskz_cvtepi32_epi8(0xffff, a.v));
#elif defined(TERN_SIMD_AVX2)
  __m256i const bytes = _mm256_shuffle_epi8(a.v, _mm256_set1_epi32(0x0c080400));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1)));
#else
  std::int32_t word[lanes];
  store(static_cast<std::int32_t*>(word), a);
  for (index i = 0; i < lanes; ++i) p[i] = static_cast<std::int8_t>(word[i] & 0xff);
#endif
}

/// The lanes of four packs as bytes, one pack after the other; lanes in [-128, 127].
TERN_INLINE void store_as_bytes(std::int8_t* p, pack<std::int32_t> const (&a)[4]) {
#if defined(TERN_SIMD_AVX512)
  __m512i const order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  __m512i const bytes = _mm512_packs_epi16(_mm512_packs_epi32(a[0].v, a[1].v), _mm512_packs_epi32(a[2].v, a[3].v));
  _mm512_storeu_si512(p, _mm512_maskz_permutexvar_epi32(0xffff, order, bytes));
#else
  TERN_UNROLL
  for (index i = 0; i < 4; ++i) store_low_bytes(p + i * lanes, a[i]);
#endif
}

/// The f16 in the low half of each 32-bit lane.
TERN_INLINE pack<float> low_f16(pack<std::int32_t> a) {
#if defined(TERN_SIMD_AVX512)
  return pack<float>(_mm512_maskz_cvtph_ps(0xffff, _mm512_maskz_cvtepi32_epi16(0xffff, a.v)));
#elif defined(TERN_SIMD_AVX2)
  __m256i const low = _mm256_and_si256(a.v, _mm256_set1_epi32(0xffff));
  return pack<float>(_mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1))));
#elif defined(TERN_SIMD_NEON)
  return pack<float>(vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(vreinterpretq_u32_s32(a.v)))));
#else
  std::int32_t word[lanes];
  float value[lanes];
  store(word, a);
  for (index i = 0; i < lanes; ++i) value[i] = f16::from_bits(static_cast<std::uint16_t>(word[i] & 0xffff));
  return load(value);
#endif
}
/// The f16 in the high half of each 32-bit lane.
TERN_INLINE pack<float> high_f16(pack<std::int32_t> a) {
#if defined(TERN_SIMD_AVX512)
  return low_f16(pack<std::int32_t>(_mm512_maskz_srli_epi32(0xffff, a.v, 16)));
#elif defined(TERN_SIMD_AVX2)
  return low_f16(pack<std::int32_t>(_mm256_srli_epi32(a.v, 16)));
#elif defined(TERN_SIMD_NEON)
  return pack<float>(vcvt_f32_f16(vreinterpret_f16_u16(vshrn_n_u32(vreinterpretq_u32_s32(a.v), 16))));
#else
  std::int32_t word[lanes];
  float value[lanes];
  store(word, a);
  for (index i = 0; i < lanes; ++i) value[i] = f16::from_bits(static_cast<std::uint16_t>(static_cast<std::uint32_t>(word[i]) >> 16));
  return load(value);
#endif
}

}  // namespace simd
}  // namespace TERN_ABI
}  // namespace tern

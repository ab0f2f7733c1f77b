// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file simd/shuffle.hpp
/// Lanes that change places: transposes of a square tile, and tables of 16 entries held in registers.

#include <tern/simd/bytes.hpp>
#include <tern/simd/core.hpp>

namespace tern {
inline namespace TERN_ABI {
namespace simd {

// ---- transpose -------------------------------------------------------------------------------------------------------

namespace detail {
#if defined(TERN_SIMD_AVX512)
/// Within each 128-bit quarter: rows 4g .. 4g+3 of r become columns.
template <index n>
TERN_INLINE void transpose_quarters(__m512 (&r)[n]) {
  TERN_UNROLL
  for (index g = 0; g < n; g += 4) {
    __m512d const a = _mm512_castps_pd(_mm512_maskz_unpacklo_ps(0xffff, r[g], r[g + 1]));
    __m512d const b = _mm512_castps_pd(_mm512_maskz_unpackhi_ps(0xffff, r[g], r[g + 1]));
    __m512d const c = _mm512_castps_pd(_mm512_maskz_unpacklo_ps(0xffff, r[g + 2], r[g + 3]));
    __m512d const d = _mm512_castps_pd(_mm512_maskz_unpackhi_ps(0xffff, r[g + 2], r[g + 3]));
    r[g] = _mm512_castpd_ps(_mm512_maskz_unpacklo_pd(0xff, a, c));
    r[g + 1] = _mm512_castpd_ps(_mm512_maskz_unpackhi_pd(0xff, a, c));
    r[g + 2] = _mm512_castpd_ps(_mm512_maskz_unpacklo_pd(0xff, b, d));
    r[g + 3] = _mm512_castpd_ps(_mm512_maskz_unpackhi_pd(0xff, b, d));
  }
}
/// The same with what rows hold, to `out`.
TERN_INLINE void transpose_quarters(pack<float> const (&rows)[lanes], __m512 (&out)[16]) {
  TERN_UNROLL
  for (index i = 0; i < 16; ++i) out[i] = rows[i].v;
  transpose_quarters(out);
}
#endif
}  // namespace detail

/// Whether shuffles of registers cost less than loads and stores of their parts, as where they have more than one unit: so it is on Zen 4,
/// and not on the processors with matrix registers. Others were not measured.
inline constexpr bool shuffles_freely =
#if defined(TERN_SIMD_AVX512)
    !on_sapphire_rapids;
#else
    false;
#endif

/// Within each quarter of four rows of 16 lanes, and of the quarters themselves: lane, or quarter, j of rows[i] <-> i of rows[j]. Both
/// together transpose a tile of 16 rows: within quarters its rows 4 g + i, then the quarters of its rows g + 4 i.
TERN_INLINE void transpose_within_quarters(pack<float> (&rows)[4]) {
#if defined(TERN_SIMD_AVX512)
  __m512 r[4] = {rows[0].v, rows[1].v, rows[2].v, rows[3].v};
  detail::transpose_quarters(r);
  TERN_UNROLL
  for (index i = 0; i < 4; ++i) rows[i] = pack<float>(r[i]);
#else
  if constexpr (lanes % 4 == 0) {
    float at[4][lanes], moved[4][lanes];
    for (index i = 0; i < 4; ++i) store(static_cast<float*>(at[i]), rows[i]);
    for (index i = 0; i < 4; ++i)
      for (index j = 0; j < lanes; ++j) moved[i][j] = at[j % 4][j / 4 * 4 + i];
    for (index i = 0; i < 4; ++i) rows[i] = load(static_cast<float const*>(moved[i]));
  }
#endif
}
/// The quarters themselves.
TERN_INLINE void transpose_quarters(pack<float> (&rows)[4]) {
#if defined(TERN_SIMD_AVX512)
  __m512 const a = _mm512_maskz_shuffle_f32x4(0xffff, rows[0].v, rows[1].v, 0x44);
  __m512 const b = _mm512_maskz_shuffle_f32x4(0xffff, rows[0].v, rows[1].v, 0xee);
  __m512 const c = _mm512_maskz_shuffle_f32x4(0xffff, rows[2].v, rows[3].v, 0x44);
  __m512 const d = _mm512_maskz_shuffle_f32x4(0xffff, rows[2].v, rows[3].v, 0xee);
  rows[0] = pack<float>(_mm512_maskz_shuffle_f32x4(0xffff, a, c, 0x88));
  rows[1] = pack<float>(_mm512_maskz_shuffle_f32x4(0xffff, a, c, 0xdd));
  rows[2] = pack<float>(_mm512_maskz_shuffle_f32x4(0xffff, b, d, 0x88));
  rows[3] = pack<float>(_mm512_maskz_shuffle_f32x4(0xffff, b, d, 0xdd));
#else
  if constexpr (lanes % 4 == 0) {
    constexpr index quarter = lanes / 4;
    float at[4][lanes], moved[4][lanes];
    for (index i = 0; i < 4; ++i) store(static_cast<float*>(at[i]), rows[i]);
    for (index i = 0; i < 4; ++i)
      for (index j = 0; j < lanes; ++j) moved[i][j] = at[j / quarter][i * quarter + j % quarter];
    for (index i = 0; i < 4; ++i) rows[i] = load(static_cast<float const*>(moved[i]));
  }
#endif
}

/// rows[i] lane j <-> rows[j] lane i. 64 shuffles of two registers for 16 lanes, 24 for 8, 8 for 4.
TERN_INLINE void transpose(pack<float> (&rows)[lanes]) {
#if defined(TERN_SIMD_AVX512)
  auto const fours = [&](index first, index step, auto const& move) TERN_LAMBDA {
    pack<float> r[4] = {rows[first], rows[first + step], rows[first + 2 * step], rows[first + 3 * step]};
    move(r);
    TERN_UNROLL
    for (index i = 0; i < 4; ++i) rows[first + i * step] = r[i];
  };
  TERN_UNROLL
  for (index g = 0; g < 4; ++g) fours(4 * g, 1, [](pack<float>(&r)[4]) TERN_LAMBDA { transpose_within_quarters(r); });
  TERN_UNROLL
  for (index g = 0; g < 4; ++g) fours(g, 4, [](pack<float>(&r)[4]) TERN_LAMBDA { transpose_quarters(r); });
#elif defined(TERN_SIMD_AVX2)
  __m256 r[8];
  TERN_UNROLL
  for (index g = 0; g < 8; g += 4) {
    __m256 const a = _mm256_unpacklo_ps(rows[g].v, rows[g + 1].v);
    __m256 const b = _mm256_unpackhi_ps(rows[g].v, rows[g + 1].v);
    __m256 const c = _mm256_unpacklo_ps(rows[g + 2].v, rows[g + 3].v);
    __m256 const d = _mm256_unpackhi_ps(rows[g + 2].v, rows[g + 3].v);
    r[g] = _mm256_shuffle_ps(a, c, 0x44);
    r[g + 1] = _mm256_shuffle_ps(a, c, 0xee);
    r[g + 2] = _mm256_shuffle_ps(b, d, 0x44);
    r[g + 3] = _mm256_shuffle_ps(b, d, 0xee);
  }
  TERN_UNROLL
  for (index k = 0; k < 4; ++k) {
    rows[k] = pack<float>(_mm256_permute2f128_ps(r[k], r[4 + k], 0x20));
    rows[4 + k] = pack<float>(_mm256_permute2f128_ps(r[k], r[4 + k], 0x31));
  }
#elif defined(TERN_SIMD_SSE)
  __m128 const a = _mm_unpacklo_ps(rows[0].v, rows[1].v);
  __m128 const b = _mm_unpackhi_ps(rows[0].v, rows[1].v);
  __m128 const c = _mm_unpacklo_ps(rows[2].v, rows[3].v);
  __m128 const d = _mm_unpackhi_ps(rows[2].v, rows[3].v);
  rows[0] = pack<float>(_mm_movelh_ps(a, c));
  rows[1] = pack<float>(_mm_movehl_ps(c, a));
  rows[2] = pack<float>(_mm_movelh_ps(b, d));
  rows[3] = pack<float>(_mm_movehl_ps(d, b));
#elif defined(TERN_SIMD_NEON)
  float64x2_t const a = vreinterpretq_f64_f32(vtrn1q_f32(rows[0].v, rows[1].v));
  float64x2_t const b = vreinterpretq_f64_f32(vtrn2q_f32(rows[0].v, rows[1].v));
  float64x2_t const c = vreinterpretq_f64_f32(vtrn1q_f32(rows[2].v, rows[3].v));
  float64x2_t const d = vreinterpretq_f64_f32(vtrn2q_f32(rows[2].v, rows[3].v));
  rows[0] = pack<float>(vreinterpretq_f32_f64(vtrn1q_f64(a, c)));
  rows[1] = pack<float>(vreinterpretq_f32_f64(vtrn1q_f64(b, d)));
  rows[2] = pack<float>(vreinterpretq_f32_f64(vtrn2q_f64(a, c)));
  rows[3] = pack<float>(vreinterpretq_f32_f64(vtrn2q_f64(b, d)));
#else
  for (index i = 0; i < lanes; ++i)
    for (index j = 0; j < i; ++j) {
      float const kept = rows[i].v[j];
      rows[i].v[j] = rows[j].v[i];
      rows[j].v[i] = kept;
    }
#endif
}

/// rows[i] lane j = p[j * step + i]: a square tile of memory, transposed. Registers are put together by loads, as far as the machine can,
/// which leaves its one unit of shuffles half of the work; `store_transposed` likewise.
TERN_INLINE void load_transposed(float const* p, index step, pack<float> (&rows)[lanes]) {
#if defined(TERN_SIMD_AVX512)
  auto const halves = [&](index row, index half) TERN_LAMBDA {  // lanes 8 half to 8 half + 7 of this row and the fourth behind it
    float const* const at = p + row * step + 8 * half;
    __m512d const low = _mm512_castpd256_pd512(_mm256_castps_pd(_mm256_loadu_ps(at)));
    return _mm512_castpd_ps(_mm512_maskz_insertf64x4(0xff, low, _mm256_castps_pd(_mm256_loadu_ps(at + 4 * step)), 1));
  };
  __m512 r[16];
  TERN_UNROLL
  for (index i = 0; i < 8; ++i) {
    index const half = i / 4, k = i % 4;
    __m512 const a = halves(k, half), b = halves(8 + k, half);
    r[8 * half + k] = _mm512_maskz_shuffle_f32x4(0xffff, a, b, 0x88);
    r[8 * half + 4 + k] = _mm512_maskz_shuffle_f32x4(0xffff, a, b, 0xdd);
  }
  detail::transpose_quarters(r);
  TERN_UNROLL
  for (index i = 0; i < 16; ++i) rows[i] = pack<float>(r[i]);
#else
  TERN_UNROLL
  for (index i = 0; i < lanes; ++i) rows[i] = load(p + i * step);
  transpose(rows);
#endif
}
/// p[j * step + i] = rows[i] lane j.
TERN_INLINE void store_transposed(pack<float> const (&rows)[lanes], float* p, index step) {
#if defined(TERN_SIMD_AVX512)
  __m512 r[16];
  detail::transpose_quarters(rows, r);
  TERN_UNROLL
  for (index k = 0; k < 4; ++k) {
    float* const to = p + k * step;
    TERN_UNROLL
    for (index g = 0; g < 4; ++g) _mm_storeu_ps(to + 4 * g, _mm512_castps512_ps128(r[4 * g + k]));
    TERN_UNROLL
    for (index g = 0; g < 4; ++g) _mm_storeu_ps(to + 4 * step + 4 * g, _mm512_maskz_extractf32x4_ps(0xf, r[4 * g + k], 1));
    TERN_UNROLL
    for (index g = 0; g < 4; ++g) _mm_storeu_ps(to + 8 * step + 4 * g, _mm512_maskz_extractf32x4_ps(0xf, r[4 * g + k], 2));
    TERN_UNROLL
    for (index g = 0; g < 4; ++g) _mm_storeu_ps(to + 12 * step + 4 * g, _mm512_maskz_extractf32x4_ps(0xf, r[4 * g + k], 3));
  }
#else
  pack<float> t[lanes];
  TERN_UNROLL
  for (index i = 0; i < lanes; ++i) t[i] = rows[i];
  transpose(t);
  TERN_UNROLL
  for (index i = 0; i < lanes; ++i) store(p + i * step, t[i]);
#endif
}

#if defined(TERN_SIMD_AVX512)
/// Whether load_columns and store_columns move columns at less cost than a square tile does.
inline constexpr bool has_quarters = true;
#else
/// Whether load_columns and store_columns move columns at less cost than a square tile does.
inline constexpr bool has_quarters = false;
#endif
/// columns[i] lane j = p[j * step + i]: four columns of memory, which loads bring to their quarters. 8 shuffles and 12 blends,
/// which two units share, where a fourth of a tile takes 16 or 12 shuffles of one unit.
TERN_INLINE void load_columns(float const* p, index step, pack<float> (&columns)[4]) {
#if defined(TERN_SIMD_AVX512)
  __m512 r[4];
  TERN_UNROLL
  for (index k = 0; k < 4; ++k) {
    r[k] = _mm512_castps128_ps512(_mm_loadu_ps(p + k * step));
    r[k] = _mm512_mask_broadcast_f32x4(r[k], 0x00f0, _mm_loadu_ps(p + (4 + k) * step));
    r[k] = _mm512_mask_broadcast_f32x4(r[k], 0x0f00, _mm_loadu_ps(p + (8 + k) * step));
    r[k] = _mm512_mask_broadcast_f32x4(r[k], 0xf000, _mm_loadu_ps(p + (12 + k) * step));
  }
  detail::transpose_quarters(r);
  TERN_UNROLL
  for (index i = 0; i < 4; ++i) columns[i] = pack<float>(r[i]);
#else
  TERN_UNROLL
  for (index i = 0; i < 4; ++i) {
    float lane[lanes];
    for (index j = 0; j < lanes; ++j) lane[j] = p[j * step + i];
    columns[i] = load(static_cast<float const*>(lane));
  }
#endif
}
/// p[j * step + i] = columns[i] lane j.
TERN_INLINE void store_columns(pack<float> const (&columns)[4], float* p, index step) {
#if defined(TERN_SIMD_AVX512)
  __m512 r[4] = {columns[0].v, columns[1].v, columns[2].v, columns[3].v};
  detail::transpose_quarters(r);
  TERN_UNROLL
  for (index k = 0; k < 4; ++k) {
    _mm_storeu_ps(p + k * step, _mm512_castps512_ps128(r[k]));
    _mm_storeu_ps(p + (4 + k) * step, _mm512_maskz_extractf32x4_ps(0xf, r[k], 1));
    _mm_storeu_ps(p + (8 + k) * step, _mm512_maskz_extractf32x4_ps(0xf, r[k], 2));
    _mm_storeu_ps(p + (12 + k) * step, _mm512_maskz_extractf32x4_ps(0xf, r[k], 3));
  }
#else
  TERN_UNROLL
  for (index i = 0; i < 4; ++i) {
    float lane[lanes];
    store(lane, columns[i]);
    for (index j = 0; j < lanes; ++j) p[j * step + i] = lane[j];
  }
#endif
}

/// The lanes from the last to the first.
TERN_INLINE pack<float> reverse(pack<float> a) {
#if defined(TERN_SIMD_AVX512)
  __m512i const from = _mm512_setr_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  return pack<float>(_mm512_maskz_permutexvar_ps(0xffff, from, a.v));
#elif defined(TERN_SIMD_AVX2)
  return pack<float>(_mm256_permutevar8x32_ps(a.v, _mm256_setr_epi32(7, 6, 5, 4, 3, 2, 1, 0)));
#elif defined(TERN_SIMD_SSE)
  return pack<float>(_mm_shuffle_ps(a.v, a.v, 0x1b));
#elif defined(TERN_SIMD_NEON)
  float32x4_t const pairs = vrev64q_f32(a.v);
  return pack<float>(vextq_f32(pairs, pairs, 2));
#else
  return lanewise<float>([&](index i) { return a.v[lanes - 1 - i]; });
#endif
}

// ---- tables ----------------------------------------------------------------------------------------------------------

/// 16 bytes to look up, where the instruction wants them.
struct byte_table {
#if defined(TERN_SIMD_EMULATED) || (defined(TERN_SIMD_SSE) && !defined(__SSSE3__))
  std::int8_t entry[16];
#else
  pack<std::int8_t> entry;
#endif
};

/// A table of the 16 entries.
TERN_INLINE byte_table load_table(std::int8_t const* entries) {
#if defined(TERN_SIMD_AVX512)
  return {_mm512_maskz_broadcast_i32x4(0xffff, detail::read<__m128i>(entries))};
#elif defined(TERN_SIMD_AVX2)
  return {_mm256_broadcastsi128_si256(detail::read<__m128i>(entries))};
#elif defined(TERN_SIMD_EMULATED) || (defined(TERN_SIMD_SSE) && !defined(__SSSE3__))
  byte_table t;
  __builtin_memcpy(t.entry, entries, 16);
  return t;
#else
  return {load(entries)};
#endif
}

/// Lane by lane the entry of its 128-bit part: byte 16 i + j is entries[16 i + which[16 i + j]]; `which` must be below 16. Only for lane
/// counts that are a multiple of 4.
TERN_INLINE pack<std::int8_t> lookup(pack<std::int8_t> entries, pack<std::uint8_t> which) {
#if defined(TERN_SIMD_AVX512)
  return _mm512_shuffle_epi8(entries.v, which.v);
#elif defined(TERN_SIMD_AVX2)
  return _mm256_shuffle_epi8(entries.v, which.v);
#elif defined(TERN_SIMD_SSE) && defined(__SSSE3__)
  return _mm_shuffle_epi8(entries.v, which.v);
#elif defined(TERN_SIMD_NEON)
  return vqtbl1q_s8(entries.v, which.v);
#else
  std::uint8_t at[pack<std::uint8_t>::size];
  std::int8_t from[pack<std::uint8_t>::size], found[pack<std::uint8_t>::size];
  store(static_cast<std::uint8_t*>(at), which);
  store(static_cast<std::int8_t*>(from), entries);
  for (index i = 0; i < which.size; ++i) found[i] = from[(i & -16) + (at[i] & 15)];
  return load(static_cast<std::int8_t const*>(found));
#endif
}
/// Lane by lane: entries[which]; `which` must be below 16.
TERN_INLINE pack<std::int8_t> lookup(byte_table const& table, pack<std::uint8_t> which) {
#if defined(TERN_SIMD_EMULATED) || (defined(TERN_SIMD_SSE) && !defined(__SSSE3__))
  std::uint8_t at[pack<std::uint8_t>::size];
  std::int8_t found[pack<std::uint8_t>::size];
  store(static_cast<std::uint8_t*>(at), which);
  for (index i = 0; i < which.size; ++i) found[i] = table.entry[at[i] & 15];
  return load(static_cast<std::int8_t const*>(found));
#else
  return lookup(table.entry, which);
#endif
}

/// u[i] = entries[u[i]] for the 32 bytes at u, which must be below 16.
TERN_INLINE void look_up_32(byte_table const& table, std::uint8_t* u) {
  constexpr index step = pack<std::uint8_t>::size < 32 ? pack<std::uint8_t>::size : 32;
  for (index j = 0; j < 32; j += step)
    store_n(u + j, bit_cast<std::uint8_t>(lookup(table, load_n(static_cast<std::uint8_t const*>(u + j), step))), step);
}

/// 16 floats to look up: one register where it holds 16, otherwise as many as it takes.
struct float_table {
#if defined(TERN_SIMD_AVX512)
  pack<float> entry;
#elif defined(TERN_SIMD_AVX2)
  pack<float> entry[2];
#else
  float entry[16];
#endif
};

TERN_INLINE float_table load_table(float const* entries) {
#if defined(TERN_SIMD_AVX512)
  return {load(entries)};
#elif defined(TERN_SIMD_AVX2)
  return {{load(entries), load(entries + 8)}};
#else
  float_table t;
  __builtin_memcpy(t.entry, entries, sizeof(t.entry));
  return t;
#endif
}

/// Lane by lane: entries[which]; 0 <= which < 16.
TERN_INLINE pack<float> lookup(float_table const& table, pack<std::int32_t> which) {
#if defined(TERN_SIMD_AVX512)
  return pack<float>(_mm512_maskz_permutexvar_ps(0xffff, which.v, table.entry.v));
#elif defined(TERN_SIMD_AVX2)
  __m256 const low = _mm256_permutevar8x32_ps(table.entry[0].v, which.v);
  __m256 const high = _mm256_permutevar8x32_ps(table.entry[1].v, which.v);
  return pack<float>(_mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(which.v, 28))));
#else
  std::int32_t at[lanes];
  float found[lanes];
  store(static_cast<std::int32_t*>(at), which);
  for (index i = 0; i < lanes; ++i) found[i] = table.entry[at[i] & 15];
  return load(static_cast<float const*>(found));
#endif
}

}  // namespace simd
}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/tile_product.hpp
/// The register tile of both products of attention, on words of 32 bits: one f32, or two bf16 that one instruction multiplies and
/// adds up.

#include <tern/attention/tile.hpp>
#include <tern/core/rounding.hpp>
#include <tern/simd/narrow.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// acc += a b
struct f32_word {
  using type = float;
  static constexpr index elements = 1;
  using packed = simd::pack<float>;
  TERN_INLINE static packed splat(float const* a) { return packed(*a); }
  TERN_INLINE static packed load(float const* b) { return simd::load(b); }
  TERN_INLINE static simd::pack<float> multiply_add(packed a, packed b, simd::pack<float> acc) { return simd::fma(a, b, acc); }
};
/// acc += a0 b0 + a1 b1
struct bf16_word {
  struct type {
    bf16 element[2];
  };
  static constexpr index elements = 2;
  using packed = simd::pack<bf16>;
  TERN_INLINE static packed splat(type const* a) { return simd::splat2(a->element); }
  TERN_INLINE static packed load(type const* b) { return simd::load_narrow(b->element); }
  TERN_INLINE static simd::pack<float> multiply_add(packed a, packed b, simd::pack<float> acc) { return simd::dot(acc, a, b); }
};

/// c = diag(alpha) c + a b, or a b where alpha is null. `a(r, t)` is at a[r * row_stride + t * step_stride], row t of b at b[t * b_packs *
/// lanes].
/// Not inlined: gcc spills accumulators where it knows too much about the arguments.
template <class Word, index rows, int packs, index row_stride, index step_stride, int b_packs = packs>
[[gnu::noinline]] inline void word_product(typename Word::type const* TERN_RESTRICT a,  // (rows, steps)
                                           typename Word::type const* TERN_RESTRICT b,  // (steps, packs * lanes)
                                           index steps,                                 //
                                           float const* TERN_RESTRICT alpha,            // (rows) or null
                                           float* TERN_RESTRICT c, index c_stride) noexcept {
  using packf = simd::pack<float>;
  constexpr index W = simd::lanes;
  packf acc[rows][packs];
  if (alpha == nullptr) {
    TERN_UNROLL
    for (index r = 0; r < rows; ++r) TERN_UNROLL
    for (index n = 0; n < packs; ++n) acc[r][n] = packf(0.f);
  } else {
    TERN_UNROLL
    for (index r = 0; r < rows; ++r) TERN_UNROLL
    for (index n = 0; n < packs; ++n) acc[r][n] = simd::load(c + r * c_stride + n * W) * packf(alpha[r]);
  }
  for (index t = 0; t < steps; ++t) {
    typename Word::packed x[packs];
    TERN_UNROLL
    for (index n = 0; n < packs; ++n) x[n] = Word::load(b + n * W);
    TERN_UNROLL
    for (index r = 0; r < rows; ++r) {
      auto const y = Word::splat(a + r * row_stride);
      TERN_UNROLL
      for (index n = 0; n < packs; ++n) acc[r][n] = Word::multiply_add(y, x[n], acc[r][n]);
    }
    a += step_stride;
    b += b_packs * W;
  }
  TERN_UNROLL
  for (index r = 0; r < rows; ++r) TERN_UNROLL
  for (index n = 0; n < packs; ++n) simd::store(c + r * c_stride + n * W, acc[r][n]);
}

/// S = Q K^T for keys [begin, end), to whole packs. q: groups (words, group) of `rows` rows; k: (panels, words, panel_width); s: (rows,
/// key_block).
template <class Word, index group>
TERN_INLINE void score_panels(std::byte const* q, std::byte const* k, index words, index rows, index begin, index end, float* s) {
  constexpr index W = simd::lanes;
  using word = typename Word::type;
  for (index r = 0; r < rows; r += group)
    for (index j = begin / panel_width * panel_width; j < end; j += panel_width) {
      word const* const queries = reinterpret_cast<word const*>(q) + r * words;
      word const* const panel = reinterpret_cast<word const*>(k) + j * words;
      float* const to = s + r * key_block + j;
      index const skipped = begin < j + W ? 0 : W;
      if (skipped == 0 && end > j + W)
        word_product<Word, group, 2, 1, group>(queries, panel, words, nullptr, to, key_block);
      else
        word_product<Word, group, 1, 1, group, 2>(queries, panel + skipped, words, nullptr, to + skipped, key_block);
    }
}

/// O = diag(alpha) O + P V over keys [begin, end) of a block, to whole words, for `rows` rows, a multiple of `group`.
/// p: (rows, key_block / elements of a word); v: (panels of columns, key_block / elements, panel_width), the last one narrower where the
/// columns end.
template <class Word, index group>
TERN_INLINE void value_panels(std::byte const* p, std::byte const* v, index dim_v, index rows, index begin, index end, float const* alpha,
                              float* o, index o_stride) {
  using word = typename Word::type;
  constexpr index W = simd::lanes, steps = key_block / Word::elements;
  index const first = begin / Word::elements, count = divide_up(end, Word::elements) - first;
  for (index r = 0; r < rows; r += group) {
    for (index d = 0; d < dim_v; d += panel_width) {
      word const* const values = reinterpret_cast<word const*>(v) + d * steps;
      word const* const weights = reinterpret_cast<word const*>(p) + r * steps + first;
      float* const to = o + r * o_stride + d;
      if (dim_v - d > W)
        word_product<Word, group, 2, steps, 1>(weights, values + first * panel_width, count, alpha + r, to, o_stride);
      else
        word_product<Word, group, 1, steps, 1>(weights, values + first * W, count, alpha + r, to, o_stride);
    }
  }
}

}  // namespace TERN_ABI
}  // namespace tern::detail

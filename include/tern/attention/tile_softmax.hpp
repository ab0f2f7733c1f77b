// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/tile_softmax.hpp
/// One step of the online softmax over a tile's scores, whose weights go to where the second product wants them.
///
///     m' = max(m, max_j s_j);  p_j = 2^(s_j - m');  l' = l 2^(m - m') + sum_j p_j
///
/// A tile with few bits for a weight takes weights relative to the block's own maximum b instead, so that they fill its range: p_j = 2^(s_j
/// - b), and the factor 2^(b - m') beside them.

#include <tern/attention/tile.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// 2^r for 0 <= r < 1: relative error 2^-13.7 in degree 3, 2^-18.5 in degree 4, 2^-23.3 in degree 5 with constant term 1 (minimax
/// polynomials by Remez exchange).
template <int degree>
TERN_INLINE simd::pack<float> exp2_of_fraction(simd::pack<float> r) {
  using packf = simd::pack<float>;
  packf p;
  if constexpr (degree >= 5) {
    p = simd::fma(packf(0x1.e974fcp-10f), r, packf(0x1.277854p-7f));
    p = simd::fma(p, r, packf(0x1.c91ce6p-5f));
    p = simd::fma(p, r, packf(0x1.ebdb56p-3f));
    p = simd::fma(p, r, packf(0x1.62e4bap-1f));
    return simd::fma(p, r, packf(1.f));
  } else if constexpr (degree == 4) {
    p = simd::fma(packf(0x1.bb7cd4p-7f), r, packf(0x1.aa13f0p-5f));
    p = simd::fma(p, r, packf(0x1.ee798ap-3f));
    p = simd::fma(p, r, packf(0x1.62d166p-1f));
    return simd::fma(p, r, packf(0x1.00002cp+0f));
  } else {
    p = simd::fma(packf(0x1.3f96a6p-4f), r, packf(0x1.cefc4cp-3f));
    p = simd::fma(p, r, packf(0x1.64444cp-1f));
    return simd::fma(p, r, packf(0x1.fff632p-1f));
  }
}

/// 2^x for x <= 0, to as many bits as the weights keep: relative error 2^-13.7 in degree 3, 2^-18.5 in degree 4 (minimax polynomials by
/// Remez exchange), otherwise exp2_of_nonpositive's. Where numbers split in one instruction, exp2_of_fraction's errors. Below -126.5, or
/// -126 there, the result is zero. NaN stays NaN.
template <int degree>
TERN_INLINE simd::pack<float> exp2_for_weights(simd::pack<float> x) {
  using packf = simd::pack<float>;
  if constexpr (simd::splits_exponents) return simd::times_power(exp2_of_fraction<degree>(simd::fraction(x)), x);
  if constexpr (degree != 3 && degree != 4) return exp2_of_nonpositive(x);
  x = simd::max(packf(-127.f), x);
  packf const magic(0x1.8p23f + 127.f), shifted = x + magic, r = x - (shifted - magic);
  packf p;
  if constexpr (degree == 4) {
    p = simd::fma(packf(0x1.3997d6p-7f), r, packf(0x1.ca1440p-5f));
    p = simd::fma(p, r, packf(0x1.ec06dap-3f));
    p = simd::fma(p, r, packf(0x1.62e0dcp-1f));
    p = simd::fma(p, r, packf(0x1.ffffe8p-1f));
  } else {
    p = simd::fma(packf(0x1.c3f760p-5f), r, packf(0x1.f0de1ap-3f));
    p = simd::fma(p, r, packf(0x1.62f31ap-1f));
    p = simd::fma(p, r, packf(0x1.fff692p-1f));
  }
  return p * simd::bit_cast<float>(simd::shift_left<23>(simd::bit_cast<std::int32_t>(shifted)));
}

/// a + b, as a multiplication by one where the polynomial is short: Zen 4 adds, compares and splits numbers in the same units, which then
/// have more to do than those that multiply.
template <bool multiply>
TERN_INLINE simd::pack<float> add(simd::pack<float> a, simd::pack<float> b) {
  return multiply ? simd::fma(a, simd::pack<float>(1.f), b) : a + b;
}

/// What the scores of a row are taken relative to: a row that has seen nothing has m = -inf, and zero in its place makes its weights
/// 2^-inf = 0.
TERN_INLINE float finite_base(float m) { return m == negative_infinity ? 0.f : m; }
TERN_INLINE simd::pack<float> finite_base(simd::pack<float> m) {
  return simd::select(m == simd::pack<float>(negative_infinity), simd::pack<float>(0.f), m);
}

/// Scores of key panels [first, last) of `count` rows, the largest of each of which is `highest`, to weights at p, by Tile::weight_row.
/// l and m of `state` are updated, alpha and base are set. Not inlined: all calls of a program share it.
/// `keep`: weights take the place of the scores as well.
template <class Tile, bool keep = false>
[[gnu::noinline]] inline void softmax_weights(float* s,  // (count, key_block)
                                              index count, index first, index last,
                                              float const* highest,  // (count, to whole packs)
                                              softmax_rows const& state, std::byte* p) {
  using packf = simd::pack<float>;
  constexpr index W = simd::lanes, rows = Tile::rows, padded = (rows + W - 1) / W * W;
  constexpr bool few = Tile::exp2_degree < 6;
  float sums[padded], base[padded];
  packf alpha[padded / W];
  [[maybe_unused]] packf factor[padded / W];  // of l, as the weights have it
  // What the second product waits for comes first: it is made beside the weights.
  for (index r = 0; r < count; r += W) {
    index const some = count - r < W ? count - r : W;
    packf const before = simd::load_n(state.m + r, some), top = simd::load(highest + r), m = simd::max(before, top);
    packf const finite = finite_base(m), own = Tile::relative_to_block ? finite_base(top) : finite;
    simd::store(base + r, own);
    if (state.base != nullptr) simd::store_n(state.base + r, own, some);
    if constexpr (Tile::relative_to_block) Tile::put_factors(p, r, some, factor[r / W] = exp2_of_nonpositive(top - finite));
    simd::store_n(state.alpha + r, alpha[r / W] = exp2_of_nonpositive(before - finite), some);
    simd::store_n(state.m + r, m, some);
  }
  packf sum[rows];
  for (index r = count; r < rows; ++r) sum[r] = packf(0.f);
  for (index r = 0; r < count; ++r) {
    float* const row = s + r * key_block;
    packf const minus(-base[r]);
    typename Tile::weight_row weights(p, r);
    packf total(0.f);
    for (index n = first; n < last; ++n) {
      packf const a = exp2_for_weights<Tile::exp2_degree>(add<few>(simd::load(row + n * panel_width), minus));
      packf const b = exp2_for_weights<Tile::exp2_degree>(add<few>(simd::load(row + n * panel_width + W), minus));
      weights.put(n, a, b);
      if constexpr (keep) {
        simd::store(row + n * panel_width, a);
        simd::store(row + n * panel_width + W, b);
      }
      total += a + b;
    }
    sum[r] = total;
  }
  simd::reduce_add_each(sum, sums);
  for (index r = 0; r < count; r += W) {
    index const some = count - r < W ? count - r : W;
    packf l = simd::load_n(static_cast<float const*>(sums + r), some);
    if constexpr (Tile::relative_to_block) l = l * factor[r / W];
    simd::store_n(state.l + r, simd::fma(simd::load_n(state.l + r, some), alpha[r / W], l), some);
  }
}

}  // namespace TERN_ABI
}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/alibi.hpp
/// ALiBi: scores fall with the distance of query and key, at a rate of each head's own.
///
///     s_ij - m_h |i - j|          i, j positions as masks count them; with `limit`, min(|i - j|, limit) in place of the distance
///
/// Both ways, as MosaicBERT takes it; under a causal mask it is the paper's m_h (j - i). `limit` is what LM-Infinite takes.
/// Option  attention(policy, q, k, v, out, alibi{slopes}, causal{}), slopes (heads).
/// Source  Press et al. 2021 (arXiv:2108.12409); slopes of heads that are no power of two as in the authors' code.

#include <tern/attention/score.hpp>
#include <tern/core/tensor_view.hpp>

namespace tern {
inline namespace TERN_ABI {

/// s - slope_h min(|i - j|, limit)
struct alibi {
  tensor_view<float const, 1> slopes;  ///< (heads)
  float limit;                         ///< of the distance
  template <tensor_like X>
  TERN_INLINE constexpr explicit alibi(X&& x, float most = __builtin_inff()) : slopes(tern::view(x)), limit(most) {}
  TERN_INLINE floats operator()(floats s, score_at const& at) const {
    return simd::fnma(floats(slopes[at.head]), simd::min(simd::abs(at.distance()), floats(limit)), s);
  }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_equal("attention", "the extent of alibi's slopes", slopes.extent(0), "the heads of q", n.heads);
  }
};

/// The paper's slope of head `head` of `heads`: 2^(-8 (head + 1) / heads) for a power of two; otherwise those of the power of two
/// below, and then every second one of twice that power.
TERN_INLINE float alibi_slope(index heads, index head) {
  index power = 1;
  while (2 * power <= heads) power *= 2;
  double const exponent = head < power ? 8.0 * static_cast<double>(head + 1) / static_cast<double>(power)
                                       : 4.0 * static_cast<double>(2 * (head - power) + 1) / static_cast<double>(power);
  return static_cast<float>(__builtin_exp2(-exponent));
}

}  // namespace TERN_ABI
}  // namespace tern

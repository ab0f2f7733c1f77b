// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/cosine.hpp
/// Scaled cosine attention: the angle between query and key counts, not their lengths.
///
///     s_ij = scale q_i . k_j / (max(|q_i|, 10^-12) max(|k_j|, 10^-12) tau_h)
///
/// Option  attention(policy, q, k, v, out, cosine{temperature}, scale{1}), temperature (heads). Without scale{1} the score is divided by
///         sqrt(dim) besides, which the paper does not do.
/// Cost    2 dim flop for each row of q, and for each of k once for every work item that sees it.
/// Source  Liu et al. 2021, Swin Transformer V2 (arXiv:2111.09883), which keeps tau_h above 0.01.

#include <tern/attention/options.hpp>
#include <tern/attention/rows.hpp>
#include <tern/pointwise/rows.hpp>
#include <tern/simd/reduce.hpp>

namespace tern {
inline namespace TERN_ABI {

/// Rows of q and k of length 1, those of q divided by a temperature of their head.
struct cosine {
  tensor_view<float const, 1> temperature;  ///< (heads)
  template <tensor_like X>
  TERN_INLINE constexpr explicit cosine(X&& x) : temperature(tern::view(x)) {}
  TERN_INLINE void query(float* row, index dim, row_at const& at) const { shorten(row, dim, temperature[at.head]); }
  TERN_INLINE void key(float* row, index dim, row_at const&) const { shorten(row, dim, 1.f); }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_equal("attention", "the temperatures of cosine", temperature.extent(0), "the heads of q", n.heads);
  }

 private:
  TERN_INLINE static void shorten(float* row, index dim, float divisor) {
    float const length = __builtin_sqrtf(detail::sum_squares(row, dim));
    detail::widen_row(row, dim, 1 / ((length < 1e-12f ? 1e-12f : length) * divisor), row);
  }
};

}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/relative_scores.hpp
/// Content-dependent relative terms: a number for each query and distance, q_i . r_{i-j} for one, is added to the score.
///
///     s_ij + factor scores(h, i, zero + j - i)          i, j positions as masks count them; i = the query's token in `scores`
///
/// Reading at the distance is what rel_shift does to the matrix in memory. Distances beyond the table take its first or last column.
///
/// Option  attention(policy, q, k, v, out, relative_scores{scores, factor}), scores (heads, tokens, distances), f32. `zero` is the column
///         of distance 0, the last one when nothing else is said (keys before the query only, as Transformer-XL has it); the middle one
///         for both directions.

#include <tern/attention/score.hpp>
#include <tern/core/tensor_view.hpp>
#include <tern/simd/gather.hpp>

namespace tern {
inline namespace TERN_ABI {

/// s + factor scores(head, query, zero + j - i)
struct relative_scores {
  tensor_view<float const, 3> scores;  ///< (heads, tokens, distances)
  float factor;
  index zero;

  template <tensor_like X>
  TERN_INLINE constexpr relative_scores(X&& x, float times) : scores(tern::view(x)), factor(times), zero(scores.extent(2) - 1) {}
  template <tensor_like X>
  TERN_INLINE constexpr relative_scores(X&& x, float times, index column_of_zero)
      : scores(tern::view(x)), factor(times), zero(column_of_zero) {}
  TERN_INLINE floats operator()(floats s, score_at const& at) const {
    ints const last(static_cast<std::int32_t>(scores.extent(2) - 1));
    ints const column = at.key_position() - ints(at.position) + ints(static_cast<std::int32_t>(zero));
    float const* const row = scores.data() + at.head * scores.stride(0) + at.query * scores.stride(1);  // (distances)
    return simd::fma(floats(factor), simd::gather(row, simd::min(simd::max(column, ints(0)), last)), s);
  }
  TERN_INLINE void check(attention_shape const& n) const {
    index const columns = scores.extent(2);
    detail::expect_equal("attention", "the batch of q", n.batch, "that of relative_scores", 1);
    detail::expect_equal("attention", "the heads of relative_scores", scores.extent(0), "the heads of q", n.heads);
    detail::expect_equal("attention", "the tokens of relative_scores", scores.extent(1), "the tokens of q", n.tokens);
    detail::expect(columns >= 1, "attention", "the distances of relative_scores", columns, "at least 1");
    detail::expect(zero >= 0 && zero < columns, "attention", "the column of distance 0 of relative_scores", zero, "one of its distances");
    detail::expect(columns == 1 || scores.stride(2) == 1, "attention", "the last stride of relative_scores", scores.stride(2),
                   "1 (contiguous rows)");
  }
};

}  // namespace TERN_ABI
}  // namespace tern

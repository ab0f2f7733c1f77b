// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/additive_mask.hpp
/// Numbers in memory that are added to scores.
///
///     additive_mask(m)    s_ij + m_ij     m f32, (tokens, keys), (heads, tokens, keys) or (batch, heads, tokens, keys), any strides;
///                                         a stride of 0 repeats: (keys) for all queries is one of (tokens, keys) with strides 0, 1
///
/// A score modifier: added after the scale, in the order in which modifiers are written, and read by token and key index whatever the
/// layout.
/// -inf      makes the weight zero under softmax; the key's score and value still have to be numbers, and its tile is computed. What
///           is hidden altogether, and for other normalizers, is a matter for dense_mask.hpp. A query whose scores are all -inf gives
///           zeros and a log-sum-exp of -inf.
/// Errors    extents that differ from q's and k's.
/// Cost      reads 4 bytes a score, at once where keys are contiguous.

#include <tern/attention/score.hpp>
#include <tern/core/tensor_view.hpp>

namespace tern {
inline namespace TERN_ABI {

/// s + m, from memory.
template <int Rank>
struct additive_mask {
  static_assert(Rank >= 2 && Rank <= 4, "tern: additive_mask takes (tokens, keys), (heads, tokens, keys) or (batch, heads, tokens, keys)");
  tensor_view<float const, Rank> values;

  template <tensor_like X>
  TERN_INLINE constexpr explicit additive_mask(X&& x) : values(tern::view(x)) {}

  TERN_INLINE floats operator()(floats s, score_at const& at) const {
    constexpr index W = simd::lanes;
    float const* row = values.data() + at.query * values.stride(Rank - 2);
    if constexpr (Rank >= 3) row += at.head * values.stride(Rank - 3);
    if constexpr (Rank == 4) row += at.batch * values.stride(0);
    index const stride = values.stride(Rank - 1);
    std::int32_t const* const key = at.key_index;
    bool run = stride == 1;
    for (index i = 0; i < W; ++i) run &= key[i] == key[0] + static_cast<std::int32_t>(i);
    if (run) return s + simd::load(row + key[0]);
    float lane[W];
    for (index i = 0; i < W; ++i) lane[i] = row[key[i] * stride];
    return s + simd::load(lane);
  }
  TERN_INLINE void check(attention_shape const& n) const {
    index const extents[] = {n.batch, n.heads, n.tokens, n.keys};
    for (int d = 0; d < Rank; ++d)
      detail::expect_equal("attention", "an extent of additive_mask", values.extent(d), "that of the scores", extents[4 - Rank + d]);
  }
};
template <tensor_like X>
additive_mask(X&&) -> additive_mask<view_of<X>::rank>;

}  // namespace TERN_ABI
}  // namespace tern

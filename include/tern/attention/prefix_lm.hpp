// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/prefix_lm.hpp
/// A prefix that all queries see, and causal attention behind it.
///
///     prefix_lm{prefix}                j < prefix or j <= i + offset
///     prefix_lm_by_batch{prefixes}     the same with a prefix for each batch: int32 (batch)
///
/// Alignment as in mask.hpp: bottom-right unless an offset is stated.
/// Limits    prefix = 0 is causal; prefix >= keys is no mask.
/// Errors    a negative prefix; prefixes whose extent is not the batch.
/// Source    Raffel et al. 2020, T5 (arXiv:1910.10683), figure 4; Dong et al. 2019, UniLM (arXiv:1905.03197).

#include <tern/attention/mask.hpp>
#include <tern/attention/score.hpp>
#include <tern/core/tensor_view.hpp>

namespace tern {
namespace detail {

/// Query i sees keys [0, max(prefix, i + high)).
struct bound_prefix {
  index prefix, high, keys;
  TERN_INLINE constexpr key_range row(index i) const {
    index const end = i + high > prefix ? i + high : prefix;
    return {0, end < keys ? end : keys};
  }
  TERN_INLINE constexpr key_range range(index, index i1) const { return row(i1 - 1); }
  TERN_INLINE constexpr coverage covers(index i0, index i1, index j0, index j1) const {
    if (j0 >= row(i1 - 1).end) return coverage::none;
    return j1 <= row(i0).end ? coverage::all : coverage::some;
  }
  TERN_INLINE constexpr bool visible(index i, index j) const { return j < row(i).end; }
};

}  // namespace detail

/// Keys below `prefix`, and those up to the query's own.
struct prefix_lm {
  index prefix;
  index offset = bottom_right;
  TERN_INLINE constexpr detail::bound_prefix aligned(index keys, index at) const { return {prefix, at + 1, keys}; }
  TERN_INLINE void check(attention_shape const&) const {
    detail::expect(prefix >= 0, "attention", "the prefix of prefix_lm", prefix, "at least 0");
  }
};

/// A prefix for each batch.
struct prefix_lm_by_batch {
  tensor_view<std::int32_t const, 1> prefixes;
  index offset;
  template <tensor_like X>
  TERN_INLINE constexpr explicit prefix_lm_by_batch(X&& x, index at = bottom_right) : prefixes(tern::view(x)), offset(at) {}
  TERN_INLINE constexpr prefix_lm at(index batch) const { return {prefixes[batch], offset}; }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_equal("attention", "the extent of prefixes", prefixes.extent(0), "the batch of q", n.batch);
    for (index b = 0; b < n.batch; ++b) detail::expect(prefixes[b] >= 0, "attention", "a prefix", prefixes[b], "at least 0");
  }
};

}  // namespace tern

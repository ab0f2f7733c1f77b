// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/budget_longformer.hpp
/// BudgetLongformer's attention, which is Longformer's: tokens see a window around them and the global tokens; global tokens see
/// everything, through projections of their own.
///
///     |i - j| <= reach or j global                                    with q, k, v
///     all j, for global i                                             with q', k', v'
///
///     tern::attention(policy, q, k, v, out, tern::longformer_local(reach, is_global));
///     tern::attention(policy, global_q, global_k, global_v, out, tern::query_list(globals));     // writes over the rows of global tokens
///
/// Shapes    is_global bool or uint8 (keys), globals int32 (count), ascending: the same tokens.
/// Limits    reach >= tokens is dense; no global token is window{reach + 1, reach}.
/// Cost      tokens (2 reach + 1) pairs, the tiles that hold a global key, and globals * tokens.
/// Source    Beltagy et al. 2020 (arXiv:2004.05150), section 3.1, and the model of Niklaus and Giofre 2022 (arXiv:2211.17135).

#include <tern/attention/dense_mask.hpp>
#include <tern/attention/query_list.hpp>

namespace tern {
namespace detail {

/// What a band shows, and the global keys.
struct bound_longformer {
  band near;
  byte_mask global;  // one row for all queries
  TERN_INLINE key_range range(index, index) const { return {0, near.keys}; }
  TERN_INLINE coverage covers(index i0, index i1, index j0, index j1) const {
    coverage const a = near.covers(i0, i1, j0, j1);
    if (a == coverage::all) return a;
    coverage const b = global.covers(0, 1, j0, j1);
    return b == coverage::none ? a : b;
  }
  TERN_INLINE bool visible(index i, index j) const { return j < near.keys && (near.visible(i, j) || global.visible(0, j)); }
};

}  // namespace detail

/// Keys within reach, and global ones.
struct longformer_local {
  index reach;
  dense_mask<2> global;
  index offset;
  template <tensor_like X>
  TERN_INLINE longformer_local(index n, X&& is_global, index at = bottom_right)
      : reach(n), global(tern::view(is_global).expanded()), offset(at) {}
  TERN_INLINE detail::bound_longformer aligned(index keys, index at) const {
    return {detail::bind_mask(window{reach + 1, reach}, keys, at), global.at(0)};
  }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect(reach >= 0, "attention", "the reach of longformer_local", reach, "at least 0");
    detail::expect_equal("attention", "the extent of is_global", global.view.extent(1), "the keys of k", n.keys);
  }
};

}  // namespace tern

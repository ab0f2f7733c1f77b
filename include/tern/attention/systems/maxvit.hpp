// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/maxvit.hpp
/// Multi-axis attention: within blocks of an image, then within dilated grids over all of it.
///
///     out_i = sum_j softmax_j(q_i . k_j / sqrt(dim) + b(head, y_i - y_j, x_i - x_j)) v_j
///
/// over the keys j of i's block of size x size tokens (multi_axis::block), or over those of its grid of size x size tokens, which lie
/// ceil(extent / size) apart (multi_axis::grid; the offsets then count in these steps).
///
///     maxvit(policy, q, k, v, out, shape{height, width}, shape{7, 7}, multi_axis::block, bias)
///     maxvit(policy, q, k, v, out, shape{height, width}, shape{7, 7}, multi_axis::grid, bias)
///
/// Shapes  as in attention, tokens of the image row-major; bias (heads, (2 size_0 - 1) (2 size_1 - 1)), f32: relative_table.hpp. Between
/// the two
///         calls a model has its projections, norms and feed-forward layer. Where the size does not divide the image, which the
///         paper asks for, blocks at the far ends and some grids have fewer tokens.
/// Cost    2 heads tokens size_0 size_1 dim multiply-adds for each of the two: linear in tokens.
/// Source  Tu et al. 2022, arXiv:2204.01697 (sections 3.1, 3.2).

#include <tern/attention/attention.hpp>
#include <tern/attention/grid.hpp>
#include <tern/attention/relative_table.hpp>
#include <tern/attention/window_partition.hpp>

namespace tern {
inline namespace TERN_ABI {

/// The two halves of multi-axis attention.
enum class multi_axis { block, grid };

/// A layout: windows or grids, as a value says.
struct multi_axis_layout {
  static constexpr bool per_head = false;
  window_partition<2> blocks;
  grid<2> grids;
  multi_axis which;
  TERN_INLINE index groups(index b, index h) const { return which == multi_axis::block ? blocks.groups(b, h) : grids.groups(b, h); }
  TERN_INLINE detail::box_group<2> group(index b, index h, index g) const {
    return which == multi_axis::block ? blocks.group(b, h, g) : grids.group(b, h, g);
  }
  TERN_INLINE void check(attention_shape const& n) const {
    blocks.check(n);
    grids.check(n);
  }
};

/// maxvit(policy, q, k, v, out, image, size, which, bias, options...): see the top of this file.
inline constexpr struct maxvit_fn {
  template <tensor_like Q, detail::key_source K, detail::key_source V, tensor_like O, tensor_like B, detail::attention_option... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, shape<2> const& image, shape<2> const& size, multi_axis which,
                  B&& bias, Options const&... options) const {
    detail::expect_at_least("a size of maxvit", size, 1);
    multi_axis_layout const layout{{image, size}, {image, size}, which};
    auto const step = which == multi_axis::block ? detail::same_extents<2>(1) : layout.grids.steps();
    attention(policy, q, k, v, out, layout, relative_table<2>(bias, image, size, step), options...);
  }
} maxvit{};

}  // namespace TERN_ABI
}  // namespace tern

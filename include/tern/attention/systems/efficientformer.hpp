// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/efficientformer.hpp
/// Attention over all tokens of a small image with a learned bias for each distance along both axes.
///
///     out_i = sum_j softmax_j(q_i . k_j / sqrt(dim) + b(head, |y_i - y_j|, |x_i - x_j|)) v_j
///
///     efficientformer(policy, q, k, v, out, shape{height, width}, bias, table)
///
/// Shapes  as in attention, tokens of the image row-major; bias (heads, height * width): entry |dy| * width + |dx|, which is the order in
///         which the authors' code numbers the distances. table (heads, (2 height - 1) (2 width - 1)), f32, is memory.
/// Notes   the mixer of the early stages is a pooling, AvgPool3x3(x) - x, and no attention.
/// Source  Li et al. 2022, arXiv:2206.01191; github.com/snap-research/EfficientFormer, models/efficientformer.py.

#include <tern/attention/attention.hpp>
#include <tern/attention/relative_table.hpp>

namespace tern {
inline namespace TERN_ABI {

/// efficientformer(policy, q, k, v, out, image, bias, table, options...): see the top of this file.
inline constexpr struct efficientformer_fn {
  template <tensor_like Q, detail::key_source K, detail::key_source V, tensor_like O, tensor_like B, tensor_like T,
            detail::attention_option... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, shape<2> const& image, B&& bias, T&& table,
                  Options const&... options) const {
    mirror_table(bias, image, table);
    attention(policy, q, k, v, out, relative_table<2>(table, image, image), options...);
  }
} efficientformer{};

}  // namespace TERN_ABI
}  // namespace tern

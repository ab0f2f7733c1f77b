// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/efficientvit.hpp
/// Cascaded group attention: each head gets channels of its own, and what the head before has found in its own.
///
///     x_0' = x_0,  x_h' = x_h + o_{h-1};   [q_h k_h v_h] = W_h x_h' + b_h;   q_h = DW_h(q_h)
///     o_h = softmax(q_h k_h^T / sqrt(dim) + B_h) v_h;   out = [o_0 o_1 ...]
///
///     efficientvit(policy, x, weights, biases, shape{height, width}, table, depthwise, out, memory)
///
/// x_h are the channels [h d, (h + 1) d) of x. `depthwise(head, q)` is the caller's function that convolves the queries of a head,
/// (tokens, dim), in place: tern has no convolution yet. B_h(i, j) is a relative_table; the model learns one entry for each
/// |dy|, |dx|, which mirror_table unfolds once.
///
/// Shapes  x, out (tokens, heads d); weights (heads, 2 dim + d, d), biases (heads, 2 dim + d), table (heads, (2 height - 1)
///         (2 width - 1)); all f32. memory: see efficientvit_memory. Batch norms are folded into weights and biases; the ReLU and
///         the projection that follow are the caller's.
/// Cost    of each head alone, one after the other: heads tokens (d (2 dim + d) + tokens (dim + d)) multiply-adds.
/// Source  Liu et al. 2023, arXiv:2305.07027; github.com/microsoft/Cream, EfficientViT/classification/model/efficientvit.py. Not MIT's
///         EfficientViT, which is linear attention.

#include <tern/attention/attention.hpp>
#include <tern/attention/relative_table.hpp>
#include <tern/matmul/matmul.hpp>
#include <tern/pointwise/add.hpp>

namespace tern {
inline namespace TERN_ABI {

/// What efficientvit writes on its way.
struct efficientvit_memory {
  tensor_view<float, 2> input;  ///< (tokens, d)
  tensor_view<float, 2> qkv;    ///< (tokens, 2 dim + d)
};

/// efficientvit(policy, x, weights, biases, image, table, depthwise, out, memory): see the top of this file.
inline constexpr struct efficientvit_fn {
  template <class Depthwise>
  void operator()(cpu_policy const& policy, tensor_view<float const, 2> const& x, tensor_view<float const, 3> const& weights,
                  tensor_view<float const, 2> const& biases, shape<2> const& image, tensor_view<float const, 2> const& table,
                  Depthwise const& depthwise, tensor_view<float, 2> const& out, efficientvit_memory const& memory) const {
    index const heads = weights.extent(0), all = weights.extent(1), d = weights.extent(2), dim = (all - d) / 2, tokens = x.extent(0);
    detail::expect_equal("efficientvit", "x.extent(1)", x.extent(1), "heads times channels of a head", heads * d);
    detail::expect(all >= d && (all - d) % 2 == 0, "efficientvit", "weights.extent(1)", all, "2 dim + d");
    detail::expect_equal("efficientvit", "out.extent(1)", out.extent(1), "x.extent(1)", x.extent(1));
    detail::expect_equal("efficientvit", "biases.extent(0)", biases.extent(0), "weights.extent(0)", heads);
    detail::expect_equal("efficientvit", "table.extent(0)", table.extent(0), "weights.extent(0)", heads);
    for (index h = 0; h < heads; ++h) {
      auto input = x.slice(1, h * d, (h + 1) * d);
      if (h > 0) {
        add(policy, input, out.slice(1, (h - 1) * d, h * d), memory.input);
        input = memory.input;
      }
      matmul(policy, input, weights[h], memory.qkv);
      tensor_view<float const, 2> const bias(biases[h].data(), shape<2>{{tokens, all}}, shape<2>{{0, biases.stride(1)}});
      add(policy, memory.qkv, bias, memory.qkv);
      auto const q = memory.qkv.slice(1, 0, dim);
      depthwise(h, q);
      attention(policy, q, memory.qkv.slice(1, dim, 2 * dim), memory.qkv.slice(1, 2 * dim, all), out.slice(1, h * d, (h + 1) * d),
                relative_table<2>(table.slice(0, h, h + 1), image, image));
    }
  }
} efficientvit{};

}  // namespace TERN_ABI
}  // namespace tern

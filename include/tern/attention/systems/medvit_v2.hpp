// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/medvit_v2.hpp
/// Dilated neighborhood attention (DiNA), the attention of MedViTV2: each token of an image sees kernel x kernel neighbors that lie
/// `dilation` apart.
///
///     out_i = sum_j softmax_j(q_i . k_j / sqrt(dim) + b(head, y_i - y_j, x_i - x_j)) v_j,   over i's neighborhood (neighborhood.hpp)
///
///     medvit_v2(policy, q, k, v, out, shape{height, width}, kernel, dilation)
///     medvit_v2(policy, q, k, v, out, shape{height, width}, kernel, dilation, bias)
///
/// Shapes  as in attention, tokens of the image row-major; bias (heads, (2 kernel - 1)^2), f32, offsets counted in dilations, query
///         minus key as in relative_table.hpp: NATTEN's table, which counts key minus query, with both axes reversed.
/// Notes   the model's Kolmogorov-Arnold layers are no attention: pointwise/kan_features.hpp, and a product.
/// Source  Manzari et al. 2025, arXiv:2502.13693; DiNA: Hassani and Shi 2022, arXiv:2209.15001.

#include <tern/attention/attention.hpp>
#include <tern/attention/neighborhood.hpp>
#include <tern/attention/relative_table.hpp>

namespace tern {
inline namespace TERN_ABI {

/// medvit_v2(policy, q, k, v, out, image, kernel, dilation[, bias], options...): see the top of this file.
inline constexpr struct medvit_v2_fn {
  template <tensor_like Q, detail::key_source K, detail::key_source V, tensor_like O, detail::attention_option... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, shape<2> const& image, index kernel, index dilation,
                  Options const&... options) const {
    attention(policy, q, k, v, out, around(image, kernel, dilation), options...);
  }
  template <tensor_like Q, detail::key_source K, detail::key_source V, tensor_like O, tensor_like B, detail::attention_option... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, shape<2> const& image, index kernel, index dilation, B&& bias,
                  Options const&... options) const {
    auto const layout = around(image, kernel, dilation);
    attention(policy, q, k, v, out, layout, relative_table<2>(bias, image, layout.kernel, layout.dilation), options...);
  }

 private:
  TERN_INLINE static neighborhood<2> around(shape<2> const& image, index kernel, index dilation) {
    return {image, detail::same_extents<2>(kernel), detail::same_extents<2>(dilation)};
  }
} medvit_v2{};

}  // namespace TERN_ABI
}  // namespace tern

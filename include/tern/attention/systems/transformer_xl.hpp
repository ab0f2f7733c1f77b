// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/transformer_xl.hpp
/// Transformer-XL's attention with relative scores.
///
///     s_ij = ((q_i + u_h) . k_j + (q_i + w_h) . r_{i-j}) / sqrt(dim),   out = softmax(s) v
///
///     transformer_xl(policy, q, k, v, r, u, w, out, options...)
///
/// The second term is one product with all distances, (q + w) R^T, that the modifier reads where rel_shift would move it to.
/// Shapes  q (heads, tokens, dim) f32, k (k_heads, keys, dim), v (v_heads, keys, dim_v), r (heads, distances, dim) f32: the projected
///         encodings R W_r of distances - 1, ..., 1, 0, in this order, as the authors' code has them; u, w (heads, dim) f32.
///         Farther keys take the first row. Queries are aligned bottom-right; `options` are attention's, causal{} for a language model.
/// Memory  from the policy: tokens (dim + heads distances) floats, and what the two products take.
/// Cost    2 heads tokens distances dim flop besides attention's.
/// Source  Dai et al. 2019 (arXiv:1901.02860).

#include <tern/attention/attention.hpp>
#include <tern/attention/query_bias.hpp>
#include <tern/attention/relative_scores.hpp>
#include <tern/matmul/matmul.hpp>
#include <tern/pointwise/add.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr struct transformer_xl_fn {
  template <tensor_like Q, tensor_like K, tensor_like V, tensor_like R, tensor_like U, tensor_like W, tensor_like O, class... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, R&& r, U&& u, W&& w, O&& out, Options const&... options) const {
    static_assert(!(detail::is_scale<Options> || ...), "tern: the relative terms have the scale 1 / sqrt(dim)");
    tensor_view<float const, 3> const qs = tern::view(q), rs = tern::view(r);
    tensor_view<float const, 2> const ws = tern::view(w);
    index const heads = qs.extent(0), tokens = qs.extent(1), dim = qs.extent(2), distances = rs.extent(1);
    detail::expect_equal("transformer_xl", "r.extent(0)", rs.extent(0), "q.extent(0)", heads);
    detail::expect_equal("transformer_xl", "r.extent(2)", rs.extent(2), "q.extent(2)", dim);
    detail::expect_equal("transformer_xl", "w.extent(0)", ws.extent(0), "q.extent(0)", heads);
    detail::expect_equal("transformer_xl", "w.extent(1)", ws.extent(1), "q.extent(2)", dim);
    workspace::lease const scratch(policy.scratch(), sizeof(float) * static_cast<std::size_t>(tokens * (dim + heads * distances)));
    tensor_view<float, 2> const moved(reinterpret_cast<float*>(scratch.data()), shape<2>{{tokens, dim}});
    tensor_view<float, 3> const scores(moved.data() + moved.size(), shape<3>{{heads, tokens, distances}});
    for (index h = 0; h < heads; ++h) {
      add(policy, qs[h], tensor_view<float const, 2>(ws[h].data(), shape<2>{{tokens, dim}}, shape<2>{{0, ws.stride(1)}}), moved);
      matmul(policy, moved, rs[h], scores[h]);
    }
    attention(policy, qs, k, v, out, query_bias{u}, relative_scores{scores, 1 / __builtin_sqrtf(static_cast<float>(dim > 0 ? dim : 1))},
              options...);
  }
} transformer_xl{};

}  // namespace TERN_ABI
}  // namespace tern

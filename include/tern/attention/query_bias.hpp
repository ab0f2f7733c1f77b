// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/query_bias.hpp
/// A learned vector for each head is added to every query: s_ij = scale (q_i + u_h) . k_j.
///
/// Option  attention(policy, q, k, v, out, query_bias{u}), u (heads, dim), f32.
/// Source  the content bias of Transformer-XL, Dai et al. 2019 (arXiv:1901.02860).

#include <tern/attention/options.hpp>
#include <tern/pointwise/rows.hpp>

namespace tern {
inline namespace TERN_ABI {

/// q + u_h in place of q.
struct query_bias {
  tensor_view<float const, 2> bias;  ///< (heads, dim)
  template <tensor_like X>
  TERN_INLINE constexpr explicit query_bias(X&& x) : bias(tern::view(x)) {}
  TERN_INLINE void query(float* row, index dim, row_at const& at) const {
    float const* const u = bias.data() + at.head * bias.stride(0);  // (dim)
    detail::each_pack(0, dim, [&](index i, auto part) TERN_LAMBDA {
      detail::store(row + i, detail::load(row + i, part) + detail::load(u + i, part), part);
    });
  }
  TERN_INLINE void key(float*, index, row_at const&) const {}
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_equal("attention", "the heads of query_bias", bias.extent(0), "the heads of q", n.heads);
    detail::expect_equal("attention", "the dim of query_bias", bias.extent(1), "the dim of q", n.dim);
    detail::expect(n.dim <= 1 || bias.stride(1) == 1, "attention", "the last stride of query_bias", bias.stride(1), "1 (contiguous rows)");
  }
};

}  // namespace TERN_ABI
}  // namespace tern

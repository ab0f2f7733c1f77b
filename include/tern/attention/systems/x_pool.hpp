// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/x_pool.hpp
/// The frames of every video pooled as every text asks for them: attention of all texts over all videos.
///
///     out[v, t] = sum_f softmax_f(q_t . k_vf / sqrt(dim)) v_vf
///
///     x_pool(policy, q, k, v, out)
///
/// Shapes  q (texts, dim), k (videos, frames, dim), v (videos, frames, dim_v), out (videos, texts, dim_v). Videos stand as heads that
///         share their queries. Projections, norms and the cosine of t and out[v, t] that ranks videos are the caller's.
/// Source  Gorti et al. 2022, arXiv:2203.15086 (section 3.3).

#include <tern/attention/attention.hpp>

namespace tern {
inline namespace TERN_ABI {

/// x_pool(policy, q, k, v, out, options...): see the top of this file.
inline constexpr struct x_pool_fn {
  template <tensor_like Q, tensor_like K, tensor_like V, tensor_like O, detail::attention_option... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, Options const&... options) const {
    static_assert(view_of<Q>::rank == 2 && view_of<K>::rank == 3, "tern: x_pool takes texts (texts, dim) and videos (videos, frames, dim)");
    auto const texts = tern::view(q);
    using element = typename view_of<Q>::value_type;
    tensor_view<element const, 3> const shared(texts.data(), shape<3>{{tern::view(k).extent(0), texts.extent(0), texts.extent(1)}},
                                               shape<3>{{0, texts.stride(0), texts.stride(1)}});
    attention(policy, shared, k, v, out, options...);
  }
} x_pool{};

}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/systems/lemo.hpp
/// LeMo: layers compute with the informative tokens only, where they lie, and nothing is gathered or put in another order.
///
///     lemo_matmul(policy, x, kept, w, y, options...)             y(i) = x(i) w^T for the kept tokens i; other rows of y stay as they are
///     lemo_attention(policy, q, k, v, out, kept, options...)     kept tokens attend to kept tokens; other rows of out are not written
///
/// Shapes    x (tokens, k), y (tokens, n); q, k, v, out as in attention, one text; kept int32 (count), ascending. Options are those of
///           matmul (residual and bias rows go by the kept tokens) and of attention; masks and positions count among the kept tokens.
/// All kept  gives attention's and matmul's results.
/// Composition  matmul with gather and scatter; attention with a layout of one group. Which tokens are kept, a select_tokens says.
/// Cost      that of as many tokens as are kept.
/// Source    LeMo, 2025, arXiv:2501.09767, from its description: its kernels are for GPUs.

#include <tern/attention/attention.hpp>
#include <tern/attention/index_lists.hpp>
#include <tern/attention/point_groups.hpp>
#include <tern/matmul/matmul.hpp>

namespace tern {
inline namespace TERN_ABI {

/// A layout: listed tokens, among themselves.
struct kept_group {
  static constexpr bool per_head = false;
  tensor_view<std::int32_t const, 1> kept;
  template <tensor_like X>
  TERN_INLINE constexpr explicit kept_group(X&& x) : kept(tern::view(x)) {}
  TERN_INLINE index groups(index, index) const { return 1; }
  TERN_INLINE detail::listed_group group(index, index, index) const { return {kept.extent(0), kept.extent(0), kept.data(), kept.data()}; }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect(kept.extent(0) <= 1 || kept.stride(0) == 1, "attention", "kept.stride(0)", kept.stride(0), "1");
    detail::expect_ascending("attention", "a kept token", kept.data(), kept.extent(0), n.tokens < n.keys ? n.tokens : n.keys);
  }
};

/// lemo_matmul(policy, x, kept, w, y, options...): see the top of this file.
inline constexpr struct lemo_matmul_fn {
  template <tensor_like X, tensor_like I, class W, tensor_like Y, detail::matmul_option... Options>
  void operator()(cpu_policy const& policy, X&& x, I&& kept, W&& w, Y&& y, Options const&... options) const {
    matmul(policy, x, w, y, gather{kept}, scatter{kept}, options...);
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like X, tensor_like I, class W, tensor_like Y, detail::matmul_option... Options>
  std::size_t workspace_size(cpu_policy const& policy, X&& x, I&& kept, W&& w, Y&& y, Options const&... options) const {
    return matmul.workspace_size(policy, x, w, y, gather{kept}, scatter{kept}, options...);
  }
} lemo_matmul{};

/// lemo_attention(policy, q, k, v, out, kept, options...): see the top of this file.
inline constexpr struct lemo_attention_fn {
  template <tensor_like Q, detail::key_source K, detail::key_source V, tensor_like O, tensor_like I, detail::attention_option... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, I&& kept, Options const&... options) const {
    attention(policy, q, k, v, out, kept_group{kept}, options...);
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  template <tensor_like Q, detail::key_source K, detail::key_source V, tensor_like O, tensor_like I, detail::attention_option... Options>
  std::size_t workspace_size(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, I&& kept, Options const&... options) const {
    return attention.workspace_size(policy, q, k, v, out, kept_group{kept}, options...);
  }
} lemo_attention{};

}  // namespace TERN_ABI
}  // namespace tern

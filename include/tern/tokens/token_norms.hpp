// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/token_norms.hpp
/// Scores that tokens have by themselves: how long their features are.
///
///     token_norms(policy, x, scores)         scores(b, i) = |x_bi|
///
/// Shapes    x (samples, tokens, channels) f32, f16 or bf16, rows contiguous; scores (samples, tokens) f32.
/// For what a KV cache holds: key_norms and value_norms (cache/token_norms.hpp).
/// A learned score is a product: matmul(policy, x, w, scores) with w (1, channels), the tokens of all samples as rows.
/// Error     token_norms.error(channels), relative, while squares are in the range of f32.

#include <tern/pointwise/rows.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

template <class T>
TERN_INLINE float row_norm(T const* x, index n) {
  return __builtin_sqrtf(sum_squares(x, n));
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// token_norms(policy, x, scores): see the top of this file.
inline constexpr struct token_norms_fn {
  template <tensor_like X>
  void operator()(cpu_policy const& policy, X&& x, tensor_view<float, 2> const& scores) const {
    static_assert(view_of<X>::rank == 3, "tern: token_norms takes x (samples, tokens, channels)");
    auto const v = tern::view(x);
    constexpr char const* op = "token_norms";
    detail::expect_rows(op, "x", v);
    detail::expect_extent(op, "scores", scores, 0, "x", v, 0);
    detail::expect_extent(op, "scores", scores, 1, "x", v, 1);
    index const tokens = v.extent(1), channels = v.extent(2);
    detail::for_rows(policy, v.extent(0) * tokens, channels, [&](index r) TERN_LAMBDA {
      auto const* const row = v.data() + r / tokens * v.stride(0) + r % tokens * v.stride(1);
      scores(r / tokens, r % tokens) = detail::row_norm(row, channels);
    });
  }

  /// The largest relative error: half that of the sum of squares, and two roundings.
  static constexpr double error(index channels) { return detail::sum_error(channels) / 2 + 2 * 0x1p-24; }
} token_norms{};

}  // namespace TERN_ABI
}  // namespace tern

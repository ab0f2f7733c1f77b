// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/shvit.hpp
/// Single-head self-attention on some of the channels, with keys narrower than values.
///
///     [q k v] = W x + b,   out = softmax(q k^T / sqrt(dim)) v
///
///     shvit(policy, x, weights, bias, qkv, out)
///
/// Shapes  x (tokens, c): the first c channels of a map after their group norm, as a view; out (tokens, c), where the following
///         projection reads it, beside the other channels. weights (2 dim + c, c), bias (2 dim + c), qkv (tokens, 2 dim + c): memory. The
///         model has dim = 16 and c of about C / 4.67. f32. Group norm, ReLU and projection are the caller's.
/// Source  Yun and Ro 2024, arXiv:2401.16456; github.com/ysj9909/SHViT, model/shvit.py.

#include <tern/attention/attention.hpp>
#include <tern/matmul/matmul.hpp>
#include <tern/pointwise/add.hpp>

namespace tern {
inline namespace TERN_ABI {

/// shvit(policy, x, weights, bias, qkv, out, options...): see the top of this file.
inline constexpr struct shvit_fn {
  template <detail::attention_option... Options>
  void operator()(cpu_policy const& policy, tensor_view<float const, 2> const& x, tensor_view<float const, 2> const& weights,
                  tensor_view<float const, 1> const& bias, tensor_view<float, 2> const& qkv, tensor_view<float, 2> const& out,
                  Options const&... options) const {
    index const all = weights.extent(0), c = weights.extent(1), dim = (all - c) / 2;
    detail::expect(all >= c && (all - c) % 2 == 0, "shvit", "weights.extent(0)", all, "2 dim + c");
    detail::expect_equal("shvit", "bias.extent(0)", bias.extent(0), "weights.extent(0)", all);
    matmul(policy, x, weights, qkv);
    add(policy, qkv, tensor_view<float const, 2>(bias.data(), shape<2>{{x.extent(0), all}}, shape<2>{{0, bias.stride(0)}}), qkv);
    attention(policy, qkv.slice(1, 0, dim), qkv.slice(1, dim, 2 * dim), qkv.slice(1, 2 * dim, all), out, options...);
  }
} shvit{};

}  // namespace TERN_ABI
}  // namespace tern

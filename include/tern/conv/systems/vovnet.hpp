// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/systems/vovnet.hpp
/// VoVNet's one-shot aggregation: a 1 x 1 convolution of several feature maps side by side, which are not copied side by side.
///
///     y = f([x_0, x_1, ..., x_k] w^T) = f(sum over i of x_i w_i^T),    w = [w_0, w_1, ..., w_k] by columns
///
///     vovnet(policy, {x0, x1, x2}, w, y, bias{b}, act::relu{})      options: bias, residual, functions; on the sum
///
/// Shapes  x_i (pixels, c_i), w (n, c_0 + ... + c_k), y (pixels, n): f32, as matmul takes them.
/// Source  Lee et al. 2019, arXiv:1904.09730 (OSA; batch norm folded into w and b).

#include <tern/conv/register_function.hpp>
#include <tern/matmul/matmul.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {
/// What is done to finished sums.
template <class O>
inline constexpr bool finishes = std::is_same_v<O, bias> || std::is_same_v<O, residual<2>> || register_function<O>;
template <class F>
inline constexpr bool finishes<each<F>> = true;
template <class O>
concept vovnet_option = finishes<O>;
}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// vovnet(policy, maps, w, y, options...): see the top of this file.
inline constexpr struct vovnet_fn {
  template <std::size_t N, detail::vovnet_option... Options>
  void operator()(cpu_policy const& policy, tensor_view<float const, 2> const (&maps)[N], tensor_view<float const, 2> const& w,
                  tensor_view<float, 2> const& y, Options const&... options) const {
    index columns = 0;
    for (auto const& x : maps) columns += x.extent(1);
    detail::expect_equal("vovnet", "w.extent(1)", w.extent(1), "the maps' channels", columns);
    index from = 0;
    for (std::size_t i = 0; i < N; ++i) {
      auto const part = w.slice(1, from, from + maps[i].extent(1));
      from += maps[i].extent(1);
      if (N == 1)
        matmul(policy, maps[i], part, y, options...);
      else if (i == 0)
        matmul(policy, maps[i], part, y);
      else if (i + 1 < N)
        matmul(policy, maps[i], part, y, accumulate{});
      else
        matmul(policy, maps[i], part, y, accumulate{}, options...);
    }
  }
} vovnet{};

}  // namespace TERN_ABI
}  // namespace tern

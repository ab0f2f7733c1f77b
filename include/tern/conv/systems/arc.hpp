// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/systems/arc.hpp
/// Adaptive rotated convolution, depthwise: each sample's 3 x 3 kernel is a mixture of shared ones, each turned by an angle of the
/// sample's.
///
///     y_b = (sum over i of lambda(b, i) R(theta(b, i)) w_i) * x_b
///
/// R turns a kernel about its center, bilinearly (9 x 9). Around the center lie eight taps, corners and edges by turns; with x = cos
/// |theta| and z = sin |theta| a tap of the turned kernel takes from the given one
///
///     a corner    (x - z) of its own place and 1 - (x - z) of the next one
///     an edge     x - x z of its own place, x z of the next one, z - x z of the one after it, 1 - x - z + x z of the center
///
/// where the next one lies clockwise for theta >= 0, else the other way.
///
///     arc(policy, x, kernels, lambda, theta, y, options...)      depthwise_conv's options but channels_first
///     turn_kernels(policy, kernels, lambda, theta, turned)       the kernels alone: (batch, 3, 3, m), for any m, C_out C_in for one
///
/// Shapes  x, y (batch, height, width, C), kernels (n, 3, 3, C) without gaps, lambda, theta (batch, n), in radians: f32.
/// Memory  scratch from the policy: the samples' kernels, and 81 n numbers.
/// Source  Pu et al. 2023, arXiv:2303.07820; github.com/LeapLabTHU/ARC, adaptive_rotated_conv.py (batch_rotate_multiweight), which
///         turns the kernels of dense convolutions.

#include <tern/conv/depthwise_conv.hpp>
#include <tern/matmul/matmul.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// The products that turn kernels (n, 3, 3, m): taps (m, 9 n) times a sample's rotation (9, 9 n) is a turned kernel (m, 9).
TERN_INLINE tensor_view<float const, 2> arc_taps(tensor_view<float const, 4> const& kernels) {
  index const n = kernels.extent(0), m = kernels.extent(3);
  return {kernels.data(), shape<2>{{m, 9 * n}}, shape<2>{{1, m}}};
}
TERN_INLINE tensor_view<float, 2> arc_turned(float* turned, index m) { return {turned, shape<2>{{m, 9}}, shape<2>{{1, m}}}; }
TERN_INLINE std::size_t arc_rotation_bytes(tensor_view<float const, 4> const& kernels) {
  return static_cast<std::size_t>(81 * kernels.extent(0)) * sizeof(float);
}

/// lambda R(theta): taps of the turned kernel are rows, `stride` apart.
TERN_INLINE void write_rotation(double lambda, double theta, float* to, index stride) {
  constexpr index around[] = {0, 1, 2, 5, 8, 7, 6, 3};  // clockwise
  double const x = __builtin_cos(theta), z = theta < 0 ? -__builtin_sin(theta) : __builtin_sin(theta), both = x * z;
  auto const put = [&](index row, index from, double value) { to[row * stride + from] = static_cast<float>(lambda * value); };
  for (index i = 0; i < 9; ++i)
    for (index j = 0; j < 9; ++j) put(i, j, 0);
  put(4, 4, 1);
  for (index k = 0; k < 8; ++k) {
    index const row = around[k], next = around[(theta < 0 ? k + 7 : k + 1) % 8], after = around[(theta < 0 ? k + 6 : k + 2) % 8];
    if (k % 2 == 0) {
      put(row, row, x - z);
      put(row, next, 1 - (x - z));
    } else {
      put(row, row, x - both);
      put(row, next, both);
      put(row, after, z - both);
      put(row, 4, 1 - x - z + both);
    }
  }
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// turned_b = sum over i of lambda(b, i) R(theta(b, i)) kernels_i: see the top of this file.
inline void turn_kernels(cpu_policy const& policy, tensor_view<float const, 4> const& kernels, tensor_view<float const, 2> const& lambda,
                         tensor_view<float const, 2> const& theta, tensor_view<float, 4> const& turned) {
  index const n = kernels.extent(0), m = kernels.extent(3);
  detail::expect_equal("turn_kernels", "kernels.extent(1)", kernels.extent(1), "ARC's", 3);
  detail::expect_equal("turn_kernels", "kernels.extent(2)", kernels.extent(2), "ARC's", 3);
  detail::expect_extent("turn_kernels", "lambda", lambda, 1, "kernels", kernels, 0);
  detail::expect_extent("turn_kernels", "theta", theta, 1, "kernels", kernels, 0);
  detail::expect_extent("turn_kernels", "lambda", lambda, 0, "turned", turned, 0);
  detail::expect_extent("turn_kernels", "theta", theta, 0, "turned", turned, 0);
  for (int d = 1; d < 4; ++d) detail::expect_extent("turn_kernels", "turned", turned, d, "kernels", kernels, d);
  if (!kernels.is_contiguous() || !turned.is_contiguous())
    detail::fail("turn_kernels: kernels or turned have gaps, expected row-major order without any");
  workspace::lease const memory(policy.scratch(), detail::arc_rotation_bytes(kernels));
  auto* const rotation = reinterpret_cast<float*>(memory.data());  // (9, 9 n)
  for (index b = 0; b < turned.extent(0); ++b) {
    for (index i = 0; i < n; ++i)
      detail::write_rotation(static_cast<double>(lambda(b, i)), static_cast<double>(theta(b, i)), rotation + 9 * i, 9 * n);
    matmul(policy, detail::arc_taps(kernels), tern::view(static_cast<float const*>(rotation), 9, 9 * n),
           detail::arc_turned(turned.data() + b * 9 * m, m));
  }
}

/// arc(policy, x, kernels, lambda, theta, y, options...): see the top of this file.
inline constexpr struct arc_fn {
  template <detail::depthwise_option<2>... Options>
  void operator()(cpu_policy const& policy, tensor_view<float const, 4> const& x, tensor_view<float const, 4> const& kernels,
                  tensor_view<float const, 2> const& lambda, tensor_view<float const, 2> const& theta, tensor_view<float, 4> const& y,
                  Options const&... options) const {
    workspace::lease const memory(policy.scratch(), turned_bytes(x, kernels));
    auto const turned = turned_kernels(reinterpret_cast<float*>(memory.data()), x, kernels);
    turn_kernels(policy, kernels, lambda, theta, turned);
    depthwise_conv(policy, x, turned, y, options...);
  }

  /// For tern::workspace_size: bytes of scratch of the same call.
  template <detail::depthwise_option<2>... Options>
  std::size_t workspace_size(cpu_policy const& policy, tensor_view<float const, 4> const& x, tensor_view<float const, 4> const& kernels,
                             tensor_view<float const, 2> const&, tensor_view<float const, 2> const&, tensor_view<float, 4> const& y,
                             Options const&... options) const {
    float const* const rotation = nullptr;
    std::size_t const turning = workspace::rounded(detail::arc_rotation_bytes(kernels)) +
                                matmul.workspace_size(policy, detail::arc_taps(kernels), tern::view(rotation, 9, 9 * kernels.extent(0)),
                                                      detail::arc_turned(nullptr, kernels.extent(3)));
    std::size_t const convolution = depthwise_conv.workspace_size(policy, x, turned_kernels(nullptr, x, kernels), y, options...);
    return workspace::rounded(turned_bytes(x, kernels)) + (turning > convolution ? turning : convolution);
  }

 private:
  static std::size_t turned_bytes(tensor_view<float const, 4> const& x, tensor_view<float const, 4> const& kernels) {
    return static_cast<std::size_t>(x.extent(0) * 9 * kernels.extent(3)) * sizeof(float);
  }
  static tensor_view<float, 4> turned_kernels(float* memory, tensor_view<float const, 4> const& x,
                                              tensor_view<float const, 4> const& kernels) {
    return tern::view(memory, x.extent(0), 3, 3, kernels.extent(3));
  }
} arc{};

}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/swin_v2.hpp
/// Scaled cosine attention within (shifted) windows, with a continuous position bias over log-spaced offsets.
///
///     out_i = sum_j softmax_j(cos(q_i, k_j) / tau_h + B_h(i - j)) v_j,   over the keys j of i's window
///     B = 16 sigmoid(W_2 relu(W_1 x + b_1)),   x_a = sign(d_a) log2(1 + |d_a|) / 3,   d_a = 8 offset_a / (size_a - 1)
///
///     swin_v2_bias(policy, window, size, w1, b1, w2, coordinates, hidden, bias)                the table B, once for all calls
///     swin_v2(policy, q, k, v, out, window_partition{image, window, shift}, tau, bias)
///
/// Shapes  as in attention, tokens of the image row-major; tau (heads), bias (heads, entries) with entries = (2 window_0 - 1)
///         (2 window_1 - 1), as in relative_table.hpp. w1 (hidden, 2), b1 (hidden), w2 (heads, hidden); coordinates (entries, 2)
///         and hidden (entries, hidden) are memory; all f32. `size` is the window that the model was trained with, which may be
///         another.
/// Notes   the model learns log(1 / tau) and keeps tau >= 0.01: the caller's to compute. Where a window is at least as large as the
///         image, the model takes the image for it and no shift.
/// Source  Liu et al. 2021, arXiv:2111.09883; github.com/microsoft/Swin-Transformer, models/swin_transformer_v2.py.

#include <tern/attention/attention.hpp>
#include <tern/attention/cosine.hpp>
#include <tern/attention/relative_table.hpp>
#include <tern/attention/window_partition.hpp>
#include <tern/matmul/matmul.hpp>

namespace tern {
inline namespace TERN_ABI {

/// swin_v2_bias(policy, window, size, w1, b1, w2, coordinates, hidden, bias): see the top of this file.
inline constexpr struct swin_v2_bias_fn {
  void operator()(cpu_policy const& policy, shape<2> const& window, shape<2> const& size, tensor_view<float const, 2> const& w1,
                  tensor_view<float const, 1> const& b1, tensor_view<float const, 2> const& w2, tensor_view<float, 2> const& coordinates,
                  tensor_view<float, 2> const& hidden, tensor_view<float, 2> const& bias) const {
    index const rows = 2 * window.extents[0] - 1, columns = 2 * window.extents[1] - 1;
    detail::expect_at_least("a window of swin_v2_bias", window, 1);
    detail::expect_equal("swin_v2_bias", "coordinates.extent(0)", coordinates.extent(0), "the entries of the window", rows * columns);
    detail::expect_equal("swin_v2_bias", "b1.extent(0)", b1.extent(0), "w1.extent(0)", w1.extent(0));
    for (index y = 0; y < rows; ++y)
      for (index x = 0; x < columns; ++x) {
        coordinates(y * columns + x, 0) = log_spaced(y - window.extents[0] + 1, size.extents[0]);
        coordinates(y * columns + x, 1) = log_spaced(x - window.extents[1] + 1, size.extents[1]);
      }
    matmul(policy, coordinates, w1, hidden);
    for (index e = 0; e < hidden.extent(0); ++e)
      for (index n = 0; n < hidden.extent(1); ++n) {
        float const x = hidden(e, n) + b1[n];
        hidden(e, n) = x < 0 ? 0 : x;
      }
    matmul(policy, w2, hidden, bias);
    for (index h = 0; h < bias.extent(0); ++h)
      for (index e = 0; e < bias.extent(1); ++e) {
        float lane[simd::lanes];
        simd::store(lane, floats(16.f) * simd::sigmoid(floats(bias(h, e))));
        bias(h, e) = lane[0];
      }
  }

 private:
  TERN_INLINE static float log_spaced(index offset, index size) {
    float const d = size > 1 ? 8 * static_cast<float>(offset) / static_cast<float>(size - 1) : 0.f,
                x = __builtin_log2f(1 + __builtin_fabsf(d)) / 3;
    return d < 0 ? -x : x;
  }
} swin_v2_bias{};

/// swin_v2(policy, q, k, v, out, windows, tau, bias, options...): see the top of this file.
inline constexpr struct swin_v2_fn {
  template <tensor_like Q, detail::key_source K, detail::key_source V, tensor_like O, tensor_like T, tensor_like B,
            detail::attention_option... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, window_partition<2> const& windows, T&& tau, B&& bias,
                  Options const&... options) const {
    attention(policy, q, k, v, out, windows, cosine{tau}, scale{1}, relative_table<2>(bias, windows.image, windows.window), options...);
  }
} swin_v2{};

}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/systems/unireplknet.hpp
/// UniRepLKNet's dilated re-parameterization: a large kernel and small dilated ones beside it, each with a batch norm, become one large
/// kernel and one bias, off line.
///
///     W = W_0 g_0 / s_0 + sum over i of spread(W_i, r_i) g_i / s_i,    b = sum over i of beta_i - m_i g_i / s_i,    s = sqrt(var + eps)
///
/// spread puts r - 1 zeros between taps, around the center of W. A depthwise_conv with W and b gives what the sum of the branches gave.
///
///     fold_batch_norm(w, norm, w, b)                 w g / s, and beta - m g / s: for the large kernel, then for each small one
///     add_dilated(small, dilation, large)            large += spread(small)
///
/// Shapes  w, small (k, k, C), large (K, K, C), norms and biases (C); f32, any strides. k and K odd, dilation (k - 1) < K.
/// Errors  extents that do not fit, even sizes, a spread kernel larger than the large one.
/// Source  Ding et al. 2024, arXiv:2311.15599, and "Scaling Up Your Kernels", arXiv:2410.08049; github.com/AILab-CVC/UniRepLKNet,
///         unireplknet.py (fuse_bn, merge_dilated_into_large_kernel).

#include <tern/pointwise/rows.hpp>

namespace tern {
inline namespace TERN_ABI {

/// A batch norm as it is used after training; all (C).
struct batch_norm {
  tensor_view<float const, 1> gain, shift, mean, variance;
  float eps = 1e-5f;
};

/// folded = w g / s, bias = shift - mean g / s, by channel. `folded` may be w.
TERN_INLINE void fold_batch_norm(tensor_view<float const, 3> const& w, batch_norm const& norm, tensor_view<float, 3> const& folded,
                                 tensor_view<float, 1> const& bias) {
  for (int d = 0; d < 3; ++d) detail::expect_extent("fold_batch_norm", "folded", folded, d, "w", w, d);
  detail::expect_extent("fold_batch_norm", "norm.gain", norm.gain, 0, "w", w, 2);
  detail::expect_extent("fold_batch_norm", "norm.shift", norm.shift, 0, "w", w, 2);
  detail::expect_extent("fold_batch_norm", "norm.mean", norm.mean, 0, "w", w, 2);
  detail::expect_extent("fold_batch_norm", "norm.variance", norm.variance, 0, "w", w, 2);
  detail::expect_extent("fold_batch_norm", "bias", bias, 0, "w", w, 2);
  for (index c = 0; c < w.extent(2); ++c) {
    double const deviation = __builtin_sqrt(static_cast<double>(norm.variance[c]) + static_cast<double>(norm.eps));
    double const scale = static_cast<double>(norm.gain[c]) / deviation;
    bias[c] = static_cast<float>(static_cast<double>(norm.shift[c]) - static_cast<double>(norm.mean[c]) * scale);
    for (index i = 0; i < w.extent(0); ++i)
      for (index j = 0; j < w.extent(1); ++j) folded(i, j, c) = static_cast<float>(static_cast<double>(w(i, j, c)) * scale);
  }
}

/// large += small with `dilation` - 1 zeros between its taps, center on center.
TERN_INLINE void add_dilated(tensor_view<float const, 3> const& small, index dilation, tensor_view<float, 3> const& large) {
  detail::expect_extent("add_dilated", "small", small, 2, "large", large, 2);
  detail::expect(dilation >= 1, "add_dilated", "dilation", dilation, "at least 1");
  for (int d = 0; d < 2; ++d) {
    detail::expect(small.extent(d) % 2 == 1, "add_dilated", "an extent of small", small.extent(d), "an odd one");
    detail::expect(large.extent(d) % 2 == 1, "add_dilated", "an extent of large", large.extent(d), "an odd one");
    index const window = (small.extent(d) - 1) * dilation + 1;
    detail::expect(window <= large.extent(d), "add_dilated", "the spread kernel's extent", window, "at most the large one's");
  }
  index const top = (large.extent(0) - (small.extent(0) - 1) * dilation) / 2,
              left = (large.extent(1) - (small.extent(1) - 1) * dilation) / 2;
  for (index i = 0; i < small.extent(0); ++i)
    for (index j = 0; j < small.extent(1); ++j)
      for (index c = 0; c < small.extent(2); ++c) large(top + i * dilation, left + j * dilation, c) += small(i, j, c);
}

}  // namespace TERN_ABI
}  // namespace tern

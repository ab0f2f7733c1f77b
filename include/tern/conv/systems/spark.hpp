// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/systems/spark.hpp
/// SparK's sparse convolution, depthwise: an image is masked by patches, and only the visible ones are computed.
///
///     y[p] = b + sum over taps of w[q - p] x[q], q visible, for visible p;    y[p] = 0 for the others
///
///     spark(policy, x, visible, w, y)
///     spark(policy, x, visible, w, y, b)
///
/// Shapes  x, y (batch, height, width, C), channels contiguous, w (kh, kw, C), odd, b (C): f32. visible (batch, h, w): bytes, not 0 where
///         a patch of height / h by width / w positions is seen. x is 0 where it is not, as the layer before left it.
/// Errors  patches that do not tile the image; even kernels; y that is x.
/// Cost    that of the visible patches.
/// Source  Tian et al. 2023, arXiv:2301.03580; github.com/keyu-tian/SparK, pretrain/encoder.py, which computes all and masks.

#include <tern/conv/depthwise_conv.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// Outputs begin to end of `n` as a convolution of their own: the inputs that they see, and the zeros around these.
struct conv_part {
  index begin, end;
  zeros around;
  TERN_INLINE conv_part(index n, index first, index last, index kernel) : begin(first - kernel / 2), end(last + kernel / 2), around(0) {
    if (begin < 0) around.before = -begin, begin = 0;
    if (end > n) around.after = end - n, end = n;
  }
};

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// spark(policy, x, visible, w, y, b): see the top of this file.
inline constexpr struct spark_fn {
  void operator()(cpu_policy const& policy, tensor_view<float const, 4> const& x, tensor_view<std::uint8_t const, 3> const& visible,
                  tensor_view<float const, 3> const& w, tensor_view<float, 4> const& y, tensor_view<float const, 1> const& b = {}) const {
    detail::expect_like("spark", "y", y, "x", x);
    detail::expect_own_memory("spark", "y", y, "x", x);
    detail::expect_extent("spark", "visible", visible, 0, "x", x, 0);
    for (int d = 1; d < 3; ++d) {
      bool const tiles = visible.extent(d) > 0 && x.extent(d) % visible.extent(d) == 0;
      detail::expect(tiles, "spark", "an extent of visible", visible.extent(d), "a divisor of the image's");
      detail::expect(w.extent(d - 1) % 2 == 1, "spark", "an extent of w", w.extent(d - 1), "an odd one");
    }
    for (index n = 0; n < x.extent(0); ++n)
      for (index i = 0; i < visible.extent(1); ++i)
        for (index j = 0, end; j < visible.extent(2); j = end) {
          bool const seen = visible(n, i, j) != 0;
          for (end = j + 1; end < visible.extent(2) && (visible(n, i, end) != 0) == seen;) ++end;
          patches(policy, x.slice(0, n, n + 1), w, y.slice(0, n, n + 1), b, i, j, end, seen, visible);
        }
  }

 private:
  /// Patches j to end of row i, which are all seen or all hidden.
  static void patches(cpu_policy const& policy, tensor_view<float const, 4> const& x, tensor_view<float const, 3> const& w,
                      tensor_view<float, 4> const& y, tensor_view<float const, 1> const& b, index i, index j, index end, bool seen,
                      tensor_view<std::uint8_t const, 3> const& visible) {
    index const height = x.extent(1) / visible.extent(1), width = x.extent(2) / visible.extent(2);
    index const top = i * height, bottom = top + height, left = j * width, right = end * width;
    auto const out = y.slice(1, top, bottom).slice(2, left, right);
    if (seen) {
      detail::conv_part const rows(x.extent(1), top, bottom, w.extent(0)), columns(x.extent(2), left, right, w.extent(1));
      depthwise_conv(policy, x.slice(1, rows.begin, rows.end).slice(2, columns.begin, columns.end), w, out,
                     padding{rows.around, columns.around}, detail::bias_if_any{b});
      return;
    }
    for (index p = 0; p < out.extent(1) * out.extent(2); ++p)
      for (index c = 0; c < out.extent(3); ++c) out(0, p / out.extent(2), p % out.extent(2), c) = 0;
  }
} spark{};

}  // namespace TERN_ABI
}  // namespace tern

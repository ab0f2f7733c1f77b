// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/pool_grid.hpp
/// The tokens of an image averaged to a smaller one: what clusters and slots start from.
///
///     pool_grid(policy, x, {H, W}, y, {h, w})       y(b, i w + j) = mean of x over rows [i H / h, ceil((i + 1) H / h)), columns alike
///
/// Shapes    x (samples, H W, channels) f32, f16 or bf16, row by row; y (samples, h w, channels) f32; rows contiguous. Where extents do
///           not divide, windows overlap, as in torch's adaptive_avg_pool2d. h = H and w = W converts.
/// Cost      reads x once, and what overlaps twice.
/// Error     |y - y*| <= 2^-24 (n + 1) mean of |x| for windows of n tokens.

#include <tern/core/rounding.hpp>
#include <tern/pointwise/rows.hpp>

namespace tern {
inline namespace TERN_ABI {

/// pool_grid(policy, x, grid, y, small): see the top of this file.
inline constexpr struct pool_grid_fn {
  template <tensor_like X>
  void operator()(cpu_policy const& policy, X&& x, shape<2> const& grid, tensor_view<float, 3> const& y, shape<2> const& small) const {
    static_assert(view_of<X>::rank == 3, "tern: pool_grid takes x (samples, tokens, channels)");
    constexpr char const* op = "pool_grid";
    auto const from = tern::view(x);
    index const height = grid.extents[0], width = grid.extents[1], h = small.extents[0], w = small.extents[1];
    detail::expect_rows(op, "x", from);
    detail::expect_rows(op, "y", y);
    detail::expect_equal(op, "x.extent(1)", from.extent(1), "the tokens of the grid", height * width);
    detail::expect_equal(op, "y.extent(1)", y.extent(1), "the tokens of the small grid", h * w);
    detail::expect_extent(op, "y", y, 0, "x", from, 0);
    detail::expect_extent(op, "y", y, 2, "x", from, 2);
    detail::expect(h <= height && w <= width, op, "an extent of the small grid", h > height ? h : w, "at most that of the grid");
    detail::for_rows(policy, from.extent(0) * h * w, from.extent(2) * (height * width / (h * w > 0 ? h * w : 1)), [&](index r) TERN_LAMBDA {
      index const b = r / (h * w), i = r / w % h, j = r % w;
      average(from[b], width, i * height / h, detail::divide_up((i + 1) * height, h), j * width / w, detail::divide_up((j + 1) * width, w),
              y.data() + b * y.stride(0) + r % (h * w) * y.stride(1));
    });
  }

 private:
  /// The mean of the tokens in rows [y0, y1) and columns [x0, x1).
  template <class V>
  static void average(V const& from, index width, index y0, index y1, index x0, index x1, float* to) noexcept {
    simd::pack<float> const share(1.f / static_cast<float>((y1 - y0) * (x1 - x0)));
    detail::each_pack(0, from.extent(1), [&](index c, auto part) TERN_LAMBDA {
      simd::pack<float> sum(0.f);
      for (index y = y0; y < y1; ++y)
        for (index x = x0; x < x1; ++x) sum += detail::load(from.data() + (y * width + x) * from.stride(0) + c, part);
      detail::store(to + c, y1 - y0 == 1 && x1 - x0 == 1 ? sum : sum * share, part);
    });
  }
} pool_grid{};

}  // namespace TERN_ABI
}  // namespace tern

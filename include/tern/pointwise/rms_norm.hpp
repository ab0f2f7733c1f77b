// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file pointwise/rms_norm.hpp
/// Root mean square normalization of each row.
///
///     y_j = x_j / sqrt(1/n sum_i x_i^2 + eps) * weight_j
///
/// Shapes  x, y (..., n), weight (n); rows contiguous, leading dimensions of any strides; y may be x.
/// Types   f32, f16 or bf16 each; f32 inside.
/// Special a NaN makes its row NaN; an infinity makes its own element NaN and the others zero. Finite rows give finite
///         results, however large the elements are.
/// Cost    4 flop an element; x is read twice, the second time from cache.
/// Error   |y - y*| <= rms_norm.error(n) |y*|, and the rounding of y's type.
/// Source  Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.

#include <tern/pointwise/rows.hpp>

#include <limits>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// The mean of squares when it leaves the range of f32.
template <class X>
TERN_COLD inline double mean_square_f64(X const* x, index n) noexcept {
  double sum = 0;
  for (index i = 0; i < n; ++i) {
    double const e = static_cast<float>(x[i]);
    sum += e * e;
  }
  return sum / static_cast<double>(n);
}

template <class X, class W, class Y>
inline void rms_norm_row(X const* x, W const* weight, Y* y, index n, float eps) noexcept {
  float const sum = sum_squares(x, n);
  float scale = 1.f / __builtin_sqrtf(sum * (1.f / static_cast<float>(n)) + eps);
  constexpr float largest = std::numeric_limits<float>::max();
  if (!(sum <= largest)) [[unlikely]]
    scale = static_cast<float>(1.0 / __builtin_sqrt(mean_square_f64(x, n) + static_cast<double>(eps)));
  each_pack(0, n, [&](index i, auto part) TERN_LAMBDA {
    store(y + i, load(x + i, part) * simd::pack<float>(scale) * load(weight + i, part), part);
  });
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// `tern::rms_norm(policy, x, weight, y, eps = 1e-6f)`: see the top of pointwise/rms_norm.hpp.
inline constexpr struct rms_norm_fn : takes_policy {
  using takes_policy::operator();

  template <tensor_like X, tensor_like W, tensor_like Y>
  void operator()(cpu_policy const& policy, X&& x, W&& weight, Y&& y, float eps = 1e-6f) const {
    auto const xs = tern::view(x);       // (..., n)
    auto const ws = tern::view(weight);  // (n)
    auto const ys = tern::view(y);       // (..., n)
    static_assert(decltype(ws)::rank == 1, "rms_norm: weight has one dimension");
    detail::expect_rows("rms_norm", "x", xs);
    detail::expect_rows("rms_norm", "weight", ws);
    detail::expect_extent("rms_norm", "weight", ws, 0, "x", xs, decltype(xs)::rank - 1);
    detail::expect_like("rms_norm", "y", ys, "x", xs);
    detail::row_list const from(xs);
    detail::row_list const to(ys);
    detail::for_rows(policy, from.count, from.n,
                     [&](index r) TERN_LAMBDA { detail::rms_norm_row(from[r], ws.data(), to[r], from.n, eps); });
  }

  /// The largest relative error: half of the sum's (under the root), a few roundings for square, mean, eps, root,
  /// quotient and products.
  static constexpr double error(index n) { return detail::sum_error(n) / 2 + 7 * 0x1p-24; }
} rms_norm{};

}  // namespace TERN_ABI
}  // namespace tern

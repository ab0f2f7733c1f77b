// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file pointwise/layer_norm.hpp
/// Normalization of each row to mean 0 and variance 1.
///
///     y_j = (x_j - mu) / sqrt(1/n sum_i (x_i - mu)^2 + eps) * weight_j + bias_j,    mu = 1/n sum_i x_i
///
/// Shapes  x, y (..., n), weight, bias (n); rows contiguous, leading dimensions of any strides; y may be x.
/// Types   f32, f16 or bf16 each; f32 inside.
/// Special a NaN or an infinity makes its row NaN.
/// Robust  a first estimate m of the mean is subtracted, then the mean of what is left: the differences x_i - m of numbers
///         close to each other are exact, so a mean that is large beside the deviation costs no accuracy.
/// Cost    8 flop an element; x is read three times, after the first time from cache.
/// Error   |y - y*| <= layer_norm.error(n) (max_i |x_i - mu| / sigma |weight_j| + |bias_j|), sigma the root above, and the rounding of
///         y's type, as long as n max |x| and sum (x_i - mu)^2 are in the range of f32.
/// Source  Ba, Kiros and Hinton, "Layer Normalization", 2016; Chan, Golub and LeVeque on two-pass variance, 1983.

#include <tern/pointwise/rows.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

template <class X, class W, class B, class Y>
inline void layer_norm_row(X const* x, W const* weight, B const* bias, Y* y, index n, float eps) noexcept {
  using pack = simd::pack<float>;
  float const count = static_cast<float>(n);
  float const mean = sum_packs(n, [&](index i, auto part) TERN_LAMBDA { return load(x + i, part); }) / count;
  float const rest =
      sum_packs(n, [&](index i, auto part) TERN_LAMBDA { return or_else(load(x + i, part) - pack(mean), 0.f, part); }) / count;
  float const square = sum_packs(n, [&](index i, auto part) TERN_LAMBDA {
    pack const d = or_else((load(x + i, part) - pack(mean)) - pack(rest), 0.f, part);
    return d * d;
  });
  float const scale = 1.f / __builtin_sqrtf(square / count + eps);
  each_pack(0, n, [&](index i, auto part) TERN_LAMBDA {
    pack const d = (load(x + i, part) - pack(mean)) - pack(rest);
    store(y + i, simd::fma(d * pack(scale), load(weight + i, part), load(bias + i, part)), part);
  });
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// `tern::layer_norm(policy, x, weight, bias, y, eps = 1e-5f)`: see the top of pointwise/layer_norm.hpp.
inline constexpr struct layer_norm_fn : takes_policy {
  using takes_policy::operator();

  template <tensor_like X, tensor_like W, tensor_like B, tensor_like Y>
  void operator()(cpu_policy const& policy, X&& x, W&& weight, B&& bias, Y&& y, float eps = 1e-5f) const {
    auto const xs = tern::view(x);       // (..., n)
    auto const ws = tern::view(weight);  // (n)
    auto const bs = tern::view(bias);    // (n)
    auto const ys = tern::view(y);       // (..., n)
    static_assert(decltype(ws)::rank == 1 && decltype(bs)::rank == 1, "layer_norm: weight and bias have one dimension");
    detail::expect_rows("layer_norm", "x", xs);
    detail::expect_rows("layer_norm", "weight", ws);
    detail::expect_rows("layer_norm", "bias", bs);
    detail::expect_extent("layer_norm", "weight", ws, 0, "x", xs, decltype(xs)::rank - 1);
    detail::expect_extent("layer_norm", "bias", bs, 0, "x", xs, decltype(xs)::rank - 1);
    detail::expect_like("layer_norm", "y", ys, "x", xs);
    detail::row_list const from(xs);
    detail::row_list const to(ys);
    detail::for_rows(policy, from.count, from.n,
                     [&](index r) TERN_LAMBDA { detail::layer_norm_row(from[r], ws.data(), bs.data(), to[r], from.n, eps); });
  }

  /// The error relative to the largest normalized element (times weight) and the bias: the mean's own, what is left of it,
  /// half of the variance's, and a few roundings.
  static constexpr double error(index n) { return 2 * detail::sum_error(n) + 8 * 0x1p-24; }
} layer_norm{};

}  // namespace TERN_ABI
}  // namespace tern

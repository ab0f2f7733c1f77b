// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file pointwise/softmax.hpp
/// Softmax of each row.
///
///     y_j = e^(scale x_j) / sum_i e^(scale x_i)
///
/// Shapes  x, y (..., n); rows contiguous, leading dimensions of any strides; y may be x.
/// Types   f32, f16 or bf16 each; f32 inside.
/// Special -infinity (scale > 0) has probability 0, and a row of nothing else gives zeros; +infinity or NaN makes its row NaN.
/// Stable  the row's maximum is subtracted first, so nothing overflows.
/// Cost    about 20 flop an element, 40 where y is a 16-bit type: the exponentials are computed again rather than rounded twice.
/// Error   |y_j - y*_j| <= softmax.error(n, t) y*_j + 2^-125, t the largest |scale x_i| that is finite, and the rounding of y's type.

#include <tern/pointwise/rows.hpp>
#include <tern/simd/math.hpp>

#include <limits>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// A row whose maximum is -infinity: zeros, unless it has a NaN.
template <class X, class Y>
TERN_COLD inline void softmax_of_nothing(X const* x, Y* y, index n) noexcept {
  float value = 0.f;
  for (index i = 0; i < n; ++i) {
    float const e = static_cast<float>(x[i]);
    if (e != e) value = e;
  }
  for (index i = 0; i < n; ++i) y[i] = static_cast<Y>(value);
}

template <class X, class Y>
inline void softmax_row(X const* x, Y* y, index n, float scale) noexcept {
  using pack = simd::pack<float>;
  constexpr float infinity = std::numeric_limits<float>::infinity();
  pack const factor(scale);
  pack most(-infinity);
  each_pack(0, n, [&](index i, auto part) TERN_LAMBDA { most = simd::max(or_else(load(x + i, part) * factor, -infinity, part), most); });
  float const top = simd::reduce_max(most);
  if (!(top > -infinity)) [[unlikely]]
    return softmax_of_nothing(x, y, n);

  // With a fused multiply-add, the error of the exponent grows with the distance to the maximum only.
  pack const shift(-top);
  auto const weight = [&](index i, auto part) TERN_LAMBDA { return simd::exp_nonpositive(simd::fma(load(x + i, part), factor, shift)); };
  float sum;
  if constexpr (std::is_same_v<Y, float>)
    sum = sum_packs(n, [&](index i, auto part) TERN_LAMBDA {
      pack const w = weight(i, part);
      store(y + i, w, part);
      return or_else(w, 0.f, part);
    });
  else
    sum = sum_packs(n, [&](index i, auto part) TERN_LAMBDA { return or_else(weight(i, part), 0.f, part); });
  pack const inverse(1.f / sum);
  each_pack(0, n, [&](index i, auto part) TERN_LAMBDA {
    if constexpr (std::is_same_v<Y, float>)
      store(y + i, load(y + i, part) * inverse, part);
    else
      store(y + i, weight(i, part) * inverse, part);
  });
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// `tern::softmax(policy, x, y, scale = 1)`: see the top of pointwise/softmax.hpp.
inline constexpr struct softmax_fn : takes_policy {
  using takes_policy::operator();

  template <tensor_like X, tensor_like Y>
  void operator()(cpu_policy const& policy, X&& x, Y&& y, float scale = 1.f) const {
    auto const xs = tern::view(x);  // (..., n)
    auto const ys = tern::view(y);  // (..., n)
    detail::expect_rows("softmax", "x", xs);
    detail::expect_like("softmax", "y", ys, "x", xs);
    detail::row_list const from(xs);
    detail::row_list const to(ys);
    detail::for_rows(policy, from.count, from.n, [&](index r) TERN_LAMBDA { detail::softmax_row(from[r], to[r], from.n, scale); });
  }

  /// The largest relative error: of the exponents (at most 2t, twice rounded without FMA), two exponentials of 2 units in the
  /// last place each, their sum, and two roundings.
  static constexpr double error(index n, double t) { return detail::sum_error(n) + 0x1p-24 * (8 * t + 10); }
} softmax{};

}  // namespace TERN_ABI
}  // namespace tern

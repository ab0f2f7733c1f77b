// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/long_decay.hpp
/// Filters that decay exponentially, for tern::long_conv: a damped moving average, or, times other taps, a window over them.
///
///     decay_filter(policy, weight, rate, k)      k_cj = weight_c e^(-rate_c j)
///
/// Shapes  weight, rate f32 (channels), k f32 (channels, taps) of any strides. Errors: extents that do not fit.
/// Error   |k - k*| <= decay_filter.error |k*| + 2^-149: computed in f64, rounded once.
/// Cost    a product in f64 and a rounding a tap.
/// Source  Ma et al., "Mega", 2022, for the use (from knowledge).

#include <tern/core/parallel_for.hpp>
#include <tern/core/tensor_view.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// Calls f(j, e^(-rate j)) for j < n: products of the exponential at a piece's beginning and of those within the first piece, right but for
/// a few roundings of f64, and of rate j.
template <class F>
TERN_INLINE void each_decay(double rate, index n, F&& f) {
  constexpr index piece = 64;
  double within[piece];
  for (index j = 0; j < piece && j < n; ++j) within[j] = __builtin_exp(-rate * static_cast<double>(j));
  for (index first = 0; first < n; first += piece) {
    double const begin = __builtin_exp(-rate * static_cast<double>(first));
    for (index j = 0; j < piece && first + j < n; ++j) f(first + j, begin * within[j]);
  }
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// `tern::decay_filter(policy, weight, rate, k)`: see the top of conv/long_decay.hpp.
inline constexpr struct decay_filter_fn {
  template <tensor_like W, tensor_like R, tensor_like K>
  void operator()(cpu_policy const& policy, W const& weight, R const& rate, K&& k) const {
    tensor_view<float const, 1> const w = tern::view(weight), r = tern::view(rate);
    tensor_view<float, 2> const to = tern::view(k);
    detail::expect_equal("decay_filter", "weight.extent(0)", w.extent(0), "k.extent(0)", to.extent(0));
    detail::expect_equal("decay_filter", "rate.extent(0)", r.extent(0), "k.extent(0)", to.extent(0));
    detail::parallel_for(policy, to.extent(0), [&](index c, index) TERN_LAMBDA {
      double const first = static_cast<double>(w[c]);
      detail::each_decay(static_cast<double>(r[c]), to.extent(1),
                         [&](index j, double decay) TERN_LAMBDA { to(c, j) = static_cast<float>(first * decay); });
    });
  }
  /// Relative, of a tap: its rounding, and what f64 leaves.
  static constexpr double error = 0x1.01p-24;
} decay_filter{};

}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/long_decay.hpp
/// Filters that decay exponentially, for tern::long_conv: a damped moving average, or, times other taps, a window over them.
///
///     decay_filter(policy, weight, rate, k)      k_cj = weight_c e^(-rate_c j)
///
/// Shapes  weight, rate f32 (channels), k f32 (channels, taps) of any strides. Errors: extents that do not fit.
/// Error   |k - k*| <= decay_filter.error |k*| + 2^-149: computed in f64, rounded once.
/// Cost    an exponential a tap, about 20 ns.
/// Source  Ma et al., "Mega", 2022, for the use (from knowledge).

#include <tern/core/parallel_for.hpp>
#include <tern/core/tensor_view.hpp>

namespace tern {
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
      for (index j = 0; j < to.extent(1); ++j)
        to(c, j) = static_cast<float>(static_cast<double>(w[c]) * __builtin_exp(-static_cast<double>(r[c]) * static_cast<double>(j)));
    });
  }
  /// Relative, of a tap: its rounding, and what f64 leaves.
  static constexpr double error = 0x1.01p-24;
} decay_filter{};

}  // namespace TERN_ABI
}  // namespace tern

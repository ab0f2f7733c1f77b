// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/long_companion.hpp
/// The filter of a companion state space, SpaceTime's, for tern::long_conv:
///
///     k_cj = C_c A_c^j B_c        (A x)_0 = a_0 x_(d - 1),   (A x)_i = x_(i - 1) + a_i x_(d - 1)
///
/// The state is walked, tap after tap: it is as long as an autoregressive model's order, which is short.
///
/// Shapes  a, b, c f32 (channels, d), k f32 (channels, taps) of any strides. Errors: extents that do not fit, d of 0 or more than 1024.
/// Error   computed in f64, rounded once: |k - k*| <= companion_filter.error |k*| and what f64 leaves, which grows with the norms of powers
///         of A (about taps d 2^-53 of |c| |A^j| |b|).
/// Cost    4 d operations in f64 a tap.
/// Source  Zhang et al., "Effectively Modeling Time Series with Simple Discrete State Spaces", 2023 (from knowledge).

#include <tern/core/parallel_for.hpp>
#include <tern/core/tensor_view.hpp>

namespace tern {
inline namespace TERN_ABI {

/// `tern::companion_filter(policy, a, b, c, k)`: see the top of conv/long_companion.hpp.
inline constexpr struct companion_filter_fn {
  template <tensor_like A, tensor_like B, tensor_like C, tensor_like K>
  void operator()(cpu_policy const& policy, A const& a, B const& b, C const& c, K&& k) const {
    constexpr index most = 1024;
    tensor_view<float const, 2> const last = tern::view(a), in = tern::view(b), out = tern::view(c);
    tensor_view<float, 2> const to = tern::view(k);
    index const d = last.extent(1);
    detail::expect(d > 0 && d <= most, "companion_filter", "a.extent(1)", d, "1 to 1024");
    detail::expect_equal("companion_filter", "a.extent(0)", last.extent(0), "k.extent(0)", to.extent(0));
    detail::expect_equal("companion_filter", "b.extent(0)", in.extent(0), "k.extent(0)", to.extent(0));
    detail::expect_equal("companion_filter", "c.extent(0)", out.extent(0), "k.extent(0)", to.extent(0));
    detail::expect_equal("companion_filter", "b.extent(1)", in.extent(1), "a.extent(1)", d);
    detail::expect_equal("companion_filter", "c.extent(1)", out.extent(1), "a.extent(1)", d);
    detail::parallel_for(policy, to.extent(0), [&](index h, index) TERN_LAMBDA {
      double x[most];
      for (index i = 0; i < d; ++i) x[i] = static_cast<double>(in(h, i));
      for (index j = 0; j < to.extent(1); ++j) {
        double sum = 0;
        for (index i = 0; i < d; ++i) sum += static_cast<double>(out(h, i)) * x[i];
        to(h, j) = static_cast<float>(sum);
        double const end = x[d - 1];
        for (index i = d - 1; i > 0; --i) x[i] = x[i - 1] + static_cast<double>(last(h, i)) * end;
        x[0] = static_cast<double>(last(h, 0)) * end;
      }
    });
  }
  /// Relative, of a tap: its rounding.
  static constexpr double error = 0x1.01p-24;
} companion_filter{};

}  // namespace TERN_ABI
}  // namespace tern

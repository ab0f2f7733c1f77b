// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/long_squash.hpp
/// Filters that are learned tap by tap, and kept from noise by two regularizers, for tern::long_conv:
///
///     smooth_filter(policy, raw, window, k)      k_cj = 1 / window sum over |i| <= (window - 1) / 2 of raw_c(j + i), zeros around
///     squash_filter(policy, raw, lambda, k)      k_cj = sign(raw_cj) max(|raw_cj| - lambda, 0)
///
/// As trained: smooth first, then squash, in place. A window of 1 and a lambda of 0 change no bit.
///
/// Shapes  raw, k f32 (channels, taps) of any strides; window odd, lambda at least 0. squash_filter's k may be raw.
/// Errors  extents that do not fit; a window that is not odd, a lambda below 0; smooth_filter's k that is raw.
/// Error   |k - k*| <= smooth_filter.error 1 / window sum of |raw|, squash_filter.error |k*|: sums in f64, rounded once.
/// Cost    `window` additions in f64 a tap; a pass.
/// Source  Fu et al., "Simple Hardware-Efficient Long Convolutions for Sequence Modeling", 2023 (FlashButterfly);
///         github.com/HazyResearch/safari, src/models/sequence/long_conv_kernel.py, whose other way to smooth, in frequency, is not here.

#include <tern/conv/own_memory.hpp>
#include <tern/core/parallel_for.hpp>
#include <tern/core/rounding.hpp>
#include <tern/core/tensor_view.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

inline void expect_same_taps(char const* op, tensor_view<float const, 2> const& raw, tensor_view<float, 2> const& k) {
  expect_equal(op, "k.extent(0)", k.extent(0), "raw.extent(0)", raw.extent(0));
  expect_equal(op, "k.extent(1)", k.extent(1), "raw.extent(1)", raw.extent(1));
}

/// Means of `window` taps around each, of a row. Taps are summed in order, so that one that is not finite stays within its windows. Sums
/// begin at -0, to which any tap may be added and stay itself.
inline void smooth_row(tensor_view<float const, 1> const& raw, index window, tensor_view<float, 1> const& k) {
  index const n = raw.extent(0), side = least(window / 2, n);
  constexpr index piece = 256;
  for (index first = 0; first < n; first += piece) {
    index const end = least(first + piece, n);
    double sum[piece];
    for (double& e : sum) e = -0.0;
    for (index i = -side; i <= side; ++i)
      for (index j = i < -first ? -i : first; j < least(end, n - i); ++j) sum[j - first] += static_cast<double>(raw[j + i]);
    for (index j = first; j < end; ++j) k[j] = static_cast<float>(sum[j - first] / static_cast<double>(window));
  }
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// `tern::smooth_filter(policy, raw, window, k)`: see the top of conv/long_squash.hpp.
inline constexpr struct smooth_filter_fn {
  template <tensor_like R, tensor_like K>
  void operator()(cpu_policy const& policy, R const& raw, index window, K&& k) const {
    tensor_view<float const, 2> const from = tern::view(raw);
    tensor_view<float, 2> const to = tern::view(k);
    detail::expect_same_taps("smooth_filter", from, to);
    detail::expect(window > 0 && window % 2 == 1, "smooth_filter", "window", window, "an odd number, at least 1");
    detail::expect_own_memory("smooth_filter", "k", to, "raw", from);
    detail::parallel_for(policy, to.extent(0), [&](index c, index) TERN_LAMBDA { detail::smooth_row(from[c], window, to[c]); });
  }
  /// Relative to the mean of |raw|: its rounding, and what f64 leaves.
  static constexpr double error = 0x1.01p-24;
} smooth_filter{};

/// `tern::squash_filter(policy, raw, lambda, k)`: see the top of conv/long_squash.hpp.
inline constexpr struct squash_filter_fn {
  template <tensor_like R, tensor_like K>
  void operator()(cpu_policy const& policy, R const& raw, float lambda, K&& k) const {
    tensor_view<float const, 2> const from = tern::view(raw);
    tensor_view<float, 2> const to = tern::view(k);
    detail::expect_same_taps("squash_filter", from, to);
    if (!(lambda >= 0)) [[unlikely]]
      detail::fail("squash_filter: lambda is negative or NaN, expected at least 0");
    detail::parallel_for(policy, to.extent(0), [&](index c, index) TERN_LAMBDA {
      for (index j = 0; j < to.extent(1); ++j) {
        float const tap = from(c, j), rest = __builtin_fabsf(tap) - lambda;
        to(c, j) = __builtin_copysignf(rest < 0 ? 0.f : rest, tap);  // NaN stays
      }
    });
  }
  /// Relative, of a tap: its rounding.
  static constexpr double error = 0x1p-24;
} squash_filter{};

}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file pointwise/rope_scaling.hpp
/// How rotary encodings reach contexts `s` times as long as the model was trained for, in terms of rope_options.
///
///     linear      options.scale = 1 / s                       Chen et al. 2023 (arXiv:2306.15595)
///     NTK-aware   options.base = ntk_base(base, s, d)         base s^(d / (d - 2)): the slowest pair slows down by s, the fastest stays
///     YaRN        yarn_factors(s, trained, factors, options), options.factors = factors, options.magnitude = yarn_magnitude(s)
///
///     YaRN        frequency_i ((1 - g_i) / s + g_i),  g_i = 1 - clip((i - low) / (high - low), 0, 1),
///                 low = floor(c(fast)), high = ceil(c(slow)) within [0, d - 1], c(r) = d log(trained / (2 pi r)) / (2 log base)
///                 yarn_magnitude(s) = 0.1 log s + 1 on both q and k, so logits grow by its square
///
/// Source  Peng et al. 2023, YaRN (arXiv:2309.00071). The ramp is over pairs, between pairs found from the rotations `fast` and `slow`,
///         as in the authors' code and in released models; the paper's text has it over rotations.

#include <tern/pointwise/rope_table.hpp>

namespace tern {
inline namespace TERN_ABI {

/// The base of NTK-aware scaling by `s` of `dimensions` rotated dimensions, more than 2.
TERN_INLINE float ntk_base(float base, double s, index dimensions) {
  double const d = static_cast<double>(dimensions);
  return static_cast<float>(static_cast<double>(base) * __builtin_pow(s, d / (d - 2)));
}

/// The magnitude of YaRN: 0.1 log s + 1, and 1 for s <= 1.
TERN_INLINE float yarn_magnitude(double s) { return s <= 1 ? 1.f : static_cast<float>(0.1 * __builtin_log(s) + 1); }

/// Fills `factors` (d / 2), what YaRN divides frequencies by, for a context `s` times as long as the `trained` one. Pairs that turn
/// more than `fast` times within it keep their frequency, those that turn less than `slow` times are slowed down by s.
template <tensor_like F>
void yarn_factors(double s, index trained, F&& factors, rope_options const& options = {}, double fast = 32, double slow = 1) {
  tensor_view<float, 1> const to = tern::view(factors);
  index const d = 2 * to.extent(0);
  if (options.dimensions != 0)
    detail::expect_equal("yarn_factors", "twice the extent of factors", d, "options.dimensions", options.dimensions);
  double const pi = 3.14159265358979323846;
  auto const pair_of = [&](double turns) TERN_LAMBDA {
    return static_cast<double>(d) * __builtin_log(static_cast<double>(trained) / (2 * pi * turns)) /
           (2 * __builtin_log(static_cast<double>(options.base)));
  };
  double low = __builtin_floor(pair_of(fast)), high = __builtin_ceil(pair_of(slow));
  if (low < 0) low = 0;
  if (high > static_cast<double>(d - 1)) high = static_cast<double>(d - 1);
  if (high == low) high += 0.001;
  for (index i = 0; i < d / 2; ++i) {
    double const ramp = (static_cast<double>(i) - low) / (high - low), slowed = ramp < 0 ? 0 : (ramp > 1 ? 1 : ramp);
    to[i] = static_cast<float>(1 / (slowed / s + (1 - slowed)));
  }
}

}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file fft/unit.hpp
/// Complex numbers in f64, for roots and filters that are made once. Not std::complex, which keeps C's rules for infinities.

#include <tern/core/config.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

struct unit {
  double re, im;
};
TERN_INLINE unit operator*(unit a, unit b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
/// e^(2 pi i x)
TERN_INLINE unit turn(double x) {
  x -= __builtin_floor(x + 0.5);
  double const angle = 6.283185307179586476925 * x;
  return {__builtin_cos(angle), __builtin_sin(angle)};
}

}  // namespace TERN_ABI
}  // namespace tern::detail

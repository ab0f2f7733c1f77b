// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/conv_options.hpp
/// Where a convolution's outputs lie on its input. For each dimension, of N:
///
///     stride{2}, stride{2, 1}            an output every so many inputs, default 1
///     dilation{3}, dilation{1, 2}        taps so many inputs apart, default 1
///     padding{3}, padding{3, 1}          as many zeros before and after the input, default 0
///     padding{{2, 0}, {1, 1}}            zeros {before, after} it: {(kernel - 1) dilation, 0} is causal
///     same_padding{}                     so many that there are ceil(input / stride) outputs; an odd one lies after
///     channels_first{}                   x (batch, channels, ...) and w (channels, ...); the channels come last otherwise
///     direct_sums{}                      every output as the sum over its own taps, also where transforms are faster
///
/// One number stands for all dimensions. Outputs: floor((input + before + after - dilation (kernel - 1) - 1) / stride) + 1.

#include <tern/core/error.hpp>

namespace tern {
inline namespace TERN_ABI {

/// Numbers for up to three dimensions: one for all, or one each.
struct each_dimension {
  index values[3] = {};
  int count;

  TERN_INLINE constexpr explicit each_dimension(index all) : values{all}, count(1) {}
  TERN_INLINE constexpr each_dimension(index a, index b) : values{a, b}, count(2) {}
  TERN_INLINE constexpr each_dimension(index a, index b, index c) : values{a, b, c}, count(3) {}
  TERN_INLINE constexpr index operator[](int d) const { return count == 1 ? values[0] : values[d]; }
};

/// Inputs from one output to the next.
struct stride : each_dimension {
  using each_dimension::each_dimension;
};
/// Inputs from one tap to the next.
struct dilation : each_dimension {
  using each_dimension::each_dimension;
};
/// Zeros before and after the input, along one dimension.
struct zeros {
  index before, after;
  TERN_INLINE constexpr zeros(index both) : before(both), after(both) {}
  TERN_INLINE constexpr zeros(index b, index a) : before(b), after(a) {}
};
/// Zeros around the input.
struct padding {
  zeros values[3] = {0, 0, 0};
  int count;

  TERN_INLINE constexpr explicit padding(zeros all) : values{all, 0, 0}, count(1) {}
  TERN_INLINE constexpr padding(zeros a, zeros b) : values{a, b, 0}, count(2) {}
  TERN_INLINE constexpr padding(zeros a, zeros b, zeros c) : values{a, b, c}, count(3) {}
  TERN_INLINE constexpr zeros operator[](int d) const { return count == 1 ? values[0] : values[d]; }
};
/// As many zeros as give ceil(input / stride) outputs.
struct same_padding {};
/// Channels come before the dimensions of space, in x, w, y and a residual.
struct channels_first {};
/// Sums over taps, never by transforms.
struct direct_sums {};

}  // namespace TERN_ABI
}  // namespace tern

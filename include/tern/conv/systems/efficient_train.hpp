// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/systems/efficient_train.hpp
/// EfficientTrain's low-frequency crop: an image is made smaller by keeping the middle of its spectrum, so that nothing is lost of the
/// frequencies that are left.
///
///     out = the real part of IFFT2(the s x s numbers around frequency 0 of FFT2(x)) s^2 / (height width)
///
///     efficient_train(policy, x, out)
///
/// Shapes  x (batch, channels, height, width), out (batch, channels, s, s), s from 1 to the lesser of height and width; f32, any strides.
///         Frequencies -s / 2 to (s - 1) / 2 are kept: of an even s the lowest one has no counterpart, and half of it is what the real
///         part leaves. The factor keeps the image's mean.
/// Errors  extents that do not fit, out that is not square.
/// Memory  scratch from the policy: the spectra of one sample, 4 bytes a number of x and of out, and transforms' tables.
/// Cost    a real_fft_2d of x and an inverse one of out.
/// Error   |out - out*|_2 <= efficient_train.error(height, width) |x|_2 s / sqrt(height width), for each channel.
/// Source  Wang et al., "EfficientTrain", ICCV 2023, arXiv:2211.09703, abstract; scale and centre from knowledge.

#include <tern/fft/real_fft.hpp>
#include <tern/pointwise/rows.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// The number at frequencies (i, j), either sign, of the half (rows, columns / 2 + 1) of a real image's spectrum.
TERN_INLINE complex_f32 spectrum_at(tensor_view<complex_f32 const, 2> const& half, index i, index j) {
  index const row = j < 0 ? -i : i;
  complex_f32 const z = half(row < 0 ? row + half.extent(0) : row, j < 0 ? -j : j);
  return {z.re, j < 0 ? -z.im : z.im};
}

/// The half of the cropped spectrum that the real part of its inverse transform has: the mean of each number and its mirror's conjugate.
inline void crop_spectrum(tensor_view<complex_f32 const, 2> const& half, tensor_view<complex_f32, 2> const& to, float factor) noexcept {
  index const s = to.extent(0);
  auto const kept = [&](index i) TERN_LAMBDA { return 2 * i < s ? i : i - s; };
  for (index i = 0; i < s; ++i)
    for (index j = 0; j < to.extent(1); ++j) {
      complex_f32 const a = spectrum_at(half, kept(i), kept(j));
      complex_f32 const b = spectrum_at(half, kept(i > 0 ? s - i : 0), kept(j > 0 ? s - j : 0));
      to(i, j) = {0.5f * factor * (a.re + b.re), 0.5f * factor * (a.im - b.im)};
    }
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// efficient_train(policy, x, out): see the top of this file.
inline constexpr struct efficient_train_fn {
  /// Of two transforms in both directions.
  static double error(index height, index width) {
    index const longest = height > width ? height : width;
    return 2 * (2 * fft_plan(longest).error()) + 0x1p-21;
  }

  void operator()(cpu_policy const& policy, tensor_view<float const, 4> const& x, tensor_view<float, 4> const& out) const {
    constexpr char const* op = "efficient_train";
    for (int d = 0; d < 2; ++d) detail::expect_extent(op, "out", out, d, "x", x, d);
    index const channels = x.extent(1), height = x.extent(2), width = x.extent(3), s = out.extent(2);
    detail::expect_equal(op, "out.extent(3)", out.extent(3), "out.extent(2)", s);
    detail::expect(s >= 1 && s <= height && s <= width, op, "out.extent(2)", s, "1 to the lesser of height and width");
    index const large = height * (width / 2 + 1), small = s * (s / 2 + 1);
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(channels * (large + small)) * sizeof(complex_f32));
    auto const spectra = tern::view(reinterpret_cast<complex_f32*>(memory.data()), channels, height, width / 2 + 1);
    auto const cropped = tern::view(spectra.data() + channels * large, channels, s, s / 2 + 1);
    float const factor = static_cast<float>(s * s) / static_cast<float>(height * width);
    for (index b = 0; b < x.extent(0); ++b) {
      real_fft_2d(policy, x[b], spectra);
      detail::for_rows(policy, channels, small, [&](index c) TERN_LAMBDA { detail::crop_spectrum(spectra[c], cropped[c], factor); });
      real_fft_2d_inverse(policy, cropped, out[b]);
    }
  }
} efficient_train{};

}  // namespace TERN_ABI
}  // namespace tern

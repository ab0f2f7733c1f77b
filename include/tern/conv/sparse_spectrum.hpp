// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/sparse_spectrum.hpp
/// An option of the long convolutions: of the filter's spectrum `kept` of `classes` equal parts count, the others are zeros, and neither
/// the transforms nor the product compute them.
///
///     long_conv(policy, u, k, y, sparse_spectrum{1, 4})                 a quarter of the frequencies; other options as ever
///     long_filter filter(policy, k, n, long_mode::causal, sparse_spectrum{1, 4})
///     long_conv_grad_input, long_conv_grad_filter(..., sparse_spectrum{1, 4})    the gradients of just that
///
/// The transform is that of n samples and K taps (causal: at most n) followed by zeros, to P places, where P is the least power of two, and
/// at least 4096, that is not below n + K - 1; on each machine the same. Its frequencies are (4 f + 1) / (2 P) of a turn a sample and, as
/// samples are real, their negatives:
///
///     K_f = sum over j of k_j e^(2 pi i j (4 f + 1) / (2 P))                          f = 0, ..., P / 2 - 1
///     k'_j = 2 / P Re(sum over f with f mod classes < kept of K_f e^(-2 pi i j (4 f + 1) / (2 P)))      j = 0, ..., P - 1
///     y_i = sum over j < P of k'_j u_(i + o - j)        u_(m - P) = -u_m, u_m = 0 for n <= m < P; o = 0, same: (K - 1) / 2
///
/// With all classes k' is k, and y what it is without the option, to the bit; with none y is 0 (and what skip{d} adds). In between k' is P
/// taps long: y_i depends on samples behind i too, and is not causal. What comes around the end of P comes back with its sign turned, as P
/// places are what a transform of that kind has for a filter.
///
/// Errors  classes other than 1, 2, 4 or 8, a kept below 0 or above classes; long_mode::circular, as a circle is another transform.
/// Cost    kept / classes of a transform of P places, and u read and y written as ever: with 1 of 4 about a third of a dense filter's time.
///         A dense filter has blocks of other lengths than powers of two, and shorter ones than 4096 places: such sequences gain less.
/// Error   long_conv.error(P) |u|_2 |k|_2, as of a dense filter: |k'|_2 <= |k|_2.
/// Source  Fu et al., "FlashFFTConv", 2023, arXiv:2311.05908, for frequency-sparse convolutions: k_f[a:, ...] = 0, where the first digit of
///         a frequency is its remainder by the first factor. There the frequencies are the multiples of 1 / P (from knowledge).

#include <tern/core/error.hpp>

namespace tern {
inline namespace TERN_ABI {

/// `kept` of `classes` classes of frequencies: see the top of conv/sparse_spectrum.hpp.
struct sparse_spectrum {
  int kept = 1, classes = 1;
};

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {

inline void expect_spectrum(char const* op, sparse_spectrum const& s) {
  expect(s.classes == 1 || s.classes == 2 || s.classes == 4 || s.classes == 8, op, "sparse_spectrum's classes", s.classes, "1, 2, 4 or 8");
  expect(s.kept >= 0 && s.kept <= s.classes, op, "sparse_spectrum's kept", s.kept, "0 to classes");
}

}  // namespace TERN_ABI
}  // namespace detail
}  // namespace tern

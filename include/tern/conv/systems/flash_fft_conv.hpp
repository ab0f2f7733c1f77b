// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/systems/flash_fft_conv.hpp
/// FlashFFTConv: a causal convolution as long as its sequence, whose transforms, product and gates are fused in cache.
///
///     flash_fft_conv(policy, u, k, y)                           y = u conv k
///     flash_fft_conv(policy, u, k, w, v, y)                     y = v .* ((u .* w) conv k): gated, as Hyena, H3 and M2 do
///     flash_fft_conv(policy, u, k, y, sparse_spectrum{1, 4})    frequency-sparse: also with gates; other options of long_conv
///
/// It is tern::long_conv under the paper's name: k (channels, taps) or a long_filter, whose spectra are made once. A partial convolution is
/// one whose k has fewer taps than u has samples. Of a spectrum that is sparse the classes of conv/sparse_spectrum.hpp are kept, which are
/// of the transform that long_conv has, not those of a transform of matrices: the paper's patterns are of another order of frequencies.
///
/// Shapes, types, alias, errors, memory, cost, error  as in conv/long_conv.hpp, conv/sparse_spectrum.hpp. Gradients:
/// conv/long_gradients.hpp. Source  Fu et al., "FlashFFTConv: Efficient Convolutions for Long Sequences with Tensor Cores", 2023,
/// arXiv:2311.05908, abstract.

#include <tern/conv/long_conv.hpp>

namespace tern {
inline namespace TERN_ABI {

/// flash_fft_conv(policy, u, k, y, options...) and (policy, u, k, w, v, y, options...): see the top of this file.
inline constexpr struct flash_fft_conv_fn {
  template <tensor_like U, class K, tensor_like Y, detail::long_option... Options>
  void operator()(cpu_policy const& policy, U const& u, K const& k, Y&& y, Options const&... options) const {
    long_conv(policy, u, k, y, options...);
  }
  template <tensor_like U, class K, tensor_like W, tensor_like V, tensor_like Y, detail::long_option... Options>
  void operator()(cpu_policy const& policy, U const& u, K const& k, W const& w, V const& v, Y&& y, Options const&... options) const {
    long_conv(policy, u, k, y, gate_in{w}, gate_out{v}, options...);
  }
} flash_fft_conv{};

}  // namespace TERN_ABI
}  // namespace tern

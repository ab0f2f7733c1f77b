// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file bench/fft_convolution.hpp
/// A convolution of channels as users of a library of transforms write it: plans and the filter's spectrum made beforehand, zero padding to
/// a good length; all channels in one plan, or one after the other in buffers that stay in cache.

#include "fft_peers.hpp"

#include <algorithm>
#include <complex>

namespace tern::bench {

/// The least even number of the factors 2, 3, 5 and 7 that is not below n.
inline index good_length(index n) {
  for (index m = n + n % 2;; m += 2) {
    index rest = m;
    for (index r : {2, 3, 5, 7})
      while (rest % r == 0) rest /= r;
    if (rest == 1) return m;
  }
}

/// y_c = k_c conv u_c for each channel, causal (padded) or circular. Transform: one of fft_peers.hpp.
template <class Transform>
class fft_convolution {
 public:
  fft_convolution(index channels, index n, index taps, bool circular, bool batched, float const* k)
      : channels_(channels),
        n_(n),
        size_(circular ? n : good_length(n + taps - 1)),
        bins_(size_ / 2 + 1),
        together_(batched ? channels : 1),
        real_(together_ * size_),
        spectrum_(2 * together_ * bins_),
        filter_(2 * channels * bins_),
        transform_(fft_shape{true, together_, 1, size_}, real_.data(), spectrum_.data()) {
    for (index c = 0; c < channels; c += together_) {
      for (index t = 0; t < together_; ++t) load(k + (c + t) * taps, nullptr, taps, t);
      transform_.forward();
      for (index i = 0; i < 2 * together_ * bins_; ++i) filter_[2 * c * bins_ + i] = spectrum_[i] / static_cast<float>(size_);
    }
  }

  /// Gates may be null.
  void operator()(float const* u, float const* w, float const* v, float* y) {
    for (index c = 0; c < channels_; c += together_) {
      for (index t = 0; t < together_; ++t) load(u + (c + t) * n_, w != nullptr ? w + (c + t) * n_ : nullptr, n_, t);
      transform_.forward();
      auto* const x = reinterpret_cast<std::complex<float>*>(spectrum_.data());
      auto const* const h = reinterpret_cast<std::complex<float> const*>(filter_.data()) + c * bins_;
      for (index i = 0; i < together_ * bins_; ++i)
        x[i] = {x[i].real() * h[i].real() - x[i].imag() * h[i].imag(), x[i].real() * h[i].imag() + x[i].imag() * h[i].real()};
      transform_.backward();
      for (index t = 0; t < together_; ++t) {
        float const* const from = real_.data() + t * size_;
        float* const to = y + (c + t) * n_;
        if (v == nullptr)
          std::copy(from, from + n_, to);
        else
          for (index i = 0; i < n_; ++i) to[i] = from[i] * v[(c + t) * n_ + i];
      }
    }
  }

 private:
  void load(float const* from, float const* gate, index count, index t) {
    float* const to = real_.data() + t * size_;
    for (index i = 0; i < count; ++i) to[i] = gate != nullptr ? from[i] * gate[i] : from[i];
    std::fill(to + count, to + size_, 0.f);
  }

  index channels_, n_, size_, bins_, together_;
  buffer<float> real_, spectrum_, filter_;  // their memory stays where it is when they are moved
  Transform transform_;
};

}  // namespace tern::bench

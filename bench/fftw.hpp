// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file bench/fftw.hpp
/// A convolution of channels as users of FFTW write it: plans measured and the filter's spectrum made beforehand, zero padding to a good
/// length; all channels in one plan, or one after the other in buffers that stay in cache.

#include "harness.hpp"

#if TERN_BENCH_HAVE_FFTW
#include <fftw3.h>

#include <algorithm>
#include <complex>
#include <utility>

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

/// y_c = k_c conv u_c for each channel, causal (padded) or circular.
class fftw_convolution {
 public:
  fftw_convolution(index channels, index n, index taps, bool circular, bool batched, float const* k)
      : channels_(channels),
        n_(n),
        size_(circular ? n : good_length(n + taps - 1)),
        bins_(size_ / 2 + 1),
        together_(batched ? channels : 1),
        real_(together_ * size_),
        spectrum_(2 * together_ * bins_),
        filter_(2 * channels * bins_) {
    fftwf_set_timelimit(120);  // for both directions of a million samples a channel; a shorter one leaves slower plans
    int const length = static_cast<int>(size_), count = static_cast<int>(together_);
    forward_ = fftwf_plan_many_dft_r2c(1, &length, count, real_.data(), nullptr, 1, length, bins(), nullptr, 1, static_cast<int>(bins_),
                                       FFTW_MEASURE);
    backward_ = fftwf_plan_many_dft_c2r(1, &length, count, bins(), nullptr, 1, static_cast<int>(bins_), real_.data(), nullptr, 1, length,
                                        FFTW_MEASURE | FFTW_DESTROY_INPUT);
    for (index c = 0; c < channels; c += together_) {
      for (index t = 0; t < together_; ++t) load(k + (c + t) * taps, nullptr, taps, t);
      fftwf_execute(forward_);
      for (index i = 0; i < 2 * together_ * bins_; ++i) filter_[2 * c * bins_ + i] = spectrum_[i] / static_cast<float>(size_);
    }
  }
  fftw_convolution(fftw_convolution&& other) noexcept
      : channels_(other.channels_),
        n_(other.n_),
        size_(other.size_),
        bins_(other.bins_),
        together_(other.together_),
        real_(std::move(other.real_)),
        spectrum_(std::move(other.spectrum_)),
        filter_(std::move(other.filter_)),
        forward_(std::exchange(other.forward_, nullptr)),
        backward_(std::exchange(other.backward_, nullptr)) {}
  ~fftw_convolution() {
    if (forward_ != nullptr) fftwf_destroy_plan(forward_);
    if (backward_ != nullptr) fftwf_destroy_plan(backward_);
  }

  /// Gates may be null.
  void operator()(float const* u, float const* w, float const* v, float* y) {
    for (index c = 0; c < channels_; c += together_) {
      for (index t = 0; t < together_; ++t) load(u + (c + t) * n_, w != nullptr ? w + (c + t) * n_ : nullptr, n_, t);
      fftwf_execute(forward_);
      auto* const x = reinterpret_cast<std::complex<float>*>(spectrum_.data());
      auto const* const h = reinterpret_cast<std::complex<float> const*>(filter_.data()) + c * bins_;
      for (index i = 0; i < together_ * bins_; ++i)
        x[i] = {x[i].real() * h[i].real() - x[i].imag() * h[i].imag(), x[i].real() * h[i].imag() + x[i].imag() * h[i].real()};
      fftwf_execute(backward_);
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
  fftwf_complex* bins() { return reinterpret_cast<fftwf_complex*>(spectrum_.data()); }
  void load(float const* from, float const* gate, index count, index t) {
    float* const to = real_.data() + t * size_;
    for (index i = 0; i < count; ++i) to[i] = gate != nullptr ? from[i] * gate[i] : from[i];
    std::fill(to + count, to + size_, 0.f);
  }

  index channels_, n_, size_, bins_, together_;
  buffer<float> real_, spectrum_, filter_;
  fftwf_plan forward_ = nullptr, backward_ = nullptr;
};

}  // namespace tern::bench
#endif

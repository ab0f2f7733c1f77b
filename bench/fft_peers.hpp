// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file bench/fft_peers.hpp
/// The Fourier transforms of FFTW, MKL and Eigen, each with one interface: made for a shape and two places, with everything that can be
/// made beforehand; `forward()` goes from x to y, `backward()` from y to x, without 1 / n. Eigen's is its own (kissfft), of one dimension
/// and one sequence at a time.

#include "harness.hpp"
#include "mkl.hpp"
#include "peers.hpp"

#include <complex>
#include <utility>

#if TERN_BENCH_HAVE_FFTW
#include <fftw3.h>
#endif
#if TERN_BENCH_HAVE_EIGEN
#include <unsupported/Eigen/FFT>
#endif

namespace tern::bench {

/// x (count, [rows,] n), y (count, [rows,] bins()); real x has no bins beyond n / 2.
struct fft_shape {
  bool real;
  index count, rows, n;  // rows: 1 in one dimension
  index bins() const { return real ? n / 2 + 1 : n; }
  /// Floats of x and y.
  index x_floats() const { return count * rows * n * (real ? 1 : 2); }
  index y_floats() const { return 2 * count * rows * bins(); }
};

#if TERN_BENCH_HAVE_FFTW
/// Plans are measured, which overwrites x and y.
class fftw_transform {
 public:
  fftw_transform(fft_shape const& s, float* x, float* y) {
    fftwf_set_timelimit(120);  // for both directions of a million samples; a shorter one leaves slower plans
    int const extents[] = {static_cast<int>(s.rows), static_cast<int>(s.n)}, dimensions = s.rows > 1 ? 2 : 1;
    int const count = static_cast<int>(s.count), from = static_cast<int>(s.rows * s.n), to = static_cast<int>(s.rows * s.bins());
    int const* const n = extents + 2 - dimensions;
    auto* const bins = reinterpret_cast<fftwf_complex*>(y);
    auto* const points = reinterpret_cast<fftwf_complex*>(x);
    unsigned const flags = FFTW_MEASURE | FFTW_DESTROY_INPUT;
    if (s.real) {
      forward_ = fftwf_plan_many_dft_r2c(dimensions, n, count, x, nullptr, 1, from, bins, nullptr, 1, to, FFTW_MEASURE);
      backward_ = fftwf_plan_many_dft_c2r(dimensions, n, count, bins, nullptr, 1, to, x, nullptr, 1, from, flags);
    } else {
      forward_ = fftwf_plan_many_dft(dimensions, n, count, points, nullptr, 1, from, bins, nullptr, 1, to, FFTW_FORWARD, FFTW_MEASURE);
      backward_ = fftwf_plan_many_dft(dimensions, n, count, bins, nullptr, 1, to, points, nullptr, 1, from, FFTW_BACKWARD, flags);
    }
  }
  fftw_transform(fftw_transform&& other) noexcept
      : forward_(std::exchange(other.forward_, nullptr)), backward_(std::exchange(other.backward_, nullptr)) {}
  ~fftw_transform() {
    if (forward_ != nullptr) fftwf_destroy_plan(forward_);
    if (backward_ != nullptr) fftwf_destroy_plan(backward_);
  }
  void forward() { fftwf_execute(forward_); }
  void backward() { fftwf_execute(backward_); }

 private:
  fftwf_plan forward_ = nullptr, backward_ = nullptr;
};
#endif

#if TERN_BENCH_HAVE_MKL
class mkl_transform {
 public:
  mkl_transform(fft_shape const& s, float* x, float* y, int threads = 1) : library_(mkl::with_threads(threads)), x_(x), y_(y) {
    forward_ = plan(s, s.n, s.bins());
    backward_ = plan(s, s.bins(), s.n);
  }
  mkl_transform(mkl_transform&& other) noexcept
      : library_(other.library_),
        x_(other.x_),
        y_(other.y_),
        forward_(std::exchange(other.forward_, nullptr)),
        backward_(std::exchange(other.backward_, nullptr)) {}
  ~mkl_transform() {
    for (void** p : {&forward_, &backward_})
      if (*p != nullptr) library_.dfti_free(p);
  }
  void forward() { library_.dfti_forward(forward_, x_, y_); }
  void backward() { library_.dfti_backward(backward_, y_, x_); }

 private:
  /// From rows of `from` numbers to rows of `to`.
  void* plan(fft_shape const& s, index from, index to) const {
    void* p = nullptr;
    long const extents[] = {static_cast<long>(s.rows), static_cast<long>(s.n)};
    int const domain = s.real ? mkl::dfti_real : mkl::dfti_complex;
    if (s.rows > 1)
      library_.dfti_create(&p, mkl::dfti_single, domain, 2, extents);
    else
      library_.dfti_create(&p, mkl::dfti_single, domain, 1, extents[1]);
    auto const set = [&](int parameter, auto value) { library_.dfti_set(p, parameter, value); };
    set(mkl::dfti_placement, mkl::dfti_not_inplace);
    if (s.real) set(mkl::dfti_conjugate_even_storage, mkl::dfti_complex_complex);
    long const in[] = {0, static_cast<long>(from), 1}, out[] = {0, static_cast<long>(to), 1};
    if (s.rows > 1) {
      set(mkl::dfti_input_strides, static_cast<long const*>(in));
      set(mkl::dfti_output_strides, static_cast<long const*>(out));
    }
    set(mkl::dfti_number_of_transforms, static_cast<long>(s.count));
    set(mkl::dfti_input_distance, static_cast<long>(s.rows * from));
    set(mkl::dfti_output_distance, static_cast<long>(s.rows * to));
    library_.dfti_commit(p);
    return p;
  }

  mkl const& library_;
  float *x_, *y_;
  void *forward_ = nullptr, *backward_ = nullptr;
};
#endif

#if TERN_BENCH_HAVE_EIGEN
class eigen_transform {
 public:
  eigen_transform(fft_shape const& s, float* x, float* y) : shape_(s), x_(x), y_(reinterpret_cast<std::complex<float>*>(y)) {
    fft_.SetFlag(Eigen::FFT<float>::HalfSpectrum);
    fft_.SetFlag(Eigen::FFT<float>::Unscaled);
  }
  void forward() {
    for (index i = 0; i < shape_.count; ++i) {
      if (shape_.real)
        fft_.fwd(y_ + i * shape_.bins(), x_ + i * shape_.n, shape_.n);
      else
        fft_.fwd(y_ + i * shape_.n, points() + i * shape_.n, shape_.n);
    }
  }
  void backward() {
    for (index i = 0; i < shape_.count; ++i) {
      if (shape_.real)
        fft_.inv(x_ + i * shape_.n, y_ + i * shape_.bins(), shape_.n);
      else
        fft_.inv(points() + i * shape_.n, y_ + i * shape_.n, shape_.n);
    }
  }

 private:
  std::complex<float>* points() { return reinterpret_cast<std::complex<float>*>(x_); }
  Eigen::FFT<float> fft_;
  fft_shape shape_;
  float* x_;
  std::complex<float>* y_;
};
#endif

}  // namespace tern::bench

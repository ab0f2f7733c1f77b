// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file fft/fft_plan.hpp
/// What the transforms of one length need, made once:
///
///     fft_plan plan(n);                                  any n from 1 on; may serve any number of threads
///     fft(policy, plan, x, y);
///
/// Lengths of the factors 2, 3 and 5 are transformed by Stockham's passes (fft/stockham.hpp), others as a convolution with a chirp,
///
///     X_f = c_f sum over j of (x_j c_j) conj(c_(f - j))        c_j = e^(-pi i j^2 / n)
///
/// by the transform of the long convolutions (fft/tower.hpp) of the next good length from 2n - 1 on.
///
/// Memory  8 bytes a point, or about 26. Tables are made in f64 and rounded once.
/// Source  Bluestein, "A linear filtering approach to the computation of discrete Fourier transform", 1970 (from knowledge).

#include <tern/core/owned_floats.hpp>
#include <tern/fft/stockham.hpp>
#include <tern/fft/tower_run.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// n complex numbers as a source of a tower of `points`, and a piece of what leaves it.
struct complex_source {
  planar data;
  index n, points;
  inline static void read(void const* object, index first, index packs, float* out, index step) noexcept {
    auto const& s = *static_cast<complex_source const*>(object);
    float const* const from = first < s.points ? s.data.re : s.data.im;
    index const at = first < s.points ? first : first - s.points;
    for (index i = 0; i < packs * simd::lanes; ++i) out[i / simd::lanes * step + i % simd::lanes] = at + i < s.n ? from[at + i] : 0.f;
  }
  TERN_INLINE tower_source source() const { return {this, &complex_source::read, points + n}; }
};
struct complex_sink {
  planar data;
  index begin, n, points;  // coefficients begin to begin + n - 1 are kept
  inline static void write(void const* object, index first, index packs, float const* in, index step) noexcept {
    auto const& s = *static_cast<complex_sink const*>(object);
    float* const to = first < s.points ? s.data.re : s.data.im;
    index const at = (first < s.points ? first : first - s.points) - s.begin;
    for (index i = 0; i < packs * simd::lanes; ++i)
      if (at + i >= 0 && at + i < s.n) to[at + i] = in[i / simd::lanes * step + i % simd::lanes];
  }
  TERN_INLINE tower_sink sink() const { return {this, &complex_sink::write, begin, points + begin + n}; }
};
/// x = x c, planar, lane by lane of n.
inline void multiply_planar(planar x, planar c, index n) noexcept {
  for (index j = 0; j < n; ++j) {
    float const re = x.re[j] * c.re[j] - x.im[j] * c.im[j];
    x.im[j] = x.re[j] * c.im[j] + x.im[j] * c.re[j];
    x.re[j] = re;
  }
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// The transforms of n points: see the top of fft/fft_plan.hpp.
class fft_plan {
 public:
  /// Fails unless n is at least 1.
  inline explicit fft_plan(index n) {
    detail::expect(n > 0, "fft_plan", "n", n, "at least 1");
    n_ = n;
    smooth_ = detail::is_smooth(n);
    if (smooth_) {
      passes_ = detail::shape_stockham(n);
      memory_ = detail::owned_floats(passes_.table_floats);
      detail::fill_stockham(passes_, memory_.data());
      return;
    }
    tower_ = detail::shortest_tower(2 * n - 1);
    index const tables = detail::round_to_multiple(tower_.table_floats, 16);
    memory_ = detail::owned_floats(tables + tower_.floats() + 2 * n);
    detail::fill_tower(tower_, memory_.data());
    spectrum_ = memory_.data() + tables;
    chirp_ = {spectrum_ + tower_.floats(), spectrum_ + tower_.floats() + n};
    detail::owned_floats scratch(detail::tower_buffer + tower_.floats() + 2 * (2 * n - 1));
    float* const re = scratch.data() + detail::tower_buffer + tower_.floats();
    float* const im = re + 2 * n - 1;
    index square = 0;  // j^2 modulo 2n
    for (index j = 0; j < n; ++j) {
      detail::unit const c = detail::turn(-static_cast<double>(square) / static_cast<double>(2 * n));
      chirp_.re[j] = static_cast<float>(c.re);
      chirp_.im[j] = static_cast<float>(c.im);
      re[n - 1 + j] = re[n - 1 - j] = chirp_.re[j];
      im[n - 1 + j] = im[n - 1 - j] = -chirp_.im[j];
      square = (square + 2 * j + 1) % (2 * n);
    }
    detail::complex_source const from{{re, im}, 2 * n - 1, tower_.points()};
    float const scale = 1.f / static_cast<float>(tower_.points());
    detail::run_tower({tower_, scratch.data() + detail::tower_buffer, spectrum_, detail::tower_op::split, scale}, from.source(), {},
                      scratch.data());
  }
  fft_plan(fft_plan&& other) noexcept = default;
  fft_plan& operator=(fft_plan&& other) noexcept = default;
  ~fft_plan() {}

  TERN_INLINE index size() const { return n_; }

  /// |y - y*|_2 relative to |y*|_2: four roundings a level, and of a chirp those of two transforms of twice the length.
  TERN_INLINE double error() const {
    double const levels = detail::log2_of(n_) + 1;
    return 0x1p-24 * (smooth_ ? 4 + 4 * levels : 24 + 12 * (levels + 2));
  }

  /// Floats of scratch for `columns` sequences side by side.
  TERN_INLINE index scratch_floats(index columns) const {
    return smooth_ ? 2 * n_ * columns : 2 * n_ + tower_.floats() + detail::tower_buffer;
  }
  /// The forward transforms of x(n, columns), in place or in `scratch`, where the result then is. Given im and re in each other's place it
  /// is the inverse, without 1 / n.
  inline detail::planar run(index columns, detail::planar x, float* scratch) const noexcept {
    if (smooth_) return detail::run_stockham(passes_, columns, x, {scratch, scratch + n_ * columns});
    detail::planar const one{scratch + detail::tower_buffer + tower_.floats(), scratch + detail::tower_buffer + tower_.floats() + n_};
    for (index c = 0; c < columns; ++c) {
      for (index j = 0; j < n_; ++j) {
        one.re[j] = x.re[j * columns + c];
        one.im[j] = x.im[j * columns + c];
      }
      chirp(one, scratch);
      for (index j = 0; j < n_; ++j) {
        x.re[j * columns + c] = one.re[j];
        x.im[j * columns + c] = one.im[j];
      }
    }
    return x;
  }

 private:
  inline void chirp(detail::planar x, float* scratch) const noexcept {
    detail::multiply_planar(x, chirp_, n_);
    detail::complex_source const from{x, n_, tower_.points()};
    detail::complex_sink const to{x, n_ - 1, n_, tower_.points()};
    detail::run_tower({tower_, scratch + detail::tower_buffer, spectrum_}, from.source(), to.sink(), scratch);
    detail::multiply_planar(x, chirp_, n_);
  }

  index n_ = 1;
  bool smooth_ = true;
  detail::stockham_plan passes_;
  detail::tower_plan tower_;
  detail::owned_floats memory_;
  float* spectrum_ = nullptr;
  detail::planar chirp_{nullptr, nullptr};
};

}  // namespace TERN_ABI
}  // namespace tern

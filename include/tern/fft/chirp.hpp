// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file fft/chirp.hpp
/// The transform of any length as a convolution with a chirp,
///
///     y_f = c_f sum over j of (x_j c_j) conj(c_(f - j))        c_j = e^(-pi i j^2 / n)
///
/// by the transform of the long convolutions (fft/tower.hpp) of the next good length from 2n - 1 on.
///
/// Source  Bluestein, "A linear filtering approach to the computation of discrete Fourier transform", 1970 (from knowledge).

#include <tern/fft/matrix.hpp>
#include <tern/fft/tower_run.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// The chirp, in registers of real and of imaginary parts by turns, and the spectrum of its conjugate.
struct chirp_plan {
  index n = 0;
  tower_plan tower;
  float *chirp = nullptr, *spectrum = nullptr;

  TERN_INLINE index registers() const { return divide_up(n, simd::lanes); }
  TERN_INLINE index chirp_floats() const { return 2 * registers() * simd::lanes; }
  TERN_INLINE index table_floats() const { return round_to_multiple(tower.table_floats, 16) + tower.floats() + chirp_floats(); }
  /// Floats of a transform: the tower's, and all of its samples.
  TERN_INLINE index scratch_floats() const { return tower_buffer + 2 * tower.floats(); }
};

/// A convolution of `samples` with the spectrum, or what makes it: real parts in the first half, imaginary ones in the second.
inline void run_chirp(chirp_plan const& t, float* samples, tower_op op, float* scratch) noexcept {
  index const end = t.tower.floats();
  auto const none = [](void const*, index, index, float*, index) {};
  auto const all = [](void const*, index, index, float const*, index) {};
  float const scale = 1.f / static_cast<float>(t.tower.points());
  run_tower({t.tower, scratch + tower_buffer, t.spectrum, op, scale}, {nullptr, none, end, samples, 0, end},
            {nullptr, all, 0, end, samples, 0, end}, scratch);
}

inline chirp_plan shape_chirp(index n) noexcept {
  chirp_plan t;
  t.n = n;
  t.tower = shortest_tower(2 * n - 1);
  return t;
}
/// scratch: scratch_floats().
inline void fill_chirp(chirp_plan& t, float* memory, float* scratch) noexcept {
  constexpr index W = simd::lanes;
  fill_tower(t.tower, memory);
  t.spectrum = memory + round_to_multiple(t.tower.table_floats, 16);
  t.chirp = t.spectrum + t.tower.floats();
  float* const re = scratch + tower_buffer + t.tower.floats();
  float* const im = re + t.tower.points();
  for (index j = 0; j < t.tower.floats(); ++j) re[j] = 0.f;
  for (index j = 0; j < t.chirp_floats(); ++j) t.chirp[j] = 0.f;
  index square = 0;  // j^2 modulo 2n
  for (index j = 0; j < t.n; ++j) {
    unit const c = turn(-static_cast<double>(square) / static_cast<double>(2 * t.n));
    float* const at = t.chirp + 2 * (j / W * W) + j % W;
    at[0] = re[t.n - 1 + j] = re[t.n - 1 - j] = static_cast<float>(c.re);
    at[W] = static_cast<float>(c.im);
    im[t.n - 1 + j] = im[t.n - 1 - j] = -at[W];
    square = (square + 2 * j + 1) % (2 * t.n);
  }
  run_chirp(t, re, tower_op::filter, scratch);
}

/// One sequence. load(first, count) and store(first, count, numbers) move registers.
template <class Load, class Store>
TERN_INLINE void transform_chirp(chirp_plan const& t, float* scratch, Load&& load, Store&& store) noexcept {
  constexpr index W = simd::lanes;
  index const M = t.tower.points();
  float* const re = scratch + tower_buffer + t.tower.floats();
  for (index j = 0; j < t.n; j += W) {
    cpack const x = load(j, least(W, t.n - j)) * load_complex(t.chirp + 2 * j);
    simd::store(re + j, x.re);
    simd::store(re + M + j, x.im);
  }
  for (index j = t.registers() * W; j < M; ++j) re[j] = re[M + j] = 0.f;
  run_chirp(t, re, tower_op::convolve, scratch);
  for (index f = 0; f < t.n; f += W) {
    index const at = t.n - 1 + f, count = least(W, t.n - f);
    cpack const x{simd::load_n(re + at, count), simd::load_n(re + M + at, count)};
    store(f, count, x * load_complex(t.chirp + 2 * f));
  }
}

}  // namespace TERN_ABI
}  // namespace tern::detail

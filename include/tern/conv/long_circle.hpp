// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/long_circle.hpp
/// Circular convolutions by transforms of half their length, without a block twice as long: with c = n / 2^L,
///
///     z^n - 1 = (z^(n / 2) + 1) (z^(n / 4) + 1) ... (z^c + 1) (z^c - 1)
///
/// Samples are folded to their remainders, sums and differences of 2^L parts; all factors but the last are products of a tower each
/// (fft/tower.hpp), a quarter of n points, an eighth, and so on; the last is a block of 2c samples, which is short. Half sums and half
/// differences give the circle back; their factors are the spectra's.
///
/// Source  the Chinese remainder theorem; Bernstein, "Multidigit multiplication for mathematicians", 2001 (from knowledge).

#include <tern/conv/long_layout.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// The towers of a circle, and where its parts are in a folded row, and in a spectrum: part 0 is modulo z^c - 1, part p modulo
/// z^(c 2^(p - 1)) + 1.
struct circle_plan {
  int folds = 0;
  index c = 0;
  tower_plan part[most_folds + 1] = {};

  TERN_INLINE int rows() const { return 1 << folds; }
  TERN_INLINE index at(int p) const { return p > 0 ? c + (c << (p - 1)) : 0; }
  /// Of a folded row, and of a spectrum.
  TERN_INLINE index floats() const { return c + (c << folds); }
  TERN_INLINE index table_floats() const {
    index sum = 0;
    for (int p = 0; p <= folds; ++p) sum += round_to_multiple(part[p].table_floats, 16);
    return sum;
  }
  /// Floats that the largest transform is computed in.
  TERN_INLINE index work_floats() const { return part[0].floats() > part[folds].floats() ? part[0].floats() : part[folds].floats(); }
};

/// The circle of c 2^folds samples, c = odd 2^halvings registers, without tables.
inline circle_plan shape_circle(int folds, int odd, int halvings) noexcept {
  circle_plan t;
  t.folds = folds;
  t.c = (index{odd} << halvings) * simd::lanes;
  for (int p = 0; p <= folds; ++p) t.part[p] = shape_tower(odd, p > 0 ? halvings + p - 2 : halvings);
  return t;
}
inline void fill_circle(circle_plan& t, float* memory) noexcept {
  for (int p = 0; p <= t.folds; ++p) {
    fill_tower(t.part[p], memory);
    memory += round_to_multiple(t.part[p].table_floats, 16);
  }
}

/// a, b = a + b, a - b for parts i and i + H, i < H.
template <int H, int Rows>
TERN_INLINE void add_parts(simd::pack<float> (&x)[Rows]) {
  TERN_UNROLL
  for (int i = 0; i < H; ++i) {
    simd::pack<float> const a = x[i], b = x[i + H];
    x[i] = a + b;
    x[i + H] = a - b;
  }
}
/// Remainders of `Rows` parts in place: parts [h, 2h) are of z^(h c) + 1, part 0 of z^c - 1.
template <int Rows>
TERN_INLINE void fold_parts(simd::pack<float> (&x)[Rows]) {
  if constexpr (Rows == 8) add_parts<4>(x);
  if constexpr (Rows >= 4) add_parts<2>(x);
  add_parts<1>(x);
}
/// Back from there, but for the halves.
template <int Rows>
TERN_INLINE void unfold_parts(simd::pack<float> (&x)[Rows]) {
  add_parts<1>(x);
  if constexpr (Rows >= 4) add_parts<2>(x);
  if constexpr (Rows == 8) add_parts<4>(x);
}

/// A row on its way: `count` registers of each part, from register `at` on. buffer: tower_buffer floats.
struct circle_rows {
  static constexpr index stride = tower_chunk * simd::lanes;
  circle_plan const& plan;
  float* row;  // plan.floats()

  TERN_INLINE index chunks() const { return divide_up(plan.c / simd::lanes, tower_chunk); }
  TERN_INLINE float* place(int r, index l) const { return row + (r > 0 ? r + 1 : 0) * plan.c + l * simd::lanes; }

  /// The last factor's block is a part and, behind it, `again` times that part.
  template <int Rows>
  inline void fold(index at, index count, tower_source const& in, float again, float* buffer) const noexcept {
    float const* from = buffer;
    index step = stride;
    if (in.dense != nullptr && in.gate == nullptr && in.dense_begin == 0 && in.dense_end >= Rows * plan.c) {
      from = in.dense + at * simd::lanes;
      step = plan.c;
    } else {
      for (int r = 0; r < Rows; ++r) in.read(in.object, r * plan.c + at * simd::lanes, count, buffer + r * stride, simd::lanes);
    }
    for (index l = 0; l < count; ++l) {
      simd::pack<float> x[Rows];
      TERN_UNROLL
      for (int r = 0; r < Rows; ++r) x[r] = simd::load(from + r * step + l * simd::lanes);
      fold_parts(x);
      TERN_UNROLL
      for (int r = 0; r < Rows; ++r) simd::store(place(r, at + l), x[r]);
      simd::store(place(0, at + l) + plan.c, x[0] * again);
    }
  }
  template <int Rows, bool Past>
  inline void unfold_to(float* to, index step, index at, index count) const noexcept {
    for (index l = 0; l < count; ++l) {
      simd::pack<float> x[Rows];
      TERN_UNROLL
      for (int r = 0; r < Rows; ++r) x[r] = simd::load(static_cast<float const*>(place(r, at + l)));
      unfold_parts(x);
      TERN_UNROLL
      for (int r = 0; r < Rows; ++r) store_as<Past>(to + r * step + l * simd::lanes, x[r]);
    }
  }
  template <int Rows>
  inline void unfold(index at, index count, tower_sink const& out, float* buffer) const noexcept {
    bool const direct = out.dense != nullptr && out.gate == nullptr;
    if (direct && out.past && simd::can_store_past(out.dense))
      return unfold_to<Rows, true>(out.dense + at * simd::lanes, plan.c, at, count);
    if (direct) return unfold_to<Rows, false>(out.dense + at * simd::lanes, plan.c, at, count);
    unfold_to<Rows, false>(buffer, stride, at, count);
    for (int r = 0; r < Rows; ++r) out.write(out.object, r * plan.c + at * simd::lanes, count, buffer + r * stride, simd::lanes);
  }
  /// Calls body(number of parts as a constant, first register, count).
  template <class Body>
  TERN_INLINE void chunk(index i, Body&& body) const {
    index const at = i * tower_chunk, count = least(tower_chunk, plan.c / simd::lanes - at);
    if (plan.folds == 1) return body(std::integral_constant<int, 2>{}, at, count);
    if (plan.folds == 2) return body(std::integral_constant<int, 4>{}, at, count);
    body(std::integral_constant<int, 8>{}, at, count);
  }
  inline void fold(index i, tower_source const& in, float again, float* buffer) const noexcept {
    chunk(i, [&](auto rows, index at, index count) TERN_LAMBDA { fold<rows()>(at, count, in, again, buffer); });
  }
  inline void unfold(index i, tower_sink const& out, float* buffer) const noexcept {
    chunk(i, [&](auto rows, index at, index count) TERN_LAMBDA { unfold<rows()>(at, count, out, buffer); });
  }
  /// Part p as a tower reads and writes it. Of part 0, `whole` says whether the copy behind it counts; results are in front.
  TERN_INLINE tower_source source(int p, bool whole) const {
    index const n = p > 0 ? plan.part[p].floats() : whole ? 2 * plan.c : plan.c;
    return {nullptr, nullptr, n, row + plan.at(p), 0, n};
  }
  TERN_INLINE tower_sink sink(int p) const {
    index const n = p > 0 ? plan.part[p].floats() : plan.c;
    return {nullptr, nullptr, 0, n, row + plan.at(p), 0, n};
  }
};

/// The spectrum h, plan.floats(), of n taps. row: plan.floats(), z: plan.work_floats(), buffer: tower_buffer floats.
inline void split_circle(circle_plan const& plan, tower_source const& taps, float* h, float* row, float* z, float* buffer) noexcept {
  circle_rows const rows{plan, row};
  for (index i = 0; i < rows.chunks(); ++i) rows.fold(i, taps, 0.f, buffer);
  for (int p = 0; p <= plan.folds; ++p) {
    index const halves = index{1} << (plan.folds - (p > 0 ? p - 1 : 0));
    float const scale = 1.f / static_cast<float>(plan.part[p].points() * halves);
    run_tower({plan.part[p], z, h + plan.at(p), tower_op::filter, scale}, rows.source(p, false), {}, buffer);
  }
}

/// A row, on the threads of `policy`. buffer: tower_buffer floats for each of its slots.
inline void run_circle(cpu_policy const& policy, circle_plan const& plan, tower_op op, float const* h, tower_source const& in,
                       tower_sink const& out, float* row, float* z, float* buffer) {
  circle_rows const rows{plan, row};
  // What a product of taps and block brings around is taken with its sign turned; a correlation reaches forward.
  bool const far = plan.floats() * index{sizeof(float)} >= tower_far;
  float const again = op == tower_op::convolve ? -1.f : 1.f;
  parallel_for(policy, rows.chunks(), [&](index i, index slot) TERN_LAMBDA { rows.fold(i, in, again, buffer + slot * tower_buffer); });
  for (int p = 0; p <= plan.folds; ++p)  // the spectrum is only read
    run_tower_on(policy, {plan.part[p], z, const_cast<float*>(h + plan.at(p)), op, 1.f, far}, rows.source(p, true), rows.sink(p), buffer);
  bool const alone = policy.concurrency() == 1;
  parallel_for(policy, rows.chunks(), [&](index i, index slot) TERN_LAMBDA {
    rows.unfold(i, out, buffer + slot * tower_buffer);
    if (out.past && !alone) simd::finish_stores_past();
  });
  if (out.past && alone) simd::finish_stores_past();
}

}  // namespace TERN_ABI
}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file fft/fft_plan.hpp
/// What the transforms of one length need, made once:
///
///     fft_plan plan(n);                                  any n from 1 on; may serve any number of threads
///     fft(policy, plan, x, y);
///
/// Lengths of the factors 2, 3, 5, 7, 11 and 13 are transformed as matrices (fft/matrix.hpp), others as convolutions with a chirp
/// (fft/chirp.hpp).
///
/// Memory  8 bytes a point and a little, or about 26. Tables are made in f64 and rounded once.

#include <tern/core/owned_floats.hpp>
#include <tern/fft/chirp.hpp>
#include <tern/fft/matrix.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// How a length is transformed, with tables or without.
struct fft_shape {
  index n = 1;
  bool smooth = true;
  matrix_plan matrix;  // if smooth
  chirp_plan chirp;    // if not

  TERN_INLINE index table_floats() const { return smooth ? matrix.table_floats : chirp.table_floats(); }
  /// Sequences that are transformed together.
  TERN_INLINE index together() const { return smooth ? matrix.together() : 1; }
  /// Floats of scratch of so many sequences: what each thread has, and what all share that take part in one.
  TERN_INLINE index block_floats() const { return round_to_multiple(smooth ? matrix.block_floats() : chirp.scratch_floats(), 16); }
  TERN_INLINE index z_floats() const { return smooth ? matrix.z_floats() : 0; }
  /// The same for `columns` sequences side by side.
  TERN_INLINE index columns_floats(index columns) const {
    return round_to_multiple((smooth ? 4 : 2) * n * columns + (smooth ? 0 : chirp.scratch_floats()), 16);
  }
};
/// Fails unless n is at least 1.
inline fft_shape shape_fft(index n) {
  expect(n > 0, "fft_plan", "n", n, "at least 1");
  fft_shape s;
  s.n = n;
  s.smooth = is_smooth(n);
  if (s.smooth)
    s.matrix = shape_matrix(n);
  else
    s.chirp = shape_chirp(n);
  return s;
}

/// A column of a block, in which chirps transform one after the other.
struct block_column {
  float* block;
  index columns, column;
  TERN_INLINE float* at(index j) const { return block + 2 * (j * columns + column / simd::lanes * simd::lanes) + column % simd::lanes; }
  TERN_INLINE points_view points() const { return {at(0), 2 * columns, simd::lanes}; }
};

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// The transforms of n points: see the top of fft/fft_plan.hpp.
class fft_plan {
 public:
  /// Fails unless n is at least 1.
  inline explicit fft_plan(index n) : shape_(detail::shape_fft(n)), tables_(shape_.table_floats()) {
    if (shape_.smooth) {
      detail::fill_matrix(shape_.matrix, tables_.data());
    } else {
      detail::owned_floats scratch(shape_.chirp.scratch_floats());
      detail::fill_chirp(shape_.chirp, tables_.data(), scratch.data());
    }
  }
  fft_plan(fft_plan&& other) noexcept = default;
  fft_plan& operator=(fft_plan&& other) noexcept = default;
  ~fft_plan() {}

  TERN_INLINE index size() const { return shape_.n; }
  TERN_INLINE detail::fft_shape const& shape() const { return shape_; }

  /// |y - y*|_2 relative to |y*|_2: four roundings a level, and of a chirp those of two transforms of twice the length.
  TERN_INLINE double error() const {
    double const levels = detail::log2_of(shape_.n) + 1;
    return 0x1p-24 * (shape_.smooth ? 4 + 4 * levels : 24 + 12 * (levels + 2));
  }

 private:
  detail::fft_shape shape_;
  detail::owned_floats tables_;
};

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {

/// shape.together() sequences at most, each from x to y. scratch: block_floats() + z_floats().
inline void transform_sequences(fft_shape const& s, points_call const& call, index count, float* scratch) noexcept {
  if (!s.smooth)
    return transform_chirp(
        s.chirp, scratch, [&](index first, index n) TERN_LAMBDA { return call.load(first, n); },
        [&](index first, index n, cpack const& x) TERN_LAMBDA { call.store(first, n, x); });
  if (s.matrix.A == 1) return transform_together(s.matrix, call, count, scratch);
  float* const z = scratch + s.block_floats();
  for (index b = 0; b < s.matrix.width(); b += s.matrix.columns()) transform_columns(s.matrix, call, b, z, scratch);
  for (index f = 0; f < s.matrix.A; f += simd::lanes) transform_rows(s.matrix, call, f, z, scratch);
}

/// The columns of a block (n, columns), of which `used` count, forward. Returns where the result is; row k is number place(k).
inline float* transform_side_by_side(fft_shape const& s, index columns, index used, float* block, float* scratch) noexcept {
  if (s.smooth) return transform_block(s.matrix, columns, block, scratch);
  for (index c = 0; c < used; ++c) {
    points_view const column = block_column{block, columns, c}.points();
    transform_chirp(
        s.chirp, scratch, [&](index first, index n) TERN_LAMBDA { return load_points(column, first, n); },
        [&](index first, index n, cpack const& x) TERN_LAMBDA { store_points(column, first, n, x); });
  }
  return block;
}

}  // namespace TERN_ABI
}  // namespace detail
}  // namespace tern

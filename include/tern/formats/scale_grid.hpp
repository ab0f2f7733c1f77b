// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/scale_grid.hpp
/// Scales of a matrix (n, k), one for each of equal rectangles: a view (1, 1) scales the matrix, (n, 1) its rows, (n, k / 32)
/// blocks of 32 along k, (n / 128, k / 128) square tiles. A side of a rectangle is the matrix's, or a power of two.
///
/// A scale is stored as f32, f16, bf16, or e8m0: a power of two, 2^(bits - 127), where 255 is NaN (OCP Microscaling Formats (MX)
/// Specification 1.0, 2023).

#include <tern/core/error.hpp>
#include <tern/core/float16.hpp>
#include <tern/core/tensor_view.hpp>
#include <tern/simd/convert.hpp>

#include <cstdint>
#include <type_traits>

namespace tern::formats {
inline namespace TERN_ABI {

/// A power of two in eight bits.
struct e8m0 {
  std::uint8_t bits;

  TERN_INLINE constexpr operator float() const {
    if (bits == 255) return __builtin_nanf("");
    return __builtin_bit_cast(float, bits == 0 ? 0x400000u : static_cast<std::uint32_t>(bits) << 23);
  }
  /// 2^n; n is clamped to [-127, 127].
  TERN_INLINE static constexpr e8m0 power(int n) { return {static_cast<std::uint8_t>(n < -127 ? 0 : n > 127 ? 254 : n + 127)}; }
};

/// What scales are stored as.
template <class T>
concept scale_storage = float_storage<T> || std::is_same_v<std::remove_const_t<T>, e8m0>;

/// The exponent of x: floor(log2 |x|), -127 for zero and what f32 holds as subnormal.
TERN_INLINE constexpr int exponent_of(float x) { return static_cast<int>(__builtin_bit_cast(std::uint32_t, x) >> 23 & 255) - 127; }

namespace detail {

/// log2 of a side's extent, or 62 (all of it) where `parts` is 1.
TERN_INLINE int scale_side(char const* op, char const* extent, index parts, index whole, index least) {
  if (parts == 1 || whole == 0) return 62;
  tern::detail::expect(parts > 0 && whole % parts == 0, op, extent, parts, "1, or a divisor of what it scales");
  index const each = whole / parts;
  tern::detail::expect((each & (each - 1)) == 0 && each >= least, op, extent, parts,
                       "1, or such that each scale is for a power of two of them, and for whole groups of columns");
  return __builtin_ctzll(static_cast<unsigned long long>(each));
}

template <scale_storage Scale>
struct scale_grid {
  Scale const* data;
  index row_stride;
  int row_shift, column_shift;

  /// Fails unless `scales` divides (rows, columns) into rectangles of at least `granule` columns.
  TERN_INLINE scale_grid(char const* op, tensor_view<Scale const, 2> const& scales, index rows, index columns, index granule)
      : data(scales.data()),
        row_stride(scales.stride(0)),
        row_shift(scale_side(op, "scales.extent(0)", scales.extent(0), rows, 1)),
        column_shift(scale_side(op, "scales.extent(1)", scales.extent(1), columns, granule)) {
    tern::detail::expect(scales.extent(1) <= 1 || scales.stride(1) == 1, op, "scales.stride(1)", scales.stride(1), "1");
    tern::detail::expect(rows * columns == 0 || data != nullptr, op, "scales.data()", 0, "not null");
  }
  TERN_INLINE Scale const* row(index i) const { return data + (i >> row_shift) * row_stride; }
  TERN_INLINE float at(index row, index column) const {
    return static_cast<float>(data[(row >> row_shift) * row_stride + (column >> column_shift)]);
  }
};

/// The scales of `lanes` rows from `row` on, a row a lane, read when the columns of the last ones end.
template <scale_storage Scale>
class scale_walk {
 public:
  TERN_INLINE scale_walk(scale_grid<Scale> const& grid, index row) : grid_(grid), row_(row) {}
  TERN_INLINE simd::pack<float> at(index column) {
    if (column >> grid_.column_shift != at_) enter(column >> grid_.column_shift);
    return scale_;
  }

 private:
  TERN_INLINE void enter(index block) {
    at_ = block;
    auto const each = [&](auto* out) TERN_LAMBDA {
      for (index i = 0; i < simd::lanes; ++i)
        __builtin_memcpy(static_cast<void*>(out + i), grid_.data + ((row_ + i) >> grid_.row_shift) * grid_.row_stride + block,
                         sizeof(Scale));
    };
    if constexpr (std::is_same_v<Scale, e8m0>) {
      using packi = simd::pack<std::int32_t>;
      std::int32_t bits[simd::lanes] = {};
      each(bits);
      packi const e = simd::load(static_cast<std::int32_t const*>(bits));
      packi const finite = simd::select(e == packi(0), packi(0x400000), simd::shift_left<23>(e));
      scale_ = simd::bit_cast<float>(simd::select(e == packi(255), packi(0x7fc00000), finite));
    } else {
      Scale scales[simd::lanes];
      each(scales);
      scale_ = simd::load(static_cast<Scale const*>(scales));
    }
  }

  scale_grid<Scale> const& grid_;
  index row_, at_ = -1;
  simd::pack<float> scale_{0.f};
};

/// The scales of `lanes` rows from `row` on where each row has one, or 1 where there are none.
class row_scale_walk {
 public:
  TERN_INLINE row_scale_walk(tensor_view<float const, 1> const& scales, index row) : scales_(scales), row_(row) {}
  TERN_INLINE simd::pack<float> get() {
    if (!read_) enter();
    return scale_;
  }

 private:
  TERN_INLINE void enter() {
    read_ = true;
    float scales[simd::lanes];
    for (index i = 0; i < simd::lanes; ++i) scales[i] = scales_.extent(0) > 0 ? scales_[row_ + i] : 1.f;
    scale_ = simd::load(static_cast<float const*>(scales));
  }

  tensor_view<float const, 1> const& scales_;
  index row_;
  bool read_ = false;
  simd::pack<float> scale_{0.f};
};

/// The largest |x| of a rectangle, at most f32's largest; NaN counts as 0.
inline float largest_magnitude(tensor_view<float const, 2> const& x) {
  float most = 0.f;
  for (index i = 0; i < x.extent(0); ++i)
    for (index j = 0; j < x.extent(1); ++j) {
      float const m = __builtin_fabsf(x(i, j));
      most = m > most ? m : most;
    }
  return most < 0x1.fffffep127f ? most : 0x1.fffffep127f;
}
/// The scale that takes `most` to `largest`, as Scale rounds it. A power of two: that of most over that of largest, so that
/// what lies beyond largest then is up to twice it (the MX standard's choice).
template <scale_storage Scale>
TERN_INLINE Scale scale_to(float most, float largest) {
  if constexpr (std::is_same_v<Scale, e8m0>)
    return e8m0::power(exponent_of(most) - exponent_of(largest));
  else if constexpr (std::is_same_v<Scale, f16>)
    return f16(most / largest < 65504.f ? most / largest : 65504.f);
  else
    return Scale(most / largest);
}

/// Calls f(rectangle's first row, first column, rectangle of x) for the rectangles of rows * columns elements, smaller at the ends.
template <class F>
TERN_INLINE void each_rectangle(tensor_view<float const, 2> const& x, index rows, index columns, F&& f) {
  for (index i = 0; i < x.extent(0); i += rows)
    for (index j = 0; j < x.extent(1); j += columns) {
      index const end_row = x.extent(0) - i < rows ? x.extent(0) : i + rows;
      index const end_column = x.extent(1) - j < columns ? x.extent(1) : j + columns;
      f(i, j, x.slice(0, i, end_row).slice(1, j, end_column));
    }
}

}  // namespace detail
}  // namespace TERN_ABI
}  // namespace tern::formats

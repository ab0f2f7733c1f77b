// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file fft/complex.hpp
/// Complex numbers in memory: two floats, the real part first. `std::complex<float>` is one; `complex_f32` is for who does not include it.

#include <tern/core/tensor_view.hpp>
#include <tern/fft/stockham.hpp>

namespace tern {

/// A complex number of two floats.
struct complex_f32 {
  using value_type = float;
  float re, im;
};

namespace detail {

/// What has the memory of two floats: std::complex<float>, complex_f32, and their like.
template <class T>
concept complex_storage = std::same_as<typename std::remove_const_t<T>::value_type, float> && sizeof(T) == 2 * sizeof(float) &&
                          std::is_trivially_copyable_v<std::remove_const_t<T>>;

inline namespace TERN_ABI {

/// Rows of complex or real numbers: (rows, n), strides in floats.
struct float_rows_view {
  float* data = nullptr;
  index rows = 0, n = 0, row_stride = 0, stride = 0;
};
/// Fails unless the leading dimensions of a view can be counted with one stride.
[[noreturn]] TERN_COLD inline void fail_rows(char const* op, char const* argument) {
  (message() << op << ": " << argument << "'s leading dimensions have gaps between them, expected one stride from row to row").fail();
}
/// (..., n) as rows. `width`: floats of an element.
template <class T, int Rank>
TERN_INLINE float_rows_view rows_of(char const* op, char const* argument, tensor_view<T, Rank> const& v, index width) {
  float_rows_view r;
  r.data = const_cast<float*>(reinterpret_cast<float const*>(v.data()));
  r.rows = 1;
  r.n = v.extent(Rank - 1);
  r.stride = v.stride(Rank - 1) * width;
  for (int d = Rank - 2; d >= 0; --d) {
    if (v.extent(d) == 1) continue;
    if (r.rows > 1 && v.stride(d) * width != r.row_stride * r.rows) fail_rows(op, argument);
    if (r.rows == 1) r.row_stride = v.stride(d) * width;
    r.rows *= v.extent(d);
  }
  return r;
}

/// n numbers `stride` floats apart, and back, times `factor`.
inline void gather_planar(float const* from, index stride, index n, planar to) noexcept {
  for (index j = 0; j < n; ++j) {
    to.re[j] = from[j * stride];
    to.im[j] = from[j * stride + 1];
  }
}
inline void scatter_planar(planar from, index n, float factor, float* to, index stride) noexcept {
  for (index j = 0; j < n; ++j) {
    to[j * stride] = from.re[j] * factor;
    to[j * stride + 1] = from.im[j] * factor;
  }
}

}  // namespace TERN_ABI
}  // namespace detail
}  // namespace tern

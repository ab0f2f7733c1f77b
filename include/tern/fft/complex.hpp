// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file fft/complex.hpp
/// Complex numbers in memory: two floats, the real part first. `std::complex<float>` is one; `complex_f32` is for who does not include it.

#include <tern/core/tensor_view.hpp>
#include <tern/fft/butterflies.hpp>
#include <tern/simd/pairs.hpp>

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
  TERN_INLINE float* row(index r) const { return data + r * row_stride; }
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

/// Complex numbers `stride` floats apart, whose imaginary parts lie `apart` floats behind the real ones.
struct points_view {
  float* data = nullptr;
  index stride = 2, apart = 1;
  TERN_INLINE float* at(index j) const { return data + j * stride; }
  TERN_INLINE bool is_dense() const { return stride == 2 && apart == 1; }
};
/// Numbers one by one, and zeros in other lanes: re, then im.
[[gnu::noinline]] inline void gather_points(float const* from, index stride, index apart, index count, float* to) noexcept {
  for (index l = 0; l < simd::lanes; ++l) {
    to[l] = l < count ? from[l * stride] : 0.f;
    to[simd::lanes + l] = l < count ? from[l * stride + apart] : 0.f;
  }
}
[[gnu::noinline]] inline void scatter_points(float const* from, float* to, index stride, index apart, index count) noexcept {
  for (index l = 0; l < count; ++l) {
    to[l * stride] = from[l];
    to[l * stride + apart] = from[simd::lanes + l];
  }
}
/// Numbers first to first + count - 1, and zeros in other lanes.
TERN_INLINE cpack load_points(points_view const& x, index first, index count) {
  if (x.is_dense()) {
    cpack all;
    if (count == simd::lanes)
      simd::load_interleaved(x.at(first), all.re, all.im);
    else
      simd::load_interleaved_n(x.at(first), all.re, all.im, count);
    return all;
  }
  alignas(64) float part[2 * simd::lanes];
  gather_points(x.at(first), x.stride, x.apart, count, part);
  return load_complex(part);
}
TERN_INLINE void store_points(points_view const& y, index first, index count, cpack const& all) {
  if (y.is_dense()) {
    if (count == simd::lanes) return simd::store_interleaved(y.at(first), all.re, all.im);
    return simd::store_interleaved_n(y.at(first), all.re, all.im, count);
  }
  alignas(64) float part[2 * simd::lanes];
  store_complex(part, all);
  scatter_points(part, y.at(first), y.stride, y.apart, count);
}

}  // namespace TERN_ABI
}  // namespace detail
}  // namespace tern

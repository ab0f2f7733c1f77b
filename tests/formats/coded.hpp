// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/formats/coded.hpp
/// Weights whose elements are scale (u - offset) + min, as their parts say.

#include "compare.hpp"

namespace tern::test {

/// All elements (n, k), in f32 and in the order that the formula has.
template <class W>
std::vector<float> decoded(W const& w) {
  std::vector<float> all;
  for (index row = 0; row < w.rows; ++row)
    for (index g = 0; g < w.columns / 32; ++g) {
      std::uint8_t u[32];
      float scale[32 / W::granule], min[32 / W::granule] = {};
      w.unpack(row, g, u);
      w.scales(row, g, scale, min);
      for (index j = 0; j < 32; ++j) {
        float const product = static_cast<float>(u[j] - W::offset) * scale[j / W::granule];
        all.push_back(W::has_min ? product + min[j / W::granule] : product);
      }
    }
  return all;
}
/// Whether all integers are ones that the products of 7 bits can take.
template <class W>
bool within_seven_bits(W const& w) {
  for (index row = 0; row < w.rows; ++row)
    for (index g = 0; g < w.columns / 32; ++g) {
      std::uint8_t u[32];
      w.unpack(row, g, u);
      for (std::uint8_t const x : u)
        if (x > 127) return false;
    }
  return true;
}

/// The square root of the sum of squared differences over that of squares.
inline double relative_error(std::vector<float> const& x, std::vector<float> const& y) {
  double error = 0, square = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    error += std::pow(static_cast<double>(x[i]) - static_cast<double>(y[i]), 2);
    square += std::pow(static_cast<double>(x[i]), 2);
  }
  return std::sqrt(error / square);
}

/// A copy of constants, through a pointer that the compiler does not see through: g++ 12 makes wrong code of copies of constant integers
/// whose 32 bytes begin with a repeated pattern, when it tunes for AVX-512.
template <class T, std::size_t N>
std::vector<T> list(T const (&x)[N]) {
  T const* const volatile first = x;
  T const* const begin = first;
  return {begin, begin + N};
}

/// Memory of a shape, in a vector.
template <class T>
struct matrix_of {
  std::vector<T> memory;
  tensor_view<T, 2> view;
  matrix_of(index rows, index columns) : memory(static_cast<std::size_t>(rows * columns)), view(memory.data(), shape<2>{{rows, columns}}) {}
};

}  // namespace tern::test

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/tokens/dense.hpp
/// Matrices of doubles, and the few operations of which systems are put together, by definition.

#include <cmath>
#include <functional>
#include <numeric>
#include <vector>

#include "compare.hpp"

namespace tern::test {

using matrix = std::vector<std::vector<double>>;

/// The elements of a view of rank 2.
template <class T>
matrix matrix_of(tensor_view<T, 2> const& v) {
  matrix m;
  for (index i = 0; i < v.extent(0); ++i) {
    m.emplace_back();
    for (index j = 0; j < v.extent(1); ++j) m.back().push_back(static_cast<double>(v(i, j)));
  }
  return m;
}
inline double inner(std::vector<double> const& a, std::vector<double> const& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}
inline double distance_squared(std::vector<double> const& a, std::vector<double> const& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sum;
}
/// a b^T
inline matrix product(matrix const& a, matrix const& b) {
  matrix y(a.size(), std::vector<double>(b.size()));
  for (std::size_t i = 0; i < a.size(); ++i)
    for (std::size_t j = 0; j < b.size(); ++j) y[i][j] = inner(a[i], b[j]);
  return y;
}
inline matrix transposed(matrix const& a) {
  matrix y(a.empty() ? 0 : a[0].size(), std::vector<double>(a.size()));
  for (std::size_t i = 0; i < a.size(); ++i)
    for (std::size_t j = 0; j < y.size(); ++j) y[j][i] = a[i][j];
  return y;
}
inline matrix each(matrix a, std::function<double(double)> const& f) {
  for (auto& row : a)
    for (double& e : row) e = f(e);
  return a;
}
inline void softmax_rows(matrix& a) {
  for (auto& row : a) {
    double top = -INFINITY, sum = 0;
    for (double e : row) top = std::max(top, e);
    for (double& e : row) sum += e = std::exp(e - top);
    for (double& e : row) e /= sum;
  }
}
/// Whether every element is within tolerance times `magnitude`.
template <class T>
comparison near(tensor_view<T, 2> const& got, matrix const& want, double magnitude, double tolerance) {
  std::vector<double> flat;
  for (auto const& row : want) flat.insert(flat.end(), row.begin(), row.end());
  return compare(got, std::span<double const>(flat), std::span<double const>(std::vector<double>(flat.size(), magnitude)), tolerance);
}

}  // namespace tern::test

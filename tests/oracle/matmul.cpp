// SPDX-License-Identifier: Apache-2.0
#include "oracle/matmul.hpp"

#include <Eigen/Core>
#include <algorithm>
#include <cmath>

namespace tern::oracle {
namespace {

using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using map = Eigen::Map<matrix const>;

std::vector<double> flat(matrix const& m) { return {m.data(), m.data() + m.size()}; }

/// To 11 bits of fraction and f16's range, ties to even.
double round_to_f16(double x) {
  if (x == 0 || !std::isfinite(x)) return x;
  int exponent;
  std::frexp(x, &exponent);
  double const unit = std::ldexp(1., std::max(exponent - 11, -24));
  double const rounded = std::nearbyint(x / unit) * unit;
  return std::abs(rounded) > 65504 ? std::copysign(INFINITY, x) : rounded;
}

}  // namespace

product matmul(std::vector<double> const& x, std::vector<double> const& w, std::ptrdiff_t rows, std::ptrdiff_t n, std::ptrdiff_t k) {
  map const a(x.data(), rows, k), b(w.data(), n, k);
  return {flat(a * b.transpose()), flat(a.cwiseAbs() * b.cwiseAbs().transpose())};
}

product matmul_int8(std::vector<double> const& x, std::vector<double> const& s, std::vector<double> const& w, std::vector<double> const& m,
                    std::ptrdiff_t rows, std::ptrdiff_t n, std::ptrdiff_t k) {
  std::ptrdiff_t const parts = static_cast<std::ptrdiff_t>(m.size()) / n, size = k / parts;
  map const a(x.data(), rows, k), sums(s.data(), rows, parts), b(w.data(), n, k), mins(m.data(), n, parts);
  matrix codes = b;
  for (std::ptrdiff_t g = 0; g < parts; ++g) codes.middleCols(size * g, size).colwise() -= mins.col(g);
  return {flat(a * codes.transpose() + sums * mins.transpose()),
          flat(a.cwiseAbs() * codes.cwiseAbs().transpose() + sums.cwiseAbs() * mins.cwiseAbs().transpose())};
}

double round_activations(float const* x, double* rounded) {
  float largest = 0;
  for (int i = 0; i < 32; ++i) largest = std::max(largest, std::abs(x[i]));
  float const inverse = largest == 0 ? 0 : 127.f / largest, step = largest / 127.f;
  double const d = round_to_f16(static_cast<double>(step));
  double sum = 0;
  for (int i = 0; i < 32; ++i) {
    double const q = std::nearbyint(static_cast<double>(x[i] * inverse));
    rounded[i] = d * q;
    sum += q;
  }
  return round_to_f16(static_cast<double>(step * static_cast<float>(sum)));
}

}  // namespace tern::oracle

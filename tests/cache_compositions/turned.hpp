// SPDX-License-Identifier: Apache-2.0
#pragma once
// A row turned to a position, in float64: pairs (i, i + dim / 2) of its first dim elements.
#include <tern/core/tensor_view.hpp>

#include <cmath>
#include <vector>

namespace tern::test {

template <class T>
std::vector<double> turned(T const* x, index dim, double position) {
  std::vector<double> y(static_cast<std::size_t>(dim));
  for (index i = 0; i < dim / 2; ++i) {
    double const angle = position * std::pow(10000., -2. * static_cast<double>(i) / static_cast<double>(dim));
    double const a = static_cast<double>(x[i]), b = static_cast<double>(x[i + dim / 2]);
    y[static_cast<std::size_t>(i)] = a * std::cos(angle) - b * std::sin(angle);
    y[static_cast<std::size_t>(i + dim / 2)] = b * std::cos(angle) + a * std::sin(angle);
  }
  return y;
}

}  // namespace tern::test

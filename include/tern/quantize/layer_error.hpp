// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file quantize/layer_error.hpp
/// What a layer's outputs lose by quantizing its weights, for the inputs that calibration saw:
///
///     error = ||X (W - Wq)^T||^2 / samples = tr((W - Wq) X^T X (W - Wq)^T) / samples
///
/// Products in f32, the last sums in f64: the relative error is about 2^-24 sqrt(k) times the condition of the sum, which is positive.
/// Cost: n k^2.

#include <tern/formats/decode.hpp>
#include <tern/quantize/calibration.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// tr(d X^T X d^T) / samples for differences d (n, k).
inline double weighed_square(cpu_policy const& policy, calibration const& seen, dense_matrix const& d) {
  dense_matrix h(d.columns, d.columns), product(d.rows, d.columns);
  for (index i = 0; i < h.rows; ++i)
    for (index j = 0; j < h.columns; ++j) h.row(i)[j] = static_cast<float>(seen.products(i)[j] / static_cast<double>(seen.samples()));
  if (d.rows == 0) return 0;
  matmul(policy, d.view(), h.view(), product.view());
  double sum = 0;
  for (std::size_t i = 0; i < d.elements.size(); ++i) sum += static_cast<double>(d.elements[i]) * static_cast<double>(product.elements[i]);
  return sum;
}

/// Wq - W
inline dense_matrix difference(cpu_policy const& policy, dense_matrix const& w, block_matrix const& q) {
  dense_matrix d(w.rows, w.columns);
  parallel_for(policy, w.rows, [&](index i, index) {
    decode(q, i, d.row(i));
    for (index j = 0; j < w.columns; ++j) d.row(i)[j] -= w.row(i)[j];
  });
  return d;
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// The mean squared error of a layer's outputs, summed over outputs. w: (n, k); q: the same, quantized; x: inputs (samples, k) or a
/// calibration.
template <tensor_like W, class X>
double layer_error(cpu_policy const& policy, W const& w, block_matrix const& q, X const& x) {
  auto const& seen = detail::calibration_of("layer_error", policy, x, tern::view(w).extent(1));
  detail::expect_equal("layer_error", "q's rows", q.rows, "w.extent(0)", tern::view(w).extent(0));
  detail::expect_equal("layer_error", "q's columns", q.columns, "w.extent(1)", tern::view(w).extent(1));
  return detail::weighed_square(policy, seen, detail::difference(policy, detail::dense(tern::view(w)), q));
}

}  // namespace TERN_ABI
}  // namespace tern

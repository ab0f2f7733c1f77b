// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/quantize/layer.hpp
/// Layers to quantize, and what they lose, in float64 and by definition.

#include "catch.hpp"
#include "compare.hpp"

#include <tern/core/thread_pool.hpp>
#include <tern/quantize.hpp>

#include <algorithm>

namespace tern::test {

using matrix = std::vector<double>;

/// Weights (n, k) and inputs (samples, k) that a few causes move together, with some columns much larger than others.
struct layer {
  index n, k, samples;
  std::vector<float> w, x;

  layer(rng& r, index rows, index columns, index inputs) : n(rows), k(columns), samples(inputs), w(r.normal(rows * columns, 0.05)) {
    index const causes = columns / 8;
    auto const mix = r.normal(causes * columns), size = r.normal(columns);
    x.resize(static_cast<std::size_t>(inputs * columns));
    for (index s = 0; s < inputs; ++s) {
      auto const cause = r.normal(causes);
      for (index j = 0; j < columns; ++j) {
        double sum = 0.3 * r.normal();
        for (index c = 0; c < causes; ++c)
          sum += static_cast<double>(cause[static_cast<std::size_t>(c)] * mix[static_cast<std::size_t>(c * columns + j)]) /
                 std::sqrt(static_cast<double>(causes));
        x[static_cast<std::size_t>(s * columns + j)] =
            static_cast<float>(sum * std::exp(static_cast<double>(size[static_cast<std::size_t>(j)])));
      }
    }
  }
  tensor_view<float const, 2> weights() const { return {w.data(), {n, k}}; }
  tensor_view<float const, 2> inputs() const { return {x.data(), {samples, k}}; }
};

inline std::vector<float> decoded(block_matrix const& q) {
  std::vector<float> all(static_cast<std::size_t>(q.rows * q.columns));
  for (index i = 0; i < q.rows; ++i) decode(q, i, all.data() + i * q.columns);
  return all;
}
inline std::vector<std::uint8_t> bytes_of(block_matrix const& q) { return {q.row(0), q.row(q.rows)}; }

/// ||X (W - Q)^T||^2 / samples; q: (n, k)
inline double naive_error(layer const& l, std::vector<float> const& q) {
  double total = 0;
  for (index s = 0; s < l.samples; ++s)
    for (index i = 0; i < l.n; ++i) {
      double y = 0;
      for (index j = 0; j < l.k; ++j) {
        auto const at = static_cast<std::size_t>(i * l.k + j);
        y += static_cast<double>(l.x[static_cast<std::size_t>(s * l.k + j)]) * (static_cast<double>(l.w[at]) - static_cast<double>(q[at]));
      }
      total += y * y;
    }
  return total / static_cast<double>(l.samples);
}
inline double naive_error(layer const& l, block_array const& q) { return naive_error(l, decoded(q)); }

/// Formats that have an encoder and are no ternary ones, and the block of each.
inline constexpr weight_type quantized_types[] = {
    weight_type::q4_0, weight_type::q4_1, weight_type::q5_0, weight_type::q5_1,   weight_type::q8_0,   weight_type::q2_k, weight_type::q3_k,
    weight_type::q4_k, weight_type::q5_k, weight_type::q6_k, weight_type::iq4_nl, weight_type::iq4_xs, weight_type::mxfp4};

}  // namespace tern::test

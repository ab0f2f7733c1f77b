// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/oracle/pointwise.hpp
/// float64 references for pointwise/. Each gives values and the magnitudes that a kernel's error is relative to. Tensors are
/// dense, (rows, n) in row-major order.

#include <cstddef>
#include <vector>

namespace tern::oracle {

using vector = std::vector<double>;

struct expected {
  vector value;
  vector magnitude;
};

/// Magnitude: |y|.
expected rms_norm(vector const& x, vector const& weight, double eps);
/// Magnitude: max |x - mu| / sigma |weight| + |bias|, the maximum over the row.
expected layer_norm(vector const& x, vector const& weight, vector const& bias, double eps);
/// Magnitude: y.
expected softmax(vector const& x, std::ptrdiff_t n, double scale);
/// Magnitude: |y|.
expected swiglu(vector const& gate, vector const& up);

struct rope_spec {
  bool half;         // pairs (i, i + d/2), otherwise (2i, 2i + 1)
  std::ptrdiff_t n;  // elements of a row
  std::ptrdiff_t d;  // of which the first d turn
  double base = 10000;
  double scale = 1;
  double magnitude = 1;
  vector factors = {};  // (d / 2) or empty
};
/// theta(position, i) for all i < d/2.
vector rope_angles(double position, rope_spec const& spec);
/// One position for each row of x. Magnitude: |x_a| + |x_b|, or |x| for elements that do not turn.
expected rope(vector const& x, vector const& positions, rope_spec const& spec);

/// What `tern::sampling` describes, by sorting: the probability of each token, zero where it is not kept.
vector sampling(vector const& logits, double temperature, std::ptrdiff_t top_k, double top_p, double min_p);

}  // namespace tern::oracle

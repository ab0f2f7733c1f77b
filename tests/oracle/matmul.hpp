// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/oracle/matmul.hpp
/// y = x w^T in float64, with the sum of absolute values that errors are relative to.

#include <cstddef>
#include <vector>

namespace tern::oracle {

struct product {
  std::vector<double> value, magnitude;  // (rows, n)
};

/// x: (rows, k), w: (n, k), row-major.
product matmul(std::vector<double> const& x, std::vector<double> const& w, std::ptrdiff_t rows, std::ptrdiff_t n, std::ptrdiff_t k);

/// What the 8-bit compute type is defined as. Activations in blocks of 32 are q d, with sums s; weights are (w - m) + m with a
/// minimum m for each block of 32 (zero where the format has none), or both in parts of another size, which m's own says:
///     y = sum over blocks of  d sum((w - m) q) + m s
product matmul_int8(std::vector<double> const& x, std::vector<double> const& s, std::vector<double> const& w, std::vector<double> const& m,
                    std::ptrdiff_t rows, std::ptrdiff_t n, std::ptrdiff_t k);

/// One block of 32 activations as that type rounds them: x becomes d q, and s is returned.
double round_activations(float const* x, double* rounded);

}  // namespace tern::oracle

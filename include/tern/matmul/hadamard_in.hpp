// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/hadamard_in.hpp
/// A prologue of a matmul that rotates x (pointwise/hadamard.hpp), in front of weights that were rotated off line by the same matrix:
///
///     y = (x H^T / sqrt k) (w H^T / sqrt k)^T = x w^T
///
///     tern::hadamard(policy, w, rotated);  ... quantize `rotated` ...
///     matmul(policy, x, rotated_weights, y, hadamard_in{k})
///
/// Outliers of x and w are spread over all columns before both are rounded; tern::halo_blocks (quantize/halo.hpp) rounds to blocks, and has
/// the products of training. hadamard_in{k, block} turns each `block` columns on their own.
/// Source: Ashkboos et al., "HALO: Hadamard-Assisted Lossless Optimization", 2025 (from knowledge).

#include <tern/pointwise/hadamard.hpp>

namespace tern {
inline namespace TERN_ABI {

/// x H^T / sqrt(k).
struct hadamard_in {
  /// Fails as pointwise/hadamard.hpp says.
  TERN_INLINE explicit hadamard_in(index k, index block = 0) : columns_(k), plan_(block > 0 ? block : k) {
    detail::expect(k % plan_.size() == 0, "hadamard_in", "block", plan_.size(), "a divisor of k");
  }
  void check(index, index k) const { detail::expect_equal("matmul", "hadamard_in's k", columns_, "x.extent(1)", k); }
  void prepare(float* x, index, index k) const { plan_(x, k); }

 private:
  index columns_;
  detail::hadamard_plan plan_;
};

}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file quantize/halo.hpp
/// HALO: both factors of a product are turned along the dimension that they share before they are rounded, so that outliers of either
/// spread over all of it, and the turns cancel out:
///
///     y = x w^T = (x H^T / sqrt k) (w H^T / sqrt k)^T
///
///     block_array q = halo_blocks(tern::cpu, w, weight_type::q8_0);    rounds w H^T / sqrt k
///     matmul(tern::cpu, x, q, y, compute::int8, hadamard_in{k});      turns x on the way
///
/// Training has three such products, each with a shared dimension of its own; w and x are views of any strides, so that what has
/// to be transposed is transposed as a view:
///
///     y = x w^T        over k         halo_blocks(w)               matmul(x, q, y, hadamard_in{k})            x (tokens, k), w (n, k)
///     dx = dy w        over n         halo_blocks(w transposed)    matmul(dy, q, dx, hadamard_in{n})          dy (tokens, n)
///     dw = dy^T x      over tokens    halo_blocks(x transposed)    matmul(dy^T, q, dw, hadamard_in{tokens})   dy^T: dy transposed
///
/// Other formats the same way: int8_rows::encode, exmy_weights and others of what tern::hadamard(policy, w, turned) writes.
///
/// block: columns that are turned together, a divisor of k; 0: all of them. The call then takes hadamard_in{k, block}.
/// Errors: w as quantize/problem.hpp; lengths without a Hadamard matrix (pointwise/hadamard.hpp). Cost: k log2 k additions a row, and the
/// encoder's. Results do not depend on threads.
/// Source: Ashkboos et al., "HALO: Hadamard-Assisted Lossless Optimization for Efficient Low-Precision LLM Training and Fine-Tuning",
/// 2025; the placement of the turns from knowledge.

#include <tern/pointwise/hadamard.hpp>
#include <tern/quantize/round_to_nearest.hpp>

namespace tern {
inline namespace TERN_ABI {

/// What halo_blocks may be told.
struct halo_options {
  index block = 0;               ///< columns that are turned together; 0: all
  progress_callback progress{};  ///< by rows
};

/// Turns weights (n, k) and rounds them to a block format, for products with hadamard_in.
template <tensor_like W>
block_array halo_blocks(cpu_policy const& policy, W const& w, weight_type type, halo_options const& options = {}) {
  auto weights = detail::dense_weights("halo_blocks", w, type);
  if (weights.columns > 0) hadamard(policy, weights.view(), weights.view(), options.block);
  return detail::round_dense(policy, weights, type, nullptr, options.progress);
}

}  // namespace TERN_ABI
}  // namespace tern

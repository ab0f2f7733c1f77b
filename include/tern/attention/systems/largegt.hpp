// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/largegt.hpp
/// LargeGT: attention for large graphs. A node attends to sampled neighbours, and to a codebook that stands for all nodes, each entry as
/// often as nodes are assigned to it.
///
///     local     out_i = sum_j softmax_j(q_i . k_j / sqrt(dim)) v_j                     j in list(i), rows of (X, A X, A^2 X) stacked
///     global    out_i = sum_c softmax_c(q_i . k_c / sqrt(dim) + log count_c) v_c       c over the codebook
///
///     tern::attention(policy, q, k, v, out, tern::gather_list(starts, list));           // row h nodes + j: hop h of node j
///     tern::log_counts(counts, logs);
///     tern::attention(policy, q, k_codebook, v_codebook, out, tern::count_weighted(logs, nodes));
///
/// Shapes    counts int32 (codes), logs f32 (codes). The lists are gather_list.hpp's. Projections of the codebook and of [x | position]
///           are matmuls, and the two outputs stand side by side in the feed-forward's input, as views of one tensor.
/// Empty     a code without nodes has a weight of zero.
/// Limits    counts that are all the same are plain attention to the codebook; lists of all nodes are dense.
/// Source    Dwivedi et al. 2023 (arXiv:2312.11109), and the authors' LargeGTLayer for the global part; sampling is the caller's.

#include <tern/attention/additive_mask.hpp>
#include <tern/attention/gather_list.hpp>

namespace tern {

/// log(count) of each code; -inf of an empty one.
template <tensor_like X, tensor_like Y>
TERN_INLINE void log_counts(X&& of_codes, Y&& out) {
  tensor_view<std::int32_t const, 1> const counts = tern::view(of_codes);
  tensor_view<float, 1> const logs = tern::view(out);
  detail::expect_equal("log_counts", "the extent of logs", logs.extent(0), "that of counts", counts.extent(0));
  for (index c = 0; c < counts.extent(0); ++c) {
    detail::expect(counts[c] >= 0, "log_counts", "a count", counts[c], "at least 0");
    logs[c] = counts[c] > 0 ? static_cast<float>(__builtin_log(static_cast<double>(counts[c]))) : -std::numeric_limits<float>::infinity();
  }
}

/// Adds what `logs` has for a code to the scores of all `queries`.
template <tensor_like X>
TERN_INLINE auto count_weighted(X&& of_codes, index queries) {
  tensor_view<float const, 1> const logs = tern::view(of_codes);
  return additive_mask(tensor_view<float const, 2>(logs.data(), shape<2>{{queries, logs.extent(0)}}, shape<2>{{0, logs.stride(0)}}));
}

}  // namespace tern

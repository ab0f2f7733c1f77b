// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/recall.hpp
/// How much of the weight of full attention lies on the keys that sparse attention looks at.
///
///     recall_h = mean over the queries i >= first of exp(sparse_hi - full_hi)
///
/// Shapes    sparse, full (heads, tokens): the log-sum-exps of both; recall (heads). A query that sees nothing in full is left out; a head
///           of no queries has recall 1.
/// Error     of exp, 3 u + u |sparse - full|, and of the sum; what the log-sum-exps are wrong by enters as it is.
/// Source    the attention recall of MInference (arXiv:2407.02490) and of the sparsity refinement of Qwen2.5-1M (arXiv:2501.15383).

#include <tern/core/error.hpp>
#include <tern/core/tensor_view.hpp>

namespace tern {
inline namespace TERN_ABI {

/// The recall of each head: see the top of this file.
inline void attention_recall(tensor_view<float const, 2> const& sparse, tensor_view<float const, 2> const& full,
                             tensor_view<float, 1> const& recall, index first = 0) {
  constexpr float nothing = -__builtin_inff();
  for (int d = 0; d < 2; ++d)
    detail::expect_equal("attention_recall", "an extent of sparse", sparse.extent(d), "that of full", full.extent(d));
  detail::expect_equal("attention_recall", "recall.extent(0)", recall.extent(0), "full.extent(0)", full.extent(0));
  for (index h = 0; h < full.extent(0); ++h) {
    double sum = 0, count = 0;
    for (index i = first; i < full.extent(1); ++i) {
      if (full(h, i) == nothing) continue;
      sum += static_cast<double>(__builtin_expf(sparse(h, i) - full(h, i)));
      count += 1;
    }
    recall[h] = count > 0 ? static_cast<float>(sum / count) : 1.f;
  }
}

}  // namespace TERN_ABI
}  // namespace tern

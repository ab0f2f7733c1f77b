// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/estimators/centroids.hpp
/// Which clusters of keys matter to some queries, judged by their centroids.
///
///     S_ri = exp(scale q_r . c_i) / sum_j N_j exp(scale q_r . c_j)         an estimate of the weight of one key of cluster i
///     score_i = mean over the queries r of S_ri,   kept where it is above a threshold T
///
/// With N_j the keys of cluster j; a cluster of N = 0 has no score and adds nothing. In two levels, fine clusters belong to coarse ones:
/// those of a coarse cluster that is not kept count N = 0.
///
///     centroid_scores(policy, q, centroids, counts, scores)      q (rows, dim), centroids (clusters, dim), counts, scores (clusters)
///     keep_members(labels, scores, threshold, counts, kept)      kept_f = counts_f where the score of coarse cluster labels_f is above T
///     select_members(labels, scores, threshold, to)              the keys of the kept clusters, ascending; returns how many
///
/// Composition  S is matmul, a row added, and softmax over clusters, which gives N_i S_i.
/// Shapes    q f32, f16 or bf16; all else f32. Scale is 1 / sqrt(dim). Scratch from the policy: rows (clusters) numbers.
/// Cost      2 rows clusters dim flop, and one pass over the labels.
/// Error     |score - exact| <= (softmax.error(clusters, t) + (matmul.accuracy(dim) + 4) u sum |q c|) score, t the largest score.
/// NaN       in q selects everything.
/// Source    Squeezed Attention (arXiv:2411.09688; clustering.py of its authors for the mean over queries, its llama model for
///           N = 0 in the second level).

#include <tern/attention/index_lists.hpp>
#include <tern/matmul/matmul.hpp>
#include <tern/pointwise/softmax.hpp>

namespace tern {
inline namespace TERN_ABI {

/// centroid_scores(policy, q, centroids, counts, scores): see the top of this file.
inline constexpr struct centroid_scores_fn {
  template <tensor_like Q>
  void operator()(cpu_policy const& policy, Q&& q, tensor_view<float const, 2> const& centroids, tensor_view<float const, 1> const& counts,
                  tensor_view<float, 1> const& scores) const {
    static_assert(view_of<Q>::rank == 2, "tern: centroid_scores takes q (rows, dim)");
    auto const x = tern::view(q);
    index const rows = x.extent(0), dim = x.extent(1), clusters = centroids.extent(0);
    detail::expect_equal("centroid_scores", "centroids.extent(1)", centroids.extent(1), "q.extent(1)", dim);
    detail::expect_equal("centroid_scores", "counts.extent(0)", counts.extent(0), "centroids.extent(0)", clusters);
    detail::expect_equal("centroid_scores", "scores.extent(0)", scores.extent(0), "centroids.extent(0)", clusters);
    workspace::lease const scratch(policy.scratch(), static_cast<std::size_t>((rows + 1) * clusters) * sizeof(float));
    auto const s = tern::view(reinterpret_cast<float*>(scratch.data()), rows + 1, clusters);
    auto const log_count = s[rows];
    float const scale = 1 / __builtin_sqrtf(static_cast<float>(dim > 0 ? dim : 1));
    for (index i = 0; i < clusters; ++i) log_count[i] = counts[i] > 0 ? __builtin_logf(counts[i]) : -__builtin_inff();
    matmul(policy, x, centroids, s.slice(0, 0, rows));
    for (index r = 0; r < rows; ++r)
      for (index i = 0; i < clusters; ++i) s(r, i) = s(r, i) * scale + log_count[i];
    softmax(policy, s.slice(0, 0, rows), s.slice(0, 0, rows));
    for (index i = 0; i < clusters; ++i) {
      float sum = 0;
      for (index r = 0; r < rows; ++r) sum += s(r, i);
      scores[i] = counts[i] > 0 ? sum / (counts[i] * static_cast<float>(rows)) : 0;
    }
  }
} centroid_scores{};

/// The counts of the fine clusters whose coarse cluster is kept, 0 for the others: see the top of this file.
TERN_INLINE void keep_members(tensor_view<std::int32_t const, 1> const& labels, tensor_view<float const, 1> const& scores, float threshold,
                              tensor_view<float const, 1> const& counts, tensor_view<float, 1> const& kept) {
  for (index f = 0; f < labels.extent(0); ++f) {
    float const score = scores[labels[f]];
    kept[f] = score > threshold || score != score ? counts[f] : 0;
  }
}

/// The keys of the clusters whose score is above the threshold, ascending: see the top of this file.
TERN_INLINE index select_members(tensor_view<std::int32_t const, 1> const& labels, tensor_view<float const, 1> const& scores,
                                 float threshold, tensor_view<std::int32_t, 1> const& to) {
  index count = 0;
  for (index j = 0; j < labels.extent(0); ++j) {
    float const score = scores[labels[j]];
    if (!(score > threshold || score != score)) continue;
    detail::expect(count < to.extent(0), "select_members", "the room for keys", to.extent(0), "one for each key that is selected");
    to[count++] = static_cast<std::int32_t>(j);
  }
  return count;
}

}  // namespace TERN_ABI
}  // namespace tern

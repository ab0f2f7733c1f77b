// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/squeezed_attention.hpp
/// Squeezed Attention: Accelerating Long Context Length LLM Inference (Hooper et al. 2024, arXiv:2411.09688).
///
/// A fixed context is clustered once, key head by key head (estimators/k_means.hpp). For each user input,
///
///     S_i = exp(scale q . c_i) / sum_j N_j exp(scale q . c_j)      for each cluster i, averaged over queries and heads that share keys
///     selected = the fixed keys of the clusters with S_i > T
///     o = softmax over (selected fixed keys, user keys up to the query's own) of q . k / sqrt(dim), times v
///
///     squeezed_select(policy, q, clusters, selected);                 one level
///     squeezed_select(policy, q, clusters, coarse, selected);         two: only members of a coarse cluster with S > its T are compared
///     squeezed_attention(policy, q, k_fixed, v_fixed, selected, k_user, v_user, out, lse);
///
/// Shapes    q, out (heads, tokens, dim); k_fixed, v_fixed (k_heads, fixed, dim), k_user, v_user (k_heads, user, dim); lse (heads, tokens).
///           centroids (k_heads, clusters, dim), counts (k_heads, clusters), labels (k_heads, fixed); of a coarse level, labels (k_heads,
///           fine clusters) and counts of keys. selected has a row for each key head, of up to `fixed` keys.
/// Composition  attention over the gathered keys, causal attention over the user's, merge.
/// Empty     where nothing is selected, the user's keys alone.
/// Memory    scratch from the policy: one more out and lse.
/// Cost      2 heads tokens clusters dim flop, and attention over what is selected.
/// Error     attention_accuracy and that of merge.
/// Source    the paper, and clustering.py of its authors, where T is a quantile of the scores over a calibration.

#include <tern/attention/attention.hpp>
#include <tern/attention/estimators/centroids.hpp>
#include <tern/attention/gathered.hpp>
#include <tern/attention/merge.hpp>

namespace tern {

/// One level of clusters: see the top of this file.
struct squeezed_clusters {
  tensor_view<float const, 3> centroids;      // (k_heads, clusters, dim)
  tensor_view<float const, 2> counts;         // (k_heads, clusters): keys of each
  tensor_view<std::int32_t const, 2> labels;  // (k_heads, keys or clusters of the level below)
  float threshold;
};

namespace detail {
inline namespace TERN_ABI {

/// The scores of a key head's clusters, over all queries of the heads that share it. `one` has room for as many numbers.
template <class Q>
inline void squeezed_scores(cpu_policy const& policy, tensor_view<Q, 3> const& q, index kh, squeezed_clusters const& of,
                            tensor_view<float const, 1> const& counts, tensor_view<float, 1> const& one,
                            tensor_view<float, 1> const& scores) {
  index const shared = q.extent(0) / of.centroids.extent(0);
  for (index c = 0; c < scores.extent(0); ++c) scores[c] = 0;
  for (index i = 0; i < shared; ++i) {
    centroid_scores(policy, q[kh * shared + i], of.centroids[kh], counts, one);
    for (index c = 0; c < scores.extent(0); ++c) scores[c] += one[c] / static_cast<float>(shared);
  }
}

template <class Q>
inline void squeezed_run(cpu_policy const& policy, tensor_view<Q, 3> const& q, squeezed_clusters const& fine,
                         squeezed_clusters const* coarse, index_lists const& selected) {
  index const k_heads = fine.centroids.extent(0), clusters = fine.centroids.extent(1),
              groups = coarse != nullptr ? coarse->centroids.extent(1) : 0;
  expect_divisor("squeezed_select", "the key heads of centroids", k_heads, "a divisor of the heads of q", q.extent(0));
  expect(selected.rows() >= k_heads, "squeezed_select", "the rows of selected", selected.rows(), "one for each key head");
  expect_equal("squeezed_select", "the key heads of labels", fine.labels.extent(0), "those of centroids", k_heads);
  expect_equal("squeezed_select", "the key heads of counts", fine.counts.extent(0), "those of centroids", k_heads);
  if (coarse != nullptr)
    expect_equal("squeezed_select", "the labels of the coarse level", coarse->labels.extent(1), "the fine clusters", clusters);
  workspace::lease const scratch(policy.scratch(), static_cast<std::size_t>(3 * clusters + 2 * groups) * sizeof(float));
  auto* const memory = reinterpret_cast<float*>(scratch.data());
  auto const one = tern::view(memory, clusters), scores = tern::view(memory + clusters, clusters),
             kept = tern::view(memory + 2 * clusters, clusters);
  auto const coarse_one = tern::view(memory + 3 * clusters, groups), coarse_scores = tern::view(memory + 3 * clusters + groups, groups);
  for (index kh = 0; kh < k_heads; ++kh) {
    tensor_view<float const, 1> counts = fine.counts[kh];
    if (coarse != nullptr) {
      squeezed_scores(policy, q, kh, *coarse, coarse->counts[kh], coarse_one, coarse_scores);
      keep_members(coarse->labels[kh], coarse_scores, coarse->threshold, counts, kept);
      counts = kept;
    }
    squeezed_scores(policy, q, kh, fine, counts, one, scores);
    selected.counts[kh] = static_cast<std::int32_t>(select_members(fine.labels[kh], scores, fine.threshold, selected.room(kh)));
  }
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// squeezed_select(policy, q, clusters, selected): see the top of this file.
inline constexpr struct squeezed_select_fn {
  template <tensor_like Q>
  void operator()(cpu_policy const& policy, Q&& q, squeezed_clusters const& clusters, index_lists const& selected) const {
    static_assert(view_of<Q>::rank == 3, "tern: squeezed_select takes q (heads, tokens, dim)");
    detail::squeezed_run(policy, tern::view(q), clusters, nullptr, selected);
  }
  template <tensor_like Q>
  void operator()(cpu_policy const& policy, Q&& q, squeezed_clusters const& fine, squeezed_clusters const& coarse,
                  index_lists const& selected) const {
    static_assert(view_of<Q>::rank == 3, "tern: squeezed_select takes q (heads, tokens, dim)");
    detail::squeezed_run(policy, tern::view(q), fine, &coarse, selected);
  }
} squeezed_select{};

/// squeezed_attention(policy, q, k_fixed, v_fixed, selected, k_user, v_user, out, lse): see the top of this file.
inline constexpr struct squeezed_attention_fn {
  template <tensor_like Q, tensor_like K, tensor_like V, tensor_like KU, tensor_like VU, tensor_like O, tensor_like L>
  void operator()(cpu_policy const& policy, Q&& q, K&& k_fixed, V&& v_fixed, index_lists const& selected, KU&& k_user, VU&& v_user, O&& out,
                  L&& lse) const {
    static_assert(view_of<Q>::rank == 3 && view_of<L>::rank == 2, "tern: squeezed_attention takes q (heads, tokens, dim)");
    auto const x = tern::view(q);
    auto const k = tern::view(k_fixed);
    index const heads = x.extent(0), tokens = x.extent(1), dim_v = tern::view(v_fixed).extent(2), rows = heads * tokens;
    workspace::lease const scratch(policy.scratch(), static_cast<std::size_t>(rows * (dim_v + 1)) * sizeof(float));
    auto const sparse = tern::view(reinterpret_cast<float*>(scratch.data()), heads, tokens, dim_v);
    auto const sparse_lse = tern::view(sparse.data() + rows * dim_v, heads, tokens);
    attention(policy, q, k_fixed, v_fixed, sparse, gathered{selected, heads, k.extent(0), tokens, k.extent(1)}, log_sum_exp{sparse_lse});
    attention(policy, q, k_user, v_user, out, causal{}, log_sum_exp{tern::view(lse)});
    merge(policy, sparse, sparse_lse, out, lse, out, lse);
  }
} squeezed_attention{};

}  // namespace TERN_ABI
}  // namespace tern

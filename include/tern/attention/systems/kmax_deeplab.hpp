// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/kmax_deeplab.hpp
/// k-means cross-attention: each pixel goes to the cluster that it resembles most, and each cluster sums the values of its pixels.
///
///     a_p = argmax_c centers_c . pixels_p,   update_c = sum of values_p over the pixels with a_p = c
///
///     kmax_deeplab(policy, centers, pixels, values, update, memory)
///
/// Two calls of attention: pixels ask centers for their largest score (top_keys), and each center attends with weight 1 to the
/// list of its pixels. Both leave out what they do not need: the first has values of width 0, the second queries and keys of width 0.
///
/// Shapes  centers (clusters, dim), pixels (n, dim), values (n, dim_v), update (clusters, dim_v). memory: see kmax_memory; its
///         `assignment` is a result too: the cluster of each pixel, of several the first, or -1 where scores are NaN.
/// Empty   a cluster without pixels gives zeros. The model adds the update, after its projection and norm, to the centers.
/// Cost    clusters n dim multiply-adds, then n dim_v additions.
/// Source  Yu et al. 2022, arXiv:2207.04044 (equations 4 to 6).

#include <tern/attention/attention.hpp>

namespace tern {
inline namespace TERN_ABI {

/// What kmax_deeplab writes besides the update.
struct kmax_memory {
  tensor_view<std::int32_t, 1> assignment;  ///< (n)
  tensor_view<float, 1> scores;             ///< (n): the score of each pixel with its cluster
  tensor_view<std::int32_t, 1> order;       ///< (n): pixels, cluster by cluster
  tensor_view<std::int32_t, 1> starts;      ///< (clusters + 1): where each cluster begins in `order`
};

/// A layout: query c sees the keys order[starts[c]], ..., order[starts[c + 1] - 1].
struct member_lists {
  static constexpr bool per_head = false;
  tensor_view<std::int32_t const, 1> order, starts;
  /// One cluster.
  struct members {
    static constexpr bool local = true;
    index queries, keys, cluster;
    std::int32_t const* list;
    TERN_INLINE index query(index) const { return cluster; }
    TERN_INLINE index key(index j) const { return static_cast<index>(list[j]); }
  };
  TERN_INLINE index groups(index, index) const { return starts.extent(0) - 1; }
  TERN_INLINE members group(index, index, index c) const {
    return {1, static_cast<index>(starts[c + 1] - starts[c]), c, order.data() + starts[c]};
  }
};

/// kmax_deeplab(policy, centers, pixels, values, update, memory): see the top of this file.
inline constexpr struct kmax_deeplab_fn {
  template <tensor_like C, tensor_like P, tensor_like V, tensor_like O>
  void operator()(cpu_policy const& policy, C&& centers, P&& pixels, V&& values, O&& update, kmax_memory const& memory) const {
    auto const c = tern::view(centers);
    auto const p = tern::view(pixels);
    index const clusters = c.extent(0), n = p.extent(0);
    check(memory, clusters, n);
    float none[1] = {};
    auto const nothing = [&](index rows) TERN_LAMBDA { return tensor_view<float, 2>(none, shape<2>{{rows, 0}}, shape<2>{{0, 1}}); };
    tensor_view<std::int32_t, 2> const ids(memory.assignment.data(), shape<2>{{n, 1}});
    tensor_view<float, 2> const scores(memory.scores.data(), shape<2>{{n, 1}});
    attention(policy, p, c, nothing(clusters), nothing(n), scale{1}, hard{}, top_keys{ids, scores});
    list_members(memory, clusters, n);
    auto const one = [](floats) TERN_LAMBDA { return floats(1.f); };
    attention(policy, nothing(clusters), nothing(n), values, update, member_lists{memory.order, memory.starts}, weigh_by(one));
  }

 private:
  static void check(kmax_memory const& m, index clusters, index n) {
    constexpr char const* op = "kmax_deeplab";
    detail::expect_equal(op, "the extent of assignment", m.assignment.extent(0), "the pixels", n);
    detail::expect_equal(op, "the extent of scores", m.scores.extent(0), "the pixels", n);
    detail::expect_equal(op, "the extent of order", m.order.extent(0), "the pixels", n);
    detail::expect_equal(op, "the extent of starts", m.starts.extent(0), "the clusters + 1", clusters + 1);
    bool const dense = m.assignment.is_contiguous() && m.scores.is_contiguous() && m.order.is_contiguous();
    detail::expect(dense, op, "the stride of memory", dense ? 1 : 0, "contiguous");
  }
  /// A counting sort of pixels by cluster.
  static void list_members(kmax_memory const& m, index clusters, index n) {
    for (index c = 0; c <= clusters; ++c) m.starts[c] = 0;
    for (index i = 0; i < n; ++i)
      if (m.assignment[i] >= 0) ++m.starts[m.assignment[i] + 1];
    for (index c = 0; c < clusters; ++c) m.starts[c + 1] += m.starts[c];
    for (index i = 0; i < n; ++i)
      if (m.assignment[i] >= 0) m.order[m.starts[m.assignment[i]]++] = static_cast<std::int32_t>(i);
    for (index c = clusters; c > 0; --c) m.starts[c] = m.starts[c - 1];  // each start has moved to its end
    m.starts[0] = 0;
  }
} kmax_deeplab{};

}  // namespace TERN_ABI
}  // namespace tern

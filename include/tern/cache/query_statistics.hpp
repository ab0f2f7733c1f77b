// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/query_statistics.hpp
/// What the queries of tokens that are still to come will look like: their mean and covariance, from queries seen so far.
///
///     query_statistics future(heads, dim);
///     future.fit(policy, q, first, count, options)     q (heads, tokens, dim) before rotation; the tokens to come stand at positions
///                                                      first ... first + count - 1
///
///     mean(g) = R m_g,   covariance(g) = R C_g R^T,   m_g = mean over t of q_gt,   C_g = mean over t of (q_gt - m_g) (q_gt - m_g)^T,
///     R = the mean over those positions of their rotations: each pair turns by the mean cosine and the mean sine
///
/// Options   as rope takes them (pointwise/rope.hpp).
/// Composition  matmul for the covariance, rope with one table row for R. Memory: heads (dim + dim^2) floats, and scratch from the policy
///           for the positions' table and one head's queries.
/// Cost      2 heads tokens dim^2 flop.
/// Source    Expected Attention (Devoto et al. 2025, arXiv:2510.00636).

#include <tern/core/growing.hpp>
#include <tern/matmul/matmul.hpp>
#include <tern/pointwise/rope.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
class query_statistics {
 public:
  query_statistics(index heads, index dim) : heads_(heads), dim_(dim) {
    detail::expect(heads >= 1, "query_statistics", "heads", heads, "at least 1");
    detail::expect(dim >= 1, "query_statistics", "dim", dim, "at least 1");
    memory_.reserve(heads * dim * (dim + 1));
    while (memory_.size() < heads * dim * (dim + 1)) memory_.push(0.f);
  }
  template <tensor_like Q>
  void fit(cpu_policy const& policy, Q&& q, index first, index count, rope_options const& options = {}) {
    static_assert(view_of<Q>::rank == 3, "tern: query_statistics::fit takes q (heads, tokens, dim)");
    constexpr char const* op = "query_statistics::fit";
    auto const x = tern::view(q);
    index const tokens = x.extent(1);
    detail::expect_equal(op, "q.extent(0)", x.extent(0), "heads", heads_);
    detail::expect_equal(op, "q.extent(2)", x.extent(2), "dim", dim_);
    detail::expect(tokens >= 1, op, "q.extent(1)", tokens, "at least 1");
    detail::expect(first >= 0 && count >= 1, op, "first or count", first < 0 ? first : count, "a position, and at least 1");
    index const turned = options.dimensions != 0 ? options.dimensions : dim_;
    workspace::lease const scratch(policy.scratch(), static_cast<std::size_t>((count + 1) * turned + tokens * dim_) * sizeof(float));
    auto const table = tern::view(reinterpret_cast<float*>(scratch.data()), count, turned);
    auto const mean_turn = tern::view(table.data() + count * turned, turned);
    auto const centered = tern::view(mean_turn.data() + turned, dim_, tokens);
    rope_table(policy, first, table, options);
    average(table, mean_turn);
    tensor_view<float const, 2> const turn(mean_turn.data(), shape<2>{{dim_, turned}}, shape<2>{{0, 1}});  // the same for all rows
    for (index g = 0; g < heads_; ++g) {
      average(x[g], mean_of(g));
      for (index t = 0; t < tokens; ++t)
        for (index d = 0; d < dim_; ++d) centered(d, t) = static_cast<float>(x(g, t, d)) - mean_of(g)[d];
      matmul(policy, centered, centered, covariance_of(g));
      for (index i = 0; i < dim_ * dim_; ++i) covariance_of(g).data()[i] /= static_cast<float>(tokens);
      rope(policy, tern::view(mean_of(g).data(), index{1}, dim_), turn.slice(0, 0, 1), options);
      for (int side = 0; side < 2; ++side) {  // C R^T, then R C R^T by its transpose
        rope(policy, covariance_of(g), turn, options);
        transpose(covariance_of(g));
      }
    }
  }
  TERN_INLINE index heads() const { return heads_; }
  TERN_INLINE index dim() const { return dim_; }
  /// Of query head g.
  TERN_INLINE tensor_view<float const, 1> mean(index g) const { return {memory_.data() + g * dim_, shape<1>{{dim_}}}; }
  TERN_INLINE tensor_view<float const, 2> covariance(index g) const {
    return {memory_.data() + (heads_ + g * dim_) * dim_, shape<2>{{dim_, dim_}}};
  }

 private:
  TERN_INLINE tensor_view<float, 1> mean_of(index g) { return {memory_.data() + g * dim_, shape<1>{{dim_}}}; }
  TERN_INLINE tensor_view<float, 2> covariance_of(index g) { return {memory_.data() + (heads_ + g * dim_) * dim_, shape<2>{{dim_, dim_}}}; }
  /// The mean of rows.
  template <class X>
  TERN_INLINE static void average(X const& rows, tensor_view<float, 1> const& to) {
    for (index d = 0; d < rows.extent(1); ++d) {
      double sum = 0;
      for (index t = 0; t < rows.extent(0); ++t) sum += static_cast<double>(static_cast<float>(rows(t, d)));
      to[d] = static_cast<float>(sum / static_cast<double>(rows.extent(0)));
    }
  }
  TERN_INLINE static void transpose(tensor_view<float, 2> const& x) {
    for (index i = 0; i < x.extent(0); ++i)
      for (index j = 0; j < i; ++j) {
        float const other = x(i, j);
        x(i, j) = x(j, i);
        x(j, i) = other;
      }
  }
  index heads_, dim_;
  detail::growing<float> memory_;  // means (heads, dim), covariances (heads, dim, dim)
};

}  // namespace TERN_ABI
}  // namespace tern

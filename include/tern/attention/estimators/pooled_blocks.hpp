// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/estimators/pooled_blocks.hpp
/// Which blocks of 64 keys matter to each block of 64 queries, judged by their means.
///
///     score_gb = mean(q rows of block g) . mean(k rows of block b),   of the blocks b that some query of block g may see
///     blocks of g = the `budget` with the largest scores
///
/// Shapes    q (tokens, dim), k (keys, dim) of one head, f32, f16 or bf16; the last query stands at the last key. Row `first_row` + g of
///           `blocks` gets the key blocks of query block g, ascending: as block_runs of vertical_slash.hpp takes them.
/// Ties      go to the first block.
/// Composition  pooling is one pass over q and k; the scores are a matmul, of 64 query blocks at a time.
/// Memory    scratch from the policy: the means, and 64 scores a key block.
/// Cost      (tokens + keys) dim additions, 2 (tokens / 64) (keys / 64) dim flop.
/// Error     of a score, the bound of matmul, and of each mean sqrt(64) u of the mean of absolute values.
/// Source    MInference (arXiv:2407.02490, algorithm 3; block_sparse_flash_attention.py of its authors, which divides the last, shorter
///           block by 64 where this divides by its rows).

#include <tern/attention/rows.hpp>
#include <tern/attention/vertical_slash.hpp>
#include <tern/matmul/matmul.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// to[b] = the mean of rows [64 b, 64 b + 64) of x, or of as many as there are.
template <class T>
inline void pool_rows(tensor_view<T, 2> const& x, float* to) noexcept {
  constexpr index W = simd::lanes;
  using packf = simd::pack<float>;
  index const rows = x.extent(0), dim = x.extent(1);
  for (index r0 = 0; r0 < rows; r0 += sparse_block, to += dim) {
    index const count = rows - r0 < sparse_block ? rows - r0 : sparse_block;
    packf const share(1 / static_cast<float>(count));
    for (index d = 0; d < dim; d += W) {
      index const some = dim - d < W ? dim - d : W;
      packf sum(0.f);
      for (index r = r0; r < r0 + count; ++r) {
        T const* const from = x.data() + r * x.stride(0) + d;
        sum += some == W ? simd::load(from) : simd::load_n(from, some);
      }
      if (some == W)
        simd::store(to + d, sum * share);
      else
        simd::store_n(to + d, sum * share, some);
    }
  }
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// estimate_blocks(policy, q, k, budget, blocks, first_row): see the top of this file.
inline constexpr struct estimate_blocks_fn {
  template <tensor_like Q, tensor_like K>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, index budget, index_lists const& blocks, index first_row = 0) const {
    static_assert(view_of<Q>::rank == 2 && view_of<K>::rank == 2, "tern: estimate_blocks takes q (tokens, dim) and k (keys, dim)");
    constexpr index some = 64;
    auto const vq = tern::view(q);
    auto const vk = tern::view(k);
    index const tokens = vq.extent(0), keys = vk.extent(0), dim = vq.extent(1);
    index const q_blocks = detail::divide_up(tokens, sparse_block), k_blocks = detail::divide_up(keys, sparse_block);
    detail::expect(tokens <= keys, "estimate_blocks", "q.extent(0)", tokens, "at most the keys");
    detail::expect_equal("estimate_blocks", "k.extent(1)", vk.extent(1), "q.extent(1)", dim);
    detail::expect(dim <= 1 || (vq.stride(1) == 1 && vk.stride(1) == 1), "estimate_blocks", "the last stride of k", vk.stride(1),
                   "1, as that of q (contiguous rows)");
    detail::expect(first_row + q_blocks <= blocks.rows(), "estimate_blocks", "the rows of blocks", blocks.rows(),
                   "one for each block of queries");
    workspace::lease const scratch(policy.scratch(),
                                   static_cast<std::size_t>((q_blocks + k_blocks) * dim + some * k_blocks) * sizeof(float));
    float* const q_mean = reinterpret_cast<float*>(scratch.data());
    float *const k_mean = q_mean + q_blocks * dim, *const scores = k_mean + k_blocks * dim;
    detail::pool_rows(vq, q_mean);
    detail::pool_rows(vk, k_mean);
    for (index g0 = 0; g0 < q_blocks; g0 += some) {
      index const count = q_blocks - g0 < some ? q_blocks - g0 : some;
      matmul(policy, tern::view(q_mean + g0 * dim, count, dim), tern::view(k_mean, k_blocks, dim), tern::view(scores, count, k_blocks));
      for (index g = g0; g < g0 + count; ++g) {
        index const position = keys - tokens + g * sparse_block, end = position + sparse_block < keys ? position + sparse_block : keys;
        index const visible = detail::divide_up(end, sparse_block);
        blocks.counts[first_row + g] =
            static_cast<std::int32_t>(select_top(tern::view(scores + (g - g0) * k_blocks, visible), budget, blocks.room(first_row + g)));
      }
    }
  }
} estimate_blocks{};

}  // namespace TERN_ABI
}  // namespace tern

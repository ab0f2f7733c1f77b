// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/halonet.hpp
/// Blocked local attention with a halo, and a relative term that depends on the query.
///
///     out_i = sum_j softmax_j(q_i . k_j / sqrt(dim) + q_i . r_rows(y_j - y_i) + q_i . r_columns(x_j - x_i)) v_j
///
/// over the keys j of i's block and of the halo around it.
///
///     halonet(policy, q, k, v, out, halo{image, block, reach}, rows, columns, terms)
///
/// Shapes  q (heads, tokens, dim), and k, v, out as in attention; with a stride in the halo (attention that downsamples) q and out
///         hold every stride-th token. rows (2 (block_0 + reach_0) - 1, dim) and columns (2 (block_1 + reach_1) - 1, dim), for all
///         heads: r of offset -(block + reach - 1) first. terms (heads, tokens, both numbers of rows together), f32: memory for the
///         products q.r, which two calls of matmul for each head fill.
/// Borders the halo ends at the border of the image, as in the public implementations that mask their padding; the paper pads with
///         zeros. The paper lets each of r_rows and r_columns have half of the dim: leave the other half zero.
/// Scale   q.r is not scaled, as the formula says; where a model scales q beforehand, scale the tables.
/// Source  Vaswani et al. 2021, arXiv:2103.12731; the relative term as in Ramachandran et al. 2019, arXiv:1906.05909; checked against
///         github.com/lucidrains/halonet-pytorch.

#include <tern/attention/attention.hpp>
#include <tern/attention/halo.hpp>
#include <tern/attention/relative_table.hpp>
#include <tern/matmul/matmul.hpp>

namespace tern {
inline namespace TERN_ABI {

/// halonet(policy, q, k, v, out, halo, rows, columns, terms, options...): see the top of this file.
inline constexpr struct halonet_fn {
  template <tensor_like Q, detail::key_source K, detail::key_source V, tensor_like O, tensor_like R, tensor_like C, tensor_like T,
            detail::attention_option... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, halo<2> const& layout, R&& rows, C&& columns, T&& terms,
                  Options const&... options) const {
    static_assert(view_of<Q>::rank == 3 && view_of<T>::rank == 3,
                  "tern: halonet takes q (heads, tokens, dim) and terms (heads, tokens, n)");
    auto const queries = tern::view(q);
    auto const products = tern::view(terms);
    shape<2> reach{};
    for (int a = 0; a < 2; ++a) reach.extents[a] = layout.block.extents[a] + layout.reach.extents[a] - 1;
    index const first = 2 * reach.extents[0] + 1, all = first + 2 * reach.extents[1] + 1;
    detail::expect_equal("halonet", "terms.extent(0)", products.extent(0), "the heads of q", queries.extent(0));
    detail::expect_equal("halonet", "terms.extent(2)", products.extent(2), "the rows of both tables", all);
    for (index h = 0; h < queries.extent(0); ++h) {
      matmul(policy, queries[h], rows, products[h].slice(1, 0, first));
      matmul(policy, queries[h], columns, products[h].slice(1, first, all));
    }
    attention(policy, q, k, v, out, layout, relative_products<2>(products, layout.image, reach, layout.stride), options...);
  }
} halonet{};

}  // namespace TERN_ABI
}  // namespace tern

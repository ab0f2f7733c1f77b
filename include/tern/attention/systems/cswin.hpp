// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/cswin.hpp
/// Cross-shaped window attention: half of the heads attend within vertical stripes of an image, half within horizontal ones.
///
///     out_i = sum_j softmax_j(q_i . k_j / sqrt(dim)) v_j + LePE(v)_i,   over the tokens j of i's stripe
///
///     cswin(policy, q, k, v, out, shape{height, width}, stripe_width)
///     cswin(policy, q, k, v, out, shape{height, width}, stripe_width, lepe)
///
/// The first half of the heads has vertical stripes (height x stripe_width), as in the authors' code; the paper draws them the other
/// way round. LePE, the locally-enhanced positional encoding, is a depthwise 3 x 3 convolution of v within each stripe (zeros outside
/// of it). tern has no convolution yet: the caller hands over its result `lepe`, shaped like out, which is added.
///
/// Shapes  (heads, tokens, dim) or (batch, heads, tokens, dim), tokens of the image row-major; an even number of heads. The last
///         stripe is narrower where the width does not divide; the authors' code asks that it does.
/// Cost    heads tokens dim times stripe_width (height + width) / 2 multiply-adds, twice.
/// Source  Dong et al. 2021, arXiv:2107.00652; github.com/microsoft/CSWin-Transformer, models/cswin.py.

#include <tern/attention/attention.hpp>
#include <tern/attention/stripes.hpp>
#include <tern/pointwise/add.hpp>

namespace tern {
inline namespace TERN_ABI {

/// cswin(policy, q, k, v, out, image, stripe_width[, lepe], options...): see the top of this file.
inline constexpr struct cswin_fn {
  template <tensor_like Q, detail::key_source K, detail::key_source V, tensor_like O, detail::attention_option... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, shape<2> const& image, index stripe_width,
                  Options const&... options) const {
    constexpr int rank = view_of<Q>::rank;
    static_assert(rank >= 3, "tern: cswin has different stripes for different heads: q is (heads, tokens, dim) or with a batch in front");
    index const heads = tern::view(q).extent(rank - 3);
    detail::expect(heads % 2 == 0, "cswin", "the heads of q", heads, "an even number");
    attention(policy, q, k, v, out, stripes{image, stripe_width, heads / 2}, options...);
  }
  template <tensor_like Q, detail::key_source K, detail::key_source V, tensor_like O, tensor_like L, detail::attention_option... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, shape<2> const& image, index stripe_width, L&& lepe,
                  Options const&... options) const {
    (*this)(policy, q, k, v, out, image, stripe_width, options...);
    add(policy, out, lepe, out);
  }
} cswin{};

}  // namespace TERN_ABI
}  // namespace tern

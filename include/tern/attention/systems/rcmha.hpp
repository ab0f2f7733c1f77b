// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/rcmha.hpp
/// RCMHA, relative convolutional multi-head attention: Transformer-XL's relative scores over q, k and v that went through a depthwise
/// convolution over time.
///
///     x'_t = sum_{c<3} filter_c x_{t-2+c}   for x = q, k, v, each channel by itself, causal
///     s_ij = ((q'_i + u_h) . k'_j + (q'_i + w_h) . r_{i-j}) / sqrt(dim),   out = softmax(s) v'
///
///     rcmha(policy, q, k, v, r, u, w, out, options...)
///
/// q, k and v are given convolved: the depthwise convolution is the caller's, part of the projections as in Primer (So et al. 2021),
/// whose multi-dconv-head attention this combines with Transformer-XL. Shapes, memory and cost: attention/systems/transformer_xl.hpp.
/// Source  Sugiharto et al. 2023 (arXiv:2308.03429), abstract; kernel length 3 as in multi-dconv-head attention (arXiv:2109.08668).

#include <tern/attention/systems/transformer_xl.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr transformer_xl_fn rcmha{};

}  // namespace TERN_ABI
}  // namespace tern

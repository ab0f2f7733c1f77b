// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/mosaic_bert.hpp
/// MosaicBERT's attention: bidirectional, with ALiBi, over sequences packed without padding.
///
///     out = softmax(q k^T / sqrt(dim) - m_h |i - j|) v
///
///     mosaic_bert(policy, q, k, v, out, slopes, options...)
///
/// slopes (heads), alibi_slope(heads, h) for the paper's. Packed batches: a layout of sequences among `options`; the distance of two
/// tokens of one sequence is the same packed or not. The block's other parts are kernels of their own: tern::layer_norm over bf16, and a
/// gated feed-forward (GeGLU).
/// Shapes, errors, cost: attention/attention.hpp.
/// Source  Portes et al. 2023 (arXiv:2312.17482).

#include <tern/attention/alibi.hpp>
#include <tern/attention/attention.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr struct mosaic_bert_fn {
  template <tensor_like Q, detail::key_source K, detail::key_source V, tensor_like O, tensor_like M, class... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, M&& slopes, Options const&... options) const {
    attention(policy, q, k, v, out, alibi{slopes}, options...);
  }
} mosaic_bert{};

}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/anchor_attention.hpp
/// AnchorAttention: documents packed into a long context attend within themselves and to the first token, which all share.
///
///     key j is seen by query i:   j <= i and (doc(i) == doc(j) or j == 0)
///
///     tern::attention(policy, q, k, v, out, tern::anchor_attention(ids));
///
/// Shapes    ids int32 (tokens), or (batch, tokens) for documents of each batch, ascending; with ids of queries and of keys where a chunk
///           of queries meets a longer context.
/// Positions are not reset: token t has position t in all documents, so the anchor has one. Rotate q and k in f32, as tern::rope does
///           whatever their type: rotations rounded to bf16 lose the relative position, the first token's first of all, which is what
///           the paper is about. Store the rotated rows in f32.
/// Limits    one document is causal; documents of one token see themselves and the anchor.
/// Cost      as intra-document attention: tiles between documents are not computed, but the anchor's column.
/// Source    Wang et al. 2025 (arXiv:2411.13476), and the mask in the authors' training code (AnchorContext).

#include <tern/attention/document_ids.hpp>

namespace tern {

/// The mask of documents that share their first token.
template <tensor_like X>
TERN_INLINE constexpr auto anchor_attention(X&& ids) {
  if constexpr (view_of<X>::rank == 2)
    return document_ids_by_batch(ids, 1) & causal{};
  else
    return document_ids(ids, 1) & causal{};
}
/// The same for a chunk of queries.
template <tensor_like X, tensor_like Y>
TERN_INLINE constexpr auto anchor_attention(X&& query_ids, Y&& key_ids) {
  return document_ids(query_ids, key_ids, 1) & causal{};
}

}  // namespace tern

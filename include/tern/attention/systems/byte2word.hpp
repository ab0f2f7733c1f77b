// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/byte2word.hpp
/// Byte2Word: one vector for each word, from the bytes of that word alone, by cross-attention of a query of the word's.
///
///     out_w = sum_j softmax_j(q_w . k_j / sqrt(dim)) v_j      j in the bytes [offsets[w], offsets[w + 1]) of word w
///
///     tern::attention(policy, q, k, v, out, tern::byte2word(offsets, words));
///
/// Shapes    offsets int32 (words + 1), words int32 (words + 1) holding 0, 1, ..., words; q (heads, words, dim), where a query that all
///           words share has a token stride of 0; k and v (heads, bytes, dim). For n queries a word, words holds 0, n, 2 n, ...
/// Empty     a word without bytes gives zeros.
/// Cost      bytes * queries of a word.
/// Source    Lee et al. 2022 (arXiv:2211.12677), in words: a cross-attention network builds words from bytes.

#include <tern/attention/varlen.hpp>

namespace tern {

/// Words meet their bytes.
template <tensor_like X, tensor_like Y>
TERN_INLINE constexpr varlen byte2word(X&& offsets, Y&& words) {
  return varlen(words, offsets);
}

}  // namespace tern

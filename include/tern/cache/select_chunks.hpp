// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/select_chunks.hpp
/// Whole chunks of neighbouring tokens stay: those whose scores together are the largest.
///
///     select_chunks(scores, chunk, budget, protect{0, 32}, kept)     each key head its own (budget - protected) / chunk chunks
///
/// Shapes    scores (kv_heads, keys) f32, of which the first of each chunk becomes the chunk's; kept a row for each key head with a
///           place for each key.
/// Chunks    `chunk` tokens each, the last maybe fewer, between the protected first and last tokens of a head, which stay besides;
///           where a head has fewer tokens than the longest, its scores end with -inf (cache/select_tokens.hpp).
/// Score     the sum over the chunk, or the mean (which differs for the last chunk alone). Ties go to the earlier chunk.
///           A budget of at least the head's tokens keeps all.
/// Source    ChunkKV (Liu et al. 2025, arXiv:2502.00299) sums; kvpress takes the mean.

#include <tern/cache/select_tokens.hpp>

namespace tern {

/// What stands for a chunk.
enum class chunk_score { sum, mean };

/// See the top of this file.
TERN_INLINE void select_chunks(tensor_view<float, 2> const& scores, index chunk, index budget, protect const& always,
                               index_lists const& kept, chunk_score by = chunk_score::sum) {
  constexpr char const* op = "select_chunks";
  detail::expect(chunk >= 1, op, "chunk", chunk, "at least 1");
  detail::expect(budget >= 0, op, "budget", budget, "at least 0");
  detail::check_room(op, scores.extent(0), kept);
  detail::expect(kept.most() >= scores.extent(1), op, "the room of kept", kept.most(), "a place for each key");
  for (index h = 0; h < scores.extent(0); ++h) {
    auto const [length, first, last] = detail::protected_tokens(scores[h], budget, always);
    index const inner = length - first - last, chunks = (inner + chunk - 1) / chunk;
    index const taken = budget >= length ? chunks : (budget - first - last) / chunk;
    tensor_view<float, 1> const sums(scores.data() + h * scores.stride(0) + first * scores.stride(1), shape<1>{{chunks}},
                                     shape<1>{{chunk * scores.stride(1)}});
    auto const size = [&](index c) TERN_LAMBDA { return c * chunk + chunk < inner ? chunk : inner - c * chunk; };
    for (index c = 0; c < chunks; ++c) {
      float sum = 0;
      for (index j = 0; j < size(c); ++j) sum += scores(h, first + c * chunk + j);
      sums[c] = by == chunk_score::sum ? sum : sum / static_cast<float>(size(c));
    }
    std::int32_t* const list = kept.row(h);
    index const count = taken < chunks ? select_top(sums, taken, kept.room(h)) : chunks;
    // Numbers of chunks become tokens, from the last: those take no place of a number that is still to be read.
    index total = first + last;
    for (index i = 0; i < count; ++i) total += size(taken < chunks ? list[i] : i);
    kept.counts[h] = static_cast<std::int32_t>(total);
    for (index j = length; j > length - last; --j) list[--total] = static_cast<std::int32_t>(j - 1);
    for (index i = count; i > 0; --i) {
      index const c = taken < chunks ? list[i - 1] : i - 1;
      for (index j = size(c); j > 0; --j) list[--total] = static_cast<std::int32_t>(first + c * chunk + j - 1);
    }
    for (index j = 0; j < first; ++j) list[j] = static_cast<std::int32_t>(j);
  }
}

}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/dual_chunk_attention.hpp
/// Dual chunk attention (Qwen2.5-1M): positions beyond those a model was trained for are replaced by ones it knows.
///
///     s = chunk - local; keys stand at j mod s; a query in the chunk of key j, in the next, or farther on stands at
///
///         same chunk         i mod s
///         next chunk         min(i mod s + s, chunk)          the `local` keys before a chunk keep their distance
///         farther            min(2 s - 1, chunk)
///
///     dual_chunk_attention(policy, q, k, v, out, lse, table, chunk, local, pairing, options...)
///
/// Three calls of the engine over the key ranges of the three cases, and their merge. Causal; queries are aligned bottom-right.
/// Shapes  k not rotated; table (rows, d) of tern::rope_table from position 0, more than `chunk` rows; lse (heads, tokens) or (batch,
///         heads, tokens). The attention temperature for a context s times as long is the table's magnitude, yarn_magnitude(s).
/// Memory  from the policy: three results of the shape of out, f32, and what the calls take.
/// Cost    that of one causal call; a key is rotated by each call that sees it.
/// Sparse  prefilling takes its vertical-slash masks as one of `options`, as chunked prefilling takes more keys than queries; whether a
///         sparse result misses too much is told by lse against that of the full call.
/// Source  An et al. 2024 (arXiv:2402.17463), Qwen2.5-1M (arXiv:2501.15383); positions as in the authors' code and vLLM's.

#include <tern/attention/partials.hpp>
#include <tern/attention/rotary.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// Keys up to the query's position, from `nearest` to `farthest` chunks before its own.
struct chunk_mask {
  index size, offset, nearest, farthest;
  TERN_INLINE index chunk_of(index i) const {
    index const p = i + offset;
    return p >= 0 ? p / size : -1 - (-1 - p) / size;
  }
  /// Ascending in i, as its end is.
  TERN_INLINE key_range row(index i) const {
    index const c = chunk_of(i), end = (c - nearest + 1) * size, begin = farthest > c ? 0 : (c - farthest) * size;
    return {begin, end < i + offset + 1 ? end : i + offset + 1};
  }
  TERN_INLINE key_range range(index i0, index i1) const { return {row(i0).begin, row(i1 - 1).end}; }
  TERN_INLINE coverage covers(index i0, index i1, index j0, index j1) const {
    if (j1 <= row(i0).begin || j0 >= row(i1 - 1).end) return coverage::none;
    return row(i1 - 1).begin <= j0 && j1 <= row(i0).end ? coverage::all : coverage::some;
  }
  TERN_INLINE bool visible(index i, index j) const { return row(i).begin <= j && j < row(i).end; }
};

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr struct dual_chunk_attention_fn {
  template <tensor_like Q, tensor_like K, tensor_like V, tensor_like O, tensor_like L, class... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, L&& lse, tensor_view<float const, 2> const& table, index chunk,
                  index local, rope_pairing pairing = rope_pairing::interleaved, Options const&... options) const {
    constexpr char const* op = "dual_chunk_attention";
    detail::expect(local >= 0 && local < chunk, op, "the local window", local, "at least 0 and less than the chunk");
    detail::expect(table.extent(0) > chunk, op, "table.extent(0)", table.extent(0), "more than the chunk");
    constexpr int rank = view_of<O>::rank;
    auto const to = tern::view(out);
    index const s = chunk - local, far = std::numeric_limits<index>::max();
    index const offset = tern::view(k).extent(rank - 2) - to.extent(rank - 2), inter = 2 * s - 1 < chunk ? 2 * s - 1 : chunk;
    rotary_rows const keys{table, s};
    rotary_rows const queries[3] = {{table, s}, {table, s, 1, s, chunk}, {table, 1, 1, inter}};
    detail::partial_results<rank> const parts(policy, 3, to);
    for (index c = 0; c < 3; ++c)
      attention(policy, q, k, v, parts.out(c), parts.lse(c), detail::chunk_mask{s, offset, c, c < 2 ? c : far},
                rotary{queries[c], keys, pairing}, options...);
    parts.merge_into(policy, to, tern::view(lse));
  }
} dual_chunk_attention{};

}  // namespace TERN_ABI
}  // namespace tern

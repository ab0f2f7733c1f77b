// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/byte_transformer.hpp
/// ByteTransformer: no computation on padding. Padded rows are packed once, all operators run on packed rows, and the last one's are
/// unpacked; attention sees each sequence by its cumulative lengths.
///
///     index const tokens = tern::unpad_index(lengths, padded_length, cu, rows);      // or unpad_index(mask, cu, rows)
///     tern::embedding(policy, rows, padded, packed);                                 // pack: packed_t = padded[rows_t]
///     ...projections, bias and activation, layer norm on (tokens, n)...
///     tern::attention(policy, q, k, v, out, tern::varlen(cu));                       // q, k, v views (heads, tokens, dim) of packed rows
///     tern::repad(policy, packed, rows, padded);                                     // padded[rows_t] = packed_t, and zeros elsewhere
///
/// Shapes    lengths int32 (batch), or mask bool or uint8 (batch, padded length), where not zero is a token; cu int32 (batch + 1);
///           rows int32, room for all tokens: its first `tokens` elements are written, sequence by sequence. padded is
///           (batch * padded length, n), packed (tokens, n).
/// Types     of rows f32, f16 or bf16 each.
/// Errors    lengths beyond the padded length, too little room, rows that do not ascend or lie outside padded.
/// Cost      packing and unpacking read and write each element once; everything between costs tokens, not batch * padded length.
/// Source    Zhai et al. 2023 (arXiv:2210.03052): algorithm of section III-D (prefix sum of the mask, pack, unpack) and III-E (fused
///           attention for variable lengths). The paper's other fusions (bias with activation, residual with layer norm) are those of
///           pointwise and matmul.

#include <tern/attention/varlen.hpp>
#include <tern/pointwise/rows.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

TERN_INLINE void put_row(tensor_view<std::int32_t, 1> const& rows, index at, index row) {
  expect(at < rows.extent(0), "unpad_index", "the extent of rows", rows.extent(0), "room for each token");
  rows[at] = static_cast<std::int32_t>(row);
}

/// Zeros in rows [from, to).
template <class T>
TERN_INLINE void clear_rows(tensor_view<T, 2> const& x, index from, index to) {
  for (index row = from; row < to; ++row)
    for (index i = 0; i < x.extent(1); ++i) x(row, i) = static_cast<T>(0.f);
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// Cumulative lengths, and the padded row of each packed one; returns how many there are. From lengths: unpad_index(lengths,
/// padded_length, cu, rows); from a mask: unpad_index(mask, cu, rows).
inline constexpr struct unpad_index_fn {
  template <tensor_like L, tensor_like C, tensor_like R>
  index operator()(L&& of_batch, index padded_length, C&& cu, R&& of_tokens) const {
    tensor_view<std::int32_t const, 1> const lengths = tern::view(of_batch);
    tensor_view<std::int32_t, 1> const rows = tern::view(of_tokens);
    return fill(lengths.extent(0), tern::view(cu), [&](index b, index at) {
      detail::expect(lengths[b] >= 0 && lengths[b] <= padded_length, "unpad_index", "a length", lengths[b], "at most the padded length");
      for (index t = 0; t < lengths[b]; ++t) detail::put_row(rows, at + t, b * padded_length + t);
      return at + lengths[b];
    });
  }
  template <tensor_like M, tensor_like C, tensor_like R>
  index operator()(M&& of_batch, C&& cu, R&& of_tokens) const {
    auto const mask = tern::view(of_batch);
    tensor_view<std::int32_t, 1> const rows = tern::view(of_tokens);
    return fill(mask.extent(0), tern::view(cu), [&](index b, index at) {
      for (index t = 0; t < mask.extent(1); ++t)
        if (mask(b, t) != 0) detail::put_row(rows, at++, b * mask.extent(1) + t);
      return at;
    });
  }

 private:
  template <class Sequence>
  static index fill(index batch, tensor_view<std::int32_t, 1> const& cu, Sequence const& sequence) {
    detail::expect_equal("unpad_index", "the extent of cu", cu.extent(0), "the batch + 1", batch + 1);
    index at = 0;
    cu[0] = 0;
    for (index b = 0; b < batch; ++b) {
      at = sequence(b, at);
      cu[b + 1] = static_cast<std::int32_t>(at);
    }
    return at;
  }
} unpad_index{};

/// repad(policy, packed, rows, padded): see the top of this file.
inline constexpr struct repad_fn {
  template <tensor_like X, tensor_like I, tensor_like Y>
  void operator()(cpu_policy const& policy, X&& packed, I&& rows, Y&& padded) const {
    auto const from = tern::view(packed);                            // (tokens, n)
    auto const to = tern::view(padded);                              // (rows, n)
    tensor_view<std::int32_t const, 1> const at = tern::view(rows);  // (tokens)
    static_assert(decltype(from)::rank == 2 && decltype(to)::rank == 2, "tern: repad takes rows: (tokens, n) and (padded rows, n)");
    detail::expect_rows("repad", "packed", from);
    detail::expect_rows("repad", "padded", to);
    detail::expect_extent("repad", "padded", to, 1, "packed", from, 1);
    detail::expect_extent("repad", "rows", at, 0, "packed", from, 0);
    index const tokens = from.extent(0), end = to.extent(0);
    for (index t = 0; t < tokens; ++t)
      detail::expect(at[t] < end && at[t] > (t > 0 ? index{at[t - 1]} : -1), "repad", "one of rows", at[t],
                     "more than the one before, and a row of padded");
    detail::clear_rows(to, tokens > 0 ? at[tokens - 1] + 1 : 0, end);
    detail::for_rows(policy, tokens, from.extent(1), [&](index t) TERN_LAMBDA {
      detail::clear_rows(to, t > 0 ? at[t - 1] + 1 : 0, at[t]);
      detail::convert_row(from.data() + t * from.stride(0), to.data() + at[t] * to.stride(0), from.extent(1));
    });
  }
} repad{};

}  // namespace TERN_ABI
}  // namespace tern

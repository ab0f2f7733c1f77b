// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file pointwise/embedding.hpp
/// Rows of a table by token.
///
///     y_t = table[tokens_t]
///
/// Shapes  tokens int32 (count), table (vocabulary, n) or a `tern::block_matrix`, y (count, n); rows contiguous.
/// Types   table and y f32, f16 or bf16 each. Blocks are decoded exactly, then rounded to y's type.
/// Errors  a token outside the table, besides shapes.
/// Cost    one read and one write an element.

#include <tern/formats/block_matrix.hpp>
#include <tern/formats/decode.hpp>
#include <tern/pointwise/rows.hpp>

#include <cstdint>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// Elements decoded at a time where y is no f32: a multiple of every block.
inline constexpr index decode_piece = 256;

[[noreturn]] TERN_COLD inline void fail_token(index at, index token, index vocabulary) {
  (message() << "embedding: tokens[" << at << "] is " << token << ", expected at least 0 and less than the table's " << vocabulary
             << " rows")
      .fail();
}
TERN_INLINE void expect_tokens(tensor_view<std::int32_t const, 1> const& tokens, index vocabulary) {
  for (index t = 0; t < tokens.extent(0); ++t)
    if (tokens[t] < 0 || tokens[t] >= vocabulary) [[unlikely]]
      fail_token(t, tokens[t], vocabulary);
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// `tern::embedding(policy, tokens, table, y)`: see the top of pointwise/embedding.hpp.
inline constexpr struct embedding_fn {
  template <tensor_like I, tensor_like T, tensor_like Y>
  void operator()(cpu_policy const& policy, I&& tokens, T&& table, Y&& y) const {
    tensor_view<std::int32_t const, 1> const ids = tern::view(tokens);  // (count)
    auto const from = tern::view(table);                                // (vocabulary, n)
    static_assert(decltype(from)::rank == 2, "embedding: table has two dimensions");
    detail::expect_rows("embedding", "table", from);
    check(ids, from.extent(0), from.extent(1), y);
    auto const to = tern::view(y);  // (count, n)
    detail::for_rows(policy, to.extent(0), to.extent(1), [&](index t) TERN_LAMBDA {
      detail::convert_row(from.data() + ids[t] * from.stride(0), to.data() + t * to.stride(0), to.extent(1));
    });
  }

  template <tensor_like I, tensor_like Y>
  void operator()(cpu_policy const& policy, I&& tokens, block_matrix const& table, Y&& y) const {
    tensor_view<std::int32_t const, 1> const ids = tern::view(tokens);  // (count)
    check(ids, table.rows, table.columns, y);
    auto const to = tern::view(y);  // (count, n)
    index const n = table.columns;
    using element = typename decltype(to)::value_type;
    // Decoding an element costs as much as a few of other kernels.
    detail::for_rows(policy, to.extent(0), 4 * n, [&](index t) TERN_LAMBDA {
      element* const row = to.data() + t * to.stride(0);  // (n)
      if constexpr (std::is_same_v<element, float>) {
        detail::decode_columns(table.type, table.row(ids[t]), 0, n, row);
      } else {
        constexpr index piece = detail::decode_piece;
        float decoded[piece];
        for (index i = 0; i < n; i += piece) {
          index const end = i + piece < n ? i + piece : n;
          detail::decode_columns(table.type, table.row(ids[t]), i, end, decoded);
          detail::convert_row(static_cast<float const*>(decoded), row + i, end - i);
        }
      }
    });
  }

 private:
  template <class Y>
  static void check(tensor_view<std::int32_t const, 1> const& ids, index vocabulary, index n, Y&& y) {
    auto const to = tern::view(y);
    static_assert(decltype(to)::rank == 2, "embedding: y has two dimensions");
    detail::expect_rows("embedding", "y", to);
    detail::expect_extent("embedding", "y", to, 0, "tokens", ids, 0);
    detail::expect_equal("embedding", "y.extent(1)", to.extent(1), "the table's columns", n);
    detail::expect_tokens(ids, vocabulary);
  }
} embedding{};

}  // namespace TERN_ABI
}  // namespace tern

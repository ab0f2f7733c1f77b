// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/query_list.hpp
/// Some queries of a text: the others' rows of out, and of what else is returned, are not written.
///
///     query_list(tokens)      int32 (count), ascending: each of these meets all keys
///
/// A layout. Masks and positions count by token and key index.
/// Errors    tokens that do not ascend, or that q does not have.
/// Cost      count * keys.

#include <tern/attention/layout.hpp>
#include <tern/attention/options.hpp>

namespace tern {
namespace detail {

/// Listed queries, all keys.
struct query_list_group {
  static constexpr bool local = false;
  index queries, keys;
  tensor_view<std::int32_t const, 1> tokens;
  TERN_INLINE constexpr index query(index i) const { return tokens[i]; }
  TERN_INLINE constexpr index key(index j) const { return j; }
};

struct bound_query_list {
  static constexpr bool per_head = false;
  tensor_view<std::int32_t const, 1> tokens;
  index keys;
  TERN_INLINE constexpr index groups(index, index) const { return 1; }
  TERN_INLINE constexpr query_list_group group(index, index, index) const { return {tokens.extent(0), keys, tokens}; }
};

}  // namespace detail

/// The listed queries only.
struct query_list {
  tensor_view<std::int32_t const, 1> tokens;
  template <tensor_like X>
  TERN_INLINE constexpr explicit query_list(X&& x) : tokens(tern::view(x)) {}
  TERN_INLINE constexpr detail::bound_query_list over(attention_shape const& n) const { return {tokens, n.keys}; }
  TERN_INLINE void check(attention_shape const& n) const {
    for (index i = 0; i < tokens.extent(0); ++i)
      detail::expect(tokens[i] > (i > 0 ? index{tokens[i - 1]} : -1) && tokens[i] < n.tokens, "attention", "a token of query_list",
                     tokens[i], "more than the one before, and a token of q");
  }
};

}  // namespace tern

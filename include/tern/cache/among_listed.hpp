// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/among_listed.hpp
/// A layout of attention: some tokens of a text see each other, as if the others were not there.
///
///     attention(policy, q, k, v, out, among_listed{tokens}, causal{})
///
/// Shapes    tokens int32, ascending, contiguous; q and k have as many tokens.
/// Masks     count tokens and keys of the text.
/// Others    their rows of out are not written.
/// Cost      the listed pairs.

#include <tern/attention/index_lists.hpp>
#include <tern/attention/layout.hpp>
#include <tern/attention/score.hpp>

namespace tern {

/// See the top of this file.
struct among_listed {
  static constexpr bool per_head = false;
  tensor_view<std::int32_t const, 1> tokens;

  /// All of them.
  struct group_type {
    static constexpr bool local = false;
    index queries, keys;
    std::int32_t const* ids;
    TERN_INLINE index query(index i) const { return ids[i]; }
    TERN_INLINE index key(index j) const { return ids[j]; }
  };
  TERN_INLINE index groups(index, index) const { return 1; }
  TERN_INLINE group_type group(index, index, index) const { return {tokens.extent(0), tokens.extent(0), tokens.data()}; }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_equal("attention", "the tokens of q", n.tokens, "the keys of k", n.keys);
    detail::expect_ascending("attention", "a token of among_listed", tokens.data(), tokens.extent(0), n.tokens);
  }
};

}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/even_groups.hpp
/// Groups of equal size along the text: each `queries` tokens meet `keys` keys of their own.
///
///     even_groups{n}             block-diagonal: tokens [g n, (g + 1) n) and keys [g n, (g + 1) n)
///     even_groups{n, m}          n tokens and m keys a group, for latents that read a group of data, or data that read latents
///     shifted_groups(n, shift)   the same with boundaries moved to shift(head), shift(head) + n, ...; shift is a function of the head
///                                in [0, n). What lies before the first boundary is a group by itself, or, with `wraps`, the
///                                end of the last group, as if the text were rolled by -shift
///
/// Layouts. Masks count within a group; in one that wraps, in its rolled order. The last group may be short.
/// Errors    groups of queries and of keys that differ in number; for shifted groups, tokens that are not as many as keys, and a shift
///           out of range.
/// Limits    one group is dense; shift 0 is even_groups{n}.
/// Cost      tokens * keys of a group, and shifted groups take the heads that share keys one by one.

#include <tern/attention/layout.hpp>
#include <tern/attention/options.hpp>

namespace tern {
namespace detail {

/// A run of tokens and a run of keys that may go on at the front.
struct wrapped_group {
  static constexpr bool local = true;
  index queries, keys;
  index first_query, first_key, tokens;
  TERN_INLINE constexpr index query(index i) const { return first_query + i < tokens ? first_query + i : first_query + i - tokens; }
  TERN_INLINE constexpr index key(index j) const { return first_key + j < tokens ? first_key + j : first_key + j - tokens; }
};

TERN_INLINE constexpr index pieces_of(index n, index size) { return (n + size - 1) / size; }
TERN_INLINE constexpr index piece_size(index n, index size, index at) { return n - at < size ? n - at : size; }

/// Groups of a call.
struct bound_even_groups {
  static constexpr bool per_head = false;
  index queries, keys, tokens, all_keys;
  TERN_INLINE constexpr index groups(index, index) const { return pieces_of(tokens, queries); }
  TERN_INLINE constexpr wrapped_group group(index, index, index g) const {
    index const q = g * queries, k = g * keys;
    return {piece_size(tokens, queries, q), piece_size(all_keys, keys, k), q, k, tokens > all_keys ? tokens : all_keys};
  }
};

template <class Shift>
struct bound_shifted_groups {
  static constexpr bool per_head = true;
  index size;
  Shift shift;
  bool wraps;
  index tokens;
  TERN_INLINE constexpr index groups(index, index head) const {
    index const s = shift(head);
    if (wraps || s == 0) return pieces_of(tokens, size);
    return tokens > s ? 1 + pieces_of(tokens - s, size) : 1;
  }
  TERN_INLINE constexpr wrapped_group group(index, index head, index g) const {
    index const s = shift(head);
    if (wraps) {
      index const n = piece_size(tokens, size, g * size), at = (g * size + s) % tokens;
      return {n, n, at, at, tokens};
    }
    if (s > 0 && g == 0) {
      index const n = s < tokens ? s : tokens;
      return {n, n, 0, 0, tokens};
    }
    index const at = s > 0 ? s + (g - 1) * size : g * size, n = piece_size(tokens, size, at);
    return {n, n, at, at, tokens};
  }
};

}  // namespace detail

/// Groups of equal size.
struct even_groups {
  index queries;
  index keys = 0;  ///< 0: as many as queries
  TERN_INLINE constexpr detail::bound_even_groups over(attention_shape const& n) const {
    return {queries, keys_of_group(), n.tokens, n.keys};
  }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect(queries > 0, "attention", "the queries of even_groups", queries, "at least 1");
    detail::expect(keys >= 0, "attention", "the keys of even_groups", keys, "at least 0");
    detail::expect_equal("attention", "the number of groups of keys", detail::pieces_of(n.keys, keys_of_group()), "that of queries",
                         detail::pieces_of(n.tokens, queries));
  }

 private:
  TERN_INLINE constexpr index keys_of_group() const { return keys > 0 ? keys : queries; }
};

/// Groups of equal size that begin elsewhere in each head.
template <class Shift>
struct shifted_groups {
  index size;
  Shift shift;
  bool wraps = false;
  TERN_INLINE constexpr shifted_groups(index n, Shift const& of_head, bool at_the_ends = false)
      : size(n), shift(of_head), wraps(at_the_ends) {}
  TERN_INLINE constexpr detail::bound_shifted_groups<Shift> over(attention_shape const& n) const { return {size, shift, wraps, n.tokens}; }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect(size > 0, "attention", "the size of shifted_groups", size, "at least 1");
    detail::expect_equal("attention", "the keys of k", n.keys, "the tokens of q", n.tokens);
    for (index h = 0; h < n.heads; ++h) {
      index const s = shift(h);
      detail::expect(s >= 0 && s < size, "attention", "the shift of shifted_groups", s, "at least 0 and below the size");
    }
  }
};

}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/varlen.hpp
/// Sequences of their own lengths, packed side by side or padded.
///
///     varlen(cu)              packed: sequence s has tokens and keys [cu[s], cu[s + 1])                        cu int32 (sequences + 1)
///     varlen(cu_q, cu_k)      the same with tokens [cu_q[s], cu_q[s + 1]) and keys [cu_k[s], cu_k[s + 1])
///     key_lengths(n)          padded: batch b has keys [0, n[b])                                               n int32 (batch)
///                             or key head h of batch b has keys [0, n[b, h])                                  n int32 (batch, k_heads)
///
/// Layouts. Masks count within a sequence: causal{} aligns the last query of each with its last key, a window is one of its sequence,
/// and so are positions. Keys behind the length of a padded sequence are not read.
/// Shapes    packed sequences lie in q (heads, all tokens, dim) and k (k_heads, all keys, dim).
/// Empty     a sequence without keys gives its queries zeros; one without tokens is skipped.
///           cu may be a slice of longer cumulative lengths: tokens count from its first element.
/// Errors    cumulative lengths that descend, or do not span the tokens or keys; lengths that do not fit.
/// Cost      what the sequences cost by themselves. Lengths by key head take the heads of a group one by one.
/// Source    Dao et al. 2022, FlashAttention's variable length interface (arXiv:2205.14135); Zhai et al. 2023, ByteTransformer
///           (arXiv:2210.03052).

#include <tern/attention/layout.hpp>
#include <tern/attention/options.hpp>

namespace tern {
namespace detail {

/// A run of tokens and a run of keys.
struct run_group {
  static constexpr bool local = true;
  index queries, keys;
  index first_query, first_key;
  TERN_INLINE constexpr index query(index i) const { return first_query + i; }
  TERN_INLINE constexpr index key(index j) const { return first_key + j; }
};

TERN_INLINE void check_cumulative(char const* name, char const* span_name, tensor_view<std::int32_t const, 1> const& cu,
                                  char const* total_name, index total) {
  expect(cu.extent(0) >= 1, "attention", name, cu.extent(0), "at least 1 element");
  for (index s = 1; s < cu.extent(0); ++s) expect(cu[s - 1] <= cu[s], "attention", name, cu[s], "at least the element before");
  expect_equal("attention", span_name, cu[cu.extent(0) - 1] - cu[0], total_name, total);
}

}  // namespace detail

/// Packed sequences by their cumulative lengths.
class varlen {
 public:
  static constexpr bool per_head = false;
  template <tensor_like X>
  TERN_INLINE constexpr explicit varlen(X&& both) : varlen(both, both) {}
  template <tensor_like X, tensor_like Y>
  TERN_INLINE constexpr varlen(X&& of_queries, Y&& of_keys) : q_(tern::view(of_queries)), k_(tern::view(of_keys)) {}

  TERN_INLINE constexpr index groups(index, index) const { return q_.extent(0) - 1; }
  TERN_INLINE constexpr detail::run_group group(index, index, index s) const {
    return {q_[s + 1] - q_[s], k_[s + 1] - k_[s], q_[s] - q_[0], k_[s] - k_[0]};
  }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_equal("attention", "the extent of cu_k", k_.extent(0), "that of cu_q", q_.extent(0));
    detail::check_cumulative("an element of cu_q", "the span of cu_q", q_, "the tokens of q", n.tokens);
    detail::check_cumulative("an element of cu_k", "the span of cu_k", k_, "the keys of k", n.keys);
  }

 private:
  tensor_view<std::int32_t const, 1> q_, k_;
};

namespace detail {

/// One group for each batch, or for each head of it.
template <int Rank>
struct bound_key_lengths {
  static constexpr bool per_head = false;  // heads that share keys have one length
  tensor_view<std::int32_t const, Rank> lengths;
  index tokens, heads_of_key_head;
  TERN_INLINE constexpr index groups(index, index) const { return 1; }
  TERN_INLINE constexpr run_group group(index batch, index head, index) const {
    if constexpr (Rank == 2)
      return {tokens, lengths(batch, head / heads_of_key_head), 0, 0};
    else
      return {tokens, lengths[batch], 0, 0};
  }
};

}  // namespace detail

/// Padded sequences by how many keys each has.
template <int Rank>
struct key_lengths {
  static_assert(Rank == 1 || Rank == 2, "tern: key_lengths takes (batch) or (batch, k_heads)");
  tensor_view<std::int32_t const, Rank> lengths;
  template <tensor_like X>
  TERN_INLINE constexpr explicit key_lengths(X&& x) : lengths(tern::view(x)) {}
  TERN_INLINE constexpr detail::bound_key_lengths<Rank> over(attention_shape const& n) const {
    return {lengths, n.tokens, n.k_heads > 0 ? n.heads / n.k_heads : 1};
  }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_equal("attention", "the extent of key_lengths", lengths.extent(0), "the batch of q", n.batch);
    if constexpr (Rank == 2) detail::expect_equal("attention", "the heads of key_lengths", lengths.extent(1), "the heads of k", n.k_heads);
    for (index b = 0; b < n.batch; ++b)
      for (index h = 0; h < (Rank == 2 ? n.k_heads : 1); ++h) {
        index length = 0;
        if constexpr (Rank == 2)
          length = lengths(b, h);
        else
          length = lengths[b];
        detail::expect(length >= 0 && length <= n.keys, "attention", "a length of key_lengths", length, "at most the keys of k");
      }
  }
};
template <tensor_like X>
key_lengths(X&&) -> key_lengths<view_of<X>::rank>;

}  // namespace tern

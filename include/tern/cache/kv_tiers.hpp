// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/kv_tiers.hpp
/// Two caches for one text: the latest tokens in one, as they came, all before them in another, compressed.
///
///     kv_tiers<kv_cache<formats::keys2, formats::values2>, kv_cache<f16>> cache({.layers = 30, .kv_heads = 3, .dim = 64}, 128);
///     auto const chat = cache.open();
///     cache.append(policy, chat, layer, k, v);
///     cache.attend(policy, chat, layer, q, out);                      the queries are the last tokens
///     cache.keep(policy, chat, layer, lists);                         of each head, the listed tokens stay
///
///     out = merge(attention(q, old), attention(q, recent, causal))    exact: the softmax over all keys together
///
/// This is KIVI's cache (Liu et al. 2024, arXiv:2402.02750), where keys have scales by channel over 64 tokens and so cannot be written one
/// by one: the last 128 to 191 tokens stay in full precision, and all of an append until the next one. Attention of few queries rounds q to
/// 8 bits over keys of 2 bits, for each 64 of them (attention.hpp, Error).
///
/// Tokens    append first moves whole pages of 64 tokens from `recent` to `old` that leave at least `latest` behind; so those that attend
///           sees unrounded are as many as were appended last, and `latest` at least.
/// Places    of a head count through both caches, those of `old` first. keep has to list as many tokens of `recent` for each head as for
/// the others,
///           since later appends move them together; where keys are of 2 bits, of `old` too, and a multiple of 64. Such keys are rounded
///           anew, which adds to their error (kv_cache.hpp).
///           A budget of 64 m + length(recent) with all of `recent` protected (cache/select_tokens.hpp) is so.
/// Memory    attend: scratch from the policy, two outputs and three log-sum-exps; keep: the numbers of the lists once more.
/// Errors    those of kv_cache; truncating into the middle of a page of `old` moves the tokens before back to `recent`. keep changes
///           nothing then, but where no page is left for a copy of a shared one of `recent`; truncate neither where keys are of 2 bits and
///           heads would be left with different numbers of tokens.
/// Cost      each token is written twice.

#include <tern/attention/partials.hpp>
#include <tern/cache/copy_tokens.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// Attention of the last tokens, q (heads, tokens, dim), over all keys of `old` and, causally, those of `recent`, as one softmax.
template <class Q, class Old, class Recent, class O, class L>
inline void attend_both(cpu_policy const& policy, Q const& q, Old const& old, std::int32_t s, Recent const& recent, std::int32_t t,
                        index layer, O const& out, L const& lse) {
  partial_results<3> const parts(policy, 2, out);
  attention(policy, q, old.keys(s, layer), old.values(s, layer), parts.out(0), parts.lse(0));
  attention(policy, q, recent.keys(t, layer), recent.values(t, layer), parts.out(1), parts.lse(1), causal{});
  parts.merge_into(policy, out, lse);
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// A compressed cache behind one of the latest tokens: see the top of this file.
template <class Old, class Recent>
class kv_tiers {
 public:
  using sequence = std::int32_t;

  /// Both caches have the shape; `latest` tokens at least stay in `recent`.
  explicit kv_tiers(kv_shape const& shape, index latest = 128) : old(shape), recent(shape), latest_(latest) {
    detail::expect(latest >= 0, "kv_tiers", "latest", latest, "at least 0");
  }

  Old old;  ///< the compressed tokens of all sequences; methods may evict some, where keys are of 2 bits the same number of each head, 64
            ///< at a time
  Recent recent;  ///< the latest tokens, under the same numbers of sequences

  sequence open() { return same(old.open(), recent.open()); }
  sequence fork(sequence s) { return same(old.fork(s), recent.fork(s)); }
  void close(sequence s) {
    old.close(s);
    recent.close(s);
  }
  TERN_INLINE index length(sequence s, index layer, index h = 0) const { return old.length(s, layer, h) + recent.length(s, layer, h); }
  /// The position that the next token gets.
  TERN_INLINE index next_position(sequence s, index layer = 0) const { return recent.next_position(s, layer); }
  TERN_INLINE index bytes() const { return old.bytes() + recent.bytes(); }

  /// Tokens of k and v behind those of the layer, as kv_cache's.
  template <tensor_like X, tensor_like Y>
  void append(cpu_policy const& policy, sequence s, index layer, X&& k, Y&& v) {
    settle(policy, s, layer);
    recent.append(policy, s, layer, k, v);
  }

  /// Attention of the last tokens, q (heads, tokens, dim), over all that the layer holds, into out (heads, tokens, dim_v).
  template <tensor_like Q, tensor_like O>
  void attend(cpu_policy const& policy, sequence s, index layer, Q&& q, O&& out) const {
    static_assert(view_of<Q>::rank == 3 && view_of<O>::rank == 3, "tern: kv_tiers::attend takes q and out (heads, tokens, dim)");
    auto const x = tern::view(q);
    auto const to = tern::view(out);
    detail::expect(x.extent(1) <= recent.longest(s, layer), "kv_tiers::attend", "the tokens of q", x.extent(1), "at most those of recent");
    if (old.longest(s, layer) == 0) return attention(policy, x, recent.keys(s, layer), recent.values(s, layer), to, causal{});
    index const heads = x.extent(0), tokens = x.extent(1);
    workspace::lease const scratch(policy.scratch(), static_cast<std::size_t>(heads * tokens) * sizeof(float));
    detail::attend_both(policy, x, old, s, recent, s, layer, to, tern::view(reinterpret_cast<float*>(scratch.data()), heads, tokens));
  }

  /// Of each head of a layer, the listed tokens stay: row h of `lists` has their places, ascending (see the top of this file).
  void keep(cpu_policy const& policy, sequence s, index layer, index_lists const& lists) {
    index const heads = recent.shape().kv_heads;
    check_kept(s, layer, lists);
    workspace::lease const scratch(policy.scratch(), static_cast<std::size_t>(heads * (lists.most() + 2)) * sizeof(std::int32_t));
    auto* const counts = reinterpret_cast<std::int32_t*>(scratch.data());
    index_lists const of_old{lists.ids, {counts, tern::shape<1>{{heads}}}};
    index_lists const of_recent{tern::view(counts + 2 * heads, heads, lists.most()), {counts + heads, tern::shape<1>{{heads}}}};
    for (index h = 0; h < heads; ++h) {
      index const before = kept_of_old(s, layer, lists, h), count = lists.count(h) - before;
      of_old.counts[h] = static_cast<std::int32_t>(before);
      of_recent.counts[h] = static_cast<std::int32_t>(count);
      for (index i = 0; i < count; ++i) of_recent.row(h)[i] = lists.row(h)[before + i] - static_cast<std::int32_t>(old.length(s, layer, h));
    }
    old.keep(policy, s, layer, of_old);
    recent.keep(policy, s, layer, of_recent);
  }

  /// Tokens at `position` and behind it are forgotten, in all layers.
  void truncate(cpu_policy const& policy, sequence s, index position) {
    check_truncated(s, position);
    recent.truncate(s, position);
    old.truncate(s, position);
    for (index layer = 0; layer < recent.shape().layers && Old::by_page; ++layer) {
      index const length = old.longest(s, layer), part = length % page_rows;
      if (recent.longest(s, layer) > 0 || part == 0) continue;
      copy(policy, s, layer, old, length - part, part, recent);
      old.shorten(s, layer, length - part);
    }
  }

 private:
  /// How many of the listed tokens of a head `old` holds.
  TERN_INLINE index kept_of_old(sequence s, index layer, index_lists const& lists, index h) const {
    index count = 0;
    while (count < lists.count(h) && lists.row(h)[count] < old.length(s, layer, h)) ++count;
    return count;
  }
  /// Fails where heads of 2-bit keys would have different numbers of tokens.
  void check_truncated(sequence s, index position) const {
    for (index layer = 0; layer < old.shape().layers && Old::by_page; ++layer) {
      index first = 0;
      for (index h = 0; h < old.shape().kv_heads; ++h) {
        auto const positions = old.positions(s, layer, h);
        index left = positions.extent(0);
        while (left > 0 && positions[left - 1] >= position) --left;
        first = h == 0 ? left : first;
        detail::expect_equal("kv_tiers::truncate", "the tokens that a head of old has left", left, "those of the first head", first);
      }
    }
  }
  void check_kept(sequence s, index layer, index_lists const& lists) const {
    constexpr char const* op = "kv_tiers::keep";
    static_cast<void>(recent.longest(s, layer));  // fails unless it is open
    lists.check_shape(op, recent.shape().kv_heads);
    for (index h = 0; h < recent.shape().kv_heads; ++h) {
      detail::expect_ascending(op, "an index of lists", lists.row(h), lists.count(h), length(s, layer, h));
      index const before = kept_of_old(s, layer, lists, h), first = kept_of_old(s, layer, lists, 0);
      detail::expect_equal(op, "the listed tokens of recent of a head", lists.count(h) - before, "those of the first head",
                           lists.count(0) - first);
      if constexpr (Old::by_page) {
        detail::expect_equal(op, "the listed tokens of old of a head", before, "those of the first head", first);
        detail::expect(before % page_rows == 0, op, "the listed tokens of old of a head", before,
                       "a multiple of 64, which these keys are written in");
      }
    }
  }
  /// Whole pages from `recent` to `old`.
  void settle(cpu_policy const& policy, sequence s, index layer) {
    for (index length = recent.longest(s, layer); length - latest_ >= page_rows; length -= page_rows) {
      copy(policy, s, layer, recent, 0, page_rows, old);
      recent.slide(policy, s, layer, 0, length - page_rows);
    }
  }
  /// Tokens [first, first + count) of a layer, of all heads, behind those of another cache.
  template <class From, class To>
  void copy(cpu_policy const& policy, sequence s, index layer, From const& from, index first, index count, To& to) const {
    index const heads = recent.shape().kv_heads;
    workspace::lease const scratch(policy.scratch(), static_cast<std::size_t>(count + heads) * sizeof(std::int32_t));
    copy_tokens(policy, from, s, layer, consecutive_tokens(reinterpret_cast<std::int32_t*>(scratch.data()), heads, first, count), to, s);
  }
  static sequence same(sequence a, sequence b) {
    detail::expect_equal("kv_tiers", "the sequence of recent", b, "that of old", a);
    return a;
  }
  index latest_;
};

}  // namespace TERN_ABI
}  // namespace tern

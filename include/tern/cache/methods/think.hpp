// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/methods/think.hpp
/// ThinK: Thinner Key Cache by Query-Driven Pruning (Xu et al. 2024, arXiv:2407.21018).
///
/// Channels of keys that the latest queries hardly use are not stored, but for recent tokens, whose keys stay whole:
///
///     score_c = |Q_c| |K_c|     (Q_c: channel c of the observed queries of all heads that share the key head; K_c: of all its keys)
///     channels = the D' with the largest scores, of each key head
///     s_ij = sum over channels c of q_ic k_jc / sqrt(D) for pruned keys j, q_i k_j / sqrt(D) for recent ones
///
/// Values may lose channels too: score_c = |softmax(Q K^T / sqrt(D)) V_c|; what is lost counts as zero.
///
///     select_key_channels(cache, s, layer, q, channels)                 once, after the prompt (cache/select_channels.hpp);
///     select_value_channels(policy, cache, s, layer, q, of_values)      the same for values, if they lose some
///     think_prune(policy, cache, s, layer, {channels, of_values}, recent, pruned, t)
///         all but the `recent` last tokens move to `pruned`; again when there are more recent ones than wanted
///     think_attention(policy, q, {channels, of_values}, pruned, t, cache, s, layer, out, lse)
///         q's tokens are the last ones of the cache
///
/// Shapes    q, out (heads, tokens, dim) of f32, f16 or bf16, q rotated as the keys are; channels int32 (kv_heads, D'), ascending, and
///           of_values the same for values, or left out: all stay; `pruned` a cache of as many dimensions as there are channels, of any
///           formats; lse (heads, tokens).
/// When      once after the prompt of a layer, and again, with the same channels, when more tokens have become old.
/// Heads     have as many tokens as each other: what SnapKV or H2O leave of a prompt does.
/// Composition  cache/copy_tokens.hpp; two attention calls and merge.
/// Memory    scratch from the policy: the chosen channels of q, two results, and what the calls take.
/// Cost      a step reads D' numbers of each pruned key, and D of each recent one.
/// Source    its authors' code (kv_pruning_utils.py, llama_model.py: 32 queries, 32 or 128 recent tokens, 40 % pruned).

#include <tern/attention/partials.hpp>
#include <tern/cache/copy_tokens.hpp>
#include <tern/cache/select_channels.hpp>

namespace tern {

/// The channels that stay, of each key head: see the top of this file.
struct think_kept {
  tensor_view<std::int32_t const, 2> keys;
  tensor_view<std::int32_t const, 2> values{};  ///< none given: all

  TERN_INLINE bool all_values() const { return values.data() == nullptr; }
  template <class Cache, class Pruned>
  TERN_INLINE void check(char const* op, Cache const& whole, Pruned const& pruned) const {
    check_side(op, "channels of keys", keys, whole.shape().kv_heads, whole.shape().dim, pruned.shape().dim);
    if (all_values())
      detail::expect_equal(op, "dim_v of the pruned cache", pruned.shape().dim_v, "that of the cache", whole.shape().dim_v);
    else
      check_side(op, "channels of values", values, whole.shape().kv_heads, whole.shape().dim_v, pruned.shape().dim_v);
  }

 private:
  TERN_INLINE static void check_side(char const* op, char const* name, tensor_view<std::int32_t const, 2> const& of, index heads, index dim,
                                     index kept) {
    detail::expect_equal(op, name, of.extent(0), "the heads of the cache", heads);
    detail::expect_equal(op, name, of.extent(1), "the dimensions of the pruned cache", kept);
    for (index h = 0; h < heads; ++h) detail::expect_ascending(op, name, of[h].data(), kept, dim);
  }
};

namespace detail {
/// Chosen channels of some rows.
template <class X, class Y>
TERN_INLINE void gather_channels(X const& x, tensor_view<std::int32_t const, 1> const& channels, Y const& to) {
  for (index i = 0; i < to.extent(0); ++i)
    for (index c = 0; c < to.extent(1); ++c) to(i, c) = static_cast<float>(x(i, channels[c]));
}
}  // namespace detail

inline namespace TERN_ABI {

/// Moves all but the last tokens to the cache of fewer channels: see the top of this file.
inline constexpr struct think_prune_fn {
  template <class K, class V, class K2, class V2>
  void operator()(cpu_policy const& policy, kv_cache<K, V>& cache, std::int32_t s, index layer, think_kept const& channels, index recent,
                  kv_cache<K2, V2>& pruned, std::int32_t t) const {
    constexpr char const* op = "think_prune";
    index const heads = cache.shape().kv_heads, length = cache.longest(s, layer);
    detail::expect(recent >= 0, op, "recent", recent, "at least 0");
    channels.check(op, cache, pruned);
    for (index h = 0; h < heads; ++h)
      detail::expect_equal(op, "the tokens of a head", cache.length(s, layer, h), "those of the longest", length);
    if (length <= recent) return;
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(length + heads) * sizeof(std::int32_t));
    auto* const ids = reinterpret_cast<std::int32_t*>(memory.data());
    index_lists const old = consecutive_tokens(ids, heads, 0, length - recent);
    auto const keys = [&](index h, auto const& from, auto const& to, auto const&) { detail::gather_channels(from, channels.keys[h], to); };
    cache.own_pages(s, layer);  // what follows the copy cannot fail
    if (channels.all_values())
      copy_tokens(policy, cache, s, layer, old, pruned, t, keys);
    else
      copy_tokens(policy, cache, s, layer, old, pruned, t, keys,
                  [&](index h, auto const& from, auto const& to) { detail::gather_channels(from, channels.values[h], to); });
    cache.keep(policy, s, layer, consecutive_tokens(ids, heads, length - recent, recent));
  }
} think_prune{};

/// Attention over both caches: see the top of this file.
inline constexpr struct think_attention_fn {
  template <tensor_like Q, class K, class V, class K2, class V2, tensor_like O, tensor_like L>
  void operator()(cpu_policy const& policy, Q&& q, think_kept const& channels, kv_cache<K2, V2> const& pruned, std::int32_t t,
                  kv_cache<K, V> const& cache, std::int32_t s, index layer, O&& out, L&& lse) const {
    static_assert(view_of<Q>::rank == 3 && view_of<O>::rank == 3, "tern: think_attention takes q and out (heads, tokens, dim)");
    constexpr char const* op = "think_attention";
    auto const x = tern::view(q);
    auto const to = tern::view(out);
    index const heads = x.extent(0), tokens = x.extent(1), kv_heads = cache.shape().kv_heads, thin = pruned.shape().dim;
    index const thin_v = channels.all_values() ? 0 : pruned.shape().dim_v;
    channels.check(op, cache, pruned);
    detail::expect_equal(op, "q.extent(2)", x.extent(2), "dim of the cache", cache.shape().dim);
    detail::expect(heads % kv_heads == 0, op, "q.extent(0)", heads, "a multiple of the heads of the cache");
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(heads * tokens * (thin + thin_v)) * sizeof(float));
    auto const chosen = tern::view(reinterpret_cast<float*>(memory.data()), heads, tokens, thin);
    auto const sums = tern::view(chosen.data() + chosen.size(), heads, tokens, thin_v);
    for (index g = 0; g < heads; ++g) detail::gather_channels(x[g], channels.keys[g / (heads / kv_heads)], chosen[g]);
    detail::partial_results<3> const parts(policy, 2, to);
    auto const old = parts.out(0);
    attention(policy, chosen, pruned.keys(t, layer), pruned.values(t, layer), channels.all_values() ? old : sums, parts.lse(0),
              scale{1 / __builtin_sqrtf(static_cast<float>(cache.shape().dim))});
    for (index g = 0; g < heads && !channels.all_values(); ++g)
      for (index i = 0; i < tokens; ++i) {
        for (index c = 0; c < old.extent(2); ++c) old(g, i, c) = 0;
        for (index c = 0; c < thin_v; ++c) old(g, i, channels.values(g / (heads / kv_heads), c)) = sums(g, i, c);
      }
    attention(policy, x, cache.keys(s, layer), cache.values(s, layer), parts.out(1), parts.lse(1), causal{});
    parts.merge_into(policy, to, tern::view(lse));
  }
} think_attention{};

}  // namespace TERN_ABI
}  // namespace tern

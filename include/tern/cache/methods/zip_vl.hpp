// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/methods/zip_vl.hpp
/// ZipVL: Efficient Large Vision-Language Models with Dynamic Token Sparsification and KV Cache Compression (He et al. 2024,
/// arXiv:2410.08584, its first version).
///
/// Each layer finds by itself how many tokens of a prompt are important to it. Only those attend to each other, and their keys and values
/// are stored in more bits than the others':
///
///     a_j = mean over the heads and the probes i of softmax(q_i k^T / sqrt(dim))_j
///     p   = the least number of tokens whose largest a_j add up to tau
///     n_j = a_j / the number of probes that see token j;    important = the p tokens with the largest n_j
///
///     index const p = zip_vl_rank(policy, q, places, k, tau, n)                  q: the probes, at `places` of the prompt
///     zip_vl_attention(policy, q, k, v, n, p, out)                               the prompt: rows of important tokens are written
///     zip_vl_store(policy, k, v, n, p, high, t, low, u, layer)                   into two caches; later tokens are appended to `high`
///     zip_vl_decode(policy, q, high, t, low, u, layer, out, lse)                 q's tokens are the last ones of `high`
///
/// Shapes    q, out (heads, tokens, dim), k, v (kv_heads, tokens, dim) of f32, f16 or bf16, rotated; n (tokens) f32; places int32 (probes),
///           ascending, the last the prompt's last token; lse (heads, tokens). Caches of any formats of the same shape:
///           kv_cache<formats::keys4, formats::values4> and kv_cache<formats::keys2, formats::values2> are the paper's.
/// When      the first three once, with the prompt of a layer; zip_vl_decode at each step, after the layer's append to `high`.
/// Last      the prompt's last token counts as the most important, n = +inf, so that `high` goes on where the prompt ends.
/// Others    rows of `out` of unimportant tokens are not written: such tokens go on with what they had.
/// By page   where `low` has keys in 2 bits, up to 63 of the others are stored with the important ones, so that whole pages are left.
/// Composition  cache/probe_weights.hpp, tokens/tokens_for_share.hpp; attention with among_listed; two attention calls and merge.
/// Memory    scratch from the policy: a number for each key head and token, and of 1024 tokens the rows.
/// Cost      4 heads probes tokens dim flop, and 4 heads p^2 dim / 2 in place of 4 heads tokens^2 dim / 2.
/// Source    the abstract and project page of the first version (4 and 2 bits by importance, attention among important tokens), and a
///           published summary for p; that n_j divides by how many queries see a token is from knowledge of ZipCache (arXiv:2405.14256).
///           Its probes are the latest tokens and random ones. Its code could not be had.

#include <tern/cache/among_listed.hpp>
#include <tern/cache/kv_tiers.hpp>
#include <tern/cache/probe_weights.hpp>
#include <tern/pointwise/embedding.hpp>
#include <tern/tokens/tokens_for_share.hpp>

namespace tern {
inline namespace TERN_ABI {

/// How many tokens are important, and how much each is: see the top of this file.
inline constexpr struct zip_vl_rank_fn {
  template <tensor_like Q, tensor_like X>
  index operator()(cpu_policy const& policy, Q&& q, tensor_view<std::int32_t const, 1> const& places, X&& k, double tau,
                   tensor_view<float, 1> const& n) const {
    static_assert(view_of<Q>::rank == 3 && view_of<X>::rank == 3,
                  "tern: zip_vl_rank takes q (heads, probes, dim), k (kv_heads, tokens, dim)");
    constexpr char const* op = "zip_vl_rank";
    index const probes = tern::view(q).extent(1), tokens = tern::view(k).extent(1);
    detail::expect_equal(op, "places.extent(0)", places.extent(0), "q.extent(1)", probes);
    detail::expect(probes >= 1 && places[probes - 1] == tokens - 1, op, "the last of places", probes > 0 ? index{places[probes - 1]} : -1,
                   "the last token of k");
    detail::expect_equal(op, "n.extent(0)", n.extent(0), "k.extent(1)", tokens);
    probe_weights(policy, q, places, k, n);
    index const p = tokens_for_share(n, tau);
    for (index j = 0, hidden = 0; j < tokens; ++j) {
      while (places[hidden] < j) ++hidden;
      n[j] /= static_cast<float>(probes - hidden);
    }
    n[tokens - 1] = __builtin_inff();
    return p;
  }
} zip_vl_rank{};

/// A prompt's attention among its important tokens: see the top of this file.
inline constexpr struct zip_vl_attention_fn {
  template <tensor_like Q, tensor_like X, tensor_like Y, tensor_like O>
  void operator()(cpu_policy const& policy, Q&& q, X&& k, Y&& v, tensor_view<float const, 1> const& n, index p, O&& out) const {
    detail::expect_equal("zip_vl_attention", "n.extent(0)", n.extent(0), "k.extent(1)", tern::view(k).extent(1));
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(n.extent(0)) * sizeof(std::int32_t));
    auto const ids = tern::view(reinterpret_cast<std::int32_t*>(memory.data()), n.extent(0));
    index const count = select_top(n, p, ids);
    attention(policy, q, k, v, out, among_listed{ids.slice(0, 0, count)}, causal{});
  }
} zip_vl_attention{};

/// A prompt's keys and values, into two caches: see the top of this file.
inline constexpr struct zip_vl_store_fn {
  template <tensor_like X, tensor_like Y, class K, class V, class K2, class V2>
  void operator()(cpu_policy const& policy, X&& k, Y&& v, tensor_view<float const, 1> const& n, index p, kv_cache<K, V>& high,
                  std::int32_t t, kv_cache<K2, V2>& low, std::int32_t u, index layer) const {
    static_assert(!written_by_page<K>, "tern: zip_vl_store takes a cache of more bits for important tokens");
    constexpr char const* op = "zip_vl_store";
    auto const x = tern::view(k);
    auto const y = tern::view(v);
    index const tokens = x.extent(1);
    detail::expect_equal(op, "n.extent(0)", n.extent(0), "k.extent(1)", tokens);
    detail::expect(p >= 0 && p <= tokens, op, "p", p, "at most k.extent(1)");
    if (p == 0 && tokens > 0) p = 1;
    if constexpr (written_by_page<K2>) p = tokens - (tokens - p) / page_rows * page_rows;
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(2 * tokens) * sizeof(std::int32_t));
    auto const ids = tern::view(reinterpret_cast<std::int32_t*>(memory.data()), 2 * tokens);
    index const count = select_top(n, p, ids.slice(0, 0, tokens));
    index rest = 0;
    for (index j = 0, next = 0; j < tokens; ++j)
      if (next < count && ids[next] == j)
        ++next;
      else
        ids[tokens + rest++] = static_cast<std::int32_t>(j);
    index const first = high.next_position(t, layer), after = low.next_position(u, layer);
    append(policy, x, y, ids.slice(0, tokens, tokens + rest), first > after ? first : after, low, u, layer);
    append(policy, x, y, ids.slice(0, 0, count), first > after ? first : after, high, t, layer);
  }

 private:
  static constexpr index chunk = 1024;

  template <class X, class Y, class Cache>
  static void append(cpu_policy const& policy, X const& k, Y const& v, tensor_view<std::int32_t, 1> const& ids, index first, Cache& cache,
                     std::int32_t s, index layer) {
    index const heads = k.extent(0), dim = k.extent(2), dim_v = v.extent(2), most = ids.extent(0) < chunk ? ids.extent(0) : chunk;
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(most * (heads * (dim + dim_v) + 1)) * sizeof(float));
    for (index at = 0; at < ids.extent(0); at += chunk) {
      index const some = ids.extent(0) - at < chunk ? ids.extent(0) - at : chunk;
      auto const keys = tern::view(reinterpret_cast<float*>(memory.data()), heads, some, dim);
      auto const values = tern::view(keys.data() + keys.size(), heads, some, dim_v);
      auto const positions = tern::view(reinterpret_cast<std::int32_t*>(values.data() + values.size()), some);
      auto const of_chunk = ids.slice(0, at, at + some);
      for (index i = 0; i < some; ++i) positions[i] = static_cast<std::int32_t>(first + of_chunk[i]);
      for (index h = 0; h < heads; ++h) {
        embedding(policy, of_chunk, k[h], keys[h]);
        embedding(policy, of_chunk, v[h], values[h]);
      }
      cache.append(policy, s, layer, keys, values, positions);
    }
  }
} zip_vl_store{};

/// A step: see the top of this file.
inline constexpr struct zip_vl_decode_fn {
  template <tensor_like Q, class K, class V, class K2, class V2, tensor_like O, tensor_like L>
  void operator()(cpu_policy const& policy, Q&& q, kv_cache<K, V> const& high, std::int32_t t, kv_cache<K2, V2> const& low, std::int32_t u,
                  index layer, O&& out, L&& lse) const {
    detail::attend_both(policy, tern::view(q), low, u, high, t, layer, tern::view(out), tern::view(lse));
  }
} zip_vl_decode{};

}  // namespace TERN_ABI
}  // namespace tern

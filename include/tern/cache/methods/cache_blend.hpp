// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/methods/cache_blend.hpp
/// CacheBlend: Fast Large Language Model Serving for RAG with Cached Knowledge Fusion (Yao et al. 2024, arXiv:2405.16444).
///
/// Texts that were read one by one are put together (cache/append_chunk.hpp), and some of their tokens are read anew, layer by layer:
/// those whose keys and values differ most from what the cache has of them.
///
///     delta_i = sum over key heads of |k_i - cached k_i|^2 + |v_i - cached v_i|^2        of the tokens i that were computed for this layer
///     chosen  = the `fresh` last of them, and those with the largest delta, `count` together
///     o       = attention of the chosen tokens, each at its place, over the whole cache, in which the tokens' new k and v now stand
///
///     cache_blend(policy, cache, s, layer, places, q, k, v, count, fresh, chosen, out, lse)       returns how many were chosen
///
/// The model is the caller's. In the first layer it computes q, k and v of all tokens; out of what is returned, hidden rows for the chosen
/// ones, and from these q, k and v of the next layer, with count a little smaller from layer to layer. `fresh` are the tokens behind the
/// texts, a question, which are in the cache as they are computed.
///
/// Shapes    places int32 (tokens), ascending: where in the cache they stand; q (heads, tokens, dim), k, v (kv_heads, tokens, dim) of f32,
///           f16 or bf16, rotated to their positions; chosen int32 (count): which of the tokens, ascending; out (heads, count, dim_v),
///           lse (heads, count), of which as many rows are written as are chosen. Heads have as many tokens as each other.
/// Composition  select_top, one attention call with causal_at (cache/causal_at.hpp).
/// When      in each layer of a prompt made of texts that were read apart, once these are in the cache; the cache is then as any other.
/// Keeps     all tokens; those that this layer computed are stored anew.
/// Memory    scratch from the policy: the chosen rows of q, and a number and two places for each token.
/// Cost      reading and writing `tokens` tokens, and 4 heads count keys dim flop.
/// Source    the paper, section 4 (deviations, gradual filtering, keys turned to their new positions); its authors' code (xformers.py:
///           there delta is of the values alone and on one layer, of 16 to 18 % of the tokens; all that this layer computed is taken).

#include <tern/attention/attention.hpp>
#include <tern/cache/append_chunk.hpp>
#include <tern/cache/causal_at.hpp>
#include <tern/pointwise/embedding.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// The square of the distance of a row from a stored one.
template <class T>
TERN_INLINE double square_distance(T const* x, float const* stored, index n) {
  double sum = 0;
  for (index d = 0; d < n; ++d) {
    double const e = static_cast<double>(static_cast<float>(x[d])) - static_cast<double>(stored[d]);
    sum += e * e;
  }
  return sum;
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr struct cache_blend_fn {
  template <class K, class V, tensor_like Q, tensor_like X, tensor_like Y, tensor_like O, tensor_like L>
    requires(!written_by_page<K>)
  index operator()(cpu_policy const& policy, kv_cache<K, V>& cache, std::int32_t s, index layer,
                   tensor_view<std::int32_t const, 1> const& places, Q&& q, X&& k, Y&& v, index count, index fresh,
                   tensor_view<std::int32_t, 1> const& chosen, O&& out, L&& lse) const {
    static_assert(view_of<Q>::rank == 3 && view_of<X>::rank == 3 && view_of<Y>::rank == 3 && view_of<O>::rank == 3,
                  "tern: cache_blend takes q, k, v and out (heads, tokens, dim)");
    constexpr char const* op = "cache_blend";
    auto const x = tern::view(q);
    auto const y = tern::view(k);
    auto const z = tern::view(v);
    index const tokens = places.extent(0), heads = x.extent(0), kv_heads = cache.shape().kv_heads, dim = cache.shape().dim,
                dim_v = cache.shape().dim_v, length = cache.longest(s, layer);
    detail::expect_ascending(op, "a place", places.data(), tokens, length);
    detail::expect(count >= 0 && chosen.extent(0) >= count, op, "chosen.extent(0)", chosen.extent(0), "room for count");
    detail::expect(fresh >= 0 && fresh <= count, op, "fresh", fresh, "at most count");
    detail::expect(heads % kv_heads == 0, op, "q.extent(0)", heads, "a multiple of the heads of the cache");
    detail::expect_equal(op, "q.extent(1)", x.extent(1), "the places", tokens);
    detail::expect_equal(op, "q.extent(2)", x.extent(2), "dim of the cache", dim);
    detail::expect_equal(op, "k.extent(0)", y.extent(0), "the heads of the cache", kv_heads);
    detail::expect_equal(op, "k.extent(1)", y.extent(1), "the places", tokens);
    detail::expect_equal(op, "k.extent(2)", y.extent(2), "dim of the cache", dim);
    detail::expect_equal(op, "v.extent(0)", z.extent(0), "the heads of the cache", kv_heads);
    detail::expect_equal(op, "v.extent(1)", z.extent(1), "the places", tokens);
    detail::expect_equal(op, "v.extent(2)", z.extent(2), "dim_v of the cache", dim_v);
    for (index h = 0; h < kv_heads; ++h)
      detail::expect_equal(op, "the tokens of a head", cache.length(s, layer, h), "those of the longest", length);
    index const wanted = count < tokens ? count : tokens;
    detail::expect(dim <= 1 || y.stride(2) == 1, op, "k.stride(2)", y.stride(2), "1 (contiguous rows)");
    detail::expect(dim_v <= 1 || z.stride(2) == 1, op, "v.stride(2)", z.stride(2), "1 (contiguous rows)");
    detail::expect(tern::view(out).extent(1) >= wanted, op, "out.extent(1)", tern::view(out).extent(1), "a row for each chosen token");
    detail::expect(tern::view(lse).extent(1) >= wanted, op, "lse.extent(1)", tern::view(lse).extent(1), "one for each chosen token");
    workspace::lease const memory(policy.scratch(),
                                  static_cast<std::size_t>(tokens + heads * wanted * dim + wanted + dim + dim_v) * sizeof(float));
    auto const delta = tern::view(reinterpret_cast<float*>(memory.data()), tokens);
    auto const rows = tern::view(delta.data() + tokens, heads, wanted, dim);
    auto const at = tern::view(reinterpret_cast<std::int32_t*>(rows.data() + rows.size()), wanted);
    cache.own_pages(s, layer);
    for (index i = 0; i < tokens; ++i) delta[i] = take(cache, s, layer, places[i], y, z, i, reinterpret_cast<float*>(at.data() + wanted));
    for (index i = tokens > fresh ? tokens - fresh : 0; i < tokens; ++i) delta[i] = __builtin_inff();
    index const n = select_top(delta, wanted, chosen);
    for (index i = 0; i < n; ++i) at[i] = places[chosen[i]];
    for (index g = 0; g < heads; ++g) embedding(policy, chosen.slice(0, 0, n), x[g], rows[g].slice(0, 0, n));
    attention(policy, rows.slice(1, 0, n), cache.keys(s, layer), cache.values(s, layer), tern::view(out).slice(1, 0, n),
              causal_at{at.slice(0, 0, n)}, log_sum_exp{tern::view(lse).slice(1, 0, n)});
    return n;
  }

 private:
  /// Writes token i to the cache, and says how far it was from what stood there.
  template <class Cache, class X, class Y>
  static float take(Cache& cache, std::int32_t s, index layer, index place, X const& k, Y const& v, index i, float* row) {
    index const dim = k.extent(2), dim_v = v.extent(2);
    double sum = 0;
    for (index h = 0; h < k.extent(0); ++h) {
      cache.read_key(s, layer, h, place, row);
      sum += detail::square_distance(&k(h, i, 0), row, dim);
      cache.read_value(s, layer, h, place, row);
      sum += detail::square_distance(&v(h, i, 0), row, dim_v);
      detail::widen_row(&k(h, i, 0), dim, 1.f, row);
      cache.write_key(s, layer, h, place, row);
      detail::widen_row(&v(h, i, 0), dim_v, 1.f, row);
      cache.write_value(s, layer, h, place, row);
    }
    return static_cast<float>(sum);
  }
} cache_blend{};

}  // namespace TERN_ABI
}  // namespace tern

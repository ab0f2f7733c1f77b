// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/methods/shadow_kv.hpp
/// ShadowKV: KV Cache in Shadows for High-Throughput Long-Context LLM Inference (Sun et al. 2024, arXiv:2410.21465).
///
/// Keys of a prompt are kept before rotation, and in few dimensions; a step looks at some chunks of them, which it makes anew:
///
///     K ~ A B                        A (tokens, rank), B (rank, kv_heads dim): the keys of all heads, before rotation
///     landmark_c = mean over chunk c of the rotated keys
///     exact      = the last `local` chunks and what follows them, and the outliers: the chunks with the least min over their keys of
///                  cos(k_j, landmark_c). These lie in a cache as ever, rotated; later tokens are appended to it
///     score_c    = max over the heads that share a key head of sum over the queries of softmax over c of q . landmark_c / sqrt(dim)
///     o          = attention over the exact tokens and those of the `budget` chunks with the largest scores, of which
///                  k_j = rotate(A_j B, j)
///
///     shadow_kv_prompt(policy, k, v, context, local, outliers, cache, s, layer, options)      once, into an empty sequence
///     shadow_kv_attention(policy, q, context, v, budget, cache, s, layer, out, lse, options)
///
/// Shapes    k, v (kv_heads, tokens, dim) of f32, f16 or bf16, k before rotation; q, out (heads, steps, dim), q rotated: the last tokens
///           of the cache. Of the context, memory of the caller's: codes (tokens, rank), basis (rank, kv_heads dim), landmarks
///           (kv_heads, shadow_chunks(tokens, chunk, local), dim), exact a row for each key head with room for `outliers`. v stays
///           where it is, on a slower memory if there is one.
/// Basis     orthonormal rows: the first of principal_components (cache/principal_components.hpp) of the prompt's own keys make A B their
///           truncated SVD; those of other texts spare the decomposition.
/// Composition  matmul, softmax, rope, two attention calls and merge.
/// Memory    scratch from the policy: in prompts the rotated keys of a head, in steps the chosen keys and values, and scores.
/// Cost      prompt: 2 tokens kv_heads dim rank flop. Step: 2 heads chunks dim flop for scores, and for each chosen token 2 rank dim flop.
/// Error     at full rank and budget that of attention and of the products A and A B; else what was left out held.
/// Source    its authors' code (kv_cache.py: rank 160, chunks of 8, 4 local and 48 outlier chunks, budget 2048 tokens).

#include <tern/attention/gathered.hpp>
#include <tern/attention/partials.hpp>
#include <tern/cache/chunk_means.hpp>
#include <tern/cache/kv_cache.hpp>
#include <tern/matmul/gather.hpp>
#include <tern/matmul/matmul.hpp>
#include <tern/pointwise/embedding.hpp>
#include <tern/pointwise/rope.hpp>
#include <tern/pointwise/softmax.hpp>

namespace tern {

/// What is kept of a prompt's keys: see the top of this file.
struct shadow_context {
  tensor_view<float, 2> codes;        ///< (tokens, rank)
  tensor_view<float const, 2> basis;  ///< (rank, kv_heads dim)
  tensor_view<float, 3> landmarks;    ///< (kv_heads, chunks, dim)
  index_lists exact;                  ///< chunks of each key head that are not looked for: the outliers
  index chunk = 8;

  TERN_INLINE void check(char const* op, index kv_heads, index tokens, index dim) const {
    detail::expect(chunk >= 1, op, "the chunk", chunk, "at least 1");
    detail::expect_equal(op, "codes.extent(0)", codes.extent(0), "the tokens of v", tokens);
    detail::expect_equal(op, "codes.extent(1)", codes.extent(1), "basis.extent(0)", basis.extent(0));
    detail::expect_equal(op, "basis.extent(1)", basis.extent(1), "kv_heads dim", kv_heads * dim);
    detail::expect_equal(op, "landmarks.extent(0)", landmarks.extent(0), "the heads of the cache", kv_heads);
    detail::expect_equal(op, "landmarks.extent(2)", landmarks.extent(2), "the dim of q and k", dim);
    detail::expect_equal(op, "the rows of exact", exact.rows(), "the heads of the cache", kv_heads);
  }
};

/// Chunks that have a landmark: those before the local ones.
TERN_INLINE constexpr index shadow_chunks(index tokens, index chunk, index local) {
  return tokens / chunk > local ? tokens / chunk - local : 0;
}

inline namespace TERN_ABI {

/// Takes a prompt: see the top of this file.
inline constexpr struct shadow_kv_prompt_fn {
  template <tensor_like X, tensor_like Y, class K, class V>
  void operator()(cpu_policy const& policy, X&& k, Y&& v, shadow_context const& context, index local, index outliers, kv_cache<K, V>& cache,
                  std::int32_t s, index layer, rope_options const& options = {}) const {
    static_assert(view_of<X>::rank == 3 && view_of<Y>::rank == 3, "tern: shadow_kv_prompt takes k and v (kv_heads, tokens, dim)");
    constexpr char const* op = "shadow_kv_prompt";
    auto const x = tern::view(k);
    auto const y = tern::view(v);
    index const heads = cache.shape().kv_heads, tokens = x.extent(1), dim = x.extent(2), dim_v = y.extent(2), chunk = context.chunk;
    detail::expect(chunk >= 1 && local >= 0, op, "the chunk or local", chunk < local ? chunk : local, "at least 1, at least 0");
    index const chunks = shadow_chunks(tokens, chunk, local), listed = outliers < chunks ? outliers : chunks;
    detail::expect(outliers >= 0 && context.exact.most() >= listed, op, "the room of exact", context.exact.most(), "the outliers");
    detail::expect_equal(op, "k.extent(0)", x.extent(0), "the heads of the cache", heads);
    detail::expect_equal(op, "v.extent(0)", y.extent(0), "the heads of the cache", heads);
    detail::expect_equal(op, "v.extent(1)", y.extent(1), "k.extent(1)", tokens);
    context.check(op, heads, tokens, dim);
    detail::expect_equal(op, "landmarks.extent(1)", context.landmarks.extent(1), "shadow_chunks", chunks);
    detail::expect_equal(op, "the tokens of the sequence", cache.longest(s, layer), "none", 0);
    index const kept = listed * chunk + tokens - chunks * chunk;
    workspace::lease const memory(policy.scratch(),
                                  static_cast<std::size_t>(tokens * dim + chunks + heads * kept * (dim + dim_v + 1)) * sizeof(float));
    auto const rotated = tern::view(reinterpret_cast<float*>(memory.data()), tokens, dim);
    auto const score = tern::view(rotated.data() + rotated.size(), chunks);
    auto const keys = tern::view(score.data() + chunks, heads, kept, dim);
    auto const values = tern::view(keys.data() + keys.size(), heads, kept, dim_v);
    auto const places = tern::view(reinterpret_cast<std::int32_t*>(values.data() + values.size()), heads, kept);
    for (index i = 0; i < tokens; ++i)
      for (index c = 0; c < context.codes.extent(1); ++c) context.codes(i, c) = 0;
    for (index h = 0; h < heads; ++h) {
      matmul(policy, x[h], context.basis.slice(1, h * dim, (h + 1) * dim), context.codes, accumulate{});
      rope(policy, x[h], rotated, 0, options);
      chunk_means(rotated, chunk, context.landmarks[h], score);
      index const count = select_top(score, listed, context.exact.room(h));
      context.exact.counts[h] = static_cast<std::int32_t>(count);
      for (index i = 0; i < kept; ++i) {
        index const at = i < listed * chunk ? context.exact.row(h)[i / chunk] * chunk + i % chunk : tokens - kept + i;
        places(h, i) = static_cast<std::int32_t>(at);
      }
      embedding(policy, places[h], rotated, keys[h]);
      embedding(policy, places[h], y[h], values[h]);
    }
    cache.append(policy, s, layer, keys, values, places);
  }
} shadow_kv_prompt{};

/// A step: see the top of this file.
inline constexpr struct shadow_kv_attention_fn {
  template <tensor_like Q, tensor_like Y, class K, class V, tensor_like O, tensor_like L>
  void operator()(cpu_policy const& policy, Q&& q, shadow_context const& context, Y&& v, index budget, kv_cache<K, V> const& cache,
                  std::int32_t s, index layer, O&& out, L&& lse, rope_options const& options = {}) const {
    static_assert(view_of<Q>::rank == 3 && view_of<O>::rank == 3, "tern: shadow_kv_attention takes q and out (heads, steps, dim)");
    constexpr char const* op = "shadow_kv_attention";
    auto const x = tern::view(q);
    auto const y = tern::view(v);
    auto const to = tern::view(out);
    index const heads = x.extent(0), dim = x.extent(2), kv_heads = cache.shape().kv_heads, chunk = context.chunk;
    index const chunks = context.landmarks.extent(1), dim_v = y.extent(2);
    detail::expect(budget >= 0, op, "budget", budget, "at least 0");
    detail::expect(heads % kv_heads == 0, op, "q.extent(0)", heads, "a multiple of the heads of the cache");
    detail::expect_equal(op, "v.extent(0)", y.extent(0), "the heads of the cache", kv_heads);
    context.check(op, kv_heads, y.extent(1), dim);
    context.exact.check(op, kv_heads, chunks);
    index const others = chunks - (kv_heads > 0 ? context.exact.count(0) : 0), some = budget < others ? budget : others, n = some * chunk;
    workspace::lease const memory(
        policy.scratch(), static_cast<std::size_t>((x.extent(1) + 1) * chunks + kv_heads * n * (dim + dim_v) + n + some) * sizeof(float));
    auto* const at = reinterpret_cast<float*>(memory.data());
    auto const keys = tern::view(at, kv_heads, n, dim);
    auto const values = tern::view(at + keys.size(), kv_heads, n, dim_v);
    float* const scores = values.data() + values.size();  // (steps + 1, chunks)
    auto* const ids = reinterpret_cast<std::int32_t*>(scores + (x.extent(1) + 1) * chunks);
    for (index h = 0; h < kv_heads; ++h) {
      detail::expect_equal(op, "the count of a list of exact", context.exact.count(h), "that of the first", context.exact.count(0));
      choose(policy, x.slice(0, h * (heads / kv_heads), (h + 1) * (heads / kv_heads)), context, h, scores, some, ids + n);
      for (index i = 0; i < n; ++i) ids[i] = static_cast<std::int32_t>(ids[n + i / chunk] * chunk + i % chunk);
      auto const tokens = tern::view(static_cast<std::int32_t const*>(ids), n);
      embedding(policy, tokens, y[h], values[h]);
      // K^T = B^T A^T, whose weights, rows of A, are contiguous
      matmul(policy, context.basis.slice(1, h * dim, (h + 1) * dim).transposed(0, 1), chosen_rows(block_matrix(context.codes), tokens),
             keys[h].transposed(0, 1));
      rope(policy, keys[h], tokens, options);
    }
    detail::partial_results<3> const parts(policy, 2, to);
    attention(policy, x, keys, values, parts.out(0), parts.lse(0));
    attention(policy, x, cache.keys(s, layer), cache.values(s, layer), parts.out(1), parts.lse(1), causal{});
    parts.merge_into(policy, to, tern::view(lse));
  }

 private:
  /// The chunks that the heads of a key head want most.
  template <class Q>
  static void choose(cpu_policy const& policy, Q const& q, shadow_context const& context, index h, float* scores, index some,
                     std::int32_t* to) {
    index const steps = q.extent(1), chunks = context.landmarks.extent(1);
    auto const each = tern::view(scores, steps, chunks);
    auto const best = tern::view(scores + steps * chunks, chunks);
    for (index c = 0; c < chunks; ++c) best[c] = 0;
    for (index g = 0; g < q.extent(0); ++g) {
      matmul(policy, q[g], context.landmarks[h], each);
      for (index i = 0; i < steps; ++i)
        for (index e = 0; e < context.exact.count(h); ++e) each(i, context.exact.row(h)[e]) = detail::negative_infinity;
      softmax(policy, each, each, 1 / __builtin_sqrtf(static_cast<float>(q.extent(2))));
      for (index c = 0; c < chunks; ++c) {
        float sum = 0;
        for (index i = 0; i < steps; ++i) sum += each(i, c);
        best[c] = sum > best[c] || sum != sum ? sum : best[c];
      }
    }
    for (index e = 0; e < context.exact.count(h); ++e) best[context.exact.row(h)[e]] = detail::negative_infinity;
    select_top(best, some, tern::view(to, some));
  }
} shadow_kv_attention{};

}  // namespace TERN_ABI
}  // namespace tern

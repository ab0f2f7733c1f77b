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
///     shadow_kv_prompt(policy, k, v, context, local, outliers, cache, s, layer)                  once, into an empty sequence
///     shadow_kv_attention(policy, q, context, v, budget, cache, s, layer, out, lse, compute::f32)
///
/// Shapes    k, v (kv_heads, tokens, dim) of f32, f16 or bf16, k before rotation; q, out (heads, steps, dim), q rotated: the last tokens
///           of the cache. Of the context, memory of the caller's: codes (tokens, rank), basis (rank, kv_heads dim), landmarks
///           (kv_heads, shadow_chunks(tokens, chunk, local), dim), exact a row for each key head with room for `outliers`, table (at
///           least tokens, d) as tern::rope_table fills it from position 0 on: one for all layers. v stays where it is, on a slower
///           memory if there is one: of it, only the chosen rows are read.
/// Basis     orthonormal rows: the first of principal_components (cache/principal_components.hpp) of the prompt's own keys make A B their
///           truncated SVD; those of other texts spare the decomposition.
/// Composition  matmul, softmax, rope; attention over the exact tokens and over each 512 chosen ones, and merge.
/// When      the first once, after a layer's prompt; the second at each step of decoding, after the layer's append.
/// Keeps     all values, and of keys `rank` numbers a token, a landmark a chunk, and the exact ones.
/// Memory    scratch from the policy: in prompts the rotated keys of a head; in steps scores, B, a result for each 512 chosen tokens, and
///           for each thread as many keys and what their product and attention take.
/// Cost      prompt: 2 tokens kv_heads dim rank flop. Step: landmarks are read once, 2 heads steps chunks dim flop; 2 rank dim flop for
///           each chosen token and key head, most of a step: with compute::bf16 matrix registers make them, where there are such.
/// Error     at full rank and budget that of attention and of the products A and A B; else what was left out held. The products A B are
///           of f32, or of what the last argument says.
/// Source    its authors' code (kv_cache.py: rank 160, chunks of 8, 4 local and 48 outlier chunks, budget 2048 tokens).

#include <tern/attention/partials.hpp>
#include <tern/cache/chunk_means.hpp>
#include <tern/cache/kv_cache.hpp>
#include <tern/matmul/gather.hpp>
#include <tern/matmul/matmul.hpp>
#include <tern/pointwise/convert.hpp>
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
  tensor_view<float const, 2> table;  ///< (at least tokens, d): how keys turn
  rope_pairing pairing = rope_pairing::interleaved;
  index chunk = 8;

  TERN_INLINE void check(char const* op, index kv_heads, index tokens, index dim) const {
    detail::expect(chunk >= 1, op, "the chunk", chunk, "at least 1");
    detail::expect_equal(op, "codes.extent(0)", codes.extent(0), "the tokens of v", tokens);
    detail::expect_equal(op, "codes.extent(1)", codes.extent(1), "basis.extent(0)", basis.extent(0));
    detail::expect_equal(op, "basis.extent(1)", basis.extent(1), "kv_heads dim", kv_heads * dim);
    detail::expect_equal(op, "landmarks.extent(0)", landmarks.extent(0), "the heads of the cache", kv_heads);
    detail::expect_equal(op, "landmarks.extent(2)", landmarks.extent(2), "the dim of q and k", dim);
    detail::expect_equal(op, "the rows of exact", exact.rows(), "the heads of the cache", kv_heads);
    detail::expect(table.extent(0) >= tokens, op, "table.extent(0)", table.extent(0), "a row for each token of v");
    detail::expect(table.extent(1) % 2 == 0 && table.extent(1) <= dim, op, "table.extent(1)", table.extent(1),
                   "an even number, at most the dim of q and k");
    detail::expect_rows(op, "table", table);
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
                  std::int32_t s, index layer) const {
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
      rope(policy, x[h], rotated, context.table.slice(0, 0, tokens), {.pairing = context.pairing});
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
                  std::int32_t s, index layer, O&& out, L&& lse, compute products = compute::f32) const {
    static_assert(view_of<Q>::rank == 3 && view_of<O>::rank == 3, "tern: shadow_kv_attention takes q and out (heads, steps, dim)");
    constexpr char const* op = "shadow_kv_attention";
    auto const x = tern::view(q);
    auto const y = tern::view(v);
    auto const to = tern::view(out);
    index const heads = x.extent(0), kv_heads = cache.shape().kv_heads, chunks = context.landmarks.extent(1);
    detail::expect(budget >= 0, op, "budget", budget, "at least 0");
    detail::expect_rows(op, "q", x);
    detail::expect(heads % kv_heads == 0, op, "q.extent(0)", heads, "a multiple of the heads of the cache");
    detail::expect_equal(op, "v.extent(0)", y.extent(0), "the heads of the cache", kv_heads);
    detail::expect_equal(op, "v.extent(2)", y.extent(2), "out.extent(2)", to.extent(2));
    context.check(op, kv_heads, y.extent(1), x.extent(2));
    detail::expect(chunks * context.chunk <= y.extent(1), op, "landmarks.extent(1)", chunks, "at most the chunks of v");
    context.exact.check(op, kv_heads, chunks);
    for (index h = 0; h < kv_heads; ++h)
      detail::expect_equal(op, "the count of a list of exact", context.exact.count(h), "that of the first", context.exact.count(0));
    index const others = chunks - context.exact.count(0), some = budget < others ? budget : others;
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(kv_heads * some) * sizeof(float));
    auto const chosen = tern::view(reinterpret_cast<std::int32_t*>(memory.data()), kv_heads, some);
    detail::partial_results<3> const parts(policy, 1 + detail::divide_up(some, chunks_at_once(context.chunk)), to);
    attention(policy, x, cache.keys(s, layer), cache.values(s, layer), parts.out(0), parts.lse(0), causal{});
    if (some > 0) {
      choose(policy, x, context, chosen);
      attend(policy, x, context, y, chosen, parts, products);
    }
    parts.merge_into(policy, to, tern::view(lse));
  }

 private:
  /// The chunks that the heads of each key head want most.
  template <class Q>
  static void choose(cpu_policy const& policy, Q const& q, shadow_context const& context, tensor_view<std::int32_t, 2> const& to) {
    index const heads = q.extent(0), steps = q.extent(1), dim = q.extent(2), kv_heads = to.extent(0), chunks = context.landmarks.extent(1);
    index const rows = heads / kv_heads * steps;
    workspace::lease const memory(policy.scratch(),
                                  static_cast<std::size_t>(heads * steps * (dim + chunks) + kv_heads * chunks) * sizeof(float));
    auto const queries = tern::view(reinterpret_cast<float*>(memory.data()), heads, steps, dim);
    auto const scores = tern::view(queries.data() + queries.size(), kv_heads, rows, chunks);
    auto const best = tern::view(scores.data() + scores.size(), kv_heads, chunks);
    convert(policy, q, queries);
    for (index h = 0; h < kv_heads; ++h)
      matmul(policy, tern::view(queries.data() + h * rows * dim, rows, dim), context.landmarks[h], scores[h]);
    detail::parallel_for(policy, kv_heads, [&](index h, index) TERN_LAMBDA {
      for (index r = 0; r < rows; ++r) strike(context, h, scores[h][r]);
      softmax(policy.on(serial), scores[h], scores[h], 1 / __builtin_sqrtf(static_cast<float>(dim)));
      for (index c = 0; c < chunks; ++c) best(h, c) = 0;
      for (index r = 0; r < rows; r += steps) add_wishes(scores[h].slice(0, r, r + steps), &best(h, 0));
      strike(context, h, best[h]);
      select_top(best[h], to.extent(1), to[h]);
    });
  }
  /// Chunks that are not looked for.
  static void strike(shadow_context const& context, index h, tensor_view<float, 1> const& scores) noexcept {
    for (index e = 0; e < context.exact.count(h); ++e) scores[context.exact.row(h)[e]] = detail::negative_infinity;
  }
  /// best_c = max(best_c, sum over the steps of a head's weights), or NaN; makes the first of them the sum.
  static void add_wishes(tensor_view<float, 2> const& weights, float* best) noexcept {
    index const chunks = weights.extent(1);
    float* const sum = weights.data();
    for (index i = 1; i < weights.extent(0); ++i)
      for (index c = 0; c < chunks; ++c) sum[c] += weights.data()[i * chunks + c];
    for (index c = 0; c < chunks; ++c) best[c] = sum[c] > best[c] || sum[c] != sum[c] ? sum[c] : best[c];
  }

  /// Chosen chunks that are taken at once, of some 512 tokens: what the product of these reads and writes fits the second cache.
  TERN_INLINE static index chunks_at_once(index chunk) { return chunk < 512 ? 512 / chunk : 1; }

  /// Work on some chosen chunks of a key head: makes their keys, rotate(A_j B, j), and attends to them.
  template <class Q, class Y>
  struct piece {
    shadow_context const& context;
    Q q;
    Y v;
    tensor_view<std::int32_t const, 2> chosen;
    detail::partial_results<3> const& parts;
    tensor_view<float const, 3> basis;  // (kv_heads, dim, rank)
    compute products;
    index at_once = chunks_at_once(context.chunk), count = detail::divide_up(chosen.extent(1), at_once);

    /// Calls f with the arguments of attention for piece p of key head h.
    template <class F>
    void with_arguments(index h, index p, float* rows, F const& f) const {
      index const group = q.extent(0) / chosen.extent(0), begin = h * group, end = begin + group, chunk = context.chunk;
      auto const ids = chosen[h].slice(0, p * at_once, p + 1 < count ? (p + 1) * at_once : chosen.extent(1));
      tensor_view<typename Y::element_type, 4> const pages(v[h].data(), shape<4>{{v.extent(1) / chunk, 1, chunk, v.extent(2)}},
                                                           shape<4>{{chunk * v.stride(1), 0, v.stride(1), v.stride(2)}});
      auto const keys = tern::view(rows, ids.extent(0) * chunk, q.extent(2));
      f(q.slice(0, begin, end), keys.expanded(), paged(pages, ids.expanded()), parts.out(1 + p).slice(0, begin, end),
        log_sum_exp(parts.lse(1 + p).out.slice(0, begin, end)));
    }
    /// Of a piece's keys and tokens, and of scratch for its calls. The first piece is the largest.
    TERN_INLINE index tokens() const { return (count > 1 ? at_once : chosen.extent(1)) * context.chunk; }
    std::size_t own_bytes() const { return workspace::rounded(static_cast<std::size_t>(tokens() * (q.extent(2) + 1)) * sizeof(float)); }
    std::size_t scratch_bytes(cpu_policy const& policy) const {
      tensor_view<std::int32_t const, 1> const ids(nullptr, shape<1>{{tokens()}});
      std::size_t most = workspace_size(matmul, policy, context.codes, basis[0],
                                        tern::view(static_cast<float*>(nullptr), tokens(), q.extent(2)), gather{ids}, products);
      with_arguments(0, 0, nullptr, [&](auto const&... arguments) {
        std::size_t const bytes = workspace_size(attention, policy, arguments...);
        most = bytes > most ? bytes : most;
      });
      return workspace::rounded(most);
    }
    void run(index h, index p, std::byte* memory, std::size_t scratch) const {
      workspace mine(memory + own_bytes(), scratch);
      cpu_policy const policy = cpu_policy{}.on(serial).with(mine);
      auto* const rows = reinterpret_cast<float*>(memory);
      auto* const ids = reinterpret_cast<std::int32_t*>(rows + tokens() * q.extent(2));
      index const chunk = context.chunk, first = p * at_once, left = chosen.extent(1) - first, some = left < at_once ? left : at_once;
      auto const keys = tern::view(rows, some * chunk, q.extent(2));
      for (index i = 0; i < some * chunk; ++i) ids[i] = static_cast<std::int32_t>(chosen(h, first + i / chunk) * chunk + i % chunk);
      matmul(policy, context.codes, basis[h], keys, gather{tern::view(ids, some * chunk)}, products);
      for (index c = 0; c < some; ++c)
        rope(policy, keys.slice(0, c * chunk, (c + 1) * chunk), context.table.slice(0, ids[c * chunk], ids[c * chunk] + chunk),
             {.pairing = context.pairing});
      with_arguments(h, p, rows, [&](auto const&... arguments) { attention(policy, arguments...); });
    }
  };

  /// Attention over the chosen chunks.
  template <class Q, class Y>
  static void attend(cpu_policy const& policy, Q const& q, shadow_context const& context, Y const& v,
                     tensor_view<std::int32_t const, 2> const& chosen, detail::partial_results<3> const& parts, compute products) {
    index const dim = q.extent(2), kv_heads = chosen.extent(0), rank = context.basis.extent(0);
    workspace::lease const of_basis(policy.scratch(), static_cast<std::size_t>(kv_heads * dim * rank) * sizeof(float));
    auto const basis = tern::view(reinterpret_cast<float*>(of_basis.data()), kv_heads, dim, rank);
    detail::parallel_for(policy, kv_heads, [&](index h, index) TERN_LAMBDA {
      for (index c = 0; c < rank; ++c)
        for (index d = 0; d < dim; ++d) basis(h, d, c) = context.basis(c, h * dim + d);
    });
    piece<Q, Y> const work{context, q, v, chosen, parts, basis, products};
    index const items = kv_heads * work.count;
    std::size_t const scratch = work.scratch_bytes(policy.on(serial)), each = work.own_bytes() + scratch;
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(detail::slots_for(policy, items)) * each);
    detail::parallel_for(policy, items, [&](index item, index slot) TERN_LAMBDA {
      work.run(item / work.count, item % work.count, memory.data() + static_cast<std::size_t>(slot) * each, scratch);
    });
  }
} shadow_kv_attention{};

}  // namespace TERN_ABI
}  // namespace tern

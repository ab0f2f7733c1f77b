// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/methods/a2ats.hpp
/// A2ATS: Retrieval-Based KV Cache Reduction via Windowed Rotary Position Embedding and Query-Aware Vector Quantization (He et al. 2025,
/// arXiv:2502.12665).
///
/// Keys are stored before rotation. Those near by stand at their distance, all others at one and the same (WRoPE), so that one codebook
/// serves them (cache/query_codebook.hpp), fitted for queries turned by `far`:
///
///     s_ij = q_i R(i - j) k_j for i - j < window,   q_i R(far) k_j beyond
///     s_ij ~ lut[code_j],   lut_c = q_i R(far) . c
///     o_i  = attention over the window, the first `sinks` keys, and for each head its `top` keys of the largest lut[code_j]; heads that
///            share a key head take each other's
///
///     a2ats_attention(policy, q, codebook, codes, table, reach, cache, s, layer, out, lse, pairing)      a step
///
/// Shapes    q, out (heads, 1, dim) of f32, f16 or bf16, q before rotation; codes int32 (kv_heads, tokens), of the tokens before the window
///           at least; lse (heads, 1); table as tern::rope_table fills it from position 0 on, for all tokens and for `far`. Heads have
///           as many tokens as each other.
/// Composition  rope, matmul, select_top; attention over gathered keys, attention over the window, and merge.
/// Memory    scratch from the policy: lut, one number and one index for each token and key head, two results.
/// Cost      2 heads codes dim flop for the tables, a look-up for each head and token, attention over what was chosen.
/// Ties      go to the earlier token.
/// Error     attention_accuracy and that of merge, for the keys that are seen.
/// Source    the abstract, and its authors' code (llama.py: window 64, far 2048, 8 sinks, the union over heads), which multiplies its
///           chosen keys rotated, where WRoPE has them as they are.

#include <tern/attention/gathered.hpp>
#include <tern/attention/windowed_rotary.hpp>
#include <tern/cache/kv_cache.hpp>
#include <tern/cache/query_codebook.hpp>

namespace tern {

/// What a step looks at.
struct a2ats_reach {
  index window = 64;
  index far = 2048;
  index sinks = 8;
  index top = 64;
};

inline namespace TERN_ABI {

/// A step: see the top of this file.
inline constexpr struct a2ats_attention_fn {
  template <tensor_like Q, class K, class V, tensor_like O, tensor_like L>
  void operator()(cpu_policy const& policy, Q&& q, query_codebook const& book, tensor_view<std::int32_t const, 2> const& codes,
                  tensor_view<float const, 2> const& table, a2ats_reach const& reach, kv_cache<K, V> const& cache, std::int32_t s,
                  index layer, O&& out, L&& lse, rope_pairing pairing = rope_pairing::interleaved) const {
    static_assert(view_of<Q>::rank == 3 && view_of<O>::rank == 3, "tern: a2ats_attention takes q and out (heads, 1, dim)");
    constexpr char const* op = "a2ats_attention";
    auto const x = tern::view(q);
    auto const to = tern::view(out);
    index const heads = x.extent(0), dim = x.extent(2), kv_heads = cache.shape().kv_heads, n = cache.longest(s, layer);
    index const count = book.keys.extent(1), before = n > reach.window ? n - reach.window : 0;
    book.check(op, kv_heads, dim);
    detail::expect(heads % kv_heads == 0, op, "q.extent(0)", heads, "a multiple of the heads of the cache");
    detail::expect_equal(op, "q.extent(1)", x.extent(1), "one token", 1);
    detail::expect(reach.window >= 1 && reach.sinks >= 0 && reach.top >= 0, op, "the window, sinks or top",
                   reach.sinks < reach.top ? reach.sinks : reach.top, "at least 1, 0 and 0");
    detail::expect(reach.far >= 0 && table.extent(0) > reach.far && table.extent(0) >= n, op, "table.extent(0)", table.extent(0),
                   "a row for each token, and for far");
    detail::expect_equal(op, "codes.extent(0)", codes.extent(0), "the heads of the cache", kv_heads);
    detail::expect(codes.extent(1) >= before, op, "codes.extent(1)", codes.extent(1), "one for each token before the window");
    for (index h = 0; h < kv_heads; ++h)
      detail::expect_equal(op, "the tokens of a head", cache.length(s, layer, h), "those of the longest", n);
    workspace::lease const memory(policy.scratch(),
                                  static_cast<std::size_t>(heads * dim + count + 2 * before + kv_heads * (before + 1)) * sizeof(float));
    auto const turned = tern::view(reinterpret_cast<float*>(memory.data()), heads, index{1}, dim);
    auto const lut = tern::view(turned.data() + turned.size(), index{1}, count);
    auto const score = tern::view(lut.data() + count, before);
    auto const chosen = tern::view(reinterpret_cast<std::int32_t*>(score.data() + before), before);
    index_lists const lists{tern::view(chosen.data() + before, kv_heads, before),
                            tern::view(chosen.data() + before * (kv_heads + 1), kv_heads)};
    rope(policy, x, turned, table.slice(0, reach.far, reach.far + 1), {.pairing = pairing});
    index const sinks = reach.sinks < before ? reach.sinks : before;
    for (index h = 0; h < kv_heads; ++h) {
      std::int32_t* const list = lists.row(h);
      for (index j = 0; j < before; ++j) list[j] = j < sinks;  // which are chosen
      for (index g = h * (heads / kv_heads); g < (h + 1) * (heads / kv_heads); ++g) {
        matmul(policy, turned[g], book.keys[h], lut);
        for (index j = sinks; j < before; ++j) {
          detail::expect(codes(h, j) >= 0 && codes(h, j) < count, op, "a code", index{codes(h, j)}, "a centroid of the codebook");
          score[j] = lut(0, codes(h, j));
        }
        index const got = select_top(score.slice(0, sinks, before), reach.top, chosen);
        for (index i = 0; i < got; ++i) list[sinks + chosen[i]] = 1;
      }
      index listed = 0;
      for (index j = 0; j < before; ++j)
        if (list[j] != 0) list[listed++] = static_cast<std::int32_t>(j);
      lists.counts[h] = static_cast<std::int32_t>(listed);
    }
    detail::partial_results<3> const parts(policy, 2, to);
    attention(policy, x, cache.keys(s, layer), cache.values(s, layer), parts.out(0), parts.lse(0), gathered{lists, heads, kv_heads, 1, n},
              clamped_rows(table, reach.far, pairing));
    attention(policy, x, cache.keys(s, layer), cache.values(s, layer), parts.out(1), parts.lse(1), window{reach.window},
              rotary{table, pairing});
    parts.merge_into(policy, to, tern::view(lse));
  }
} a2ats_attention{};

}  // namespace TERN_ABI
}  // namespace tern

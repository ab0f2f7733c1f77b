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
/// Composition  rope, matmul, the selection of select_top; attention over gathered keys, attention over the window, and merge.
/// Memory    scratch from the policy: lut, an index for each token and key head, two results; for each thread two numbers a code.
/// Cost      the codebook is read once, with 2 heads codes dim flop; five passes over the lut of a head, and three over the codes of a
///           key head, whose heads share them; attention over what was chosen.
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
    for (index h = 0; h < kv_heads; ++h) check_codes(op, codes[h].slice(0, 0, before), count);
    index const group = heads / kv_heads, slots = detail::slots_for(policy, kv_heads);
    workspace::lease const memory(
        policy.scratch(),
        static_cast<std::size_t>(heads * (dim + count) + slots * 2 * (count + group) + kv_heads * (before + 1)) * sizeof(float));
    auto const turned = tern::view(reinterpret_cast<float*>(memory.data()), heads, index{1}, dim);
    auto const lut = tern::view(turned.data() + turned.size(), heads, count);
    auto* const ranking = reinterpret_cast<std::int32_t*>(lut.data() + lut.size());
    auto* const ids = ranking + slots * 2 * (count + group);
    index_lists const lists{tern::view(ids, kv_heads, before), tern::view(ids + kv_heads * before, kv_heads)};
    rope(policy, x, turned, table.slice(0, reach.far, reach.far + 1), {.pairing = pairing});
    for (index h = 0; h < kv_heads; ++h)
      matmul(policy, tern::view(turned[h * group].data(), group, dim), book.keys[h], lut.slice(0, h * group, (h + 1) * group));
    detail::parallel_for(policy, kv_heads, [&](index h, index slot) TERN_LAMBDA {
      lists.counts[h] = static_cast<std::int32_t>(choose(lut.slice(0, h * group, (h + 1) * group), codes[h].slice(0, 0, before), reach,
                                                         ranking + slot * 2 * (count + group), lists.row(h)));
    });
    detail::partial_results<3> const parts(policy, 2, to);
    attention(policy, turned, cache.keys(s, layer), cache.values(s, layer), parts.out(0), parts.lse(0),
              gathered{lists, heads, kv_heads, 1, n});
    attention(policy, x, cache.keys(s, layer), cache.values(s, layer), parts.out(1), parts.lse(1), window{reach.window},
              rotary{table, pairing});
    parts.merge_into(policy, to, tern::view(lse));
  }

 private:
  TERN_INLINE static void check_codes(char const* op, tensor_view<std::int32_t const, 1> const& codes, index count) {
    std::uint32_t largest = 0;  // what is negative is larger than all
    for (index j = 0; j < codes.extent(0); ++j) {
      auto const code = static_cast<std::uint32_t>(codes[j]);
      largest = code > largest ? code : largest;
    }
    detail::expect(codes.extent(0) == 0 || index{largest} < count, op, "a code", index{static_cast<std::int32_t>(largest)},
                   "a centroid of the codebook");
  }

  /// Lists the sinks and what the heads of a key head choose; returns how many these are. Tokens of a code score alike, so codes are
  /// ranked, each as often as it occurs, and a pass over the tokens then serves all heads. memory: 2 (codes + heads).
  static index choose(tensor_view<float const, 2> const& lut, tensor_view<std::int32_t const, 1> const& codes, a2ats_reach const& reach,
                      std::int32_t* memory, std::int32_t* list) noexcept {
    index const heads = lut.extent(0), count = lut.extent(1), before = codes.extent(0);
    index const sinks = reach.sinks < before ? reach.sinks : before, top = reach.top < before - sinks ? reach.top : before - sinks;
    std::int32_t *const times = memory, *const marks = times + count, *const left = marks + count;
    auto* const last = reinterpret_cast<std::uint32_t*>(left + heads);
    for (index c = 0; c < count; ++c) times[c] = marks[c] = 0;
    for (index j = sinks; j < before; ++j) ++times[codes[j]];
    for (index g = 0; g < heads && top > 0; ++g) {
      detail::kth_score const kth(lut[g], top, [&](index c) { return index{times[c]}; });
      last[g] = kth.order;
      left[g] = kth.order != 0 ? static_cast<std::int32_t>(kth.equal) : 0;  // -inf is chosen by none
      for (index c = 0; c < count; ++c) {
        std::uint32_t const order = detail::order_of(lut(g, c));
        marks[c] |= order > kth.order ? all_of_code : order == kth.order ? first_of_code : 0;
      }
    }
    index listed = 0;
    for (index j = 0; j < before; ++j) {
      std::int32_t const mark = j < sinks ? all_of_code : marks[codes[j]];
      bool chosen = (mark & all_of_code) != 0;
      if (j >= sinks && (mark & first_of_code) != 0)
        for (index g = 0; g < heads; ++g)
          if (detail::order_of(lut(g, codes[j])) == last[g] && left[g]-- > 0) chosen = true;
      list[listed] = static_cast<std::int32_t>(j);
      listed += chosen;
    }
    return listed;
  }
  static constexpr std::int32_t all_of_code = 1, first_of_code = 2;
} a2ats_attention{};

}  // namespace TERN_ABI
}  // namespace tern

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
/// When      at each step of decoding, after the layer's append. The codebook is of other texts or of the prompt; a token needs its code
///           when the window leaves it behind.
/// Keeps     everything: memory is that of the cache, of a code for each token, and of the codebook.
/// Memory    scratch from the policy: q, lut, an index for each token and key head, two results; for each thread five numbers a code.
/// Cost      the codebook is read once, with 2 heads codes dim flop; five passes over the lut of a head, and three over the codes of a
///           key head, whose heads share them; attention over what was chosen.
/// Ties      go to the earlier token.
/// Error     attention_accuracy and that of merge, for the keys that are seen.
/// Source    the abstract, and its authors' code (llama.py: window 64, far 2048, 8 sinks, the union over heads), which multiplies its
///           chosen keys rotated, where WRoPE has them as they are.

#include <tern/attention/gathered.hpp>
#include <tern/attention/partials.hpp>
#include <tern/attention/rotary.hpp>
#include <tern/cache/kv_cache.hpp>
#include <tern/cache/query_codebook.hpp>
#include <tern/matmul/matmul.hpp>
#include <tern/pointwise/rows.hpp>

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
        static_cast<std::size_t>(heads * (dim + count) + slots * ranking_size(count, group) + kv_heads * (before + 1)) * sizeof(float));
    auto const turned = tern::view(reinterpret_cast<float*>(memory.data()), heads, index{1}, dim);
    auto const lut = tern::view(turned.data() + turned.size(), heads, count);
    auto* const ranking = reinterpret_cast<std::int32_t*>(lut.data() + lut.size());
    auto* const ids = ranking + slots * ranking_size(count, group);
    index_lists const lists{tern::view(ids, kv_heads, before), tern::view(ids + kv_heads * before, kv_heads)};
    rope(policy, x, turned, table.slice(0, reach.far, reach.far + 1), {.pairing = pairing});
    for (index h = 0; h < heads; ++h)  // as if keys were turned by row 0: a table may have a magnitude (YaRN)
      for (index d = 0; d < table.extent(1); ++d) turned(h, 0, d) *= table(0, 0);
    for (index h = 0; h < kv_heads; ++h)
      matmul(policy, tern::view(turned[h * group].data(), group, dim), book.keys[h], lut.slice(0, h * group, (h + 1) * group));
    detail::parallel_for(policy, kv_heads, [&](index h, index slot) TERN_LAMBDA {
      lists.counts[h] = static_cast<std::int32_t>(choose(lut.slice(0, h * group, (h + 1) * group), codes[h].slice(0, 0, before), reach,
                                                         ranking + slot * ranking_size(count, group), lists.row(h)));
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

  /// What ranking the codes of a key head takes, in numbers.
  TERN_INLINE static constexpr index ranking_size(index codes, index heads) { return 5 * codes + 2 * heads; }

  /// Lists the sinks and what the heads of a key head choose; returns how many these are. Tokens of a code score alike, so codes are
  /// ranked, each as often as it occurs, and a pass over the tokens then serves all heads.
  static index choose(tensor_view<float, 2> const& lut, tensor_view<std::int32_t const, 1> const& codes, a2ats_reach const& reach,
                      std::int32_t* memory, std::int32_t* list) noexcept {
    constexpr index at_once = 16;  // tokens, few of which are chosen
    index const heads = lut.extent(0), count = lut.extent(1), before = codes.extent(0);
    index const sinks = reach.sinks < before ? reach.sinks : before, top = reach.top < before - sinks ? reach.top : before - sinks;
    std::int32_t *const times = memory, *const marks = times + count, *const left = marks + count;
    auto* const last = reinterpret_cast<std::uint32_t*>(left + heads);
    for (index c = 0; c < count; ++c) times[c] = marks[c] = 0;
    for (index j = sinks; j < before; ++j) ++times[codes[j]];
    for (index g = 0; g < heads && top > 0; ++g) {
      detail::kth_score const kth = mark(&lut(g, 0), count, top, times, marks, left + 2 * heads);
      last[g] = kth.order;
      left[g] = kth.order != 0 ? static_cast<std::int32_t>(kth.equal) : 0;  // -inf is chosen by none
    }
    index listed = 0;
    for (; listed < sinks; ++listed) list[listed] = static_cast<std::int32_t>(listed);
    for (index first = sinks; first < before; first += at_once) {
      index const end = first + at_once < before ? first + at_once : before;
      std::int32_t any = 0;
      for (index j = first; j < end; ++j) any |= marks[codes[j]];
      for (index j = first; j < end && any != 0; ++j) {
        std::int32_t const mark = marks[codes[j]];
        bool chosen = (mark & all_of_code) != 0;
        for (index g = 0; g < heads && (mark & first_of_code) != 0; ++g)
          if (detail::order_of(lut(g, codes[j])) == last[g] && left[g]-- > 0) chosen = true;
        if (chosen) list[listed++] = static_cast<std::int32_t>(j);
      }
    }
    return listed;
  }
  /// Marks the codes of which a head wants all tokens, or the first ones, and returns where the latter lie. Codes below the least of `top`
  /// maxima, of as many parts of them, are not among the best. score: -inf for codes that do not occur, from then on.
  TERN_INLINE static detail::kth_score mark(float* score, index count, index top, std::int32_t const* times, std::int32_t* marks,
                                            std::int32_t* memory) {
    std::int32_t *const candidates = memory, *const often = candidates + count;
    float *const value = reinterpret_cast<float*>(often + count), least = -detail::negative_infinity;
    for (index c = 0; c < count; ++c) score[c] = times[c] > 0 ? score[c] : detail::negative_infinity;
    index const part = count / top;  // 0 where all are candidates
    for (index p = 0; p < top && part > 0; ++p) {
      simd::pack<float> most(detail::negative_infinity);
      detail::each_pack(p * part, (p + 1) * part, [&](index c, auto piece) TERN_LAMBDA {
        most = simd::max(detail::or_else(detail::load(score + c, piece), detail::negative_infinity, piece), most);
      });
      float const of_part = simd::reduce_max(most);
      least = of_part < least ? of_part : least;
    }
    if (part == 0) least = detail::negative_infinity;
    index some = 0;
    for (index c = 0; c < count; ++c) {
      candidates[some] = static_cast<std::int32_t>(c);
      some += !(score[c] < least);
    }
    for (index i = 0; i < some; ++i) {
      value[i] = score[candidates[i]];
      often[i] = times[candidates[i]];
    }
    detail::kth_score const kth(tern::view(static_cast<float const*>(value), some), top,
                                [&](index i) TERN_LAMBDA { return index{often[i]}; });
    for (index i = 0; i < some; ++i) {
      std::uint32_t const order = detail::order_of(value[i]);
      marks[candidates[i]] |= order > kth.order ? all_of_code : order == kth.order ? first_of_code : 0;
    }
    return kth;
  }
  static constexpr std::int32_t all_of_code = 1, first_of_code = 2;
} a2ats_attention{};

}  // namespace TERN_ABI
}  // namespace tern

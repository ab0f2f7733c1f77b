// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/methods/streaming_llm.hpp
/// StreamingLLM: Efficient Streaming Language Models with Attention Sinks (Xiao, Tian, Chen, Han and Lewis 2023, arXiv:2309.17453).
///
/// The first tokens, on which attention rests, and the latest stay:
///
///     tokens j < sinks and j >= tokens - window stay
///
///     streaming_llm(policy, cache, s, layer, {4, 1020})               in pages: up to 63 tokens more stay
///     streaming_llm(policy, cache, s, layer, {4, 1020, true})         exactly those
///     streaming_llm(policy, cache, s, layer, {4, 1020}, options)      and positions are counted within the cache, as in the paper: keys
///                                                                     turn (cache/rerotate.hpp; options as rope takes them), the next
///                                                                     token comes behind
///
/// When      at any time. With positions in the cache, a text may be longer than any the model was trained on. Where keys are
///           stored before rotation, attention gives them their places at no cost (attention/rotary.hpp), and no `options` are passed.
/// Cost      in pages: less than 64 tokens move, in one of 64 calls. Exactly: the window moves. With `options`, all keys are read and
///           written where some went.
/// Source    the paper and its authors' code (4 sinks); kvpress's StreamingLLMPress keeps the same tokens.

#include <tern/cache/rerotate.hpp>
#include <tern/cache/token_scores.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
struct sinks_and_window {
  index sinks = 4, window = 1020;
  bool exact = false;  ///< not in pages
};

/// See the top of this file.
inline constexpr struct streaming_llm_fn {
  template <class K, class V>
  void operator()(cpu_policy const& policy, kv_cache<K, V>& cache, std::int32_t s, index layer, sinks_and_window const& stay = {}) const {
    if (!stay.exact) return cache.slide(policy, s, layer, stay.sinks, stay.window);
    detail::expect(stay.sinks >= 0 && stay.window >= 0, "streaming_llm", "sinks or window",
                   stay.sinks < stay.window ? stay.sinks : stay.window, "not negative");
    index const heads = cache.shape().kv_heads, keys = cache.longest(s, layer);
    token_scores const of(policy, heads, keys);
    for (index h = 0; h < heads; ++h) {
      index const length = cache.length(s, layer, h);
      index count = 0;
      for (index j = 0; j < length; ++j)
        if (j < stay.sinks || j >= length - stay.window) of.kept.row(h)[count++] = static_cast<std::int32_t>(j);
      of.kept.counts[h] = static_cast<std::int32_t>(count);
    }
    cache.keep(policy, s, layer, of.kept);
  }
  template <class K, class V>
  void operator()(cpu_policy const& policy, kv_cache<K, V>& cache, std::int32_t s, index layer, sinks_and_window const& stay,
                  rope_options const& options) const {
    (*this)(policy, cache, s, layer, stay);
    bool gaps = false;
    for (index h = 0; h < cache.shape().kv_heads; ++h) gaps |= cache.length(s, layer, h) != cache.next_position(s, layer);
    if (gaps) rerotate(policy, cache, s, layer, 0, options);
  }
} streaming_llm{};

}  // namespace TERN_ABI
}  // namespace tern

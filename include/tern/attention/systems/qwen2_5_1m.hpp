// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/qwen2_5_1m.hpp
/// Qwen2.5-1M Technical Report (Yang et al. 2025, arXiv:2501.15383): sparse attention with chunked prefill, and how its budgets are
/// refined.
///
///     for each chunk of queries, with the keys up to its end:  o = minference(...): vertical-slash patterns found by the chunk's own last
///                                                              64 queries
///     recall_h = mean_i exp(lse_sparse_hi - lse_full_hi);      a head with a recall below `wanted` gets larger budgets, again and again
///
///     qwen2_5_1m_prefill(policy, q, k, v, out, patterns, chunk, memory, runs);
///     qwen2_5_1m_refine(policy, q, k, patterns, wanted, rounds, memory, runs, recall, first);
///
/// Shapes    as in minference.hpp; `chunk` queries at a time, the last chunk maybe fewer; chunk >= tokens is minference. The memory is
///           minference_capacity(patterns, heads, min(chunk, tokens), keys), after refinement for budgets that have grown.
/// Positions the report's dual chunk positions are no part of this; rows come rotated.
/// Refine    doubles both numbers of a vertical-slash or block-sparse head, at most to all keys, and the local keys of an a_shape;
///           returns the rounds taken, at most `rounds`. Memory for minference_capacity of the most that may become of the budgets.
/// Source    the report's chunked prefill and sparsity refinement; by how much budgets grow is this file's choice.

#include <tern/attention/systems/minference.hpp>

namespace tern {
inline namespace TERN_ABI {

/// qwen2_5_1m_prefill(policy, q, k, v, out, patterns, chunk, memory, runs, options...): see the top of this file.
inline constexpr struct qwen2_5_1m_prefill_fn {
  template <tensor_like Q, tensor_like K, tensor_like V, tensor_like O, class... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, minference_head const* patterns, index chunk,
                  tensor_view<std::int32_t, 1> const& memory, vertical_slash_head* runs, Options const&... options) const {
    auto const vq = tern::view(q);
    auto const vk = tern::view(k);
    auto const vv = tern::view(v);
    auto const vo = tern::view(out);
    index const tokens = vq.extent(1), before = vk.extent(1) - tokens;
    detail::expect(chunk >= 1, "qwen2_5_1m_prefill", "chunk", chunk, "at least 1");
    detail::expect(before >= 0, "qwen2_5_1m_prefill", "q.extent(1)", tokens, "at most the keys");
    detail::expect_equal("qwen2_5_1m_prefill", "v.extent(1)", vv.extent(1), "k.extent(1)", vk.extent(1));
    detail::expect_equal("qwen2_5_1m_prefill", "out.extent(1)", vo.extent(1), "q.extent(1)", tokens);
    for (index from = 0; from < tokens; from += chunk) {
      index const to = from + chunk < tokens ? from + chunk : tokens;
      minference(policy, vq.slice(1, from, to), vk.slice(1, 0, before + to), vv.slice(1, 0, before + to), vo.slice(1, from, to), patterns,
                 memory, runs, options...);
    }
  }
} qwen2_5_1m_prefill{};

/// qwen2_5_1m_refine(policy, q, k, patterns, wanted, rounds, memory, runs, recall, first): see the top of this file.
inline constexpr struct qwen2_5_1m_refine_fn {
  template <tensor_like Q, tensor_like K>
  index operator()(cpu_policy const& policy, Q&& q, K&& k, minference_head* patterns, float wanted, index rounds,
                   tensor_view<std::int32_t, 1> const& memory, vertical_slash_head* runs, tensor_view<float, 1> const& recall,
                   index first = 0) const {
    index const heads = tern::view(q).extent(0), keys = tern::view(k).extent(1);
    auto const grown = [&](index x) TERN_LAMBDA { return x < 1 ? 1 : (2 * x < keys ? 2 * x : keys); };
    for (index round = 0; round < rounds; ++round) {
      minference_recall(policy, q, k, patterns, memory, runs, recall, first);
      bool all = true;
      for (index h = 0; h < heads; ++h) {
        if (patterns[h].pattern == minference_pattern::dense || recall[h] >= wanted) continue;
        all = false;
        if (patterns[h].pattern != minference_pattern::a_shape) patterns[h].first = grown(patterns[h].first);
        patterns[h].second = grown(patterns[h].second);
      }
      if (all) return round + 1;
    }
    return rounds;
  }
} qwen2_5_1m_refine{};

}  // namespace TERN_ABI
}  // namespace tern

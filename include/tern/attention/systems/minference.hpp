// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/minference.hpp
/// MInference 1.0: Accelerating Pre-filling for Long-Context LLMs via Dynamic Sparse Attention (Jiang et al. 2024, arXiv:2407.02490).
///
///     o_i = sum over the keys j that head h lets query i see of softmax(q_i . k_j / sqrt(dim)) v_j
///
/// Each head has one of these patterns, chosen once (minference_search); where it looks is found anew for each prompt:
///
///     a_shape{sink, local}             the first `sink` keys and, in blocks of 64 queries, the `local` keys up to a query's own
///     vertical_slash{columns, slashes} by the last 64 queries: estimators/last_queries.hpp
///     block_sparse{blocks}             by the means of blocks: estimators/pooled_blocks.hpp
///     dense                            all keys
///
///     vertical_slash_head runs[heads];
///     minference(policy, q, k, v, out, patterns, memory, runs, options...);
///
/// Shapes    q (heads, tokens, dim), k (k_heads, keys, dim), v (v_heads, keys, dim_v), out (heads, tokens, dim_v); causal, the last
///           query at the last key, tokens <= keys. `patterns` and `runs` have an entry a head; memory `minference_capacity` numbers.
/// Options   those of attention but a layout. Where heads look is found from q . k / sqrt(dim) alone: rows come rotated.
/// Cost      that of attention over the keys that are seen, and that of the estimators.
/// Error     attention_accuracy, for the keys that are seen.
/// Source    the paper, and csrc/vertical_slash_index.cu and minference_forward.py of its authors, where budgets are at least 30
///           columns and 50 slashes, and heads of another pattern than vertical_slash run as one in its place.

#include <tern/attention/estimators/last_queries.hpp>
#include <tern/attention/estimators/pooled_blocks.hpp>
#include <tern/attention/recall.hpp>
#include <tern/attention/vertical_slash.hpp>

namespace tern {

/// What shape the attention of a head has.
enum class minference_pattern { a_shape, vertical_slash, block_sparse, dense };

/// A head's pattern and budget.
struct minference_head {
  minference_pattern pattern;
  index first = 0;                ///< a_shape: sink; vertical_slash: columns; block_sparse: blocks of keys for each block of queries
  index second = 0;               ///< a_shape: local; vertical_slash: slashes
  index sink = 30, recent = 100;  ///< vertical_slash: that many columns and slashes are always among them
};

namespace detail {
inline namespace TERN_ABI {

/// Numbers of memory for the lists of a head, in front of its runs.
TERN_INLINE index minference_lists(minference_head const& head, index tokens, index keys) {
  if (head.pattern == minference_pattern::vertical_slash)
    return (head.first < keys ? head.first : keys) + (head.second < keys ? head.second : keys);
  if (head.pattern == minference_pattern::block_sparse) return divide_up(tokens, sparse_block) * (head.first + 1);
  return 0;
}
TERN_INLINE index minference_runs(minference_head const& head, index tokens, index keys) {
  bool const listed = head.pattern == minference_pattern::block_sparse, slashes = head.pattern == minference_pattern::vertical_slash;
  return vertical_slash_capacity(tokens, keys, listed ? head.first : slashes ? head.second : 2);
}

/// What head h sees, built into `memory`.
template <class Q, class K>
inline vertical_slash_head minference_head_of(cpu_policy const& policy, tensor_view<Q, 3> const& q, tensor_view<K, 3> const& k, index h,
                                              minference_head const& head, tensor_view<std::int32_t, 1> const& memory) {
  index const tokens = q.extent(1), keys = k.extent(1), lists = minference_lists(head, tokens, keys);
  auto const runs = memory.slice(0, lists, memory.extent(0));
  switch (head.pattern) {
    case minference_pattern::a_shape:
      return streaming_runs(head.first, head.second, tokens, keys, runs);
    case minference_pattern::vertical_slash: {
      index const columns = head.first < keys ? head.first : keys;
      auto const c = memory.slice(0, 0, columns), s = memory.slice(0, columns, lists);
      auto const n = estimate_vertical_slash.of_head(policy, q, k, h, {head.first, head.second, head.sink, head.recent}, c, s);
      return vertical_slash_runs(c.slice(0, 0, n.columns), s.slice(0, 0, n.slashes), tokens, keys, runs);
    }
    case minference_pattern::block_sparse: {
      index const blocks = divide_up(tokens, sparse_block);
      index_lists const found{tern::view(memory.data(), blocks, head.first), memory.slice(0, blocks * head.first, lists)};
      estimate_blocks(policy, q[h], k[h / (q.extent(0) / k.extent(0))], head.first, found);
      return block_runs(found, 0, tokens, keys, runs);
    }
    case minference_pattern::dense:
      break;
  }
  return dense_runs(tokens, keys, runs);
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// The numbers of memory that minference takes for these heads.
TERN_INLINE index minference_capacity(minference_head const* patterns, index heads, index tokens, index keys) {
  index sum = 0;
  for (index h = 0; h < heads; ++h)
    sum += detail::minference_lists(patterns[h], tokens, keys) + detail::minference_runs(patterns[h], tokens, keys);
  return sum;
}

/// Finds where each head looks: the layout that minference calls attention with.
template <tensor_like Q, tensor_like K>
inline vertical_slash minference_index(cpu_policy const& policy, Q&& q, K&& k, minference_head const* patterns,
                                       tensor_view<std::int32_t, 1> const& memory, vertical_slash_head* runs) {
  static_assert(view_of<Q>::rank == 3 && view_of<K>::rank == 3, "tern: minference takes q (heads, tokens, dim) and k (k_heads, keys, dim)");
  auto const vq = tern::view(q);
  auto const vk = tern::view(k);
  index const heads = vq.extent(0), tokens = vq.extent(1), keys = vk.extent(1), needed = minference_capacity(patterns, heads, tokens, keys);
  detail::expect_divisor("minference", "k.extent(0)", vk.extent(0), "a divisor of the heads of q", heads);
  detail::expect(memory.extent(0) >= needed, "minference", "the memory", memory.extent(0), "minference_capacity numbers");
  index at = 0;
  for (index h = 0; h < heads; ++h) {
    index const next = at + detail::minference_lists(patterns[h], tokens, keys) + detail::minference_runs(patterns[h], tokens, keys);
    runs[h] = detail::minference_head_of(policy, vq, vk, h, patterns[h], memory.slice(0, at, next));
    at = next;
  }
  return {runs, tokens, keys};
}

/// minference(policy, q, k, v, out, patterns, memory, runs, options...): see the top of this file.
inline constexpr struct minference_fn {
  template <tensor_like Q, tensor_like K, tensor_like V, tensor_like O, class... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, minference_head const* patterns,
                  tensor_view<std::int32_t, 1> const& memory, vertical_slash_head* runs, Options const&... options) const {
    attention(policy, q, k, v, out, minference_index(policy, q, k, patterns, memory, runs), options...);
  }
} minference{};

/// The recall (recall.hpp) of these patterns over queries `first` on, one number a head. It takes two calls of attention without
/// values: with all keys, and with those that are seen. Scratch from the policy: 2 heads tokens numbers.
inline constexpr struct minference_recall_fn {
  template <tensor_like Q, tensor_like K>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, minference_head const* patterns, tensor_view<std::int32_t, 1> const& memory,
                  vertical_slash_head* runs, tensor_view<float, 1> const& recall, index first = 0) const {
    auto const vq = tern::view(q);
    auto const none = tern::view(k).slice(2, 0, 0);
    index const heads = vq.extent(0), tokens = vq.extent(1);
    workspace::lease const scratch(policy.scratch(), static_cast<std::size_t>(2 * heads * tokens) * sizeof(float));
    auto const sparse = tern::view(reinterpret_cast<float*>(scratch.data()), heads, tokens);
    auto const full = tern::view(sparse.data() + heads * tokens, heads, tokens);
    tensor_view<float, 3> const out(full.data(), shape<3>{{heads, tokens, 0}});
    minference(policy, q, k, none, out, patterns, memory, runs, log_sum_exp{sparse});
    attention(policy, q, k, none, out, causal{}, log_sum_exp{full});
    attention_recall(sparse, full, recall, first);
  }
} minference_recall{};

/// The pattern of each head: of `count` candidates the one with the largest recall over queries `first` on, of equal ones the first.
/// The paper compares candidates of equal cost (algorithm 1); which those are is the caller's to say. `trial` and `runs` have an
/// entry a head, `memory` what the most demanding candidate takes for all heads, `best` and `recall` get the result.
inline constexpr struct minference_search_fn {
  template <tensor_like Q, tensor_like K>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, minference_head const* candidates, index count, minference_head* trial,
                  tensor_view<std::int32_t, 1> const& memory, vertical_slash_head* runs, minference_head* best,
                  tensor_view<float, 1> const& recall, index first = 0) const {
    index const heads = tern::view(q).extent(0);
    detail::expect(count >= 1, "minference_search", "the count of candidates", count, "at least 1");
    workspace::lease const scratch(policy.scratch(), static_cast<std::size_t>(heads) * sizeof(float));
    auto const reached = tern::view(reinterpret_cast<float*>(scratch.data()), heads);
    for (index c = 0; c < count; ++c) {
      for (index h = 0; h < heads; ++h) trial[h] = candidates[c];
      minference_recall(policy, q, k, trial, memory, runs, reached, first);
      for (index h = 0; h < heads; ++h) {
        if (c > 0 && !(reached[h] > recall[h])) continue;
        recall[h] = reached[h];
        best[h] = candidates[c];
      }
    }
  }
} minference_search{};

}  // namespace TERN_ABI
}  // namespace tern

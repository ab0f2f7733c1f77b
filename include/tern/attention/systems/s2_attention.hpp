// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/s2_attention.hpp
/// S2-Attention (DKernel): each head attends to the blocks before it and to a shard of the others, every stride-th block, at an offset of
/// its own, so that the heads together cover the context.
///
///     query block q meets key block k:   k <= q and (q - k < local or (k + s step + 1) % stride == 0)
///     of shard s = head / heads_per_shard, step = max(1, stride / shards), shards = heads / heads_per_shard
///
///     tern::attention(policy, q, k, v, out, tern::s2_attention{block, local, stride}, tern::causal{});      // prefill, causal by token
///
/// Decoding  keeps the shard alone. A head whose newest token stands at `position` needs the keys
///
///     auto const kept = tern::s2_attention{block, local, stride}.shard(heads, head, position);
///     kept.keys; kept.key(0), kept.key(1), ...                                        // how many, and which, ascending
///     tern::attention(policy, q, cache_k, cache_v, out, tern::key_lengths(lengths));  // lengths (batch, k_heads), varlen.hpp
///
///           in a cache of that many rows for each key head, in any order: keys are rotated before they are stored. A block is dropped
///           when it leaves the local ones and keeps() says so. With grouped heads, heads_per_shard = heads / k_heads, so that heads
///           that share keys share a shard.
/// Blocks    count key positions; q is aligned bottom-right: token i stands at i + keys - tokens.
/// Limits    stride 1, or local * block >= keys, is causal attention; local = 0 shows shards alone, and a query may see nothing.
/// Errors    sizes below 1, heads that shards do not divide.
/// Cost      heads keys (local + keys / block / stride) block pairs, half of them in the diagonal block; heads are taken one by one.
/// Source    Lin et al. 2024 (arXiv:2407.17678); the pattern is that of the authors' dkernel (local-stride, not homo_head) and of vLLM's
///           and ONNX Runtime's kernels for the models that it trained.

#include <tern/attention/layout.hpp>
#include <tern/attention/options.hpp>

namespace tern {
namespace detail {

/// Strided blocks, then local ones.
struct s2_group {
  static constexpr bool local = false;
  index queries, keys;
  index first_query;
  index block, stride;
  index first_strided;  // a key
  index strided_keys;
  index first_local;  // a key
  TERN_INLINE constexpr index query(index i) const { return first_query + i; }
  TERN_INLINE constexpr index key(index j) const {
    return j < strided_keys ? first_strided + j / block * (stride - 1) * block + j : first_local + (j - strided_keys);
  }
};

/// The pattern for a number of heads.
struct s2_pattern {
  index block, local, stride, heads_per_shard, heads;

  /// Blocks k of the head's shard have (k + phase + 1) % stride == 0.
  TERN_INLINE constexpr index phase(index head) const {
    index const shards = heads / heads_per_shard, step = stride / shards > 1 ? stride / shards : 1;
    return head / heads_per_shard * step;
  }
  /// The queries [first, first + queries) in block `query_block`, of `keys` keys.
  TERN_INLINE constexpr s2_group group(index head, index query_block, index first, index queries, index keys) const {
    index const near = query_block - local + 1 > 0 ? query_block - local + 1 : 0;  // the first local block
    index const first_strided = stride - 1 - phase(head) % stride;
    index const strided = near > first_strided ? (near - first_strided + stride - 1) / stride : 0;
    index const end = (query_block + 1) * block < keys ? (query_block + 1) * block : keys;
    // The query's own block may be a strided one, where none is local, and short.
    index const last_end = (first_strided + (strided - 1) * stride + 1) * block,
                beyond = strided > 0 && last_end > keys ? last_end - keys : 0;
    index const strided_keys = strided * block - beyond, local_keys = near * block < end ? end - near * block : 0;
    return {queries, strided_keys + local_keys, first, block, stride, first_strided * block, strided_keys, near * block};
  }
};

/// A group for each block of queries.
struct bound_s2 {
  static constexpr bool per_head = true;
  s2_pattern pattern;
  index tokens, keys;
  TERN_INLINE constexpr index first_block() const { return (keys - tokens) / pattern.block; }
  TERN_INLINE constexpr index groups(index, index) const { return tokens > 0 ? (keys - 1) / pattern.block - first_block() + 1 : 0; }
  TERN_INLINE constexpr s2_group group(index, index head, index g) const {
    index const offset = keys - tokens, b = first_block() + g, begin = b * pattern.block, end = begin + pattern.block;
    index const first = begin > offset ? begin : offset, last = end < keys ? end : keys;
    return pattern.group(head, b, first - offset, last - first, keys);
  }
};

}  // namespace detail

/// Local blocks, and every stride-th block from an offset of the head's.
struct s2_attention {
  index block, local, stride;
  index heads_per_shard = 1;

  /// Whether a head keeps a block when it is no longer local.
  TERN_INLINE constexpr bool keeps(index heads, index head, index key_block) const {
    return (key_block + pattern(heads).phase(head) + 1) % stride == 0;
  }
  /// What a head's query at `position` sees of the keys [0, position].
  TERN_INLINE constexpr detail::s2_group shard(index heads, index head, index position) const {
    return pattern(heads).group(head, position / block, 0, 1, position + 1);
  }
  TERN_INLINE constexpr detail::bound_s2 over(attention_shape const& n) const { return {pattern(n.heads), n.tokens, n.keys}; }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect(block >= 1, "attention", "the block of s2_attention", block, "at least 1");
    detail::expect(stride >= 1, "attention", "the stride of s2_attention", stride, "at least 1");
    detail::expect(local >= 0, "attention", "the local blocks of s2_attention", local, "at least 0");
    detail::expect_divisor("attention", "the heads of a shard of s2_attention", heads_per_shard, "a divisor of the heads of q", n.heads);
    detail::expect(n.keys >= n.tokens, "attention", "the keys of k", n.keys, "at least the tokens of q");
  }

 private:
  TERN_INLINE constexpr detail::s2_pattern pattern(index heads) const { return {block, local, stride, heads_per_shard, heads}; }
};

}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/methods/lagkv.hpp
/// LagKV: Lag-Relative Information of the KV Cache Tells Which Tokens Are Important (Liang et al. 2025, arXiv:2504.04704).
///
/// Partitions of `lag` tokens, each measured against the next; no queries:
///
///     x' = (x - min) / (max - min), min and max of each channel over the tokens of the next partition
///     score = softmax over the partition's tokens of std(k') + softmax of std(v'), std over the channels (divided by dim - 1)
///     of each whole partition that has one behind it, the `stay` tokens with the largest stay; so do the first `sinks`, the last whole
///     partition and what is behind it
///
///     index const done = lagkv(policy, cache, s, layer, {128, 32});           after the prompt
///     done = lagkv(policy, cache, s, layer, {128, 32}, done);                 later: tokens before `done` have been chosen already
///
/// Shapes    lag, stay, sinks tokens. Returns where the part begins that is still whole; less than two partitions of it: nothing happens.
/// When      at any time; again when 2 lag tokens have come behind `done`, or at each step. Fails where heads are of different lengths.
/// Constant  a channel that is the same in all tokens of the next partition (max = min) counts as 0.
/// Cost      about 8 keys (dim + dim_v) flop a head, two readings of keys and values, and moving what stays.
/// Source    the paper and its authors' code (16 sinks). kvpress's LagKVPress spreads one budget over ranks within the partitions.

#include <tern/cache/token_norms.hpp>
#include <tern/cache/token_scores.hpp>
#include <tern/pointwise/softmax.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
struct lagkv_options {
  index lag = 128, stay = 32;
  index sinks = 16;
  float value_share = 1;  ///< how much the values' score counts
};

/// lagkv_scores(policy, cache, s, layer, from, options, scores): scores.first (kv_heads, tokens) of the partitions that begin at `from`,
/// but for the last whole one; other tokens' are unspecified. Returns how many partitions those are.
inline constexpr struct lagkv_scores_fn {
  template <class K, class V>
  index operator()(cpu_policy const& policy, kv_cache<K, V> const& cache, std::int32_t s, index layer, index from,
                   lagkv_options const& options, token_scores const& scores) const {
    index const heads = cache.shape().kv_heads, length = cache.longest(s, layer), lag = options.lag;
    detail::expect(lag >= 1, "lagkv", "options.lag", lag, "at least 1");
    detail::expect(from >= 0, "lagkv", "from", from, "at least 0");
    for (index h = 0; h < heads; ++h)
      detail::expect_equal("lagkv", "the number of a head's tokens", cache.length(s, layer, h), "that of the longest head", length);
    index const parts = length - from < 2 * lag ? 0 : (length - from) / lag - 1, dim = cache.shape().dim, dim_v = cache.shape().dim_v;
    detail::row_scratch const rows(policy, heads * parts, dim > dim_v ? dim : dim_v, 3);
    detail::parallel_for(policy, heads * parts, [&](index item, index slot) TERN_LAMBDA {
      index const h = item / parts, first = from + item % parts * lag;
      spread(
          first, lag, dim, rows.of(slot), [&](index t, float* x) TERN_LAMBDA { cache.read_key(s, layer, h, t, x); },
          &scores.first(h, first));
      spread(
          first, lag, dim_v, rows.of(slot), [&](index t, float* x) TERN_LAMBDA { cache.read_value(s, layer, h, t, x); },
          &scores.second(h, first));
    });
    for (index h = 0; h < heads && parts > 0; ++h) {
      auto const keys = tern::view(&scores.first(h, from), parts, lag), values = tern::view(&scores.second(h, from), parts, lag);
      softmax(policy, keys, keys);
      softmax(policy, values, values);
      for (index j = from; j < from + parts * lag; ++j) scores.first(h, j) += options.value_share * scores.second(h, j);
    }
    return parts;
  }

 private:
  /// to[i] = std of token first + i, as the `lag` tokens behind the partition see it.
  template <class Read>
  TERN_INLINE static void spread(index first, index lag, index dim, float* memory, Read const& read, float* to) {
    float *const x = memory, *const least = x + dim, *const most = least + dim;
    read(first + lag, least);
    read(first + lag, most);
    for (index t = 1; t < lag; ++t) {
      read(first + lag + t, x);
      detail::each_pack(0, dim, [&](index i, auto part) TERN_LAMBDA {
        auto const value = detail::load(x + i, part);
        detail::store(least + i, simd::min(value, detail::load(least + i, part)), part);
        detail::store(most + i, simd::max(value, detail::load(most + i, part)), part);
      });
    }
    for (index d = 0; d < dim; ++d) most[d] = most[d] == least[d] ? 0 : 1 / (most[d] - least[d]);
    for (index t = 0; t < lag; ++t) {
      read(first + t, x);
      float const mean = detail::sum_packs(dim,
                                           [&](index i, auto part) TERN_LAMBDA {
                                             auto const y =
                                                 (detail::load(x + i, part) - detail::load(least + i, part)) * detail::load(most + i, part);
                                             detail::store(x + i, y, part);
                                             return y;
                                           }) /
                         static_cast<float>(dim);
      float const sum = detail::sum_packs(dim, [&](index i, auto part) TERN_LAMBDA {
        auto const y = detail::or_else(detail::load(x + i, part) - simd::pack<float>(mean), 0.f, part);
        return y * y;
      });
      to[t] = dim > 1 ? __builtin_sqrtf(sum / static_cast<float>(dim - 1)) : 0;
    }
  }
} lagkv_scores{};

/// See the top of this file.
inline constexpr struct lagkv_fn {
  template <class K, class V>
  index operator()(cpu_policy const& policy, kv_cache<K, V>& cache, std::int32_t s, index layer, lagkv_options const& options = {},
                   index from = -1) const {
    index const heads = cache.shape().kv_heads, length = cache.longest(s, layer), lag = options.lag;
    detail::expect(options.sinks >= 0, "lagkv", "options.sinks", options.sinks, "at least 0");
    detail::expect(options.stay >= 0 && options.stay <= lag, "lagkv", "options.stay", options.stay, "0 to options.lag");
    if (from < 0) from = options.sinks;
    token_scores const scores(policy, heads, length);
    index const parts = lagkv_scores(policy, cache, s, layer, from, options, scores), stay = options.stay;
    if (parts == 0) return from;
    for (index h = 0; h < heads; ++h) {
      std::int32_t* const list = scores.kept.row(h);
      index count = 0;
      while (count < from) list[count] = static_cast<std::int32_t>(count), ++count;
      for (index p = 0; p < parts; ++p) {
        index const first = from + p * lag;
        select_top(scores.first[h].slice(0, first, first + lag), stay, scores.kept.room(h).slice(0, count, count + stay));
        for (index i = 0; i < stay; ++i) list[count++] += static_cast<std::int32_t>(first);
      }
      for (index j = from + parts * lag; j < length; ++j) list[count++] = static_cast<std::int32_t>(j);
      scores.kept.counts[h] = static_cast<std::int32_t>(count);
    }
    cache.keep(policy, s, layer, scores.kept);
    return from + parts * stay;
  }
} lagkv{};

}  // namespace TERN_ABI
}  // namespace tern

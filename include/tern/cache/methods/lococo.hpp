// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/methods/lococo.hpp
/// LoCoCo: Dropping In Convolutions for Long Context Compression (Cai et al. 2024, arXiv:2406.05317).
///
/// A cache of `memory` tokens a head. Tokens that were looked at most, and the last ones, stay as they are; all others are mixed into
/// M slots, by weights that a convolution over the text reads off their keys and values:
///
///     heavy  = the `local` last tokens and those with the largest scores, memory - M together;   rest = the others, L of them, in order
///     y_mt   = b_m + sum over d and channels c of W_mdc [k; v]_(t + d - width / 2, c)    over the rest; max(y, 0) with relu
///     w_m    = (1 - blend) e_m + blend softmax over t of y_m,    e_m: 1 at the m-th, by place, of the M tokens of the rest with the
///              largest scores, which the slot takes the place and the position of
///     k_m'   = sum over t of w_mt k_t,   v_m' = sum over t of w_mt v_t
///
///     lococo(policy, cache, s, layer, scores, convolution, memory, local)
///
/// Shapes    scores (kv_heads, tokens) f32, as observed_weights gives them, added up over the queries so far; weights f32 (M, width,
///           dim + dim_v), width odd, the same for all heads: where a framework has (M, channels, width), the last two change places;
///           bias (M).
/// When      whenever the cache has outgrown its memory by some tokens; heads that have not are left as they are.
/// Limits    blend = 0 is eviction of all but the largest scores.
/// Composition  the convolution is one matmul over overlapping rows, then softmax, then a matmul that mixes.
/// Memory    scratch from the policy: L (dim + dim_v + M) numbers.
/// Cost      2 L M (width + 1) (dim + dim_v) flop a head.
/// Source    its authors' code (memory_compressor.py: one layer of width 21, memory 512, half of it for slots, blend 0.5
///           to begin with, relu behind the convolution; scores are the column sums of the softmax). There heavy tokens come first and
///           slots behind them; here all lie in the order of their places.

#include <tern/cache/kv_cache.hpp>
#include <tern/cache/select_tokens.hpp>
#include <tern/cache/token_scores.hpp>
#include <tern/matmul/activation.hpp>
#include <tern/matmul/matmul.hpp>
#include <tern/pointwise/softmax.hpp>

namespace tern {

/// What mixes tokens: see the top of this file.
struct lococo_convolution {
  tensor_view<float const, 3> weights;  ///< (slots, width, dim + dim_v)
  tensor_view<float const, 1> bias;     ///< (slots)
  float blend = 0.5f;
  bool relu = true;
};

inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr struct lococo_fn {
  template <class K, class V>
    requires(!written_by_page<K>)
  void operator()(cpu_policy const& policy, kv_cache<K, V>& cache, std::int32_t s, index layer, tensor_view<float const, 2> const& scores,
                  lococo_convolution const& by, index memory, index local) const {
    constexpr char const* op = "lococo";
    index const heads = cache.shape().kv_heads, most = cache.longest(s, layer), channels = cache.shape().dim + cache.shape().dim_v;
    index const slots = by.weights.extent(0), width = by.weights.extent(1);
    detail::expect(width % 2 == 1, op, "weights.extent(1)", width, "an odd number");
    detail::expect_equal(op, "weights.extent(2)", by.weights.extent(2), "dim + dim_v", channels);
    detail::expect(by.weights.is_contiguous(), op, "weights.stride(0)", by.weights.stride(0), "rows without gaps");
    detail::expect_equal(op, "bias.extent(0)", by.bias.extent(0), "weights.extent(0)", slots);
    detail::expect(local >= 0 && memory >= slots + local, op, "memory", memory, "at least the slots and local");
    detail::expect_equal(op, "scores.extent(0)", scores.extent(0), "the heads of the cache", heads);
    detail::expect_equal(op, "scores.extent(1)", scores.extent(1), "the tokens of the cache", most);
    cache.own_pages(s, layer);  // what follows cannot fail
    token_scores const chosen(policy, heads, most);
    workspace::lease const scratch(
        policy.scratch(), static_cast<std::size_t>((most + width) * channels + slots * (most + channels + 1) + 2 * most) * sizeof(float));
    auto* const marks = reinterpret_cast<std::int32_t*>(scratch.data());  // (most): whether a token stays
    std::int32_t *const rest = marks + most, *const slot =
                                                 rest + most;  // (most): places of what is mixed; (slots): which of them are slots
    for (index h = 0; h < heads; ++h)
      for (index j = 0; j < most; ++j) chosen.first(h, j) = j < cache.length(s, layer, h) ? scores(h, j) : detail::negative_infinity;
    select_tokens(chosen.first, memory - slots, protect{0, local}, chosen.kept);
    for (index h = 0; h < heads; ++h) {
      index const length = cache.length(s, layer, h);
      std::int32_t* const list = chosen.kept.row(h);
      for (index j = 0; j < length; ++j) marks[j] = length <= memory;
      for (index i = 0; i < chosen.kept.count(h); ++i) marks[list[i]] = 1;
      index count = 0;
      for (index j = 0; j < length; ++j)
        if (marks[j] == 0) {
          chosen.first(h, count) = scores(h, j);
          rest[count++] = static_cast<std::int32_t>(j);
        }
      index const taken = select_top(chosen.first[h].slice(0, 0, count), slots, tern::view(slot, slots));
      if (taken > 0) mix(policy, cache, s, layer, h, by, rest, count, slot, taken, reinterpret_cast<float*>(slot + slots));
      for (index m = 0; m < taken; ++m) marks[rest[slot[m]]] = 1;
      count = 0;
      for (index j = 0; j < length; ++j)
        if (marks[j] != 0) list[count++] = static_cast<std::int32_t>(j);
      chosen.kept.counts[h] = static_cast<std::int32_t>(count);
    }
    cache.keep(policy, s, layer, chosen.kept);
  }

 private:
  /// The tokens `rest` of a head, mixed into those of them that `slot` names.
  template <class Cache>
  static void mix(cpu_policy const& policy, Cache& cache, std::int32_t s, index layer, index h, lococo_convolution const& by,
                  std::int32_t const* rest, index count, std::int32_t const* slot, index taken, float* memory) {
    index const dim = cache.shape().dim, channels = dim + cache.shape().dim_v, width = by.weights.extent(1), slots = by.weights.extent(0);
    float *const rows = memory + width / 2 * channels, *const end = memory + (count + width - 1) * channels;
    auto const weights = tern::view(end, slots, count);
    auto const mixed = tern::view(end + slots * count, slots, channels);
    for (float* x = memory; x < rows; ++x) *x = 0;
    for (float* x = rows + count * channels; x < end; ++x) *x = 0;
    for (index t = 0; t < count; ++t) {
      cache.read_key(s, layer, h, rest[t], rows + t * channels);
      cache.read_value(s, layer, h, rest[t], rows + t * channels + dim);
    }
    // Row t of the windows: the `width` rows around token t, one after the other.
    tensor_view<float const, 2> const windows(memory, shape<2>{{count, width * channels}}, shape<2>{{channels, 1}});
    auto const kernel = tern::view(by.weights.data(), slots, width * channels);
    if (by.relu)
      matmul(policy, windows, kernel, weights.transposed(0, 1), tern::bias{by.bias}, act::relu{});
    else
      matmul(policy, windows, kernel, weights.transposed(0, 1), tern::bias{by.bias});
    softmax(policy, weights, weights);
    for (index m = 0; m < slots; ++m) {
      for (index t = 0; t < count; ++t) weights(m, t) *= by.blend;
      if (m < taken) weights(m, slot[m]) += 1 - by.blend;
    }
    matmul(policy, tern::view(rows, count, channels).transposed(0, 1), weights, mixed.transposed(0, 1));
    for (index m = 0; m < taken; ++m) {
      cache.write_key(s, layer, h, rest[slot[m]], &mixed(m, 0));
      cache.write_value(s, layer, h, rest[slot[m]], &mixed(m, dim));
    }
  }
} lococo{};

}  // namespace TERN_ABI
}  // namespace tern

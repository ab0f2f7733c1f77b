// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/time_bias.hpp
/// A learned number for how much time lies between query and key, by bucket of its logarithm, is added to the score.
///
///     s_ij + table(h, min(floor(log(max(|t_i - t_j|, 1)) / width), buckets - 1))
///
/// Option  attention(policy, q, k, v, out, time_bias{query_times, key_times, table}): times int64 (tokens) and (keys), any unit;
///         table (heads, buckets), or (1, buckets) for all heads alike. HSTU shifts the times of queries by one: t_i is the time of
///         the item that follows.
/// Exact   differences are taken in 64 bits, their logarithm in f32 within 1 ulp: a difference that close to a bucket's edge may
///         fall to either side.
/// Source  Zhai et al. 2024, HSTU (arXiv:2402.17152); bucketization log(|x|) / 0.301 as in the authors' code.

#include <tern/attention/score.hpp>
#include <tern/core/tensor_view.hpp>
#include <tern/simd/gather.hpp>

namespace tern {
inline namespace TERN_ABI {

/// s + table(head, bucket of |t_i - t_j|)
struct time_bias {
  tensor_view<std::int64_t const, 1> query_times;  ///< (tokens)
  tensor_view<std::int64_t const, 1> key_times;    ///< (keys)
  tensor_view<float const, 2> table;               ///< (heads or 1, buckets)
  float width;                                     ///< of a bucket, in natural logarithms

  template <tensor_like Q, tensor_like K, tensor_like X>
  TERN_INLINE constexpr time_bias(Q&& of_queries, K&& of_keys, X&& x, float bucket_width = 0.301f)
      : query_times(tern::view(of_queries)), key_times(tern::view(of_keys)), table(tern::view(x)), width(bucket_width) {}
  TERN_INLINE floats operator()(floats s, score_at const& at) const {
    float apart[simd::lanes];
    std::int64_t const now = query_times[at.query];
    for (index i = 0; i < simd::lanes; ++i) {
      std::int64_t const d = now - key_times[at.key_index[i]];
      apart[i] = static_cast<float>(d < 0 ? -d : d);
    }
    floats const logs = simd::log(simd::max(simd::load(static_cast<float const*>(apart)), floats(1.f))) / floats(width);
    floats const whole = simd::round(logs), bucket = whole - simd::select(whole > logs, floats(1.f), floats(0.f));
    floats const last(static_cast<float>(table.extent(1) - 1));
    return s + simd::gather(table.data() + (table.extent(0) > 1 ? at.head * table.stride(0) : 0), simd::to_int(simd::min(bucket, last)));
  }
  TERN_INLINE void check(attention_shape const& n) const {
    index const rows = table.extent(0);
    detail::expect_equal("attention", "the times of queries", query_times.extent(0), "the tokens of q", n.tokens);
    detail::expect_equal("attention", "the times of keys", key_times.extent(0), "the keys of k", n.keys);
    detail::expect(rows == n.heads || rows == 1, "attention", "the rows of time_bias's table", rows, "the heads of q, or 1");
    detail::expect(table.extent(1) >= 1, "attention", "the buckets of time_bias", table.extent(1), "at least 1");
    detail::expect(table.extent(1) == 1 || table.stride(1) == 1, "attention", "the last stride of time_bias's table", table.stride(1),
                   "1 (contiguous rows)");
    detail::expect(width > 0, "attention", "the sign of time_bias's width", width < 0 ? -1 : 0, "that of a positive width");
  }
};

}  // namespace TERN_ABI
}  // namespace tern

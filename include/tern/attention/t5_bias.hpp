// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/t5_bias.hpp
/// T5's relative position bias: distances share learned numbers by bucket, one for each distance nearby, then wider and wider ones.
///
///     s_ij + table(h, bucket(j - i))          i, j positions as masks count them
///
///     causal         n = buckets, d = max(i - j, 0)
///     both ways      n = buckets / 2, d = |i - j|; keys behind the query (j > i) have the buckets from n on
///     bucket = d where d < n / 2; otherwise n / 2 + floor(log(d / (n / 2)) / log(most / (n / 2)) (n - n / 2)), at most n - 1
///
/// Option  attention(policy, q, k, v, out, t5_bias{table, both_ways, most}), table (heads, buckets), at most 128 of them. T5 takes
///         32 buckets and most = 128, and does not scale: scale{1}.
/// Exact   where a bucket begins is computed in f64, once a call.
/// Source  Raffel et al. 2019 (arXiv:1910.10683), buckets as in the public implementations.

#include <tern/attention/score.hpp>
#include <tern/core/tensor_view.hpp>
#include <tern/simd/gather.hpp>

namespace tern {
inline namespace TERN_ABI {

/// s + table(head, bucket of j - i)
struct t5_bias {
  tensor_view<float const, 2> table;  ///< (heads, buckets)
  bool both_ways;
  index most;  ///< the distance from which on all share the last bucket

  template <tensor_like X>
  TERN_INLINE explicit t5_bias(X&& x, bool bidirectional = true, index max_distance = 128)
      : table(tern::view(x)), both_ways(bidirectional), most(max_distance) {
    per_side_ = table.extent(1) / (both_ways ? 2 : 1);
    exact_ = per_side_ / 2;
    wide_ = per_side_ - exact_ - 1;
    double const n = static_cast<double>(exact_), growth = static_cast<double>(most) / n;
    for (index b = 0; b < wide_ && b < capacity; ++b) {
      double const start = n * __builtin_pow(growth, static_cast<double>(b + 1) / static_cast<double>(wide_ + 1));
      start_[b] = static_cast<float>(__builtin_ceil(start * (1 - 0x1p-40)));  // powers that are whole stay whole
    }
  }
  TERN_INLINE floats operator()(floats s, score_at const& at) const {
    floats const before = at.distance(), none(0.f), one(1.f);
    floats const d = both_ways ? simd::abs(before) : simd::max(none, before);
    floats bucket = simd::min(d, floats(static_cast<float>(exact_)));
    for (index b = 0; b < wide_; ++b) bucket += simd::select(d >= floats(start_[b]), one, none);
    if (both_ways) bucket += simd::select(before < none, floats(static_cast<float>(per_side_)), none);
    return s + simd::gather(table.data() + at.head * table.stride(0), simd::to_int(bucket));
  }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_equal("attention", "the rows of t5_bias's table", table.extent(0), "the heads of q", n.heads);
    detail::expect(per_side_ >= 2 && table.extent(1) <= 2 * capacity && table.extent(1) % (both_ways ? 2 : 1) == 0, "attention",
                   "the buckets of t5_bias", table.extent(1), "from 2 (both ways: an even number from 4) to 128");
    detail::expect(most > exact_, "attention", "the largest distance of t5_bias", most, "more than the buckets of one distance");
    detail::expect(table.stride(1) == 1, "attention", "the last stride of t5_bias's table", table.stride(1), "1 (contiguous rows)");
  }

 private:
  static constexpr index capacity = 64;
  index per_side_, exact_, wide_;  // buckets in one direction, of them of one distance each, and wider ones behind the first
  float start_[capacity];          // where the wider ones begin
};

}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/ranges.hpp
/// A long context is cut into ranges of keys whose results merge, so that few rows use all threads. The cut follows from the number of
/// keys, and of heads, alone.
///
///     m = max(m1, m2);  l = l1 2^(m1 - m) + l2 2^(m2 - m);  o = o1 2^(m1 - m) + o2 2^(m2 - m)

#include <tern/attention/problem.hpp>
#include <tern/attention/tile_softmax.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Keys of one range for few rows, from 512 to 4096: an eighth of all, or more where there are two heads and more, which need fewer ranges
/// to be 16 items together. A long range keeps memory busy, as its first block has to be waited for. Measured on a Xeon with AMX, f16, 8
/// heads of 4k keys, one thread: two ranges are 4 to 6 percent faster than eight of 512.
TERN_INLINE constexpr index range_for_few(index keys, index heads) {
  index const ranges = heads < 2 ? 8 : divide_up(16, heads);
  index const some = round_to_multiple(divide_up(keys, ranges), key_block);
  return some < 512 ? 512 : (some < 4096 ? some : 4096);
}
/// For the rows of a tile or some: an eighth, from 1024 on.
TERN_INLINE constexpr index range_for_many(index keys) {
  index const some = round_to_multiple(divide_up(keys, 8), key_block);
  return some < 1024 ? 1024 : some;
}

/// What one range of keys contributes to the rows of a group, in floats.
struct range_sums {
  index stride;  // dim_v, to whole packs
  float* o;      // (rows, stride)
  float* m;      // (rows)
  float* l;      // (rows)

  TERN_INLINE static index size(index dim_v, index rows) {
    return round_to_multiple(rows * (round_to_multiple(dim_v, simd::lanes) + 2), 16);
  }
  TERN_INLINE range_sums(index dim_v, index rows, float* base)
      : stride(round_to_multiple(dim_v, simd::lanes)), o(base), m(base + rows * stride), l(m + rows) {}
};

/// Rows that have seen nothing. A sink is a score that has been seen, by one of the ranges, with a value of zero.
template <class Spec, class Head>
TERN_INLINE void start_sums(Spec const& spec, index rows, bool sees_sink, Head const& head, range_sums const& sum) {
  for (index i = 0; i < rows * sum.stride; ++i) sum.o[i] = 0;
  for (index r = 0; r < rows; ++r) {
    sum.m[r] = negative_infinity;
    sum.l[r] = 0;
    if constexpr (std::same_as<std::remove_cvref_t<decltype(spec.normalizer)>, sinks>) {
      float const z = spec.normalizer.scores[head(r)] * log2_e;
      if (!sees_sink || z == negative_infinity) continue;
      sum.m[r] = z;
      sum.l[r] = 1;
    }
  }
}

/// Adds what another range of keys contributes to `rows` rows.
template <class Spec>
inline void merge_ranges(range_sums const& sum, range_sums const& next, index rows) noexcept {
  using packf = simd::pack<float>;
  for (index r = 0; r < rows; ++r) {
    packf a(1.f), c(1.f);
    if constexpr (Spec::softmax) {
      float const m = sum.m[r] < next.m[r] ? next.m[r] : sum.m[r], base = finite_base(m);
      a = exp2_of_nonpositive(packf(sum.m[r] - base));
      c = exp2_of_nonpositive(packf(next.m[r] - base));
      sum.m[r] = m;
    } else if constexpr (Spec::hardest) {
      bool const better = next.m[r] > sum.m[r];
      (better ? a : c) = packf(0.f);
      if (better || next.m[r] != next.m[r]) sum.m[r] = next.m[r];
    }
    simd::store_n(sum.l + r, simd::fma(packf(next.l[r]), c, packf(sum.l[r]) * a), 1);
    float *const to = sum.o + r * sum.stride, *const from = next.o + r * sum.stride;
    for (index d = 0; d < sum.stride; d += simd::lanes) simd::store(to + d, simd::fma(simd::load(from + d), c, simd::load(to + d) * a));
  }
}

/// Writes rows [row, row + rows) of a group.
template <class Rows>
TERN_INLINE void finish_rows(Rows const& of, index row, index rows, range_sums const& sum) {
  for (index r = 0; r < rows; ++r) of.finish(row + r, sum.o + r * sum.stride, sum.m[r], sum.l[r]);
}

}  // namespace TERN_ABI
}  // namespace tern::detail

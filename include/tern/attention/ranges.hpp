// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/ranges.hpp
/// A long context is cut into ranges of keys whose results merge, so that few rows use all threads. The cut follows from the number of
/// keys alone.
///
///     m = max(m1, m2);  l = l1 2^(m1 - m) + l2 2^(m2 - m);  o = o1 2^(m1 - m) + o2 2^(m2 - m)

#include <tern/attention/problem.hpp>
#include <tern/attention/tile.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Keys of one range for few rows: an eighth of all, from 512 to 4096. A long range keeps memory busy, as its first block has to be
/// waited for.
TERN_INLINE constexpr index few_rows_range(index keys) {
  index const some = round_to_multiple(divide_up(keys, 8), key_block);
  return some < 512 ? 512 : (some < 4096 ? some : 4096);
}
/// For the rows of a tile or some: an eighth, from 1024 on, so that what is kept between stays small beside k and v.
TERN_INLINE constexpr index many_rows_range(index keys) {
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

/// Adds what another range of keys contributes to row r.
template <class Spec>
TERN_INLINE void merge_range(range_sums const& sum, range_sums const& next, index r) {
  using packf = simd::pack<float>;
  float a[simd::lanes], c[simd::lanes];
  if constexpr (Spec::softmax) {
    if (next.l[r] == 0) return;
    if (sum.l[r] == 0) sum.m[r] = next.m[r];
    float const m = sum.m[r] < next.m[r] ? next.m[r] : sum.m[r];
    simd::store(a, exp2_of_nonpositive(sum.m[r] - m));
    simd::store(c, exp2_of_nonpositive(next.m[r] - m));
    sum.m[r] = m;
  } else if constexpr (Spec::hardest) {
    bool const better = next.m[r] > sum.m[r];
    a[0] = better ? 0.f : 1.f;
    c[0] = better ? 1.f : 0.f;
    if (better || next.m[r] != next.m[r]) sum.m[r] = next.m[r];
  } else {
    a[0] = 1;
    c[0] = 1;
  }
  sum.l[r] = sum.l[r] * a[0] + next.l[r] * c[0];
  float *const to = sum.o + r * sum.stride, *const from = next.o + r * sum.stride;
  for (index d = 0; d < sum.stride; d += simd::lanes)
    simd::store(to + d, simd::fma(simd::load(from + d), packf(c[0]), simd::load(to + d) * packf(a[0])));
}

/// Rows [row, row + rows) of a group from `ranges` results at `first`, in their order, each with room for `room` rows.
template <class Rows>
inline void finish_ranges(Rows const& of, index row, index rows, index room, float* first, index ranges) noexcept {
  using spec = typename std::remove_cvref_t<decltype(of.p)>::spec_type;
  index const dim_v = of.p.n.dim_v, size = range_sums::size(dim_v, room);
  range_sums const sum(dim_v, room, first);
  for (index r = 0; r < rows; ++r) {
    for (index i = 1; i < ranges; ++i) merge_range<spec>(sum, range_sums(dim_v, room, first + i * size), r);
    of.finish(row + r, sum.o + r * sum.stride, sum.m[r], sum.l[r]);
  }
}

}  // namespace TERN_ABI
}  // namespace tern::detail

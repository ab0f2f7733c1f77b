// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/int8_stream.hpp
/// y = x w^T for one row of quantized x: the weights are read once, from their blocks, as they lie.
///
/// `lanes` weight rows are walked side by side, 32 columns at a time. A register takes 16 bytes of lanes / 4 rows; dot products
/// of bytes leave four partial sums a row, and `sum_quads` makes one lane a row of four registers. From there on all is done
/// by the lane, in the order that int8_kernel.hpp keeps too.

#include <tern/matmul/code_panel.hpp>
#include <tern/matmul/quantize.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

template <class W>
using code_shape_of = code_shape<W::granule, W::has_min, W::offset == 128 && !simd::dot7_takes_bytes>;

/// What 32 columns add to a sum. part: the integer dot products with each half of the columns.
template <class W>
TERN_INLINE simd::pack<float> add_group(simd::pack<float> sum, simd::pack<std::int32_t> const (&part)[2], q8_scales const& x,
                                        simd::pack<float> const* scale, simd::pack<float> const* min) {
  using simd::pack;
  pack<float> const d(x.scale);
  if constexpr (W::granule == 32) {
    pack<std::int32_t> n = part[0];
    if constexpr (W::offset != 0) n = n + pack<std::int32_t>(-W::offset * x.total);
    sum = simd::fma(simd::to_float(n), scale[0] * d, sum);
    if constexpr (W::has_min) sum = simd::fma(min[0], pack<float>(x.sum), sum);
    return sum;
  } else {
    std::int32_t const taken[2] = {x.first, x.total - x.first};
    TERN_UNROLL
    for (index j = 0; j < 2; ++j) {
      pack<std::int32_t> n = part[j];
      if constexpr (W::offset != 0) n = n + pack<std::int32_t>(-W::offset * taken[j]);
      sum = simd::fma(simd::to_float(n), scale[j] * d, sum);
      if constexpr (W::has_min) sum = simd::fma(min[j], pack<float>(x.scale * static_cast<float>(taken[j])), sum);
    }
    return sum;
  }
}

/// The integer dot products of `lanes` weight rows with 32 columns of x: of each half, or of both in part[0] where they share a scale.
template <class W>
TERN_INLINE void multiply_group(row_group<W::granule> const& w, std::int8_t const* q, simd::pack<std::int32_t> (&part)[2]) {
  using simd::pack;
  using shape = code_shape_of<W>;
  constexpr bool one = W::granule == 32;
  if constexpr (loads_quads<W>) {
    part[0] = part[1] = pack<std::int32_t>(0);
    TERN_UNROLL
    for (index j = 0; j < 4; ++j) {
      part[0] = dot_codes<shape>(part[0], w.u[0][j], simd::splat4(q + 4 * j));
      part[1] = dot_codes<shape>(part[1], w.u[1][j], simd::splat4(q + 16 + 4 * j));
    }
    if constexpr (one) part[0] = part[0] + part[1];
  } else {
    auto const x0 = simd::repeat16(q), x1 = simd::repeat16(q + 16);
    pack<std::int32_t> first[4], second[4];
    TERN_UNROLL
    for (index r = 0; r < 4; ++r) {
      first[r] = dot_codes<shape>(pack<std::int32_t>(0), w.u[0][r], x0);
      second[r] = dot_codes<shape>(one ? first[r] : pack<std::int32_t>(0), w.u[1][r], x1);
    }
    part[0] = simd::sum_quads(one ? second : first);
    if constexpr (!one) part[1] = simd::sum_quads(second);
  }
}

/// `lanes` weight rows from row n on times one row of x, added to `sum`; rows from `end` on count as the last one.
template <class W>
TERN_INLINE simd::pack<float> stream_rows(W const& weights, index n, index end, std::int8_t const* q, q8_scales const* scales, index groups,
                                          simd::pack<float> sum) {
  using simd::pack;
  bool const whole = n + simd::lanes <= end;
  prefetch_rows next(weights, n, n + simd::lanes, 0);
  auto rows = walk_rows(weights, n);
  for (index g = 0; g < groups; ++g) {
    row_group<W::granule> w;
    if (whole)
      rows.load(g, w);
    else
      load_rows(weights, n, end, g, w);
    next.step();
    pack<std::int32_t> part[2];
    multiply_group<W>(w, q + 32 * g, part);
    sum = add_group<W>(sum, part, scales[g], w.scale, w.min);
  }
  return sum;
}

/// Weight rows [n0, n1) of a job times the one row of x.
template <class W>
inline void stream_stripe(W const& w, matmul_job const& job, index n0, index n1, q8_rows const& x, bool add) noexcept {
  using simd::pack;
  constexpr index L = simd::lanes;
  if constexpr (L % 4 == 0)  // others are never streamed
    for (index n = n0; n < n1; n += L) {
      index const left = n1 - n < L ? n1 - n : L;
      pack<float> const start = add ? simd::load_n(job.y + n, left) : pack<float>(0.f);
      simd::store_n(job.y + n, stream_rows(w, n, n1, x.q, x.scales, x.blocks, start), left);
    }
}

}  // namespace TERN_ABI
}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/int8_kernel.hpp
/// y = x w^T for two and more rows of quantized x: `panel_rows` weight rows are unpacked to bytes in a panel (code_panel.hpp), then each
/// row of x is broadcast against it, four bytes at a time. Some numbers of rows meet q8_0 in matrix registers (lying_codes.hpp).
///
/// Each y(r, n) is the sum over groups of 32 columns, in order, of what `add_group` adds: as in int8_stream.hpp, to the bit.

#include <tern/matmul/float_kernel.hpp>
#include <tern/matmul/int8_stream.hpp>
#include <tern/matmul/lying_codes.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Rows of x in a register tile: 2 integer and 2 float sums each.
inline constexpr int int8_tile_rows = simd::many_registers ? 6 : 2;

/// `Rows` rows of x against a panel whose elements are scale * (u - offset) + min.
template <class Shape, int Rows>
inline void multiply_codes(code_panel const& panel, std::int32_t offset, index groups, std::int8_t const* x, index x_stride,
                           q8_scales const* scales, index blocks, piece_rows const& sums, index row) noexcept {
  using simd::pack;
  constexpr index W = simd::lanes, granules = 32 / Shape::granule;
  pack<float> sum[Rows][2];
  TERN_UNROLL
  for (int r = 0; r < Rows; ++r) {
    sum[r][0] = sums.load(row + r, 0);
    sum[r][1] = sums.load(row + r, 1);
  }
  std::uint8_t const* w = panel.codes;
  for (index g = 0; g < groups; ++g) {
    TERN_UNROLL
    for (index j = 0; j < granules; ++j) {
      auto const taken = [&](int r) TERN_LAMBDA {
        q8_scales const& s = scales[r * blocks + g];
        return granules == 1 ? s.total : j == 0 ? s.first : s.total - s.first;
      };
      pack<std::int32_t> dots[Rows][2];
      TERN_UNROLL
      for (int r = 0; r < Rows; ++r) {
        dots[r][0] = dots[r][1] = pack<std::int32_t>(Shape::has_min ? 0 : -offset_left<Shape>(offset) * taken(r));
      }
      TERN_UNROLL
      for (index k = 0; k < Shape::granule / 4; ++k) {
        auto const w0 = code_factor<Shape>(simd::load(w)), w1 = code_factor<Shape>(simd::load(w + 4 * W));
        w += 4 * panel_rows;
        TERN_UNROLL
        for (int r = 0; r < Rows; ++r) {
          auto const four = simd::splat4(x + r * x_stride + 4 * k);
          dots[r][0] = dot_codes<Shape>(dots[r][0], w0, four);
          dots[r][1] = dot_codes<Shape>(dots[r][1], w1, four);
        }
      }
      x += Shape::granule;
      index const at = (g * granules + j) * panel_rows;
      pack<float> const s0 = simd::load(panel.scales + at), s1 = simd::load(panel.scales + at + W);
      TERN_UNROLL
      for (int r = 0; r < Rows; ++r) {
        pack<float> const d(scales[r * blocks + g].scale);
        sum[r][0] = simd::fma(simd::to_float(dots[r][0]), s0 * d, sum[r][0]);
        sum[r][1] = simd::fma(simd::to_float(dots[r][1]), s1 * d, sum[r][1]);
      }
      if constexpr (Shape::has_min) {
        pack<float> const m0 = simd::load(panel.mins + at), m1 = simd::load(panel.mins + at + W);
        TERN_UNROLL
        for (int r = 0; r < Rows; ++r) {
          q8_scales const& own = scales[r * blocks + g];
          pack<float> const s(granules == 1 ? own.sum : own.half_sum[j]);
          sum[r][0] = simd::fma(m0, s, sum[r][0]);
          sum[r][1] = simd::fma(m1, s, sum[r][1]);
        }
      }
    }
  }
  TERN_UNROLL
  for (int r = 0; r < Rows; ++r) {
    sums.store(row + r, 0, sum[r][0]);
    sums.store(row + r, 1, sum[r][1]);
  }
}

/// Groups g0, g0 + 1, ... of `rows` rows of x from row `first` on against a panel.
template <class Shape>
inline void multiply_panel(code_panel const& panel, std::int32_t offset, index groups, q8_rows const& x, index g0, index first, index rows,
                           piece_rows const& sums) noexcept {
  auto const tile = [&]<int Rows>(index r) TERN_LAMBDA {
    index const at = first + r;
    multiply_codes<Shape, Rows>(panel, offset, groups, x.q + at * x.stride + 32 * g0, x.stride, x.scales + at * x.blocks + g0, x.blocks,
                                sums, r);
  };
  index r = 0;  // the last eight as four and four: faster than six and two
  for (; r + int8_tile_rows <= rows && (int8_tile_rows != 6 || rows - r != 8); r += int8_tile_rows)
    tile.template operator()<int8_tile_rows>(r);
  if constexpr (int8_tile_rows > 4)
    for (; r + 4 <= rows; r += 4) tile.template operator()<4>(r);
  if constexpr (int8_tile_rows > 2)
    for (; r + 2 <= rows; r += 2) tile.template operator()<2>(r);
  for (; r < rows; ++r) tile.template operator()<1>(r);
}

/// Weight rows [n0, n1) of a job (at most panels_at_once panels) times rows [r0, r1) of x. kept: sums between chunks, as in
/// float_kernel.hpp.
inline void multiply_stripe_int8(matmul_job const& job, index n0, index n1, index r0, index r1, q8_rows const& x, bool add,
                                 code_panel& panel, float* kept) noexcept {
  for (index first = r0; first < r1; first += kept_rows)
    for (index g0 = 0; g0 < x.blocks || g0 == 0; g0 += panel_groups) {
      index const g1 = least(g0 + panel_groups, x.blocks), rows = least(kept_rows, r1 - first);
      for (index n = n0; n < n1; n += panel_rows) {
        index const width = least(panel_rows, n1 - n);
        job.w.operations->pack_codes(job.w.object, n, n + width, g0, g1, panel);
        piece_rows const sums(job.y + first * job.y_stride + n, job.y_stride, kept + (n - n0) / panel_rows * kept_size(r1 - r0), add,
                              g0 == 0, g1 == x.blocks, width);
        with_shape(job.w.codes, [&]<class Shape>(Shape)
                                    TERN_LAMBDA { multiply_panel<Shape>(panel, job.w.codes.offset, g1 - g0, x, g0, first, rows, sums); });
      }
    }
}

/// Whether weights are streamed, and the rows of an item of work then.
TERN_INLINE bool streams_codes(index rows) { return simd::lanes % 4 == 0 && rows == 1; }
TERN_INLINE index streamed_stripe(cpu_policy const& policy, index weight_rows) {
  index const stripe = round_to_multiple(divide_up(weight_rows, 4 * policy.concurrency()), 2 * panel_rows);
  return stripe > 0 ? stripe : 1;
}

/// All jobs, whose weights are codes. One row of x streams them; for more, unpacking pays. scratch: slot_bytes a slot.
inline void multiply_int8(cpu_policy const& policy, matmul_job const* jobs, index count, index rows, q8_rows const& x, bool add,
                          std::byte* scratch) {
  bool const stream = streams_codes(rows);
  index total = 0;
  for (index j = 0; j < count; ++j) total += jobs[j].w.rows;
  index const stripe = stream ? streamed_stripe(policy, total) : panels_of(policy, total, rows) * panel_rows;
  index const chunk = stream ? rows : rows_per_item(policy, jobs, count, rows, stripe, int8_tile_rows);
  matmul_split const split(jobs, count, rows, stripe, chunk);
  // Blocks that are taken where they lie meet all rows, which no item divides.
  static_assert(!simd::tiles::exist || most_lying_codes <= 8 * int8_tile_rows);
  parallel_for(policy, split.items, [&](index item, index slot) TERN_LAMBDA {
    auto const p = split.at(item, jobs, rows);
    std::byte* const memory = scratch + slot * slot_bytes(rows);
    if (stream)
      p.job->w.operations->stream_codes(*p.job, p.n0, p.n1, x, add);
    else if (x.tiles != nullptr && blocks_lie_ready(p.job->w))
      multiply_stripe_lying(*p.job, p.n0, p.n1, rows, x, add);
    else
      for (index n = p.n0; n < p.n1; n += panels_at_once * panel_rows)
        multiply_stripe_int8(*p.job, n, least(n + panels_at_once * panel_rows, p.n1), p.r0, p.r1, x, add, panel_at(memory).codes,
                             kept_at(memory));
    finish_piece(p, memory);
  });
}

}  // namespace TERN_ABI
}  // namespace tern::detail

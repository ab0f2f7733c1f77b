// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/integer_kernel.hpp
/// Sums of products of 8-bit integers along all of k, exact in 32 bits: for weights with one scale a row, and for products that stay
/// integers.
///
///     sums(r, n) = sum over k of (u(n, k) - offset) x(r, k)
///
///     panel: [k / 4][panel_rows][4]    u8 codes of a chunk of 1024 columns
///     sums:  [rows][panel_rows]        s32, of a piece of up to 512 rows; kept over the chunks
///
/// The offset is taken off at the end by the sum of each row of x. Sums wrap as int32 does, so the result is right whenever it fits.

#include <tern/matmul/int8_kernel.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Columns whose sums fit 32 bits: 128 * 127 of each. Weights with more are multiplied by groups (int8_kernel.hpp).
inline constexpr index most_integer_columns = 0x7fffffff / (128 * 127);

/// Columns in a panel.
inline constexpr index integer_chunk = 1024;

struct integer_panel {
  alignas(64) std::uint8_t codes[integer_chunk * panel_rows];
};
static_assert(sizeof(integer_panel) <= panel_bytes);
/// Rows of x in a register tile: 2 sums each.
#if defined(TERN_SIMD_AVX512) || defined(TERN_SIMD_NEON)
inline constexpr int integer_tile_rows = 12;
#else
inline constexpr int integer_tile_rows = 4;
#endif

/// Groups [g0, g1) of 32 columns of weight rows [n0, n1); lanes beyond repeat the last row.
template <class W>
inline void pack_integers(W const& w, index n0, index n1, index g0, index g1, std::uint8_t* codes) noexcept {
  constexpr index L = simd::lanes;
  for (index first = 0; first < panel_rows; first += L) {
    index const n = n0 + first < n1 ? n0 + first : n1 - 1;
    if constexpr (L % 4 == 0) {
      bool const whole = n + L <= n1;
      prefetch_rows next(w, n, whole && g0 == 0 ? g1 : 0);
      auto rows = walk_rows(w, n);
      for (index g = g0; g < g1; ++g) {
        row_group<W::granule> group;
        if (whole)
          rows.load(g, group);
        else
          load_rows(w, n, n1, g, group);
        next.step();
        for (index h = 0; h < 2; ++h) {
          simd::transpose_quads(group.u[h]);
          for (index j = 0; j < 4; ++j) simd::store(codes + 4 * ((8 * (g - g0) + 4 * h + j) * panel_rows + first), group.u[h][j]);
        }
      }
    } else {
      std::uint8_t u[32];
      for (index lane = 0; lane < L; ++lane)
        for (index g = g0; g < g1; ++g) {
          w.unpack(n + lane < n1 ? n + lane : n1 - 1, g, u);
          for (index j = 0; j < 8; ++j) __builtin_memcpy(codes + 4 * ((8 * (g - g0) + j) * panel_rows + first + lane), u + 4 * j, 4);
        }
    }
  }
}

/// `Rows` rows of x times `quads` groups of four columns of a panel, added to sums unless they are the first.
template <class Shape, int Rows>
TERN_INLINE void multiply_integers(std::uint8_t const* TERN_RESTRICT codes, index quads, std::int8_t const* TERN_RESTRICT x, index x_stride,
                                   std::int32_t* TERN_RESTRICT sums, bool first) {
  using packi = simd::pack<std::int32_t>;
  constexpr index L = simd::lanes;
  packi sum[Rows][2];
  TERN_UNROLL
  for (int r = 0; r < Rows; ++r) sum[r][0] = sum[r][1] = packi(0);
  row_walk<Rows, std::int8_t> rows(x, x_stride);
  for (index q = 0; q < quads; ++q) {
    auto const w0 = simd::load(codes), w1 = simd::load(codes + 4 * L);
    codes += 4 * panel_rows;
    TERN_UNROLL
    for (int r = 0; r < Rows; ++r) {
      auto const four = simd::splat4(rows.at(r));
      sum[r][0] = dot_codes<Shape>(sum[r][0], w0, four);
      sum[r][1] = dot_codes<Shape>(sum[r][1], w1, four);
    }
    rows.step(4);
  }
  TERN_UNROLL
  for (int r = 0; r < Rows; ++r) {
    std::int32_t* const to = sums + r * panel_rows;
    simd::store(to, first ? sum[r][0] : simd::load(to) + sum[r][0]);
    simd::store(to + L, first ? sum[r][1] : simd::load(to + L) + sum[r][1]);
  }
}

/// Weight rows [n0, n1) (at most panels_at_once panels) times rows [r0, r1) (at most kept_rows) of x, whose rows are x_stride bytes apart
/// and zero from k on to the next multiple of 32. sums: for each panel (r1 - r0, panel_rows).
template <class W>
inline void sum_integers(W const& w, index n0, index n1, std::int8_t const* x, index x_stride, index r0, index r1, index groups,
                         std::int32_t* sums, integer_panel& panel) noexcept {
  using shape = code_shape_of<W>;
  constexpr index chunk = integer_chunk / 32;
  for (index g0 = 0; g0 < groups || g0 == 0; g0 += chunk)
    for (index n = n0; n < n1; n += panel_rows) {
      index const g1 = least(g0 + chunk, groups);
      pack_integers(w, n, least(n + panel_rows, n1), g0, g1, panel.codes);
      std::int32_t* const to = sums + (n - n0) * (r1 - r0);
      auto const tile = [&]<int Rows>(index r) TERN_LAMBDA {
        multiply_integers<shape, Rows>(panel.codes, 8 * (g1 - g0), x + r * x_stride + 32 * g0, x_stride, to + (r - r0) * panel_rows,
                                       g0 == 0);
      };
      index r = r0;
      for (; r + integer_tile_rows <= r1; r += integer_tile_rows) tile.template operator()<integer_tile_rows>(r);
      for (; r + 4 <= r1; r += 4) tile.template operator()<4>(r);
      for (; r < r1; ++r) tile.template operator()<1>(r);
    }
}

/// One row of y from its sums: y = scale_x scale_w (sums - offset total) for the weight rows [n0, n1).
template <class W>
TERN_INLINE void scale_sums(W const& w, index n0, index n1, std::int32_t const* sums, float scale, std::int32_t total, float* y, bool add) {
  using simd::pack;
  constexpr index L = simd::lanes;
  float weight_scales[panel_rows], no_min[1];
  for (index i = 0; i < panel_rows; ++i) w.scales(n0 + i < n1 ? n0 + i : n1 - 1, 0, weight_scales + i, no_min);
  pack<std::int32_t> const taken(-W::offset * total);
  for (index i = 0; n0 + i < n1; i += L) {
    index const left = n1 - n0 - i < L ? n1 - n0 - i : L;
    pack<float> const z = simd::to_float(simd::load(sums + i) + taken) * (simd::load(weight_scales + i) * pack<float>(scale));
    simd::store_n(y + i, add ? simd::load_n(y + i, left) + z : z, left);
  }
}

/// Weight rows [n0, n1) of a job times rows [r0, r1) of x, for weights with one scale a row and x with one scale a row.
template <class W>
inline void run_stripe_rows(W const& w, matmul_job const& job, index n0, index n1, index r0, index r1, q8_rows const& x, bool add,
                            std::byte* memory) noexcept {
  auto& panel = *reinterpret_cast<integer_panel*>(memory);
  auto* const sums = reinterpret_cast<std::int32_t*>(memory + panel_bytes);
  for (index n = n0; n < n1; n += panels_at_once * panel_rows)
    for (index first = r0; first < r1; first += kept_rows) {
      index const end = least(n + panels_at_once * panel_rows, n1), last = least(first + kept_rows, r1);
      sum_integers(w, n, end, x.q, x.stride, first, last, x.blocks, sums, panel);
      for (index r = first; r < last; ++r) {
        q8_scales const* const s = x.scales + r * x.blocks;
        std::int32_t total = 0;
        for (index b = 0; b < x.blocks; ++b) total += s[b].total;
        for (index i = n; i < end; i += panel_rows)
          scale_sums(w, i, least(i + panel_rows, end), sums + (i - n) * (last - first) + (r - first) * panel_rows,
                     x.blocks > 0 ? s[0].scale : 0.f, total, job.y + r * job.y_stride + i, add);
      }
    }
}

/// All jobs, whose weights have one scale a row. scratch: slot_bytes a slot.
inline void multiply_int8_tokens(cpu_policy const& policy, matmul_job const* jobs, index count, index rows, q8_rows const& x, bool add,
                                 std::byte* scratch) {
  index total = 0;
  for (index j = 0; j < count; ++j) total += jobs[j].w.rows;
  index const stripe = panels_of(policy, total, rows) * panel_rows;
  matmul_split const split(jobs, count, rows, stripe, rows_per_item(policy, jobs, count, rows, stripe, integer_tile_rows));
  parallel_for(policy, split.items, [&](index item, index slot) TERN_LAMBDA {
    auto const p = split.at(item, jobs, rows);
    std::byte* const memory = scratch + slot * slot_bytes(rows);
    p.job->w.operations->int8_tokens(*p.job, p.n0, p.n1, p.r0, p.r1, x, add, memory);
    finish_piece(p, memory);
  });
}

}  // namespace TERN_ABI
}  // namespace tern::detail

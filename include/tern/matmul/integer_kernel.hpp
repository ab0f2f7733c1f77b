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

#include <tern/matmul/byte_stream.hpp>
#include <tern/matmul/int8_kernel.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Columns whose sums fit 32 bits: 128 * 127 of each. Weights with more are multiplied by groups (int8_kernel.hpp).
inline constexpr index most_integer_columns = 0x7fffffff / (128 * 127);

/// Rows of x in a register tile: 2 sums each.
inline constexpr int integer_tile_rows = simd::many_registers ? 12 : 4;

/// Where codes come from.
struct code_source {
  void const* object;
  void (*pack)(void const* w, index n0, index n1, index g0, index g1, code_panel& panel) noexcept;
  code_kind kind;
  row_memory memory{};  // of the first row
};
/// The same for x that may be -128.
struct any_byte_source : code_source {
  TERN_INLINE explicit any_byte_source(code_source const& w) : code_source(w) {}
};
/// Calls f with the shape of their products.
template <class F>
TERN_INLINE void with_integer_shape(code_source const& w, F&& f) {
  with_shape({32, w.kind.offset, false}, f);
}
template <class F>
TERN_INLINE void with_integer_shape(any_byte_source const& w, F&& f) {
  if (is_wide(w.kind)) return f(any_byte_shape{});
  f(code_shape<32, false, false>{});
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
    auto const w0 = code_factor<Shape>(simd::load(codes)), w1 = code_factor<Shape>(simd::load(codes + 4 * L));
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
/// and zero from k on to the next multiple of 32. sums: for each panel (r1 - r0, panel_rows). The offset is left in them, unless codes are
/// wide and meet bytes in [-127, 127].
template <class Source>
inline void sum_integers(Source const& w, index n0, index n1, std::int8_t const* x, index x_stride, index r0, index r1, index groups,
                         std::int32_t* sums, code_panel& panel) noexcept {
  for (index g0 = 0; g0 < groups || g0 == 0; g0 += integer_groups)
    for (index n = n0; n < n1; n += panel_rows) {
      index const g1 = least(g0 + integer_groups, groups);
      stripe_place const place{n0, n1, n, 32 * groups, 32 * g0, 32 * integer_groups};
      w.pack(w.object, n, least(n + panel_rows, n1), g0, g1, panel);
      std::int32_t* const to = sums + (n - n0) * (r1 - r0);
      if (simd::tiles::ready()) {
        memory_ahead ahead;
        add_weights(ahead, w.memory, place);
        multiply_integer_tiles(panel, g1 - g0, x + r0 * x_stride + 32 * g0, x_stride, r1 - r0, to, g0 == 0, ahead);
        continue;
      }
      with_integer_shape(w, [&]<class Shape>(Shape) TERN_LAMBDA {
        auto const tile = [&]<int Rows>(index r) TERN_LAMBDA {
          multiply_integers<Shape, Rows>(panel.codes, 8 * (g1 - g0), x + r * x_stride + 32 * g0, x_stride, to + (r - r0) * panel_rows,
                                         g0 == 0);
        };
        index r = r0;
        for (; r + integer_tile_rows <= r1; r += integer_tile_rows) tile.template operator()<integer_tile_rows>(r);
        for (; r + 4 <= r1; r += 4) tile.template operator()<4>(r);
        for (; r < r1; ++r) tile.template operator()<1>(r);
      });
    }
}

/// One row of y from its sums: y = scale_x scale_w (sums - offset total) for n weight rows.
TERN_INLINE void scale_sums(float const* weight_scales, index n, std::int32_t const* sums, float scale, std::int32_t taken, float* y,
                            bool add) {
  using simd::pack;
  constexpr index L = simd::lanes;
  for (index i = 0; i < n; i += L) {
    index const left = n - i < L ? n - i : L;
    pack<float> const z =
        simd::to_float(simd::load(sums + i) + pack<std::int32_t>(-taken)) * (simd::load(weight_scales + i) * pack<float>(scale));
    simd::store_n(y + i, add ? simd::load_n(y + i, left) + z : z, left);
  }
}

/// The sum of a row of x.
TERN_INLINE std::int32_t total_of_row(q8_scales const* scales, index blocks) {
  std::int32_t total = 0;
  for (index b = 0; b < blocks; ++b) total += scales[b].total;
  return total;
}

/// Weight rows [n0, n1) of a job times the one row of x, as they lie (int8_stream.hpp).
template <class W>
inline void stream_stripe_rows(W const& weights, matmul_job const& job, index n0, index n1, q8_rows const& x, bool add) noexcept {
  using packi = simd::pack<std::int32_t>;
  constexpr index L = simd::lanes;
  std::int32_t const total = total_of_row(x.scales, x.blocks);
  if constexpr (L % 4 == 0)  // others are never streamed
    for (index n = n0; n < n1; n += L) {
      packi sum[4] = {packi(0), packi(0), packi(0), packi(0)};
      row_group<32> w;
      w.scale[0] = simd::pack<float>(0.f);
      auto next = ahead_of<1>(weights, n, n1);
      auto rows = walk_rows(weights, n);
      for (index g = 0; g < x.blocks; ++g) {
        next.step();
        if (n + L <= n1)
          rows.load(g, w);
        else
          load_rows(weights, n, n1, g, w);
        add_dots<W>(w, x.q + 32 * g, sum);
      }
      float scales[L];
      std::int32_t sums[L];
      simd::store(scales, w.scale[0]);
      simd::store(sums, total_of<W>(sum));
      scale_sums(scales, least(L, n1 - n), sums, x.blocks > 0 ? x.scales[0].scale : 0.f, offset_left<code_shape_of<W>>(W::offset) * total,
                 job.y + n, add);
    }
}

/// Weight rows [n0, n1) of a job (at most panels_at_once panels) times rows [r0, r1) (at most kept_rows) of x.
inline void multiply_stripe_rows(matmul_job const& job, index n0, index n1, index r0, index r1, q8_rows const& x, bool add,
                                 std::byte* memory) noexcept {
  code_panel& panel = panel_at(memory).codes;
  auto* const sums = reinterpret_cast<std::int32_t*>(memory + panel_bytes);
  bool const lying = x.panel != nullptr && bytes_lie_ready(job.w);
  auto* const own = reinterpret_cast<std::int32_t*>(panel_at(memory).floats);
  for (index n = n0; n < n1 && lying; n += panel_rows)
    multiply_lying_bytes(job.w, n, least(panel_rows, n1 - n), x.panel, r1 - r0, sums + (n - n0) * (r1 - r0), own);
  if (!lying && streams_bytes(job.w, r1 - r0))
    stream_bytes(job.w.memory, n0, n1, x.q + r0 * x.stride, x.stride, r1 - r0, sums);
  else if (!lying)
    sum_integers(code_source{job.w.object, job.w.operations->pack_integers, job.w.codes, job.w.memory}, n0, n1, x.q, x.stride, r0, r1,
                 x.blocks, sums, panel);
  // A row of y at a time: rows of y are often a multiple of the page apart, and the sum of a row of x is needed once.
  float weight_scales[panels_at_once * panel_rows] = {};
  for (index n = n0; n < n1 && x.blocks > 0; n += panel_rows) {
    job.w.operations->pack_codes(job.w.object, n, least(n + panel_rows, n1), 0, 1, panel);
    __builtin_memcpy(weight_scales + (n - n0), panel.scales, panel_rows * sizeof(float));
  }
  for (index r = r0; r < r1; ++r) {
    q8_scales const* const s = x.scales + r * x.blocks;
    std::int32_t const taken = lying || is_wide(job.w.codes) ? 0 : job.w.codes.offset * total_of_row(s, x.blocks);
    for (index n = n0; n < n1; n += panel_rows)
      scale_sums(weight_scales + (n - n0), least(panel_rows, n1 - n), sums + (n - n0) * (r1 - r0) + (r - r0) * panel_rows,
                 x.blocks > 0 ? s[0].scale : 0.f, taken, job.y + r * job.y_stride + n, add);
  }
}

/// All jobs, whose weights have one scale a row. One row of x streams them. scratch: slot_bytes a slot.
inline void multiply_int8_tokens(cpu_policy const& policy, matmul_job const* jobs, index count, index rows, q8_rows const& x, bool add,
                                 std::byte* scratch) {
  index total = 0;
  for (index j = 0; j < count; ++j) total += jobs[j].w.rows;
  bool const stream = streams_codes(rows);
  // Several panels at once also where few rows meet bytes as they lie: these are read by six.
  index const panels = panels_of(policy, total, streams_bytes(jobs[0].w, rows) ? kept_rows : rows);
  index const stripe = stream ? streamed_stripe(policy, total) : panels * panel_rows;
  index const chunk = stream ? rows : rows_per_item(policy, jobs, count, rows, stripe, integer_tile_rows);
  matmul_split const split(jobs, count, rows, stripe, chunk);
  parallel_for(policy, split.items, [&](index item, index slot) TERN_LAMBDA {
    auto const p = split.at(item, jobs, rows);
    std::byte* const memory = scratch + slot * slot_bytes(rows);
    if (stream) p.job->w.operations->stream_integers(*p.job, p.n0, p.n1, x, add);
    for (index n = p.n0; n < p.n1 && !stream; n += panels_at_once * panel_rows)
      for (index r = p.r0; r < p.r1; r += kept_rows)
        multiply_stripe_rows(*p.job, n, least(n + panels_at_once * panel_rows, p.n1), r, least(r + kept_rows, p.r1), x, add, memory);
    finish_piece(p, memory);
  });
}

}  // namespace TERN_ABI
}  // namespace tern::detail

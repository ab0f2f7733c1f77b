// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/request.hpp
/// A call's options in one place, and the scratch memory that it takes.

#include <tern/matmul/activation.hpp>
#include <tern/matmul/bias.hpp>
#include <tern/matmul/gather.hpp>
#include <tern/matmul/low_rank.hpp>
#include <tern/matmul/outliers.hpp>
#include <tern/matmul/weights_ref.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// All that the options of a call say. It refers to them, and must not move once `finish` refers to `gated`.
struct matmul_request {
  static constexpr index most_prologues = 4;
  struct low_rank_path {
    any_weights a, b;
    float scale;
  };
  struct gate_state {
    void const* f;
    float const* z;
    index stride;
  };

  compute mode = compute::f32;
  bool add = false;
  any_prologue prologues[most_prologues];
  index prologue_count = 0;
  matmul_finish finish;
  low_rank_path low_rank{};
  any_weights gate_weights;
  gate_state gated{};
  bool has_gather = false, has_scatter = false, has_split = false;
  id_list gather_ids, scatter_ids;
  tensor_view<float const, 1> factors;
  tensor_view<float const, 2> added;  // a residual's
  split_outliers split;

  matmul_request() = default;
  matmul_request(matmul_request const&) = delete;
  matmul_request& operator=(matmul_request const&) = delete;

  TERN_INLINE void set(compute c) { mode = c; }
  TERN_INLINE void set(accumulate) { add = true; }
  TERN_INLINE void set(gather const& g) {
    has_gather = true;
    gather_ids = g.ids;
  }
  TERN_INLINE void set(scatter const& s) {
    has_scatter = true;
    scatter_ids = s.ids;
    factors = s.factors;
  }
  TERN_INLINE void set(split_outliers const& s) {
    has_split = true;
    split = s;
  }
  template <matmul_prologue P>
  TERN_INLINE void set(P const& p) {
    expect(prologue_count < most_prologues, "matmul", "the number of prologues", prologue_count + 1, "at most 4");
    prologues[prologue_count++] = prologue_of(p);
  }
  TERN_INLINE void set(residual<2> const& r) {
    added = r.values;
    add_epilogue(epilogue_of(r));
  }
  template <matmul_epilogue E>
  TERN_INLINE void set(E const& e) {
    add_epilogue(epilogue_of(e));
  }
  template <class A, class B>
  TERN_INLINE void set(tern::low_rank<A, B> const& l) {
    expect(!has_low_rank(), "matmul", "the number of low_rank", 2, "at most 1");
    low_rank = {weights_of(l.a), weights_of(l.b), l.scale};
  }
  template <class W, class F>
  TERN_INLINE void set(gate<W, F> const& g) {
    expect(!has_gate(), "matmul", "the number of gate", 2, "at most 1");
    gate_weights = weights_of(g.weights);
    gated.f = &g.f;
    add_epilogue({&gated, [](void const*, index, index) TERN_LAMBDA {},
                  [](void const* o, float* y, index row, index n0, index n1) TERN_LAMBDA {
                    auto const& s = *static_cast<gate_state const*>(o);
                    multiply_by<F>{*static_cast<F const*>(s.f), s.z, s.stride}.finish(y, row, n0, n1);
                  }});
  }
  TERN_INLINE void add_epilogue(any_epilogue const& e) {
    expect(finish.epilogue_count < matmul_finish::most, "matmul", "the number of epilogues", finish.epilogue_count + 1, "at most 8");
    finish.add(e);
  }

  TERN_INLINE bool has_low_rank() const { return low_rank.a.operations != nullptr; }
  TERN_INLINE bool has_gate() const { return gate_weights.operations != nullptr; }
  TERN_INLINE bool changes_x() const { return prologue_count > 0 || has_gather || has_split; }
  /// Whether all that becomes of x's rows is that some are gathered and rounded to bf16: in one go.
  TERN_INLINE bool rounds_gathered() const {
    return mode == compute::bf16 && has_gather && prologue_count == 0 && !has_split && !has_low_rank();
  }
  TERN_INLINE bool single() const { return finish.epilogue_count == 0 && !has_low_rank() && !has_scatter && !has_split; }

  /// Decides for this many rows of x: blocks of integers have to leave the matrix registers to be scaled, bf16 does not.
  TERN_INLINE void choose_mode(index rows) {
    if (mode == compute::fastest) mode = rows >= 64 && simd::tiles::ready() ? compute::bf16 : compute::int8;
  }

  /// Fails where shapes do not fit a product (rows, k) x (n, k).
  void check(index rows, index n, index k) const {
    for (index i = 0; i < prologue_count; ++i) prologues[i].check(prologues[i].object, rows, k);
    for (index i = 0; i < finish.epilogue_count; ++i) finish.epilogues[i].check(finish.epilogues[i].object, rows, n);
    if (has_low_rank()) {
      expect_equal("matmul", "low_rank.a's columns", low_rank.a.columns, "x.extent(1)", k);
      expect_equal("matmul", "low_rank.b's columns", low_rank.b.columns, "low_rank.a's rows", low_rank.a.rows);
      expect_equal("matmul", "low_rank.b's rows", low_rank.b.rows, "w's rows", n);
    }
    if (has_gate()) {
      expect_equal("matmul", "gate's rows", gate_weights.rows, "w's rows", n);
      expect_equal("matmul", "gate's columns", gate_weights.columns, "x.extent(1)", k);
    }
    if (has_split && !(split.threshold > 0.f)) fail("matmul: split_outliers.threshold is not positive, expected more than 0");
  }
};

/// Columns of a panel of x, and elements of panels of `rows` rows.
TERN_INLINE constexpr index x_panel_columns(index k) { return round_to_multiple(k, 64); }
TERN_INLINE constexpr index x_panels_size(index rows, index k) { return round_to_multiple(rows, panel_rows) * x_panel_columns(k); }

/// Where the pieces of a call's scratch memory start; -1 for what is not needed.
struct matmul_plan {
  index x_f32, y_dense;                                                  // where the caller's memory does not serve
  index x_tiles, x_panels, x_bf16, x_panel, x_q8, x_scales, x_q8_tiles;  // as the compute type needs
  index low_rank, gate, outliers, outlier_columns;
  index panels, bytes;
  index stride;  // of the rows of prepared x, in elements
};

/// Rows of prepared x start this many elements apart: whole cache lines, and an odd number of them against aliasing.
TERN_INLINE constexpr index padded_columns(index k) {
  return round_to_multiple(k, 64) / 64 % 2 == 0 ? round_to_multiple(k, 64) + 64 : round_to_multiple(k, 64);
}

/// n: the columns of y, all matrices together; dense: those of them that need memory of their own.
TERN_INLINE matmul_plan plan_matmul(cpu_policy const& policy, matmul_request const& request, bool copy_x, index rows, index k, index n,
                                    index dense) {
  matmul_plan p{};
  p.stride = padded_columns(k);
  auto const take = [&](bool needed, index bytes) {
    if (!needed) return index{-1};
    index const at = p.bytes;
    p.bytes += round_to_multiple(bytes, static_cast<index>(workspace::alignment));
    return at;
  };
  constexpr index f32_bytes = sizeof(float);
  bool const int8 = request.mode == compute::int8 || request.mode == compute::int8_tokens;
  p.x_f32 = take(copy_x || (request.changes_x() && !request.rounds_gathered()), rows * p.stride * f32_bytes);
  p.x_tiles = take(request.mode == compute::f32 && rows >= least_tiled_rows, tiled_rows::size(rows, k) * f32_bytes);
  p.x_panels =
      take(turns_x(request.mode, rows), x_panels_size(rows, k) * (request.mode == compute::bf16 ? index{sizeof(bf16)} : f32_bytes));
  p.x_bf16 = take(request.mode == compute::bf16, rows * p.stride * index{sizeof(bf16)});
  p.x_panel =
      take(simd::tiles::ready() && rows <= most_lying_rows && (request.mode == compute::bf16 || request.mode == compute::int8_tokens),
           round_to_multiple(k, 64) * panel_rows * (request.mode == compute::bf16 ? index{sizeof(bf16)} : 1));
  p.x_q8 = take(int8, rows * p.stride);
  p.x_scales = take(int8, rows * (k / 32) * index{sizeof(q8_scales)});
  p.x_q8_tiles = take(int8 && takes_x_tiles(rows), divide_up(rows, x_tile::rows) * (k / 32) * index{sizeof(x_tile)});
  p.low_rank = take(request.has_low_rank(), rows * padded_columns(request.low_rank.a.rows) * f32_bytes);
  p.gate = take(request.has_gate(), rows * n * f32_bytes);
  p.outliers = take(request.has_split, rows * p.stride * f32_bytes);
  p.outlier_columns = take(request.has_split, k * index{sizeof(std::int32_t)});
  p.panels = take(true, policy.concurrency() * slot_bytes(rows));
  p.y_dense = take(dense > 0, rows * dense * f32_bytes);
  return p;
}

}  // namespace TERN_ABI
}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/types.hpp
/// What a caller chooses for a matrix product, and what the engine's parts hand to each other.

#include <tern/core/parallel_for.hpp>
#include <tern/core/rounding.hpp>
#include <tern/formats/block_matrix.hpp>
#include <tern/formats/weights.hpp>
#include <tern/simd/pack.hpp>

namespace tern {

/// What the products are made of.
///     f32    weights decoded to f32, activations as they are. The default.
///     bf16   both rounded to bf16, sums in f32
///     int8         activations rounded to 8 bits in blocks of 32 (matmul/quantize.hpp), integer products, sums of blocks in f32.
///                  Weights that are no integers with scales (f32, f16, bf16 and others) are computed as with compute::f32.
///     int8_tokens  the same with one scale for each row of x (a token). Weights that have one scale a row too (row_scale in
///                  formats/weights.hpp) are summed in integers along all of k (up to 132104): the fastest there is.
///     fastest      as int8, or, where the machine has matrix registers for bf16 (AMX), from 64 rows of x on as bf16: what a language
///                  model wants, whose prompts have many rows. A row's rounding depends on how many it comes with.
enum class compute { f32, bf16, int8, int8_tokens, fastest };

/// Adds the product to what y holds: a residual stream.
struct accumulate {};

namespace detail {
inline namespace TERN_ABI {

struct matmul_panel;
struct code_panel;
struct q8_rows;
struct matmul_job;
struct matmul_finish;

/// What the engine does with weights of a type that only the caller knows: a call for a panel or for an item of work.
struct weight_operations {
  void (*decode)(void const* w, index row, index k0, index k1, float* out) noexcept;
  // numbers to panel.floats, or to panel.halves if they are bf16
  void (*pack_floats)(void const* w, index n0, index n1, index k0, index k1, matmul_panel& panel) noexcept;
  void (*pack_halves)(void const* w, index n0, index n1, index k0, index k1, matmul_panel& panel) noexcept;
  // codes with their scales, or alone
  void (*pack_codes)(void const* w, index n0, index n1, index g0, index g1, code_panel& panel) noexcept;
  void (*pack_integers)(void const* w, index n0, index n1, index g0, index g1, code_panel& panel) noexcept;
  // one row of x, few rows of x
  void (*stream_codes)(matmul_job const& job, index n0, index n1, q8_rows const& x, bool add) noexcept;
  void (*stream_integers)(matmul_job const& job, index n0, index n1, q8_rows const& x, bool add) noexcept;
  void (*stream_f32)(matmul_job const& job, index n0, index n1, float const* x, index x_stride, index rows, bool add,
                     matmul_panel& panel) noexcept;
  void (*stream_bf16)(matmul_job const& job, index n0, index n1, bf16 const* x, index x_stride, index rows, bool add,
                      matmul_panel& panel) noexcept;
};

/// What integers stand for: scale (u - offset) + min. granule 0: there are none.
struct code_kind {
  index granule = 0;
  std::int32_t offset = 0;
  bool has_min = false;
};
template <class W>
inline constexpr code_kind code_kind_of{W::granule, W::offset, W::has_min};

/// Codes of which each row has signed bytes of 32 columns, their offset taken off, `step` bytes apart from byte `first` of the row on.
struct lying_blocks {
  static constexpr index groups = 16;
  index first = 0, step = 0;
  // scales of up to `groups` groups [g0, g1) of up to `lanes` weight rows [n0, n1) to out (g1 - g0, lanes); none: there are no such bytes
  void (*scales)(void const* w, index n0, index n1, index g0, index g1, float* out) noexcept = nullptr;
};

/// Weights of any type: what they are, and how a kernel gets at them.
struct any_weights {
  void const* object = nullptr;  // the caller's, alive for the call
  weight_operations const* operations = nullptr;
  index rows = 0, columns = 0;         // (n, k)
  index block = 32;                    // columns that are decoded together
  code_kind codes{};                   // what compute::int8 multiplies
  bool streamed = false;               // numbers that a few rows of x meet one after the other
  bool bf16 = false;                   // numbers that bf16 products take as they lie
  bool row_scale = false;              // codes with one scale a row
  bool data = true;                    // there is memory behind it
  row_memory memory{};                 // of the first row, where rows lie in memory, one like the other
  lying_blocks lying{};                // what is in that memory
  bool signed_bytes = false;           // that memory is codes less their offset, in bytes
  tern::bf16 const* panels = nullptr;  // whole panels (matmul/float_panel.hpp) that lie ready
  bool floats = false;                 // that memory is f32, each row whole numbers after the one before
};

/// One weight matrix and where its product goes.
struct matmul_job {
  any_weights w;
  float* y;  // (rows, n), contiguous along n
  index y_stride;
  matmul_finish const* finish = nullptr;
};

/// The activations of a call: (rows, k), contiguous along k.
struct matmul_input {
  float const* x;
  index x_stride;
  index rows;
  index columns;
  tensor_view<std::int32_t const, 1> const* ids = nullptr;  // which rows of x these are, where it is not gathered yet
};

/// Weight rows that a packed panel holds: two registers of lanes.
inline constexpr index panel_rows = 2 * simd::lanes;

/// Rows of x that are walked side by side. Three share an address, which the compiler takes as unknown at each step: with an address
/// for each row it keeps some in vector registers, and their way back takes the units that multiply (gcc 12, 12 rows: 0.78 of peak
/// instead of 0.96).
template <int Rows, class T>
struct row_walk {
  T const* base[(Rows + 2) / 3];
  index stride;
  TERN_INLINE row_walk(T const* x, index row_stride) : stride(row_stride) {
    TERN_UNROLL
    for (int b = 0; b < (Rows + 2) / 3; ++b) base[b] = x + 3 * b * row_stride;
  }
  TERN_INLINE T const* at(int row) const { return base[row / 3] + row % 3 * stride; }
  TERN_INLINE void step(index n) {
    TERN_UNROLL
    for (int b = 0; b < (Rows + 2) / 3; ++b) {
      base[b] += n;
      asm("" : "+r"(base[b]));
    }
  }
};

/// Work of several jobs as one range of items: item -> job, rows of its weights, rows of x.
struct matmul_split {
  index stripe;  // weight rows of an item
  index chunk;   // rows of x of an item
  index chunks;
  index items;

  TERN_INLINE matmul_split(matmul_job const* jobs, index count, index rows, index stripe_rows, index chunk_rows)
      : stripe(stripe_rows), chunk(chunk_rows), chunks(divide_up(rows, chunk_rows)), items(0) {
    for (index j = 0; j < count; ++j) items += divide_up(jobs[j].w.rows, stripe) * chunks;
  }
  struct piece {
    matmul_job const* job;
    index n0, n1, r0, r1;
  };
  TERN_INLINE piece at(index item, matmul_job const* jobs, index rows) const {
    index s = item / chunks;
    index const c = item % chunks;
    for (;; ++jobs) {
      index const stripes = divide_up(jobs->w.rows, stripe);
      if (s < stripes) break;
      s -= stripes;
    }
    index const n1 = (s + 1) * stripe, r1 = (c + 1) * chunk;
    return {jobs, s * stripe, n1 < jobs->w.rows ? n1 : jobs->w.rows, c * chunk, r1 < rows ? r1 : rows};
  }
};

}  // namespace TERN_ABI
}  // namespace detail
}  // namespace tern

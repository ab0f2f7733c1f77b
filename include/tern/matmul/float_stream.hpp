// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/float_stream.hpp
/// y = x w^T for few rows of x and weights of f32, f16 or bf16: the weights are read once from memory, as they lie, some rows of
/// them at a time against up to four rows of x, with lanes over k.
///
/// Each y(r, n) is the sum over chunks of 1024 columns, in order, of the sum over lanes of the sums over every `lanes`-th column of
/// the chunk: the same operations whatever else is in the batch.
///
/// Cost  n k sizeof(w) bytes of memory, once; rows n k / lanes FMA.

#include <tern/matmul/float_kernel.hpp>
#include <tern/simd/convert.hpp>
#include <tern/simd/reduce.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Columns that are summed before they are added to y: what is worked on stays in L1, and rounding errors small.
inline constexpr index stream_chunk = 1024;
/// Weight rows that are read side by side with R rows of x: their sums fit the registers, and eight streams keep memory busier than one
/// (measured on Zen 4, 4096 x 14336 of f32: 27 GB/s with eight, 18 with one).
template <int R>
inline constexpr int stream_weight_rows = R == 1 ? 8 : (tile_rows >= 12 ? 16 : 8) / R;
/// So far ahead a row is asked for, in bytes, where rows are not read in runs: the machine's own prefetchers follow few of so many rows,
/// and what is asked for long before its use fills the buffers of what is used now (measured on Sapphire Rapids, which has matrix
/// registers, four rows of x times 4096 x 4096 of bf16: 11.7 GB/s with 512 bytes, 10.5 with 2048; on Zen 4, one row of x times 4096 x 14336
/// of f16: 0.78 of what memory gives with 512, 0.82 with 1024, 0.81 with 2048).
inline constexpr index stream_ahead = simd::tiles::exist ? 512 : 1024;
/// Up to so many bytes of weight rows that are read side by side, all of the next ones are asked for meanwhile, one row after the other:
/// they stay in the second cache (Zen 4, of a plain read: one row of x times 4096 x 4096 of f16 0.93, 0.89 with a kilobyte ahead in each
/// row; four rows of x times 4096 x 14336 of f16 0.67 and 0.59).
inline constexpr index most_run_bytes = simd::tiles::exist ? 0 : index{1} << 18;

/// Columns of a row of numbers in memory.
template <class T>
struct number_row {
  T const* p;
  TERN_INLINE simd::pack<float> at(index k) const { return simd::load(p + k); }
  TERN_INLINE simd::pack<float> last(index k, index n) const { return simd::load_n(p + k, n); }
};
/// The same, where rows lie in memory that is to be asked for: for column k of the n-th row from this one on, a line at
/// ahead + pace (k sizeof(T)) + apart n.
template <class T>
struct lying_row : number_row<T> {
  std::uintptr_t ahead = 0;  // may pass the end
  index pace = 0, apart = 0;
  TERN_INLINE void ask(index k, index n) const {
    index const bytes = k * index{sizeof(T)};
    if (bytes % 64 == 0)
      __builtin_prefetch(reinterpret_cast<void const*>(ahead + static_cast<std::uintptr_t>(pace * bytes + apart * n)), 0, 2);
  }
};

/// Products of R rows of x with N rows of weights over `columns` columns: to[r][n].
template <int R, int N, class X, class Row>
TERN_INLINE void stream_dots(X const* const (&x)[R], Row const* w, index columns, float (&to)[R * N]) {
  using packf = simd::pack<float>;
  constexpr index W = simd::lanes;
  packf sum[R * N];
  TERN_UNROLL
  for (packf& s : sum) s = packf(0.f);
  index k = 0;
  for (; k + W <= columns; k += W) {
    packf a[R];
    TERN_UNROLL
    for (index r = 0; r < R; ++r) a[r] = simd::in_register(simd::load(x[r] + k));
    TERN_UNROLL
    for (index n = 0; n < N; ++n) {
      if constexpr (requires { w->ask(k, n); }) w->ask(k, n);
      packf const b = simd::in_register(w[n].at(k));
      TERN_UNROLL
      for (index r = 0; r < R; ++r) sum[r * N + n] = simd::fma(a[r], b, sum[r * N + n]);
    }
  }
  if (k < columns)
    for (index n = 0; n < N; ++n) {
      packf const b = w[n].last(k, columns - k);
      for (index r = 0; r < R; ++r) sum[r * N + n] = simd::fma(simd::load_n(x[r] + k, columns - k), b, sum[r * N + n]);
    }
  simd::reduce_add_each(sum, to);
}

/// What some columns add to R rows of y from row r0 on, for the weight rows [n, end) whose columns are at w. x: at the first column.
template <int R, class X, class Row>
TERN_INLINE void stream_weights_times(matmul_job const& job, index n, index end, Row const* w, X const* x, index x_stride, index r0,
                                      index columns, bool add) {
  constexpr int N = stream_weight_rows<R>;
  X const* row[R];
  for (index r = 0; r < R; ++r) row[r] = x + (r0 + r) * x_stride;
  for (; n < end; n += N, w += N) {
    float dots[R * N];
    stream_dots<R, N>(row, w, columns, dots);
    for (index r = 0; r < R; ++r)
      for (index i = 0; i < N && n + i < end; ++i) {
        float& y = job.y[(r0 + r) * job.y_stride + n + i];
        y = add ? y + dots[r * N + i] : dots[r * N + i];
      }
  }
}

/// Up to this many rows of x, the weights are streamed; beyond, packing them pays. In bf16 it pays sooner: its products are faster.
inline constexpr index most_float_stream_rows = 32, most_bf16_stream_rows = 16;
/// The same where matrix registers take bf16 weights as they lie.
TERN_INLINE bool streams_halves(any_weights const& w, index rows) {
  return w.bf16 && w.streamed && rows <= (halves_lie_ready(w) ? least_lying_rows - 1 : most_bf16_stream_rows);
}

/// Weight rows that a piece of work takes at once.
inline constexpr index stream_rows_at_once = stream_weight_rows<1>;

/// Numbers where they lie, of which rows up to `end` are multiplied.
template <class T>
struct plain_rows {
  using row_type = lying_row<T>;
  static constexpr index chunk = stream_chunk;
  block_matrix const& m;
  index end;
  TERN_INLINE row_type at(index row, index i, index k0, index) const {
    constexpr index rows = stream_rows_at_once, of_row = sizeof(T);
    T const* const p = reinterpret_cast<T const*>(m.row(row)) + k0;
    index const next = row - i + rows;  // the first of the next ones
    if (rows * m.row_bytes > most_run_bytes || m.row_bytes > m.columns * of_row || next + rows > end)
      return {{p}, reinterpret_cast<std::uintptr_t>(p) + static_cast<std::uintptr_t>(stream_ahead), 1, m.row_bytes};
    index const before = next * m.row_bytes + rows * k0 * of_row + 64 * i;
    return {{p}, reinterpret_cast<std::uintptr_t>(m.row(0)) + static_cast<std::uintptr_t>(before), rows, 64};
  }
};
/// Weights that are decoded as they are needed, into memory for stream_rows_at_once chunks.
template <class W>
struct decoded_rows {
  using row_type = number_row<float>;
  static constexpr index whole = chunk_columns * panel_rows / stream_rows_at_once;  // what a panel's memory holds
  static constexpr index chunk = whole < stream_chunk ? whole : stream_chunk;
  W const& w;
  float* memory;
  TERN_INLINE row_type at(index row, index i, index k0, index k1) const {
    float* const out = memory + i * chunk;
    ask_for_next(row, k1);
    decode_row(w, row, k0, k1, out);
    return {out};
  }

 private:
  /// The chunk that this row's place decodes next, of this row or of the one that takes its place: a few lines of each row are too short
  /// for the machine's own prefetchers.
  TERN_INLINE void ask_for_next(index row, index k) const {
    if constexpr (requires { w.memory(row); }) {
      if (w.columns <= 0) return;
      bool const last = k >= w.columns;
      row_memory const m = w.memory(row);
      index const k0 = last ? 0 : k, from = m.bytes * k0 / w.columns, to = m.bytes * least(k0 + chunk, w.columns) / w.columns;
      auto const at = reinterpret_cast<std::uintptr_t>(m.data) + static_cast<std::uintptr_t>(last ? stream_rows_at_once * m.stride : 0);
      for (index b = from; b < to; b += 64) __builtin_prefetch(reinterpret_cast<void const*>(at + static_cast<std::uintptr_t>(b)), 0, 2);
    }
  }
};

/// Weights of a byte a column that are decoded in registers, whose columns are whole registers.
template <class W>
struct cursor_rows {
  static constexpr index chunk = decoded_rows<W>::chunk;  // more rows of x have the same sums
  W const& w;
  struct row_type {
    decltype(std::declval<W const&>().cursor(index{}, index{})) from;
    std::uintptr_t ahead;  // may pass the end
    TERN_INLINE simd::pack<float> at(index k) const {
      if (k % 64 == 0) __builtin_prefetch(reinterpret_cast<void const*>(ahead + static_cast<std::uintptr_t>(k)), 0, 2);
      return from.at(k);
    }
    TERN_INLINE simd::pack<float> last(index k, index) const { return from.at(k); }
  };
  TERN_INLINE row_type at(index row, index, index k0, index) const {
    return {w.cursor(row, k0), reinterpret_cast<std::uintptr_t>(w.memory(row).data) + static_cast<std::uintptr_t>(k0 + stream_ahead)};
  }
};

/// Weight rows [n0, n1) of a job times all rows of x: a piece of some rows and a chunk of columns is used for all of them in turn.
template <class Source, class X>
inline void stream_stripe_float(Source const& source, matmul_job const& job, index n0, index n1, X const* x, index x_stride, index rows,
                                bool add) noexcept {
  index const columns = job.w.columns;
  for (index n = n0; n < n1; n += stream_rows_at_once)
    for (index k0 = 0; k0 < columns || k0 == 0; k0 += Source::chunk) {
      index const end = n + stream_rows_at_once < n1 ? n + stream_rows_at_once : n1;
      index const k1 = k0 + Source::chunk < columns ? k0 + Source::chunk : columns;
      typename Source::row_type w[stream_rows_at_once];
      for (index i = 0; i < stream_rows_at_once; ++i) w[i] = n + i < end ? source.at(n + i, i, k0, k1) : w[0];
      auto const take = [&]<int R>(index r)
                            TERN_LAMBDA { stream_weights_times<R>(job, n, end, w, x + k0, x_stride, r, k1 - k0, add || k0 > 0); };
      index r = 0;
      for (; r + 4 <= rows; r += 4) take.template operator()<4>(r);
      for (; r + 2 <= rows; r += 2) take.template operator()<2>(r);
      if (r < rows) take.template operator()<1>(r);
    }
}

/// All jobs, whose weights are streamed. x: (rows, k) elements X; scratch: slot_bytes a slot.
template <class X>
inline void stream_float(cpu_policy const& policy, matmul_job const* jobs, index count, X const* x, index x_stride, index rows, bool add,
                         std::byte* scratch) {
  index total = 0;
  for (index j = 0; j < count; ++j) total += jobs[j].w.rows;
  // Whole panels too: side products that finish a piece start where it does.
  index const stripe = round_to_multiple(divide_up(total, 4 * policy.concurrency()), panel_rows);
  matmul_split const split(jobs, count, rows, stripe > 0 ? stripe : 1, rows);
  parallel_for(policy, split.items, [&](index item, index slot) TERN_LAMBDA {
    auto const p = split.at(item, jobs, rows);
    std::byte* const memory = scratch + slot * slot_bytes(rows);
    matmul_panel& panel = panel_at(memory);
    if constexpr (std::is_same_v<X, bf16>)
      p.job->w.operations->stream_bf16(*p.job, p.n0, p.n1, x, x_stride, rows, add, panel);
    else
      p.job->w.operations->stream_f32(*p.job, p.n0, p.n1, x, x_stride, rows, add, panel);
    finish_piece(p, memory);
  });
}

}  // namespace TERN_ABI
}  // namespace tern::detail

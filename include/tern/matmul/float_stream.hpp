// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/float_stream.hpp
/// y = x w^T for few rows of x and weights of f32, f16 or bf16: the weights are read once from memory, as they lie, some rows of
/// them at a time against up to four rows of x, with lanes over k.
///
/// Each y(r, n) is the sum over chunks of 1024 columns, in order, of the sum over lanes of the sums over every `lanes`-th column of
/// the chunk (every `lanes`-th pair of bf16, where the machine multiplies them): the same operations whatever else is in the batch.
///
/// Cost  n k sizeof(w) bytes of memory, once; rows n k / lanes FMA.

#include <tern/matmul/float_kernel.hpp>
#include <tern/simd/convert.hpp>
#include <tern/simd/core.hpp>
#include <tern/simd/narrow.hpp>
#include <tern/simd/reduce.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Columns that are summed before they are added to y: rows of x stay in the first cache, weights in the second, and rounding errors small.
inline constexpr index stream_chunk = 1024;
/// How weights are read for so many rows of x: weight rows that a piece of work takes at once, whether the next chunk of them is asked for
/// or what comes `stream_ahead` bytes later, and which lines: one in so many.
///
/// The machine's own prefetchers follow few of so many rows, and what is asked for long before its use fills the buffers of what is used
/// now (measured on Sapphire Rapids, which has matrix registers, four rows of x times 4096 x 4096 of bf16: 11.7 GB/s with 512 bytes, 10.5
/// with 2048). On Zen 4 one to three rows wait for memory (4096 x 14336 of f32: 27 GB/s with eight rows at once, 18 with one; of f16, of
/// what memory gives, 0.78 with 512 bytes, 0.82 with 1024). More have sums for six rows of weights beside four of x, and leave memory time
/// (four rows times 4096 x 4096 of bf16: 1.38 ms with every other line of the next chunk, 1.50 with all, 1.7 with 512 to 2048 bytes; 16
/// rows: 3.5 ms with every other line, 3.1 with all).
struct stream_way {
  index at_once;
  bool next_chunk;
  index lines;
};
inline constexpr bool streams_six = simd::many_registers && !simd::on_sapphire_rapids;
TERN_INLINE constexpr stream_way stream_way_of(index rows) {
  return streams_six && rows >= 4 ? stream_way{6, true, rows == 4 ? 2 : 1} : stream_way{8, false, 1};
}
inline constexpr index most_at_once = 8, stream_ahead = simd::on_sapphire_rapids ? 512 : 1024;
/// What is asked for with each so many columns: so many bytes ahead.
struct stream_ask {
  index columns, ahead;
};
/// Weight rows that are read side by side with R rows of x: their sums fit the registers.
template <int R, int AtOnce>
inline constexpr int stream_weight_rows = AtOnce == 6 ? 6
                                          : R == 1    ? 8
                                                      : (tile_rows >= 12 ? 16 : 8) / R;

/// Columns of a row of numbers that lies in memory.
template <class T>
struct lying_row {
  static constexpr index line = 64 / sizeof(T);  // columns of one
  T const* p;
  TERN_INLINE simd::pack<float> at(index k) const { return simd::load(p + k); }
  TERN_INLINE simd::pack<float> last(index k, index n) const { return simd::load_n(p + k, n); }
  TERN_INLINE void ask(index k, index ahead) const {  // may pass the end
    __builtin_prefetch(reinterpret_cast<char const*>(p + k) + ahead, 0, 2);
  }
};

/// How a register of x and one of weights are multiplied: as f32.
template <class X, class Row>
struct streamed_products {
  using operand = simd::pack<float>;
  static constexpr index step = simd::lanes;
  TERN_INLINE static operand load(X const* x) { return simd::load(x); }
  TERN_INLINE static operand load_n(X const* x, index n) { return simd::load_n(x, n); }
  TERN_INLINE static operand at(Row const& w, index k) { return w.at(k); }
  TERN_INLINE static operand last(Row const& w, index k, index n) { return w.last(k, n); }
  TERN_INLINE static simd::pack<float> multiply_add(operand x, operand w, simd::pack<float> sum) { return simd::fma(x, w, sum); }
};
/// Where the machine multiplies bf16: in pairs.
template <>
struct streamed_products<std::conditional_t<simd::has_bf16_dot, bf16, void>, lying_row<bf16>> {
  using operand = simd::pack<bf16>;
  static constexpr index step = 2 * simd::lanes;
  TERN_INLINE static operand load(bf16 const* x) { return simd::load_narrow(x); }
  TERN_INLINE static operand load_n(bf16 const* x, index n) { return simd::load_narrow_n(x, n); }
  TERN_INLINE static operand at(lying_row<bf16> const& w, index k) { return simd::load_narrow(w.p + k); }
  TERN_INLINE static operand last(lying_row<bf16> const& w, index k, index n) { return simd::load_narrow_n(w.p + k, n); }
  TERN_INLINE static simd::pack<float> multiply_add(operand x, operand w, simd::pack<float> sum) { return simd::dot(sum, x, w); }
};

/// Products of R rows of x with N rows of weights over `columns` columns: to[r][n]. Lines are asked for each `ask.columns`, a power of two.
template <int R, int N, class X, class Row>
TERN_INLINE void stream_dots(X const* const (&x)[R], Row const* w, index columns, stream_ask ask, float (&to)[R * N]) {
  using products = streamed_products<X, Row>;
  using operand = typename products::operand;
  constexpr index W = products::step;
  simd::pack<float> sum[R * N];
  TERN_UNROLL
  for (auto& s : sum) s = simd::pack<float>(0.f);
  index k = 0;
  for (; k + W <= columns; k += W) {
    bool const asks = (k & (ask.columns - 1)) == 0;
    operand a[R];
    TERN_UNROLL
    for (index r = 0; r < R; ++r) a[r] = simd::in_register(products::load(x[r] + k));
    TERN_UNROLL
    for (index n = 0; n < N; ++n) {
      if (asks) w[n].ask(k, ask.ahead);
      operand const b = simd::in_register(products::at(w[n], k));
      TERN_UNROLL
      for (index r = 0; r < R; ++r) sum[r * N + n] = products::multiply_add(a[r], b, sum[r * N + n]);
    }
  }
  if (k < columns)
    for (index n = 0; n < N; ++n) {
      operand const b = products::last(w[n], k, columns - k);
      for (index r = 0; r < R; ++r) sum[r * N + n] = products::multiply_add(products::load_n(x[r] + k, columns - k), b, sum[r * N + n]);
    }
  simd::reduce_add_each(sum, to);
}

/// What some columns add to R rows of y from row r0 on, for the weight rows [n, end) whose columns are at w. x: at the first column.
template <int R, int AtOnce, class X, class Row>
TERN_INLINE void stream_weights_times(matmul_job const& job, index n, index end, Row const* w, X const* x, index x_stride, index r0,
                                      index columns, stream_ask ask, bool add) {
  constexpr int N = stream_weight_rows<R, AtOnce>;
  X const* row[R];
  for (index r = 0; r < R; ++r) row[r] = x + (r0 + r) * x_stride;
  for (; n < end; n += N, w += N) {
    float dots[R * N];
    stream_dots<R, N>(row, w, columns, ask, dots);
    for (index r = 0; r < R; ++r)
      for (index i = 0; i < N && n + i < end; ++i) {
        float& y = job.y[(r0 + r) * job.y_stride + n + i];
        y = add ? y + dots[r * N + i] : dots[r * N + i];
      }
  }
}

/// Up to this many rows of x, the weights are streamed: f32, and bf16 in its own products; other numbers. Then packing weights pays, or,
/// for f32 and bf16 where they lie, panels of x (float_kernel.hpp) that are full but for a few rows (measured on Zen 4, 4096 x 4096 of f32:
/// 32 rows 10.2 ms, streamed 11; 64 rows 19.9 ms, 23.5 with packed weights).
inline constexpr index most_stream_rows = 24, most_other_stream_rows = 32;
TERN_INLINE bool turns_x(compute mode, index rows) {
  bool const full = (rows + 8) / panel_rows * panel_rows >= rows;
  return rows > most_stream_rows && rows <= most_turned_rows && full && !(mode == compute::bf16 && simd::tiles::ready());
}
TERN_INLINE bool streams_floats(any_weights const& w, index rows) {
  return w.streamed && rows <= (f32_products::meets_panels(w) ? most_stream_rows : most_other_stream_rows);
}
/// The same where matrix registers take bf16 weights as they lie.
TERN_INLINE bool streams_halves(any_weights const& w, index rows) {
  return w.bf16 && w.streamed && rows <= (halves_lie_ready(w) ? least_lying_rows - 1 : most_stream_rows);
}

/// Numbers where they lie.
template <class T>
struct plain_rows {
  using row_type = lying_row<T>;
  static constexpr index chunk = stream_chunk;
  block_matrix const& m;
  TERN_INLINE row_type at(index row, index, index k0, index, index) const { return {reinterpret_cast<T const*>(m.row(row)) + k0}; }
  /// The next chunk is of the same row, or of the one that takes its place.
  TERN_INLINE index ahead(index k0, index k1, stream_way const& way) const {
    constexpr index bytes = sizeof(T);
    return !way.next_chunk ? stream_ahead : k1 < m.columns ? chunk * bytes : way.at_once * m.row_bytes - k0 * bytes;
  }
};
/// Weights that are decoded as they are needed, into memory for most_at_once chunks.
template <class W>
struct decoded_rows {
  using row_type = lying_row<float>;
  static constexpr index whole = chunk_columns * panel_rows / most_at_once;  // what a panel's memory holds
  static constexpr index chunk = whole < stream_chunk ? whole : stream_chunk;
  W const& w;
  float* memory;
  TERN_INLINE row_type at(index row, index i, index k0, index k1, index at_once) const {
    float* const out = memory + i * chunk;
    ask_for_next(row, k1, at_once);
    decode_row(w, row, k0, k1, out);
    return {out};
  }
  TERN_INLINE static index ahead(index, index, stream_way const&) { return 0; }

 private:
  /// The chunk that this row's place decodes next, of this row or of the one that takes its place: a few lines of each row are too short
  /// for the machine's own prefetchers.
  TERN_INLINE void ask_for_next(index row, index k, index at_once) const {
    if constexpr (requires { w.memory(row); }) {
      if (w.columns <= 0) return;
      bool const last = k >= w.columns;
      row_memory const m = w.memory(row);
      index const k0 = last ? 0 : k, from = m.bytes * k0 / w.columns, to = m.bytes * least(k0 + chunk, w.columns) / w.columns;
      auto const at = reinterpret_cast<std::uintptr_t>(m.data) + static_cast<std::uintptr_t>(last ? at_once * m.stride : 0);
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
    std::uintptr_t lying;
    static constexpr index line = 64;
    TERN_INLINE simd::pack<float> at(index k) const { return from.at(k); }
    TERN_INLINE void ask(index k, index ahead) const {  // may pass the end
      __builtin_prefetch(reinterpret_cast<void const*>(lying + static_cast<std::uintptr_t>(k + ahead)), 0, 2);
    }
    TERN_INLINE simd::pack<float> last(index k, index) const { return from.at(k); }
  };
  TERN_INLINE row_type at(index row, index, index k0, index, index) const {
    return {w.cursor(row, k0), reinterpret_cast<std::uintptr_t>(w.memory(row).data) + static_cast<std::uintptr_t>(k0)};
  }
  TERN_INLINE static index ahead(index, index, stream_way const&) { return stream_ahead; }
};

/// Weight rows [n0, n1) of a job times all rows of x: a piece of `AtOnce` rows and a chunk of columns is used for all of them in turn.
template <int AtOnce, class Source, class X>
inline void stream_pieces(Source const& source, matmul_job const& job, index n0, index n1, X const* x, index x_stride, index rows, bool add,
                          stream_way const& way) noexcept {
  index const columns = job.w.columns;
  for (index n = n0; n < n1; n += AtOnce)
    for (index k0 = 0; k0 < columns || k0 == 0; k0 += Source::chunk) {
      index const end = n + AtOnce < n1 ? n + AtOnce : n1;
      index const k1 = k0 + Source::chunk < columns ? k0 + Source::chunk : columns;
      typename Source::row_type w[AtOnce];
      for (index i = 0; i < AtOnce; ++i) w[i] = n + i < end ? source.at(n + i, i, k0, k1, AtOnce) : w[0];
      stream_ask const ask{way.lines * Source::row_type::line, source.ahead(k0, k1, way)};
      auto const take = [&]<int R>(index r) TERN_LAMBDA {
        stream_weights_times<R, AtOnce>(job, n, end, w, x + k0, x_stride, r, k1 - k0, ask, add || k0 > 0);
      };
      for_row_tiles<4>(rows, take);
    }
}
template <class Source, class X>
inline void stream_stripe_float(Source const& source, matmul_job const& job, index n0, index n1, X const* x, index x_stride, index rows,
                                bool add) noexcept {
  stream_way const way = stream_way_of(rows);
  if constexpr (streams_six)
    if (way.at_once == 6) return stream_pieces<6>(source, job, n0, n1, x, x_stride, rows, add, way);
  stream_pieces<8>(source, job, n0, n1, x, x_stride, rows, add, way);
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

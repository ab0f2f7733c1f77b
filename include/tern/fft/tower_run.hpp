// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file fft/tower_run.hpp
/// A whole transform: samples are read by the first pass and results written by the last, and what lies between goes depth first, so that
/// a node whose registers fit the cache is split, multiplied and joined before the next one is touched.
///
///     tower_source   gives packs of samples; zeros where there are none
///     tower_sink     takes packs of results, and keeps those it wants
///
/// Splits, products and joins of a node need no other node: with threads the first pass, the nodes, and the last pass are three loops,
/// whose parts do the same as one after the other.

#include <tern/core/parallel_for.hpp>
#include <tern/fft/tower_tiles.hpp>
#include <tern/simd/core.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Where samples come from. read(object, first, packs, out, step) writes samples first, first + 1, ... to `packs` registers `step` floats
/// apart. There are none, but zeros, from `end` on. Samples that lie in memory as floats one after the other are taken from there: those
/// from `dense_begin` to `dense_end`, the first of them dense[0].
struct tower_source {
  void const* object;
  void (*read)(void const* object, index first, index packs, float* out, index step);
  index end;
  float const* dense = nullptr;
  index dense_begin = 0, dense_end = 0;
  float const* gate = nullptr;  // to multiply dense samples with, place by place; `read` does so itself
};
/// Where results go. write(object, first, packs, in, step) has results first, first + 1, ..., and keeps those it wants, none before `begin`
/// and none from `end` on. Those between dense_begin and dense_end may be written as floats from dense[0] on in place of that.
struct tower_sink {
  void const* object;
  void (*write)(void const* object, index first, index packs, float const* in, index step);
  index begin, end;
  float* dense = nullptr;
  index dense_begin = 0, dense_end = 0;
  float const* gate = nullptr;  // to multiply dense results with, place by place; `write` does so itself
  bool past = false;            // whether dense results go past the caches, as far as they can
};

/// Registers of a row that the first and the last pass take at a time.
inline constexpr index tower_chunk = 16;
/// Floats in which they lie meanwhile: rows of real parts, and of imaginary ones.
inline constexpr index tower_buffer = most_radix * tower_chunk * complex_pack;
/// Registers that stay in the first-level cache.
inline constexpr index tower_near = 32768 / (8 * simd::lanes);

/// Bytes of a spectrum that may come from so far away that it is asked for ahead. Measured with 2 MB of second-level cache where there are
/// matrix registers, with half a megabyte on Zen 3, and with 1 MB elsewhere.
inline constexpr index tower_far = simd::on_sapphire_rapids ? 0x40000 : simd::on_zen3 ? 0x8000 : 0x18000;
/// Bytes that it is asked for ahead.
inline constexpr index tower_window = 0x10000;

/// Lines of 64 bytes that a core fetches at a time.
inline constexpr index tower_tile_lines = 16;

/// One transform, or product, in memory of its caller's. Sample j < M is the real part of coefficient j, sample j + M its imaginary part.
struct tower_job {
  tower_plan const& plan;
  float* z;  // plan.floats()
  float* h;  // a spectrum, plan.floats(): read, or written by tower_op::filter and split
  tower_op op = tower_op::convolve;
  float scale = 1.f;  // of what is written there
  bool far = false;   // whether h is read, and asked for ahead
  bool asks = false;  // whether `later` is asked for: what will be used soon
  tower_row later[most_tower_rows] = {};

  /// Registers in a row of the first pass, and pieces of them.
  TERN_INLINE index row() const { return plan.width(0) / plan.radix[0]; }
  TERN_INLINE index chunks() const { return divide_up(row(), tower_chunk); }
  TERN_INLINE index chunk_size(index chunk) const { return least(tower_chunk, row() - chunk * tower_chunk); }

  inline void read(index chunk, tower_source const& in, float* buffer) const noexcept {
    constexpr index W = simd::lanes;
    index const count = chunk_size(chunk), at = chunk * tower_chunk;
    packed_rows<float> const to{z + at * complex_pack, row() * complex_pack};
    tower_rows const rows = rows_of(in.end, in.gate);
    row_places<float const> from;
    if (places(at, count, rows, in, from)) return split_first(plan, rows, from, to, count);
    auto const find = [&](index first, float* own) TERN_LAMBDA {
      if (!is_dense(first, count, in)) {
        in.read(in.object, first, count, own, W);
        return static_cast<float const*>(own);
      }
      float const* const row = in.dense + (first - in.dense_begin);
      if (in.gate == nullptr) return row;
      copy_row<false>(row, in.gate + (first - in.dense_begin), count, own);
      return static_cast<float const*>(own);
    };
    bool const complex = rows == tower_rows::complex;
    for (index r = 0; r < plan.radix[0]; ++r, buffer += tower_chunk * complex_pack) {
      index const first = (r * row() + at) * W;
      from.re[r] = find(first, buffer);
      if (complex) from.im[r] = find(plan.points() + first, buffer + tower_chunk * W);
    }
    split_first(plan, complex ? tower_rows::complex : tower_rows::real, from, to, count);
  }
  inline void write(index chunk, tower_sink const& out, float* buffer) const noexcept {
    constexpr index W = simd::lanes;
    index const count = chunk_size(chunk), at = chunk * tower_chunk;
    packed_rows<float> const from{z + at * complex_pack, row() * complex_pack};
    tower_rows const rows = rows_of(out.end, out.gate);
    bool const past = goes_past(out);
    row_places<float> to;
    if (places(at, count, rows, out, to) && (!past || can_gate(plan, rows != tower_rows::complex)))
      return join_last(plan, rows, from, to, count, past);
    bool const straight = out.gate == nullptr && !past;
    auto const find = [&](index first, float* own)
                          TERN_LAMBDA { return straight && is_dense(first, count, out) ? out.dense + (first - out.dense_begin) : own; };
    bool const complex = rows == tower_rows::complex;
    for (index r = 0; r < plan.radix[0]; ++r) {
      index const first = (r * row() + at) * W;
      float* const own = buffer + r * tower_chunk * complex_pack;
      to.re[r] = find(first, own);
      if (complex) to.im[r] = find(plan.points() + first, own + tower_chunk * W);
    }
    join_last(plan, complex ? tower_rows::complex : tower_rows::real, from, to, count, false);
    auto const keep = [&](index first, float const* row, float const* own) TERN_LAMBDA {
      if (row != own || first >= out.end || first + count * W <= out.begin) return;
      if (!is_dense(first, count, out)) return out.write(out.object, first, count, row, W);
      float const* const gate = out.gate != nullptr ? out.gate + (first - out.dense_begin) : nullptr;
      if (past) return copy_row<true>(row, gate, count, out.dense + (first - out.dense_begin));
      copy_row<false>(row, gate, count, out.dense + (first - out.dense_begin));
    };
    for (index r = 0; r < plan.radix[0]; ++r) {
      index const first = (r * row() + at) * W;
      float const* const own = buffer + r * tower_chunk * complex_pack;
      keep(first, to.re[r], own);
      if (complex) keep(plan.points() + first, to.im[r], own + tower_chunk * W);
    }
  }
  inline void read(tower_source const& in, float* buffer) const noexcept {
    for (index c = 0; c < chunks(); ++c) read(c, in, buffer);
  }
  inline void write(tower_sink const& out, float* buffer) const noexcept {
    for (index c = 0; c < chunks(); ++c) write(c, out, buffer);
  }
  /// The last pass, and the first of what is next in the same place, piece by piece: z comes to the first-level cache once for both.
  inline void write_and_read(tower_sink const& out, tower_source const& next, float* buffer) const noexcept {
    for (index c = 0; c < chunks(); ++c) {
      write(c, out, buffer);
      read(c, next, buffer);
    }
  }
  /// Whether registers [first, first + count lanes) are dense.
  template <class End>
  TERN_INLINE static bool is_dense(index first, index count, End const& e) {
    return first >= e.dense_begin && first + count * simd::lanes <= e.dense_end;
  }
  /// Whether dense results go past the caches: rows then begin where lines do.
  TERN_INLINE static bool goes_past(tower_sink const& out) {
    return out.past && simd::can_store_past(out.dense + (round_to_multiple(out.dense_begin, simd::lanes) - out.dense_begin));
  }
  /// `count` registers, times those of a gate if there is one.
  template <bool Past>
  static inline void copy_row(float const* from, float const* gate, index count, float* to) noexcept {
    constexpr index W = simd::lanes;
    if (gate == nullptr) {
      for (index i = 0; i < count; ++i) store_as<Past>(to + i * W, simd::load(from + i * W));
      return;
    }
    for (index i = 0; i < count; ++i) store_as<Past>(to + i * W, simd::load(from + i * W) * simd::load(gate + i * W));
  }
  /// The places of registers [at, at + count) of all rows, if all of them are dense.
  template <class End, class P>
  TERN_INLINE bool places(index at, index count, tower_rows rows, End const& e, row_places<P>& to) const {
    constexpr index W = simd::lanes;
    index const first = at * W - e.dense_begin, step = row() * W, M = plan.points();
    index const last = M - step + (at + count) * W + (rows == tower_rows::complex ? M : 0);
    if ((e.gate != nullptr && rows != tower_rows::gated) || first < 0 || last > e.dense_end) return false;
    for (index r = 0; r < plan.radix[0]; ++r) {
      to.re[r] = e.dense + first + r * step;
      if (rows == tower_rows::complex) to.im[r] = e.dense + first + M + r * step;
      if (rows == tower_rows::gated) to.gate[r] = e.gate + first + r * step;
    }
    return true;
  }
  /// What the first and the last pass see of samples up to `end`.
  TERN_INLINE tower_rows rows_of(index end, float const* gate) const {
    if (end > plan.points()) return tower_rows::complex;
    return gate != nullptr && can_gate(plan, true) ? tower_rows::gated : tower_rows::real;
  }

  /// All that lies between, for all nodes that the plan keeps.
  inline void descend() const noexcept {
    index begin = -1, nodes = 0;
    plan.each_kept([&](index first, index count) TERN_LAMBDA {
      if (begin < 0) begin = first;
      nodes += count;
    });
    if (nodes == 0) return;
    look_ahead(begin, nodes, [&](auto& ahead) TERN_LAMBDA {
      plan.each_kept([&](index first, index count) TERN_LAMBDA { descend(1, first, count, ahead); });
    });
  }
  /// The same for one node.
  inline void descend(index node) const noexcept {
    look_ahead(node, 1, [&](auto& ahead) TERN_LAMBDA { descend(1, node, 1, ahead); });
  }

 private:
  /// Steps of `nodes` nodes behind the first pass that work in the first-level cache: butterflies there and back, and tiles.
  TERN_INLINE index near_steps(index nodes) const {
    index steps = plan.length / simd::lanes;
    for (int p = 1; p < plan.passes; ++p)
      if (plan.width(p) <= tower_near) steps += 2 * plan.length / plan.radix[p];
    return divide_up(steps * nodes, plan.radix[0]);
  }
  /// Calls body(what asks for rows ahead, while `nodes` nodes behind the first pass are run, from node `first` on).
  template <class Body>
  TERN_INLINE void look_ahead(index first, index nodes, Body&& body) const {
    if (!far && !asks) {
      no_rows_ahead ahead;
      return body(ahead);
    }
    index const width = plan.width(1), window = far ? tower_window : 0;
    float const* const spectrum = h + first * width * complex_pack;
    if constexpr (!simd::on_sapphire_rapids) {
      tower_ahead_at_once ahead(spectrum, window, later);
      body(ahead);
    } else {
      index lines = 0;
      for (tower_row const& r : later) lines += r.lines();
      index const tiles = divide_up(nodes * width, simd::lanes);
      if (lines > tower_tile_lines * tiles) {
        tower_ahead<true> ahead(spectrum, window, later, near_steps(nodes));
        return body(ahead);
      }
      tower_ahead<false> ahead(spectrum, window, later, tiles);
      body(ahead);
    }
  }
  template <class Ahead>
  inline void descend(int pass, index first, index count, Ahead& ahead) const noexcept {
    index const width = plan.width(pass);
    if (pass < plan.passes && count * width > tower_near) {
      index const part = width / plan.radix[pass];
      for (index n = first; n < first + count; ++n) {
        float* const p = z + n * width * complex_pack;
        ahead.work_near(width <= tower_near);
        if (has_split(op)) split_pass(plan, pass, n, 1, p, part, ahead);
        descend(pass + 1, n * plan.radix[pass], plan.radix[pass], ahead);
        ahead.work_near(width <= tower_near);
        if (has_join(op)) join_pass(plan, pass, n, 1, p, part, ahead);
      }
      return;
    }
    all_passes(pass, first, count, width, ahead);
  }

  /// The same, pass after pass: all of it stays in cache.
  template <class Ahead>
  inline void all_passes(int pass, index first, index count, index width, Ahead& ahead) const noexcept {
    ahead.work_near(true);
    float* const p = z + first * width * complex_pack;
    index const registers = count * width;
    if (has_split(op))
      for (int q = pass; q < plan.passes; ++q)
        split_pass(plan, q, first * width / plan.width(q), registers / plan.width(q), p, plan.width(q) / plan.radix[q], ahead);
    index const tile = first * width / simd::lanes;
    run_tiles(plan, op, tile, registers / simd::lanes, p, h + first * width * complex_pack, scale, ahead);
    if (has_join(op))
      for (int q = plan.passes - 1; q >= pass; --q)
        join_pass(plan, q, first * width / plan.width(q), registers / plan.width(q), p, plan.width(q) / plan.radix[q], ahead);
  }
};

/// Whether the nodes behind the first pass can be walked one by one: each has whole tiles.
TERN_INLINE bool has_wide_nodes(tower_plan const& t) { return t.length > tower_near && t.length / t.radix[0] % simd::lanes == 0; }

/// The whole job on the calling thread. buffer: tower_buffer floats.
inline void run_tower(tower_job const& job, tower_source const& in, tower_sink const& out, float* buffer) noexcept {
  if (has_split(job.op)) job.read(in, buffer);
  job.descend();
  if (has_join(job.op)) job.write(out, buffer);
  if (out.past) simd::finish_stores_past();
}
/// The same on threads. buffer: tower_buffer floats for each slot of `policy`.
inline void run_tower_on(cpu_policy const& policy, tower_job const& job, tower_source const& in, tower_sink const& out, float* buffer) {
  if (!has_wide_nodes(job.plan)) return run_tower(job, in, out, buffer);
  if (has_split(job.op))
    parallel_for(policy, job.chunks(), [&](index c, index slot) TERN_LAMBDA { job.read(c, in, buffer + slot * tower_buffer); });
  parallel_for(policy, job.plan.radix[0], [&](index n, index) TERN_LAMBDA {
    if (job.plan.keeps(n)) job.descend(n);
  });
  if (has_join(job.op))
    parallel_for(policy, job.chunks(), [&](index c, index slot) TERN_LAMBDA {
      job.write(c, out, buffer + slot * tower_buffer);
      if (out.past) simd::finish_stores_past();
    });
}

}  // namespace TERN_ABI
}  // namespace tern::detail

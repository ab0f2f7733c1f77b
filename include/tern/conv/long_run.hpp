// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/long_run.hpp
/// The engine of the long convolutions: filters become spectra (or taps in order, for the direct form), and each block of each row is one
/// product. Rows and blocks are spread over threads; a single block uses them inside.

#include <tern/conv/long_circle.hpp>
#include <tern/conv/long_direct.hpp>
#include <tern/simd/core.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Filters ready for use, in memory of somebody else.
struct long_filters {
  long_layout layout;
  tower_plan plan = {};     // with tables, unless direct or folded
  circle_plan circle = {};  // with tables, if folded
  index count = 0;          // filters: channels, or batch times channels
  bool per_sample = false;
  float const* spectra = nullptr;  // (count, each()): spectra, or taps from the first to the last

  /// Floats of a spectrum, or of taps.
  TERN_INLINE index each() const {
    return layout.direct ? round_to_multiple(layout.taps, 16) : layout.folds > 0 ? circle.floats() : plan.floats();
  }
  TERN_INLINE index table_floats() const { return layout.folds > 0 ? circle.table_floats() : plan.table_floats; }
  /// Shapes the transforms that the layout asks for.
  inline void shape() noexcept {
    if (layout.direct) return;
    if (layout.folds > 0)
      circle = shape_circle(layout.folds, layout.odd, layout.halvings);
    else
      plan = shape_block(layout);
  }
  /// Makes the tables, table_floats() of them.
  inline void fill(float* tables) noexcept {
    if (layout.direct) return;
    if (layout.folds > 0)
      fill_circle(circle, tables);
    else
      fill_tower(plan, tables);
  }
};

/// Bytes of samples, results and spectra beyond which results go past the caches, which they would not stay in.
inline constexpr index long_cached_bytes = 0x2000000;

/// What is read and written, and how.
struct long_call {
  sample_view in;
  result_view out;
  sample_view in_gate = {}, out_gate = {};
  sample_view added = {};
  tensor_view<float const, 1> factors = {};  // of `added`, by channel
  bool correlate = false;
  index touched = 0;  // bytes, of filters too
  bool past = false;  // whether results go past the caches

  TERN_INLINE void touch(index filter_bytes) {
    touched = in.extent[0] * in.extent[1] * in.extent[2] * (in.bytes + out.place.bytes) + filter_bytes;
    past = simd::lanes == 16 && touched > long_cached_bytes;  // parts of a line would leave the processor one by one
  }
  TERN_INLINE block_source source(index batch, index channel, long_layout const& l, index block) const {
    return {in.row(batch, channel), in_gate ? in_gate.row(batch, channel) : sample_row{}, block * l.hop - l.lead, l.periodic()};
  }
  TERN_INLINE block_sink sink(index batch, index channel, long_layout const& l, index block) const {
    index const begin = block * l.hop, end = least(begin + l.hop, l.n);
    sample_row const row = out.place.row(batch, channel);
    return {&out,
            const_cast<void*>(row.data),
            begin - l.kept,
            begin,
            end,
            out_gate ? out_gate.row(batch, channel) : sample_row{},
            added ? added.row(batch, channel) : sample_row{},
            added ? factors[channel] : 0.f,
            past};
  }
};

/// Splits a block into its spectrum h, times `scale`: tower_op::filter, or split. z: plan.floats(), buffer: tower_buffer floats.
inline void split_block(tower_plan const& plan, tower_op op, block_source const& from, float scale, float* z, float* h,
                        float* buffer) noexcept {
  run_tower({plan, z, h, op, scale}, from.source(), {}, buffer);
}

/// One filter: taps (at most layout.taps of the row count) as a spectrum, or in order. buffer: scratch_floats(f).
inline void prepare_filter(long_filters const& f, sample_row const& k, float* h, float* buffer) noexcept {
  long_layout const& l = f.layout;
  index const K = l.taps;
  sample_row taps = k;
  taps.n = K;
  if (l.periodic() && k.n > K) {  // a filter longer than the circle is wound around it; h is read before it is written
    for (index j = 0; j < K; ++j) {
      double sum = 0;
      for (index m = j; m < k.n; m += K) sum += static_cast<double>(k[m]);
      h[j] = static_cast<float>(sum);
    }
    taps = row_of_floats(h, K);
  }
  block_source const from{taps, {}, 0, false};
  float* const z = buffer + tower_buffer;
  if (l.folds > 0) return split_circle(f.circle, from.source(), h, z + f.circle.work_floats(), z, buffer);
  if (!l.direct) return split_block(f.plan, tower_op::filter, from, 1.f / static_cast<float>(f.plan.points()), z, h, buffer);
  for (index j = 0; j < K; ++j) h[j] = taps[j];
}

/// Floats of scratch for a block, whose first pass has a buffer for each of `slots`.
TERN_INLINE index scratch_floats(long_filters const& f, index slots = 1) {
  long_layout const& l = f.layout;
  if (l.direct) return round_to_multiple(direct_floats(l.taps) + l.taps, 16);
  return round_to_multiple((l.folds > 0 ? f.circle.work_floats() + f.circle.floats() : f.plan.floats()) + slots * tower_buffer, 16);
}

/// Which block of which row.
struct long_place {
  index batch = 0, channel = 0, block = 0;
};
/// Bytes of a transform that leaves room in cache for what is used behind it.
inline constexpr index long_roomy_bytes = simd::on_sapphire_rapids ? 0x100000 : 0x400000;
/// Bytes of a transform so short that the machine's own prefetchers see too little of its rows, and of all that a call touches beyond which
/// they are far away.
inline constexpr index long_short_bytes = 0x10000, long_far_bytes = 0x180000;
/// Has `job` ask for the gate of its results, and their place, and for the samples of `next` and their gate. touched: bytes of the call.
/// With matrix registers gates wait beside a spectrum that is far; without them short transforms are measured to gain nothing.
TERN_INLINE void ask_ahead(tower_job& job, tower_sink const& out, tower_source const& next, index touched) {
  index const bytes = job.plan.floats() * index{sizeof(float)};
  bool const is_short = simd::on_sapphire_rapids && bytes <= long_short_bytes && touched > long_far_bytes;
  job.asks = (job.far && bytes <= long_roomy_bytes) || is_short;
  if (!job.asks) return;
  bool const gates = !simd::on_sapphire_rapids || !job.far;
  index const begin = next.dense_begin > 0 ? 0 : -next.dense_begin, end = least(next.dense_end, 2 * job.plan.points()) - next.dense_begin;
  index const results = out.dense_end - out.dense_begin;
  if (out.gate != nullptr && gates) job.later[0] = {out.gate, results};
  if (next.dense != nullptr) job.later[1] = {next.dense + begin, end - begin};
  if (next.gate != nullptr && gates) job.later[2] = {next.gate + begin, end - begin};
  if (out.dense != nullptr && !out.past) job.later[3] = {out.dense, results};
}

/// A product in z of a block with the spectrum h, which is only read.
TERN_INLINE tower_job block_job(long_call const& call, long_filters const& f, float const* h, float* z) {
  tower_op const op = call.correlate ? tower_op::correlate : tower_op::convolve;
  return {f.plan, z, const_cast<float*>(h), op, 1.f, f.plan.floats() * index{sizeof(float)} >= tower_far};
}
/// A block alone, on the threads of `policy`. h: the filter's spectrum, or its taps. memory: scratch_floats for its slots.
inline void run_block(cpu_policy const& policy, long_call const& call, long_filters const& f, float const* h, long_place at,
                      float* memory) {
  long_layout const& l = f.layout;
  block_source const in = call.source(at.batch, at.channel, l, at.block);
  block_sink const out = call.sink(at.batch, at.channel, l, at.block);
  if (l.direct) {
    float const* taps = h;
    if (!call.correlate) {  // from the last tap to the first
      float* const turned = memory + direct_floats(l.taps);
      for (index j = 0; j < l.taps; ++j) turned[j] = h[l.taps - 1 - j];
      taps = turned;
    }
    return run_direct(taps, l.taps, l.n, in.source(), out.sink(), memory);
  }
  float* const z = memory + policy.concurrency() * tower_buffer;
  tower_job const job = block_job(call, f, h, z);
  if (l.folds > 0) return run_circle(policy, f.circle, job.op, h, in.source(), out.sink(), z + f.circle.work_floats(), z, memory);
  run_tower_on(policy, job, in.source(), out.sink(), memory);
}

/// Whether blocks that follow each other in the same memory share passes: see run_chained.
TERN_INLINE bool can_chain(long_layout const& l) { return !l.direct && l.folds == 0; }
/// Where what follows a block is; if there is anything.
struct long_follower {
  bool any;
  long_place at;
};
/// A block of a chain in the same memory, whose samples the one before has read unless it is the `first`; its own last pass reads those of
/// the one behind. likely: what that will be; follower() says when it is time to know. memory: scratch_floats(f).
template <class Follower>
inline void run_chained(long_call const& call, long_filters const& f, float const* h, long_place at, bool first, long_place likely,
                        float* memory, Follower&& follower) {
  long_layout const& l = f.layout;
  block_sink const to = call.sink(at.batch, at.channel, l, at.block);
  tower_sink const out = to.sink();
  tower_job job = block_job(call, f, h, memory + tower_buffer);
  ask_ahead(job, out, call.source(likely.batch, likely.channel, l, likely.block).source(), call.touched);
  if (first) job.read(call.source(at.batch, at.channel, l, at.block).source(), memory);
  job.descend();
  if (long_follower const next = follower(); next.any)
    job.write_and_read(out, call.source(next.at.batch, next.at.channel, l, next.at.block).source(), memory);
  else
    job.write(out, memory);
  if (out.past) simd::finish_stores_past();
}

/// All rows, with filters that are ready. memory: rows_floats of them.
inline index rows_floats(cpu_policy const& policy, long_call const& call, long_filters const& f) {
  index const items = call.in.extent[0] * call.in.extent[1] * f.layout.blocks;
  if (items == 1) return scratch_floats(f, policy.concurrency());
  return slots_for(policy, items) * scratch_floats(f);
}
inline void run_rows(cpu_policy const& policy, long_call call, long_filters const& f, float* memory) {
  index const batches = call.in.extent[0], channels = call.in.extent[1], blocks = f.layout.blocks;
  index const items = batches * channels * blocks;
  call.touch(f.count * f.each() * index{sizeof(float)});
  if (items == 1) return run_block(policy, call, f, f.spectra, {}, memory);
  index const each = scratch_floats(f), slots = slots_for(policy, items);
  auto const place = [&](index item) TERN_LAMBDA { return long_place{item / blocks % batches, item / blocks / batches, item % blocks}; };
  auto const spectrum = [&](long_place const& at)
                            TERN_LAMBDA { return f.spectra + (f.per_sample ? at.batch * channels + at.channel : at.channel) * f.each(); };
  if (!can_chain(f.layout))
    return parallel_for(policy, items, [&](index item, index slot) TERN_LAMBDA {
      run_block(cpu.on(serial), call, f, spectrum(place(item)), place(item), memory + slot * each);
    });
  parallel_chain(policy, items, [&](index item, bool first, index slot, chain_turn const& take) TERN_LAMBDA {
    index next = items;
    long_place const at = place(item), likely = place(least(item + slots, items - 1));
    run_chained(call, f, spectrum(at), at, first, likely, memory + slot * each, [&]() TERN_LAMBDA {
      next = take();
      return long_follower{next < items, place(next)};
    });
    return next;
  });
}

/// Filters for `run_rows`, each by itself. memory: a scratch for each slot.
inline void prepare_filters(cpu_policy const& policy, sample_view const& k, long_filters const& f, float* spectra, float* memory) {
  index const each = scratch_floats(f);
  parallel_for(policy, f.count, [&](index i, index slot) TERN_LAMBDA {
    float* const scratch = memory + slot * each;
    sample_row const row = k.row(f.per_sample ? i / k.extent[1] : 0, i % k.extent[1]);
    prepare_filter(f, row, spectra + i * f.each(), scratch);
  });
}

/// What a call with filters that are not ready needs: tables, and spectra of all filters, or, where there are enough filters for all
/// threads, one a thread that never leaves its cache.
struct long_memory {
  bool fused;
  index tables, spectra, scratch;
  TERN_INLINE long_memory(cpu_policy const& policy, long_call const& call, long_filters const& f) {
    index const threads = policy.concurrency();
    fused = !f.layout.direct && f.count >= threads;
    tables = round_to_multiple(f.table_floats(), 16);
    spectra = fused ? slots_for(policy, f.count) * f.each() : f.count * f.each();
    scratch = slots_for(policy, f.count) * scratch_floats(f);
    if (!fused && rows_floats(policy, call, f) > scratch) scratch = rows_floats(policy, call, f);
  }
  TERN_INLINE std::size_t bytes() const { return static_cast<std::size_t>(tables + spectra + scratch) * sizeof(float); }
};

/// The whole call. f: without tables and spectra.
inline void run_long(cpu_policy const& policy, long_call call, sample_view const& k, long_filters f) {
  long_memory const need(policy, call, f);
  workspace::lease const lease(policy.scratch(), need.bytes());
  float* const tables = reinterpret_cast<float*>(lease.data());
  float* const spectra = tables + need.tables;
  float* const scratch = spectra + need.spectra;
  f.fill(tables);
  if (!need.fused) {
    prepare_filters(policy, k, f, spectra, scratch);
    f.spectra = spectra;
    return run_rows(policy, call, f, scratch);
  }
  index const each = scratch_floats(f), channels = call.in.extent[1];
  call.touch(0);
  parallel_for(policy, f.count, [&](index i, index slot) TERN_LAMBDA {
    float* const mine = scratch + slot * each;
    float* const h = spectra + slot * f.each();
    index const first = f.per_sample ? i / channels : 0, end = f.per_sample ? first + 1 : call.in.extent[0];
    prepare_filter(f, k.row(first, i % channels), h, mine);
    index const blocks = (end - first) * f.layout.blocks;
    auto const place = [&](index b) TERN_LAMBDA { return long_place{first + b / f.layout.blocks, i % channels, b % f.layout.blocks}; };
    for (index b = 0; b < blocks; ++b) {
      if (!can_chain(f.layout)) {
        run_block(cpu.on(serial), call, f, h, place(b), mine);
        continue;
      }
      long_follower const next{b + 1 < blocks, place(b + 1)};
      run_chained(call, f, h, place(b), b == 0, place(least(b + 1, blocks - 1)), mine, [&]() TERN_LAMBDA { return next; });
    }
  });
}

}  // namespace TERN_ABI
}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/depthwise_engine.hpp
/// Runs a depthwise convolution block by block: each row of outputs is summed up by depthwise_kernel.hpp, finished, and written. Signals
/// and taps are read where they lie or copied to where lanes are channels, which is one pass for each `kernel` rows of multiply-adds and
/// makes one loop of all layouts, strides and types.

#include <tern/conv/depthwise_problem.hpp>
#include <tern/core/parallel_for.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// What all blocks of a call share: the taps of a row in the order in which they are taken, and where columns and taps lie.
struct depthwise_tables {
  depthwise_run* runs;
  index* tap_place;     // null: in order
  index* column_place;  // null: in order
  index run_count;

  static index bytes(depthwise_problem const& p, depthwise_plan const& plan) {
    return p.axis[2].kernel * index{sizeof(depthwise_run) + sizeof(index)} + plan.row * index{sizeof(index)};
  }

  depthwise_tables(depthwise_problem const& p, depthwise_plan const& plan, std::byte* memory) : run_count(0) {
    conv_axis const& a = p.axis[2];
    runs = reinterpret_cast<depthwise_run*>(memory);
    tap_place = reinterpret_cast<index*>(runs + a.kernel);
    column_place = tap_place + a.kernel;
    index at = 0;
    for (index phase = 0; phase < a.stride; ++phase) {
      index next = -1;  // the column that would prolong the run
      for (index t = 0; t < a.kernel; ++t) {
        if (t * a.dilation % a.stride != phase) continue;
        index const column = phase * plan.phase + t * a.dilation / a.stride;
        if (column != next) runs[run_count++] = {column, at, 0};
        ++runs[run_count - 1].count;
        next = column + 1;
        tap_place[t] = at++;
      }
    }
    if (a.stride == 1) {
      tap_place = column_place = nullptr;
      return;
    }
    for (index c = 0; c < plan.row; ++c) column_place[c] = c % a.stride * plan.phase + c / a.stride;
  }
};

/// A thread's memory for one block after another.
class depthwise_block {
 public:
  depthwise_block(depthwise_problem const& p, depthwise_plan const& plan, depthwise_tables const& tables, std::byte* memory)
      : p_(p),
        plan_(plan),
        tables_(tables),
        signal_(reinterpret_cast<float*>(memory)),
        taps_(reinterpret_cast<float*>(memory + plan.signal_bytes)),
        row_(reinterpret_cast<float*>(memory + plan.signal_bytes + plan.taps_bytes)),
        added_(row_ + plan.rows * plan.width * simd::lanes),
        rows_(reinterpret_cast<depthwise_rows*>(memory + plan.signal_bytes + plan.taps_bytes + plan.out_bytes)),
        fetches_outputs_(large_image(p) && p.y.at[2] * p.y.element > far_apart) {}

  void run(index item) {
    place(item);
    set_steps();
    for (index g = 0; g < members_; ++g) load_taps(g);
    if (!p_.clipped() && !signal_in_place_) zero_borders();
    for (index d = 0; d < size_[0]; ++d) {
      loaded_ = start_ = 0;
      for (index h = 0; h < size_[1]; ++h) sum_rows(origin_[0] + d, origin_[1] + h);
    }
  }

 private:
  /// Which part of the problem this is.
  void place(index item) {
    // Channels of one place after each other: they are neighbors in memory.
    index const all = p_.channels, together = plan_.signal_in_place ? all - all % simd::lanes : all;
    channel_ = least(item % plan_.teams * plan_.team * simd::lanes, together);
    channels_ = channel_ < together ? least(plan_.team * simd::lanes, together - channel_) : all - channel_;
    members_ = divide_up(channels_, simd::lanes);
    item /= plan_.teams;
    for (int d = 2; d >= 0; --d) {
      origin_[d] = item % plan_.blocks[d] * plan_.out[d];
      size_[d] = least(plan_.out[d], p_.axis[d].out - origin_[d]);
      item /= plan_.blocks[d];
    }
    batch_ = item;
    conv_axis const& a = p_.axis[2];
    index const first = a.input(origin_[2], 0), columns = (size_[2] - 1) * a.stride + (a.kernel - 1) * a.dilation + 1;
    begin_ = least(first < 0 ? -first : 0, columns);
    end_ = least(columns, a.in - first);
    if (end_ < begin_) end_ = begin_;
    first_ = first + begin_;
    bool const whole = channels_ % simd::lanes == 0;
    signal_in_place_ = plan_.signal_in_place && whole;
    taps_in_place_ = plan_.taps_in_place && whole;
  }

  /// What all sums of the block share.
  void set_steps() {
    conv_axis const &height = p_.axis[1], &width = p_.axis[2];
    index const signal_row = signal_in_place_ ? p_.x.at[1] * height.dilation : height.dilation * row_size();
    index const signal = signal_in_place_ ? p_.x.at[2] : simd::lanes, next_signal = signal_in_place_ ? simd::lanes : signal_size();
    index const taps_row = taps_in_place_ ? p_.w.at[1] : width.kernel * simd::lanes;
    index const taps = taps_in_place_ ? p_.w.at[2] : simd::lanes, next_taps = taps_in_place_ ? simd::lanes : taps_size();
    exchanged_ = p_.clipped() && width.in > 0 && width.before + 1 >= width.out && width.before + width.in <= width.kernel;
    if (exchanged_)
      sum_.steps = {taps_row, signal_row, taps, signal};
    else
      sum_.steps = {signal_row, taps_row, signal, taps};
    sum_.next_signal = exchanged_ ? next_taps : next_signal;
    sum_.next_taps = exchanged_ ? next_signal : next_taps;
    edge_[0] = exchanged_ || !p_.clipped() ? 0 : begin_;
    edge_[1] = p_.clipped() ? end_ : plan_.row;
    sum_.rows = rows_;
  }

  /// The channels of a member.
  index channel_of(index g) const { return channel_ + g * simd::lanes; }
  index channels_of(index g) const { return least(simd::lanes, channels_ - g * simd::lanes); }
  /// Floats from a member's taps, with a bias behind them, to the next one's; and from its signal to the next one's.
  index taps_size() const { return (taps_of(p_) + 1) * simd::lanes; }
  index signal_size() const { return p_.axis[0].kernel * plane_size(); }

  void load_taps(index g) {
    float* const bias = taps_ + (g + 1) * taps_size() - simd::lanes;
    for (index l = 0; l < simd::lanes; ++l)
      bias[l] = p_.bias != nullptr && l < channels_of(g) ? p_.bias[(channel_of(g) + l) * p_.bias_stride] : 0.f;
    if (taps_in_place_) return;
    index const kh = p_.axis[1].kernel, kw = p_.axis[2].kernel;
    index const from = batch_ * p_.w.batch + channel_of(g) * p_.w.channel, channels = channels_of(g);
    float* const taps = taps_ + g * taps_size();
    // A kernel that is larger than the image has taps that no output of the block sees.
    conv_axis const& height = p_.axis[1];
    index const top = height.first_tap(origin_[1] + size_[1] - 1), bottom = height.end_tap(origin_[1]);
    index const left = p_.clipped() && begin_ >= size_[2] ? begin_ - size_[2] + 1 : 0, right = p_.clipped() ? least(kw, end_) : kw;
    bool const whole = p_.clipped() && left == 0 && right == kw && p_.w.at[1] == kw * p_.w.at[2];
    for (index d = 0; d < p_.axis[0].kernel; ++d) {
      index const plane = from + d * p_.w.at[0] + left * p_.w.at[2];
      float* const to = taps + (d * kh * kw + left) * simd::lanes;
      index const step = whole ? bottom - top : 1;
      for (index h = top; h < bottom; h += step)
        p_.load_w(p_.w.point(plane + h * p_.w.at[1]), {p_.w.channel, p_.w.at[2], channels, step * (right - left)},
                  to + h * kw * simd::lanes, tables_.tap_place);
    }
  }

  /// Floats from a row of the signal to the next, and from a plane to the next.
  index row_size() const { return plan_.row * simd::lanes; }
  index plane_size() const { return plan_.ring * row_size(); }
  /// The place in the ring of row h, one of those seen now: `start_` is the last multiple of the ring up to the first of them.
  index slot(index h) const { return h - start_ >= plan_.ring ? h - start_ - plan_.ring : h - start_; }
  void const* input_row(index d, index h) const {
    return p_.x.point(batch_ * p_.x.batch + channel_ * p_.x.channel + d * p_.x.at[0] + h * p_.x.at[1] + first_ * p_.x.at[2]);
  }

  /// Row h of plane d of the input; where columns do not follow each other, zeros surround it already.
  void load_signal(float* to, index d, index h) const {
    channel_row const row{p_.x.channel, p_.x.at[2], channels_, end_ - begin_};
    index const* const place = tables_.column_place == nullptr ? nullptr : tables_.column_place + begin_;
    float* const first = p_.clipped() || place != nullptr ? to : to + begin_ * simd::lanes;
    if (plan_.team == 1)
      p_.load_x(input_row(d, h), row, first, place);
    else
      p_.load_members(input_row(d, h), row, first, signal_size(), place);
  }
  /// All columns of the ring that no row of the input fills.
  void zero_borders() const {
    bool const ordered = tables_.column_place == nullptr;
    float* const end = signal_ + members_ * signal_size();
    for (float* row = signal_; row != end; row += row_size()) {
      zero(row, 0, ordered ? begin_ : plan_.row);
      if (ordered) zero(row, end_, plan_.row);
    }
  }
  static void zero(float* to, index begin, index end) {
    for (index c = begin; c < end; ++c) simd::store(to + c * simd::lanes, simd::pack<float>(0.f));
  }

  /// The outputs (d, h, all columns of the block).
  void sum_rows(index d, index h) {
    sum_.rows_end = rows_ + (signal_in_place_ ? list_rows(d, h) : load_rows(d, h));
    if (exchanged_)
      for (depthwise_rows* r = rows_; r != sum_.rows_end; ++r) *r = {r->taps, r->signal, r->count};
    index const step = signal_in_place_ ? depthwise_pixels_most : size_[2];
    sum_.members = plan_.together ? members_ : 1;
    for (index c = 0; c < size_[2]; c += step)
      for (index g = 0; g < members_; g += sum_.members) sum_row(d, h, g, c, least(step, size_[2] - c));
  }
  /// Columns `begin` to begin + columns - 1 of some members.
  void sum_row(index d, index h, index g, index begin, index columns) {
    index const v = origin_[2] + begin, to = batch_ * p_.y.batch + channel_of(g) * p_.y.channel + d * p_.y.at[0] + h * p_.y.at[1];
    index const y = to + v * p_.y.at[2];
    bool const direct = p_.plain_y && p_.step_count == 0 && channels_of(g + sum_.members - 1) == simd::lanes;
    sum_.next_out = direct ? simd::lanes : plan_.width * simd::lanes;
    sum_tiles(g, begin, begin + columns, direct ? static_cast<float*>(p_.y.point(y)) : row_, direct ? p_.y.at[2] : simd::lanes);
    if (direct) return;
    for (index m = 0; m < sum_.members; ++m) {
      float* const row = row_ + m * sum_.next_out;
      finish_row(p_, {batch_, channel_of(g + m), {d, h, v}, channels_of(g + m), columns}, row, added_);
      p_.store_y(p_.y.point(y + m * simd::lanes * p_.y.channel), {p_.y.channel, p_.y.at[2], channels_of(g + m), columns}, row);
    }
  }

  /// The rows that outputs (d, h) see, where they lie, and their taps.
  index list_rows(index d, index h) {
    conv_axis const &depth = p_.axis[0], &height = p_.axis[1];
    index const first = height.first_tap(h), end = height.end_tap(h);
    index count = 0;
    if (first >= end) return count;
    for (index plane = depth.first_tap(d); plane < depth.end_tap(d); ++plane)
      rows_[count++] = {static_cast<float const*>(input_row(depth.input(d, plane), height.input(h, first))), taps_row(plane, first),
                        end - first};
    return count;
  }
  /// The same rows in the ring.
  index load_rows(index d, index h) {
    conv_axis const &depth = p_.axis[0], &height = p_.axis[1];
    index const all = height.input(h, 0), window = (height.kernel - 1) * height.dilation + 1;
    index const top = all > 0 ? all : 0, from = top > loaded_ ? top : loaded_, to = least(height.in, all + window);
    if (top - start_ >= plan_.ring) start_ = top - top % plan_.ring;
    index const first = height.first_tap(h), end = height.end_tap(h);
    index count = 0;
    for (index plane = depth.first_tap(d); plane < depth.end_tap(d); ++plane) {
      float* const rows = signal_ + plane * plane_size();
      for (index i = from; i < to; ++i) load_signal(rows + slot(i) * row_size(), depth.input(d, plane), i);
      if (first >= end) continue;
      index const at = slot(height.input(h, first)), before = least(end - first, height.steps(plan_.ring - at));
      rows_[count++] = {rows + at * row_size(), taps_row(plane, first), before};
      if (before == end - first) continue;
      rows_[count++] = {rows + (at + before * height.dilation - plan_.ring) * row_size(), taps_row(plane, first + before),
                        end - first - before};
    }
    if (to > loaded_) loaded_ = to;
    bool const ahead = p_.x.channel == 1 && (plan_.team == 1 || !plan_.together) && loaded_ < height.in && depth.kernel == 1;
    next_ = ahead ? static_cast<char const*>(input_row(depth.input(d, 0), loaded_)) : nullptr;
    return count;
  }
  float const* taps_row(index plane, index tap) const {
    if (!taps_in_place_) return taps_ + (plane * p_.axis[1].kernel + tap) * p_.axis[2].kernel * simd::lanes;
    return static_cast<float const*>(p_.w.point(batch_ * p_.w.batch + channel_ + plane * p_.w.at[0] + tap * p_.w.at[1]));
  }

  void sum_tiles(index g, index begin, index end, float* out, index out_step) {
    if (exchanged_) return sum_exchanged(g, begin, end, out + (end - begin - 1) * out_step, -out_step);
    index const taps = p_.axis[2].kernel;
    for (index column = begin; column < end;) {
      index const width = depthwise_width(end - column), pixels = least(width, end - column);
      index first = 0, stop = taps;
      if (p_.clipped()) {  // taps that meet zeros alone are left out, but for one
        index const skipped = least(taps - 1, begin_ - column - pixels + 1), seen = least(taps, end_ - column);
        first = skipped > 0 ? skipped : 0;
        stop = seen > first ? seen : first + 1;
      }
      if (!signal_in_place_) fetch(g, column, column + width);
      if (fetches_outputs_) fetch_outputs(out, out_step, pixels);
      start_sums(g);
      for (index r = 0; r < tables_.run_count; ++r) {
        depthwise_run const& run = tables_.runs[r];
        bool const last = r == tables_.run_count - 1;
        sum_run(g, column, width, run, first, least(stop, run.count), last ? out : sums_, last ? out_step : simd::lanes,
                last ? pixels : width);
      }
      out += width * out_step;
      column += width;
    }
  }
  /// The same where each output sees all columns. Signal and taps change places, so that none of what is read is a zero around the input:
  /// with outputs from the last to the first, q = end - 1 - o,
  ///
  ///     out[q] = bias + sum over rows, over v of w[q + v + before - (end - 1)] x[v]
  void sum_exchanged(index g, index begin, index end, float* out, index out_step) {
    depthwise_run const columns{begin_ - (end - 1), 0, end_ - begin_};
    for (index q = 0; q < end - begin;) {
      index const left = end - begin - q, width = depthwise_width(left);
      if (!signal_in_place_) fetch(g, q, q + width);
      start_sums(g);
      sum_run(g, q, width, columns, 0, columns.count, out, out_step, least(width, left));
      out += width * out_step;
      q += width;
    }
  }
  void start_sums(index g) {
    sum_.from = taps_ + (g + 1) * taps_size() - simd::lanes;
    sum_.from_step = 0;
    sum_.next_from = taps_size();
  }
  /// Taps [from, to) of the run, a few after the other: sums wait in memory meanwhile. Which ones go together does not depend on `from` and
  /// `to`, so that outputs are the same wherever a block ends.
  void sum_run(index g, index column, index width, depthwise_run const& run, index from, index to, float* out, index out_step,
               index pixels) {
    constexpr index most = depthwise_taps_most;
    for (index done = 0; done < to;) {
      index const left = run.count - done, few = left <= most ? left : left >= 2 * most ? most : (left + 1) / 2;  // not few at the end
      index const tap = done < from ? from : done, taps = least(done + few, to) - tap;
      done += few;
      if (taps <= 0) continue;
      index const at = column + run.column + tap;
      sum_.signal_at = g * sum_.next_signal + (at - edge_[0]) * sum_.steps.signal;
      sum_.taps_at = g * sum_.next_taps + (run.tap + tap) * sum_.steps.taps;
      sum_.begin = edge_[0] - at;
      sum_.end = edge_[1] - at;
      bool const last = tap + taps == to;
      sum_.out = last ? out : sums_;
      sum_.out_step = last ? out_step : simd::lanes;
      sum_.pixels = last ? pixels : width;
      bool const ends = sum_.begin <= depthwise_zeros_most && sum_.end >= width + taps - 1 - depthwise_zeros_most;
      depthwise_function_of(width, taps, ends)(sum_);
      sum_.from = sums_;
      sum_.from_step = simd::lanes;
    }
  }

  /// Asks for columns of the row that will be loaded next: their channels are too far apart for the hardware to foresee.
  void fetch(index g, index begin, index end) const {
    if (next_ == nullptr) return;
    index const step = p_.x.at[2] * p_.x.element;
    char const* const next = next_ + g * simd::lanes * p_.x.element;
    for (index c = begin; c < least(end, end_ - begin_); ++c) __builtin_prefetch(next + c * step, 0, 2);
  }
  /// Bytes from an output's lines to the next one's, beyond which a page has so few of them that the hardware does not foresee the next.
  static constexpr index far_apart = 1024;
  /// Asks for the lines that sums will be written to.
  static void fetch_outputs(float const* out, index step, index pixels) {
    for (index i = 0; i < pixels; ++i) __builtin_prefetch(out + i * step, 1);
  }

  depthwise_problem const& p_;
  depthwise_plan const& plan_;
  depthwise_tables const& tables_;
  float *signal_, *taps_, *row_, *added_;
  depthwise_rows* rows_;
  bool fetches_outputs_;
  depthwise_sum sum_{};
  alignas(64) float sums_[depthwise_pixels_most * simd::lanes];
  bool signal_in_place_ = false, taps_in_place_ = false;
  bool exchanged_ = false;                 // signal and taps have changed places
  index origin_[3] = {}, size_[3] = {};    // of outputs
  index begin_ = 0, end_ = 0, first_ = 0;  // columns of the signal that are not zeros around it; the first one's in the input
  index edge_[2] = {};                     // what sums see as signal, in columns
  index start_ = 0;                        // a multiple of the ring: see slot()
  index loaded_ = 0;                       // rows of the input before this one are in the ring, or no longer seen
  index batch_ = 0, channel_ = 0, channels_ = 0, members_ = 0;
  char const* next_ = nullptr;  // the row of the input that is loaded next, if it is worth asking for
};

inline std::size_t depthwise_bytes(cpu_policy const& policy, depthwise_problem const& p) {
  depthwise_plan const plan = plan_depthwise(p, policy.concurrency());
  index const tables = round_to_multiple(depthwise_tables::bytes(p, plan), static_cast<index>(workspace::alignment));
  return static_cast<std::size_t>(tables + slots_for(policy, plan.items) * plan.bytes);
}

inline void run_depthwise(cpu_policy const& policy, depthwise_problem const& p) {
  depthwise_plan const plan = plan_depthwise(p, policy.concurrency());
  if (plan.items == 0) return;
  workspace::lease const memory(policy.scratch(), depthwise_bytes(policy, p));
  depthwise_tables const tables(p, plan, memory.data());
  index const skipped = round_to_multiple(depthwise_tables::bytes(p, plan), static_cast<index>(workspace::alignment));
  parallel_for(policy, plan.items, [&](index item, index slot) TERN_LAMBDA {
    depthwise_block(p, plan, tables, memory.data() + skipped + slot * plan.bytes).run(item);
  });
}

}  // namespace TERN_ABI
}  // namespace tern::detail

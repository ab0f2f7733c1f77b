// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/depthwise_planes.hpp
/// Kernels of 3 x 3 on images whose columns are neighbors in memory, and those of conv/depthwise_strips.hpp: lanes are columns, so that
/// nothing is turned. Turning costs as much as nine taps or more, and takes the time of two thirds of a call with 3 x 3, of a third with
/// 7 x 7 on 14 x 14; larger kernels are worth it.
///
/// With 3 x 3 a row of the signal is read once, in three places, and belongs to three rows of outputs, whose sums stay in registers:
///
///     above += w[2, t] x[t], middle += w[1, t] x[t], below = bias + w[0, t] x[t]        t < 3
///
/// after which `above` is finished, and the others move up.

#include <tern/conv/depthwise_problem.hpp>
#include <tern/conv/depthwise_strips.hpp>
#include <tern/core/parallel_for.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Registers of outputs side by side whose sums, beside the taps, fit into registers.
inline constexpr index plane_width_most = simd::many_registers ? 4 : 2;

/// All rows of a few columns of outputs of one channel.
struct depthwise_plane {
  float const* x;  // where the first output's first tap is, or would be
  index x_row, x_rows;
  float const* taps;
  index taps_row, taps_column;
  float bias;
  simd::lane_range seen[2][3];  // columns that are no zeros, of the first and the last register
  index before;                 // rows of zeros above x
  float* out;
  index out_row, out_rows;
  index stored;  // of the last register's lanes
};

template <index width>
inline void sum_plane(depthwise_plane const& p) noexcept {
  using simd::lanes;
  constexpr index parts = width == 1 ? 3 : 1;  // a single sum would wait for itself
  using row_sums = simd::pack<float>[width][parts];
  simd::pack<float> taps[3][3];
  TERN_UNROLL
  for (index n = 0; n < 9; ++n)
    taps[n / 3][n % 3] = simd::in_register(simd::pack<float>(p.taps[n / 3 * p.taps_row + n % 3 * p.taps_column]));
  simd::pack<float> const bias = simd::in_register(simd::pack<float>(p.bias));
  simd::lane_range const first[3] = {p.seen[0][0], p.seen[0][1], p.seen[0][2]}, last[3] = {p.seen[1][0], p.seen[1][1], p.seen[1][2]};
  index const x_row = p.x_row, x_rows = p.x_rows, out_row = p.out_row, out_rows = p.out_rows, stored = p.stored;
  float const* x = p.x;
  float* out = p.out;
  index h = p.before - 2, i = 0;
  auto const finish = [&](row_sums const& row) TERN_LAMBDA {
    if (h++ < 0) return;
    if (h > out_rows) return;
    TERN_UNROLL
    for (index c = 0; c < width; ++c) {
      simd::pack<float> sum = row[c][0];
      for (index n = 1; n < parts; ++n) sum = sum + row[c][n];
      if (c < width - 1)
        simd::store(out + c * lanes, sum);
      else
        simd::store_n(out + c * lanes, sum, stored);
    }
    out += out_row;
  };
  auto const add_row = [&](row_sums& above, row_sums& middle, row_sums& below) TERN_LAMBDA {
    TERN_UNROLL
    for (index n = 0; n < 3 * width; ++n) {
      index const c = n / 3, t = n % 3, part = t % parts;
      float const* const at = x + c * lanes + t;
      bool const inner = c > 0 && c < width - 1;
      simd::pack<float> const v = simd::in_register(inner ? simd::load(at) : simd::load_range(at, c == 0 ? first[t] : last[t]));
      above[c][part] = simd::fma(v, taps[2][t], above[c][part]);
      middle[c][part] = simd::fma(v, taps[1][t], middle[c][part]);
      below[c][part] = t == 0 ? simd::fma(v, taps[0][t], bias) : part > 0 ? v * taps[0][t] : simd::fma(v, taps[0][t], below[c][part]);
    }
    finish(above);
    x += x_row;
    ++i;
  };
  row_sums a, b, c;
  TERN_UNROLL
  for (index n = 0; n < width * parts; ++n)
    a[n / parts][n % parts] = b[n / parts][n % parts] = n % parts == 0 ? bias : simd::pack<float>(0.f);
  for (;;) {  // the three rows take turns
    if (i == x_rows) return finish(a), finish(b);
    add_row(a, b, c);
    if (i == x_rows) return finish(b), finish(c);
    add_row(b, c, a);
    if (i == x_rows) return finish(c), finish(a);
    add_row(c, a, b);
  }
}
inline void sum_plane(depthwise_plane const& p, index width) noexcept {
  if (width == 1) return sum_plane<1>(p);
  if constexpr (plane_width_most > 2) {
    if (width == 3) return sum_plane<3>(p);
    if (width == 4) return sum_plane<4>(p);
  }
  sum_plane<2>(p);
}

/// Whether a problem is one of 3 x 3 taps and up to one zero at each border.
TERN_INLINE bool has_small_planes(depthwise_problem const& p) {
  for (conv_axis const* a = p.axis + 1; a < p.axis + 3; ++a)
    if (a->kernel != 3 || a->before > 1 || a->out > a->in + a->before - 1) return false;
  return true;
}
/// Whether it is one of strips: 5 or 7 rows of taps. One lane in eight may be idle, or as many as would be if lanes were channels.
TERN_INLINE bool has_strips(depthwise_problem const& p) {
  conv_axis const &height = p.axis[1], &width = p.axis[2];
  if (!simd::masks_loads || (height.kernel != 5 && height.kernel != 7) || width.kernel > strip_taps_most) return false;
  if (height.before >= height.kernel || width.before >= width.kernel) return false;
  index const columns = round_to_multiple(width.out, simd::lanes), channels = round_to_multiple(p.channels, simd::lanes);
  return 7 * columns * p.channels <= 8 * width.out * channels;
}
/// Whether a problem is one of these.
TERN_INLINE bool has_planes(depthwise_problem const& p) {
  if (!p.lines || p.x.at[2] != 1 || p.y.at[2] != 1 || p.axis[0].in != 1 || p.axis[0].kernel != 1 || p.axis[0].out != 1) return false;
  if (p.axis[0].before != 0 || p.axis[1].stride != 1 || p.axis[1].dilation != 1 || !p.clipped()) return false;
  return has_small_planes(p) || has_strips(p);
}

/// Floats of a thread's memory: the outputs of a channel, if something follows the sums.
TERN_INLINE index plane_pitch(depthwise_problem const& p) { return round_to_multiple(p.axis[2].out, simd::lanes); }
TERN_INLINE index plane_floats(depthwise_problem const& p) {
  return p.step_count > 0 ? round_to_multiple(p.axis[1].out * plane_pitch(p), static_cast<index>(workspace::alignment)) : 0;
}

/// Channels one after the other. What depends on columns alone is worked out again only where these change.
class depthwise_channels {
 public:
  depthwise_channels(depthwise_problem const& p, float* memory) : p_(p), memory_(memory), strips_(p.axis[1].kernel > 3) {
    plane_.x_row = strip_.x_row = p.x.at[1];
    plane_.x_rows = p.axis[1].in;
    plane_.before = p.axis[1].before;
    plane_.out_rows = p.axis[1].out;
    plane_.taps_row = strip_.taps_row = p.w.at[1];
    plane_.taps_column = strip_.taps_column = p.w.at[2];
    strip_.taps_in_row = p.axis[2].kernel;
    strip_.seen_bits = seen_bits_;
    index const channel = p.axis[1].in * p.axis[2].in, image = p.channels * channel;
    bool const dense = p.x.at[1] == p.axis[2].in && p.x.channel == channel && (p.batch == 1 || p.x.batch == image);
    dense_ = dense ? p.batch * image : 0;
  }

  /// Rows `begin` to `end` of a channel's outputs: all of them, or with strips some.
  void run(index batch, index channel, index begin, index end) {
    batch_ = batch;
    channel_ = channel;
    begin_ = begin;
    end_ = end;
    index const to = batch_ * p_.y.batch + channel_ * p_.y.channel;
    float* const y = static_cast<float*>(p_.y.point(to));
    if (p_.step_count == 0) return sum(y, p_.y.at[1], p_.axis[2].out);
    sum(memory_, plane_pitch(p_), plane_pitch(p_));
    for (index h = begin; h < end; ++h) finish(h, memory_ + h * plane_pitch(p_), y + h * p_.y.at[1]);
  }

 private:
  /// Rows of outputs `out_row` floats apart, of which `columns` floats are written: what follows the sums takes whole registers.
  void sum(float* out, index out_row, index columns) {
    plane_.taps = strip_.taps = static_cast<float const*>(p_.w.point(batch_ * p_.w.batch + channel_ * p_.w.channel));
    plane_.bias = strip_.bias = p_.bias != nullptr ? p_.bias[channel_ * p_.bias_stride] : 0.f;
    plane_.out_row = strip_.out_row = out_row;
    for (index o = 0; o < p_.axis[2].out; o += registers_ * simd::lanes) {
      if (o != first_) strips_ ? set_strip(o, columns) : set_plane(o, columns);
      if (strips_) {
        sum_strips(o, out + o);
        continue;
      }
      index const x = batch_ * p_.x.batch + channel_ * p_.x.channel + o - p_.axis[2].before;
      plane_.x = static_cast<float const*>(p_.x.point(x));
      plane_.out = out + o;
      sum_plane(plane_, registers_);
    }
  }
  /// Outputs from column `o` on.
  void set_plane(index o, index columns) {
    using simd::lanes;
    conv_axis const& width = p_.axis[2];
    first_ = o;
    registers_ = least(divide_up(width.out - o, lanes), plane_width_most);
    index const last = o + (registers_ - 1) * lanes, edge[] = {o - width.before, last - width.before};
    for (int e = 0; e < 2; ++e)
      for (index tap = 0; tap < 3; ++tap) {
        lanes_seen const seen = columns_seen(edge[e] + tap);
        plane_.seen[e][tap] = {seen.begin, seen.end};
      }
    plane_.stored = least(lanes, columns - last);
  }
  void set_strip(index o, index columns) {
    first_ = o;
    registers_ = 1;
    using lane_numbers = simd::pack<std::int32_t>;
    auto const number = [](index n) { return lane_numbers(static_cast<std::int32_t>(n)); };
    for (index tap = 0; tap < strip_.taps_in_row; ++tap) {
      lanes_seen const seen = columns_seen(o - p_.axis[2].before + tap);
      strip_.seen[tap] = {seen.begin, seen.end};
      auto const in_x = (simd::iota<std::int32_t>() >= number(seen.begin)) & (simd::iota<std::int32_t>() < number(seen.end));
      simd::store(seen_bits_ + tap * simd::lanes, simd::select(in_x, number(-1), number(0)));
    }
    strip_.stored = least(simd::lanes, columns - o);
  }
  /// The rows of a register of columns, from column `o` on.
  void sum_strips(index o, float* out) {
    conv_axis const &height = p_.axis[1], &width = p_.axis[2];
    index const column = o - width.before, columns = width.kernel - 1 + simd::lanes;
    index const at = batch_ * p_.x.batch + channel_ * p_.x.channel + column;
    bool const in_rows = column >= 0 && column + columns <= width.in;
    for (index h = begin_; h < end_; h += strip_rows_most) {
      index const row = h - height.before, first = row > 0 ? row : 0;
      index const last = least(height.in, row + strip_rows_most + height.kernel - 1) - 1;
      strip_.inside = in_rows || (at + first * strip_.x_row >= 0 && at + last * strip_.x_row + columns <= dense_);
      strip_.x = static_cast<float const*>(p_.x.point(at + row * strip_.x_row));
      strip_.begin = -row;
      strip_.end = height.in - row;
      strip_.out = out + h * strip_.out_row;
      strip_.rows = least(strip_rows_most, end_ - h);
      sum_strip(strip_, height.kernel);
    }
  }
  /// The lanes from `column` on that are in x.
  struct lanes_seen {
    index begin, end;
  };
  lanes_seen columns_seen(index column) const {
    index const begin = column < 0 ? -column : 0, end = least(simd::lanes, p_.axis[2].in - column);
    return {begin, end > begin ? end : begin};
  }

  /// What follows the sums of row h.
  void finish(index h, float* row, float* y) const {
    index const n = p_.axis[2].out;
    for (int s = 0; s < p_.step_count; ++s) {
      conv_step const& step = p_.steps[s];
      if (step.apply != nullptr) {
        step.apply(step.object, row, plane_pitch(p_));
        continue;
      }
      conv_tensor<void const*> const& r = step.added;
      float const* const from = static_cast<float const*>(r.point(batch_ * r.batch + channel_ * r.channel + h * r.at[1]));
      for (index i = 0; i < n; ++i) row[i] += from[i * r.at[2]];
    }
    for (index i = 0; i < n; i += simd::lanes) simd::store_n(y + i, simd::load(row + i), least(simd::lanes, n - i));
  }

  depthwise_problem const& p_;
  float* memory_;
  index batch_ = 0, channel_ = 0, begin_ = 0, end_ = 0;
  bool strips_;
  index dense_ = 0;                   // floats of x, if there are no gaps between them
  index first_ = -1, registers_ = 0;  // the outputs that `plane_` or `strip_` is set for
  depthwise_plane plane_{};
  depthwise_strip strip_{};
  alignas(64) std::int32_t seen_bits_[strip_taps_most * simd::lanes];
};

/// A piece of work, by shape alone: so many channels, or rows of outputs of one.
inline constexpr index plane_outputs = 8192;
TERN_INLINE index plane_share(depthwise_problem const& p) { return divide_up(plane_outputs, p.axis[1].out * p.axis[2].out + 1); }
TERN_INLINE index plane_rows(depthwise_problem const& p) {
  if (p.axis[1].kernel == 3) return p.axis[1].out;
  return least(p.axis[1].out, round_to_multiple(divide_up(plane_outputs, p.axis[2].out), strip_rows_most));
}
TERN_INLINE index plane_items(depthwise_problem const& p) {
  if (p.axis[1].out * p.axis[2].out == 0) return 0;
  return p.batch * divide_up(p.channels, plane_share(p)) * divide_up(p.axis[1].out, plane_rows(p));
}

inline std::size_t planes_bytes(cpu_policy const& policy, depthwise_problem const& p) {
  return static_cast<std::size_t>(slots_for(policy, plane_items(p)) * plane_floats(p)) * sizeof(float);
}

inline void run_planes(cpu_policy const& policy, depthwise_problem const& p) {
  if (plane_items(p) == 0) return;
  workspace::lease const memory(policy.scratch(), planes_bytes(policy, p));
  index const share = plane_share(p), shares = divide_up(p.channels, share), height = p.axis[1].out, rows = plane_rows(p);
  index const bands = divide_up(height, rows);
  parallel_for(policy, plane_items(p), [&](index item, index slot) TERN_LAMBDA {
    index const from = item % bands * rows, to = least(from + rows, height), piece = item / bands;
    index const batch = piece / shares, begin = piece % shares * share, end = least(begin + share, p.channels);
    float* const mine = reinterpret_cast<float*>(memory.data()) + slot * plane_floats(p);
    depthwise_channels channels(p, mine);
    for (index c = begin; c < end; ++c) channels.run(batch, c, from, to);
  });
}

}  // namespace TERN_ABI
}  // namespace tern::detail

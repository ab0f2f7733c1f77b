// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/depthwise_problem.hpp
/// A depthwise convolution as the engine takes it: three dimensions of space, of which some may have one element, any strides, elements
/// that only the functions which move rows know; and into which pieces it is cut.

#include <tern/conv/depthwise_kernel.hpp>
#include <tern/conv/depthwise_rows.hpp>
#include <tern/core/workspace.hpp>
#include <tern/simd/core.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// One dimension: output o sees the inputs o stride - before + t dilation.
struct conv_axis {
  index in = 1, out = 1, kernel = 1, stride = 1, dilation = 1, before = 0;

  /// The first and one past the last of the taps that an output sees.
  TERN_INLINE index first_tap(index o) const {
    index const left = before - o * stride;
    return left <= 0 ? 0 : steps(left);
  }
  TERN_INLINE index end_tap(index o) const {
    index const left = in + before - o * stride;
    return left <= 0 ? 0 : least(kernel, steps(left));
  }
  /// Taps that fit into so many inputs, the last one in part.
  TERN_INLINE index steps(index inputs) const { return dilation == 1 ? inputs : divide_up(inputs, dilation); }
  TERN_INLINE index input(index o, index tap) const { return o * stride - before + tap * dilation; }
};

/// A tensor: its memory, and distances in elements along batch, channels and space.
template <class Pointer>
struct conv_tensor {
  Pointer data = nullptr;
  index element = 0;  // bytes
  index batch = 0, channel = 0, at[3] = {};

  TERN_INLINE Pointer point(index offset) const {
    using byte = std::conditional_t<std::is_const_v<std::remove_pointer_t<Pointer>>, char const, char>;
    return static_cast<byte*>(data) + offset * element;
  }
};

/// What is done to finished rows, in order: a function of registers, or a tensor that is added.
struct conv_step {
  void const* object = nullptr;
  void (*apply)(void const* object, float* row, index n) = nullptr;
  conv_tensor<void const*> added;
  load_row_function load = nullptr;
};

struct depthwise_problem {
  static constexpr int most_steps = 4;
  conv_axis axis[3];
  index batch = 0, channels = 0;
  conv_tensor<void const*> x, w;
  conv_tensor<void*> y;
  load_row_function load_x = nullptr, load_w = nullptr;
  load_members_function load_members = nullptr;
  store_row_function store_y = nullptr;
  bool plain_x = false, plain_w = false, plain_y = false;  // registers of channels lie there as they are
  bool lines = false;                                      // all elements are floats
  float const* bias = nullptr;
  index bias_stride = 0;
  conv_step steps[most_steps];
  int step_count = 0;
  bool adds = false;
  bool sums = false;  // by no transform

  /// Whether columns follow each other: those of the border are left out then, and need no place.
  TERN_INLINE bool clipped() const { return axis[2].stride == 1 && axis[2].dilation == 1; }
};

/// Outputs side by side of up to `lanes` channels: from the first one on.
struct conv_row {
  index batch, channel, at[3];
  index channels, columns;
};

/// What follows the sums of a row (columns, lanes) of outputs, which are not in y yet. added: memory like the row's.
inline void finish_row(depthwise_problem const& p, conv_row const& o, float* row, float* added) {
  for (int s = 0; s < p.step_count; ++s) {
    conv_step const& step = p.steps[s];
    index const n = o.columns * simd::lanes;
    if (step.apply != nullptr) {
      step.apply(step.object, row, n);
      continue;
    }
    conv_tensor<void const*> const& r = step.added;
    index at = o.batch * r.batch + o.channel * r.channel;
    for (int d = 0; d < 3; ++d) at += o.at[d] * r.at[d];
    step.load(r.point(at), {r.channel, r.at[2], o.channels, o.columns}, added, nullptr);
    for (index i = 0; i < n; i += simd::lanes) simd::store(row + i, simd::load(row + i) + simd::load(added + i));
  }
}

/// How a problem is cut: blocks of `out` outputs of `team` groups of `lanes` channels. A thread's memory holds the rows of the signal that
/// one row of outputs sees, each in the place of one that is no longer seen, and the taps.
struct depthwise_plan {
  index out[3], blocks[3];
  index groups;  // of channels
  index team;    // of groups
  index teams;
  bool together;                        // a team's sums are one call
  index rows;                           // of outputs that wait for what follows the sums
  bool signal_in_place, taps_in_place;  // are read where they lie, but for channels that fill no register
  index items;
  index ring;        // rows of a plane that are held
  index phase;       // columns of a signal's row that are `stride` inputs apart lie side by side: so many
  index row, width;  // columns of a signal's row in memory, outputs of a row rounded up
  index signal_bytes, taps_bytes, out_bytes, list_bytes, bytes;
};

/// The bytes of signal that a block may have: a part of the second-level cache.
inline constexpr index depthwise_signal_bytes = 256 * 1024;
/// Multiply-adds of registers that make up a piece of work, if there are not many pieces anyway.
inline constexpr index depthwise_grain = 1 << 17;

TERN_INLINE index taps_of(depthwise_problem const& p) { return p.axis[0].kernel * p.axis[1].kernel * p.axis[2].kernel; }

TERN_INLINE void size_rows(depthwise_problem const& p, depthwise_plan& plan) {
  conv_axis const &height = p.axis[1], &width = p.axis[2];
  index const seen = least(height.in, (height.kernel - 1) * height.dilation + 1);
  plan.ring = seen > 0 ? seen : 1;         // of an empty input nothing is loaded
  index const computed = plan.out[2] + 4;  // no tile is wider than what is left by more
  plan.width = round_to_multiple(computed, simd::lanes);
  plan.phase = computed + divide_up((width.kernel - 1) * width.dilation + 1, width.stride);
  // Where columns follow each other those of the border are left out.
  plan.row = p.clipped() ? least(width.in, plan.phase) : plan.phase * width.stride;
  plan.signal_bytes = p.axis[0].kernel * plan.ring * plan.row * simd::lanes * index{sizeof(float)};
}

/// Whether an image does not stay in the second-level cache.
TERN_INLINE bool large_image(depthwise_problem const& p) {
  constexpr index cached = 1024 * 1024;
  return p.axis[1].in * p.axis[2].in * p.channels * p.x.element >= cached;
}
/// Whether there is less to do than it costs to fetch a signal.
TERN_INLINE bool few_taps(depthwise_problem const& p) { return taps_of(p) <= 9; }

/// Places of the first-level cache, of 48 KiB or 32, for registers so many bytes apart.
TERN_INLINE index cache_places(index bytes) {
  constexpr index line = 64, sets = 64, ways = simd::on_zen3 ? 8 : 12;
  index const apart = bytes & -bytes;  // the largest power of two that divides it
  return ways * (apart <= line ? sets : apart >= line * sets ? 1 : line * sets / apart);
}

/// Whether signals are read where they lie: a copy costs as much as some taps, and what is left in the first-level cache by one row of
/// outputs serves the next one if columns are not so far apart that they share few places of it.
TERN_INLINE bool read_in_place(depthwise_problem const& p) {
  conv_axis const& width = p.axis[2];
  if (!p.plain_x || width.stride != 1 || width.dilation != 1 || p.channels < simd::lanes) return false;
  if (few_taps(p)) return true;
  index const seen = p.axis[0].kernel * p.axis[1].kernel * (depthwise_pixels_most + width.kernel - 1);
  return !large_image(p) && seen <= cache_places(p.x.at[2] * p.x.element);
}
/// Whether taps are: so few outputs of a block make a copy not worth while, if all of them stay in the first-level cache beside a signal.
TERN_INLINE bool taps_read_in_place(depthwise_problem const& p, depthwise_plan const& plan) {
  constexpr index few = 256;
  return p.plain_w && p.axis[2].stride == 1 && plan.out[0] * plan.out[1] * plan.out[2] <= few &&
         3 * taps_of(p) <= 2 * cache_places(p.w.at[2] * p.w.element);
}

/// Groups whose rows are summed after each other: as many as the first-level cache takes, where one call serves them; and for large images
/// in the order of their memory, whose channels are far apart and come one cache line at a time otherwise, which memory is slow at.
TERN_INLINE index team_size(depthwise_problem const& p, depthwise_plan const& plan) {
  constexpr index line = 64, first_cache = 32 * 1024, most_taps = 49;
  // Three eighths of it, as x and y pass through.
  constexpr index second_cache = simd::second_cache_bytes / 8 * 3;
  index const taps = taps_of(p), taps_bytes = taps * simd::lanes * index{sizeof(float)};
  bool const copied = !plan.signal_in_place, large = large_image(p);
  if (p.x.channel != 1 || p.axis[0].kernel > 1 || (!large && taps > most_taps) || (copied && !large && !plan.together)) return 1;
  index const tile = line * (p.axis[1].kernel * (depthwise_pixels_most + p.axis[2].kernel - 1) + depthwise_pixels_most + taps);
  index const copies = taps_bytes + (copied ? plan.signal_bytes : 0);
  index const fit = large ? second_cache / copies : copied ? first_cache / copies : first_cache / tile;
  return fit < 2 ? 1 : divide_up(plan.groups, divide_up(plan.groups, fit));  // even ones
}

/// Pieces of work: a team of whole groups, or what is left of the channels, of a block.
TERN_INLINE index count_items(depthwise_problem const& p, depthwise_plan& plan) {
  plan.teams = plan.signal_in_place ? divide_up(p.channels / simd::lanes, plan.team) + (p.channels % simd::lanes != 0 ? 1 : 0)
                                    : divide_up(plan.groups, plan.team);
  index items = p.batch * plan.teams;
  for (int d = 0; d < 3; ++d) items *= plan.blocks[d] = divide_up(p.axis[d].out, plan.out[d]);
  return items;
}

/// Halves the width until the signal fits, and all of the block until there are pieces for all threads: outputs are the same wherever a
/// block ends.
TERN_INLINE void size_blocks(depthwise_problem const& p, index threads, depthwise_plan& plan) {
  constexpr index least_width = 4 * depthwise_pixels_most, pieces = 8;  // of a thread, if there are several
  index const many = threads > 1 ? pieces * threads : 1;
  // Blocks that are copied see kernel - 1 rows of others.
  index const least_height = plan.signal_in_place || p.axis[1].kernel < 4 ? 4 : p.axis[1].kernel;
  for (int d = 0; d < 3; ++d) plan.out[d] = p.axis[d].out;
  if (plan.signal_in_place && !few_taps(p)) plan.out[2] = least(plan.out[2], depthwise_pixels_most);
  auto const halve_width = [&] { plan.out[2] = round_to_multiple(divide_up(plan.out[2], 2), depthwise_pixels_most); };
  for (size_rows(p, plan); plan.signal_bytes > depthwise_signal_bytes && plan.out[2] > least_width; size_rows(p, plan)) halve_width();
  plan.together = p.clipped() && p.axis[2].kernel <= depthwise_taps_most && (plan.signal_in_place || !large_image(p));
  plan.team = team_size(p, plan);
  for (plan.items = count_items(p, plan); plan.items < many; plan.items = count_items(p, plan)) {
    if (plan.team * plan.out[0] * plan.out[1] * plan.out[2] * taps_of(p) <= 2 * depthwise_grain) break;
    if (plan.team > 2 && large_image(p))
      plan.team = divide_up(plan.team, 2);
    else if (plan.out[0] > 1)
      plan.out[0] = divide_up(plan.out[0], 2);
    else if (plan.out[1] > least_height)
      plan.out[1] = divide_up(plan.out[1], 2);
    else if (plan.out[2] > least_width)
      halve_width();
    else
      break;
  }
  size_rows(p, plan);
}

TERN_INLINE depthwise_plan plan_depthwise(depthwise_problem const& p, index threads) {
  depthwise_plan plan{};
  if (p.batch * p.channels * p.axis[0].out * p.axis[1].out * p.axis[2].out == 0) return plan;
  plan.groups = divide_up(p.channels, simd::lanes);
  plan.signal_in_place = read_in_place(p);
  size_blocks(p, threads, plan);
  plan.taps_in_place = taps_read_in_place(p, plan);
  constexpr index line = workspace::alignment, pack_bytes = simd::lanes * index{sizeof(float)};
  plan.rows = plan.together ? plan.team : 1;
  plan.signal_bytes = round_to_multiple(plan.team * plan.signal_bytes, line);
  plan.taps_bytes = round_to_multiple(plan.team * (taps_of(p) + 1) * pack_bytes, line);  // and the bias
  plan.out_bytes = round_to_multiple((plan.rows + (p.adds ? 1 : 0)) * plan.width * pack_bytes, line);
  plan.list_bytes = round_to_multiple(2 * p.axis[0].kernel * index{sizeof(depthwise_rows)}, line);
  plan.bytes = plan.signal_bytes + plan.taps_bytes + plan.out_bytes + plan.list_bytes;
  return plan;
}

}  // namespace TERN_ABI
}  // namespace tern::detail

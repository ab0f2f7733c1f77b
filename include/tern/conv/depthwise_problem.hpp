// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/depthwise_problem.hpp
/// A depthwise convolution as the engine takes it: three dimensions of space, of which some may have one element, any strides, elements
/// that only the functions which move rows know; and into which pieces it is cut.

#include <tern/conv/depthwise_kernel.hpp>
#include <tern/conv/depthwise_rows.hpp>
#include <tern/core/workspace.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// One dimension: output o sees the inputs o stride - before + t dilation.
struct conv_axis {
  index in = 1, out = 1, kernel = 1, stride = 1, dilation = 1, before = 0;

  /// The first and one past the last of the taps that an output sees.
  TERN_INLINE index first_tap(index o) const {
    index const left = before - o * stride;
    return left <= 0 ? 0 : dilation == 1 ? left : divide_up(left, dilation);
  }
  TERN_INLINE index end_tap(index o) const {
    index const left = in + before - o * stride;
    return left <= 0 ? 0 : least(kernel, dilation == 1 ? left : divide_up(left, dilation));
  }
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
  bool direct = false;  // y takes registers as they are
  float const* bias = nullptr;
  index bias_stride = 0;
  conv_step steps[most_steps];
  int step_count = 0;
  bool adds = false;
};

/// How a problem is cut: blocks of `out` outputs of `team` groups of `lanes` channels. A thread's memory holds the rows of the signal that
/// one row of outputs sees, each in the place of one that is no longer seen, and the taps.
struct depthwise_plan {
  index out[3], blocks[3];
  index groups;  // of channels
  index team;    // of groups
  index items;
  index ring;        // rows of a plane that are held
  index phase;       // columns of a signal's row that are `stride` inputs apart lie side by side: so many
  index row, width;  // columns of a signal's row in memory, outputs of a row rounded up
  index signal_bytes, taps_bytes, out_bytes, pairs_bytes, bytes;
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
  plan.row = plan.phase * width.stride;
  plan.signal_bytes = p.axis[0].kernel * plan.ring * plan.row * simd::lanes * index{sizeof(float)};
}

/// Halves the width until the signal fits, and all of the block until there are pieces for many threads. By shape alone.
TERN_INLINE void size_blocks(depthwise_problem const& p, depthwise_plan& plan) {
  constexpr index least_width = 4 * depthwise_pixels_most, least_height = 4;
  for (int d = 0; d < 3; ++d) plan.out[d] = p.axis[d].out;
  auto const halve_width = [&] { plan.out[2] = round_to_multiple(divide_up(plan.out[2], 2), depthwise_pixels_most); };
  for (size_rows(p, plan); plan.signal_bytes > depthwise_signal_bytes && plan.out[2] > least_width; size_rows(p, plan)) halve_width();
  for (;; size_rows(p, plan)) {
    index items = p.batch * plan.groups;
    for (int d = 0; d < 3; ++d) items *= divide_up(p.axis[d].out, plan.out[d]);
    if (items >= 64 || plan.out[0] * plan.out[1] * plan.out[2] * taps_of(p) <= 2 * depthwise_grain) break;
    if (plan.out[0] > 1)
      plan.out[0] = divide_up(plan.out[0], 2);
    else if (plan.out[1] > least_height)
      plan.out[1] = divide_up(plan.out[1], 2);
    else if (plan.out[2] > least_width)
      halve_width();
    else
      break;
  }
}

/// Channels that are far apart in large images come one cache line at a time, which memory is slow at: rows are then loaded for
/// neighboring groups in the order of their memory. Large kernels have enough to do meanwhile.
TERN_INLINE index team_size(depthwise_problem const& p, depthwise_plan const& plan) {
  constexpr index team_bytes = 512 * 1024, most_taps = 49, large_image = 1024 * 1024;
  index const image = p.axis[1].in * p.axis[2].in * p.channels * p.x.element, taps = taps_of(p);
  if (p.x.channel != 1 || p.axis[0].kernel > 1 || taps > most_taps || image < large_image) return 1;
  index const fit = team_bytes / (plan.signal_bytes + taps * simd::lanes * index{sizeof(float)});
  return fit < 2 ? 1 : divide_up(plan.groups, divide_up(plan.groups, fit));  // even ones
}

TERN_INLINE depthwise_plan plan_depthwise(depthwise_problem const& p) {
  depthwise_plan plan{};
  if (p.batch * p.channels * p.axis[0].out * p.axis[1].out * p.axis[2].out == 0) return plan;
  plan.groups = divide_up(p.channels, simd::lanes);
  size_blocks(p, plan);
  plan.team = team_size(p, plan);
  plan.items = p.batch * divide_up(plan.groups, plan.team);
  for (int d = 0; d < 3; ++d) plan.items *= plan.blocks[d] = divide_up(p.axis[d].out, plan.out[d]);
  constexpr index line = workspace::alignment, pack_bytes = simd::lanes * index{sizeof(float)};
  plan.signal_bytes = round_to_multiple(plan.team * plan.signal_bytes, line);
  plan.taps_bytes = round_to_multiple(plan.team * (taps_of(p) + 1) * pack_bytes, line);  // and the bias
  plan.out_bytes = round_to_multiple((p.adds ? 2 : 1) * plan.width * pack_bytes, line);
  plan.pairs_bytes = round_to_multiple(p.axis[0].kernel * p.axis[1].kernel * index{sizeof(depthwise_pair)}, line);
  plan.bytes = plan.signal_bytes + plan.taps_bytes + plan.out_bytes + plan.pairs_bytes;
  return plan;
}

}  // namespace TERN_ABI
}  // namespace tern::detail

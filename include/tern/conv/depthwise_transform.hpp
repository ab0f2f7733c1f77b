// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/depthwise_transform.hpp
/// Large kernels by the transforms of the long convolutions. An image is one sequence, and so is its kernel: rows a pitch apart, with zeros
/// between them, so that what a row's products reach beyond it meets nothing that counts.
///
///     u[i pitch + j] = x[i, j],  k[s pitch + t] = w[s, t]:   y[i, j] = sum over m of k[m] u[i pitch + j + m - (before_h pitch + before_w)]
///
/// Channels of one register are a piece of work: they are turned on the way in and out, as the engine of the direct sums turns them.

#include <tern/conv/depthwise_problem.hpp>
#include <tern/conv/long_conv.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// The sequences of a problem.
struct depthwise_sequences {
  index first[2], seen[2];  // taps that some output sees
  index pitch;              // of rows
  index length;             // of a signal, and of its results
  index lead, taps;         // zeros before the first tap that bring the place of an output to the middle; taps, with zeros around them

  TERN_INLINE explicit depthwise_sequences(depthwise_problem const& p) {
    conv_axis const &height = p.axis[1], &width = p.axis[2];
    index before[2];
    for (int d = 0; d < 2; ++d) {
      conv_axis const& a = p.axis[d + 1];
      first[d] = a.first_tap(a.out - 1);
      seen[d] = a.end_tap(0) - first[d];
      before[d] = a.before - first[d];
    }
    index const after = width.out + seen[1] - 1 - before[1] - width.in, wide = width.in + (before[1] > after ? before[1] : after);
    pitch = wide > width.out ? wide : width.out;
    index const in = (height.in - 1) * pitch + width.in, out = (height.out - 1) * pitch + width.out;
    length = in > out ? in : out;
    index const place = before[0] * pitch + before[1], end = (seen[0] - 1) * pitch + seen[1];
    lead = end > 2 * place + 1 ? end - 1 - 2 * place : 0;
    taps = lead + (end > 2 * place + 1 ? end : 2 * place + 1);
  }
  /// Samples that a transform has to hold.
  TERN_INLINE index points() const { return length + taps / 2; }
  /// Relative to the product of the norms of a signal and its taps: that of long_conv.
  TERN_INLINE double error() const { return long_conv.error(length + taps); }
};

/// Products of all outputs of a channel with the taps that they see.
inline double depthwise_products(depthwise_problem const& p) {
  double products = 1;
  for (int d = 1; d < 3; ++d) {
    index seen = 0;
    for (index o = 0; o < p.axis[d].out; ++o) {
      index const taps = p.axis[d].end_tap(o) - p.axis[d].first_tap(o);
      if (taps > 0) seen += taps;
    }
    products *= static_cast<double>(seen);
  }
  return products;
}

/// Whether a transform of so many points takes the place of so many products. Measured at 16 lanes on one image of f32, the time of direct
/// sums over that of a transform, channels first and last, beside products / (points * operations for one):
///
///     n x n      kernel            64 channels     384 channels
///     14         51        3.5     0.37  0.30      0.42  0.41
///     28         25       11.6     1.09  1.04      1.08  1.05
///     28         51       12.7     1.31  1.28      1.28  1.30
///     56         17       10.5     1.29  1.05      1.23  1.05
///     56         21       14.5     1.38  1.19      1.37  1.20
///     40         25       15.5     1.52  1.38      1.47  1.36
///     112        21       17.8     1.47  1.38
///     224        21       18.4     1.57  1.18
///     56         25       18.6     1.88  1.63      1.79  1.42
///     56         31       24.7     2.68  2.25      2.53  1.94
///     112        31       34.1     3.02  2.58      2.82  2.00
///     56         51       41.2     3.40  3.34      3.46  2.41
///     224        51       89.2     6.02  4.66
///
/// A batch that shares its kernels gains more (56, 51, four images: 4.93, 3.84); but what is taken may not depend on it.
constexpr bool transform_wins(double products, index points) {
  constexpr double operation = 15;               // products; a result that is not like the direct sums has to be worth it
  constexpr index most_points = index{1} << 16;  // 224 x 224; a register of channels is in memory at once
  return points <= most_points && products > operation * static_cast<double>(points) * (long_fixed_cost + log2_of(points));
}
inline bool has_transform(depthwise_problem const& p) {
  conv_axis const& depth = p.axis[0];
  if (p.sums || depth.in != 1 || depth.kernel != 1 || depth.out != 1 || depth.before != 0) return false;
  for (conv_axis const* a = p.axis + 1; a < p.axis + 3; ++a)
    if (a->stride != 1 || a->dilation != 1 || a->in == 0 || a->out == 0 || a->end_tap(0) <= a->first_tap(a->out - 1)) return false;
  return transform_wins(depthwise_products(p), depthwise_sequences(p).points());
}

/// The transform of a problem, and where a thread's memory has what.
struct transform_plan {
  depthwise_sequences at;
  long_filters filters;
  index apart;                            // floats from a channel's sequence to the next one's: an odd number of lines
  index signal, results, spectra, width;  // floats
  index groups, parts;                    // of channels; of samples, whose kernels are transformed once for each

  transform_plan(cpu_policy const& policy, depthwise_problem const& p) : at(p), filters{} {
    constexpr index line = 16;
    filters.layout = choose_layout(long_mode::same, at.length, at.taps, true).transposed();
    filters.shape();
    apart = (divide_up(at.length > at.taps ? at.length : at.taps, line) | 1) * line;
    signal = results = apart * simd::lanes;
    spectra = filters.each() * simd::lanes;
    index most = p.axis[2].in > p.axis[2].out ? p.axis[2].in : p.axis[2].out;
    if (at.seen[1] > most) most = at.seen[1];
    width = round_to_multiple(most, simd::lanes) * simd::lanes;
    groups = divide_up(p.channels, simd::lanes);
    parts = p.w.batch != 0 ? p.batch : least(p.batch, groups > 0 ? divide_up(policy.concurrency(), groups) : 0);
  }
  TERN_INLINE index items() const { return groups * parts; }
  TERN_INLINE index tables() const { return round_to_multiple(filters.table_floats(), 16); }
  /// Floats of a thread.
  TERN_INLINE index floats() const { return round_to_multiple(signal + results + spectra + 2 * width + scratch_floats(filters), 16); }
};

/// Some samples of a register of channels.
class transform_group {
 public:
  transform_group(depthwise_problem const& p, transform_plan const& plan, index group, float* memory)
      : p_(p),
        plan_(plan),
        channel_(group * simd::lanes),
        channels_(least(simd::lanes, p.channels - channel_)),
        signal_(memory),
        results_(signal_ + plan.signal),
        spectra_(results_ + plan.results),
        row_(spectra_ + plan.spectra),
        added_(row_ + plan.width),
        scratch_(added_ + plan.width) {}

  /// Samples `begin` to end - 1, which share a kernel.
  void run(index begin, index end) {
    transform_taps(begin);
    clear(signal_, plan_.at.length);
    for (index b = begin; b < end; ++b) {
      load_signal(b);
      convolve();
      store_results(b);
    }
  }

 private:
  void clear(float* to, index n) const {
    for (index c = 0; c < channels_; ++c)
      for (index i = 0; i < n; ++i) to[c * plan_.apart + i] = 0;
  }
  /// A row of a sequence of each channel.
  channel_row sequences(index columns) const { return {plan_.apart, 1, channels_, columns}; }

  /// Spectra of the kernels of a sample; their taps lie where the results will be.
  void transform_taps(index batch) {
    depthwise_sequences const& at = plan_.at;
    clear(results_, at.taps);
    index const from = batch * p_.w.batch + channel_ * p_.w.channel + at.first[1] * p_.w.at[2];
    for (index h = 0; h < at.seen[0]; ++h) {
      p_.load_w(p_.w.point(from + (at.first[0] + h) * p_.w.at[1]), {p_.w.channel, p_.w.at[2], channels_, at.seen[1]}, row_, nullptr);
      store_row<float>(results_ + at.lead + h * at.pitch, sequences(at.seen[1]), row_);
    }
    for (index c = 0; c < channels_; ++c)
      prepare_filter(plan_.filters, row_of_floats(results_ + c * plan_.apart, at.taps), spectra_ + c * plan_.filters.each(), scratch_);
  }
  void load_signal(index batch) {
    conv_axis const &height = p_.axis[1], &width = p_.axis[2];
    index const from = batch * p_.x.batch + channel_ * p_.x.channel;
    for (index h = 0; h < height.in; ++h) {
      p_.load_x(p_.x.point(from + h * p_.x.at[1]), {p_.x.channel, p_.x.at[2], channels_, width.in}, row_, nullptr);
      store_row<float>(signal_ + h * plan_.at.pitch, sequences(width.in), row_);
    }
  }
  void convolve() {
    shape<3> const extents{index{1}, channels_, plan_.at.length}, strides{index{0}, plan_.apart, index{1}};
    long_call call{samples_of(tensor_view<float const, 3>(signal_, extents, strides)),
                   results_of(tensor_view<float, 3>(results_, extents, strides))};
    call.correlate = true;
    for (index c = 0; c < channels_; ++c)
      for (index block = 0; block < plan_.filters.layout.blocks; ++block)
        run_block(cpu.on(serial), call, plan_.filters, spectra_ + c * plan_.filters.each(), {0, c, block}, scratch_);
  }
  void store_results(index batch) {
    index const columns = p_.axis[2].out, to = batch * p_.y.batch + channel_ * p_.y.channel;
    simd::pack<float> const bias = load_bias();
    for (index h = 0; h < p_.axis[1].out; ++h) {
      load_row<float>(results_ + h * plan_.at.pitch, sequences(columns), row_, nullptr);
      for (index v = 0; v < columns; ++v) simd::store(row_ + v * simd::lanes, simd::load(row_ + v * simd::lanes) + bias);
      finish_row(p_, {batch, channel_, {0, h, 0}, channels_, columns}, row_, added_);
      p_.store_y(p_.y.point(to + h * p_.y.at[1]), {p_.y.channel, p_.y.at[2], channels_, columns}, row_);
    }
  }
  simd::pack<float> load_bias() const {
    float bias[simd::lanes] = {};
    if (p_.bias != nullptr)
      for (index l = 0; l < channels_; ++l) bias[l] = p_.bias[(channel_ + l) * p_.bias_stride];
    return simd::load(static_cast<float const*>(bias));
  }

  depthwise_problem const& p_;
  transform_plan const& plan_;
  index channel_, channels_;
  float *signal_, *results_, *spectra_, *row_, *added_, *scratch_;
};

TERN_INLINE std::size_t transform_bytes(cpu_policy const& policy, transform_plan const& plan) {
  return static_cast<std::size_t>(plan.tables() + slots_for(policy, plan.items()) * plan.floats()) * sizeof(float);
}
inline std::size_t transform_bytes(cpu_policy const& policy, depthwise_problem const& p) {
  return transform_bytes(policy, transform_plan(policy, p));
}

inline void run_transform(cpu_policy const& policy, depthwise_problem const& p) {
  transform_plan plan(policy, p);
  if (plan.items() == 0) return;
  workspace::lease const memory(policy.scratch(), transform_bytes(policy, plan));
  float* const tables = reinterpret_cast<float*>(memory.data());
  plan.filters.fill(tables);
  parallel_for(policy, plan.items(), [&](index item, index slot) TERN_LAMBDA {
    index const part = item % plan.parts, begin = part * p.batch / plan.parts, end = (part + 1) * p.batch / plan.parts;
    transform_group(p, plan, item / plan.parts, tables + plan.tables() + slot * plan.floats()).run(begin, end);
  });
}

}  // namespace TERN_ABI
}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/long_stream.hpp
/// A causal long convolution of a signal that comes in blocks of B samples:
///
///     long_conv_stream stream(policy, k, B);             k (channels, taps), one signal; or
///     long_conv_stream stream(policy, k, B, batch);      `batch` signals that share k
///     stream.step(policy, u, y);                         u, y (batch, channels, B) or (channels, B): y_i, as of the whole signal up to now
///     stream.reset();                                    as if nothing had come
///
/// The filter is cut into P = ceil(taps / B) pieces whose spectra meet those of the last P inputs, so that a block costs two transforms of
/// its own length and P products, and a result comes with the block whose sample it is.
///
/// Types   k, u, y f32, f16 or bf16; f32 inside.
/// Alias   y may be u. Errors: extents that do not fit, no taps, no samples; y that overlaps u and is not u.
/// Gates   y = v .* ((u .* w) conv k) + D .* u of a signal that comes in blocks: step(u .* w), then the rest by hand.
/// Special one infinity or NaN may spread over the block that it comes with and the P blocks behind it.
/// Memory  P spectra for each filter and for each signal, of 8 bytes a sample of the block but at least those of the shortest transform
///         (2048 bytes with 16 lanes): short blocks cost memory and time. No allocation in `step` but the policy's workspace.
/// Error   that of long_conv for the last taps + B samples, and a rounding for each product: stream.error() |u|_2 |k|_2.
/// Source  Gardner, "Efficient convolution without input-output delay", 1995, in equal pieces (from knowledge).

#include <tern/conv/long_conv.hpp>

namespace tern {
inline namespace TERN_ABI {

/// A convolution that keeps its state: see the top of conv/long_stream.hpp.
class long_conv_stream {
 public:
  template <tensor_like K>
  long_conv_stream(cpu_policy const& policy, K&& k, index block, index batch = 1)
      : long_conv_stream(policy, detail::samples_of(tern::view(k)), block, batch) {}

  long_conv_stream(long_conv_stream&& other) noexcept = default;
  long_conv_stream& operator=(long_conv_stream&& other) noexcept = default;
  ~long_conv_stream() {}

  /// The next block of each signal.
  template <tensor_like U, tensor_like Y>
  void step(cpu_policy const& policy, U const& u, Y&& y) {
    advance(policy, detail::samples_of(tern::view(u)), detail::results_of(tern::view(y)));
  }
  /// For tern::workspace_size(stream, policy, u, y): bytes of scratch of a step.
  template <tensor_like U, tensor_like Y>
  std::size_t workspace_size(cpu_policy const& policy, U const&, Y const&) const {
    return step_bytes(policy);
  }
  /// Forgets all samples.
  inline void reset() noexcept {
    at_ = 0;
    for (index i = 0; i < history_.size(); ++i) history_.data()[i] = 0.f;
    for (index i = 0; i < inputs_.size(); ++i) inputs_.data()[i] = 0.f;
  }
  TERN_INLINE index block() const { return block_; }
  /// Relative to the norms of the samples and taps that meet.
  TERN_INLINE double error() const { return long_conv.error(taps_ + block_) + 0x1p-24 * static_cast<double>(pieces_); }

 private:
  inline long_conv_stream(cpu_policy const& policy, detail::sample_view const& k, index block, index batch)
      : batch_(batch), channels_(k.extent[1]), taps_(k.extent[2]), block_(block) {
    char const* const op = "long_conv_stream";
    detail::expect(k.extent[0] == 1, op, "k's batch", k.extent[0], "1: one filter a channel");
    detail::expect(taps_ > 0, op, "k's number of taps", taps_, "at least 1");
    detail::expect(block > 0, op, "block", block, "at least 1");
    detail::expect(batch > 0, op, "batch", batch, "at least 1");
    pieces_ = detail::divide_up(taps_, block);
    plan_ = detail::shortest_tower(block);
    tables_ = detail::owned_floats(plan_.table_floats);
    detail::fill_tower(plan_, tables_.data());
    filters_ = detail::owned_floats(channels_ * pieces_ * plan_.floats());
    inputs_ = detail::owned_floats(batch * channels_ * pieces_ * plan_.floats());
    history_ = detail::owned_floats(batch * channels_ * 2 * block);
    reset();
    index const each = detail::tower_buffer + plan_.floats();
    index const slots = detail::slots_for(policy, channels_);
    workspace::lease const lease(policy.scratch(), static_cast<std::size_t>(slots * each) * sizeof(float));
    float* const memory = reinterpret_cast<float*>(lease.data());
    detail::parallel_for(policy, channels_, [&](index c, index slot) TERN_LAMBDA {
      float* const scratch = memory + slot * each;
      for (index p = 0; p < pieces_; ++p) {
        detail::block_source piece{k.row(0, c), {}, p * block_, false};
        if (piece.u.n > (p + 1) * block_) piece.u.n = (p + 1) * block_;
        detail::split_block(plan_, detail::tower_op::split, piece, 1.f / static_cast<float>(plan_.points()), scratch + detail::tower_buffer,
                            filters_.data() + (c * pieces_ + p) * plan_.floats(), scratch);
      }
    });
  }

  /// sum over p of the filter's piece p times the input p blocks ago.
  inline void sum_pieces(float const* filters, float const* inputs, float* sum) const noexcept {
    using namespace detail;
    index const size = plan_.floats();
    for (index i = 0; i < size; i += complex_pack) {
      cpack s{simd::pack<float>(0.f), simd::pack<float>(0.f)};
      for (index p = 0, from = at_; p < pieces_; ++p, from = from > 0 ? from - 1 : pieces_ - 1) {
        cpack const h = load_complex(filters + p * size + i), x = load_complex(inputs + from * size + i);
        s = {simd::fnma(x.im, h.im, simd::fma(x.re, h.re, s.re)), simd::fma(x.im, h.re, simd::fma(x.re, h.im, s.im))};
      }
      store_complex(sum + i, s);
    }
  }

  TERN_INLINE index step_floats() const { return detail::tower_buffer + 2 * plan_.floats(); }
  TERN_INLINE std::size_t step_bytes(cpu_policy const& policy) const {
    return static_cast<std::size_t>(detail::slots_for(policy, batch_ * channels_) * step_floats()) * sizeof(float);
  }

  inline void advance(cpu_policy const& policy, detail::sample_view const& u, detail::result_view const& y) {
    using namespace detail;
    char const* const op = "long_conv_stream::step";
    expect_equal(op, "u's batch", u.extent[0], "batch", batch_);
    expect_equal(op, "u's channels", u.extent[1], "channels", channels_);
    expect_equal(op, "u's length", u.extent[2], "block", block_);
    expect_samples(op, "y", y.place, "u", u);
    expect_same_or_own_memory(op, "y", place_of(y.place), "u", place_of(u));
    index const rows = batch_ * channels_, size = plan_.floats(), each = step_floats();
    workspace::lease const lease(policy.scratch(), step_bytes(policy));
    float* const memory = reinterpret_cast<float*>(lease.data());
    parallel_for(policy, rows, [&](index i, index slot) TERN_LAMBDA {
      float* const buffer = memory + slot * each;
      float* const z = buffer + tower_buffer;
      float* const sum = z + size;
      float* const past = history_.data() + i * 2 * block_;  // the block before, and this one
      sample_row const row = u.row(i / channels_, i % channels_);
      for (index j = 0; j < block_; ++j) {
        past[j] = past[block_ + j];
        past[block_ + j] = row[j];
      }
      float* const inputs = inputs_.data() + i * pieces_ * size;
      block_source const both{row_of_floats(past, 2 * block_), {}, 0, false};
      split_block(plan_, tower_op::split, both, 1.f, z, inputs + at_ * size, buffer);
      sum_pieces(filters_.data() + i % channels_ * pieces_ * size, inputs, sum);
      block_sink const to{&y, const_cast<void*>(y.place.row(i / channels_, i % channels_).data), -block_, 0, block_, {}, {}};
      run_tower({plan_, z, sum, tower_op::join}, {}, to.sink(), buffer);
    });
    at_ = at_ + 1 < pieces_ ? at_ + 1 : 0;
  }

  index batch_, channels_, taps_, block_, pieces_ = 0, at_ = 0;
  detail::tower_plan plan_;
  detail::owned_floats tables_, filters_, inputs_, history_;
};

}  // namespace TERN_ABI
}  // namespace tern

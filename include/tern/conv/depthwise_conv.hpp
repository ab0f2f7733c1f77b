// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/depthwise_conv.hpp
/// Depthwise convolution in one, two or three dimensions of space: each channel with a kernel of its own.
///
///     y[b, o, c] = bias[c] + sum over t of w[t, c] x[b, o stride - before + t dilation, c]        o, t: positions in space
///
///     x (batch, [depth, [height,]] width, channels)           f32, f16 or bf16, any strides
///     w ([depth, [height,]] width, channels)                  or (batch, ...): a kernel for each sample
///     y (batch, [depth, [height,]] width, channels)           may not overlap x or w
///
///     depthwise_conv(policy, x, w, y, same_padding{})                                  7 x 7 of ConvNeXt
///     depthwise_conv(policy, x, w, y, padding{1}, stride{2}, bias{b}, act::silu{})     conv/conv_options.hpp: stride, dilation, padding
///     depthwise_conv(policy, x, w, y, channels_first{}, same_padding{}, act::gelu{}, residual{x})
///
/// Options come in any order. A bias (channels) is added first; then functions (act::*, each, or one of simd::pack<float>) and residuals
/// (y's shape, f32; may be y) follow in the order in which they are given. With channels_first x is (batch, channels, ...), w (channels,
/// ...), and so are y and residuals. Which axis holds channels is said and not guessed from strides: both are right for a batch of one
/// image whose channels are as many as its columns. They come last by default, as nothing has to be turned then.
///
/// x always has a batch, which may be 1: a w of as many dimensions as x has a kernel for each sample.
///
/// Errors   extents that do not fit; strides and dilations below 1, paddings below 0; options for another number of dimensions; y that
///          overlaps x, w or the bias, or a residual that is not y.
/// Large    kernels on large images, such as 31 x 31 on 56 x 56, stride and dilation 1, are multiplied by transforms where they are faster
///          (conv/depthwise_transform.hpp, transform_wins: by extents alone). Then errors are relative to norms, as below, and one infinity
///          or NaN may spread over the outputs of its image and channel. `direct_sums{}` keeps to sums over taps.
/// Special  taps on the zeros around the input are left out or are 0 w: weights have to be finite.
/// Memory   scratch from the policy: up to 0.9 MiB a thread, more for large kernels, and in proportion to strides and dilations; for up to
///          7 x 7 channels first (see Cost) none, or a thread the outputs of a channel where functions or residuals follow. For transforms
///          about 11 bytes a thread for each lane and position of an image with zeros around it: with 16 lanes and 31 x 31 taps 0.9 MiB for
///          56 x 56, and 10.3 MiB for 224 x 224, beyond which images are not transformed.
/// Bits     do not depend on the number of threads, nor on what else is in the batch.
/// Cost     one multiply-add for each tap and output, where no transform is faster, and a pass over x and y: channels first, or strides
///          that are not 1, are turned on the way. Fewer channels than lanes leave lanes idle. Not so f32 images whose columns are
///          neighbors with strides and dilations of 1: with 3 x 3 taps and paddings of up to 1, and where loads can be masked with 5 or 7
///          rows of up to 7 taps and few columns too many for registers, their lanes are columns (conv/depthwise_planes.hpp).
/// Error    |y - exact| <= accuracy(taps) 2^-24 (|bias| + sum of |w x|), functions and residuals apart: additions in a row, half the
///          square root of their number and more, as their roundings do not conspire; where they all do, taps + 1 bounds it. With
///          transforms it is at most transform_error(x, w, y, options...) |x|_2 |w|_2, |.|_2 the root of the sum of squares of a channel,
///          and 2^-24 |bias|.

#include <tern/conv/conv_options.hpp>
#include <tern/conv/depthwise_engine.hpp>
#include <tern/conv/depthwise_planes.hpp>
#include <tern/conv/depthwise_transform.hpp>
#include <tern/conv/own_memory.hpp>
#include <tern/conv/register_function.hpp>
#include <tern/core/given_once.hpp>
#include <tern/core/tensor_view.hpp>
#include <tern/matmul/bias.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// A view with N dimensions of space as the engine takes it.
template <int N, class Pointer, class View>
TERN_INLINE conv_tensor<Pointer> conv_tensor_of(View const& v, bool channels_first) {
  constexpr int lead = View::rank - N - 1;  // 1 with a batch
  conv_tensor<Pointer> t;
  t.data = v.data();
  t.element = sizeof(typename View::value_type);
  t.batch = lead > 0 ? v.stride(0) : 0;
  t.channel = v.stride(channels_first ? lead : View::rank - 1);
  for (int d = 0; d < N; ++d) t.at[3 - N + d] = v.stride(lead + d + (channels_first ? 1 : 0));
  return t;
}

/// The bias of a system, which may have none.
struct bias_if_any {
  tensor_view<float const, 1> values;
};

/// What the options of a call say. It refers to them.
template <int N>
struct depthwise_request {
  tern::stride stride{1};
  tern::dilation dilation{1};
  tern::padding padding{0};
  bool same = false, first = false, has_bias = false, sums = false;
  tensor_view<float const, 1> bias;
  struct step {
    void const* function;
    void (*apply)(void const*, float*, index);
    tensor_view<float const, N + 2> added;
  };
  step steps[depthwise_problem::most_steps];
  int step_count = 0;

  TERN_INLINE void set(tern::stride const& s) { stride = s; }
  TERN_INLINE void set(tern::dilation const& d) { dilation = d; }
  TERN_INLINE void set(tern::padding const& p) { padding = p; }
  TERN_INLINE void set(same_padding) { same = true; }
  TERN_INLINE void set(channels_first) { first = true; }
  TERN_INLINE void set(direct_sums) { sums = true; }
  TERN_INLINE void set(tern::bias const& b) {
    bias = b.values;
    has_bias = true;
  }
  TERN_INLINE void set(bias_if_any const& b) {
    bias = b.values;
    has_bias = b.values.data() != nullptr;
  }
  TERN_INLINE void set(residual<N + 2> const& r) { add({nullptr, nullptr, r.values}); }
  template <class F>
  TERN_INLINE void set(each<F> const& e) {
    add({&e.f, &apply_to_registers<F>, {}});
  }
  template <register_function F>
  TERN_INLINE void set(F const& f) {
    add({&f, &apply_to_registers<F>, {}});
  }
  TERN_INLINE void add(step const& s) {
    expect(step_count < depthwise_problem::most_steps, "depthwise_conv", "the number of functions and residuals", step_count + 1,
           "at most 4");
    steps[step_count++] = s;
  }
};
template <class O, int N>
concept depthwise_option = requires(depthwise_request<N>& r, O const& o) { r.set(o); };

[[noreturn]] TERN_COLD inline void fail_count(char const* option, index was, index dimensions) {
  message m;
  m << "depthwise_conv: " << option << " has " << was << " numbers, expected 1";
  if (dimensions > 1) m << " or " << dimensions;
  m.fail();
}
/// Fails where an option is not for so many dimensions, or not in its range.
TERN_COLD inline void check_window(tern::stride const& s, tern::dilation const& d, tern::padding const& p, int dimensions) {
  if (s.count != 1 && s.count != dimensions) fail_count("stride", s.count, dimensions);
  if (d.count != 1 && d.count != dimensions) fail_count("dilation", d.count, dimensions);
  if (p.count != 1 && p.count != dimensions) fail_count("padding", p.count, dimensions);
  for (int i = 0; i < dimensions; ++i) {
    expect(s[i] >= 1, "depthwise_conv", "stride", s[i], "at least 1");
    expect(d[i] >= 1, "depthwise_conv", "dilation", d[i], "at least 1");
    expect(p[i].before >= 0, "depthwise_conv", "padding", p[i].before, "at least 0");
    expect(p[i].after >= 0, "depthwise_conv", "padding", p[i].after, "at least 0");
  }
}
[[noreturn]] TERN_COLD inline void fail_outputs(int dimension, index was, index wanted) {
  (message() << "depthwise_conv: y.extent(" << dimension << ") is " << was << ", expected " << wanted
             << " outputs for this input, kernel, stride, dilation and padding")
      .fail();
}

}  // namespace TERN_ABI
}  // namespace tern::detail

namespace tern {
inline namespace TERN_ABI {

/// `tern::depthwise_conv(policy, x, w, y, options...)`: see the top of conv/depthwise_conv.hpp.
inline constexpr struct depthwise_conv_fn : takes_policy {
  using takes_policy::operator();

  /// |y - exact| <= this * 2^-24 * (|bias| + sum over taps of |w x|).
  static constexpr double accuracy(index taps) { return 4. + static_cast<double>(taps) / 16.; }

  template <tensor_like X, tensor_like W, tensor_like Y, class... Options>
  void operator()(cpu_policy const& policy, X&& x, W&& w, Y&& y, Options const&... options) const {
    detail::depthwise_problem const p = problem(tern::view(x), tern::view(w), tern::view(y), options...);
    if (detail::has_planes(p)) return detail::run_planes(policy, p);
    detail::has_transform(p) ? detail::run_transform(policy, p) : detail::run_depthwise(policy, p);
  }
  template <tensor_like X, tensor_like W, tensor_like Y, class... Options>
  std::size_t workspace_size(cpu_policy const& policy, X&& x, W&& w, Y&& y, Options const&... options) const {
    detail::depthwise_problem const p = problem(tern::view(x), tern::view(w), tern::view(y), options...);
    if (detail::has_planes(p)) return detail::planes_bytes(policy, p);
    return detail::has_transform(p) ? detail::transform_bytes(policy, p) : detail::depthwise_bytes(policy, p);
  }
  /// Where the same call takes a transform: |y - exact| <= this * |x|_2 |w|_2, norms of a channel of a sample. 0: it does not.
  template <tensor_like X, tensor_like W, tensor_like Y, class... Options>
  double transform_error(X&& x, W&& w, Y&& y, Options const&... options) const {
    detail::depthwise_problem const p = problem(tern::view(x), tern::view(w), tern::view(y), options...);
    return detail::has_planes(p) || !detail::has_transform(p) ? 0 : detail::depthwise_sequences(p).error();
  }

 private:
  template <class X, class W, class Y, class... Options>
  static detail::depthwise_problem problem(X const& x, W const& w, Y const& y, Options const&... options) {
    constexpr int n = X::rank - 2;
    static_assert(n >= 1 && n <= 3,
                  "tern: depthwise_conv takes x (batch, one to three dimensions, channels), with channels_first{} (batch, channels, ...)");
    static_assert(Y::rank == n + 2, "tern: depthwise_conv takes y with as many dimensions as x");
    static_assert(W::rank == n + 1 || W::rank == n + 2, "tern: depthwise_conv takes w with one dimension less than x, or as many");
    static_assert(float_storage<typename X::value_type> && float_storage<typename W::value_type> && float_storage<typename Y::value_type>,
                  "tern: elements are float, tern::f16 or tern::bf16");
    static_assert(!std::is_const_v<typename Y::element_type>, "tern: depthwise_conv writes y, which is not const");
    static_assert(
        (detail::depthwise_option<Options, n> && ...),
        "tern: an option of depthwise_conv is stride, dilation, padding, same_padding, channels_first, direct_sums, bias, a function "
        "of registers (act::*, each), or a residual with as many dimensions as y");
    static_assert(!((std::is_same_v<Options, same_padding> || ...) && (std::is_same_v<Options, padding> || ...)),
                  "tern: depthwise_conv takes padding or same_padding, not both");
    static_assert(detail::settings<tern::stride, tern::dilation, padding, bias>::given_once<Options...>,
                  "tern: the same option of depthwise_conv is given twice");
    detail::depthwise_request<n> r;
    if constexpr ((detail::depthwise_option<Options, n> && ...)) (r.set(options), ...);
    detail::check_window(r.stride, r.dilation, r.padding, n);
    detail::depthwise_problem p;
    p.sums = r.sums;
    set_extents(p, r, x, w, y);
    set_tensors(p, r, x, w, y);
    set_finish(p, r, y);
    return p;
  }

  template <int N, class X, class W, class Y>
  static void set_extents(detail::depthwise_problem& p, detail::depthwise_request<N> const& r, X const& x, W const& w, Y const& y) {
    constexpr char const* op = "depthwise_conv";
    constexpr int lead = W::rank - N - 1;
    int const channel = r.first ? 1 : N + 1, w_channel = r.first ? lead : W::rank - 1;
    detail::expect_extent(op, "w", w, w_channel, "x", x, channel);
    detail::expect_extent(op, "y", y, channel, "x", x, channel);
    detail::expect_extent(op, "y", y, 0, "x", x, 0);
    if constexpr (lead > 0) detail::expect_extent(op, "w", w, 0, "x", x, 0);
    p.batch = x.extent(0);
    p.channels = x.extent(channel);
    for (int d = 0; d < N; ++d) {
      detail::conv_axis& a = p.axis[3 - N + d];
      int const at = d + (r.first ? 2 : 1);
      a.in = x.extent(at);
      a.kernel = w.extent(d + lead + (r.first ? 1 : 0));
      a.stride = r.stride[d];
      a.dilation = r.dilation[d];
      detail::expect(a.kernel >= 1, op, "an extent of w", a.kernel, "at least 1");
      index const window = (a.kernel - 1) * a.dilation + 1;
      index outputs = detail::divide_up(a.in, a.stride);
      if (r.same) {
        index const missing = (outputs - 1) * a.stride + window - a.in;
        a.before = missing > 0 ? missing / 2 : 0;
      } else {
        a.before = r.padding[d].before;
        index const room = a.in + a.before + r.padding[d].after - window;
        outputs = room >= 0 ? room / a.stride + 1 : 0;
      }
      if (y.extent(at) != outputs) detail::fail_outputs(at, y.extent(at), outputs);
      a.out = outputs;
    }
  }

  template <int N, class X, class W, class Y>
  static void set_tensors(detail::depthwise_problem& p, detail::depthwise_request<N> const& r, X const& x, W const& w, Y const& y) {
    detail::expect_own_memory("depthwise_conv", "y", y, "x", x);
    detail::expect_own_memory("depthwise_conv", "y", y, "w", w);
    p.x = detail::conv_tensor_of<N, void const*>(x, r.first);
    p.w = detail::conv_tensor_of<N, void const*>(w, r.first);
    p.y = detail::conv_tensor_of<N, void*>(y, r.first);
    p.load_x = &detail::load_row<typename X::value_type>;
    p.load_members = &detail::load_members<typename X::value_type>;
    p.load_w = &detail::load_row<typename W::value_type>;
    p.store_y = &detail::store_row<typename Y::value_type>;
    p.plain_x = std::is_same_v<typename X::value_type, float> && p.x.channel == 1;
    p.plain_w = std::is_same_v<typename W::value_type, float> && p.w.channel == 1;
    p.lines = std::is_same_v<typename X::value_type, float> && std::is_same_v<typename W::value_type, float> &&
              std::is_same_v<typename Y::value_type, float>;
    p.plain_y = std::is_same_v<typename Y::value_type, float> && p.y.channel == 1;
  }

  template <int N, class Y>
  static void set_finish(detail::depthwise_problem& p, detail::depthwise_request<N> const& r, Y const& y) {
    if (r.has_bias) {
      detail::expect_equal("depthwise_conv", "bias.extent(0)", r.bias.extent(0), "channels", p.channels);
      detail::expect_own_memory("depthwise_conv", "y", y, "bias", r.bias);
      p.bias = r.bias.data();
      p.bias_stride = r.bias.stride(0);
    }
    for (int s = 0; s < r.step_count; ++s) {
      auto const& from = r.steps[s];
      detail::conv_step& step = p.steps[p.step_count++];
      step.object = from.function;
      step.apply = from.apply;
      if (from.apply != nullptr) continue;
      for (int d = 0; d < N + 2; ++d) detail::expect_extent("depthwise_conv", "residual", from.added, d, "y", y, d);
      detail::expect_same_or_own_memory("depthwise_conv", "y", detail::place_of(y), "residual", detail::place_of(from.added));
      step.added = detail::conv_tensor_of<N, void const*>(from.added, r.first);
      step.load = &detail::load_row<float>;
      p.adds = true;
    }
  }
} depthwise_conv{};

}  // namespace TERN_ABI
}  // namespace tern

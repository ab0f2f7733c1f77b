// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/long_implicit.hpp
/// Filters that a small network makes of positions, Hyena's, for tern::long_conv:
///
///     h_0 = features,   h_l = sin(frequency_l .* (h_(l - 1) W_l^T + b_l)),   k_cj = (out h_L^T)_cj (e^(-rate_c j) + shift)
///
///     sine_layer const layers[] = {{w1, b1, f1}, {w2, b2, f2}};
///     implicit_filter(policy, features, layers, out, k)
///     implicit_filter(policy, features, layers, out, k, decay_window{rate, shift})
///     position_features(policy, period, features)       features_j = (j / (period - 1), cos(f_i w_j), ..., -sin(f_i w_j), ...)
///
/// with w_j = 2 pi j / period and `bands` frequencies f_i from 1e-4 to bands - 1, evenly. Features may be any others: a row of coordinates
/// for each tap of an image's kernel, for one.
///
/// Shapes  features f32 (taps, e), W_l (width_l, width_(l - 1)), b_l, frequency_l (width_l), out (channels, width_L), rate (channels),
///         k f32 (channels, taps); position_features: (taps, 2 bands + 1). b_l, frequency_l and the rows of W_l contiguous, and of features
///         where there is no layer; all else of any strides. k lies apart from all that is read.
/// Errors  extents that do not fit; a number of features that is not odd, a period of less than 2.
/// Error   a layer adds that of matmul and of simd::sin to what it has been given, for |frequency (h W^T + b)| <= 8192; the window rounds
///         once. Features are computed in f64, rounded once.
/// Memory  scratch from the policy: two layers' results of 2048 taps.
/// Cost    the layers' multiply-adds for each tap, and a sine of a few operations for each of their results.
/// Source  Poli et al., "Hyena Hierarchy", 2023; github.com/HazyResearch/safari, src/models/sequence/hyena.py (HyenaFilter), where
///         rate = |delta| / (period - 1). Its filters of norm 1 are a division behind this.

#include <tern/conv/long_decay.hpp>
#include <tern/fft/tower_plan.hpp>
#include <tern/matmul/matmul.hpp>

namespace tern {
inline namespace TERN_ABI {

/// sin(frequency .* (x W^T + b)): weights (n, k), bias (n), frequency (n).
struct sine_layer {
  tensor_view<float const, 2> weights;
  tensor_view<float const, 1> bias, frequency;
};

/// Multiplies taps by e^(-rate_c j) + shift.
struct decay_window {
  tensor_view<float const, 1> rate;
  float shift = 0;
  TERN_INLINE decay_window() = default;
  template <tensor_like R>
  TERN_INLINE explicit decay_window(R const& rates, float s = 0) : rate(tern::view(rates)), shift(s) {}
};

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {

/// An epilogue: y(r, i) = sin(frequency(i) y(r, i)).
struct sine_of {
  tensor_view<float const, 1> frequency;
  TERN_INLINE void check(index, index) const {}
  void finish(float* y, index, index n0, index n1) const {
    float const* const f = frequency.data() + n0;
    each_pack(0, n1 - n0, [&](index i, auto part) TERN_LAMBDA { store(y + i, simd::sin(load(f + i, part) * load(y + i, part)), part); });
  }
};

struct implicit_network {
  tensor_view<float const, 2> features;
  tensor_view<sine_layer const, 1> layers;
  tensor_view<float const, 2> out;
  static constexpr index piece = 2048;

  /// Fails unless layers follow on each other.
  inline void check(tensor_view<float, 2> const& k) const {
    constexpr char const* op = "implicit_filter";
    index width = features.extent(1);
    if (layers.extent(0) == 0) expect_rows(op, "features", features);
    for (index l = 0; l < layers.extent(0); ++l) {
      sine_layer const& layer = layers[l];
      expect_equal(op, "a layer's weights.extent(1)", layer.weights.extent(1), "the width before it", width);
      width = layer.weights.extent(0);
      expect_equal(op, "a layer's bias.extent(0)", layer.bias.extent(0), "its weights.extent(0)", width);
      expect_equal(op, "a layer's frequency.extent(0)", layer.frequency.extent(0), "its weights.extent(0)", width);
      expect_rows(op, "a layer's weights", layer.weights);
      expect_rows(op, "a layer's bias", layer.bias);
      expect_rows(op, "a layer's frequency", layer.frequency);
    }
    expect_equal(op, "out.extent(1)", out.extent(1), "the last layer's width", width);
    expect_equal(op, "k.extent(0)", k.extent(0), "out.extent(0)", out.extent(0));
    expect_equal(op, "k.extent(1)", k.extent(1), "features.extent(0)", features.extent(0));
  }
  inline void run(cpu_policy const& policy, tensor_view<float, 2> const& k) const {
    index const rows = least(piece, k.extent(1));
    index widest = 0;
    for (index l = 0; l < layers.extent(0); ++l)
      if (index const width = layers[l].weights.extent(0); width > widest) widest = width;
    workspace::lease const lease(policy.scratch(), static_cast<std::size_t>(2 * rows * widest) * sizeof(float));
    float* const memory = reinterpret_cast<float*>(lease.data());
    for (index first = 0; first < k.extent(1); first += piece) {
      index const end = least(first + piece, k.extent(1));
      tensor_view<float const, 2> h = features.slice(0, first, end);
      for (index l = 0; l < layers.extent(0); ++l) {
        sine_layer const& layer = layers[l];
        auto const next = tern::view(memory + l % 2 * rows * widest, end - first, layer.weights.extent(0));
        matmul(policy, h, layer.weights, next, bias{layer.bias}, sine_of{layer.frequency});
        h = next;
      }
      matmul(policy, out, h, k.slice(1, first, end));
    }
  }
};

inline void apply_window(cpu_policy const& policy, decay_window const& window, tensor_view<float, 2> const& k) {
  double const shift = static_cast<double>(window.shift);
  parallel_for(policy, k.extent(0), [&](index c, index) TERN_LAMBDA {
    each_decay(static_cast<double>(window.rate[c]), k.extent(1),
               [&](index j, double decay) TERN_LAMBDA { k(c, j) = static_cast<float>(static_cast<double>(k(c, j)) * (decay + shift)); });
  });
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// `tern::implicit_filter(policy, features, layers, out, k, window = none)`: see the top of conv/long_implicit.hpp.
inline constexpr struct implicit_filter_fn {
  template <tensor_like F, tensor_like L, tensor_like W, tensor_like K>
  void operator()(cpu_policy const& policy, F const& features, L const& layers, W const& out, K&& k,
                  decay_window const& window = {}) const {
    tensor_view<float, 2> const to = tern::view(k);
    detail::implicit_network const network{tern::view(features), tern::view(layers), tern::view(out)};
    network.check(to);
    bool const windowed = window.rate.data() != nullptr;
    if (windowed) detail::expect_equal("implicit_filter", "rate.extent(0)", window.rate.extent(0), "k.extent(0)", to.extent(0));
    network.run(policy, to);
    if (windowed) detail::apply_window(policy, window, to);
  }
} implicit_filter{};

/// `tern::position_features(policy, period, features)`: see the top of conv/long_implicit.hpp.
inline constexpr struct position_features_fn {
  template <tensor_like F>
  void operator()(cpu_policy const& policy, index period, F&& features) const {
    tensor_view<float, 2> const to = tern::view(features);
    index const bands = to.extent(1) / 2;
    detail::expect(to.extent(1) % 2 == 1, "position_features", "features.extent(1)", to.extent(1), "an odd number");
    detail::expect(period > 1, "position_features", "period", period, "at least 2");
    double const n = static_cast<double>(period),
                 step = bands > 1 ? (static_cast<double>(bands - 1) - 1e-4) / static_cast<double>(bands - 1) : 0;
    constexpr index piece = 256;
    detail::parallel_for(policy, detail::divide_up(to.extent(0), piece), [&](index part, index) TERN_LAMBDA {
      for (index j = part * piece; j < detail::least(to.extent(0), (part + 1) * piece); ++j) {
        to(j, 0) = static_cast<float>(static_cast<double>(j) / (n - 1));
        for (index i = 0; i < bands; ++i) {
          detail::unit const z = detail::turn((1e-4 + static_cast<double>(i) * step) * static_cast<double>(j) / n);
          to(j, 1 + i) = static_cast<float>(z.re);
          to(j, 1 + bands + i) = static_cast<float>(-z.im);
        }
      }
    });
  }
} position_features{};

}  // namespace TERN_ABI
}  // namespace tern

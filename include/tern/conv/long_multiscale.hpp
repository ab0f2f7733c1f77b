// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/long_multiscale.hpp
/// SGConv's structured global filter, for tern::long_conv: a few short pieces, each stretched twice as far as the one before and scaled
/// down, one behind the other:
///
///     k_c = 1/Z_c concat over i < S of decay_c^i upsample(p_ci, d 2^max(i - 1, 0))
///
///     multiscale_filter(policy, pieces, decay, k)             decay: a number, or one for each channel
///     multiscale_filter(policy, pieces, decay, k, false)      not normalized
///
/// so that S pieces of d numbers make d 2^(S - 1) taps. upsample: linear between the middles of its numbers, constant beyond the first and
/// the last, as neural networks interpolate; Z: the root of the sum of squares where `normalize` is set, otherwise 1.
///
/// Shapes  pieces f32 (channels, S, d), decay f32 (channels) where it is not one number, k f32 (channels, d 2^(S - 1)) of any strides.
/// Errors  extents that do not fit, a number of pieces that is not 1 to 47.
/// Error   |k - k*| <= multiscale_filter.error times the largest |k*| of the channel: computed in f64, rounded once.
/// Cost    a few operations a tap, twice where `normalize` is set.
/// Source  Li et al., "What Makes Convolutional Models Great on Long Sequence Modeling?", 2022; github.com/ctlllll/SGConv, gconv.py. There
///         pieces are scaled up from the last one: its `multiplier`, of each channel, is 1 / decay here, which is the same once k is
///         divided by its norm. That code divides by the norm that the filter had when training began: for such weights set `normalize`
///         to false and divide the pieces by it, and multiply them by multiplier^(S - 1).

#include <tern/core/parallel_for.hpp>
#include <tern/core/tensor_view.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// Calls f(j, tap j) for the taps of a channel's pieces (S, d).
template <class F>
TERN_INLINE void each_multiscale_tap(tensor_view<float const, 2> const& pieces, double decay, F&& f) {
  index const d = pieces.extent(1);
  index first = 0, stretch = 1;
  double factor = 1;
  for (index scale = 0; scale < pieces.extent(0); ++scale, factor *= decay) {
    if (scale > 1) stretch *= 2;
    double const shrink = 1 / static_cast<double>(stretch);
    for (index j = 0; j < d * stretch; ++j) {
      double const at = (static_cast<double>(j) + 0.5) * shrink - 0.5;
      index const low = at < 0 ? 0 : static_cast<index>(at), high = low + 1 < d ? low + 1 : d - 1;
      double const a = static_cast<double>(pieces(scale, low)), b = static_cast<double>(pieces(scale, high));
      f(first + j, factor * (at < 0 ? a : a + (at - static_cast<double>(low)) * (b - a)));
    }
    first += d * stretch;
  }
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// `tern::multiscale_filter(policy, pieces, decay, k, normalize = true)`: see the top of conv/long_multiscale.hpp.
inline constexpr struct multiscale_filter_fn {
  template <tensor_like P, tensor_like D, tensor_like K>
  void operator()(cpu_policy const& policy, P const& pieces, D const& decay, K&& k, bool normalize = true) const {
    run(policy, tern::view(pieces), tern::view(decay), tern::view(k), normalize);
  }
  template <tensor_like P, tensor_like K>
  void operator()(cpu_policy const& policy, P const& pieces, float decay, K&& k, bool normalize = true) const {
    tensor_view<float const, 3> const from = tern::view(pieces);
    run(policy, from, {&decay, shape<1>{{from.extent(0)}}, shape<1>{{0}}}, tern::view(k), normalize);
  }
  /// Relative to the largest tap: its rounding, and what f64 leaves.
  static constexpr double error = 0x1.01p-24;

 private:
  inline static void run(cpu_policy const& policy, tensor_view<float const, 3> const& from, tensor_view<float const, 1> const& decays,
                         tensor_view<float, 2> const& to, bool normalize) {
    index const scales = from.extent(1);
    detail::expect(scales > 0 && scales < 48, "multiscale_filter", "pieces.extent(1)", scales, "1 to 47");
    detail::expect_equal("multiscale_filter", "decay.extent(0)", decays.extent(0), "pieces.extent(0)", from.extent(0));
    detail::expect_equal("multiscale_filter", "k.extent(0)", to.extent(0), "pieces.extent(0)", from.extent(0));
    detail::expect_equal("multiscale_filter", "k.extent(1)", to.extent(1), "d 2^(S - 1)", from.extent(2) << (scales - 1));
    detail::parallel_for(policy, to.extent(0), [&](index c, index) TERN_LAMBDA {
      double const decay = static_cast<double>(decays[c]);
      double squares = 0;
      if (normalize) detail::each_multiscale_tap(from[c], decay, [&](index, double tap) TERN_LAMBDA { squares += tap * tap; });
      double const factor = squares > 0 ? 1 / __builtin_sqrt(squares) : 1;
      detail::each_multiscale_tap(from[c], decay, [&](index j, double tap) TERN_LAMBDA { to(c, j) = static_cast<float>(factor * tap); });
    });
  }
} multiscale_filter{};

}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/keep_schedule.hpp
/// How many tokens are left behind each layer.
///
///     ramp_schedule{first, last, from, to}        a share of the tokens: `from` up to layer `first`, `to` from layer `last` on, and in
///                                                 a straight line between them
///     step_schedule{every, ratio}                 ratio of what is there, at layers every, 2 every, ...
///     listed_schedule{ratios}                     a share for each layer, (layers) f32
///
///     index const left = schedule.tokens(layer, n);      of the n tokens that there were at first
///
/// tokens(layer, n) is ceil(share(layer) n), and n where the share is 1. A share that a list or a ramp gives never counts more tokens than
/// n. Errors: ratios that are not within 0 and 1; a layer that a list does not have.
/// Source  AIM (arXiv:2412.03248): a ramp from 1 to 0; DynamicViT and EVAD: a ratio at every third layer.

#include <tern/core/error.hpp>
#include <tern/core/tensor_view.hpp>

namespace tern {
namespace detail {

/// ceil(share n), where a share that was rounded up by `rounding` of itself does not count one more; n where it is 1.
TERN_INLINE index share_of(double share, index n, double rounding = 0x1p-40) {
  return share < 1 ? static_cast<index>(__builtin_ceil(share * static_cast<double>(n) * (1 - rounding))) : n;
}

}  // namespace detail

/// A share that falls in a straight line from layer to layer: see the top of this file.
struct ramp_schedule {
  index first, last;
  double from = 1, to = 0;
  TERN_INLINE double share(index layer) const {
    detail::expect_share("ramp_schedule", "a ratio in percent", from);
    detail::expect_share("ramp_schedule", "a ratio in percent", to);
    if (layer <= first) return from;
    return layer >= last ? to : from + (to - from) * static_cast<double>(layer - first) / static_cast<double>(last - first);
  }
  TERN_INLINE index tokens(index layer, index n) const { return detail::share_of(share(layer), n); }
};

/// A share of what is there, at every so many layers: see the top of this file.
struct step_schedule {
  index every;
  double ratio;
  TERN_INLINE double share(index layer) const {
    detail::expect(every >= 1, "step_schedule", "every", every, "at least 1");
    detail::expect_share("step_schedule", "a ratio in percent", ratio);
    double left = 1;
    for (index l = every; l <= layer; l += every) left *= ratio;
    return left;
  }
  TERN_INLINE index tokens(index layer, index n) const { return detail::share_of(share(layer), n); }
};

/// A share for each layer: see the top of this file.
struct listed_schedule {
  tensor_view<float const, 1> ratios;
  TERN_INLINE double share(index layer) const {
    detail::expect(layer >= 0 && layer < ratios.extent(0), "listed_schedule", "layer", layer, "a layer of the list");
    detail::expect_share("listed_schedule", "a ratio in percent", static_cast<double>(ratios[layer]));
    return static_cast<double>(ratios[layer]);
  }
  TERN_INLINE index tokens(index layer, index n) const { return detail::share_of(share(layer), n, 0x1p-24); }
};

}  // namespace tern

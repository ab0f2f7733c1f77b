// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/layer_budgets.hpp
/// How many tokens each layer keeps of a text.
///
///     uniform_budgets(512)                         the same in all layers
///     pyramid_budgets(512, layers)                 from many in the first layer to few in the last, 512 on average
///     listed_budgets(view)                         what a list says, an int32 for each layer
///
///     auto const budget = pyramid_budgets(512, layers);
///     snapkv(policy, cache, s, layer, q, budget(layer));
///
///     pyramid: budget_l = first - l (first - last) / (layers - 1), rounded to the nearest (of two the even one),
///              last = mean / beta, first = 2 mean - last; where first > most: first = most, last = 2 mean - most (at most `most`)
///
/// `most`: tokens that a layer can keep. Source: PyramidKV (Cai et al. 2024, arXiv:2406.02069) and its code, beta 20.

#include <tern/core/error.hpp>
#include <tern/core/tensor_view.hpp>

#include <cstdint>

namespace tern {

/// See the top of this file.
struct layer_budgets {
  double first = 0, last = 0;  ///< of a line
  index layers = 0;
  tensor_view<std::int32_t const, 1> list = {};  ///< what holds instead, if there is one

  TERN_INLINE index operator()(index layer) const {
    if (layer < 0 || layer >= layers) [[unlikely]]
      (detail::message() << "layer_budgets: the layer is " << layer << ", expected less than layers = " << layers).fail();
    if (list.data() != nullptr) return list[layer];
    double const step = layers > 1 ? (first - last) / static_cast<double>(layers - 1) : 0;
    return static_cast<index>(__builtin_rint(first - static_cast<double>(layer) * step));
  }
};

/// The same budget in all layers.
TERN_INLINE layer_budgets uniform_budgets(index budget, index layers = index{1} << 30) {
  detail::expect(budget >= 0, "uniform_budgets", "budget", budget, "at least 0");
  return {static_cast<double>(budget), static_cast<double>(budget), layers};
}
/// Budgets that shrink from layer to layer.
TERN_INLINE layer_budgets pyramid_budgets(double mean, index layers, double beta = 20, index most = index{1} << 30) {
  detail::expect(mean >= 0, "pyramid_budgets", "mean", static_cast<index>(mean), "at least 0");
  detail::expect(layers >= 1, "pyramid_budgets", "layers", layers, "at least 1");
  detail::expect(beta >= 1, "pyramid_budgets", "beta", static_cast<index>(beta), "at least 1");
  auto const limit = static_cast<double>(most);
  double last = mean / beta, first = 2 * mean - last;
  if (first > limit) {
    first = limit;
    last = 2 * mean - limit < limit ? 2 * mean - limit : limit;
  }
  return {first, last, layers};
}
/// Budgets of a list, which stays the caller's.
TERN_INLINE layer_budgets listed_budgets(tensor_view<std::int32_t const, 1> const& list) {
  for (index i = 0; i < list.extent(0); ++i) detail::expect(list[i] >= 0, "listed_budgets", "a budget", list[i], "at least 0");
  return {0, 0, list.extent(0), list};
}

}  // namespace tern

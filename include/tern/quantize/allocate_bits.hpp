// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file quantize/allocate_bits.hpp
/// One format for each layer, so that errors are least within a number of bytes:
///
///     minimize  sum_l costs(l, f_l)   over f_l,   where  sum_l sizes(l, f_l) <= budget
///
/// costs (layers, formats): errors, layer_error for one. sizes (layers, formats): bytes. A format that a layer must not have costs
/// infinity.
///
/// Exact: layer by layer, the choices so far that no other beats in both bytes and error, without those that even fractional steps
/// along the remaining layers' convex hulls cannot bring below the best known answer (the greedy one by error per byte to begin with).
/// A multiple-choice knapsack: where many layers' sizes are all different, more than `most_states` such choices may be left; then every
/// other one is dropped, and `exact` is false. Equal choices: the first.
///
/// Errors: shapes differ; a size is negative; a cost is NaN or negative; nothing fits the budget.
/// Cost: layers * formats * states. The problem: HAWQ-V3 (Yao et al., 2021) solves it by integer linear programming; from knowledge.

#include <tern/core/error.hpp>
#include <tern/core/tensor_view.hpp>

#include <algorithm>
#include <limits>
#include <vector>

namespace tern {
inline namespace TERN_ABI {

/// What allocate_bits finds.
struct bit_allocation {
  std::vector<index> formats;  ///< of each layer
  double cost = 0;
  index bytes = 0;
  bool exact = true;
};

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {

struct allocation_option {
  index bytes;
  double cost;
  index format;
};
/// A choice for the first layers: the last one's format, and the choice for those before it.
struct allocation_state {
  index bytes;
  double cost;
  index format, before;
};

/// Sorts by bytes and keeps what costs less than all that is as small.
template <class T>
void keep_frontier(std::vector<T>& all) {
  std::stable_sort(all.begin(), all.end(), [](T const& a, T const& b) { return a.bytes != b.bytes ? a.bytes < b.bytes : a.cost < b.cost; });
  std::size_t kept = 0;
  for (T const& t : all)
    if (kept == 0 || t.cost < all[kept - 1].cost) all[kept++] = t;
  all.resize(kept);
}

/// A step from one format of a layer to a larger one.
struct hull_step {
  index bytes;
  double saved;
};

/// What the layers from l on cost at least: the smallest formats, and steps that save cost, the best per byte first, whole or in part.
struct remaining_layers {
  index bytes = 0;  // of the smallest
  double cost = 0;  // of these
  std::vector<hull_step> steps;

  static bool steeper(hull_step const& a, hull_step const& b) {
    return a.saved * static_cast<double>(b.bytes) > b.saved * static_cast<double>(a.bytes);
  }
  /// options: a frontier.
  void add(std::vector<allocation_option> const& options) {
    bytes += options.front().bytes;
    cost += options.front().cost;
    std::size_t at = 0;
    while (at + 1 < options.size()) {
      std::size_t next = at + 1;
      auto const step = [&](std::size_t to) {
        return hull_step{options[to].bytes - options[at].bytes, options[at].cost - options[to].cost};
      };
      for (std::size_t to = next + 1; to < options.size(); ++to)
        if (steeper(step(to), step(next))) next = to;
      steps.push_back(step(next));
      at = next;
    }
    std::stable_sort(steps.begin(), steps.end(), steeper);
  }
  /// The least cost with `left` bytes: a bound, or what whole steps reach. Infinity if not even the smallest fit.
  double least(index left, bool whole) const {
    if (left < bytes) return std::numeric_limits<double>::infinity();
    double found = cost;
    left -= bytes;
    for (hull_step const& s : steps) {
      if (s.bytes <= left) {
        found -= s.saved;
        left -= s.bytes;
      } else {
        return whole ? found : found - s.saved * static_cast<double>(left) / static_cast<double>(s.bytes);
      }
    }
    return found;
  }
};

using allocation_options = std::vector<std::vector<allocation_option>>;

inline allocation_options options_of(tensor_view<double const, 2> const& costs, tensor_view<index const, 2> const& sizes) {
  allocation_options all(static_cast<std::size_t>(costs.extent(0)));
  for (index l = 0; l < costs.extent(0); ++l) {
    auto& options = all[static_cast<std::size_t>(l)];
    for (index f = 0; f < costs.extent(1); ++f) {
      expect(sizes(l, f) >= 0, "allocate_bits", "a size", sizes(l, f), "at least 0");
      expect(costs(l, f) >= 0, "allocate_bits", "a cost that is negative or NaN, of layer", l, "costs of at least 0");
      if (costs(l, f) < std::numeric_limits<double>::infinity()) options.push_back({sizes(l, f), costs(l, f), f});
    }
    expect(!options.empty(), "allocate_bits", "a layer without a format of finite cost", l, "one at least");
    keep_frontier(options);
  }
  return all;
}

/// The states after one layer more, of which `rest` may still make something better than `bound`. slack: what bounds may be off by.
inline std::vector<allocation_state> extend(std::vector<allocation_state> const& states, std::vector<allocation_option> const& options,
                                            remaining_layers const& rest, index budget, double slack, double& bound) {
  std::vector<allocation_state> next;
  for (std::size_t s = 0; s < states.size(); ++s)
    for (allocation_option const& o : options) {
      index const bytes = states[s].bytes + o.bytes;
      double const cost = states[s].cost + o.cost;
      if (cost + rest.least(budget - bytes, false) > bound + slack) continue;
      next.push_back({bytes, cost, o.format, static_cast<index>(s)});
      bound = std::min(bound, cost + rest.least(budget - bytes, true));
    }
  keep_frontier(next);
  return next;
}

/// Drops every other state but the smallest and the cheapest, down to `most`. Returns the best answer that those left can come to.
inline double thin(std::vector<allocation_state>& states, index most, remaining_layers const& rest, index budget) {
  while (static_cast<index>(states.size()) > most) {
    std::size_t kept = 0;
    for (std::size_t s = 0; s < states.size(); ++s)
      if (s % 2 == 0 || s + 1 == states.size()) states[kept++] = states[s];
    states.resize(kept);
  }
  double bound = std::numeric_limits<double>::infinity();
  for (allocation_state const& s : states) bound = std::min(bound, s.cost + rest.least(budget - s.bytes, true));
  return bound;
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// Chooses a format for each layer. costs, sizes: (layers, formats).
inline bit_allocation allocate_bits(tensor_view<double const, 2> const& costs, tensor_view<index const, 2> const& sizes, index budget,
                                    index most_states = 100000) {
  detail::expect_equal("allocate_bits", "sizes.extent(0)", sizes.extent(0), "costs.extent(0)", costs.extent(0));
  detail::expect_equal("allocate_bits", "sizes.extent(1)", sizes.extent(1), "costs.extent(1)", costs.extent(1));
  detail::expect(most_states >= 2, "allocate_bits", "most_states", most_states, "at least 2");
  auto const options = detail::options_of(costs, sizes);
  std::size_t const layers = options.size();
  std::vector<detail::remaining_layers> rest(layers + 1);
  for (std::size_t l = layers; l-- > 0;) {
    rest[l] = rest[l + 1];
    rest[l].add(options[l]);
  }
  detail::expect(rest[0].bytes <= budget, "allocate_bits", "budget", budget, "at least what the smallest formats take");

  bit_allocation best;
  // Bounds are differences of sums as large as the smallest formats' costs, and as inexact.
  double bound = rest[0].least(budget, true), slack = 1e-12 * rest[0].cost;
  std::vector<std::vector<detail::allocation_state>> states{{{0, 0, 0, 0}}};
  for (std::size_t l = 0; l < layers; ++l) {
    states.push_back(detail::extend(states[l], options[l], rest[l + 1], budget, slack, bound));
    if (static_cast<index>(states.back().size()) <= most_states) continue;
    best.exact = false;
    bound = detail::thin(states.back(), most_states, rest[l + 1], budget);
  }
  auto const* state = &states.back().back();
  best.cost = state->cost;
  best.bytes = state->bytes;
  best.formats.resize(layers);
  for (std::size_t l = layers; l > 0; --l) {
    best.formats[l - 1] = state->format;
    state = &states[l - 1][static_cast<std::size_t>(state->before)];
  }
  return best;
}

}  // namespace TERN_ABI
}  // namespace tern

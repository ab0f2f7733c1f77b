// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "sample.hpp"

namespace tern::test {

struct columns {
  std::vector<double> sum, magnitude;  // (heads, keys)
};

/// sum_i e^(s_ij - lse_i) from the formula alone; magnitudes as attention/key_weights.hpp states the error.
inline columns column_sums(sample const& s, sample::score_fn const& score, double roundings = 0) {
  using a = attention_accuracy;
  wanted const w = s.softmax(score);
  columns c{std::vector<double>(static_cast<std::size_t>(s.n.heads * s.n.keys), 0), {}};
  c.magnitude = c.sum;
  for (index h = 0; h < s.n.heads; ++h)
    for (index i = 0; i < s.n.tokens; ++i) {
      double const lse = w.lse[static_cast<std::size_t>(h * s.n.tokens + i)];
      double const units =
          s.allowed(s.growth(score, h, i, 0), roundings) + 2 * std::abs(lse) + a::b2 * std::sqrt(static_cast<double>(s.n.tokens));
      for (index j = 0; j < s.n.keys && lse != hidden; ++j) {
        double const weight = std::exp(score(h, i, j) - lse);
        c.sum[static_cast<std::size_t>(h * s.n.keys + j)] += weight;
        // lse itself, which attention wrote, is off by as much again.
        c.magnitude[static_cast<std::size_t>(h * s.n.keys + j)] += 2 * weight * units;
      }
    }
  return c;
}
}  // namespace tern::test

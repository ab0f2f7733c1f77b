// SPDX-License-Identifier: Apache-2.0
#pragma once
// Attention written down as its definition, for systems that say who sees whom and what becomes of a score.
#include "call.hpp"
#include "message.hpp"

#include <array>
#include <memory>
#include <span>

namespace tern::test {

inline constexpr double hidden = -std::numeric_limits<double>::infinity();

/// softmax over j of score(h, i, j, q.k scale), in float64; a score of -inf hides a key.
template <class Call, class Score>
oracle::attended by_definition(Call const& x, Score const& score) {
  case_of const& c = x.c;
  double const scale = 1 / std::sqrt(static_cast<double>(c.dim));
  oracle::attended e;
  for (index h = 0; h < c.heads; ++h)
    for (index i = 0; i < c.tokens; ++i) {
      index const kv = h / (c.heads / c.kv_heads);
      std::vector<double> s;
      double top = hidden, growth = 0;
      for (index j = 0; j < c.keys; ++j) {
        double dot = 0, size = 0;
        for (index d = 0; d < c.dim; ++d) {
          double const term = scale * static_cast<double>(x.q.view(h, i, d)) * static_cast<double>(x.k.view(kv, j, d));
          dot += term;
          size += std::abs(term);
        }
        s.push_back(score(h, i, j, dot));
        if (s.back() == hidden) continue;
        top = std::max(top, s.back());
        growth = std::max(growth, size + std::abs(s.back() - dot));
      }
      double sum = 0;
      for (double a : s) sum += a == hidden ? 0 : std::exp(a - top);
      e.lse.push_back(sum > 0 ? top + std::log(sum) : hidden);
      e.growth.push_back(growth);
      for (index d = 0; d < c.dim_v; ++d) {
        double value = 0, size = 0;
        for (index j = 0; j < c.keys; ++j) {
          if (s[static_cast<std::size_t>(j)] == hidden) continue;
          double const w = std::exp(s[static_cast<std::size_t>(j)] - top) / sum, v = static_cast<double>(x.v.view(kv, j, d));
          value += w * v;
          size += w * std::abs(v);
        }
        e.value.push_back(value);
        e.magnitude.push_back(size);
      }
    }
  return e;
}

/// The same where a key is seen or not: see(h, i, j).
template <class Call, class See>
oracle::attended where(Call const& x, See const& see) {
  return by_definition(x, [&](index h, index i, index j, double s) { return see(h, i, j) ? s : hidden; });
}

inline std::vector<std::int32_t> running_sums(std::vector<index> const& lengths) {
  std::vector<std::int32_t> sums{0};
  for (index n : lengths) sums.push_back(sums.back() + static_cast<std::int32_t>(n));
  return sums;
}

}  // namespace tern::test

// SPDX-License-Identifier: Apache-2.0
#pragma once
// A paper's formula in float64, pair by pair: what the tests of systems over images, volumes and points compare with.
#include "call.hpp"

namespace tern::test {

struct formula {
  std::function<bool(index h, index i, index j)> sees = nullptr;    // all
  std::function<double(index h, index i, index j)> bias = nullptr;  // what is added to scale q.k
  double scale = 0;                                                 // 1 / sqrt(dim)
  std::function<double(index h, index i, index j)> size = nullptr;  // of the bias, where it is a sum or a product; else |bias|
};

/// softmax_j(scale q.k + bias) v over the keys that are seen. q, k, v as a call has them, or others of its shape.
inline oracle::attended attend(case_of const& c, std::vector<double> const& q, std::vector<double> const& k, std::vector<double> const& v,
                               formula const& f) {
  double const scale = f.scale != 0 ? f.scale : 1 / std::sqrt(static_cast<double>(c.dim));
  auto at = [](std::vector<double> const& x, index row, index n, index d) { return x[static_cast<std::size_t>(row * n + d)]; };
  oracle::attended e;
  for (index h = 0; h < c.heads; ++h)
    for (index i = 0; i < c.tokens; ++i) {
      index const kv = h / (c.heads / c.kv_heads);
      std::vector<double> score(static_cast<std::size_t>(c.keys), -std::numeric_limits<double>::infinity());
      double growth = 0, top = -std::numeric_limits<double>::infinity(), sum = 0;
      for (index j = 0; j < c.keys; ++j) {
        if (f.sees && !f.sees(h, i, j)) continue;
        double s = 0, size = 0;
        for (index d = 0; d < c.dim; ++d) {
          double const product = scale * at(q, h * c.tokens + i, c.dim, d) * at(k, kv * c.keys + j, c.dim, d);
          s += product;
          size += std::abs(product);
        }
        double const bias = f.bias ? f.bias(h, i, j) : 0;
        score[static_cast<std::size_t>(j)] = s + bias;
        growth = std::max(growth, size + (f.size ? f.size(h, i, j) : std::abs(bias)));
        top = std::max(top, s + bias);
      }
      for (double s : score) sum += std::isfinite(s) ? std::exp(s - top) : 0;
      e.lse.push_back(sum > 0 ? top + std::log(sum) : -std::numeric_limits<double>::infinity());
      e.growth.push_back(growth);
      for (index d = 0; d < c.dim_v; ++d) {
        double value = 0, magnitude = 0;
        for (index j = 0; j < c.keys; ++j) {
          double const s = score[static_cast<std::size_t>(j)];
          if (!std::isfinite(s)) continue;
          double const weighed = std::exp(s - top) / sum * at(v, kv * c.keys + j, c.dim_v, d);
          value += weighed;
          magnitude += std::abs(weighed);
        }
        e.value.push_back(value);
        e.magnitude.push_back(magnitude);
      }
    }
  return e;
}
inline oracle::attended attend(call<float> const& c, formula const& f) { return attend(c.c, c.q.values(), c.k.values(), c.v.values(), f); }

inline std::size_t at(index i) { return static_cast<std::size_t>(i); }

}  // namespace tern::test

// SPDX-License-Identifier: Apache-2.0
#include "oracle/attention.hpp"

#include <Eigen/Core>
#include <cmath>
#include <limits>

namespace tern::oracle {
namespace {

using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using map = Eigen::Map<matrix const>;

/// One row: its scores, those that the mask shows, and the largest |q| . |k| among these.
struct row_scores {
  std::vector<double> score;
  std::vector<std::ptrdiff_t> key;
  double growth = 0;
};

row_scores scores_of(map const& q, map const& k, std::ptrdiff_t i, attention_spec const& s) {
  row_scores r;
  for (std::ptrdiff_t j = 0; j < s.keys; ++j) {
    if (s.visible && !s.visible(i, j)) continue;
    double x = s.scale * q.row(i).dot(k.row(j));
    if (s.softcap > 0) x = s.softcap * std::tanh(x / s.softcap);
    r.score.push_back(x);
    r.key.push_back(j);
    r.growth = std::max(r.growth, std::abs(s.scale) * q.row(i).cwiseAbs().dot(k.row(j).cwiseAbs()));
  }
  r.growth += s.softcap;
  return r;
}

}  // namespace

attended attention(std::vector<double> const& q, std::vector<double> const& k, std::vector<double> const& v, attention_spec const& s) {
  attended all;
  for (std::ptrdiff_t h = 0; h < s.heads; ++h) {
    std::ptrdiff_t const g = h / (s.heads / s.kv_heads);
    map const queries(q.data() + h * s.tokens * s.dim, s.tokens, s.dim), keys(k.data() + g * s.keys * s.dim, s.keys, s.dim);
    map const values(v.data() + g * s.keys * s.dim_v, s.keys, s.dim_v);
    for (std::ptrdiff_t i = 0; i < s.tokens; ++i) {
      row_scores const r = scores_of(queries, keys, i, s);
      double top = -std::numeric_limits<double>::infinity(), sum = 0;
      for (double x : r.score) top = x > top || std::isnan(x) ? x : top;
      matrix value = matrix::Zero(1, s.dim_v), magnitude = value;
      for (std::size_t n = 0; n < r.key.size(); ++n) {
        double const w = std::exp(r.score[n] - top);
        sum += w;
        value += w * values.row(r.key[n]);
        magnitude += w * values.row(r.key[n]).cwiseAbs();
      }
      if (!r.key.empty()) value /= sum, magnitude /= sum;
      all.value.insert(all.value.end(), value.data(), value.data() + s.dim_v);
      all.magnitude.insert(all.magnitude.end(), magnitude.data(), magnitude.data() + s.dim_v);
      all.lse.push_back(r.key.empty() ? -std::numeric_limits<double>::infinity() : top + std::log(sum));
      all.growth.push_back(r.growth);
    }
  }
  return all;
}

}  // namespace tern::oracle

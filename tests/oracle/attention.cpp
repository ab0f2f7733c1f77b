// SPDX-License-Identifier: Apache-2.0
#include "oracle/attention.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace tern::oracle {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// One row of scores: those that are seen, and their keys.
struct row_scores {
  std::vector<double> score;
  std::vector<index_t> key;
  double growth = 0;
};

/// All rows of k after their transform.
std::vector<double> turned_keys(std::vector<double> k, attention_spec const& s) {
  if (s.turn_key)
    for (index_t row = 0; row < s.batch * s.kv_heads * s.keys; ++row)
      s.turn_key(k.data() + row * s.dim, row / (s.kv_heads * s.keys), row / s.keys % s.kv_heads, row % s.keys);
  return k;
}

row_scores scores_of(std::vector<double> const& q, double const* keys, index_t b, index_t h, index_t i, attention_spec const& s) {
  row_scores r;
  double largest = 0;
  for (index_t j = 0; j < s.keys; ++j) {
    if (s.visible && !s.visible(i, j)) continue;
    if (s.sees && !s.sees(b, h, i, j)) continue;
    double dot = 0, growth = 0;
    for (index_t d = 0; d < s.dim; ++d) {
      double const term = q[static_cast<std::size_t>(d)] * keys[j * s.dim + d];
      dot += term;
      growth += std::abs(term);
    }
    double x = s.scale * dot;
    if (s.softcap > 0) x = s.softcap * std::tanh(x / s.softcap);
    if (s.modify) {
      x = s.modify(x, b, h, i, j, s.distance ? s.distance(b, h, i, j) : 0);
      largest = std::max(largest, std::abs(x));
    }
    r.score.push_back(x);
    r.key.push_back(j);
    r.growth = std::max(r.growth, std::abs(s.scale) * growth);
  }
  r.growth += s.softcap + largest;
  return r;
}

/// The weights of one row, how steeply they depend on the scores, and what comes of the scores besides.
struct row_weights {
  std::vector<double> weight, steepness;
  double top = -infinity, lse = -infinity, sum = 0, magnitude = 0, lead = infinity;
};

row_weights weights_of(row_scores const& r, index_t h, attention_spec const& s) {
  row_weights w;
  index_t first = -1;
  for (std::size_t n = 0; n < r.score.size(); ++n)
    if (r.score[n] > w.top || std::isnan(r.score[n])) w.top = r.score[n], first = static_cast<index_t>(n);
  for (std::size_t n = 0; n < r.score.size(); ++n)
    if (static_cast<index_t>(n) != first) w.lead = std::min(w.lead, w.top - r.score[n]);
  double const sink = s.sinks.empty() ? -infinity : s.sinks[static_cast<std::size_t>(h)];
  w.top = std::max(w.top, sink);
  double total = std::exp(sink - (w.top == -infinity ? 0 : w.top));
  for (double x : r.score) total += std::exp(x - (w.top == -infinity ? 0 : w.top));
  if (total != 0) w.lse = w.top + std::log(total);
  for (std::size_t n = 0; n < r.score.size(); ++n) {
    double const x = r.score[n];
    if (s.weight) {
      w.weight.push_back(s.weight(x));
      w.steepness.push_back(s.steepness(x));
    } else {
      w.weight.push_back(s.hard ? static_cast<index_t>(n) == first : total == 0 ? 0 : std::exp(x - w.top) / total);
      w.steepness.push_back(0);
    }
    w.sum += w.weight.back();
    w.magnitude += std::abs(w.weight.back()) + w.steepness.back();
  }
  return w;
}

void put_values(attended& all, row_scores const& r, row_weights const& w, double const* values, attention_spec const& s) {
  std::vector<double> value(static_cast<std::size_t>(s.dim_v)), magnitude = value;
  for (std::size_t n = 0; n < r.key.size(); ++n)
    for (index_t d = 0; d < s.dim_v; ++d) {
      double const x = values[r.key[n] * s.dim_v + d];
      value[static_cast<std::size_t>(d)] += w.weight[n] * x;
      magnitude[static_cast<std::size_t>(d)] += (std::abs(w.weight[n]) + w.steepness[n]) * std::abs(x);
    }
  all.value.insert(all.value.end(), value.begin(), value.end());
  all.magnitude.insert(all.magnitude.end(), magnitude.begin(), magnitude.end());
}

void put_scores(attended& all, row_scores const& r, attention_spec const& s) {
  std::vector<double> row(static_cast<std::size_t>(s.keys), -infinity);
  for (std::size_t n = 0; n < r.key.size(); ++n) row[static_cast<std::size_t>(r.key[n])] = r.score[n];
  all.score.insert(all.score.end(), row.begin(), row.end());
  std::vector<std::size_t> order(r.key.size());
  for (std::size_t n = 0; n < order.size(); ++n) order[n] = n;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return r.score[a] > r.score[b]; });
  for (index_t n = 0; n < s.top; ++n)
    all.top_ids.push_back(n < static_cast<index_t>(order.size()) ? r.key[order[static_cast<std::size_t>(n)]] : -1);
}

}  // namespace

attended attention(std::vector<double> const& q, std::vector<double> const& k, std::vector<double> const& v, attention_spec const& s) {
  attended all;
  std::vector<double> const keys = turned_keys(k, s);
  index_t const v_heads = s.v_heads > 0 ? s.v_heads : s.kv_heads;
  for (index_t row = 0; row < s.batch * s.heads * s.tokens; ++row) {
    index_t const b = row / (s.heads * s.tokens), h = row / s.tokens % s.heads, i = row % s.tokens;
    std::vector<double> query(q.begin() + row * s.dim, q.begin() + (row + 1) * s.dim);
    if (s.turn_query) s.turn_query(query.data(), b, h, i);
    index_t const k_head = h / (s.heads / s.kv_heads), v_head = h / (s.heads / v_heads);
    row_scores const r = scores_of(query, keys.data() + (b * s.kv_heads + k_head) * s.keys * s.dim, b, h, i, s);
    row_weights const w = weights_of(r, h, s);
    put_values(all, r, w, v.data() + (b * v_heads + v_head) * s.keys * s.dim_v, s);
    if (s.top > 0) put_scores(all, r, s);
    all.lse.push_back(w.lse);
    all.growth.push_back(r.growth);
    all.row_max.push_back(w.top);
    all.weight_sum.push_back(w.sum);
    all.weight_magnitude.push_back(w.magnitude);
    all.lead.push_back(w.lead);
  }
  return all;
}

}  // namespace tern::oracle

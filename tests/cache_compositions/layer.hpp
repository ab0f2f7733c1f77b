// SPDX-License-Identifier: Apache-2.0
#pragma once
// Random queries, keys and values of one layer, a cache that holds them, and attention over any rows by the definition, in float64.
#include "catch.hpp"
#include "compare.hpp"
#include "message.hpp"

#include <tern/attention/attention.hpp>
#include <tern/cache/kv_cache.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

namespace tern::test {

using row = std::vector<double>;
using rows = std::vector<row>;

inline cpu_policy three_threads() {
  static thread_pool pool(3);
  return cpu.on(pool);
}

inline double dot(row const& a, row const& b) {
  double sum = 0;
  for (std::size_t d = 0; d < a.size(); ++d) sum += a[d] * b[d];
  return sum;
}
inline double cosine_of(row const& a, row const& b) { return dot(a, b) / std::sqrt(dot(a, a) * dot(b, b)); }

/// (heads, tokens, dim) of normal numbers.
struct head_rows {
  index heads, tokens, dim;
  std::vector<float> x;
  head_rows(index h, index t, index d) : heads(h), tokens(t), dim(d), x(static_cast<std::size_t>(h * t * d)) {}
  head_rows(rng& r, index h, index t, index d, double spread = 1) : heads(h), tokens(t), dim(d), x(r.normal<float>(h * t * d, spread)) {}
  tensor_view<float, 3> view() { return {x.data(), shape<3>{{heads, tokens, dim}}}; }
  row of(index h, index t) const {
    auto const at = x.begin() + (h * tokens + t) * dim;
    return {at, at + dim};
  }
  rows of(index h) const {
    rows all;
    for (index t = 0; t < tokens; ++t) all.push_back(of(h, t));
    return all;
  }
};

/// Lists in memory of their own.
struct lists_of {
  std::vector<std::int32_t> ids, counts;
  index most;
  lists_of(index rows_, index room)
      : ids(static_cast<std::size_t>(rows_ * room), -1), counts(static_cast<std::size_t>(rows_), 0), most(room) {}
  explicit lists_of(std::vector<std::vector<std::int32_t>> const& lists) : most(1) {
    for (auto const& list : lists) most = std::max(most, static_cast<index>(list.size()));
    for (auto const& list : lists) {
      ids.insert(ids.end(), list.begin(), list.end());
      ids.resize(ids.size() + static_cast<std::size_t>(most) - list.size(), -1);
      counts.push_back(static_cast<std::int32_t>(list.size()));
    }
  }
  index_lists operator()() {
    auto const n = static_cast<index>(counts.size());
    return {tern::view(ids.data(), n, most), tern::view(counts.data(), n)};
  }
  std::vector<std::int32_t> operator[](index r) const {
    auto const at = ids.begin() + r * most;
    return {at, at + counts[static_cast<std::size_t>(r)]};
  }
};

/// The indices of the k largest scores, ascending.
inline std::vector<std::int32_t> largest(row const& scores, index k) {
  std::vector<std::int32_t> order;
  for (std::size_t j = 0; j < scores.size(); ++j) order.push_back(static_cast<std::int32_t>(j));
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return scores[static_cast<std::size_t>(a)] > scores[static_cast<std::size_t>(b)];
  });
  order.resize(static_cast<std::size_t>(std::min<index>(k, static_cast<index>(scores.size()))));
  std::sort(order.begin(), order.end());
  return order;
}

template <class K, class V>
rows keys_of(kv_cache<K, V> const& cache, std::int32_t s, index h, index layer = 0) {
  rows all;
  std::vector<float> x(static_cast<std::size_t>(cache.shape().dim));
  for (index t = 0; t < cache.length(s, layer, h); ++t) {
    cache.read_key(s, layer, h, t, x.data());
    all.emplace_back(x.begin(), x.end());
  }
  return all;
}
template <class K, class V>
rows values_of(kv_cache<K, V> const& cache, std::int32_t s, index h, index layer = 0) {
  rows all;
  std::vector<float> x(static_cast<std::size_t>(cache.shape().dim_v));
  for (index t = 0; t < cache.length(s, layer, h); ++t) {
    cache.read_value(s, layer, h, t, x.data());
    all.emplace_back(x.begin(), x.end());
  }
  return all;
}
/// The largest difference of two sets of rows; infinity where their numbers differ.
inline double distance(rows const& a, rows const& b) {
  if (a.size() != b.size()) return 1e300;
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    for (std::size_t d = 0; d < a[i].size(); ++d) most = std::max(most, std::abs(a[i][d] - b[i][d]));
  return most;
}

/// The weights of the keys that query i sees; -inf scores where `seen(j)` is false.
inline row softmax_row(row const& q, rows const& keys, double scale, std::function<bool(index)> const& seen) {
  row w;
  double top = -1e300, sum = 0;
  for (std::size_t j = 0; j < keys.size(); ++j) {
    w.push_back(seen(static_cast<index>(j)) ? dot(q, keys[j]) * scale : -1e300);
    top = std::max(top, w.back());
  }
  for (double& x : w) sum += x = x == -1e300 ? 0 : std::exp(x - top);
  for (double& x : w) x /= sum;
  return w;
}

/// The mean over the queries and the heads that share key head h of softmax(q_i k^T)_j; the queries are the last tokens.
inline row observed(head_rows const& q, index kv_heads, index h, rows const& keys) {
  index const group = q.heads / kv_heads, before = static_cast<index>(keys.size()) - q.tokens;
  row mean(keys.size(), 0);
  for (index g = h * group; g < (h + 1) * group; ++g)
    for (index i = 0; i < q.tokens; ++i) {
      row const w = softmax_row(q.of(g, i), keys, 1 / std::sqrt(static_cast<double>(q.dim)), [&](index j) { return j <= before + i; });
      for (std::size_t j = 0; j < w.size(); ++j) mean[j] += w[j] / static_cast<double>(group * q.tokens);
    }
  return mean;
}

/// Attention by the definition: what out (heads, queries, dim_v) and lse should be, and what their errors are relative to. The keys and
/// values of head g are keys(g), values(g), the scores scale q . k where seen(g, i, j). `more` roundings of scores besides the engine's.
struct by_rows {
  std::vector<double> out, magnitude, lse, lse_magnitude;
  by_rows(head_rows const& q, std::function<rows(index)> const& keys, std::function<rows(index)> const& values, double scale,
          std::function<bool(index, index, index)> const& seen, double more = 0) {
    for (index g = 0; g < q.heads; ++g) {
      rows const k = keys(g), v = values(g);
      for (index i = 0; i < q.tokens; ++i) {
        row const x = q.of(g, i);
        double top = -1e300, sum = 0, growth = 0;
        row score(k.size());
        for (std::size_t j = 0; j < k.size(); ++j) {
          if (!seen(g, i, static_cast<index>(j))) {
            score[j] = -1e300;
            continue;
          }
          score[j] = dot(x, k[j]) * scale;
          top = std::max(top, score[j]);
          growth = std::max(growth, std::sqrt(dot(x, x) * dot(k[j], k[j])) * scale + std::abs(score[j]));
        }
        row value(v.empty() ? 0 : v[0].size(), 0), size = value;
        for (double s : score) sum += s == -1e300 ? 0 : std::exp(s - top);
        for (std::size_t j = 0; j < k.size(); ++j)
          for (std::size_t d = 0; d < value.size() && score[j] != -1e300; ++d) {
            double const w = std::exp(score[j] - top) / sum;
            value[d] += w * v[j][d];
            size[d] += w * std::abs(v[j][d]);
          }
        using a = attention_accuracy;
        double const units = a::b0 + (a::b1 * std::sqrt(static_cast<double>(q.dim)) + more) * growth +
                             a::b2 * std::sqrt(static_cast<double>(k.size())) + 12 + more;  // 12: a merge
        for (double& m : size) m *= units;
        out.insert(out.end(), value.begin(), value.end());
        magnitude.insert(magnitude.end(), size.begin(), size.end());
        lse.push_back(top + std::log(sum));
        lse_magnitude.push_back(units + 4 * std::abs(lse.back()));
      }
    }
  }
};

/// Where a call writes.
struct outputs {
  guarded<float> out, lse;
  index heads, tokens, dim_v;
  outputs(index h, index t, index d) : out(h * t * d, 1), lse(h * t, 1), heads(h), tokens(t), dim_v(d) {}
  tensor_view<float, 3> out_view() { return {out.data(), shape<3>{{heads, tokens, dim_v}}}; }
  tensor_view<float, 2> lse_view() { return {lse.data(), shape<2>{{heads, tokens}}}; }
  void check(by_rows const& want) {
    CHECK(compare(out.span(), want.out, want.magnitude, 0x1p-24));
    CHECK(compare(lse.span(), want.lse, want.lse_magnitude, 0x1p-24));
    CHECK(out.intact());
    CHECK(lse.intact());
  }
  std::vector<float> all() { return {out.span().begin(), out.span().end()}; }
};

}  // namespace tern::test

// SPDX-License-Identifier: Apache-2.0
#pragma once
// One layer of a text for the tests of cache methods: its queries, keys and values, a cache that holds them, and what papers compute of
// them, in float64. Positions in the cache are the text's, so that they say which tokens stayed.
#include "cache/vectors/kvpress.hpp"
#include "catch.hpp"
#include "compare.hpp"
#include "message.hpp"

#include <tern/cache/kv_cache.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

namespace tern::test {

using tokens_of_heads = std::vector<std::vector<std::int32_t>>;
using scores_of_heads = std::vector<std::vector<double>>;
inline constexpr double never = -std::numeric_limits<double>::infinity(), certainly = std::numeric_limits<double>::infinity();

inline cpu_policy some_threads() {
  static thread_pool pool(3);
  return cpu.on(pool);
}

/// (heads, tokens, dim) and (kv_heads, tokens, dim) of normal numbers.
struct text {
  index heads, kv_heads, tokens, dim;
  std::vector<float> q, k, v;

  text(rng& r, index of_tokens, index of_kv_heads = 2)
      : heads(2 * of_kv_heads),
        kv_heads(of_kv_heads),
        tokens(of_tokens),
        dim(16),
        q(r.normal<float>(heads * tokens * dim, 1.5)),
        k(r.normal<float>(kv_heads * tokens * dim)),
        v(r.normal<float>(kv_heads * tokens * dim)) {}
  /// That of the vectors of kvpress.
  text()
      : heads(kvpress::query_heads),
        kv_heads(kvpress::kv_heads),
        tokens(kvpress::tokens),
        dim(kvpress::dim),
        q(std::begin(kvpress::queries), std::end(kvpress::queries)),
        k(std::begin(kvpress::keys), std::end(kvpress::keys)),
        v(kvpress::values.begin(), kvpress::values.end()) {}

  tensor_view<float const, 3> view(std::vector<float> const& x, index n, index first, index end) const {
    return tensor_view<float const, 3>(x.data(), shape<3>{{n, tokens, dim}}).slice(1, first, end);
  }
  tensor_view<float const, 3> queries(index first, index end) const { return view(q, heads, first, end); }
  tensor_view<float const, 3> last(index window) const { return queries(tokens - window, tokens); }
  double at(std::vector<float> const& x, index h, index t, index d) const {
    return static_cast<double>(x[static_cast<std::size_t>((h * tokens + t) * dim + d)]);
  }
  double dot(std::vector<float> const& x, index g, index i, std::vector<float> const& y, index h, index j) const {
    double sum = 0;
    for (index d = 0; d < dim; ++d) sum += at(x, g, i, d) * at(y, h, j, d);
    return sum;
  }
  /// Tokens first ... end - 1 at their positions, to a layer.
  void append(kv_cache<float>& cache, std::int32_t s, index layer, index first, index end) const {
    std::vector<std::int32_t> positions;
    for (index t = first; t < end; ++t) positions.push_back(static_cast<std::int32_t>(t));
    cache.append(some_threads(), s, layer, view(k, kv_heads, first, end), view(v, kv_heads, first, end), positions);
  }
  /// A head's attention of query i among these tokens.
  std::vector<double> attention(index g, index i, std::vector<std::int32_t> const& among) const {
    std::vector<double> p;
    double sum = 0;
    for (std::int32_t j : among)
      p.push_back(j > i ? 0 : std::exp(dot(q, g, i, k, g / (heads / kv_heads), j) / std::sqrt(static_cast<double>(dim))));
    for (double x : p) sum += x;
    for (double& x : p) x /= sum;
    return p;
  }
  std::vector<std::int32_t> all() const {
    std::vector<std::int32_t> x;
    for (index t = 0; t < tokens; ++t) x.push_back(static_cast<std::int32_t>(t));
    return x;
  }
  tokens_of_heads all_heads() const { return tokens_of_heads(static_cast<std::size_t>(kv_heads), all()); }
  /// Of each token that heads hold, the mean over its query heads and over queries first ... end - 1 of factor(i) * attention.
  scores_of_heads observed(
      tokens_of_heads const& held, index first, index end, std::function<double(index)> const& factor = [](index) { return 1.; }) const {
    scores_of_heads all_of_them;
    for (index h = 0; h < kv_heads; ++h) {
      std::vector<double> sum(held[static_cast<std::size_t>(h)].size());
      for (index g = 0; g < heads; ++g)
        for (index i = first; i < end && g / (heads / kv_heads) == h; ++i) {
          auto const p = attention(g, i, held[static_cast<std::size_t>(h)]);
          for (std::size_t j = 0; j < p.size(); ++j)
            sum[j] += p[j] * factor(i) * static_cast<double>(kv_heads) / static_cast<double>(heads * (end - first));
        }
      all_of_them.push_back(sum);
    }
    return all_of_them;
  }
};

/// A cache of one text.
struct filled {
  kv_cache<float> cache;
  std::int32_t s;
  explicit filled(text const& t, index layers = 1) : cache({layers, t.kv_heads, t.dim}), s(cache.open()) {
    for (index layer = 0; layer < layers; ++layer) t.append(cache, s, layer, 0, t.tokens);
  }
  /// Which tokens a layer holds.
  tokens_of_heads held(index layer = 0) const {
    tokens_of_heads all;
    for (index h = 0; h < cache.shape().kv_heads; ++h) {
      auto const p = cache.positions(s, layer, h);
      all.emplace_back(p.data(), p.data() + p.extent(0));
    }
    return all;
  }
  /// Whether it holds those, to the bit.
  bool holds(text const& t, tokens_of_heads const& want, index layer = 0) const {
    if (held(layer) != want) return false;
    std::vector<float> x(static_cast<std::size_t>(t.dim));
    for (index h = 0; h < t.kv_heads; ++h)
      for (index i = 0; i < cache.length(s, layer, h); ++i)
        for (index d = 0; d < t.dim; ++d) {
          index const j = want[static_cast<std::size_t>(h)][static_cast<std::size_t>(i)];
          cache.read_key(s, layer, h, i, x.data());
          if (static_cast<double>(x[static_cast<std::size_t>(d)]) != t.at(t.k, h, j, d)) return false;
          cache.read_value(s, layer, h, i, x.data());
          if (static_cast<double>(x[static_cast<std::size_t>(d)]) != t.at(t.v, h, j, d)) return false;
        }
    return true;
  }
};

/// The places of the n largest, ascending; of equal ones the first. Rounding must not be able to decide.
inline std::vector<std::int32_t> largest_places(std::vector<double> const& x, index n) {
  std::vector<std::int32_t> order;
  for (std::size_t i = 0; i < x.size(); ++i) order.push_back(static_cast<std::int32_t>(i));
  auto const value = [&](std::size_t place) { return x[static_cast<std::size_t>(order[place])]; };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int32_t a, std::int32_t b) { return x[static_cast<std::size_t>(a)] > x[static_cast<std::size_t>(b)]; });
  auto const count = static_cast<std::size_t>(std::max<index>(n, 0));
  if (count < order.size() && count > 0 && std::isfinite(value(count - 1)) && value(count - 1) != value(count))
    REQUIRE(value(count - 1) - value(count) > 2e-6 * std::abs(value(count - 1)));
  if (count < order.size()) order.resize(count);
  std::sort(order.begin(), order.end());
  return order;
}
/// What stays of held tokens: those with the n largest scores, the first and last among them.
inline std::vector<std::int32_t> chosen(std::vector<std::int32_t> const& held, std::vector<double> scores, index n, index first = 0,
                                        index last = 0) {
  index const count = static_cast<index>(scores.size());
  last = std::min(last, n);
  first = std::min(first, n - last);
  for (index j = 0; j < count; ++j)
    if (j < first || j >= count - last) scores[static_cast<std::size_t>(j)] = certainly;
  std::vector<std::int32_t> tokens;
  for (std::int32_t i : largest_places(scores, n)) tokens.push_back(held[static_cast<std::size_t>(i)]);
  return tokens;
}
inline tokens_of_heads chosen(tokens_of_heads const& held, scores_of_heads const& scores, index n, index first = 0, index last = 0) {
  tokens_of_heads all;
  for (std::size_t h = 0; h < held.size(); ++h) all.push_back(chosen(held[h], scores[h], n, first, last));
  return all;
}
/// Whether scores (kv_heads, tokens) are the wanted ones; behind those of a head they are -inf.
inline bool near(tensor_view<float const, 2> const& got, scores_of_heads const& want, double tolerance) {
  for (index h = 0; h < got.extent(0); ++h)
    for (index j = 0; j < got.extent(1); ++j) {
      auto const& row = want[static_cast<std::size_t>(h)];
      double const x = static_cast<double>(got(h, j)), y = j < static_cast<index>(row.size()) ? row[static_cast<std::size_t>(j)] : never;
      if (!(std::isinf(y) ? x == y : std::abs(x - y) <= tolerance * std::abs(y))) {
        UNSCOPED_INFO("head " << h << " token " << j << ": got " << x << ", want " << y);
        return false;
      }
    }
  return true;
}
/// Rows of a vector of kvpress; where `n` is one row, it is for each head.
template <class T>
scores_of_heads rows_of(T const* x, index heads, index n, bool one_row = false) {
  scores_of_heads all;
  for (index h = 0; h < heads; ++h) {
    T const* const row = x + (one_row ? 0 : h * n);
    all.emplace_back(row, row + n);
  }
  return all;
}
/// The tokens that a mask of kvpress names.
inline tokens_of_heads marked(std::uint8_t const* x, index heads, index n, bool one_row = false) {
  tokens_of_heads all(static_cast<std::size_t>(heads));
  for (index h = 0; h < heads; ++h)
    for (index j = 0; j < n; ++j)
      if (x[one_row ? j : h * n + j] != 0) all[static_cast<std::size_t>(h)].push_back(static_cast<std::int32_t>(j));
  return all;
}

/// Heads of a whole text lose different tokens, but none of the last 30: a third of head 1, a fifth of head 0.
inline void make_ragged(filled& f) {
  auto tokens = f.held();
  index most = 0;
  for (std::size_t h = 0; h < 2; ++h)
    std::erase_if(tokens[h], [&](std::int32_t t) { return t + 30 < f.cache.next_position(f.s) && (h == 0 ? t % 5 == 2 : t % 3 == 1); });
  for (auto const& list : tokens) most = std::max(most, static_cast<index>(list.size()));
  std::vector<std::int32_t> ids, counts;
  for (auto const& list : tokens) {
    ids.insert(ids.end(), list.begin(), list.end());
    ids.resize(ids.size() + static_cast<std::size_t>(most) - list.size());
    counts.push_back(static_cast<std::int32_t>(list.size()));
  }
  f.cache.keep(cpu, f.s, 0, {tern::view(ids.data(), static_cast<index>(counts.size()), most), tern::view(counts)});
}

}  // namespace tern::test

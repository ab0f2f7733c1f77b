// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file bench/attention_systems.hpp
/// What the benchmarks of published attention systems (attention_*_systems_bench.cpp) share: random tensors, a paper's formula in
/// float64 for a few rows, and how a workload is registered. Names: attention_systems/<system>_h<heads>x<key heads>_n<tokens>_d<dim>,
/// with the keys in place of the tokens where there are more. Operations count visible pairs, and what a system adds where it matters.

#include "harness.hpp"
#include "inputs.hpp"

#include <tern/attention.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace tern::bench {

inline std::size_t at(index i) { return static_cast<std::size_t>(i); }
inline double wide(float x) { return static_cast<double>(x); }

/// The extents of a problem.
struct sizes {
  index heads, tokens, dim;
  index keys = tokens, k_heads = heads, v_heads = k_heads, dim_v = dim;
};

/// Random q, k and v, and room for the results.
struct problem {
  sizes n;
  std::vector<float> q_values, k_values, v_values, out_values, lse_values;
  tensor_view<float, 3> q, k, v, out;
  tensor_view<float, 2> lse;

  explicit problem(sizes const& of, std::uint64_t seed = 1)
      : n(of),
        q_values(fast_normal(n.heads * n.tokens * n.dim, 1, seed)),
        k_values(fast_normal(n.k_heads * n.keys * n.dim, 1, seed + 1)),
        v_values(fast_normal(n.v_heads * n.keys * n.dim_v, 1, seed + 2)),
        out_values(at(n.heads * n.tokens * n.dim_v)),
        lse_values(at(n.heads * n.tokens)),
        q(view(q_values.data(), n.heads, n.tokens, n.dim)),
        k(view(k_values.data(), n.k_heads, n.keys, n.dim)),
        v(view(v_values.data(), n.v_heads, n.keys, n.dim_v)),
        out(view(out_values.data(), n.heads, n.tokens, n.dim_v)),
        lse(view(lse_values.data(), n.heads, n.tokens)) {}
  problem(problem&&) = default;
};

/// A problem that is made at its first use.
struct inputs {
  sizes n;
  std::function<problem&()> get;
  explicit inputs(sizes const& of, std::uint64_t seed = 1) : n(of), get(lazy([of, seed] { return problem(of, seed); })) {}
};

/// A paper's formula, for head h, query i and key j: softmax of the scores of the keys that are seen, times v.
struct formula {
  /// All of them, unless said otherwise.
  std::function<bool(index h, index i, index j)> sees = [](index, index, index) { return true; };
  /// Of s = q.k / sqrt(dim), which it is by default.
  std::function<double(problem const& x, index h, index i, index j, double s)> score = nullptr;
  /// Of a score, in place of softmax.
  std::function<double(double s)> weight = nullptr;
};

inline double dot(tensor_view<float const, 1> const& a, tensor_view<float const, 1> const& b) {
  double sum = 0;
  for (index d = 0; d < a.extent(0); ++d) sum += wide(a[d]) * wide(b[d]);
  return sum;
}

/// The weight of each key for query i of head h.
inline std::vector<double> weights(problem const& x, formula const& f, index h, index i) {
  std::vector<double> w(at(x.n.keys));
  double sum = 0;
  for (index j = 0; j < x.n.keys; ++j) {
    if (!f.sees(h, i, j)) continue;
    double s = dot(x.q[h][i], x.k[h * x.n.k_heads / x.n.heads][j]) / std::sqrt(static_cast<double>(x.n.dim));
    if (f.score) s = f.score(x, h, i, j, s);
    sum += w[at(j)] = f.weight ? f.weight(s) : std::exp(s);
  }
  if (!f.weight)
    for (double& e : w) e /= sum;
  return w;
}

/// Row i of head h of what the values add up to.
inline std::vector<double> weighed(problem const& x, std::vector<double> const& w, index h) {
  std::vector<double> row(at(x.n.dim_v));
  for (index j = 0; j < x.n.keys; ++j)
    for (index d = 0; d < x.n.dim_v && w[at(j)] != 0; ++d) row[at(d)] += w[at(j)] * wide(x.v(h * x.n.v_heads / x.n.heads, j, d));
  return row;
}

inline bool near(tensor_view<float const, 1> const& got, std::vector<double> const& want) {
  for (index d = 0; d < got.extent(0); ++d)
    if (!(std::abs(wide(got[d]) - want[at(d)]) < 2e-5 * std::max(1.0, std::abs(want[at(d)])))) return false;
  return true;
}

/// A few rows of out against row(h, i).
template <class Row>
bool right(problem const& x, Row const& row) {
  for (index h : sample(x.n.heads, 3))
    for (index i : sample(x.n.tokens, 5))
      if (!near(x.out[h][i], row(h, i))) return false;
  return true;
}
inline bool right(problem const& x, formula const& f) {
  return right(x, [&](index h, index i) { return weighed(x, weights(x, f, h, i), h); });
}

/// The pairs that a formula lets see each other.
inline double pairs(sizes const& n, formula const& f) {
  double sum = 0;
  for (index h = 0; h < n.heads; ++h)
    for (index i = 0; i < n.tokens; ++i)
      for (index j = 0; j < n.keys; ++j) sum += f.sees(h, i, j) ? 1 : 0;
  return sum;
}
/// The operations of attention over so many pairs.
inline double flops(sizes const& n, double visible) { return 2 * visible * static_cast<double>(n.dim + n.dim_v); }

/// Registers a system: call(policy, problem) is checked by check(problem), then timed.
template <class Call, class Check>
void add(std::string const& system, inputs const& data, double operations, Check check, Call call) {
  sizes const n = data.n;
  std::string const heads = "_h" + std::to_string(n.heads) + "x" + std::to_string(n.k_heads);
  workload{.op = "attention_systems",
           .name = system + heads + "_n" + std::to_string(std::max(n.tokens, n.keys)) + "_d" + std::to_string(n.dim),
           .flops = operations}
      .add("tern", [=](run& r) {
        problem& x = data.get();
        auto const once = [&](index) { call(r.policy(), x); };
        if (r.check([&] {
              std::fill(x.out_values.begin(), x.out_values.end(), std::numeric_limits<float>::quiet_NaN());
              once(0);
              return check(std::as_const(x));
            }))
          r.time(once);
      });
}
/// One whose formula says what is right; `visible` pairs where they are quicker said than counted, and what it computes besides.
template <class Call>
void add_formula(std::string const& system, inputs const& data, formula const& f, Call call, double visible = -1, double besides = 0) {
  double const operations = flops(data.n, visible >= 0 ? visible : pairs(data.n, f)) + besides;
  add(system, data, operations, [f](problem const& x) { return right(x, f); }, call);
}

}  // namespace tern::bench

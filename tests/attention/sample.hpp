// SPDX-License-Identifier: Apache-2.0
#pragma once
// Inputs of one call, and the plain double loop over a formula for scores that its outputs are held against. The formula is a
// function (head, query, key) -> score in float64, -infinity where nothing is seen; nothing here knows layouts, masks or tiles.
#include "catch.hpp"
#include "compare.hpp"

#include <tern/attention.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

namespace tern::test {

inline constexpr double hidden = -std::numeric_limits<double>::infinity();

/// Dense (a, b, c) of normal numbers.
struct block {
  index a, b, c;
  std::vector<float> x;
  block(rng& r, index na, index nb, index nc, double spread = 1) : a(na), b(nb), c(nc), x(r.normal<float>(na * nb * nc, spread)) {}
  float* row(index i, index j) { return x.data() + (i * b + j) * c; }
  float const* row(index i, index j) const { return x.data() + (i * b + j) * c; }
  double operator()(index i, index j, index d) const { return static_cast<double>(row(i, j)[d]); }
  tensor_view<float, 3> view() { return {x.data(), shape<3>{{a, b, c}}}; }
};

inline double dot(float const* x, float const* y, index n) {
  double sum = 0;
  for (index d = 0; d < n; ++d) sum += static_cast<double>(x[d]) * static_cast<double>(y[d]);
  return sum;
}

struct sample_of {
  index heads = 2, k_heads = 1, v_heads = 1, tokens = 5, keys = 9, dim = 16, dim_v = 16;
};

/// What a formula gives: out (heads, tokens, dim_v), what its errors are relative to, and log-sum-exp (heads, tokens).
struct wanted {
  std::vector<double> out, magnitude, lse, lse_magnitude;
};

struct sample {
  using score_fn = std::function<double(index h, index i, index j)>;
  sample_of n;
  block q, k, v;
  guarded<float> out, lse;

  sample(rng& r, sample_of const& of, double spread = 1)
      : n(of),
        q(r, of.heads, of.tokens, of.dim, spread),
        k(r, of.k_heads, of.keys, of.dim),
        v(r, of.v_heads, of.keys, of.dim_v),
        out(of.heads * of.tokens * of.dim_v, 1),
        lse(of.heads * of.tokens, 1) {}

  tensor_view<float, 3> out_view() { return {out.data(), shape<3>{{n.heads, n.tokens, n.dim_v}}}; }
  tensor_view<float, 2> lse_view() { return {lse.data(), shape<2>{{n.heads, n.tokens}}}; }
  float const* q_row(index h, index i) const { return q.row(h, i); }
  float const* k_row(index h, index j) const { return k.row(h / (n.heads / n.k_heads), j); }
  float const* v_row(index h, index j) const { return v.row(h / (n.heads / n.v_heads), j); }
  /// q_i . k_j / sqrt(dim)
  double scaled(index h, index i, index j) const { return dot(q_row(h, i), k_row(h, j), n.dim) / std::sqrt(static_cast<double>(n.dim)); }
  /// The distance that bottom-right alignment gives: i's position less j.
  index before(index i, index j) const { return i + n.keys - n.tokens - j; }

  /// The largest |q| |k| / sqrt(dim) + |score| that a query sees: what errors of scores grow with.
  double growth(score_fn const& score, index h, index i, double extra) const {
    double most = 0;
    double const a = std::sqrt(dot(q_row(h, i), q_row(h, i), n.dim));
    for (index j = 0; j < n.keys; ++j) {
      double const s = score(h, i, j), b = std::sqrt(dot(k_row(h, j), k_row(h, j), n.dim));
      if (s != hidden) most = std::max(most, (1 + extra) * a * b / std::sqrt(static_cast<double>(n.dim)) + std::abs(s));
    }
    return most;
  }
  /// In units of 2^-24; `roundings` of q and k besides those of the product.
  double allowed(double growth_of_row, double roundings) const {
    using a = attention_accuracy;
    return a::b0 + (a::b1 * std::sqrt(static_cast<double>(n.dim)) + roundings) * growth_of_row +
           a::b2 * std::sqrt(static_cast<double>(n.keys));
  }

  wanted softmax(score_fn const& score, double roundings = 0, double extra = 0) const {
    wanted w;
    for (index h = 0; h < n.heads; ++h)
      for (index i = 0; i < n.tokens; ++i) {
        double top = hidden, sum = 0;
        for (index j = 0; j < n.keys; ++j) top = std::max(top, score(h, i, j));
        std::vector<double> value(static_cast<std::size_t>(n.dim_v), 0), magnitude = value;
        for (index j = 0; j < n.keys && top != hidden; ++j) sum += std::exp(score(h, i, j) - top);
        for (index j = 0; j < n.keys && top != hidden; ++j) add(h, j, std::exp(score(h, i, j) - top) / sum, value, magnitude);
        double const units = allowed(growth(score, h, i, extra), roundings), log_sum = top == hidden ? hidden : top + std::log(sum);
        for (double& m : magnitude) m *= units;
        w.out.insert(w.out.end(), value.begin(), value.end());
        w.magnitude.insert(w.magnitude.end(), magnitude.begin(), magnitude.end());
        w.lse.push_back(log_sum);
        w.lse_magnitude.push_back(units + 2 * std::abs(std::isfinite(log_sum) ? log_sum : 0));
      }
    return w;
  }
  /// out_i = sum_j f(s_ij) v_j; `steepness(s)` bounds both |f| and |f'|.
  wanted weighed(score_fn const& score, std::function<double(double)> const& f, std::function<double(double)> const& steepness) const {
    wanted w;
    for (index h = 0; h < n.heads; ++h)
      for (index i = 0; i < n.tokens; ++i) {
        std::vector<double> value(static_cast<std::size_t>(n.dim_v), 0), magnitude = value, ignored = value;
        for (index j = 0; j < n.keys; ++j) {
          double const s = score(h, i, j);
          if (s == hidden) continue;
          add(h, j, f(s), value, ignored);
          add(h, j, steepness(s), ignored, magnitude);
        }
        double const units = allowed(growth(score, h, i, 0), 0);
        for (double& m : magnitude) m *= units;
        w.out.insert(w.out.end(), value.begin(), value.end());
        w.magnitude.insert(w.magnitude.end(), magnitude.begin(), magnitude.end());
      }
    return w;
  }
  void check(wanted const& w) {
    INFO(n.heads << '/' << n.k_heads << '/' << n.v_heads << " heads, " << n.tokens << " tokens, " << n.keys << " keys, dims " << n.dim
                 << ' ' << n.dim_v);
    CHECK(compare(out.span(), w.out, w.magnitude, 0x1p-24));
    if (!w.lse.empty()) CHECK(compare(lse.span(), w.lse, w.lse_magnitude, 0x1p-24));
    CHECK(out.intact());
    CHECK(lse.intact());
  }

 private:
  void add(index h, index j, double weight, std::vector<double>& value, std::vector<double>& magnitude) const {
    for (index d = 0; d < n.dim_v; ++d) {
      double const x = static_cast<double>(v_row(h, j)[d]);
      value[static_cast<std::size_t>(d)] += weight * x;
      magnitude[static_cast<std::size_t>(d)] += std::abs(weight * x);
    }
  }
};

/// The shapes that every policy is tried with: few queries and many, odd sizes, grouped heads.
inline std::vector<sample_of> usual_samples() {
  return {{4, 2, 1, 3, 131, 20, 17}, {2, 1, 2, 1, 600, 16, 16}, {2, 2, 2, 45, 45, 24, 9}, {6, 3, 3, 70, 301, 32, 33}};
}

}  // namespace tern::test

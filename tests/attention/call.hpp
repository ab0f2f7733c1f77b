// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the tests of attention share: a call on random inputs as a cache holds them, and its comparison with the oracle.
#include "catch.hpp"
#include "compare.hpp"
#include "oracle/attention.hpp"

#include <tern/attention.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

namespace tern::test {

inline constexpr index W = simd::lanes;
inline constexpr index tile = tern::detail::query_tile_rows;

/// (heads, rows, n) as a cache holds it, heads side by side within a row, with a gap after each: NaN wherever nothing belongs.
template <class T>
struct cache {
  guarded<T> memory;
  tensor_view<T, 3> view;

  cache(index heads, index rows, index n, index misalignment = 1, index gap = 3)
      : memory(heads * rows * (n + gap), misalignment),
        view(memory.data(), shape<3>{{heads, rows, n}}, shape<3>{{n + gap, heads * (n + gap), 1}}) {}
  cache(rng& r, index heads, index rows, index n, double scale = 1) : cache(heads, rows, n) {
    detail::each(view, [&](T& e) { e = static_cast<T>(static_cast<float>(scale * r.normal())); });
  }
  std::vector<double> values() const {
    std::vector<double> all;
    detail::each(view, [&](T const& e) { all.push_back(static_cast<double>(e)); });
    return all;
  }
};

/// Paths: few queries, many queries, and both over several ranges of keys.
struct path {
  index tokens, keys;
};
inline constexpr path paths[] = {{3, 50}, {40, 150}, {3, 1200}, {40, 1300}};

struct case_of {
  index heads = 2, kv_heads = 2, tokens = 5, keys = 7, dim = 16, dim_v = 16;
  double spread = 1;  // of q
};

/// Inputs and outputs of one call. Rows of `out` are NaN before it.
template <class Q, class K = Q, class V = K, class O = float>
struct call {
  case_of c;
  cache<Q> q;
  cache<K> k;
  cache<V> v;
  cache<O> out;
  guarded<float> sums;
  tensor_view<float, 2> lse;

  call(rng& r, case_of const& of)
      : c(of),
        q(r, of.heads, of.tokens, of.dim, of.spread),
        k(r, of.kv_heads, of.keys, of.dim),
        v(r, of.kv_heads, of.keys, of.dim_v),
        out(of.heads, of.tokens, of.dim_v),
        sums(2 * of.heads * of.tokens, 1),
        lse(sums.data(), shape<2>{{of.heads, of.tokens}}, shape<2>{{2, 2 * of.heads}}) {}

  template <class... Options>
  void operator()(cpu_policy const& policy, Options const&... options) {
    attention(policy, q.view, k.view, v.view, out.view, log_sum_exp{lse}, options...);
  }
  oracle::attended want(std::function<bool(index, index)> visible = nullptr, double softcap = 0, double scale = 0) const {
    double const factor = scale != 0 ? scale : 1 / std::sqrt(static_cast<double>(std::max<index>(c.dim, 1)));
    return oracle::attention(q.values(), k.values(), v.values(),
                             {c.heads, c.kv_heads, c.tokens, c.keys, c.dim, c.dim_v, factor, softcap, std::move(visible)});
  }
  void check(oracle::attended e) const {
    using a = attention_accuracy;
    std::vector<double> sum_magnitude;
    for (std::size_t row = 0; row < e.lse.size(); ++row) {
      double const allowed =
          a::b0 + a::b1 * std::sqrt(static_cast<double>(c.dim)) * e.growth[row] + a::b2 * std::sqrt(static_cast<double>(c.keys));
      sum_magnitude.push_back(allowed + 2 * std::abs(std::isfinite(e.lse[row]) ? e.lse[row] : 0));
      for (index d = 0; d < c.dim_v; ++d) e.magnitude[row * static_cast<std::size_t>(c.dim_v) + static_cast<std::size_t>(d)] *= allowed;
    }
    INFO(c.heads << '/' << c.kv_heads << " heads, " << c.tokens << " tokens, " << c.keys << " keys, dims " << c.dim << ' ' << c.dim_v);
    CHECK(compare(out.view, e.value, e.magnitude, 0x1p-24));
    CHECK(compare(lse, e.lse, sum_magnitude, 0x1p-24));
    CHECK(out.memory.untouched_outside(out.view));
    CHECK(sums.untouched_outside(lse));
  }
  std::vector<double> results() const {
    auto all = out.values();
    detail::each(lse, [&](float x) { all.push_back(static_cast<double>(x)); });
    return all;
  }
};

inline bool same_bits(std::vector<double> const& a, std::vector<double> const& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
}

inline thread_pool& several_threads() {
  static thread_pool pool(3);
  return pool;
}

}  // namespace tern::test

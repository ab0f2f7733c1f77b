// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the tests of sparse attention share: the oracle for what each head sees, and lists of indices with their memory.
#include "call.hpp"

#include <tern/attention/index_lists.hpp>

#include <set>

namespace tern::test {

/// Softmax over what head h lets query i see, in float64.
inline oracle::attended want_by_head(call<float> const& c, std::function<bool(index, index, index)> const& visible) {
  oracle::attended all;
  auto const q = c.q.values(), k = c.k.values(), v = c.v.values();
  auto part = [](std::vector<double> const& x, index n, index which) {
    return std::vector<double>(x.begin() + which * n, x.begin() + (which + 1) * n);
  };
  for (index h = 0; h < c.c.heads; ++h) {
    index const kh = h / (c.c.heads / c.c.kv_heads);
    auto const one = oracle::attention(part(q, c.c.tokens * c.c.dim, h), part(k, c.c.keys * c.c.dim, kh), part(v, c.c.keys * c.c.dim_v, kh),
                                       {1, 1, c.c.tokens, c.c.keys, c.c.dim, c.c.dim_v, 1 / std::sqrt(static_cast<double>(c.c.dim)), 0,
                                        [&, h](index i, index j) { return visible(h, i, j); }});
    all.value.insert(all.value.end(), one.value.begin(), one.value.end());
    all.magnitude.insert(all.magnitude.end(), one.magnitude.begin(), one.magnitude.end());
    all.lse.insert(all.lse.end(), one.lse.begin(), one.lse.end());
    all.growth.insert(all.growth.end(), one.growth.begin(), one.growth.end());
  }
  return all;
}

/// index_lists with memory, -1 where nothing was written.
struct own_lists {
  std::vector<std::int32_t> ids, counts;
  index most;
  own_lists(index rows, index room) : ids(static_cast<std::size_t>(rows * room), -1), counts(static_cast<std::size_t>(rows)), most(room) {}
  index_lists lists() { return {tern::view(ids.data(), static_cast<index>(counts.size()), most), tern::view(counts)}; }
  void set(index row, std::vector<std::int32_t> const& x) {
    std::copy(x.begin(), x.end(), ids.begin() + row * most);
    counts[static_cast<std::size_t>(row)] = static_cast<std::int32_t>(x.size());
  }
  std::vector<std::int32_t> get(index row) const {
    auto const first = ids.begin() + row * most;
    return {first, first + counts[static_cast<std::size_t>(row)]};
  }
  bool has(index row, index id) const {
    auto const x = get(row);
    return std::find(x.begin(), x.end(), static_cast<std::int32_t>(id)) != x.end();
  }
};

/// `count` different numbers below n, ascending.
inline std::vector<std::int32_t> some_of(rng& r, index n, index count) {
  std::set<std::int32_t> chosen;
  while (static_cast<index>(chosen.size()) < std::min(n, count)) chosen.insert(static_cast<std::int32_t>(r.integer(0, n - 1)));
  return {chosen.begin(), chosen.end()};
}

/// The k largest of x by sorting; of equal ones the first; -inf never.
inline std::vector<std::int32_t> largest(std::vector<double> const& x, index k) {
  std::vector<std::int32_t> order;
  for (std::size_t i = 0; i < x.size(); ++i)
    if (!(x[i] == -std::numeric_limits<double>::infinity())) order.push_back(static_cast<std::int32_t>(i));
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int32_t a, std::int32_t b) { return x[static_cast<std::size_t>(a)] > x[static_cast<std::size_t>(b)]; });
  order.resize(std::min(order.size(), static_cast<std::size_t>(k)));
  std::sort(order.begin(), order.end());
  return order;
}

}  // namespace tern::test

// SPDX-License-Identifier: Apache-2.0
// Published attention over points against each paper's formula.
#include "formula.hpp"

#include <tern/attention/systems/flatformer.hpp>
#include <tern/attention/systems/swin3d.hpp>

namespace tern::test {
namespace {

/// The authors' mapping, with std::stable_sort in place of torch.sort.
std::vector<std::int32_t> flattened(std::vector<std::int32_t> const& xy, index n, index m, index n2, index m2, bool by_x, bool shifted) {
  auto const sign = [](index k) { return k % 2 == 0 ? index{1} : index{-1}; };
  std::vector<index> v;
  for (std::size_t i = 0; i < xy.size() / 2; ++i) {
    index const x = xy[2 * i] + (shifted ? n2 / 2 : 0), y = xy[2 * i + 1] + (shifted ? m2 / 2 : 0);
    index const x1 = x / n2, y1 = y / m2, x2 = x % n2, y2 = y % m2;
    index const N1 = 2 * ((n + n2 - 1) / n2 + 1), M1 = 2 * ((m + m2 - 1) / m2 + 1), N2 = 2 * n2, M2 = 2 * m2;
    v.push_back(by_x ? (N1 * y1 + sign(y1) * x1) * N2 * M2 + sign(y1) * (M2 * x2 + sign(x2) * y2)
                     : (M1 * x1 + sign(x1) * y1) * M2 * N2 + sign(x1) * (N2 * y2 + sign(y2) * x2));
  }
  std::vector<std::int32_t> order;
  for (std::size_t i = 0; i < v.size(); ++i) order.push_back(static_cast<std::int32_t>(i));
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) { return v[at(a)] < v[at(b)]; });
  return order;
}

TEST_CASE("flatformer: window-wise sorted points in equal groups") {
  rng r(31);
  for (index points : {1, 5, 40, 100})
    for (int which = 0; which < 4; ++which) {
      std::vector<std::int32_t> xy;
      for (index i = 0; i < points; ++i) {
        xy.push_back(static_cast<std::int32_t>(r.integer(0, 29)));
        xy.push_back(static_cast<std::int32_t>(r.integer(0, 19)));
      }
      std::vector<std::int64_t> keys(at(points));
      std::vector<std::int32_t> order(at(points));
      bool const by_x = which % 2 == 0, shifted = which >= 2;
      flatformer_order(view(xy.data(), points, 2), shape{30, 20}, shape{9, 5}, by_x ? flatformer_axis::x : flatformer_axis::y, shifted,
                       view(keys), view(order));
      CHECK(order == flattened(xy, 30, 20, 9, 5, by_x, shifted));
      // flat2win: groups of g; what the last one lacks is filled with the points a group before.
      index const g = which == 3 ? 200 : 12, padded = (points + g - 1) / g * g;
      std::vector<index> flat(at(padded));
      for (index p = 0; p < padded; ++p) flat[at(p)] = p < points ? p : p - g;
      std::vector<index> stands(at(points));
      for (index p = 0; p < points; ++p) stands[at(order[at(p)])] = p;
      call<float> c(r, {4, 2, points, points, 16, 16, 1});
      flatformer(cpu, c.q.view, c.k.view, c.v.view, c.out.view, order, g, log_sum_exp{c.lse});
      c.check(attend(c, {.sees = [&](index, index i, index j) {
                       index const first = stands[at(i)] / g * g;
                       for (index p = first; p < first + g; ++p)
                         if (flat[at(p)] == stands[at(j)]) return true;
                       return false;
                     }}));
      if (points <= g) c.check(c.want());
    }
}

TEST_CASE("swin3d: windows of voxels with contextual tables for query, key and value") {
  rng r(32);
  for (index voxels : {1, 7, 60}) {
    index const heads = 2, dim = 12, dim_v = 9, axes = 4, all = 8 + 6 + 6 + 9;
    std::vector<std::int32_t> const sizes{8, 6, 6, 9};
    std::vector<std::int32_t> signals;
    std::vector<int> window;
    for (index i = 0; i < voxels; ++i) {
      window.push_back(static_cast<int>(r.integer(0, 4)));
      for (std::int32_t n : sizes) signals.push_back(static_cast<std::int32_t>(r.integer(0, (n - 1) / 2) + 100 * window.back() - 150));
    }
    std::vector<std::int32_t> order, starts{0};
    for (int w = 0; w < 5; ++w) {
      for (index i = 0; i < voxels; ++i)
        if (window[at(i)] == w) order.push_back(static_cast<std::int32_t>(i));
      starts.push_back(static_cast<std::int32_t>(order.size()));
    }
    call<float> c(r, {heads, heads, voxels, voxels, dim, dim_v, 1});
    auto const tq = r.normal<float>(heads * all * dim, 0.3), tk = r.normal<float>(heads * all * dim, 0.3);
    auto const tv = r.normal<float>(heads * all * dim_v);
    std::vector<float> qt(at(heads * voxels * all)), kt(qt.size()), values(at(heads * voxels * (dim_v + all))), sums(values.size());
    std::vector<std::int32_t> slots(at(voxels * axes));
    // As the authors store tables: (entries, heads, dim).
    auto table = [&](std::vector<float> const& t, index n) { return view(t.data(), all, heads, n).transposed(0, 1); };
    swin3d(cpu, c.q.view, c.k.view, c.v.view, c.out.view, point_groups{order, starts}, view(signals.data(), voxels, axes), view(sizes),
           swin3d_tables{table(tq, dim), table(tk, dim), table(tv, dim_v)},
           swin3d_memory{view(qt.data(), heads, voxels, all), view(kt.data(), heads, voxels, all),
                         view(values.data(), heads, voxels, dim_v + all), view(sums.data(), heads, voxels, dim_v + all),
                         view(slots.data(), voxels, axes)},
           log_sum_exp{c.lse});

    auto const q = c.q.values(), k = c.k.values(), v = c.v.values();
    double const scale = 1 / std::sqrt(static_cast<double>(dim));
    auto entry = [&](index a, index i, index j) {
      index first = 0;
      for (index b = 0; b < a; ++b) first += sizes[at(b)];
      return first + signals[at(i * axes + a)] - signals[at(j * axes + a)] + sizes[at(a)] / 2;
    };
    auto terms = [&](index h, index i, index j, bool absolute) {
      double from_query = 0, from_key = 0;
      for (index a = 0; a < axes; ++a)
        for (index d = 0; d < dim; ++d) {
          std::size_t const e = at((entry(a, i, j) * heads + h) * dim + d);
          double const x = q[at((h * voxels + i) * dim + d)] * static_cast<double>(tq[e]);
          double const y = k[at((h * voxels + j) * dim + d)] * static_cast<double>(tk[e]);
          from_query += absolute ? std::abs(x) : x;
          from_key += absolute ? std::abs(y) : y;
        }
      return scale * from_query + from_key;
    };
    formula const f{
        .sees = [&](index, index i, index j) { return window[at(i)] == window[at(j)]; },
        .bias = [&](index h, index i, index j) { return terms(h, i, j, false); },
        .size = [&](index h, index i,
                    index j) { return (matmul.accuracy(dim) / std::sqrt(static_cast<double>(dim)) + 1) * terms(h, i, j, true); }};
    auto want = attend(c, f);
    for (index h = 0; h < heads; ++h)
      for (index i = 0; i < voxels; ++i)
        for (index j = 0; j < voxels; ++j) {
          if (!f.sees(h, i, j)) continue;
          double s = terms(h, i, j, false);
          for (index d = 0; d < dim; ++d) s += scale * q[at((h * voxels + i) * dim + d)] * k[at((h * voxels + j) * dim + d)];
          double const weight = std::exp(s - want.lse[at(h * voxels + i)]);
          for (index a = 0; a < axes; ++a)
            for (index d = 0; d < dim_v; ++d) {
              double const x = weight * static_cast<double>(tv[at((entry(a, i, j) * heads + h) * dim_v + d)]);
              want.value[at((h * voxels + i) * dim_v + d)] += x;
              want.magnitude[at((h * voxels + i) * dim_v + d)] += std::abs(x);
            }
        }
    c.check(want);
  }
}

}  // namespace
}  // namespace tern::test

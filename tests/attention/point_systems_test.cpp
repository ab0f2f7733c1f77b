// SPDX-License-Identifier: Apache-2.0
// Published attention over points against each paper's formula.
#include "formula.hpp"

#include <tern/attention/systems/flatformer.hpp>

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

}  // namespace
}  // namespace tern::test

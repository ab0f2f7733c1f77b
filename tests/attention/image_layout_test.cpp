// SPDX-License-Identifier: Apache-2.0
// Who meets whom under the layouts over images, volumes and points: each pair of tokens against the definition.
#include "catch.hpp"
#include "compare.hpp"

#include <tern/attention.hpp>
#include <tern/attention/grid.hpp>
#include <tern/attention/halo.hpp>
#include <tern/attention/neighborhood.hpp>
#include <tern/attention/point_groups.hpp>
#include <tern/attention/relative_table.hpp>
#include <tern/attention/stripes.hpp>
#include <tern/attention/window_partition.hpp>

#include <algorithm>
#include <array>
#include <functional>
#include <string>
#include <vector>

namespace tern::test {
namespace {

template <class G>
bool group_shows(G const& g, index i, index j) {
  if constexpr (requires { g.visible(i, j); })
    return g.visible(i, j);
  else
    return true;
}

/// What `covers` says of one tile against its elements.
template <class G>
bool covers_is_right(G const& g, index i0, index i1, index j0, index j1) {
  if constexpr (requires { g.covers(i0, i1, j0, j1); }) {
    bool any = false, all = true;
    for (index i = i0; i < i1; ++i)
      for (index j = j0; j < j1; ++j) {
        any |= g.visible(i, j);
        all &= g.visible(i, j);
      }
    coverage const said = g.covers(i0, i1, j0, j1);
    if (said == coverage::none) return !any;
    if (said == coverage::all) return all;
    // A whole group and a single pair are told apart exactly.
    if (i1 - i0 == 1 && j1 - j0 == 1) return false;
  }
  return true;
}

/// A layout against `sees(i, j)`: every query in one group, every pair once or never.
template <class L>
void check_layout(L const& layout, index head, index queries, index keys, std::function<bool(index, index)> const& sees) {
  rng r(static_cast<std::uint64_t>(queries * 1000 + keys));
  std::vector<int> met(static_cast<std::size_t>(queries * keys), 0), groups(static_cast<std::size_t>(queries), 0);
  for (index g = 0; g < layout.groups(0, head); ++g) {
    auto const group = layout.group(0, head, g);
    REQUIRE(group.queries > 0);
    REQUIRE(group.keys > 0);
    for (index i = 0; i < group.queries; ++i) {
      index const q = group.query(i);
      REQUIRE((q >= 0 && q < queries));
      if (!group.local && i > 0) REQUIRE(q > group.query(i - 1));
      ++groups[static_cast<std::size_t>(q)];
      for (index j = 0; j < group.keys; ++j) {
        index const k = group.key(j);
        REQUIRE((k >= 0 && k < keys));
        if (!group.local && j > 0) REQUIRE(k > group.key(j - 1));
        met[static_cast<std::size_t>(q * keys + k)] += group_shows(group, i, j);
      }
    }
    for (int n = 0; n < 30; ++n) {
      index const i0 = r.integer(0, group.queries - 1), j0 = r.integer(0, group.keys - 1);
      index const i1 = r.integer(i0 + 1, std::min(group.queries, i0 + 12)), j1 = r.integer(j0 + 1, group.keys);
      REQUIRE(covers_is_right(group, i0, i1, j0, j1));
      REQUIRE(covers_is_right(group, i0, i0 + 1, j0, j0 + 1));
    }
  }
  for (index i = 0; i < queries; ++i) {
    REQUIRE(groups[static_cast<std::size_t>(i)] == 1);
    for (index j = 0; j < keys; ++j) {
      CAPTURE(i, j);
      REQUIRE(met[static_cast<std::size_t>(i * keys + j)] == (sees(i, j) ? 1 : 0));
    }
  }
}

template <int N>
std::array<index, N> place(index token, shape<N> const& image) {
  std::array<index, N> x{};
  for (int a = N - 1; a >= 0; --a) {
    x[static_cast<std::size_t>(a)] = token % image.extents[a];
    token /= image.extents[a];
  }
  return x;
}
template <int N>
index tokens(shape<N> const& image) {
  index all = 1;
  for (index n : image.extents) all *= n;
  return all;
}
/// Pairs of one image that share every axis: `same(a, x, y)`.
template <int N>
std::function<bool(index, index)> each_axis(shape<N> image, std::function<bool(int, index, index)> same) {
  return [=](index i, index j) {
    auto const x = place(i, image), y = place(j, image);
    bool all = true;
    for (int a = 0; a < N; ++a) all = all && same(a, x[static_cast<std::size_t>(a)], y[static_cast<std::size_t>(a)]);
    return all;
  };
}

/// Swin's own steps: roll the padded image by -shift, cut it into windows, and number the regions that its mask keeps apart.
template <int N>
void check_windows(shape<N> image, shape<N> window, shape<N> shift) {
  check_layout(window_partition{image, window, shift}, 0, tokens(image), tokens(image), each_axis<N>(image, [=](int a, index x, index y) {
                 index const w = window.extents[a], s = shift.extents[a], padded = (image.extents[a] + w - 1) / w * w;
                 auto rolled = [&](index t) { return (t - s + padded) % padded; };
                 auto region = [&](index t) { return t < padded - w ? 0 : t < padded - s ? 1 : 2; };
                 index const u = rolled(x), v = rolled(y);
                 return u / w == v / w && (s == 0 || region(u) == region(v));
               }));
}
TEST_CASE("window_partition: Swin's shifted windows in 1, 2 and 3 dimensions") {
  for (index n : {1, 7, 16, 21})
    for (index s : {0, 1, 3, 6}) check_windows<1>({{n}}, {{7}}, {{s}});
  for (index s : {0, 2, 3}) {
    check_windows<2>({{8, 12}}, {{4, 4}}, {{s, s}});
    check_windows<2>({{5, 9}}, {{4, 6}}, {{s, 5 - s}});
    check_windows<3>({{3, 5, 8}}, {{2, 4, 4}}, {{s % 2, s, 1}});
  }
  check_layout(window_partition{shape{6, 5}, shape{6, 5}}, 0, 30, 30, [](index, index) { return true; });
}

TEST_CASE("grid: tokens that are equal modulo the steps") {
  for (index size : {1, 2, 4, 7, 20}) {
    shape<2> const image{{8, 11}};
    check_layout(grid{image, shape{size, size}}, 0, 88, 88, each_axis<2>(image, [=](int a, index x, index y) {
                   index const step = (image.extents[a] + size - 1) / size;
                   return x % step == y % step;
                 }));
  }
  shape<3> const volume{{4, 3, 5}};
  check_layout(grid{volume, shape{2, 3, 2}}, 0, 60, 60, each_axis<3>(volume, [](int a, index x, index y) {
                 index const steps[] = {2, 1, 3};
                 return x % steps[a] == y % steps[a];
               }));
}

TEST_CASE("stripes: columns for some heads, rows for the others") {
  for (index width : {1, 3, 40})
    for (index head : {0, 1, 2, 3}) {
      shape<2> const image{{7, 10}};
      check_layout(stripes{image, width, 2}, head, 70, 70,
                   each_axis<2>(image, [=](int a, index x, index y) { return a == (head < 2 ? 1 : 0) ? x / width == y / width : true; }));
    }
}

TEST_CASE("halo: blocks and what lies around them, also of strided queries") {
  for (index stride : {1, 2})
    for (index reach : {0, 1, 3}) {
      shape<2> const image{{9, 6}}, queries{{(9 + stride - 1) / stride, (6 + stride - 1) / stride}};
      check_layout(halo{image, shape{4, 2}, shape{reach, reach}, shape{stride, stride}}, 0, tokens(queries), 54, [=](index i, index j) {
        auto const x = place(i, queries), y = place(j, image);
        bool all = true;
        for (std::size_t a = 0; a < 2; ++a) {
          index const b = a == 0 ? 4 : 2, from = x[a] * stride / b * b;
          all = all && y[a] >= from - reach && y[a] < from + b + reach;
        }
        return all;
      });
    }
}

/// NATTEN's window along one axis, element by element.
bool in_neighborhood(index n, index kernel, index dilation, bool causal, index x, index y) {
  if (x % dilation != y % dilation) return false;
  std::vector<index> mine;  // tokens of the same remainder
  for (index t = x % dilation; t < n; t += dilation) mine.push_back(t);
  index const count = static_cast<index>(mine.size()), u = x / dilation, v = y / dilation;
  if (causal) return v <= u && v > u - kernel;
  if (count <= kernel) return true;
  index start = u - kernel / 2;
  while (start < 0) ++start;
  while (start + kernel > count) --start;
  return v >= start && v < start + kernel;
}
template <int N>
void check_neighborhood(neighborhood<N> const& layout) {
  check_layout(layout, 0, tokens(layout.image), tokens(layout.image), each_axis<N>(layout.image, [=](int a, index x, index y) {
                 return in_neighborhood(layout.image.extents[a], layout.kernel.extents[a], layout.dilation.extents[a], layout.causal[a], x,
                                        y);
               }));
}
TEST_CASE("neighborhood: NATTEN's windows in 1, 2 and 3 dimensions, dilated, causal") {
  for (index kernel : {1, 3, 4, 7})
    for (index dilation : {1, 2, 5, 40}) {
      for (bool causal : {false, true}) check_neighborhood<1>({{{31}}, {{kernel}}, {{dilation}}, {causal}, {{8}}});
      check_neighborhood<2>({{{9, 14}}, {{kernel, 3}}, {{dilation, 2}}, {false, kernel == 3}, {{4, 3}}});
    }
  check_neighborhood<3>({{{4, 5, 6}}, {{3, 3, 5}}, {{1, 2, 1}}, {true, false, false}, {{2, 2, 4}}});
  check_layout(neighborhood{shape{5, 6}, shape{9, 9}}, 0, 30, 30, [](index, index) { return true; });
}
TEST_CASE("neighborhood: far from the borders every query has kernel^n keys, and at them too") {
  neighborhood<2> const layout{{{12, 13}}, {{5, 3}}, {{2, 3}}};
  for (index g = 0; g < layout.groups(0, 0); ++g) {
    auto const group = layout.group(0, 0, g);
    for (index i = 0; i < group.queries; ++i) {
      index count = 0;
      for (index j = 0; j < group.keys; ++j) count += group.visible(i, j);
      REQUIRE(count == 15);
    }
  }
}

TEST_CASE("point_groups: lists of points") {
  std::vector<std::int32_t> const order{4, 2, 0, 6, 5, 1, 3}, starts{0, 3, 4, 7};
  std::vector<int> const group{0, 2, 0, 2, 0, 2, 1};
  check_layout(point_groups{order, starts}, 0, 7, 7,
               [&](index i, index j) { return group[static_cast<std::size_t>(i)] == group[static_cast<std::size_t>(j)]; });
}

TEST_CASE("detail::divisor: quotients without a division") {
  rng r(3);
  for (index n : {index{1}, index{2}, index{3}, index{7}, index{255}, index{256}, index{46341}, (index{1} << 31) - 1})
    for (int at = 0; at < 200; ++at) {
      index const j = at < 2 ? (index{1} << 31) - 1 - at : r.integer(0, (index{1} << 31) - 1), edge = j / n * n;
      REQUIRE(tern::detail::divisor(n).quotient(j) == j / n);
      REQUIRE(tern::detail::divisor(n).quotient(edge) == edge / n);
      if (edge > 0) REQUIRE(tern::detail::divisor(n).quotient(edge - 1) == (edge - 1) / n);
    }
}

template <class L>
std::string refusal(L const& layout, index tokens, index keys) {
  try {
    layout.check({1, 2, 2, 2, tokens, keys, 8, 8});
  } catch (error const& e) {
    return e.what();
  }
  return "no error";
}
TEST_CASE("layouts over images refuse images that are not there") {
  CHECK(refusal(window_partition{shape{4, 5}, shape{2, 2}}, 20, 20) == "no error");
  CHECK(refusal(window_partition{shape{4, 5}, shape{2, 2}}, 20, 19) ==
        "attention: the image of window_partition is 20, expected the keys of k = 19");
  CHECK(refusal(window_partition{shape{4, 5}, shape{2, 2}, shape{0, 2}}, 20, 20).find("a shift") != std::string::npos);
  CHECK(refusal(window_partition{shape{4, 5}, shape{0, 2}}, 20, 20).find("a window") != std::string::npos);
  CHECK(refusal(grid{shape{4, 5}, shape{2, 0}}, 20, 20).find("a size of grid") != std::string::npos);
  CHECK(refusal(stripes{shape{4, 5}, 0, 1}, 20, 20).find("the width") != std::string::npos);
  CHECK(refusal(halo{shape{4, 4}, shape{3, 2}, shape{1, 1}, shape{2, 2}}, 4, 16).find("a multiple of its stride") != std::string::npos);
  CHECK(refusal(neighborhood{shape{4, 4}, shape{3, 0}}, 16, 16).find("a kernel") != std::string::npos);
  std::vector<std::int32_t> order{0, 1, 2}, starts{0, 2, 3};
  CHECK(refusal(point_groups{order, starts}, 3, 3) == "no error");
  CHECK(refusal(point_groups{order, starts}, 4, 4).find("the order of point_groups") != std::string::npos);
  starts[1] = 4;
  CHECK(refusal(point_groups{order, starts}, 3, 3).find("a start of point_groups") != std::string::npos);
  order[1] = 3;
  CHECK(refusal(point_groups{order, starts}, 3, 3).find("the order of point_groups") != std::string::npos);
}

TEST_CASE("relative tables refuse tables that are too small, and images that are not there") {
  std::vector<float> memory(1000);
  auto const table = [&](index heads, index n) { return view(memory.data(), heads, n); };
  CHECK(refusal(relative_table{table(2, 15), shape{4, 5}, shape{2, 3}}, 20, 20) == "no error");
  CHECK(refusal(relative_table{table(2, 14), shape{4, 5}, shape{2, 3}}, 20, 20) ==
        "attention: the entries of relative_table is 14, expected those of its size = 15");
  CHECK(refusal(relative_table{table(1, 15), shape{4, 5}, shape{2, 3}}, 20, 20).find("the rows") != std::string::npos);
  CHECK(refusal(relative_table{table(2, 15), shape{4, 5}, shape{2, 3}}, 21, 21).find("the image") != std::string::npos);
  CHECK(refusal(relative_table{table(2, 15), shape{2048, 2048}, shape{2, 3}}, 1 << 22, 1 << 22).find("2^21") != std::string::npos);
  CHECK(refusal(relative_table{table(15, 2).transposed(0, 1), shape{4, 5}, shape{2, 3}}, 20, 20).find("stride") != std::string::npos);
  auto const terms = view(memory.data(), 2, 4, 8);
  CHECK(refusal(relative_products{terms, shape{4, 4}, shape{1, 2}, shape{2, 2}}, 4, 16) == "no error");
  CHECK(refusal(relative_products{terms, shape{4, 4}, shape{1, 1}, shape{2, 2}}, 4, 16).find("the entries") != std::string::npos);
  CHECK(refusal(relative_products{terms, shape{4, 4}, shape{1, 2}}, 16, 16).find("the second extent") != std::string::npos);
}

TEST_CASE("relative tables: quotients of registers up to 2^21") {
  rng r(4);
  for (index n : {1, 2, 3, 7, 1000, 1447, 2097151})
    for (int t = 0; t < 300; ++t) {
      index const token = t == 0 ? (index{1} << 21) - 1 : r.integer(0, (index{1} << 21) - 1), edge = token / n * n;
      for (index at : {token, edge, std::max<index>(edge - 1, 0)}) {
        std::int32_t lane[simd::lanes];
        simd::store(lane, tern::detail::lane_divisor(n).quotient(ints(static_cast<std::int32_t>(at))));
        REQUIRE(lane[0] == at / n);
      }
    }
}

}  // namespace
}  // namespace tern::test

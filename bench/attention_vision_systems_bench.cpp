// SPDX-License-Identifier: Apache-2.0
// Published systems of attention within windows, neighborhoods and stripes of images, among frames, and among points and voxels.
#include "attention_systems.hpp"

#include <tern/attention/systems/cswin.hpp>
#include <tern/attention/systems/flatformer.hpp>
#include <tern/attention/systems/halonet.hpp>
#include <tern/attention/systems/maxvit.hpp>
#include <tern/attention/systems/medvit_v2.hpp>
#include <tern/attention/systems/swin3d.hpp>
#include <tern/attention/systems/swin_v2.hpp>
#include <tern/attention/systems/video_infinity.hpp>

namespace tern::bench {
namespace {

constexpr index side = 56, heads = 8, dim = 32;
constexpr shape image{side, side};

/// Entry (y, x) of head h in a table of offsets, as many along both axes.
double entry(std::vector<float> const& table, index h, index offsets, index y, index x) {
  return wide(table[at((h * offsets + y) * offsets + x)]);
}

void add_windows(inputs const& pixels) {
  static std::vector<float> const bias = fast_normal(heads * 13 * 13, 1, 11);
  static constexpr double in_windows = heads * side * side * 49;
  add_formula(
      "maxvit_block", pixels,
      {.sees = [](index, index i, index j) { return i / side / 7 == j / side / 7 && i % side / 7 == j % side / 7; },
       .score = [](problem const&, index h, index i, index j,
                   double s) { return s + entry(bias, h, 13, i / side - j / side + 6, i % side - j % side + 6); }},
      [](cpu_policy const& on, problem& x) {
        maxvit(on, x.q, x.k, x.v, x.out, image, shape{7, 7}, multi_axis::block, view(bias.data(), heads, 169));
      },
      in_windows);
  add_formula(
      "maxvit_grid", pixels,
      {.sees = [](index, index i, index j) { return i / side % 8 == j / side % 8 && i % side % 8 == j % side % 8; },
       .score = [](problem const&, index h, index i, index j,
                   double s) { return s + entry(bias, h, 13, (i / side - j / side) / 8 + 6, (i % side - j % side) / 8 + 6); }},
      [](cpu_policy const& on, problem& x) {
        maxvit(on, x.q, x.k, x.v, x.out, image, shape{7, 7}, multi_axis::grid, view(bias.data(), heads, 169));
      },
      in_windows);
  add_formula(
      "cswin", pixels,
      {.sees = [](index h, index i, index j) { return h < 4 ? i % side / 7 == j % side / 7 : i / side / 7 == j / side / 7; }},
      [](cpu_policy const& on, problem& x) { cswin(on, x.q, x.k, x.v, x.out, image, 7); }, heads * side * side * 7. * side);
}

void add_swin_v2(inputs const& pixels) {
  // Windows of 8 shifted by 4; offsets' biases by a network of 512 hidden units.
  static constexpr index entries = 15 * 15, hidden = 512;
  static std::vector<float> const w1 = fast_normal(hidden * 2, 1, 21), b1 = fast_normal(hidden, 1, 22),
                                  w2 = fast_normal(heads * hidden, 0.05, 23);
  static std::vector<float> coordinates(entries * 2), activations(entries * hidden), bias(heads * entries), tau;
  for (index h = 0; h < heads; ++h) tau.push_back(0.05f * static_cast<float>(h + 1));
  auto const make_bias = [](cpu_policy const& on) {
    swin_v2_bias(on, shape{8, 8}, shape{8, 8}, view(w1.data(), hidden, 2), view(b1), view(w2.data(), heads, hidden),
                 view(coordinates.data(), entries, 2), view(activations.data(), entries, hidden), view(bias.data(), heads, entries));
  };
  auto const of_offset = [](index h, index dy, index dx) {
    auto const spaced = [](index d) { return std::copysign(std::log2(1 + std::abs(8. * static_cast<double>(d) / 7)) / 3, d); };
    double sum = 0;
    for (index n = 0; n < hidden; ++n)
      sum += wide(w2[at(h * hidden + n)]) *
             std::max(0., wide(w1[at(2 * n)]) * spaced(dy) + wide(w1[at(2 * n + 1)]) * spaced(dx) + wide(b1[at(n)]));
    return 16 / (1 + std::exp(-sum));
  };
  add(
      "swin_v2_bias", pixels, 2. * entries * hidden * (2 + heads),
      [=](problem const&) {
        for (index h : sample(heads, 3))
          for (index y : sample(15, 4))
            for (index x : sample(15, 4))
              if (!(std::abs(entry(bias, h, 15, y, x) - of_offset(h, y - 7, x - 7)) < 1e-4)) return false;
        return true;
      },
      [=](cpu_policy const& on, problem&) { make_bias(on); });

  make_bias(cpu);
  auto const window = [](index a) { return (a + 4) / 8; };
  add_formula(
      "swin_v2", pixels,
      {.sees = [=](index, index i, index j) { return window(i / side) == window(j / side) && window(i % side) == window(j % side); },
       .score =
           [](problem const& x, index h, index i, index j, double) {
             auto const q = x.q[h][i], k = x.k[h][j];
             return dot(q, k) / std::sqrt(dot(q, q) * dot(k, k)) / wide(tau[at(h)]) +
                    entry(bias, h, 15, i / side - j / side + 7, i % side - j % side + 7);
           }},
      [](cpu_policy const& on, problem& x) {
        swin_v2(on, x.q, x.k, x.v, x.out, window_partition{image, shape{8, 8}, shape{4, 4}}, tau, view(bias.data(), heads, entries));
      },
      heads * std::pow(6. * 8 * 8 + 2 * 4 * 4, 2));
}

void add_neighborhoods(inputs const& pixels) {
  // Blocks of 8 with a halo of 3.
  static constexpr index most = 8 + 3 - 1, offsets = 2 * most + 1;
  static std::vector<float> r = fast_normal(2 * offsets * dim, 0.2, 31), terms(heads * side * side * 2 * offsets);
  static tensor_view<float const, 2> const rows = view(r.data(), offsets, dim), columns = view(r.data() + offsets * dim, offsets, dim);
  auto const near_block = [](index a, index b) { return b >= a / 8 * 8 - 3 && b < a / 8 * 8 + 8 + 3; };
  add_formula(
      "halonet", pixels,
      {.sees = [=](index, index i, index j) { return near_block(i / side, j / side) && near_block(i % side, j % side); },
       .score =
           [](problem const& x, index h, index i, index j, double s) {
             return s + dot(x.q[h][i], rows[j / side - i / side + most]) + dot(x.q[h][i], columns[j % side - i % side + most]);
           }},
      [](cpu_policy const& on, problem& x) {
        halonet(on, x.q, x.k, x.v, x.out, halo{image, shape{8, 8}, shape{3, 3}}, rows, columns,
                view(terms.data(), heads, side * side, 2 * offsets));
      },
      heads * std::pow(8. * (5 * 14 + 2 * 11), 2), 2. * heads * side * side * dim * 2 * offsets);

  // 7 x 7 neighbors, two apart; at a border the window moves inwards.
  static std::vector<float> const bias = fast_normal(heads * 13 * 13, 1, 32);
  auto const neighbors = [](index a, index b) {
    index const first = std::clamp<index>(a / 2 - 3, 0, side / 2 - 7);
    return a % 2 == b % 2 && b / 2 >= first && b / 2 < first + 7;
  };
  add_formula(
      "medvit_v2", pixels,
      {.sees = [=](index, index i, index j) { return neighbors(i / side, j / side) && neighbors(i % side, j % side); },
       .score = [](problem const&, index h, index i, index j,
                   double s) { return s + entry(bias, h, 13, (i / side - j / side) / 2 + 6, (i % side - j % side) / 2 + 6); }},
      [](cpu_policy const& on, problem& x) { medvit_v2(on, x.q, x.k, x.v, x.out, image, 7, 2, view(bias.data(), heads, 169)); },
      heads * side * side * 49);
}

/// 192 frames at eight places of an image; global ones that are near too count twice.
void add_video() {
  auto const close = [](index i, index j) { return std::abs(i - j) <= 24; };
  auto const global = [](index j) { return j % 12 == 0; };
  inputs const video({.heads = 64, .tokens = 192, .dim = 64});
  double both = 0;
  for (index i = 0; i < 192; ++i)
    for (index j = 0; j < 192; ++j) both += (close(i, j) ? 1 : 0) + (global(j) ? 1 : 0);
  add_formula(
      "video_infinity", video,
      {.sees = [=](index, index i, index j) { return close(i, j) || global(j); },
       .score = [=](problem const&, index, index i, index j, double s) { return s + (close(i, j) && global(j) ? std::log(2.) : 0); }},
      [](cpu_policy const& on, problem& x) { video_infinity(on, x.q, x.k, x.v, x.out, 24, 16); }, 64 * both);
}

/// 4096 points in groups of 64, windows of 9 x 9 of a plane of 360 x 360.
void add_points() {
  static constexpr index points = 4096, size = 64;
  static constexpr shape plane{360, 360}, window{9, 9};
  static std::vector<std::int32_t> xy, order(points), stands(points);
  static std::vector<std::int64_t> keys(points);
  test::rng random(41);
  for (index i = 0; i < 2 * points; ++i) xy.push_back(static_cast<std::int32_t>(random.integer(0, 359)));
  auto const sort = [] { flatformer_order(view(xy.data(), points, 2), plane, window, flatformer_axis::x, false, view(keys), view(order)); };
  auto const key = [](index i) {
    index const x = xy[at(2 * i)], y = xy[at(2 * i + 1)], row = 2 * (360 / 9 + 1);
    index const turn = y / 9 % 2 == 0 ? 1 : -1, inner = x % 9 % 2 == 0 ? 1 : -1;
    return (row * (y / 9) + turn * (x / 9)) * 4 * 9 * 9 + turn * (2 * 9 * (x % 9) + inner * (y % 9));
  };
  inputs const data({.heads = heads, .tokens = points, .dim = 16});
  add(
      "flatformer_order", data, 0,
      [=](problem const&) {
        auto const misplaced = [=](index a, index b) { return std::pair(key(a), a) >= std::pair(key(b), b); };
        return std::adjacent_find(order.begin(), order.end(), misplaced) == order.end();
      },
      [=](cpu_policy const&, problem&) { sort(); });

  sort();
  for (index p = 0; p < points; ++p) stands[at(order[at(p)])] = static_cast<std::int32_t>(p);
  add_formula(
      "flatformer", data, {.sees = [](index, index i, index j) { return stands[at(i)] / size == stands[at(j)] / size; }},
      [](cpu_policy const& on, problem& x) { flatformer(on, x.q, x.k, x.v, x.out, order, size); }, heads * points * size);
}

/// 1024 voxels in windows of 64, signals of place and color with 8 steps to a window: tables of 16 entries an axis.
void add_voxels() {
  static constexpr index voxels = 1024, size = 64, axes = 6, all = 16 * axes, n = 16;
  static std::vector<std::int32_t> order, starts, signals;
  static std::vector<std::int32_t> const steps(axes, 16);
  test::rng random(51);
  for (std::int32_t i = 0; i < voxels; ++i) order.push_back(static_cast<std::int32_t>(i * 5 % voxels));
  for (std::int32_t w = 0; w <= voxels; w += size) starts.push_back(w);
  for (index i = 0; i < voxels * axes; ++i) signals.push_back(static_cast<std::int32_t>(random.integer(0, 7)));
  static std::vector<float> tables = fast_normal(3 * heads * all * n, 0.3, 52), memory(2 * heads * voxels * (all + n + all));
  static std::vector<std::int32_t> slots(voxels * axes);
  auto const table = [](index which) -> tensor_view<float const, 3> {
    return view(tables.data() + which * heads * all * n, heads, all, n);
  };
  static std::vector<std::int32_t> window(voxels);
  for (index p = 0; p < voxels; ++p) window[at(order[at(p)])] = static_cast<std::int32_t>(p / size);
  auto const row = [](index a, index i, index j) { return 16 * a + signals[at(i * axes + a)] - signals[at(j * axes + a)] + 8; };
  formula const scores{.sees = [](index, index i, index j) { return window[at(i)] == window[at(j)]; },
                       .score =
                           [=](problem const& x, index h, index i, index j, double s) {
                             for (index a = 0; a < axes; ++a)
                               s += dot(x.q[h][i], table(0)[h][row(a, i, j)]) / 4 + dot(x.k[h][j], table(1)[h][row(a, i, j)]);
                             return s;
                           }};
  inputs const data({.heads = heads, .tokens = voxels, .dim = n});
  add(
      "swin3d", data, flops(data.n, heads * voxels * size) + 2. * heads * voxels * all * (2 * n + n),
      [=](problem const& x) {
        return right(x, [&](index h, index i) {
          auto const w = weights(x, scores, h, i);
          auto out = weighed(x, w, h);
          for (index j = 0; j < voxels; ++j)
            for (index a = 0; a < axes && w[at(j)] > 0; ++a)
              for (index d = 0; d < n; ++d) out[at(d)] += w[at(j)] * wide(table(2)(h, row(a, i, j), d));
          return out;
        });
      },
      [=](cpu_policy const& on, problem& x) {
        float* const terms = memory.data();
        float* const values = terms + 2 * heads * voxels * all;
        swin3d(
            on, x.q, x.k, x.v, x.out, point_groups{order, starts}, view(signals.data(), voxels, axes), view(steps),
            {table(0), table(1), table(2)},
            {view(terms, heads, voxels, all), view(terms + heads * voxels * all, heads, voxels, all), view(values, heads, voxels, n + all),
             view(values + heads * voxels * (n + all), heads, voxels, n + all), view(slots.data(), voxels, axes)});
      });
}

}  // namespace

void register_benchmarks() {
  inputs const pixels({.heads = heads, .tokens = side * side, .dim = dim});
  add_windows(pixels);
  add_swin_v2(pixels);
  add_neighborhoods(pixels);
  add_video();
  add_points();
  add_voxels();
}

}  // namespace tern::bench

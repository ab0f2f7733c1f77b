// SPDX-License-Identifier: Apache-2.0
// Published attention over images against each paper's formula.
#include "formula.hpp"

#include <tern/attention/systems/cswin.hpp>
#include <tern/attention/systems/halonet.hpp>
#include <tern/attention/systems/maxvit.hpp>
#include <tern/attention/systems/medvit_v2.hpp>
#include <tern/attention/systems/swin_v2.hpp>
#include <tern/attention/systems/video_infinity.hpp>

namespace tern::test {
namespace {

TEST_CASE("cswin: stripes half by half, and what LePE adds") {
  rng r(21);
  for (index kv_heads : {4, 2})
    for (auto [height, width, stripe] : {std::array<index, 3>{6, 8, 2}, {7, 5, 3}, {2, 3, 1}, {12, 12, 12}}) {
      index const columns = width;
      call<float> c(r, {4, kv_heads, height * width, height * width, 20, 24, 1});
      auto run = [&](auto const&... options) {
        cswin(cpu, c.q.view, c.k.view, c.v.view, c.out.view, shape{height, columns}, stripe, options...);
      };
      run(log_sum_exp{c.lse});
      auto want = attend(c, {.sees = [=](index h, index i, index j) {
                           return h < 2 ? i % columns / stripe == j % columns / stripe : i / columns / stripe == j / columns / stripe;
                         }});
      c.check(want);
      if (stripe >= height && stripe >= width) c.check(c.want());
      cache<float> lepe(r, 4, height * width, 24);
      run(lepe.view, log_sum_exp{c.lse});
      auto const added = lepe.values();
      for (std::size_t n = 0; n < added.size(); ++n) {
        want.value[n] += added[n];
        want.magnitude[n] += std::abs(added[n]);
      }
      c.check(want);
    }
  call<float> odd(r, {3, 3, 4, 4, 8, 8, 1});
  CHECK_THROWS_AS(cswin(cpu, odd.q.view, odd.k.view, odd.v.view, odd.out.view, shape{2, 2}, 1, log_sum_exp{odd.lse}), error);
}

TEST_CASE("halonet: blocks with a halo and q.r, also of strided queries") {
  rng r(22);
  for (index stride : {1, 2})
    for (auto [height, width, block, reach] : {std::array<index, 4>{8, 12, 4, 1}, {7, 5, 2, 2}, {6, 6, 6, 3}}) {
      index const fine = width, h2 = (height + stride - 1) / stride, coarse = (width + stride - 1) / stride;
      call<float> c(r, {4, 2, h2 * coarse, height * width, 16, 12, 1});
      index const most = block + reach - 1, entries = 2 * most + 1;
      auto const rows = r.normal<float>(entries * 16, 0.3), columns = r.normal<float>(entries * 16, 0.3);
      std::vector<float> terms(at(4 * h2 * coarse * 2 * entries));
      halonet(cpu, c.q.view, c.k.view, c.v.view, c.out.view,
              halo{shape{height, fine}, shape{block, block}, shape{reach, reach}, shape{stride, stride}}, view(rows.data(), entries, 16),
              view(columns.data(), entries, 16), view(terms.data(), 4, h2 * coarse, 2 * entries), log_sum_exp{c.lse});
      auto const q = c.q.values();
      auto dot = [&, tokens = h2 * coarse](index h, index i, std::vector<float> const& table, index row, bool absolute) {
        double sum = 0;
        for (index d = 0; d < 16; ++d) {
          double const product = q[at((h * tokens + i) * 16 + d)] * static_cast<double>(table[at(row * 16 + d)]);
          sum += absolute ? std::abs(product) : product;
        }
        return sum;
      };
      auto terms_of = [&, h_stride = stride](index h, index i, index j, bool absolute) {
        index const dy = j / fine - i / coarse * h_stride, dx = j % fine - i % coarse * h_stride;
        return dot(h, i, rows, dy + most, absolute) + dot(h, i, columns, dx + most, absolute);
      };
      auto want = attend(c, {.sees =
                                 [=](index, index i, index j) {
                                   index const y = i / coarse * stride / block * block, x = i % coarse * stride / block * block;
                                   index const ky = j / fine, kx = j % fine;
                                   return ky >= y - reach && ky < y + block + reach && kx >= x - reach && kx < x + block + reach;
                                 },
                             .bias = [&](index h, index i, index j) { return terms_of(h, i, j, false); },
                             // the errors of matmul, as attention's bound counts them: times sqrt(dim)
                             .size = [&](index h, index i, index j) { return matmul.accuracy(16) / 4 * terms_of(h, i, j, true); }});
      c.check(want);
    }
}

TEST_CASE("maxvit: blocks and grids with a relative bias") {
  rng r(23);
  for (index heads : {2, 4})
    for (auto [height, width, size] : {std::array<index, 3>{14, 7, 7}, {9, 10, 4}, {2, 3, 3}}) {
      index const columns = width, rows = height, n = size, side = 2 * n - 1;
      call<float> c(r, {heads, 2, rows * columns, rows * columns, 24, 16, 1});
      auto const bias = r.normal<float>(heads * side * side);
      auto run = [&](multi_axis which) {
        maxvit(cpu, c.q.view, c.k.view, c.v.view, c.out.view, shape{rows, columns}, shape{n, n}, which,
               view(bias.data(), heads, side * side), log_sum_exp{c.lse});
      };
      auto entry = [&](index h, index dy, index dx) { return static_cast<double>(bias[at((h * side + dy + n - 1) * side + dx + n - 1)]); };
      run(multi_axis::block);
      c.check(attend(
          c, {.sees = [=](index, index i, index j) { return i / columns / n == j / columns / n && i % columns / n == j % columns / n; },
              .bias = [=](index h, index i, index j) { return entry(h, i / columns - j / columns, i % columns - j % columns); }}));
      run(multi_axis::grid);
      index const sy = (rows + n - 1) / n, sx = (columns + n - 1) / n;
      c.check(attend(
          c, {.sees = [=](index, index i, index j) { return i / columns % sy == j / columns % sy && i % columns % sx == j % columns % sx; },
              .bias = [=](index h, index i,
                          index j) { return entry(h, (i / columns - j / columns) / sy, (i % columns - j % columns) / sx); }}));
    }
}

/// Each row divided by its length, and rows of head h by divisor[h] besides.
std::vector<double> directions(std::vector<double> x, index rows_of_head, index dim, std::vector<float> const& divisor) {
  for (std::size_t row = 0; row < x.size() / at(dim); ++row) {
    double squares = 0;
    for (std::size_t d = 0; d < at(dim); ++d) squares += x[row * at(dim) + d] * x[row * at(dim) + d];
    double const by = std::max(std::sqrt(squares), 1e-12) * (divisor.empty() ? 1 : static_cast<double>(divisor[row / at(rows_of_head)]));
    for (std::size_t d = 0; d < at(dim); ++d) x[row * at(dim) + d] /= by;
  }
  return x;
}

TEST_CASE("swin_v2: cosine attention in shifted windows with a continuous position bias") {
  rng r(24);
  for (auto [height, width, window, shift] : {std::array<index, 4>{8, 8, 4, 2}, {7, 5, 3, 1}, {6, 9, 9, 0}}) {
    index const columns = width, n = window, s = shift, side = 2 * n - 1, hidden = 24, pretrained = 5;
    call<float> c(r, {4, 2, height * columns, height * columns, 20, 16, 1});
    std::vector<float> const tau{0.01f, 0.1f, 0.5f, 1.f};
    auto const w1 = r.normal<float>(hidden * 2), b1 = r.normal<float>(hidden), w2 = r.normal<float>(4 * hidden, 0.3);
    std::vector<float> coordinates(at(side * side * 2)), activations(at(side * side * hidden)), bias(at(4 * side * side));
    swin_v2_bias(cpu, shape{n, n}, shape{pretrained, pretrained}, view(w1.data(), hidden, 2), view(b1), view(w2.data(), 4, hidden),
                 view(coordinates.data(), side * side, 2), view(activations.data(), side * side, hidden),
                 view(bias.data(), 4, side * side));
    auto spaced = [&](index offset) {
      double const d = 8. * static_cast<double>(offset) / static_cast<double>(pretrained - 1);
      return (d < 0 ? -1 : 1) * std::log2(1 + std::abs(d)) / std::log2(8.);
    };
    auto cpb = [&](index h, index dy, index dx) {
      double sum = 0;
      for (index m = 0; m < hidden; ++m)
        sum += static_cast<double>(w2[at(h * hidden + m)]) *
               std::max(0., static_cast<double>(w1[at(2 * m)]) * spaced(dy) + static_cast<double>(w1[at(2 * m + 1)]) * spaced(dx) +
                                static_cast<double>(b1[at(m)]));
      return 16 / (1 + std::exp(-sum));
    };
    for (index h = 0; h < 4; ++h)
      for (index dy = 1 - n; dy < n; ++dy)
        for (index dx = 1 - n; dx < n; ++dx)  // sums of about 20 terms of size 10, times 16/4 of the sigmoid's slope
          REQUIRE(std::abs(static_cast<double>(bias[at((h * side + dy + n - 1) * side + dx + n - 1)]) - cpb(h, dy, dx)) <
                  0x1p-24 * 16 * 200);
    swin_v2(cpu, c.q.view, c.k.view, c.v.view, c.out.view, window_partition{shape{height, columns}, shape{n, n}, shape{s, s}}, tau,
            view(bias.data(), 4, side * side), log_sum_exp{c.lse});
    auto same = [=](index x, index y) { return s == 0 ? x / n == y / n : (x + n - s) / n == (y + n - s) / n; };
    c.check(attend(c.c, directions(c.q.values(), c.c.tokens, 20, tau), directions(c.k.values(), c.c.keys, 20, {}), c.v.values(),
                   {.sees = [=](index, index i, index j) { return same(i / columns, j / columns) && same(i % columns, j % columns); },
                    .bias =
                        [&](index h, index i, index j) {
                          return static_cast<double>(
                              bias[at((h * side + i / columns - j / columns + n - 1) * side + i % columns - j % columns + n - 1)]);
                        },
                    .scale = 1,
                    // the lengths of q and k have errors of their own, relative to the score: 1 / tau at most
                    .size = [&](index h, index, index) { return 16. + 1 / static_cast<double>(tau[at(h)]); }}));
  }
}

TEST_CASE("medvit_v2: dilated neighborhoods with and without a bias") {
  rng r(25);
  for (auto [height, width, kernel, dilation] : {std::array<index, 4>{20, 11, 3, 2}, {9, 9, 5, 1}, {2, 3, 3, 1}, {6, 5, 7, 1}}) {
    index const rows = height, columns = width, K = kernel, D = dilation, side = 2 * K - 1;
    call<float> c(r, {2, 1, rows * columns, rows * columns, 16, 24, 1});
    auto const bias = r.normal<float>(2 * side * side);
    // NATTEN: where a window starts, for query x of n
    auto start = [=](index x, index n) {
      index const mine = (n - x % D + D - 1) / D, u = x / D;
      return x % D + D * std::max<index>(0, std::min(u - K / 2, mine - K));
    };
    auto near = [=](index x, index y, index n) { return y % D == x % D && y >= start(x, n) && y < start(x, n) + K * D; };
    formula f{
        .sees = [=](index, index i, index j) { return near(i / columns, j / columns, rows) && near(i % columns, j % columns, columns); }};
    medvit_v2(cpu, c.q.view, c.k.view, c.v.view, c.out.view, shape{rows, columns}, K, D, log_sum_exp{c.lse});
    c.check(attend(c, f));
    if (K >= rows && K >= columns && D == 1) c.check(c.want());
    medvit_v2(cpu, c.q.view, c.k.view, c.v.view, c.out.view, shape{rows, columns}, K, D, view(bias.data(), 2, side * side),
              log_sum_exp{c.lse});
    f.bias = [&](index h, index i, index j) {
      index const dy = (i / columns - j / columns) / D, dx = (i % columns - j % columns) / D;
      return static_cast<double>(bias[at((h * side + dy + K - 1) * side + dx + K - 1)]);
    };
    c.check(attend(c, f));
  }
}

TEST_CASE("video_infinity: frames near in time, and global ones") {
  rng r(26);
  for (index frames : {1, 6, 70, 200})
    for (auto [reach, count] : {std::array<index, 2>{24, 16}, {3, 4}, {0, 0}, {2, 300}}) {
      index const near = reach, global = count;
      call<float> c(r, {2, 2, frames, frames, 16, 16, 1});
      video_infinity(cpu, c.q.view, c.k.view, c.v.view, c.out.view, near, global, log_sum_exp{c.lse});
      index const step = global > 0 ? std::max<index>(frames / global, 1) : 1;
      // Both lists side by side: a frame that is in both counts twice.
      c.check(
          attend(c, {.sees = [=](index, index i, index j) { return std::abs(i - j) <= near || (j % step == 0 && j / step < global); },
                     .bias = [=](index, index i,
                                 index j) { return std::abs(i - j) <= near && j % step == 0 && j / step < global ? std::log(2.) : 0.; }}));
      if (near >= frames && global == 0) c.check(c.want());
    }
  for (index g = 0; g < 7; ++g) {
    auto const group = dual_scope{200, 24, 16}.group(0, 0, g);
    for (index i = 0; i < group.queries; ++i)
      for (index j = 0; j < group.keys; ++j)
        REQUIRE(group.covers(i, i + 1, j, j + 1) == (group.visible(i, j) ? coverage::all : coverage::none));
  }
}

}  // namespace
}  // namespace tern::test

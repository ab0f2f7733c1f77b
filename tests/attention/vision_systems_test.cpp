// SPDX-License-Identifier: Apache-2.0
// Published attention over images against each paper's formula.
#include "formula.hpp"

#include <tern/attention/systems/cswin.hpp>
#include <tern/attention/systems/halonet.hpp>
#include <tern/attention/systems/maxvit.hpp>

namespace tern::test {
namespace {

TEST_CASE("cswin: stripes half by half, and what LePE adds") {
  rng r(21);
  for (index kv_heads : {4, 2})
    for (auto [height, width, stripe] : {std::array<index, 3>{6, 8, 2}, {7, 5, 3}, {2, 3, 1}, {12, 12, 12}}) {
      index const columns = width;
      call<float> c(r, {4, kv_heads, height * width, height * width, 20, 24, 1});
      auto run = [&](auto const&... options) { cswin(cpu, c.q.view, c.k.view, c.v.view, c.out.view, shape{height, columns}, stripe, options...); };
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
      halonet(cpu, c.q.view, c.k.view, c.v.view, c.out.view, halo{shape{height, fine}, shape{block, block}, shape{reach, reach}, shape{stride, stride}},
              view(rows.data(), entries, 16), view(columns.data(), entries, 16), view(terms.data(), 4, h2 * coarse, 2 * entries),
              log_sum_exp{c.lse});
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
        maxvit(cpu, c.q.view, c.k.view, c.v.view, c.out.view, shape{rows, columns}, shape{n, n}, which, view(bias.data(), heads, side * side),
               log_sum_exp{c.lse});
      };
      auto entry = [&](index h, index dy, index dx) {
        return static_cast<double>(bias[at((h * side + dy + n - 1) * side + dx + n - 1)]);
      };
      run(multi_axis::block);
      c.check(attend(c, {.sees = [=](index, index i, index j) { return i / columns / n == j / columns / n && i % columns / n == j % columns / n; },
                         .bias = [=](index h, index i, index j) { return entry(h, i / columns - j / columns, i % columns - j % columns); }}));
      run(multi_axis::grid);
      index const sy = (rows + n - 1) / n, sx = (columns + n - 1) / n;
      c.check(attend(c, {.sees = [=](index, index i, index j) { return i / columns % sy == j / columns % sy && i % columns % sx == j % columns % sx; },
                         .bias = [=](index h, index i, index j) {
                           return entry(h, (i / columns - j / columns) / sy, (i % columns - j % columns) / sx);
                         }}));
    }
}

}  // namespace
}  // namespace tern::test

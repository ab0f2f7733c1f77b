// SPDX-License-Identifier: Apache-2.0
// HALO's three products against float64, with the transform by its definition and the worst case of what both sides round.
#include "layer.hpp"

#include <bit>

namespace tern::test::halo_rotation {
namespace {

std::size_t at(index i) { return static_cast<std::size_t>(i); }

/// Rows of x (rows, n) times H / sqrt(n) with H(i, j) = (-1)^(ones in i and j), n a power of two.
matrix turned(tensor_view<float const, 2> const& x) {
  index const rows = x.extent(0), n = x.extent(1);
  matrix y(at(rows * n));
  for (index r = 0; r < rows; ++r)
    for (index i = 0; i < n; ++i)
      for (index j = 0; j < n; ++j)
        y[at(r * n + i)] += (std::popcount(static_cast<unsigned>(i & j)) % 2 == 0 ? 1. : -1.) * static_cast<double>(x(r, j)) /
                            std::sqrt(static_cast<double>(n));
  return y;
}
/// By how much q8_0 may move a number: half a step of its block's scale, which is the largest / 127 rounded to f16.
double step(matrix const& x, index i) {
  double most = 0;
  for (index j = i / 32 * 32; j < i / 32 * 32 + 32; ++j) most = std::max(most, std::abs(x[at(j)]));
  return most * (1. / 254 + 0x1p-11) + 0x1p-25 * 127 + 1e-5 * most;
}

struct expected {
  matrix value, bound;
};
/// x (rows, k) w (n, k)^T and what rounding both to q8_0 after the turn can make of it.
expected product(tensor_view<float const, 2> const& x, tensor_view<float const, 2> const& w) {
  index const rows = x.extent(0), n = w.extent(0), k = x.extent(1);
  matrix const tx = turned(x), tw = turned(w);
  expected e;
  for (index r = 0; r < rows; ++r)
    for (index i = 0; i < n; ++i) {
      double sum = 0, bound = 0;
      for (index c = 0; c < k; ++c) {
        sum += static_cast<double>(x(r, c)) * static_cast<double>(w(i, c));
        double const ex = step(tx, r * k + c), ew = step(tw, i * k + c);
        bound += std::abs(tx[at(r * k + c)]) * ew + std::abs(tw[at(i * k + c)]) * ex + ex * ew;
      }
      e.value.push_back(sum);
      e.bound.push_back(bound);
    }
  return e;
}
double square_error(std::vector<float> const& got, matrix const& want) {
  double sum = 0;
  for (std::size_t i = 0; i < got.size(); ++i) sum += std::pow(static_cast<double>(got[i]) - want[i], 2);
  return sum;
}

}  // namespace

TEST_CASE("halo_blocks: the three products of training, of views as they lie, and what outliers cost without it") {
  rng r(131);
  index const tokens = 64, n = 32, k = 256;
  auto w = r.normal(n * k, 0.1), x = r.normal(tokens * k), g = r.normal(tokens * n);
  for (index i = 0; i < tokens; ++i) x[at(i * k + 77)] *= 60;  // a channel of outliers, and one of the gradient's
  for (index i = 0; i < tokens; ++i) g[at(i * n + 5)] *= 40;
  for (index c = 0; c < k; ++c) x[at(9 * k + c)] *= 30;  // a token
  tensor_view<float const, 2> const xs = view(std::as_const(x).data(), tokens, k), ws = view(std::as_const(w).data(), n, k),
                                    gs = view(std::as_const(g).data(), tokens, n);
  struct form {
    char const* name;
    tensor_view<float const, 2> x, w;
  };
  for (form const& f : {form{"y = x w^T", xs, ws}, form{"dx = dy w", gs, ws.transposed(0, 1)},
                        form{"dw = dy^T x", gs.transposed(0, 1), xs.transposed(0, 1)}}) {
    INFO(f.name);
    index const shared = f.x.extent(1);
    auto const want = product(f.x, f.w);
    auto const run = [&](block_array const& q, auto const&... turn) {
      std::vector<float> y(want.value.size());
      matmul(cpu, f.x, q, view(y.data(), f.x.extent(0), f.w.extent(0)), compute::int8, turn...);
      return y;
    };
    auto const y = run(halo_blocks(cpu, f.w, weight_type::q8_0), hadamard_in{shared});
    CHECK(compare(std::span<float const>(y), want.value, want.bound, 1));
    // Without the turn the block of an outlier has a step as large as the others' numbers.
    CHECK(square_error(y, want.value) < 0.5 * square_error(run(round_to_nearest(cpu, f.w, weight_type::q8_0)), want.value));
  }
}

TEST_CASE("halo_blocks: what is rounded is the turned matrix, whole or by blocks, whatever the threads") {
  rng r(132);
  thread_pool pool(3);
  auto const w = r.normal(7 * 128);
  auto const ws = view(w.data(), 7, 128);
  for (index block : {0, 32}) {
    std::vector<float> expect(w.size());
    for (index i = 0; i < 7; ++i)
      for (index b = 0; b < 128; b += block > 0 ? block : 128) {
        index const width = block > 0 ? block : 128;
        auto const part = turned(ws.slice(0, i, i + 1).slice(1, b, b + width));
        for (index j = 0; j < width; ++j) expect[at(i * 128 + b + j)] = static_cast<float>(part[at(j)]);
      }
    index last = 0;
    auto const q = halo_blocks(cpu.on(pool), ws, weight_type::q8_0, {.block = block, .progress = [&](index done, index total) {
                                                                       CHECK(total == 7);
                                                                       last = done;
                                                                     }});
    CHECK(last == 7);
    auto const got = decoded(q);
    for (std::size_t i = 0; i < got.size(); ++i) {
      INFO(i);
      CHECK(std::abs(static_cast<double>(got[i]) - static_cast<double>(expect[i])) <= step(widened(expect), static_cast<index>(i)));
    }
    CHECK(bytes_of(q) == bytes_of(halo_blocks(cpu.on(serial), ws, weight_type::q8_0, {.block = block})));
  }
  CHECK_THROWS_WITH(halo_blocks(cpu, ws, weight_type::f32), "halo_blocks: type is 0, expected a block format");
  CHECK_THROWS_AS(halo_blocks(cpu, view(w.data(), 1, 864), weight_type::q8_0), error);
}

}  // namespace tern::test::halo_rotation

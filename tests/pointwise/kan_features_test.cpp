// SPDX-License-Identifier: Apache-2.0
#include <tern/pointwise/kan_features.hpp>

#include <tern/matmul/matmul.hpp>

#include "cases.hpp"

namespace tern::test {
namespace {

std::size_t at(index i) { return static_cast<std::size_t>(i); }

/// B-splines of degree p over knots low + (i - p) h by the recursion of Cox and de Boor, half-open cells.
double cox_de_boor(cubic_splines const& s, index b, int p, double x) {
  double const h = (static_cast<double>(s.high) - static_cast<double>(s.low)) / static_cast<double>(s.cells);
  auto const knot = [&](index i) { return static_cast<double>(s.low) + static_cast<double>(i - 3) * h; };
  if (p == 0) return knot(b) <= x && x < knot(b + 1);
  return (x - knot(b)) / (knot(b + p) - knot(b)) * cox_de_boor(s, b, p - 1, x) +
         (knot(b + p + 1) - x) / (knot(b + p + 1) - knot(b + 1)) * cox_de_boor(s, b + 1, p - 1, x);
}
double by_definition(cubic_splines const& s, index b, double x) { return cox_de_boor(s, b, 3, x); }
double by_definition(gaussians const& g, index b, double x) {
  double const h = (static_cast<double>(g.high) - static_cast<double>(g.low)) / static_cast<double>(g.centers - 1);
  double const d = (x - (static_cast<double>(g.low) + static_cast<double>(b) * h)) / h;
  return std::exp(-d * d);
}
double silu(double x) { return x / (1 + std::exp(-x)); }

template <class X, class F, class Basis>
void check(Basis const& basis, index n, index misalignment) {
  rng r(static_cast<std::uint64_t>(n));
  gapped<X> const x(r, 2, 3, n, misalignment, 1.5);
  index const count = basis.count();
  gapped<F> f(2, 3, (1 + count) * n, misalignment);
  kan_features(cpu, x.view, basis, f.view);
  auto const values = x.values();
  std::vector<double> want, error;
  for (index row = 0; row < 6; ++row)
    for (index b = -1; b < count; ++b)
      for (index i = 0; i < n; ++i) {
        double const v = values[at(row * n + i)];
        want.push_back(b < 0 ? silu(v) : by_definition(basis, b, v));
        error.push_back(b < 0 ? 11 * 0x1p-24 * std::abs(silu(v)) : kan_features.error(basis, v));
      }
  INFO("n " << n << " misalignment " << misalignment << " count " << count);
  CHECK(compare(f.view, want, error, 1));
  CHECK(f.intact());
}

}  // namespace

TEST_CASE("kan_features: splines and Gaussians by their definitions, all types and lengths", "[pointwise]") {
  each_row_length([](index n, index misalignment) {
    check<float, float>(cubic_splines{}, n, misalignment);
    check<float, float>(cubic_splines{-0.7f, 2.3f, 1}, n, misalignment);
    check<f16, bf16>(cubic_splines{-3, 3, 11}, n, misalignment);
    check<float, float>(gaussians{}, n, misalignment);
    check<bf16, f16>(gaussians{-1, 0.5f, 2}, n, misalignment);
  });
}

TEST_CASE("kan_features: within the grid splines add up to 1, at its knots too; special values", "[pointwise]") {
  std::vector<float> x = {-1, -0.6f, -0.2f, 0, 0.2f, 0.6f, 0.9999f, INFINITY, -INFINITY, NAN, 1e30f, 100};
  index const n = static_cast<index>(x.size()), count = cubic_splines{}.count();
  std::vector<float> f(at((1 + count) * n));
  kan_features(cpu, x, cubic_splines{}, f);
  for (index i = 0; i < n; ++i) {
    float sum = 0;
    for (index b = 0; b < count; ++b) sum += f[at((1 + b) * n + i)];
    if (i < 7) CHECK(std::abs(sum - 1) < 1e-6f);
    if (i == 9) CHECK(std::isnan(sum));
    if (i > 6 && i != 9) CHECK(sum == 0.f);
  }
}

TEST_CASE("kan_features: a layer is one product, the same bits on any threads, and what is wrong is named", "[pointwise]") {
  rng r(5);
  index const rows = 300, n = 40, m = 7;
  cubic_splines const basis{-2, 2, 6};
  index const width = (1 + basis.count()) * n;
  auto const x = r.normal(rows * n), w = r.normal(m * width);
  std::vector<float> f(at(rows * width)), many = f, y(at(rows * m));
  kan_features(cpu.on(tern::serial), tern::view(x.data(), rows, n), basis, tern::view(f.data(), rows, width));
  kan_features(cpu.on(several_threads()), tern::view(x.data(), rows, n), basis, tern::view(many.data(), rows, width));
  CHECK(f == many);
  matmul(cpu, tern::view(f.data(), rows, width), tern::view(w.data(), m, width), tern::view(y.data(), rows, m));
  std::vector<double> want, error;
  for (index i = 0; i < rows; ++i)
    for (index o = 0; o < m; ++o) {
      double sum = 0, bound = 0, size = 0;
      for (index j = 0; j < n; ++j)
        for (index b = -1; b < basis.count(); ++b) {
          double const v = static_cast<double>(x[at(i * n + j)]), c = static_cast<double>(w[at(o * width + (1 + b) * n + j)]);
          double const e = b < 0 ? silu(v) : by_definition(basis, b, v);
          sum += c * e;
          size += std::abs(c * e);
          bound += std::abs(c) * (b < 0 ? 11 * 0x1p-24 * std::abs(e) : kan_features.error(basis, v));
        }
      want.push_back(sum);
      error.push_back(bound + matmul_fn::accuracy(width) * 0x1p-24 * size);
    }
  CHECK(compare(std::span<float const>(y), want, error, 1));

  auto const xs = tern::view(x.data(), rows, n);
  CHECK_THROWS_WITH(kan_features(cpu, xs, basis, tern::view(f.data(), rows, width - 1)),
                    "kan_features: the extent of f's rows is 399, expected (1 + basis.count()) x.extent = 400");
  CHECK_THROWS_WITH(kan_features(cpu, xs, cubic_splines{-1, 1, 0}, tern::view(f.data(), rows, 4 * n)),
                    "kan_features: cubic_splines.cells is 0, expected at least 1");
  CHECK_THROWS_WITH(kan_features(cpu, xs, gaussians{-1, 1, 1}, tern::view(f.data(), rows, 2 * n)),
                    "kan_features: gaussians.centers is 1, expected at least 2");
  CHECK_THROWS_WITH(kan_features(cpu, xs, cubic_splines{1, 1, 6}, tern::view(f.data(), rows, width)),
                    "kan_features: low is not below high, expected a range");
  CHECK_THROWS_WITH(kan_features(cpu, xs, cubic_splines{-3e38f, 3e38f, 6}, tern::view(f.data(), rows, width)),
                    "kan_features: high - low is infinite, expected a range");
  CHECK_THROWS_AS(kan_features(cpu, xs, basis, tern::view(f.data(), rows - 1, width)), tern::error);
}

}  // namespace tern::test

// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "compare.hpp"

#include <tern/pointwise/hadamard.hpp>

#include <bit>
#include <cmath>

namespace tern::test {

namespace {
/// The transform's matrix times sqrt(n), by transforming unit vectors.
std::vector<double> matrix_of(index n) {
  std::vector<float> eye(static_cast<std::size_t>(n * n)), out(eye.size());
  for (index i = 0; i < n; ++i) eye[static_cast<std::size_t>(i * n + i)] = 1.f;
  hadamard(cpu, view(eye.data(), n, n), view(out.data(), n, n));
  std::vector<double> h(out.size());
  for (index i = 0; i < n; ++i)
    for (index j = 0; j < n; ++j)
      h[static_cast<std::size_t>(j * n + i)] =
          static_cast<double>(out[static_cast<std::size_t>(i * n + j)]) * std::sqrt(static_cast<double>(n));
  return h;
}
/// Its entries, which are 1 and -1: rounded once, as the tests read them many times.
std::vector<int> signs_of(std::vector<double> const& h) {
  std::vector<int> sign;
  for (double e : h) sign.push_back(static_cast<int>(std::round(e)));
  return sign;
}
}  // namespace

TEST_CASE("Hadamard matrices have entries of one size and orthogonal rows") {
  for (index n : {1, 2, 4, 8, 16, 32, 64, 256, 512, 12, 24, 20, 28, 36, 44, 60, 96, 144, 576, 224}) {
    INFO("n " << n);
    auto const h = matrix_of(n);
    double worst = 0;
    for (double e : h) worst = std::max(worst, std::abs(std::abs(e) - 1));
    CHECK(worst < 1e-5);
    auto const signs = signs_of(h);
    int off = 0;
    for (index i = 0; i < n; ++i)
      for (index j = 0; j < i; ++j) {
        int const *const a = signs.data() + i * n, *const b = signs.data() + j * n;
        int dot = 0;
        for (index k = 0; k < n; ++k) dot += a[k] * b[k];
        off = std::max(off, std::abs(dot));
      }
    CHECK(off == 0);
    if (std::has_single_bit(static_cast<std::size_t>(n)))
      for (index i = 0; i < n; ++i)
        for (index j = 0; j < n; ++j)
          REQUIRE(signs[static_cast<std::size_t>(i * n + j)] == (std::popcount(static_cast<std::size_t>(i & j)) % 2 == 0 ? 1 : -1));
  }
}

TEST_CASE("hadamard of rows: against sums in f64, in blocks, and undone") {
  rng r(31);
  for (index n : {7 * 4, 64, 192, 576, 1024, 4096})
    for (index block : {index{0}, n / 2}) {
      index const rows = 5, each = block > 0 ? block : n;
      if (each % 4 != 0) continue;
      auto const x = r.normal(rows * n);
      auto const signs = signs_of(matrix_of(each));
      std::vector<double> want, magnitude;
      for (index i = 0; i < rows; ++i)
        for (index j = 0; j < n; ++j) {
          index const start = i * n + j / each * each;
          double sum = 0, square = 0;
          for (index k = 0; k < each; ++k) {
            double const e = static_cast<double>(x[static_cast<std::size_t>(start + k)]);
            sum += signs[static_cast<std::size_t>(j % each * each + k)] * e;
            square += e * e;
          }
          want.push_back(sum / std::sqrt(static_cast<double>(each)));
          magnitude.push_back(std::sqrt(square));
        }
      guarded<float> y(rows * n, 1);
      hadamard(cpu, view(x.data(), rows, n), view(y.data(), rows, n), block);
      INFO("n " << n << " block " << block);
      CHECK(compare(y.span(), want, magnitude, hadamard.error(each)));
      hadamard_inverse(cpu, view(y.data(), rows, n), view(y.data(), rows, n), block);
      std::vector<double> back(x.begin(), x.end());
      CHECK(compare(y.span(), back, magnitude, 2 * hadamard.error(each)));
      CHECK(y.intact());
    }
}

TEST_CASE("hadamard says what is wrong") {
  float x[52] = {};
  CHECK_THROWS_WITH(
      hadamard(cpu, view(x, 1, 52), view(x, 1, 52)),
      "hadamard: the length of a row or block is 52, expected a power of two, or one of at least 4 times 3, 5, 7, 9, 11 or 15");
  CHECK_THROWS_WITH(hadamard(cpu, view(x, 1, 6), view(x, 1, 6)), Catch::Contains("the length of a row or block is 6"));
  CHECK_THROWS_WITH(hadamard(cpu, view(x, 1, 32), view(x, 1, 32), 5), "hadamard: block is 5, expected a divisor of the rows' length = 32");
}

}  // namespace tern::test

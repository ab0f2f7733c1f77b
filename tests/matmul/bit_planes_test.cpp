// SPDX-License-Identifier: Apache-2.0
// Integers in planes of bits against integer loops.
#include "catch.hpp"
#include "compare.hpp"
#include "message.hpp"

#include <tern/matmul/bit_planes.hpp>

namespace tern::test::planes {
namespace {

/// Random integers (rows, k) of some bits, and their planes.
template <bit_code code>
struct integers {
  int count;
  index rows, k;
  std::vector<int> value;
  std::vector<std::uint64_t> memory;
  std::vector<float> scales;

  /// `extreme`: only the largest magnitudes.
  integers(rng& r, int planes, index n, index columns, bool extreme = false)
      : count(planes),
        rows(n),
        k(columns),
        value(static_cast<std::size_t>(n * columns)),
        memory(static_cast<std::size_t>(planes * n * ((columns + 63) / 64))),
        scales(r.normal(n)) {
    for (index i = 0; i < n; ++i)
      for (index j = 0; j < columns; ++j) {
        int const bits = extreme ? (code == bit_code::bipolar ? (1 << planes) - 1 : 1 << (planes - 1))
                                 : static_cast<int>(r.bits() & ((1u << planes) - 1));
        int& v = value[static_cast<std::size_t>(i * columns + j)];
        v = code == bit_code::bipolar ? 2 * bits - ((1 << planes) - 1) : bits < (1 << (planes - 1)) ? bits : bits - (1 << planes);
        for (int p = 0; p < planes; ++p)
          memory[static_cast<std::size_t>((p * n + i) * ((columns + 63) / 64) + j / 64)] |= static_cast<std::uint64_t>(bits >> p & 1)
                                                                                            << (j % 64);
      }
  }
  bit_planes<code> planes() const {
    return {tensor_view<std::uint64_t const, 3>(memory.data(), shape<3>{{count, rows, (k + 63) / 64}}), k, view(scales)};
  }
};

template <bit_code code>
void check_product(int q, int p, index rows, index n, index k, bool extreme = false) {
  INFO("bits " << q << " by " << p << ", rows " << rows << ", n " << n << ", k " << k);
  rng r(151);
  integers<code> const a(r, q, rows, k, extreme), b(r, p, n, k, extreme);
  std::vector<std::int32_t> y(static_cast<std::size_t>(rows * n));
  bit_plane_matmul(cpu, a.planes(), b.planes(), view(y.data(), rows, n));
  guarded<float> z(rows * n, 1);
  bit_plane_matmul(cpu.on(serial), a.planes(), b.planes(), view(z.data(), rows, n));
  for (index i = 0; i < rows; ++i)
    for (index j = 0; j < n; ++j) {
      std::int64_t sum = 0;
      for (index l = 0; l < k; ++l)
        sum += std::int64_t{a.value[static_cast<std::size_t>(i * k + l)]} * b.value[static_cast<std::size_t>(j * k + l)];
      REQUIRE(std::int64_t{y[static_cast<std::size_t>(i * n + j)]} == sum);
      double const scaled = static_cast<double>(sum) * static_cast<double>(a.scales[static_cast<std::size_t>(i)]) *
                            static_cast<double>(b.scales[static_cast<std::size_t>(j)]);
      REQUIRE(std::abs(static_cast<double>(z[i * n + j]) - scaled) <= 3 * 0x1p-24 * std::abs(scaled) * 1.001);
    }
  CHECK(z.intact());
}

}  // namespace

TEST_CASE("Bipolar-INT: any numbers of bits multiply exactly") {
  for (int q = 1; q <= 8; ++q)
    for (int p = 1; p <= 8; ++p) {
      check_product<bit_code::bipolar>(q, p, 3, 9, 200);
      check_product<bit_code::binary>(q, p, 3, 9, 200);
    }
}

TEST_CASE("Bipolar-INT: any number of rows and columns") {
  for (index k : {0, 1, 63, 64, 65, 511, 512, 513, 1100})
    for (index rows : {0, 1, 5, 70})
      for (index n : {1, 4, 35}) {
        check_product<bit_code::bipolar>(2, 3, rows, n, k);
        check_product<bit_code::binary>(3, 2, rows, n, k);
      }
}

TEST_CASE("Bipolar-INT: the largest sums fit") {
  check_product<bit_code::bipolar>(8, 8, 2, 2, 33025, true);
  check_product<bit_code::binary>(8, 8, 2, 2, 33025, true);
  rng r(152);
  integers<bit_code::bipolar> const a(r, 8, 1, 33026), b(r, 8, 1, 33026);
  std::vector<std::int32_t> y(1);
  CHECK_THROWS_WITH(
      bit_plane_matmul(cpu, a.planes(), b.planes(), view(y.data(), 1, 1)),
      "bit_plane_matmul: the number of columns is 33026, expected few enough for sums to fit 32 bits: k (2^p - 1) (2^q - 1) < 2^31");
}

TEST_CASE("Bipolar-INT: floats packed on the way multiply as their codes do") {
  rng r(153);
  constexpr index rows = 6, n = 10, k = 384;
  auto const x = r.normal(rows * k), w = r.normal(n * k);
  std::vector<std::uint64_t> x_words(8 * rows * 6), w_words(6 * n * 6);
  std::vector<float> x_scales(rows), w_scales(n);
  auto const xw = view(x_words.data(), 8, rows, 6), ww = view(w_words.data(), 6, n, 6);
  bipolar_planes::encode(cpu, view(x.data(), rows, k), xw, view(x_scales));
  bipolar_planes::encode(cpu, view(w.data(), n, k), ww, view(w_scales), 20);
  std::vector<float> y(static_cast<std::size_t>(rows * n));
  bit_plane_matmul(cpu, bipolar_planes(xw, k, view(std::as_const(x_scales))), bipolar_planes(ww, k, view(std::as_const(w_scales))),
                   view(y.data(), rows, n));
  // Rounding errors of both are independent: relative to the root of k they add up as squares. w in 6 bits errs by about 0.033.
  double error = 0;
  for (index i = 0; i < rows; ++i)
    for (index j = 0; j < n; ++j) {
      double sum = 0;
      for (index l = 0; l < k; ++l)
        sum += static_cast<double>(x[static_cast<std::size_t>(i * k + l)]) * static_cast<double>(w[static_cast<std::size_t>(j * k + l)]);
      error += std::pow(static_cast<double>(y[static_cast<std::size_t>(i * n + j)]) - sum, 2) / (k * rows * n);
    }
  CHECK(std::sqrt(error) < 0.05);
}

TEST_CASE("Bipolar-INT: shapes that do not fit") {
  rng r(154);
  integers<bit_code::bipolar> const a(r, 2, 3, 100), b(r, 2, 5, 100), c(r, 2, 5, 101);
  std::vector<float> y(15);
  CHECK_THROWS_WITH(bit_plane_matmul(cpu, a.planes(), c.planes(), view(y.data(), 3, 5)),
                    "bit_plane_matmul: b's columns is 101, expected a's columns = 100");
  CHECK_THROWS_WITH(bit_plane_matmul(cpu, a.planes(), b.planes(), view(y.data(), 5, 3)),
                    "bit_plane_matmul: y.extent(0) is 5, expected a's rows = 3");
  CHECK_THROWS_WITH(bit_plane_matmul(cpu, a.planes(), b.planes(), view(y.data(), 3, 4)),
                    "bit_plane_matmul: y.extent(1) is 4, expected b's rows = 5");
}

}  // namespace tern::test::planes

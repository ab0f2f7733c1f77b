// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "random_weights.hpp"

namespace tern::test::own_weights {
namespace {
/// Weights of a user's own: integers in [-3, 4] with a scale for each 16 columns, made of the row and the column.
struct own_codes {
  static constexpr index granule = 16;
  static constexpr int offset = 3;
  static constexpr bool has_min = false;
  index rows, columns;
  void unpack(index row, index g, std::uint8_t* u) const {
    for (index j = 0; j < 32; ++j) u[j] = static_cast<std::uint8_t>((row * 5 + (32 * g + j) * 3 + row * j) % 8);
  }
  void scales(index row, index g, float* scale, float*) const {
    scale[0] = 0.5f + static_cast<float>((row + g) % 3);
    scale[1] = -0.25f;
  }
};
/// Numbers that are no integers with a scale.
struct own_numbers {
  index rows, columns;
  static float at(index row, index k) { return 1.f / static_cast<float>(1 + (row * 7 + k * 3) % 11); }
  void decode(index row, index k0, index k1, float* out) const {
    for (index k = k0; k < k1; ++k) out[k - k0] = at(row, k);
  }
};
/// What a block format would be as codes of one's own.
struct own_blocks {
  static constexpr index granule = 32;
  static constexpr int offset = 0;
  static constexpr bool has_min = true;
  block_matrix m;
  index rows = m.rows, columns = m.columns;
  auto const& block(index row, index g) const { return reinterpret_cast<formats::q4_1::block const*>(m.row(row))[g]; }
  void unpack(index row, index g, std::uint8_t* u) const { formats::q4_1::unpack(block(row, g), g, u); }
  void scales(index row, index g, float* scale, float* min) const { formats::q4_1::scales(block(row, g), g, scale, min); }
};

template <class W>
std::vector<double> decoded(W const& w) {
  std::vector<double> all;
  std::vector<float> row(static_cast<std::size_t>(w.columns));
  for (index i = 0; i < w.rows; ++i) {
    decode(w, i, row.data());
    all.insert(all.end(), row.begin(), row.end());
  }
  return all;
}
}  // namespace

TEST_CASE("weights of one's own") {
  rng r(16);
  for (index n : {index{1}, index{37}, index{100}})
    for (index rows : {1, 3, 17, 40}) {
      INFO("rows " << rows << " n " << n);
      auto const run = [&](auto const& w, compute mode, std::vector<float> const& x) {
        guarded<float> y(rows * n, 1);
        matmul(cpu, view(x.data(), rows, w.columns), w, view(y.data(), rows, n), mode);
        CHECK(y.intact());
        return std::vector<float>(y.data(), y.data() + rows * n);
      };
      own_numbers const numbers{n, 2100};
      auto const x = r.normal(rows * numbers.columns);
      std::vector<double> exact;
      for (index i = 0; i < n; ++i)
        for (index k = 0; k < numbers.columns; ++k) exact.push_back(static_cast<double>(own_numbers::at(i, k)));
      auto const want = oracle::matmul(widened(x), exact, rows, n, numbers.columns);
      for (compute mode : {compute::f32, compute::int8})
        CHECK(compare(run(numbers, mode, x), want.value, want.magnitude, tolerance(numbers.columns)));
      auto const narrow = oracle::matmul(rounded_to_bf16(widened(x)), rounded_to_bf16(exact), rows, n, numbers.columns);
      CHECK(compare(run(numbers, compute::bf16, x), narrow.value, narrow.magnitude, tolerance(numbers.columns)));

      own_codes const codes{n, 608};
      std::vector<double> elements;
      for (index i = 0; i < n; ++i)
        for (index k = 0; k < codes.columns; ++k) {
          index const g = k / 32, j = k % 32;
          double const q = static_cast<double>((i * 5 + k * 3 + i * j) % 8 - 3);
          elements.push_back(q * (j < 16 ? 0.5 + static_cast<double>((i + g) % 3) : -0.25));
        }
      CHECK(decoded(codes) == elements);
      auto const sum = oracle::matmul(widened(x), elements, rows, n, codes.columns);
      CHECK(compare(run(codes, compute::f32, x), sum.value, sum.magnitude, tolerance(codes.columns)));
      std::vector<double> rounded(static_cast<std::size_t>(rows * codes.columns));
      for (index b = 0; b < rows * codes.columns / 32; ++b) oracle::round_activations(x.data() + 32 * b, rounded.data() + 32 * b);
      auto const integer = oracle::matmul(rounded, elements, rows, n, codes.columns);
      CHECK(compare(run(codes, compute::int8, x), integer.value, integer.magnitude, tolerance(codes.columns)));

      random_weights const blocks(r, weight_type::q4_1, n, 608);
      for (compute mode : {compute::f32, compute::bf16, compute::int8}) CHECK(run(own_blocks{blocks.m}, mode, x) == run(blocks.m, mode, x));
    }
  float x[64] = {}, y[4] = {};
  CHECK_THROWS_WITH(matmul(cpu, view(x, 1, 33), own_codes{4, 33}, view(y, 1, 4)), "matmul: w.columns is 33, expected a multiple of 32");
  CHECK_THROWS_WITH(decode(own_codes{4, 32}, 4, x), "decode: row is 4, expected at least 0 and less than the matrix's rows");
}

}  // namespace tern::test::own_weights

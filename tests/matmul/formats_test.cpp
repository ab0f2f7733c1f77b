// SPDX-License-Identifier: Apache-2.0
// Products with every format that is no block_matrix, against its decoded elements.
#include "catch.hpp"
#include "random_weights.hpp"

#include <tern/formats.hpp>

namespace tern::test::float_formats {
namespace {

using namespace tern::formats;

std::vector<std::uint8_t> random_bytes(rng& r, index n) {
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(n));
  for (auto& b : bytes) b = static_cast<std::uint8_t>(r.bits());
  return bytes;
}

template <custom_weights W>
void check_products(char const* name, W const& w) {
  rng r(151);
  std::vector<double> elements;
  std::vector<float> row(static_cast<std::size_t>(w.columns));
  for (index i = 0; i < w.rows; ++i) {
    decode(w, i, row.data());
    elements.insert(elements.end(), row.begin(), row.end());
  }
  for (index rows : {1, 3, 17, 40}) {
    auto const x = r.normal(rows * w.columns);
    auto const check = [&](compute mode, std::vector<double> const& a, std::vector<double> const& b) {
      INFO(name << " rows " << rows << " mode " << static_cast<int>(mode));
      guarded<float> y(rows * w.rows, 1);
      matmul(cpu, view(x.data(), rows, w.columns), w, view(y.data(), rows, w.rows), mode);
      CHECK(y.intact());
      auto const want = oracle::matmul(a, b, rows, w.rows, w.columns);
      CHECK(compare(std::vector<float>(y.data(), y.data() + rows * w.rows), want.value, want.magnitude, tolerance(w.columns)));
    };
    auto const wide = widened(x);
    check(compute::f32, wide, elements);
    check(compute::bf16, rounded_to_bf16(wide), rounded_to_bf16(elements));
    if constexpr (coded_weights<W>) {
      std::vector<double> rounded(x.size());
      for (std::size_t b = 0; b < x.size(); b += 32) oracle::round_activations(x.data() + b, rounded.data() + b);
      check(compute::int8, rounded, elements);
    } else {
      check(compute::int8, wide, elements);
    }
  }
}

}  // namespace

TEST_CASE("products with weights of small floats, codebooks and powers of two") {
  rng r(152);
  constexpr index n = 37, k = 320;
  auto const rows = r.normal(n, 0.1), blocks = r.normal(n * k / 64, 0.1), wide_blocks = r.normal(n * k / 16, 0.1);
  auto const codes = [&](int bits) { return random_bytes(r, n * k / 8 * bits); };
  auto const bytes = [&](std::vector<std::uint8_t> const& b) { return view(b.data(), n, static_cast<index>(b.size()) / n); };
  auto const c1 = codes(1), c2 = codes(2), c3 = codes(3), c4 = codes(4), c5 = codes(5), c6 = codes(6), c7 = codes(7);
  auto c8 = codes(8);

  check_products("e2m1", exmy_weights<e2m1>(bytes(c4), view(blocks.data(), n, k / 64)));
  check_products("e2m1 of 16", exmy_weights<e2m1, float, 16>(bytes(c4), view(wide_blocks.data(), n, k / 16)));
  check_products("e2m3", exmy_weights<e2m3>(bytes(c6), view(rows.data(), n, 1)));
  check_products("e1m6", exmy_weights<exmy<1, 6>>(bytes(c8), view(rows.data(), n, 1)));
  check_products("e3m2", exmy_weights<e3m2>(bytes(c6), view(rows.data(), n, 1)));
  for (auto& c : c8) c = (c & 0x7f) == 0x7f ? 0 : c;  // no NaN
  check_products("e4m3", exmy_weights<fp8_e4m3>(bytes(c8), view(rows.data(), n, 1)));
  for (auto& c : c8) c = (c & 0x7c) == 0x7c ? 0 : c;  // nor infinity
  check_products("e5m2", exmy_weights<fp8_e5m2>(bytes(c8), view(rows.data(), n, 1)));
  check_products("nf4", codebook_weights<nf4>(bytes(c4), view(blocks.data(), n, k / 64)));
  std::vector<float> table(256);
  dynamic_map(table.data());
  auto const scale_codes = random_bytes(r, n * k / 64);
  check_products("nf4, doubly quantized",
                 codebook_weights<nf4>(bytes(c4), nested_absmax{bytes(scale_codes), view(rows).slice(0, 0, 1), table.data(), 0.5f}));
  check_products("fp4", codebook_weights<fp4>(bytes(c4), view(blocks.data(), n, k / 64)));
  check_products("quantiles 1", gaussian_quantile_weights<1>(bytes(c1), view(rows).slice(0, 0, 1), view(rows).slice(0, 0, 1)));
  check_products("quantiles 2", gaussian_quantile_weights<2>(bytes(c2), view(rows), view(rows)));
  check_products("quantiles 3", gaussian_quantile_weights<3>(bytes(c3), view(rows), view(rows)));
  check_products("quantiles 4", gaussian_quantile_weights<4>(bytes(c4), view(rows).slice(0, 0, 1), view(rows).slice(0, 0, 1)));
  check_products("mid-rise 3", mid_rise_weights<3>(bytes(c3), view(rows)));
  check_products("mid-rise 7", mid_rise_weights<7>(bytes(c7), view(rows)));
  check_products("mid-rise 8", mid_rise_weights<8>(bytes(c8), view(rows)));
  check_products("powers 4", power_of_two_weights<4>(bytes(c4), view(blocks.data(), n, k / 64)));
  check_products("powers 5", power_of_two_weights<5>(bytes(c5), view(rows.data(), n, 1)));
  std::vector<std::uint64_t> words(n * k / 64);
  for (auto& w : words) w = r.bits();
  check_products("binary", binary_weights(view(std::as_const(words).data(), n, k / 64), k, view(rows)));
  auto const books = r.normal(2 * 256 * 8);
  check_products("additive", additive_codebook_weights<std::uint8_t>(view(std::as_const(c8).data(), n, k / 8, 2).slice(0, 0, 9),
                                                                     view(books.data(), 2, 256, 8), view(rows.data(), 9)));
  std::vector<std::uint16_t> wide_codes(n * k / 8);
  for (auto& c : wide_codes) c = static_cast<std::uint16_t>(r.bits());
  auto const wide_book = r.normal(65536 * 8);
  check_products("additive 1x16", additive_codebook_weights<std::uint16_t>(view(std::as_const(wide_codes).data(), n, k / 8, 1),
                                                                           view(wide_book.data(), 1, 65536, 8), view(rows)));
}

TEST_CASE("up to 32 rows of x give the bits that each gives alone, with weights that are decoded in registers or to memory") {
  rng r(153);
  constexpr index n = 11, k = 2080, rows = 7;
  auto const x = r.normal(rows * k), columns = r.normal(k, 0.1), scales = r.normal(n, 0.1);
  auto bytes = random_bytes(r, n * k);
  for (auto& b : bytes) b = (b & 127) == 127 ? std::uint8_t{1} : b;
  auto const check = [&](auto const& w) {
    std::vector<float> all(rows * n), one(n);
    matmul(cpu, view(x.data(), rows, k), w, view(all, rows, n), compute::f32);
    for (index i = 0; i < rows; ++i) {
      matmul(cpu, view(x.data() + i * k, 1, k), w, view(one, 1, n), compute::f32);
      CHECK(std::equal(one.begin(), one.end(), all.begin() + i * n));
    }
  };
  auto const* const integers = reinterpret_cast<std::int8_t const*>(bytes.data());
  check(exmy_weights<fp8_e4m3>(view(std::as_const(bytes), n, k), view(scales, n, 1)));
  check(int8_columns(view(integers, n, k), view(columns)));
  check(gaussian_quantile_weights<4>(view(bytes.data(), n, k / 2), view(scales), view(scales)));
}

}  // namespace tern::test::float_formats

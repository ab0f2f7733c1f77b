// SPDX-License-Identifier: Apache-2.0
// Products with the integer formats of files other than GGUF, against float64.
#include "catch.hpp"
#include "formats/coded.hpp"
#include "formats/vectors/int4_files.hpp"
#include "oracle/matmul.hpp"

#include <tern/formats/awq.hpp>
#include <tern/formats/bit_planes.hpp>
#include <tern/formats/dgq.hpp>
#include <tern/formats/gptq.hpp>
#include <tern/formats/int8_rows.hpp>
#include <tern/matmul.hpp>

namespace tern::test::integer_formats {
namespace {

std::vector<double> rounded_to_bf16(std::vector<double> x) {
  for (double& e : x) e = static_cast<double>(bf16(static_cast<float>(e)));
  return x;
}
/// (n, k / 32), zero where the weights have none.
template <class W>
std::vector<double> minima_of(W const& w) {
  std::vector<double> minima;
  for (index row = 0; row < w.rows; ++row)
    for (index g = 0; g < w.columns / 32; ++g) {
      float scale[2], min[2] = {};
      w.scales(row, g, scale, min);
      minima.push_back(static_cast<double>(min[0]));
    }
  return minima;
}
/// Rows of x that are streamed, decoded on the way, and tiled; `elements` (n, k) is what the weights stand for.
template <class W>
void check_products(W const& w, std::vector<float> const& elements) {
  index const n = w.rows, k = w.columns;
  double const tolerance = matmul_fn::accuracy(k) * 0x1p-24;
  auto const exact = widened(elements);
  rng r(121);
  for (index rows : {1, 3, 4, 19}) {
    INFO("rows " << rows);
    auto const x = r.normal(rows * k);
    auto const check = [&](compute mode, oracle::product const& want) {
      guarded<float> y(rows * n, 1);
      matmul(cpu, view(x.data(), rows, k), w, view(y.data(), rows, n), mode);
      CHECK(compare(y.span(), want.value, want.magnitude, tolerance));
      CHECK(y.intact());
    };
    check(compute::f32, oracle::matmul(widened(x), exact, rows, n, k));
    check(compute::bf16, oracle::matmul(rounded_to_bf16(widened(x)), rounded_to_bf16(exact), rows, n, k));
    if constexpr (coded_weights<W>) {
      std::vector<double> rounded(x.size()), sums;
      for (std::size_t b = 0; b < x.size() / 32; ++b) sums.push_back(oracle::round_activations(x.data() + 32 * b, rounded.data() + 32 * b));
      check(compute::int8, oracle::matmul_int8(rounded, sums, exact, minima_of(w), rows, n, k));
    }
  }
}
std::vector<float> floats(std::uint32_t const (&bits)[1024]) {
  std::vector<float> x;
  for (std::uint32_t const b : bits) x.push_back(std::bit_cast<float>(b));
  return x;
}
constexpr index n = 37, k = 640;

}  // namespace

TEST_CASE("matmul of GPTQ and AWQ files") {
  std::vector<f16> scales;
  for (std::uint16_t const bits : vectors::int4_scales) scales.push_back(f16::from_bits(bits));
  auto const s = view(std::as_const(scales).data(), 2, 16);
  auto const w = view(vectors::gptq_qweight + 0, 8, 16), z = view(vectors::gptq_qzeros_v1 + 0, 2, 2);
  check_products(gptq_weights(w, z, s, gptq_version::v1), floats(vectors::gptq_v1_decoded));
  check_products(gptq_act_order(w, z, s, view(vectors::gptq_g_idx), gptq_version::v1), floats(vectors::gptq_act_order_decoded));
  check_products(awq_weights(view(vectors::awq_qweight + 0, 64, 2), view(vectors::awq_qzeros + 0, 2, 2), s), floats(vectors::int4_decoded));
}

TEST_CASE("matmul of GPTQ's words: groups of 128, more rows than lanes, columns apart") {
  rng r(124);
  constexpr index rows = 40, columns = 1152, group = 128;
  auto const random_words = [&](index count, index stride) {
    std::vector<std::int32_t> words(static_cast<std::size_t>(count * stride));
    for (auto& e : words) e = static_cast<std::int32_t>(static_cast<std::uint32_t>(r.bits()));
    return words;
  };
  std::vector<f16> scales;
  for (index i = 0; i < columns / group * rows; ++i) scales.push_back(f16(static_cast<float>(r.normal())));
  auto const zeros = random_words(columns / group, rows / 8);
  for (index step : {1, 2}) {
    auto const words = random_words(columns / 8, rows * step);
    tensor_view<std::int32_t const, 2> const w(words.data(), {columns / 8, rows}, {rows * step, step});
    gptq_weights const weights(w, view(zeros.data(), columns / group, rows / 8), view(std::as_const(scales).data(), columns / group, rows),
                               gptq_version::v1);
    check_products(weights, decoded(weights));
  }
}

TEST_CASE("matmul of AWQ's words: groups of 128, more rows than lanes, columns apart") {
  rng r(125);
  constexpr index rows = 56, columns = 1152, group = 128;
  auto const random_words = [&](index count) {
    std::vector<std::int32_t> words(static_cast<std::size_t>(count));
    for (auto& e : words) e = static_cast<std::int32_t>(static_cast<std::uint32_t>(r.bits()));
    return words;
  };
  std::vector<f16> scales;
  for (index i = 0; i < columns / group * rows; ++i) scales.push_back(f16(static_cast<float>(r.normal())));
  auto const zeros = random_words(columns / group * rows / 8), words = random_words(2 * columns * rows / 8);
  for (index step : {1, 2}) {
    tensor_view<std::int32_t const, 2> const w(words.data(), {columns, rows / 8}, {step * rows / 8, step});
    awq_weights const weights(w, view(zeros.data(), columns / group, rows / 8), view(std::as_const(scales).data(), columns / group, rows));
    std::vector<float> elements;
    for (index row = 0; row < rows; ++row)
      for (index c = 0; c < columns; ++c) {
        int const place[] = {0, 4, 1, 5, 2, 6, 3, 7};
        auto const four_bits = [&](std::int32_t of) { return static_cast<int>(static_cast<std::uint32_t>(of) >> 4 * place[row % 8] & 15); };
        int const q = four_bits(w(c, row / 8)) - four_bits(zeros[static_cast<std::size_t>(c / group * (rows / 8) + row / 8)]);
        elements.push_back(static_cast<float>(q) * static_cast<float>(scales[static_cast<std::size_t>(c / group * rows + row)]));
      }
    check_products(weights, elements);
  }
}

TEST_CASE("matmul of four bits in groups") {
  rng r(122);
  auto const x = r.normal(n * k);
  matrix_of<std::uint8_t> codes(n, k / 2), zeros(n, k / 64);
  matrix_of<f16> scales(n, k / 64), minima(n, k / 64), row(n, 1);
  group_int4::encode(cpu, view(x.data(), n, k), codes.view, scales.view);
  group_int4 const plain(codes.view, scales.view);
  check_products(plain, decoded(plain));
  group_int4::encode(cpu, view(x.data(), n, k), codes.view, row.view);
  group_int4 const rows(codes.view, row.view);
  check_products(rows, decoded(rows));
  group_int4_zeros::encode(cpu, view(x.data(), n, k), codes.view, scales.view, zeros.view);
  group_int4_zeros const with_zeros(codes.view, scales.view, zeros.view);
  check_products(with_zeros, decoded(with_zeros));
  group_int4_minima::encode(cpu, view(x.data(), n, k), codes.view, scales.view, minima.view);
  group_int4_minima const with_minima(codes.view, scales.view, minima.view);
  check_products(with_minima, decoded(with_minima));
}

TEST_CASE("matmul of eight bits, of DGQ, and of planes of bits") {
  rng r(123);
  auto const x = r.normal(n * k);
  matrix_of<std::int8_t> q(n, k);
  std::vector<float> rows(static_cast<std::size_t>(n)), columns(static_cast<std::size_t>(k));
  int8_rows::encode(cpu, view(x.data(), n, k), q.view, view(rows));
  int8_rows const by_row(q.view, view(std::as_const(rows)));
  check_products(by_row, decoded(by_row));
  int8_columns::encode(cpu, view(x.data(), n, k), q.view, view(columns));
  std::vector<float> elements;
  for (index i = 0; i < n * k; ++i) elements.push_back(static_cast<float>(q.view(i / k, i % k)) * columns[static_cast<std::size_t>(i % k)]);
  check_products(int8_columns(q.view, view(std::as_const(columns))), elements);
  matrix_of<std::uint8_t> codes(n, k / 2), zeros(n, k / 128), steps(n, k / 128);
  dgq_weights::encode(cpu, view(x.data(), n, k), codes.view, zeros.view, steps.view, view(rows));
  dgq_weights const dgq(codes.view, zeros.view, steps.view, view(std::as_const(rows)));
  check_products(dgq, decoded(dgq));
  std::vector<std::uint64_t> words(static_cast<std::size_t>(5 * n * (k / 64)));
  auto const planes = view(words.data(), 5, n, k / 64);
  bipolar_planes::encode(cpu, view(x.data(), n, k), planes, view(rows), 20);
  bit_plane_weights const bits(bipolar_planes(planes, k, view(std::as_const(rows))));
  check_products(bits, decoded(bits));
}

}  // namespace tern::test::integer_formats

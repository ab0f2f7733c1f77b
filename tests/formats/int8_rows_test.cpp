// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "coded.hpp"
#include "elements.hpp"
#include "message.hpp"

#include <tern/formats/int8_rows.hpp>

namespace tern::test {
namespace {

std::vector<float> decoded_columns(int8_columns const& w) {
  std::vector<float> all(static_cast<std::size_t>(w.rows * w.columns));
  for (index row = 0; row < w.rows; ++row) {
    index const half = w.columns / 64 * 32;
    w.decode(row, 0, half, all.data() + row * w.columns);
    w.decode(row, half, w.columns, all.data() + row * w.columns + half);
  }
  return all;
}
float largest(std::vector<float> const& x, index first, index step, index count) {
  float most = 0;
  for (index i = 0; i < count; ++i) most = std::max(most, std::abs(x[static_cast<std::size_t>(first + i * step)]));
  return most;
}

}  // namespace

TEST_CASE("int8 rows: integers and scales, at any distance of rows") {
  rng r(101);
  constexpr index n = 5, k = 64;
  std::vector<std::int8_t> q(n * 70);
  for (auto& x : q) x = static_cast<std::int8_t>(r.integer(-128, 127));
  auto const scales = r.normal(n);
  int8_rows const w({q.data(), shape<2>{{n, k}}, shape<2>{{70, 1}}}, view(scales));
  auto const got = decoded(w);
  for (index i = 0; i < n; ++i)
    for (index j = 0; j < k; ++j)
      REQUIRE(got[static_cast<std::size_t>(i * k + j)] ==
              scales[static_cast<std::size_t>(i)] * static_cast<float>(q[static_cast<std::size_t>(i * 70 + j)]));
}

TEST_CASE("int8 rows: encoding errs by at most half a step") {
  rng r(102);
  constexpr index n = 7, k = 96;
  auto x = r.normal(n * k);
  for (index j = 0; j < k; ++j) x[static_cast<std::size_t>(2 * k + j)] = 0;
  x[5] = NAN;
  matrix_of<std::int8_t> q(n, k);
  std::vector<float> scales(n);
  int8_rows::encode(cpu, view(x.data(), n, k), q.view, view(scales));
  x[5] = 0;
  auto const got = decoded(int8_rows(q.view, view(std::as_const(scales))));
  for (index i = 0; i < n; ++i) {
    float const most = largest(x, i * k, 1, k);
    CHECK(scales[static_cast<std::size_t>(i)] == most / 127.f);
    for (index j = 0; j < k; ++j) {
      auto const at = static_cast<std::size_t>(i * k + j);
      REQUIRE(std::abs(got[at] - x[at]) <= most / 254.f * (1 + 0x1p-15f));
      REQUIRE(q.memory[at] >= -127);
    }
  }
  // Halves round away from zero, and the type of the weights does not matter.
  std::vector<f16> const half{f16(127.f), f16(0.5f), f16(-0.5f), f16(-2.5f), f16(126.25f), f16(0.f)};
  matrix_of<std::int8_t> small(1, 6);
  std::vector<float> one(1);
  int8_rows::encode(cpu, view(half.data(), 1, 6), small.view, view(one));
  CHECK(small.memory == std::vector<std::int8_t>{127, 1, -1, -3, 126, 0});
}

TEST_CASE("int8 columns: a scale for each column, and for both") {
  rng r(103);
  constexpr index n = 6, k = 77;
  auto const x = r.normal(n * k);
  matrix_of<std::int8_t> q(n, k);
  std::vector<float> column(static_cast<std::size_t>(k)), row(n);
  int8_columns::encode(cpu, view(x.data(), n, k), q.view, view(column));
  auto const got = decoded_columns(int8_columns(q.view, view(std::as_const(column))));
  for (index i = 0; i < n * k; ++i) {
    auto const at = static_cast<std::size_t>(i);
    REQUIRE(std::abs(got[at] - x[at]) <= largest(x, i % k, k, n) / 254.f * (1 + 0x1p-15f));
  }
  for (auto& c : column) c = static_cast<float>(std::exp(r.normal()));
  int8_columns::encode(cpu, view(x.data(), n, k), view(std::as_const(column)), q.view, view(row));
  auto const both = decoded_columns(int8_columns(q.view, view(std::as_const(column)), view(std::as_const(row))));
  CHECK(elements(int8_columns(q.view, view(std::as_const(column)), view(std::as_const(row)))) == both);
  for (index i = 0; i < n; ++i)
    for (index j = 0; j < k; ++j) {
      auto const at = static_cast<std::size_t>(i * k + j);
      float const c = column[static_cast<std::size_t>(j)], s = row[static_cast<std::size_t>(i)];
      REQUIRE(both[at] == static_cast<float>(q.view(i, j)) * s * c);
      REQUIRE(std::abs(both[at] - x[at]) <= s * c / 2 * (1 + 0x1p-14f));
    }
}

TEST_CASE("int8 rows and columns: parts that do not fit") {
  std::vector<std::int8_t> q(256);
  std::vector<float> s(64), x(256);
  auto const codes = [&](index n, index k) { return view(std::as_const(q).data(), n, k); };
  auto const floats = [&](index n) { return view(std::as_const(s).data(), n); };
  CHECK(message_of([&] { int8_rows(codes(4, 33), floats(4)); }) == "int8_rows: q.extent(1) is 33, expected a multiple of 32");
  CHECK(message_of([&] { int8_rows(codes(4, 32), floats(3)); }) == "int8_rows: row_scales.extent(0) is 3, expected q.extent(0) = 4");
  CHECK(message_of([&] { int8_rows(codes(32, 4).transposed(0, 1), floats(4)); }) == "int8_rows: q.stride(1) is 4, expected 1");
  CHECK(message_of([&] { int8_columns(codes(4, 33), floats(32)); }) ==
        "int8_columns: column_scales.extent(0) is 32, expected q.extent(1) = 33");
  CHECK(message_of([&] { int8_columns(codes(4, 33), floats(33), floats(5)); }) ==
        "int8_columns: row_scales.extent(0) is 5, expected q.extent(0) = 4");
  matrix_of<std::int8_t> to(4, 32);
  std::vector<float> scales(4);
  CHECK(message_of([&] { int8_rows::encode(cpu, view(x.data(), 4, 33), to.view, view(scales)); }) ==
        "int8_rows::encode: q.extent(1) is 32, expected w.extent(1) = 33");
  CHECK(message_of([&] { int8_columns::encode(cpu, view(x.data(), 4, 32), floats(32), to.view, view(scales)); }) ==
        "int8_columns::encode: the number of a column whose scale is not positive is 0, expected none");
}

}  // namespace tern::test

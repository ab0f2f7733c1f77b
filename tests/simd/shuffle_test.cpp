// SPDX-License-Identifier: Apache-2.0
// Transposes and tables.
#include "catch.hpp"
#include "lanes.hpp"

#include <tern/simd/shuffle.hpp>

namespace {
using namespace tern::test;
using tern::simd::lanes;
using tern::simd::pack;
namespace simd = tern::simd;
using size = tern::index;
}  // namespace

TEST_CASE("shuffle: transpose moves every lane to its mirror", "[simd]") {
  pack<float> rows[lanes];
  for (size i = 0; i < lanes; ++i) rows[i] = make_pack<float>([&](size j) { return 100 * i + j; });
  simd::transpose(rows);
  for (size i = 0; i < lanes; ++i)
    for (size j = 0; j < lanes; ++j) CHECK(lanes_of(rows[i])[static_cast<std::size_t>(j)] == static_cast<float>(100 * j + i));
  simd::transpose(rows);
  for (size i = 0; i < lanes; ++i)
    for (size j = 0; j < lanes; ++j) CHECK(lanes_of(rows[i])[static_cast<std::size_t>(j)] == static_cast<float>(100 * i + j));
}

TEST_CASE("shuffle: lanes within quarters and quarters are transposed, which together transposes a tile", "[simd]") {
  if (lanes != 16) return;
  pack<float> rows[4], quarters[4];
  for (size i = 0; i < 4; ++i) rows[i] = quarters[i] = make_pack<float>([&](size j) { return 100 * i + j; });
  simd::transpose_within_quarters(rows);
  simd::transpose_quarters(quarters);
  for (size i = 0; i < 4; ++i)
    for (size j = 0; j < lanes; ++j) {
      CHECK(lanes_of(rows[i])[static_cast<std::size_t>(j)] == static_cast<float>(100 * (j % 4) + j / 4 * 4 + i));
      CHECK(lanes_of(quarters[i])[static_cast<std::size_t>(j)] == static_cast<float>(100 * (j / 4) + 4 * i + j % 4));
    }
}

TEST_CASE("shuffle: tiles of memory are read and written transposed, and nothing beside them", "[simd]") {
  for (size const step : {lanes, 2 * lanes, lanes + 3}) {
    size const n = (lanes - 1) * step + lanes;
    at_page_end<float> from(n), to(n);
    for (size i = 0; i < n; ++i) {
      from.data()[i] = static_cast<float>(i);
      to.data()[i] = -1.f;
    }
    pack<float> rows[lanes];
    simd::load_transposed(from.data(), step, rows);
    for (size i = 0; i < lanes; ++i)
      for (size j = 0; j < lanes; ++j) CHECK(lanes_of(rows[i])[static_cast<std::size_t>(j)] == static_cast<float>(j * step + i));
    simd::store_transposed(rows, to.data(), step);
    for (size i = 0; i < n; ++i) CHECK(to.data()[i] == (i % step < lanes ? static_cast<float>(i) : -1.f));
  }
}

TEST_CASE("shuffle: four columns of memory are read and written, and nothing beside them", "[simd]") {
  for (size const step : {size{4}, size{5}, lanes + 3}) {
    size const n = (lanes - 1) * step + 4;
    at_page_end<float> from(n), to(n);
    for (size i = 0; i < n; ++i) {
      from.data()[i] = static_cast<float>(i);
      to.data()[i] = -1.f;
    }
    pack<float> columns[4];
    simd::load_columns(from.data(), step, columns);
    for (size i = 0; i < 4; ++i)
      for (size j = 0; j < lanes; ++j) CHECK(lanes_of(columns[i])[static_cast<std::size_t>(j)] == static_cast<float>(j * step + i));
    simd::store_columns(columns, to.data(), step);
    for (size i = 0; i < n; ++i) CHECK(to.data()[i] == (i % step < 4 ? static_cast<float>(i) : -1.f));
  }
}

TEST_CASE("shuffle: reverse puts the last lane first", "[simd]") {
  auto const turned = lanes_of(simd::reverse(make_pack<float>([](size i) { return i + 1; })));
  for (size i = 0; i < lanes; ++i) CHECK(turned[static_cast<std::size_t>(i)] == static_cast<float>(lanes - i));
}

TEST_CASE("shuffle: byte tables", "[simd]") {
  at_page_end<std::int8_t> entries(16);
  for (size i = 0; i < 16; ++i) entries.data()[i] = static_cast<std::int8_t>(17 * i - 128);
  auto const table = simd::load_table(static_cast<std::int8_t const*>(entries.data()));
  for (size start = 0; start < 16; ++start) {
    auto const which = make_pack<std::uint8_t>([&](size i) { return (start + 7 * i) % 16; });
    auto const found = lanes_of(simd::lookup(table, which));
    for (std::size_t i = 0; i < found.size(); ++i) CHECK(found[i] == entries.data()[lanes_of(which)[i]]);
  }
}

TEST_CASE("shuffle: each part of a register looks up in its own table", "[simd]") {
  if constexpr (lanes % 4 == 0) {
    auto const entries = make_pack<std::int8_t>([](size i) { return 7 * i - 100; });
    for (size start = 0; start < 16; ++start) {
      auto const which = make_pack<std::uint8_t>([&](size i) { return (start + 5 * i) % 16; });
      auto const found = lanes_of(simd::lookup(entries, which));
      for (std::size_t i = 0; i < found.size(); ++i) CHECK(found[i] == lanes_of(entries)[i / 16 * 16 + lanes_of(which)[i]]);
    }
  }
}

TEST_CASE("shuffle: float tables", "[simd]") {
  at_page_end<float> entries(16);
  for (size i = 0; i < 16; ++i) entries.data()[i] = static_cast<float>(i) * 0.25f - 1.f;
  auto const table = simd::load_table(static_cast<float const*>(entries.data()));
  for (size start = 0; start < 16; ++start) {
    auto const which = make_pack<std::int32_t>([&](size i) { return (start + 5 * i) % 16; });
    auto const found = lanes_of(simd::lookup(table, which));
    for (std::size_t i = 0; i < found.size(); ++i) CHECK(found[i] == entries.data()[lanes_of(which)[i]]);
  }
}

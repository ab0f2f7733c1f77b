// SPDX-License-Identifier: Apache-2.0
// Tiles of two bits: what is read back, where a field lies, what no number does, and tokens that move.
#include "catch.hpp"
#include "compare.hpp"

#include <tern/formats/kv_two_bits.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

namespace {
using namespace tern::test;
using tern::index;
using tern::formats::keys2;
using tern::formats::values2;

constexpr index tokens = 64;

/// A tile of 64 rows.
template <class Format>
struct tile_of {
  index dim;
  std::vector<std::byte> bytes;
  tile_of(std::vector<float> const& x, index of_dim)
      : dim(of_dim), bytes(static_cast<std::size_t>(Format::tile_bytes(of_dim)), std::byte{0xa5}) {
    for (index b = 0; b < dim / 32; ++b)
      if constexpr (Format::keys)
        keys2::encode_tokens(x.data() + 32 * b, dim, dim, b, bytes.data());
      else
        for (index t = 0; t < tokens; ++t) values2::encode(x.data() + t * dim + 32 * b, dim, b, t, bytes.data());
  }
  std::vector<float> row(index t) const {
    std::vector<float> to(static_cast<std::size_t>(dim));
    for (index b = 0; b < dim / 32; ++b) Format::decode(bytes.data(), dim, b, t, to.data() + 32 * b);
    return to;
  }
};

/// The least and the largest of what shares a scale with element e of token t.
template <class Format>
std::pair<float, float> extremes(std::vector<float> const& x, index dim, index t, index e) {
  float low = std::numeric_limits<float>::infinity(), high = -low;
  index const first = Format::keys ? e : t * dim + e / 32 * 32, step = Format::keys ? dim : 1, count = Format::keys ? tokens : 32;
  for (index i = 0; i < count; ++i) {
    low = std::min(low, x[static_cast<std::size_t>(first + i * step)]);
    high = std::max(high, x[static_cast<std::size_t>(first + i * step)]);
  }
  return {low, high};
}

TEMPLATE_TEST_CASE("kv_two_bits: within half a step of what was written", "[formats]", keys2, values2) {
  rng r(1);
  index const dim = 96;
  auto x = r.normal<float>(tokens * dim);
  for (index t = 0; t < tokens; ++t) x[static_cast<std::size_t>(t * dim + 7)] = 0.25f;  // a channel that is constant
  for (index e = 32; e < 64; ++e) x[static_cast<std::size_t>(5 * dim + e)] = -3;        // a row's block that is
  for (index t = 0; t < tokens; ++t) x[static_cast<std::size_t>(t * dim + 70)] *= 40;   // a channel of outliers
  tile_of<TestType> const tile(x, dim);
  for (index t = 0; t < tokens; ++t) {
    auto const y = tile.row(t);
    for (index e = 0; e < dim; ++e) {
      auto const [low, high] = extremes<TestType>(x, dim, t, e);
      double const most = std::max(std::abs(static_cast<double>(low)), std::abs(static_cast<double>(high)));
      double const error =
          std::abs(static_cast<double>(y[static_cast<std::size_t>(e)]) - static_cast<double>(x[static_cast<std::size_t>(t * dim + e)]));
      CAPTURE(t, e, low, high);
      CHECK(error <= (static_cast<double>(high) - static_cast<double>(low)) / 6 + 0x1p-10 * most);
    }
  }
}

TEMPLATE_TEST_CASE("kv_two_bits: what is no number is NaN where it shares a scale", "[formats]", keys2, values2) {
  index const dim = 64;
  for (float odd :
       {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN(), 7e4f}) {
    rng r(2);
    auto x = r.normal<float>(tokens * dim);
    x[20 * dim + 40] = odd;
    tile_of<TestType> const tile(x, dim);
    for (index t = 0; t < tokens; ++t) {
      auto const y = tile.row(t);
      for (index e = 0; e < dim; ++e) {
        bool const shared = TestType::keys ? e == 40 : t == 20 && e >= 32;
        CHECK(std::isnan(y[static_cast<std::size_t>(e)]) == shared);
      }
    }
  }
}

/// The layout of the header's drawing, spelled out.
TEST_CASE("kv_two_bits: where a field lies", "[formats]") {
  auto const changed = [](auto format) {
    using Format = decltype(format);
    std::vector<float> x(tokens * 64);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>((i / 64 + i) % 4);  // all codes in each set: no scale changes
    tile_of<Format> const before(x, 64);
    float& changes = x[37 * 64 + 45];
    changes = changes == 1.f ? 2.f : 1.f;
    tile_of<Format> const after(x, 64);
    std::vector<std::pair<std::size_t, int>> at;
    for (std::size_t i = 0; i < before.bytes.size(); ++i)
      if (before.bytes[i] != after.bytes[i]) at.emplace_back(i, static_cast<int>(before.bytes[i] ^ after.bytes[i]));
    return at;
  };
  // Keys: element 45 = 4 * 11 + 1, token 37 = 32 + 5: the third field.
  auto const k = changed(keys2{});
  REQUIRE(k.size() == 1);
  CHECK(k[0].first == 4 * 64 + 11 * 64 + 4 * 5 + 1);
  CHECK((k[0].second & ~0x30) == 0);
  // Values: block 1, element 13 of its first 16, token 37 = 5 + 16 * 2: the first field.
  auto const v = changed(values2{});
  REQUIRE(v.size() == 1);
  CHECK(v[0].first == 768 + 256 + 5 * 64 + 4 * 13 + 2);
  CHECK((v[0].second & ~0x03) == 0);
  CHECK(keys2::tile_bytes(128) == 64 * 40);
  CHECK(values2::tile_bytes(128) == 64 * 48);
}

TEST_CASE("kv_two_bits: gathered values are the same to the bit, and the last one fills the tile", "[formats]") {
  rng r(3);
  index const dim = 64;
  tile_of<values2> const a(r.normal<float>(tokens * dim), dim), b(r.normal<float>(tokens * dim), dim);
  for (index count : {1, 17, 40, 64}) {
    std::vector<tern::formats::detail::tile_token> from;
    std::vector<std::vector<float>> want;
    for (index i = 0; i < count; ++i) {
      auto const& tile = i % 3 == 0 ? a : b;
      index const t = (i * 29 + 5) % 64;
      from.push_back({tile.bytes.data(), t});
      want.push_back(tile.row(t));
    }
    tile_of<values2> to(std::vector<float>(tokens * dim), dim);
    values2::gather(from.data(), count, dim, to.bytes.data());
    for (index t = 0; t < tokens; ++t) CHECK(to.row(t) == want[static_cast<std::size_t>(std::min(t, count - 1))]);
  }
}

TEST_CASE("kv_two_bits: gathered keys are rounded anew, as their rows would be", "[formats]") {
  rng r(4);
  index const dim = 96;
  auto x = r.normal<float>(tokens * dim);
  for (index t = 0; t < tokens; ++t) {
    x[static_cast<std::size_t>(t * dim + 5)] = 1.5f;                            // a step of zero
    if (t < 9) x[static_cast<std::size_t>(t * dim + 40)] = t < 4 ? 3.f : -3.f;  // codes that only some tokens have
  }
  x[static_cast<std::size_t>(12 * dim + 70)] = std::numeric_limits<float>::infinity();
  tile_of<keys2> const a(x, dim), b(r.normal<float>(tokens * dim), dim), c(r.normal<float>(tokens * dim, 4), dim);
  auto const check = [&](index count, auto const& token) {
    std::vector<tern::formats::detail::tile_token> from;
    std::vector<float> rows;
    for (index i = 0; i < tokens; ++i) {
      auto const [tile, t] = token(std::min(i, count - 1));
      if (i < count) from.push_back({tile->bytes.data(), t});
      auto const row = tile->row(t);
      rows.insert(rows.end(), row.begin(), row.end());
    }
    tile_of<keys2> to(std::vector<float>(tokens * dim), dim);
    keys2::gather(from.data(), count, dim, to.bytes.data());
    CAPTURE(count);
    CHECK(to.bytes == tile_of<keys2>(rows, dim).bytes);
  };
  using place = std::pair<tile_of<keys2> const*, index>;
  for (index count : {1, 17, 64}) {
    check(count, [&](index i) { return place(i % 2 == 0 ? &a : &b, i); });                     // a tile for each token
    check(count, [&](index i) { return place(i < 21 ? &a : i < 43 ? &b : &c, 3 * i % 64); });  // runs
    check(count, [&](index i) { return place(&c, 63 - i); });
  }
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
// The tiled cache: what is read back, where a byte lies, and that a token is written in place.
#include "catch.hpp"
#include "compare.hpp"

#include <tern/formats/kv_tiles.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace {
using namespace tern::test;
using tern::index;
namespace formats = tern::formats;

template <class Format>
using cache = tern::kv_tiles<Format>;

/// A cache of 2 heads with room for `room` tokens whose memory is full of `fill`.
template <class Format>
struct owned {
  std::vector<std::byte> memory;
  cache<Format> view;
  owned(index room, index tokens, index dim, int fill)
      : memory(static_cast<std::size_t>(2 * cache<Format>::bytes(room, dim)), static_cast<std::byte>(fill)),
        view{memory.data(), 2, tokens, dim, cache<Format>::bytes(room, dim)} {}
};

#define TERN_TEST_FORMATS formats::keys8, formats::keys4, formats::values8, formats::values4

TEMPLATE_TEST_CASE("kv_tiles: within half a step of what was written", "[formats]", TERN_TEST_FORMATS) {
  rng r(1);
  index const n = 130, dim = 96;
  auto x = r.normal<float>(2 * n * dim);
  for (std::size_t i = 0; i < x.size(); i += 37) x[i] = 0;
  for (std::size_t i = 0; i < 32; ++i) x[i] = 0;
  owned<TestType> c(n, n, dim, 0xa5);
  c.view.append(0, tern::tensor_view<float const, 3>(x.data(), {2, n, dim}));
  std::vector<float> y(static_cast<std::size_t>(dim));
  for (index h = 0; h < 2; ++h)
    for (index t = 0; t < n; ++t) {
      c.view.decode(h, t, y.data());
      float const* const row = x.data() + (h * n + t) * dim;
      for (index b = 0; b < dim; b += 32) {
        double most = 0;
        for (index i = b; i < b + 32; ++i) most = std::max(most, std::abs(static_cast<double>(row[i])));
        double const half = TestType::bits == 8 ? most / 254 : most / 15;
        for (index i = b; i < b + 32; ++i) {
          double const error = std::abs(static_cast<double>(y[static_cast<std::size_t>(i)]) - static_cast<double>(row[i]));
          if (!(error <= half * 1.00001 + 0x1p-11 * most))
            FAIL_CHECK("token " << t << " element " << i << ": error " << error << " of " << half);
        }
      }
    }
}

TEMPLATE_TEST_CASE("kv_tiles: one by one is the same bytes as at once", "[formats]", TERN_TEST_FORMATS) {
  rng r(2);
  index const n = 77, dim = 64;
  auto const x = r.normal<tern::bf16>(2 * n * dim);
  tern::tensor_view<tern::bf16 const, 3> const rows(x.data(), {2, n, dim});
  owned<TestType> once(n, n, dim, 0xa5), each(n, n, dim, 0xa5);
  once.view.append(0, rows);
  for (index t = 0; t < n; ++t)
    each.view.append(t, tern::tensor_view<tern::bf16 const, 3>(x.data() + t * dim, {2, 1, dim}, {n * dim, dim, 1}));
  CHECK(once.memory == each.memory);
  // In any order, and again: a token changes nothing but itself.
  owned<TestType> backwards(n, n, dim, 0xa5);
  for (index t = n; t-- > 0;)
    backwards.view.append(t, tern::tensor_view<tern::bf16 const, 3>(x.data() + t * dim, {2, 1, dim}, {n * dim, dim, 1}));
  CHECK(once.memory == backwards.memory);
  once.view.append(13, tern::tensor_view<tern::bf16 const, 3>(x.data() + 13 * dim, {2, 1, dim}, {n * dim, dim, 1}));
  CHECK(once.memory == backwards.memory);
}

TEMPLATE_TEST_CASE("kv_tiles: numbers of three types", "[formats]", TERN_TEST_FORMATS) {
  rng r(3);
  auto const half = r.normal<tern::f16>(2 * 3 * 32);
  std::vector<float> whole(half.begin(), half.end());
  owned<TestType> a(3, 3, 32, 0), b(3, 3, 32, 0);
  a.view.append(0, tern::tensor_view<tern::f16 const, 3>(half.data(), {2, 3, 32}));
  b.view.append(0, tern::tensor_view<float const, 3>(whole.data(), {2, 3, 32}));
  CHECK(a.memory == b.memory);
}

TEMPLATE_TEST_CASE("kv_tiles: what is no number is NaN, in its block", "[formats]", TERN_TEST_FORMATS) {
  float const inf = std::numeric_limits<float>::infinity();
  for (float bad : {inf, -inf, std::numeric_limits<float>::quiet_NaN(), 1e7f, -3e38f}) {
    std::vector<float> x(2 * 96, 1.f), y(96);
    x[40] = bad;
    owned<TestType> c(1, 1, 96, 0);
    c.view.append(0, tern::tensor_view<float const, 3>(x.data(), {2, 1, 96}));
    c.view.decode(0, 0, y.data());
    for (std::size_t i = 0; i < 96; ++i) CHECK(std::isnan(y[i]) == (i / 32 == 1));
  }
  for (float small : {0.f, 1e-38f, 1e-45f, 1e-9f}) {
    std::vector<float> x(2 * 32, small), y(32);
    owned<TestType> c(1, 1, 32, 0xff);
    c.view.append(0, tern::tensor_view<float const, 3>(x.data(), {2, 1, 32}));
    c.view.decode(1, 0, y.data());
    for (float e : y) CHECK(e == 0.f);
  }
}

TEMPLATE_TEST_CASE("kv_tiles: gathered tokens are the same to the bit", "[formats]", TERN_TEST_FORMATS) {
  rng r(5);
  index const dim = 64;
  auto const bytes = static_cast<std::size_t>(TestType::tile_bytes(dim));
  std::vector<std::vector<float>> rows;
  auto const put = [&](std::vector<std::byte>& tile, std::size_t row, index t) {
    for (index b = 0; b < dim / 32; ++b) TestType::encode(rows[row].data() + 32 * b, dim, b, t, tile.data());
  };
  std::vector<std::byte> from[2] = {std::vector<std::byte>(bytes), std::vector<std::byte>(bytes)};
  for (index t = 0; t < 128; ++t) {
    rows.push_back(r.normal<float>(dim));
    if (t % 16 == 3) rows.back()[40] = std::numeric_limits<float>::infinity();  // a block of NaN
    if (t % 16 == 5) rows.back().assign(dim, 0.f);
    put(from[t / 64], static_cast<std::size_t>(t), t % 64);
  }
  auto const before = from[0];
  // From each place to each other; the last token fills what is left.
  for (index first = 0; first < 64; ++first)
    for (index count : {1, 30, 64}) {
      std::vector<formats::detail::tile_token> tokens;
      std::vector<std::byte> got(bytes, std::byte{0xa5}), want(bytes, std::byte{0x5a});
      for (index i = 0; i < 64; ++i) {
        index const t = (first + std::min(i, count - 1) * 65) % 128;
        if (i < count) tokens.push_back({from[t / 64].data(), t % 64});
        put(want, static_cast<std::size_t>(t), i);
      }
      TestType::gather(tokens.data(), count, dim, got.data());
      if (got != want) FAIL_CHECK("from " << first << ", " << count << " tokens");
    }
  CHECK(from[0] == before);
}

/// The layout of the header's drawing, spelled out: token 37, element 45 of a cache of dim 64.
TEST_CASE("kv_tiles: where a byte lies", "[formats]") {
  auto changed = [](auto format) {
    using Format = decltype(format);
    std::vector<float> x(64, 0.f);
    std::vector<std::byte> tile(static_cast<std::size_t>(Format::tile_bytes(64)));
    for (index t = 0; t < 64; ++t)
      for (index b = 0; b < 2; ++b) Format::encode(x.data() + 32 * b, 64, b, t, tile.data());
    auto const before = tile;
    x[45] = 1.f;
    Format::encode(x.data() + 32, 64, 1, 37, tile.data());
    std::vector<std::size_t> at;
    for (std::size_t i = 0; i < tile.size(); ++i)
      if (tile[i] != before[i]) at.push_back(i);
    return at;
  };
  using list = std::vector<std::size_t>;
  // Keys: second half of the tile (2 blocks in front), block 1, token 5 of the half; element 13 = 4 * 3 + 1.
  std::size_t const k8 = 3 * 1088, k4 = 3 * 576;
  CHECK(changed(formats::keys8{}) == list{k8 + 10, k8 + 11, k8 + 64 + 3 * 128 + 4 * 5 + 1});
  CHECK(changed(formats::keys4{}) == list{k4 + 10, k4 + 11, k4 + 64 + 3 * 64 + 4 * 5 + 1});
  // Values: block 1, token 37 = 5 + 16 * 2, element 13.
  CHECK(changed(formats::values8{}) == list{2176 + 74, 2176 + 75, 2176 + 128 + 5 * 128 + 4 * 13 + 2});
  CHECK(changed(formats::values4{}) == list{1152 + 74, 1152 + 75, 1152 + 128 + 5 * 64 + 4 * 13 + 2});
  CHECK(cache<formats::keys4>::bytes(64, 128) == 64 * 72);
  CHECK(cache<formats::values8>::bytes(65, 128) == 128 * 136);
}

#if TERN_EXCEPTIONS
TEST_CASE("kv_tiles: wrong calls are refused", "[formats]") {
  std::vector<float> x(2 * 3 * 64);
  owned<formats::keys4> c(3, 0, 64, 0);
  using view = tern::tensor_view<float const, 3>;
  CHECK_THROWS_AS(c.view.append(-1, view(x.data(), {2, 3, 64})), tern::error);
  CHECK_THROWS_AS(c.view.append(0, view(x.data(), {1, 3, 64})), tern::error);
  CHECK_THROWS_AS(c.view.append(0, view(x.data(), {2, 3, 32})), tern::error);
  CHECK_THROWS_AS(c.view.append(0, view(x.data(), {2, 3, 64}, {192, 1, 3})), tern::error);
  c.view.dim = 48;
  CHECK_THROWS_AS(c.view.append(0, view(x.data(), {2, 3, 48})), tern::error);
}
#endif

}  // namespace

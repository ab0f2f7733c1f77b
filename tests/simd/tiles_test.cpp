// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "lanes.hpp"

#include <tern/simd/core.hpp>
#include <tern/simd/tiles.hpp>

#include <vector>

namespace {
using namespace tern::test;
namespace tiles = tern::simd::tiles;

/// C (32, 32), in pieces of 16, of A (rows, 64 bytes) and B (16, 2, 16, 4 bytes).
template <class T, class Dot>
std::vector<T> product(void const* a, void const* b, tern::index rows, Dot const& dot) {
  std::vector<T> c(32 * 32, T(-1));
  tiles::configure(tiles::shape(rows < 16 ? rows : 16, rows < 16 ? 0 : rows - 16));
  tiles::load<4>(a, 64);
  tiles::load<6>(b, 128);
  tiles::load<7>(static_cast<char const*>(b) + 64, 128);
  tiles::zero<0>();
  tiles::zero<1>();
  if (rows > 16) {
    tiles::load<5>(static_cast<char const*>(a) + 16 * 64, 64);
    tiles::zero<2>();
    tiles::zero<3>();
  }
  dot(rows > 16);
  tiles::store<0>(c.data(), 128);
  tiles::store<1>(c.data() + 16, 128);
  if (rows > 16) {
    tiles::store<2>(c.data() + 16 * 32, 128);
    tiles::store<3>(c.data() + 16 * 32 + 16, 128);
  }
  tiles::release();
  return c;
}

// A(i, k), and B(k, j) as it lies.
template <class A, class B, class T>
void check(std::vector<A> const& a, std::vector<B> const& b, std::vector<T> const& got, tern::index rows, std::size_t step) {
  std::size_t const depth = 16 * step;
  for (std::size_t i = 0; i < 32; ++i)
    for (std::size_t j = 0; j < 32; ++j) {
      double want = 0.;
      for (std::size_t k = 0; k < depth; ++k)
        want += static_cast<double>(a[i * depth + k]) * static_cast<double>(b[(k / step * 32 + j) * step + k % step]);
      if (static_cast<tern::index>(i) >= rows) want = -1.;
      REQUIRE(static_cast<double>(got[i * 32 + j]) == want);
    }
}
}  // namespace

TEST_CASE("core: one is assumed, with the lanes it has, and the second cache is between the first and the third", "[simd]") {
  CHECK(!(tern::simd::on_sapphire_rapids && tern::simd::on_zen3));
  CHECK((!tern::simd::on_sapphire_rapids || tern::simd::lanes == 16));
  CHECK((!tern::simd::on_zen3 || tern::simd::lanes == 8));
  CHECK(tern::simd::second_cache_bytes >= tern::index{256} * 1024);
  CHECK(tern::simd::second_cache_bytes <= tern::index{4096} * 1024);
}

TEST_CASE("tiles: products of bytes and of bf16, for any number of rows", "[simd]") {
  if (!tiles::ready()) {
    WARN("not run: this machine has no matrix registers, or does not grant them");
    return;
  }
  rng r(171);
  std::vector<std::int8_t> a(32 * 64);
  std::vector<std::uint8_t> b(64 * 32);
  for (auto& v : a) v = static_cast<std::int8_t>(r.bits());
  for (auto& v : b) v = static_cast<std::uint8_t>(r.bits());
  // Small integers, whose sums are exact in any order.
  std::vector<tern::bf16> c(32 * 32), d(32 * 32);
  for (auto& v : c) v = tern::bf16(static_cast<float>(static_cast<std::int8_t>(r.bits())));
  for (auto& v : d) v = tern::bf16(static_cast<float>(static_cast<std::int8_t>(r.bits())));
  for (tern::index rows : {1, 15, 16, 17, 32}) {
    auto const bytes = [](bool lower) {
      tiles::dot_bytes<0, 4, 6>();
      tiles::dot_bytes<1, 4, 7>();
      if (!lower) return;
      tiles::dot_bytes<2, 5, 6>();
      tiles::dot_bytes<3, 5, 7>();
    };
    check(a, b, product<std::int32_t>(a.data(), b.data(), rows, bytes), rows, 4);
    auto const halves = [](bool lower) {
      tiles::dot_bf16<0, 4, 6>();
      tiles::dot_bf16<1, 4, 7>();
      if (!lower) return;
      tiles::dot_bf16<2, 5, 6>();
      tiles::dot_bf16<3, 5, 7>();
    };
    check(c, d, product<float>(c.data(), d.data(), rows, halves), rows, 2);
  }
}

// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "compare.hpp"

#include <tern/matmul/integer_matmul.hpp>

#include <cmath>

namespace tern::test::integer_products {

namespace {
std::vector<std::int8_t> bytes(rng& r, index n) {
  std::vector<std::int8_t> b(static_cast<std::size_t>(n));
  for (auto& e : b) e = static_cast<std::int8_t>(r.bits() & 255);
  return b;
}
std::size_t at(index i) { return static_cast<std::size_t>(i); }
/// floor(v m / 2^s + 1/2) in long double, which holds 64 bits.
long double rounded(std::int64_t v, std::int32_t m, std::int32_t s) {
  return std::floor(std::ldexp(static_cast<long double>(v) * m, -s) + 0.5L);
}
/// HAWQ-V3's int4: codes in [-8, 7].
struct own_int4 {
  static constexpr index granule = 32;
  static constexpr int offset = 8;
  static constexpr bool has_min = false;
  index rows, columns;
  std::vector<std::uint8_t> const& u;
  void unpack(index row, index g, std::uint8_t* out) const { std::memcpy(out, u.data() + row * columns + 32 * g, 32); }
  void scales(index, index, float* s, float*) const { s[0] = 1.f; }
};
}  // namespace

TEST_CASE("integer_matmul: exact, and HAWQ-V3's dyadic requantization") {
  rng r(41);
  thread_pool pool(3);
  for (index k : {1, 31, 64, 1100})
    for (index n : {1, 37, 130})
      for (index rows : {1, 5, 14}) {
        INFO("rows " << rows << " n " << n << " k " << k);
        auto const x = bytes(r, rows * k), w = bytes(r, n * k);
        std::vector<std::int32_t> sums(at(rows * n)), m(at(n)), s(at(n)), b(at(n)), want(sums.size());
        for (index i = 0; i < rows * n; ++i)
          for (index j = 0; j < k; ++j) want[at(i)] += x[at(i / n * k + j)] * w[at(i % n * k + j)];
        integer_matmul(cpu, view(x.data(), rows, k), view(w.data(), n, k), view(sums.data(), rows, n));
        CHECK(sums == want);
        for (index i = 0; i < n; ++i) {
          m[at(i)] = static_cast<std::int32_t>(r.bits() % (1u << 30));
          s[at(i)] = 28 + static_cast<std::int32_t>(r.bits() % 14);
          b[at(i)] = static_cast<std::int32_t>(r.bits() % 2000) - 1000;
        }
        std::vector<std::int8_t> y(sums.size()), clipped(sums.size()), other(sums.size());
        for (index i = 0; i < rows * n; ++i) {
          long double const v = rounded(std::int64_t{want[at(i)]} + b[at(i % n)], m[at(i % n)], s[at(i % n)]);
          clipped[at(i)] = static_cast<std::int8_t>(std::min(127.L, std::max(-100.L, v)));
        }
        dyadic const d{view(m), view(s), view(b), -100, 127};
        integer_matmul(cpu, view(x.data(), rows, k), view(w.data(), n, k), view(y.data(), rows, n), d);
        CHECK(y == clipped);
        integer_matmul(cpu.on(pool), view(x.data(), rows, k), view(w.data(), n, k), view(other.data(), rows, n), d);
        CHECK(other == y);
      }
}

TEST_CASE("integer_matmul: the largest sums, int4 codes, halves") {
  index const k = 65536;
  std::vector<std::int8_t> const low(at(k), -128), high(at(k), 127);
  std::int32_t sum[4];
  integer_matmul(cpu, view(low.data(), 1, k), view(low.data(), 1, k), view(sum, 1, 1));
  CHECK(sum[0] == 128 * 128 * k);
  integer_matmul(cpu, view(high.data(), 1, k), view(low.data(), 1, k), view(sum, 1, 1));
  CHECK(sum[0] == -128 * 127 * k);

  rng r(42);
  std::vector<std::uint8_t> u(at(5 * 64));
  for (auto& e : u) e = static_cast<std::uint8_t>(r.bits() % 16);
  auto const x = bytes(r, 3 * 64);
  std::vector<std::int32_t> y(15), want(15);
  for (index i = 0; i < 15; ++i)
    for (index j = 0; j < 64; ++j) want[at(i)] += x[at(i / 5 * 64 + j)] * (u[at(i % 5 * 64 + j)] - 8);
  integer_matmul(cpu, view(x.data(), 3, 64), own_int4{5, 64, u}, view(y.data(), 3, 5));
  CHECK(y == want);

  std::int8_t const one[] = {1}, values[] = {3, -3, 5, -5};
  std::int32_t const m[] = {1, 1, 1, 1}, s[] = {1, 1, 1, 0};
  std::int8_t out[4];
  integer_matmul(cpu, view(one, 1, 1), view(values, 4, 1), view(out, 1, 4), dyadic{view(m, 4), view(s, 4)});
  CHECK(out[0] == 2);   // 1.5
  CHECK(out[1] == -1);  // -1.5
  CHECK(out[2] == 3);   // 2.5
  CHECK(out[3] == -5);
}

TEST_CASE("dyadic_add: two scales into one") {
  rng r(43);
  auto const a = bytes(r, 3 * 50), b = bytes(r, 3 * 50);
  for (auto [ma, sa, mb, sb] : {std::array<int, 4>{1 << 20, 21, 1 << 19, 20}, {12345, 14, 777777, 21}, {3, 0, 1, 2}, {-900, 10, 5, 3}}) {
    std::vector<std::int8_t> y(a.size()), want(a.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
      long double const v = std::ldexp(static_cast<long double>(a[i]) * ma, -sa) + std::ldexp(static_cast<long double>(b[i]) * mb, -sb);
      want[i] = static_cast<std::int8_t>(std::min(127.L, std::max(-128.L, std::floor(v + 0.5L))));
    }
    dyadic_add(cpu, view(a.data(), 3, 50), ma, sa, view(b.data(), 3, 50), mb, sb, view(y.data(), 3, 50));
    CHECK(y == want);
  }
}

TEST_CASE("integer_matmul says what is wrong") {
  std::int8_t x[8] = {};
  std::int32_t y[8] = {}, m[2] = {1, 1}, s[2] = {1, 63};
  CHECK_THROWS_WITH(integer_matmul(cpu, view(x, 2, 4), view(x, 2, 3), view(y, 2, 2)),
                    "integer_matmul: x.extent(1) is 4, expected w's columns = 3");
  CHECK_THROWS_WITH(integer_matmul(cpu, view(x, 2, 4), view(x, 2, 4), view(x, 2, 2), dyadic{view(m, 2), view(s, 2)}),
                    "integer_matmul: dyadic.shift is 63, expected 0 to 62");
  CHECK_THROWS_WITH(dyadic_add(cpu, view(x, 2, 2), 1, 31, view(x, 2, 2), 1, 1, view(x, 2, 2)),
                    "dyadic_add: a shift is 31, expected 0 to 30");
}

}  // namespace tern::test::integer_products

// SPDX-License-Identifier: Apache-2.0
#include "compare.hpp"

#include "catch.hpp"

#include <set>

namespace tern::test {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double inf = std::numeric_limits<double>::infinity();
bool one(double got, double want, double magnitude, double tolerance) {
  float const g = static_cast<float>(got);
  return bool(compare(&g, &want, &magnitude, 1, tolerance));
}

TEST_CASE("the comparator accepts what is within the tolerance and nothing beyond") {
  CHECK(one(1.0, 1.0, 1.0, 0x1p-20));
  CHECK(one(1.0 + 0x1p-21, 1.0, 1.0, 0x1p-20));
  CHECK_FALSE(one(1.0 + 0x1p-19, 1.0, 1.0, 0x1p-20));
  CHECK_FALSE(one(1.0 - 0x1p-19, 1.0, 1.0, 0x1p-20));
  CHECK(one(1.0 + 0x1p-19, 1.0, 4.0, 0x1p-20));
}

TEST_CASE("the comparator rejects NaN, wherever it comes from") {
  CHECK_FALSE(one(nan, 1.0, 1.0, 1e6));
  CHECK_FALSE(one(nan, 0.0, 1.0, 1e6));
  CHECK_FALSE(one(1.0, 1.0, nan, 1.0));
  CHECK_FALSE(one(1.0, 1.0, 1.0, nan));
  CHECK_FALSE(one(1.0, nan, 1.0, 1e6));
  CHECK_FALSE(one(nan, inf, 1.0, 1e6));
  CHECK(one(nan, nan, 1.0, 0));
}

TEST_CASE("the comparator wants infinities exactly") {
  CHECK(one(inf, inf, 1.0, 0));
  CHECK(one(-inf, -inf, inf, 0));
  CHECK_FALSE(one(inf, -inf, inf, 1.0));
  CHECK_FALSE(one(3e38, inf, inf, 1.0));
  CHECK_FALSE(one(inf, 3e38, 3e38, 1e6));
  CHECK_FALSE(one(inf, 1.0, inf, 1.0));
}

TEST_CASE("the comparator is not blind at a zero reference") {
  CHECK(one(0.0, 0.0, 0.0, 1e-6));
  CHECK(one(-0.0, 0.0, 0.0, 1e-6));
  CHECK_FALSE(one(1e-30, 0.0, 0.0, 1e-6));
  CHECK_FALSE(one(-1e-3, 0.0, 1.0, 1e-6));
  // a result of the wrong sign whose reference is tiny against what was summed up
  CHECK_FALSE(one(-1e-3, 1e-3, 1.0, 1e-6));
}

TEST_CASE("the comparator finds one bad element, zeros and a short output") {
  rng r(42);
  auto const got = r.normal<float>(257);
  auto const want = widened(got);
  std::vector<double> const magnitude(want.size(), 1.0);
  double const tolerance = 1e-6;
  REQUIRE(compare(got, want, magnitude, tolerance));
  for (std::size_t at : {std::size_t{0}, std::size_t{100}, std::size_t{256}}) {
    auto bad = got;
    bad[at] += static_cast<float>(2 * tolerance);
    comparison const c = compare(bad, want, magnitude, tolerance);
    CHECK_FALSE(c);
    CHECK(c.message.find("1 of 257") != std::string::npos);
    CHECK(c.message.find("[" + std::to_string(at) + "]") != std::string::npos);
    CHECK(c.message.find("seed 42") != std::string::npos);
  }
  CHECK_FALSE(compare(std::vector<float>(257, 0.f), want, magnitude, tolerance));
  CHECK_FALSE(compare(std::span<float const>(got).first(256), want, magnitude, tolerance));
  CHECK_FALSE(compare(got, want, std::span<double const>(magnitude).first(256), tolerance));
  CHECK_FALSE(compare(std::vector<float>{}, want, magnitude, tolerance));
}

TEST_CASE("the comparator follows strides") {
  float const stored[] = {0, 1, 2, 3, 4, 5};  // (3, 2), column-major
  auto const v = tensor_view<float const, 2>(stored, shape{3, 2}, shape{1, 3});
  std::vector<double> const want = {0, 3, 1, 4, 2, 5}, magnitude(6, 1.0);
  CHECK(compare(v, want, magnitude, 0));
  CHECK_FALSE(compare(v.transposed(0, 1), want, magnitude, 1e-3));
}

TEST_CASE("the comparator allows a stored f16 or bf16 its rounding, no more") {
  double const magnitude = 0;
  double const want = 1.0 + 0x1p-11;  // half way between two f16
  for (float x : {1.f, 1.f + 0x1p-10f}) {
    f16 const got(x);
    CHECK(compare(&got, &want, &magnitude, 1, 0));
  }
  f16 const far16(1.f + 0x1p-9f);
  CHECK_FALSE(compare(&far16, &want, &magnitude, 1, 0));
  bf16 const near(1.f), far(1.f + 0x1p-6f);
  CHECK(compare(&near, &want, &magnitude, 1, 0));
  CHECK_FALSE(compare(&far, &want, &magnitude, 1, 0));
}

TEMPLATE_TEST_CASE("a guarded buffer notices stray writes", "", float, double, f16, bf16, std::int8_t, std::uint16_t) {
  using T = TestType;
  auto const zero = [] {
    T z;
    std::memset(&z, 0, sizeof z);
    return z;
  }();
  for (index misalignment : {index{0}, index{1}, index{3}}) {
    guarded<T> b(10, misalignment);
    CHECK(reinterpret_cast<std::uintptr_t>(b.data()) % 64 == static_cast<std::size_t>(misalignment) * sizeof(T));
    CHECK(b.intact());
    b[0] = b[9] = zero;
    CHECK(b.intact());
    b.data()[10] = zero;
    CHECK_FALSE(b.intact());
    b.data()[10] = poison<T>();
    CHECK(b.intact());
    b.data()[-1] = zero;
    CHECK_FALSE(b.intact());
  }
  guarded<T> b(12);
  auto const rows = tensor_view<T, 2>(b.data(), shape{3, 2}, shape{4, 1});
  rows(2, 1) = zero;
  CHECK(b.untouched_outside(rows));
  b[2] = zero;
  CHECK_FALSE(b.untouched_outside(rows));
}

TEST_CASE("random numbers repeat, differ and have the right spread") {
  rng a(1), b(1), c(2);
  CHECK(a.normal<float>(100) == b.normal<float>(100));
  CHECK(a.normal<float>(100) != c.normal<float>(100));
  auto const x = a.normal<float>(100000, 3.0);
  double sum = 0, squares = 0;
  for (double e : x) sum += e, squares += e * e;
  CHECK(std::abs(sum / 1e5) < 0.05);
  CHECK(std::abs(std::sqrt(squares / 1e5) - 3.0) < 0.05);
  std::set<index> seen;
  for (int i = 0; i < 200; ++i) seen.insert(a.integer(-1, 2));
  CHECK(seen == std::set<index>{-1, 0, 1, 2});
}

TEST_CASE("lengths around the lane count are distinct and not negative") {
  for (index lanes : {1, 2, 4, 8, 16}) {
    auto const lengths = lengths_around(lanes);
    std::set<index> const distinct(lengths.begin(), lengths.end());
    CHECK(distinct.size() == lengths.size());
    CHECK(*distinct.begin() == 0);
    CHECK(distinct.count(lanes) + distinct.count(lanes + 1) + distinct.count(lanes - 1) == 3);
  }
}

}  // namespace
}  // namespace tern::test

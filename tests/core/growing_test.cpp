// SPDX-License-Identifier: Apache-2.0
#include <tern/core/growing.hpp>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <utility>

#include "catch.hpp"

namespace tern::test {
namespace {

using tern::detail::growing;

/// Knows how many of it live.
struct counted {
  static inline int alive = 0;
  int value;
  explicit counted(int x) : value(x) { ++alive; }
  counted(counted const& other) : value(other.value) {
    if (value < 0) throw std::runtime_error("no copies");
    ++alive;
  }
  counted(counted&& other) noexcept : value(std::exchange(other.value, -1)) { ++alive; }
  counted& operator=(counted&& other) noexcept {
    value = std::exchange(other.value, -1);
    return *this;
  }
  ~counted() { --alive; }
};

/// Whether it holds first, first + 1, ...
bool ascends(growing<counted> const& x, int first) {
  for (counted const& e : x)
    if (e.value != first++) return false;
  return true;
}

TEST_CASE("growing: every element that is made is destroyed, once") {
  {
    growing<counted> x;
    CHECK(x.size() == 0);
    CHECK(x.begin() == x.end());
    for (int i = 0; i < 100; ++i) {
      x.push(counted(i));
      REQUIRE(counted::alive == i + 1);
      REQUIRE(x.back().value == i);
    }
    CHECK(ascends(x, 0));
    x.pop();
    CHECK(counted::alive == 99);
    x.shrink(200);  // nothing to drop
    CHECK(x.size() == 99);
    x.shrink(40);
    CHECK(counted::alive == 40);
    CHECK(x.size() == 40);
    CHECK(ascends(x, 0));
    x.clear();
    CHECK(counted::alive == 0);
    x.push(counted(7));
    CHECK(x[0].value == 7);
  }
  CHECK(counted::alive == 0);
}

TEST_CASE("growing: moves hand the elements over") {
  {
    growing<counted> a, b;
    for (int i = 0; i < 9; ++i) a.push(counted(i));
    for (int i = 50; i < 53; ++i) b.push(counted(i));
    counted const* const first = a.data();
    growing<counted> c(std::move(a));
    CHECK(c.data() == first);
    CHECK(counted::alive == 12);
    CHECK(a.size() == 0);
    a.push(counted(1));  // as good as new
    CHECK(a.back().value == 1);
    b = std::move(c);
    CHECK(b.data() == first);
    CHECK(ascends(b, 0));
    CHECK(c.size() == 0);
    CHECK(counted::alive == 10);
    growing<counted>& same = b;
    b = std::move(same);
    CHECK(b.size() == 9);
    CHECK(ascends(b, 0));
  }
  CHECK(counted::alive == 0);
}

TEST_CASE("growing: an element of its own may be pushed, wherever memory goes") {
  growing<counted> x;
  x.push(counted(3));
  for (int i = 0; i < 50; ++i) x.push(static_cast<counted const&>(x[i / 2]));
  CHECK(x.size() == 51);
  for (counted const& e : x) REQUIRE(e.value == 3);
  growing<std::int32_t> numbers;
  numbers.push(5);
  for (index i = 0; i < 50; ++i) numbers.push(numbers[i]);
  for (std::int32_t e : numbers) REQUIRE(e == 5);
}

TEST_CASE("growing: what can only move") {
  growing<std::unique_ptr<int>> x;
  for (int i = 0; i < 30; ++i) x.push(std::make_unique<int>(i));
  for (int i = 0; i < 30; ++i) REQUIRE(*x[i] == i);
  growing<growing<int>> nested;
  for (int i = 0; i < 20; ++i) {
    nested.push(growing<int>{});
    for (int j = 0; j <= i; ++j) nested[i / 2].push(j);
  }
  index all = 0;
  for (growing<int> const& e : nested) all += e.size();
  CHECK(all == 210);
}

TEST_CASE("growing: reserved room takes what fits without moving it") {
  growing<int> x;
  x.reserve(10);
  x.push(0);
  int const* const at = x.data();
  for (int i = 1; i < 10; ++i) x.push(i);
  CHECK(x.data() == at);
  x.reserve(4);  // less than there is
  CHECK(x.data() == at);
  x.reserve_more(11);
  int const* const more = x.data();
  for (int i = 10; i < 15; ++i) x.push(i);
  CHECK(x.data() == more);  // half as much again
  for (int i = 0; i < 15; ++i) REQUIRE(x[i] == i);
}

TEST_CASE("growing: a copy that fails changes nothing") {
  {
    growing<counted> x;
    for (int i = 0; i < 4; ++i) x.push(counted(i));
    counted const bad(-5);
    CHECK_THROWS_AS(x.push(bad), std::runtime_error);
    CHECK(x.size() == 4);
    CHECK(ascends(x, 0));
    CHECK(counted::alive == 5);
  }
  CHECK(counted::alive == 0);
}

TEST_CASE("growing: elements keep their alignment") {
  struct alignas(128) wide {
    int value;
  };
  growing<wide> x;
  for (int i = 0; i < 20; ++i) {
    x.push(wide{i});
    REQUIRE(reinterpret_cast<std::uintptr_t>(&x.back()) % 128 == 0);
  }
  for (int i = 0; i < 20; ++i) REQUIRE(x[i].value == i);
}

}  // namespace
}  // namespace tern::test

// SPDX-License-Identifier: Apache-2.0
#include <tern/core/executor.hpp>

#include <vector>

#include "catch.hpp"

namespace tern::test {
namespace {

// The smallest executor that a program may bring: it runs tasks last to first.
struct backwards {
  index calls = 0;
  int concurrency() const { return 3; }
  template <class F>
  void run(index n, F const& f) {
    ++calls;
    for (index i = n; i-- > 0;) f(i);
  }
};
struct no_run {
  int concurrency() const { return 1; }
};

}  // namespace

TEST_CASE("the concept takes two functions and no less") {
  STATIC_REQUIRE(executor<backwards>);
  STATIC_REQUIRE(executor<serial_executor const>);
  STATIC_REQUIRE(executor<executor_ref>);
  STATIC_REQUIRE_FALSE(executor<no_run>);
}

TEST_CASE("an executor_ref forwards to what it refers to") {
  backwards mine;
  executor_ref const ref(mine);
  std::vector<index> order;
  auto task = [&](index i) { order.push_back(i); };
  CHECK(ref.concurrency() == 3);
  ref.run(3, task);
  CHECK(order == std::vector<index>{2, 1, 0});
  CHECK(mine.calls == 1);
  CHECK(bool(ref));
}

TEST_CASE("an empty executor_ref and the serial executor run on the caller's thread, in order") {
  std::vector<index> order;
  auto task = [&](index i) { order.push_back(i); };
  executor_ref const none;
  CHECK_FALSE(bool(none));
  CHECK(none.concurrency() == 1);
  none.run(3, task);
  serial_executor{}.run(2, task);
  none.run(0, task);
  CHECK(order == std::vector<index>{0, 1, 2, 0, 1});
}

}  // namespace tern::test

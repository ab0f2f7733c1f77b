// SPDX-License-Identifier: Apache-2.0
#include <tern/core/thread_pool.hpp>

#include <atomic>
#include <chrono>
#include <set>
#include <thread>
#include <vector>

#include "catch.hpp"

namespace tern::test {
namespace {

// Runs n tasks on the pool; whether each ran once.
bool runs_each_once(thread_pool& pool, index n) {
  std::vector<std::atomic<int>> counts(static_cast<std::size_t>(n));
  auto task = [&](index i) { counts[static_cast<std::size_t>(i)].fetch_add(1, std::memory_order_relaxed); };
  pool.run(n, task);
  for (auto const& c : counts)
    if (c.load() != 1) return false;
  return true;
}

}  // namespace

TEST_CASE("a pool runs each task once, whatever its size") {
  for (index threads : {1, 2, 3, 4, 9}) {
    thread_pool pool(threads);
    CHECK(pool.concurrency() == threads);
    for (index n : {0, 1, 2, 3, 4, 9, 100}) CHECK(runs_each_once(pool, n));
  }
  CHECK(thread_pool(0).concurrency() >= 1);
}

TEST_CASE("thousands of regions, short, long and after a sleep, lose nothing") {
  thread_pool pool(4);
  bool all = true;
  for (int i = 0; i < 5000; ++i) all = runs_each_once(pool, 1 + i % 6) && all;
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // long enough for the workers to fall asleep
    all = runs_each_once(pool, 4) && all;
  }
  CHECK(all);
}

TEST_CASE("what a task wrote is seen after the region, and what came before is seen within") {
  thread_pool pool(4);
  std::vector<int> values(64, 0);
  bool right = true;
  for (int round = 1; round <= 500; ++round) {
    for (int& v : values) v = round;
    auto task = [&](index i) { values[static_cast<std::size_t>(i)] += static_cast<int>(i); };
    pool.run(64, task);
    for (int i = 0; i < 64; ++i) right = right && values[static_cast<std::size_t>(i)] == round + i;
  }
  CHECK(right);
}

TEST_CASE("a region within a region runs on its own thread") {
  thread_pool pool(4);
  std::atomic<int> inner{0};
  std::atomic<bool> moved{false};
  auto outer = [&](index) {
    auto const self = std::this_thread::get_id();
    auto nested = [&](index) {
      inner.fetch_add(1);
      if (std::this_thread::get_id() != self) moved = true;
    };
    pool.run(5, nested);
  };
  pool.run(4, outer);
  CHECK(inner == 20);
  CHECK_FALSE(moved);
}

TEST_CASE("several threads of the program share a pool") {
  thread_pool pool(3);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i)
        if (!runs_each_once(pool, 3)) wrong.fetch_add(1);
    });
  for (std::thread& t : threads) t.join();
  CHECK(wrong == 0);
}

TEST_CASE("pools come and go") {
  bool all = true;
  for (int i = 0; i < 100; ++i) {
    thread_pool pool(3);
    if (i % 2 == 0) all = runs_each_once(pool, 3) && all;
  }
  CHECK(all);
}

}  // namespace tern::test

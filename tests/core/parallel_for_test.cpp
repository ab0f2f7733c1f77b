// SPDX-License-Identifier: Apache-2.0
#include <tern/core/parallel_for.hpp>

#include <atomic>
#include <thread>
#include <vector>

#include "catch.hpp"

namespace tern::test {
namespace {

// Runs `items` items; whether each ran once, with a slot in range and to itself.
bool runs_each_once(cpu_policy const& policy, index items) {
  index const slots = detail::slots_for(policy, items);
  std::vector<std::atomic<int>> counts(static_cast<std::size_t>(items));
  std::vector<std::atomic<bool>> taken(static_cast<std::size_t>(slots));
  std::atomic<bool> right{true};
  detail::parallel_for(policy, items, [&](index item, index slot) {
    if (slot < 0 || slot >= slots || taken[static_cast<std::size_t>(slot)].exchange(true)) {
      right = false;
      return;
    }
    counts[static_cast<std::size_t>(item)].fetch_add(1);
    taken[static_cast<std::size_t>(slot)].store(false);
  });
  for (auto const& c : counts)
    if (c.load() != 1) right = false;
  return right;
}

// The same of a chain, whose slots learn from take() what they do next; and whether each begins once.
bool chains_each_once(cpu_policy const& policy, index items) {
  std::vector<std::atomic<int>> counts(static_cast<std::size_t>(items));
  std::vector<std::atomic<index>> next(static_cast<std::size_t>(detail::slots_for(policy, items)));
  for (auto& n : next) n = -1;
  std::atomic<bool> right{true};
  detail::parallel_chain(policy, items, [&](index item, bool first, index slot, auto const& take) {
    std::atomic<index>& mine = next.at(static_cast<std::size_t>(slot));
    if (mine.load() != (first ? -1 : item)) right = false;
    counts[static_cast<std::size_t>(item)].fetch_add(1);
    mine = take();
    return mine.load();
  });
  for (auto const& c : counts)
    if (c.load() != 1) right = false;
  for (auto const& n : next)
    if (n.load() != items && n.load() != -1) right = false;
  return right;
}

void check_policies(bool (*right)(cpu_policy const& policy, index items)) {
  thread_pool two(2), five(5);
  for (index items : {0, 1, 2, 3, 7, 64, 1000}) {
    CHECK(right(cpu, items));
    CHECK(right(cpu.on(serial), items));
    CHECK(right(cpu.on(two), items));
    CHECK(right(cpu.on(five), items));
  }
}

}  // namespace

TEST_CASE("parallel_chain runs each item once, after the one that its slot had before") { check_policies(chains_each_once); }

TEST_CASE("parallel_for runs each item once, in a slot of its own") { check_policies(runs_each_once); }

TEST_CASE("parallel_for nests and takes callers from several threads") {
  thread_pool pool(3);
  std::atomic<int> inner{0};
  detail::parallel_for(cpu.on(pool), 10,
                       [&](index, index) { detail::parallel_for(cpu.on(pool), 7, [&](index, index) { inner.fetch_add(1); }); });
  CHECK(inner == 70);
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < 3; ++t)
    callers.emplace_back([&] {
      for (int i = 0; i < 300; ++i)
        if (!runs_each_once(cpu.on(pool), 20)) wrong.fetch_add(1);
    });
  for (std::thread& t : callers) t.join();
  CHECK(wrong == 0);
}

TEST_CASE("slots never exceed items or threads") {
  thread_pool pool(4);
  CHECK(detail::slots_for(cpu.on(pool), 0) == 1);
  CHECK(detail::slots_for(cpu.on(pool), 1) == 1);
  CHECK(detail::slots_for(cpu.on(pool), 3) == 3);
  CHECK(detail::slots_for(cpu.on(pool), 100) == 4);
  CHECK(detail::slots_for(cpu.on(serial), 100) == 1);
}

}  // namespace tern::test

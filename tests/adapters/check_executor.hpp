// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/adapters/check_executor.hpp
/// What every executor has to do: run each item once, nest, and serve several threads of the program.

#include <tern/core/parallel_for.hpp>

#include <atomic>
#include <thread>
#include <vector>

#include "catch.hpp"

namespace tern::test {

template <executor E>
bool runs_each_once(E& threads, index items) {
  std::vector<std::atomic<int>> counts(static_cast<std::size_t>(items));
  tern::detail::parallel_for(cpu.on(threads), items, [&](index i, index) { counts[static_cast<std::size_t>(i)].fetch_add(1); });
  for (auto const& c : counts)
    if (c.load() != 1) return false;
  return true;
}

template <executor E>
void check_executor(E& threads) {
  CHECK(threads.concurrency() >= 1);
  for (index items : {0, 1, 2, 5, 100}) CHECK(runs_each_once(threads, items));
  bool all = true;
  for (int i = 0; i < 500; ++i) all = runs_each_once(threads, 6) && all;
  CHECK(all);
  std::atomic<int> inner{0};
  tern::detail::parallel_for(
      cpu.on(threads), 8, [&](index, index) { tern::detail::parallel_for(cpu.on(threads), 4, [&](index, index) { inner.fetch_add(1); }); });
  CHECK(inner == 32);
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < 2; ++t)
    callers.emplace_back([&] {
      for (int i = 0; i < 100; ++i)
        if (!runs_each_once(threads, 6)) wrong.fetch_add(1);
    });
  for (std::thread& t : callers) t.join();
  CHECK(wrong == 0);
}

}  // namespace tern::test

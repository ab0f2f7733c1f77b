// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file core/parallel_for.hpp
/// The one loop over threads. Items are handed out one by one as threads become free; which thread takes an item must not
/// change what is computed for it.

#include <tern/core/policy.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Calls body(item, slot) once for each item in [0, items). Slots are in [0, min(items, policy.concurrency())), and no two
/// calls with the same slot run at the same time: a slot owns a piece of scratch memory.
template <class Body>
TERN_INLINE void parallel_for(cpu_policy const& policy, index items, Body&& body) {
  executor_ref const threads = items > 1 ? policy.executor() : executor_ref{};
  index const slots = threads.concurrency() < items ? threads.concurrency() : items;
  if (slots <= 1) {
    for (index i = 0; i < items; ++i) body(i, index{0});
    return;
  }
  index next = 0;
  auto worker = [&](index slot) {
    for (index i; (i = __atomic_fetch_add(&next, index{1}, __ATOMIC_RELAXED)) < items;) body(i, slot);
  };
  threads.run(slots, task_ref(worker));
}

/// What comes next in a chain: an item that nobody has, or `items` where there is none.
struct chain_turn {
  index* next;
  index items;
  TERN_INLINE index operator()() const {
    index const i = __atomic_fetch_add(next, index{1}, __ATOMIC_RELAXED);
    return i < items ? i : items;
  }
};
/// The same where a slot's items follow each other in its memory: body(item, first, slot, take) calls take(), a chain_turn, once, when it
/// wants to know what its slot does next, and returns that. first: whether the slot did nothing before.
template <class Body>
TERN_INLINE void parallel_chain(cpu_policy const& policy, index items, Body&& body) {
  executor_ref const threads = items > 1 ? policy.executor() : executor_ref{};
  index const slots = threads.concurrency() < items ? threads.concurrency() : items;
  index next = 0;
  chain_turn const take{&next, items};
  auto worker = [&](index slot) {
    bool first = true;
    for (index i = take(); i < items; first = false) i = body(i, first, slot, take);
  };
  if (slots <= 1) return worker(0);
  threads.run(slots, task_ref(worker));
}

/// How many slots `parallel_for` uses for this many items.
TERN_INLINE index slots_for(cpu_policy const& policy, index items) {
  index const threads = items > 1 ? policy.concurrency() : 1;
  return threads < items ? threads : (items > 0 ? items : 1);
}

}  // namespace TERN_ABI
}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
// Where memory runs out in the middle of a call, the cache is as before; and what was reserved needs no more of it.
#include "model.hpp"

#include <cstdlib>
#include <new>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"  // gcc inlines one of the pair below
#endif

namespace {
/// How many more aligned allocations succeed: tern makes no others. Negative: all.
thread_local int allocations_left = -1;
}  // namespace

void* operator new(std::size_t bytes, std::align_val_t alignment) {
  if (allocations_left == 0) throw std::bad_alloc();
  if (allocations_left > 0) --allocations_left;
  std::size_t const a = static_cast<std::size_t>(alignment);
  void* const p = std::aligned_alloc(a, (bytes + a - 1) / a * a + (bytes == 0 ? a : 0));
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
// As the standard has it, but not sanitizers.
void* operator new(std::size_t bytes, std::align_val_t alignment, std::nothrow_t const&) noexcept {
  try {
    return ::operator new(bytes, alignment);
  } catch (std::bad_alloc const&) {
    return nullptr;
  }
}
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

namespace tern::test {
namespace {

using model = modelled<f16, f16>;

/// Calls f with 0, 1, 2, ... allocations until they are enough, looking at the cache after each time. Returns how many it took.
template <class F>
int run_out(model& m, F const& f) {
  for (int n = 0;; ++n) {
    bool enough = true;
    allocations_left = n;
    try {
      f();
    } catch (std::bad_alloc const&) {
      enough = false;
    }
    allocations_left = -1;
    if (enough) return n;
    m.verify();
  }
}

TEST_CASE("kv_cache: where memory runs out, the cache is as before") {
  rng r(1);
  model m({.layers = 2, .kv_heads = 2, .dim = 33, .dim_v = 20});
  input<float> const k(r, 2, 4000, 33), v(r, 2, 4000, 20);  // more than a slab of pages
  int taken = 0;
  for (int turn = 0; turn < 3; ++turn) {
    kv_cache<f16>::sequence s = -1;
    taken += run_out(m, [&] { s = m.cache.open(); });
    m.cache.close(s);
    REQUIRE(s == m.open());
    for (index layer = 0; layer < 2; ++layer) m.append(r, s, layer, 100);
    taken += run_out(m, [&] { m.cache.append(cpu.on(serial), s, 0, k.view, v.view); });
    m.cache.truncate(s, 100);
    m.verify();

    auto b = s;
    taken += run_out(m, [&] { b = m.cache.fork(s); });
    m.cache.close(b);
    REQUIRE(b == m.fork(s));
    // Copies of what is shared.
    owned_lists lists({{1, 70}, {0, 2}});
    auto const policy = cpu.on(serial);
    run_out(m, [&] { m.cache.keep(policy, b, 1, lists()); });
    m.texts.erase(b);
    m.cache.close(b);
    REQUIRE(b == m.fork(s));
    run_out(m, [&] { m.cache.slide(policy, b, 0, 3, 0); });
    m.texts.erase(b);
    m.cache.close(b);
    m.verify();
  }
  CHECK(taken > 10);
  while (!m.texts.empty()) m.close(m.texts.begin()->first);
  m.cache.defragment();
  CHECK(m.cache.reserved_bytes() == 0);
}

TEST_CASE("page_pool: what was reserved is taken and given back without memory") {
  tern::detail::page_pool pool(700000, 100);
  for (int turn = 0; turn < 3; ++turn) {
    pool.reserve(7);
    allocations_left = 0;
    std::int32_t ids[7];
    for (std::int32_t& id : ids) id = pool.take();
    for (std::int32_t id : ids) pool.drop(id);
    allocations_left = -1;
    CHECK(pool.used() == 0);
    CHECK(pool.reserved_bytes() == 0);
  }
  pool.reserve(5);
  CHECK(pool.reserved_bytes() > 0);
  pool.defragment();
  CHECK(pool.reserved_bytes() == 0);
}

TEST_CASE("kv_cache: few of many appends take memory") {
  rng r(2);
  model m({.layers = 1, .kv_heads = 2, .dim = 33, .dim_v = 20});
  auto const s = m.open();
  input<float> const k(r, 2, 1, 33), v(r, 2, 1, 20);
  int turns = 0;
  for (int t = 0; t < 3000; ++t) {
    allocations_left = 1000;
    m.cache.append(cpu, s, 0, k.view, v.view);
    turns += allocations_left < 1000;
  }
  allocations_left = -1;
  CHECK(turns < 60);  // tables grow by half each time
}

}  // namespace
}  // namespace tern::test

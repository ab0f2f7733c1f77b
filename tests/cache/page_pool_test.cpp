// SPDX-License-Identifier: Apache-2.0
// Pages that are taken, shared, given back and moved together: each keeps its bytes, and memory goes when it can.
#include "catch.hpp"
#include "compare.hpp"

#include <tern/cache/page_pool.hpp>

#include <map>
#include <set>

namespace tern::test {
namespace {

using tern::detail::page_pool;

/// A pool, and what each page should hold: its stamp at both ends.
struct stamped_pool {
  struct stamped {
    index owners;
    std::uint64_t stamp;
  };
  page_pool pool;
  std::map<std::int32_t, stamped> pages;

  stamped_pool(index page_bytes, index limit) : pool(page_bytes, limit) {}
  std::byte* end_of(std::int32_t id) const { return pool.at(id) + pool.page_bytes() - 8; }
  void take(rng& r, index count) {
    pool.reserve(count);
    for (index i = 0; i < count; ++i) {
      std::int32_t const id = pool.take();
      REQUIRE(!pages.contains(id));
      REQUIRE(reinterpret_cast<std::uintptr_t>(pool.at(id)) % page_pool::alignment == 0);
      std::uint64_t const stamp = r.bits();
      std::memcpy(pool.at(id), &stamp, 8);
      std::memcpy(end_of(id), &stamp, 8);
      pages[id] = {1, stamp};
    }
  }
  std::int32_t any(rng& r) const { return std::next(pages.begin(), r.integer(0, static_cast<index>(pages.size()) - 1))->first; }
  void share(std::int32_t id) {
    pool.share(id);
    ++pages[id].owners;
  }
  void drop(std::int32_t id) {
    pool.drop(id);
    if (--pages[id].owners == 0) pages.erase(id);
  }
  /// Pages in a slab of memory.
  index in_slab() const { return std::max<index>(1, std::min<index>(256, page_pool::slab_bytes / pool.page_bytes())); }
  index slabs() const { return pool.reserved_bytes() / pool.slab_memory(); }
  void verify(index limit) const {
    index const used = static_cast<index>(pages.size());
    REQUIRE(pool.used() == used);
    REQUIRE(pool.left() == limit - used);
    REQUIRE(pool.reserved_bytes() >= used * pool.page_bytes());
    std::set<std::byte*> places;
    for (auto const& [id, page] : pages) {
      std::uint64_t first = 0, last = 0;
      std::memcpy(&first, pool.at(id), 8);
      std::memcpy(&last, end_of(id), 8);
      REQUIRE(first == page.stamp);
      REQUIRE(last == page.stamp);
      REQUIRE(pool.is_shared(id) == (page.owners > 1));
      REQUIRE(pool.addresses()[id] == pool.at(id));
      places.insert(pool.at(id));
    }
    REQUIRE(places.size() == pages.size());
  }
};

TEST_CASE("page_pool: pages keep their bytes, and memory goes with the last page of a slab") {
  // 256, 101, 2 and 1 pages in a slab; sizes that are no multiple of the alignment.
  for (index page_bytes : {index{4000}, index{20700}, index{700001}, 3 * page_pool::slab_bytes / 2}) {
    rng r(static_cast<std::uint64_t>(page_bytes));
    index const limit = 2000;
    stamped_pool x(page_bytes, limit);
    CHECK(x.pool.page_bytes() == (page_bytes + 63) / 64 * 64);
    CHECK(x.pool.pages_in_slab() == x.in_slab());
    CHECK(x.pool.slab_memory() == (page_bytes == 20700 ? page_pool::slab_bytes : x.in_slab() * x.pool.page_bytes()));
    index const most = 4 * x.in_slab() + 3;
    index moved = 0;
    for (int step = 0; step < 300; ++step) {
      index const used = static_cast<index>(x.pages.size());
      switch (r.integer(0, 5)) {
        case 0:
        case 1:
          if (used < most) x.take(r, r.integer(0, most - used));
          break;
        case 2:
          if (used > 0) x.share(x.any(r));
          break;
        case 3:
        case 4:
          for (index n = r.integer(0, used); n > 0 && !x.pages.empty(); --n) x.drop(x.any(r));
          break;
        default:
          index const before = x.slabs();
          x.pool.defragment();
          REQUIRE(x.slabs() == (used + x.in_slab() - 1) / x.in_slab());
          moved += before > x.slabs();
      }
      x.verify(limit);
    }
    CHECK((moved > 0 || x.in_slab() == 1));
    while (!x.pages.empty()) x.drop(x.any(r));
    x.verify(limit);
    CHECK(x.pool.reserved_bytes() == 0);
  }
}

TEST_CASE("page_pool: a pool that has moved has all pages") {
  rng r(7);
  stamped_pool x(5000, 100);
  x.take(r, 70);
  page_pool const pool(std::move(x.pool));
  CHECK(pool.used() == 70);
  for (auto const& [id, page] : x.pages) CHECK(std::memcmp(pool.at(id), &page.stamp, 8) == 0);
}

}  // namespace
}  // namespace tern::test

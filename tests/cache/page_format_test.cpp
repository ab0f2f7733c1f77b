// SPDX-License-Identifier: Apache-2.0
// What a page gives back, and that that writing a token leaves the others alone, and gathering changes none.
#include "bounds.hpp"
#include "catch.hpp"

#include <set>
#include <string>

namespace tern::test {
namespace {

/// A page full of bytes that nobody wrote.
template <class F>
struct page_of {
  static constexpr index dim = page_format<F>::granule == 1 ? 41 : 96;
  guarded<std::uint8_t> memory;  // full of 0xa5
  page_of() : memory(page_format<F>::bytes(dim)) {}
  template <class X>
  void write(std::vector<X> const& x, index t) {
    page_format<F>::write(x.data(), dim, t, data());
  }
  std::vector<float> read(index t) const {
    std::vector<float> x(dim);
    page_format<F>::read(data(), dim, t, x.data());
    return x;
  }
  std::byte* data() { return reinterpret_cast<std::byte*>(memory.data()); }
  std::byte const* data() const { return reinterpret_cast<std::byte const*>(memory.data()); }
  std::vector<std::uint8_t> bytes() const { return {memory.data(), memory.data() + memory.size()}; }
};

#define TERN_TEST_PAGES                                                                                                             \
  float, f16, bf16, formats::q8_0, formats::q4_0, formats::e8p, formats::keys8, formats::keys4, formats::values8, formats::values4, \
      formats::values2

TEMPLATE_TEST_CASE("page_format: a page gives back what was written, within the format's error", "", TERN_TEST_PAGES) {
  rng r(1);
  page_of<TestType> page;
  std::vector<std::vector<float>> given, stored;
  for (index t = 0; t < page_rows; ++t) given.push_back(r.normal<float>(page.dim));
  for (index t = page_rows; t-- > 0;) page.write(given[static_cast<std::size_t>(t)], t);
  for (index t = 0; t < page_rows; ++t) {
    stored.push_back(page.read(t));
    CHECK(stored_well<TestType>(given[static_cast<std::size_t>(t)], stored.back()));
  }
  auto const before = page.bytes();
  page.write(given[37], 37);  // the same again
  CHECK(page.bytes() == before);
  page.write(given[5], 37);
  stored[37] = stored[5];
  for (index t = 0; t < page_rows; ++t) CHECK(page.read(t) == stored[static_cast<std::size_t>(t)]);
  CHECK(page.memory.intact());
}

TEMPLATE_TEST_CASE("page_format: numbers of three types", "", TERN_TEST_PAGES) {
  rng r(2);
  page_of<TestType> page;
  auto const half = r.normal<f16>(page.dim);
  auto const brain = r.normal<bf16>(page.dim);
  page.write(half, 0);
  page.write(std::vector<float>(half.begin(), half.end()), 1);
  page.write(brain, 33);
  page.write(std::vector<float>(brain.begin(), brain.end()), 63);
  CHECK(page.read(0) == page.read(1));
  CHECK(page.read(33) == page.read(63));
  CHECK(page.read(0) != page.read(33));
}

/// Counts what is done beside gathering.
struct turns {
  bool past;
  index count = 0;
  void turn() { ++count; }
};

TEMPLATE_TEST_CASE("page_format: gathered tokens are the same to the bit, and the last fills the page", "", TERN_TEST_PAGES) {
  rng r(3);
  page_of<TestType> pages[3];
  std::vector<std::vector<float>> given;
  for (index t = 0; t < 3 * page_rows; ++t) {
    given.push_back(r.normal<float>(page_of<TestType>::dim));
    pages[t / page_rows].write(given.back(), t % page_rows);
  }
  for (index count : {1, 2, 15, 16, 17, 31, 32, 33, 63, 64}) {
    std::vector<formats::detail::tile_token> from;
    page_of<TestType> want, got;
    for (index u = 0; u < page_rows; ++u) {
      index const t = r.integer(0, 3 * page_rows - 1);
      if (u < count) from.push_back({pages[t / page_rows].data(), t % page_rows});
      if (u < count) given.push_back(given[static_cast<std::size_t>(t)]);
      want.write(given.back(), u);
    }
    for (bool past : {false, true}) {
      turns beside{past};
      std::fill_n(got.data(), page_format<TestType>::bytes(got.dim), std::byte{0x5a});
      page_format<TestType>::gather(from.data(), count, got.dim, got.data(), beside);
      simd::finish_stores_past();
      CHECK(got.bytes() == want.bytes());
      CHECK(got.memory.intact());
      CHECK(beside.count == page_format<TestType>::gather_turns(got.dim));
    }
  }
}

/// The names of some formats.
template <class... F>
std::set<std::string> names() {
  return {page_format<F>::name...};
}
TEST_CASE("page_format: names tell the formats apart, and sizes are those of the drawings") {
  CHECK(names<formats::keys2, TERN_TEST_PAGES>().size() == 12);
  for (std::string const& name : names<formats::keys2, TERN_TEST_PAGES>()) CHECK(name.size() == 4);
  CHECK(page_format<f16>::bytes(128) == 64 * 256);
  CHECK(page_format<formats::q8_0>::bytes(128) == 64 * 136);
  CHECK(page_format<formats::e8p>::bytes(128) == 64 * 40);
  CHECK(page_format<formats::keys8>::bytes(128) == 64 * 136);
  CHECK(page_format<formats::values4>::bytes(128) == 64 * 72);
}

}  // namespace
}  // namespace tern::test

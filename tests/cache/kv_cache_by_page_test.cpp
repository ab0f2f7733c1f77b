// SPDX-License-Identifier: Apache-2.0
// Keys that are written by page: what may be appended, shared, forgotten, and that keeping some rounds them once more.
#include "model.hpp"

namespace tern::test {
namespace {

using cache_2 = kv_cache<formats::keys2, formats::values2>;
using rows = std::vector<std::vector<float>>;
constexpr index dim = 64, dim_v = 32;

/// All that a head holds.
struct held {
  rows keys, values;
  held(cache_2 const& cache, std::int32_t s, index h) {
    for (index t = 0; t < cache.length(s, 0, h); ++t) {
      keys.emplace_back(static_cast<std::size_t>(dim));
      values.emplace_back(static_cast<std::size_t>(dim_v));
      cache.read_key(s, 0, h, t, keys.back().data());
      cache.read_value(s, 0, h, t, values.back().data());
    }
  }
  bool operator==(held const&) const = default;
  held first(index count) const {
    held x = *this;
    x.keys.resize(static_cast<std::size_t>(count));
    x.values.resize(static_cast<std::size_t>(count));
    return x;
  }
};

/// Whether tokens [first, last) of a page are those given, within half a step of the page's range of each element.
bool rounded_well(rows const& given, rows const& stored, std::size_t first, std::size_t last) {
  for (std::size_t d = 0; d < static_cast<std::size_t>(dim); ++d) {
    double low = static_cast<double>(given[first][d]), high = low;
    for (std::size_t t = first; t < last; ++t) {
      low = std::min(low, static_cast<double>(given[t][d]));
      high = std::max(high, static_cast<double>(given[t][d]));
    }
    double const bound = (high - low) / 6 * 1.00001 + 0x1p-10 * std::max(std::abs(low), std::abs(high));
    for (std::size_t t = first; t < last; ++t)
      if (!(std::abs(static_cast<double>(stored[t][d]) - static_cast<double>(given[t][d])) <= bound)) return false;
  }
  return true;
}

/// A sequence of four pages a head, and another that shares them.
struct by_page {
  rng r{1};
  cache_2 cache{{.layers = 1, .kv_heads = 2, .dim = dim, .dim_v = dim_v}};
  std::int32_t a = cache.open(), b;
  input<float> k{r, 2, 256, dim}, v{r, 2, 256, dim_v};
  index page;
  by_page() {
    cache.append(some_threads(), a, 0, k.view, v.view);
    b = cache.fork(a);
    page = cache.bytes() / 8;
  }
  /// What appending so many says.
  std::string said(std::int32_t s, index count) {
    return message_of([&] { cache.append(cpu, s, 0, k.view.slice(1, 0, count), v.view.slice(1, 0, count)); });
  }
};

std::string const whole = "expected whole pages of 64, which these keys are written in";
std::string const left_whole = "expected a multiple of 64: these keys are written in whole pages, which keep() has to leave";

TEST_CASE("kv_cache: keys by page are appended 64 at a time") {
  by_page c;
  for (index h = 0; h < 2; ++h) {
    held const x(c.cache, c.a, h);
    rows keys;
    for (index t = 0; t < 256; ++t) {
      keys.push_back(c.k.row(h, t));
      REQUIRE(stored_well<formats::values2>(c.v.row(h, t), x.values[static_cast<std::size_t>(t)]));
    }
    for (std::size_t t = 0; t < 256; t += 64) CHECK(rounded_well(keys, x.keys, t, t + 64));
  }
  held const before(c.cache, c.a, 1);
  CHECK(c.said(c.a, 50) == "kv_cache::append: k.extent(1) is 50, expected a multiple of 64, which these keys are written in");
  CHECK(c.said(c.b, 128) == "no error");
  CHECK(c.cache.bytes() == 12 * c.page);
  CHECK(held(c.cache, c.b, 1).first(256) == before);
  c.cache.truncate(c.b, 320);
  CHECK(c.cache.bytes() == 10 * c.page);
  c.cache.truncate(c.b, 100);
  CHECK(c.said(c.b, 64) == "kv_cache::append: the number of tokens that a head has is 100, " + left_whole);
  CHECK(held(c.cache, c.b, 1) == before.first(100));
  CHECK(held(c.cache, c.a, 1) == before);
  c.cache.truncate(c.b, 64);
  CHECK(c.said(c.b, 64) == "no error");
  CHECK(held(c.cache, c.a, 1) == before);
  CHECK(message_of([&] { c.cache.slide(cpu, c.a, 0, 10, 0); }) == "kv_cache::slide: sinks is 10, " + whole);
  c.cache.slide(cpu, c.a, 0, 64, 100);
  CHECK(c.cache.length(c.a, 0) == 192);
  held const slid(c.cache, c.a, 1);
  for (std::size_t t = 0; t < 192; ++t) REQUIRE(slid.keys[t] == before.keys[t < 64 ? t : t + 64]);
}

TEST_CASE("kv_cache: keeping some tokens rounds keys by page anew, from the first page that changes") {
  by_page c;
  held const before[2] = {held(c.cache, c.a, 0), held(c.cache, c.a, 1)};
  std::vector<std::vector<std::int32_t>> lists(2);
  for (std::int32_t t = 0; t < 256; ++t) {
    if (t < 70 || t % 3 == 0) lists[0].push_back(t);
    if (t < 64 || t >= 192) lists[1].push_back(t);
  }
  owned_lists kept(lists);
  c.cache.keep(some_threads(), c.a, 0, kept());
  for (std::size_t h = 0; h < 2; ++h) {
    held const x(c.cache, c.a, static_cast<index>(h));
    std::size_t const count = lists[h].size();
    rows keys;
    REQUIRE(x.keys.size() == count);
    for (std::size_t i = 0; i < count; ++i) {
      auto const t = static_cast<std::size_t>(lists[h][i]);
      keys.push_back(before[h].keys[t]);
      REQUIRE(x.values[i] == before[h].values[t]);
      if (i < 64) REQUIRE(x.keys[i] == keys.back());
    }
    for (std::size_t t = 64; t < count; t += 64) CHECK(rounded_well(keys, x.keys, t, std::min(t + 64, count)));
    CHECK(held(c.cache, c.b, static_cast<index>(h)) == before[h]);  // which shared the pages
  }
  CHECK(c.said(c.a, 64) == "kv_cache::append: the number of tokens that a head has is 132, " + left_whole);
}

}  // namespace
}  // namespace tern::test

// SPDX-License-Identifier: Apache-2.0
#include "sparse.hpp"

#include <tern/attention/gathered.hpp>
#include <tern/attention/vertical_slash.hpp>

namespace tern::test {
namespace {

TEST_CASE("select_top: the k largest, ascending, the first of equal ones, never -inf") {
  rng r(21);
  float const inf = std::numeric_limits<float>::infinity();
  for (index n : {0, 1, 7, 300})
    for (index k : {0, 1, 5, 299, 1000}) {
      std::vector<float> x(static_cast<std::size_t>(n));
      for (float& e : x) {
        e = static_cast<float>(std::round(3 * r.normal()));  // many are equal
        if (r.integer(0, 9) == 0) e = -inf;
        if (r.integer(0, 9) == 0) e = -0.f;
        if (r.integer(0, 99) == 0) e = inf;
      }
      std::vector<std::int32_t> ids(1000);
      index const count = select_top(view(x), k, view(ids));
      ids.resize(static_cast<std::size_t>(count));
      CHECK(ids == largest(widened(x), k));
    }
  std::vector<float> odd = {1, std::nanf(""), 2, -inf};
  std::vector<std::int32_t> ids(4);
  CHECK(select_top(view(odd), 1, view(ids)) == 1);
  CHECK(ids[0] == 1);
  CHECK(select_top(view(odd), 9, view(ids)) == 3);
  CHECK(select_above(view(odd), 1.f, view(ids)) == 2);
  CHECK((ids[0] == 1 && ids[1] == 2));
}

static_assert(attention_layout<vertical_slash> && attention_layout<gathered>);
static_assert(attention_group<vertical_slash::group_type> && attention_group<gathered::group_type>);

struct patterns {
  std::vector<std::vector<std::int32_t>> columns, slashes, memory;
  std::vector<vertical_slash_head> heads;

  void add(std::vector<std::int32_t> const& c, std::vector<std::int32_t> const& s, index tokens, index keys) {
    columns.push_back(c);
    slashes.push_back(s);
    auto const room = room_for(tokens, keys, static_cast<index>(s.size()));
    heads.push_back(vertical_slash_runs(tensor_view<std::int32_t const, 1>(columns.back().data(), shape<1>{{static_cast<index>(c.size())}}),
                                        tensor_view<std::int32_t const, 1>(slashes.back().data(), shape<1>{{static_cast<index>(s.size())}}),
                                        tokens, keys, room));
  }
  tensor_view<std::int32_t, 1> room_for(index tokens, index keys, index ranges) {
    memory.emplace_back(static_cast<std::size_t>(vertical_slash_capacity(tokens, keys, ranges)));
    return tern::view(memory.back());
  }
};

/// The definition: column j, or a slash that some query of i's block (of 64) meets at j; never behind i.
bool seen(std::vector<std::int32_t> const& columns, std::vector<std::int32_t> const& slashes, index offset, index i, index j) {
  if (j > i + offset) return false;
  if (std::find(columns.begin(), columns.end(), j) != columns.end()) return true;
  for (index other = i / 64 * 64; other < i / 64 * 64 + 64; ++other)
    if (std::find(slashes.begin(), slashes.end(), other + offset - j) != slashes.end()) return true;
  return false;
}

TEST_CASE("vertical_slash: columns and slashes of each head") {
  rng r(22);
  for (auto [tokens, keys] : {std::pair<index, index>{200, 200}, {130, 333}, {3, 500}, {64, 64}, {71, 400}}) {
    call<float> c(r, {4, 2, tokens, keys, 24, 20, 1});
    patterns p;
    p.add(some_of(r, keys, 9), some_of(r, keys, 4), tokens, keys);
    p.add(some_of(r, keys, keys / 3), {0, 1, 2, 70, 71}, tokens, keys);
    p.add({}, some_of(r, keys, 3), tokens, keys);
    p.add(some_of(r, keys, 50), {}, tokens, keys);
    index const offset = keys - tokens;
    c(cpu.on(several_threads()), vertical_slash{p.heads.data(), tokens, keys});
    c.check(want_by_head(c, [&](index h, index i, index j) {
      return seen(p.columns[static_cast<std::size_t>(h)], p.slashes[static_cast<std::size_t>(h)], offset, i, j);
    }));
  }
}

TEST_CASE("vertical_slash: streaming heads, lists of blocks, all keys; all slashes and all columns are dense causal attention") {
  rng r(23);
  for (auto [tokens, keys] : {std::pair<index, index>{200, 200}, {70, 310}, {2, 150}}) {
    call<float> c(r, {4, 1, tokens, keys, 16, 16, 1});
    index const offset = keys - tokens, blocks = (tokens + 63) / 64;
    own_lists lists(blocks, 3);
    for (index g = 0; g < blocks; ++g) lists.set(g, some_of(r, (offset + 64 * g) / 64 + 1, 2));
    patterns p;
    p.heads.push_back(streaming_runs(7, 40, tokens, keys, p.room_for(tokens, keys, 2)));
    p.heads.push_back(block_runs(lists.lists(), 0, tokens, keys, p.room_for(tokens, keys, 3)));
    p.heads.push_back(dense_runs(tokens, keys, p.room_for(tokens, keys, 1)));
    std::vector<std::int32_t> every(static_cast<std::size_t>(keys));
    for (index j = 0; j < keys; ++j) every[static_cast<std::size_t>(j)] = static_cast<std::int32_t>(j);
    p.memory.push_back(every);
    auto const all = tensor_view<std::int32_t const, 1>(p.memory.back().data(), shape<1>{{keys}});
    p.heads.push_back(tokens == 200 ? vertical_slash_runs(all.slice(0, 0, 0), all, tokens, keys, p.room_for(tokens, keys, keys))
                                    : vertical_slash_runs(all, all.slice(0, 0, 0), tokens, keys, p.room_for(tokens, keys, 0)));
    c(cpu, vertical_slash{p.heads.data(), tokens, keys});
    c.check(want_by_head(c, [&](index h, index i, index j) {
      index const first = i / 64 * 64 + offset;
      bool const pattern[] = {j < 7 || j > first - 40, lists.has(i / 64, j / 64), true, true};
      return j <= i + offset && pattern[h];
    }));
    if (tokens == 200) {  // with a mask of the caller's besides
      c(cpu, vertical_slash{p.heads.data(), tokens, keys}, window{10});
      c.check(want_by_head(c, [&](index h, index i, index j) {
        index const first = i / 64 * 64 + offset;
        bool const pattern[] = {j < 7 || j > first - 40, lists.has(i / 64, j / 64), true, true};
        return j <= i + offset && j > i + offset - 10 && pattern[h];
      }));
    }
  }
}

TEST_CASE("vertical_slash: what is wrong") {
  std::vector<std::int32_t> memory(1000), slashes = {0, 200};
  auto const some = tensor_view<std::int32_t const, 1>(slashes.data(), shape<1>{{2}});
  CHECK_THROWS_AS(vertical_slash_runs(some, some, 300, 200, view(memory)), error);
  CHECK_THROWS_AS(vertical_slash_runs(some, some, 300, 300, view(memory).slice(0, 0, vertical_slash_capacity(300, 300, 2) - 1)), error);
  rng r(24);
  call<float> c(r, {1, 1, 70, 90, 8, 8, 1});
  CHECK_THROWS_AS(vertical_slash_runs(some, some, 70, 90, view(memory)), error);  // there is no column 200
  std::vector<std::int32_t> const twice = {5, 5};
  CHECK_THROWS_AS(vertical_slash_runs(some.slice(0, 0, 1), view(twice), 70, 90, view(memory)), error);
  own_lists lists(2, 2);
  lists.set(1, {1, 2});
  CHECK_THROWS_AS(block_runs(lists.lists(), 0, 70, 90, view(memory)), error);
  CHECK_THROWS_AS(block_runs(lists.lists(), 1, 70, 300, view(memory)), error);
  vertical_slash_head const head = vertical_slash_runs(some.slice(0, 0, 1), some.slice(0, 0, 1), 70, 90, view(memory));
  CHECK_THROWS_AS(c(cpu, vertical_slash{&head, 70, 91}), error);
  CHECK_THROWS_AS(c(cpu, vertical_slash{&head, 71, 90}), error);
}

TEST_CASE("gathered: keys and blocks of each key head") {
  rng r(25);
  for (index tokens : {index{1}, index{3}, index{40}})
    for (index block : {1, 16}) {
      index const keys = 333, blocks = (keys + block - 1) / block;
      call<float> c(r, {6, 2, tokens, keys, 32, 24, 1});
      own_lists lists(2, blocks);
      auto some = some_of(r, blocks, blocks / 3);
      if (some.back() != blocks - 1) some.push_back(static_cast<std::int32_t>(blocks - 1));  // the last block is shorter
      lists.set(0, some);
      lists.set(1, some_of(r, blocks - 1, 5));
      gathered const layout{lists.lists(), 6, 2, tokens, keys, block};
      c(cpu.on(several_threads()), layout, causal{});
      c.check(want_by_head(c, [&](index h, index i, index j) { return j <= i + keys - tokens && lists.has(h / 3, j / block); }));
      // All keys are dense attention; none give zeros.
      std::vector<std::int32_t> all(static_cast<std::size_t>(blocks));
      for (index j = 0; j < blocks; ++j) all[static_cast<std::size_t>(j)] = static_cast<std::int32_t>(j);
      lists.set(0, all);
      lists.set(1, {});
      c(cpu, layout, causal{});
      c.check(want_by_head(c, [&](index h, index i, index j) { return h < 3 && j <= i + keys - tokens; }));
      lists.set(1, {3, 3});
      CHECK_THROWS_AS(c(cpu, layout, causal{}), error);
      lists.set(1, {static_cast<std::int32_t>(blocks)});
      CHECK_THROWS_AS(c(cpu, layout, causal{}), error);
    }
}

}  // namespace
}  // namespace tern::test

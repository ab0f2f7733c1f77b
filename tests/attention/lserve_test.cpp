// SPDX-License-Identifier: Apache-2.0
#include "sparse.hpp"

#include <tern/attention/systems/lserve.hpp>

namespace tern::test {
namespace {

/// A sequence in pages of a pool, and the same keys in a row.
struct paged_text {
  index page, logical, heads, pages;
  call<float> c;
  std::vector<float> k, v, low, high;
  std::vector<std::int32_t> table;
  std::int32_t length;

  paged_text(rng& r, index tokens_of_page, index keys)
      : page(tokens_of_page),
        logical(4),
        heads(2),
        pages((keys + page - 1) / page + 2),
        c(r, {6, 2, 1, keys, 24, 20, 3}),
        k(static_cast<std::size_t>(pages * heads * page * 24)),
        v(static_cast<std::size_t>(pages * heads * page * 20)),
        low(static_cast<std::size_t>(pages * heads * page / 4 * 24)),
        high(low.size()),
        length(static_cast<std::int32_t>(keys)) {
    for (index p = 0; p < pages; ++p) table.push_back(static_cast<std::int32_t>((p * 5 + 3) % pages));
    if (pages % 5 == 0) std::reverse(table.begin(), table.end());
    for (index p = 0; p < pages && pages % 5 == 0; ++p) table[static_cast<std::size_t>(p)] = static_cast<std::int32_t>(pages - 1 - p);
    for (index h = 0; h < heads; ++h)
      for (index j = 0; j < keys; ++j) {
        index const at = table[static_cast<std::size_t>(j / page)];
        for (index d = 0; d < 24; ++d) k_pool()(at, h, j % page, d) = c.k.view(h, j, d);
        for (index d = 0; d < 20; ++d) v_pool()(at, h, j % page, d) = c.v.view(h, j, d);
      }
    for (index p = 0; p * page < keys; ++p) {
      index const at = table[static_cast<std::size_t>(p)], rows = std::min(page, keys - p * page);
      page_bounds(cpu, k_pool()[at].slice(1, 0, rows), logical, lows()[at], highs()[at]);
    }
  }
  tensor_view<float, 4> k_pool() { return tern::view(k.data(), pages, heads, page, 24); }
  tensor_view<float, 4> v_pool() { return tern::view(v.data(), pages, heads, page, 20); }
  tensor_view<float, 4> lows() { return tern::view(low.data(), pages, heads, page / 4, 24); }
  tensor_view<float, 4> highs() { return tern::view(high.data(), pages, heads, page / 4, 24); }
  tensor_view<std::int32_t const, 2> where() const { return {table.data(), shape<2>{{1, pages}}}; }

  /// The paper's score of each page, in double.
  std::vector<double> scores(index kh) const {
    std::vector<double> all;
    for (index p = 0; p * page < c.c.keys; ++p) {
      double best = -1e300;
      for (index first = p * page; first < std::min(c.c.keys, (p + 1) * page); first += logical)
        for (index h = 3 * kh; h < 3 * kh + 3; ++h) {
          double sum = 0;
          for (index d = 0; d < 24; ++d) {
            double const x = static_cast<double>(c.q.view(h, 0, d));
            double most = -1e300;  // max(x low, x high) is the largest x k
            for (index j = first; j < std::min(c.c.keys, std::min(first + logical, (p + 1) * page)); ++j)
              most = std::max(most, x * static_cast<double>(c.k.view(kh, j, d)));
            sum += most;
          }
          best = std::max(best, sum);
        }
      all.push_back(best);
    }
    return all;
  }
  void select(index keys, std::vector<char> const& kinds, lserve_budget const& budget, index step, own_lists& selected) {
    bool const streaming[] = {kinds[0] != 0, kinds[1] != 0};
    tensor_view<float, 2> const q(c.q.view.data(), shape<2>{{6, 24}}, shape<2>{{c.q.view.stride(0), 1}});
    lserve_select(cpu.on(several_threads()), q, lows(), highs(), where()[0], page, keys, streaming, budget, step, selected.lists());
  }
  void decode(own_lists& selected) {
    lserve_decode(cpu.on(several_threads()), c.q.view.expanded(), paged(k_pool(), where(), view(&length, 1)),
                  paged(v_pool(), where(), view(&length, 1)), c.out.view.expanded(), selected.lists(), log_sum_exp{c.lse.expanded()});
  }
};

TEST_CASE("lserve: decoding looks at selected pages, or at the first and the latest") {
  rng r(61);
  for (index page : {8, 64})
    for (index keys : {index{1}, page, 5 * page + 3, index{700}}) {
      paged_text text(r, page, keys);
      lserve_budget const budget{5, 2, 1, 2, 4};
      own_lists selected(2, lserve_room(budget, page));
      text.select(keys, {0, 1}, budget, 0, selected);
      text.decode(selected);
      index const pages = (keys + page - 1) / page;
      auto scores = text.scores(0);
      for (index p = std::max<index>(0, pages - 2); p < pages; ++p) scores[static_cast<std::size_t>(p)] = 1e9;
      auto const want = largest(scores, 5);
      CHECK(selected.get(0) == want);
      text.c.check(want_by_head(text.c, [&](index h, index, index j) {
        index const p = j / page;
        return h < 3 ? std::find(want.begin(), want.end(), p) != want.end() : p < 1 || p >= pages - 2;
      }));
      // As many pages as there are: dense attention.
      lserve_budget const all{pages, 1, pages, 1, 1};
      own_lists every(2, lserve_room(all, page));
      text.select(keys, {0, 1}, all, 7, every);
      text.decode(every);
      text.c.check(text.c.want());
    }
}

TEST_CASE("lserve: a selection is reused, and pages begun since join it") {
  rng r(62);
  index const page = 8, keys = 203;
  paged_text text(r, page, keys);
  lserve_budget const budget{4, 1, 1, 1, 3};
  own_lists selected(2, lserve_room(budget, page));
  text.select(190, {0, 0}, budget, 0, selected);
  auto const first = selected.get(0);
  CHECK(first.size() == 4);
  CHECK(first.back() == 23);
  text.select(192, {0, 0}, budget, 1, selected);
  CHECK(selected.get(0) == first);
  text.select(193, {0, 0}, budget, 2, selected);  // page 24 begins
  auto longer = first;
  longer.push_back(24);
  CHECK(selected.get(0) == longer);
  text.select(203, {0, 0}, budget, 3, selected);
  auto scores = text.scores(1);
  scores.back() = 1e9;
  CHECK(selected.get(1) == largest(scores, 4));
}

TEST_CASE("lserve: prompts, streaming heads beside retrieval heads") {
  rng r(63);
  index const tokens = 300;
  call<float> c(r, {4, 2, tokens, tokens, 24, 20, 1});
  std::vector<minference_head> patterns;
  for (index h = 0; h < 4; ++h) patterns.push_back(lserve_pattern(h < 2, {minference_pattern::dense}, 10, 70));
  std::vector<std::int32_t> memory(static_cast<std::size_t>(minference_capacity(patterns.data(), 4, tokens, tokens)));
  std::vector<vertical_slash_head> runs(4);
  minference(cpu, c.q.view, c.k.view, c.v.view, c.out.view, patterns.data(), view(memory), runs.data(), log_sum_exp{c.lse});
  c.check(want_by_head(c, [&](index h, index i, index j) { return j <= i && (h >= 2 || j < 10 || i / 64 * 64 - j < 70); }));
}

}  // namespace
}  // namespace tern::test

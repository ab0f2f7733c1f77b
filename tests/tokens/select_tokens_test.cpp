// SPDX-License-Identifier: Apache-2.0
#include <tern/tokens/grid_components.hpp>
#include <tern/tokens/keep_schedule.hpp>
#include <tern/tokens/select_tokens.hpp>
#include <tern/tokens/select_windows.hpp>
#include <tern/tokens/tokens_for_share.hpp>

#include "samples.hpp"

namespace tern::test {
namespace {

float const inf = std::numeric_limits<float>::infinity();

/// By sorting, larger ones first, then the first: `budget` of those that `allowed` names.
ids best_of(std::vector<float> const& s, index budget, ids const& allowed) {
  ids order;
  for (std::int32_t i : allowed)
    if (s[static_cast<std::size_t>(i)] > -inf) order.push_back(i);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int32_t a, std::int32_t b) { return s[static_cast<std::size_t>(a)] > s[static_cast<std::size_t>(b)]; });
  if (static_cast<index>(order.size()) > budget) order.resize(static_cast<std::size_t>(budget > 0 ? budget : 0));
  std::sort(order.begin(), order.end());
  return order;
}
ids range(index first, index end) {
  ids r;
  for (index i = first; i < end; ++i) r.push_back(static_cast<std::int32_t>(i));
  return r;
}
ids both(ids a, ids const& b) {
  a.insert(a.end(), b.begin(), b.end());
  std::sort(a.begin(), a.end());
  return a;
}

/// Scores of samples of different lengths; few values, so that many are equal.
struct scored {
  index samples, tokens;
  ids lengths;
  std::vector<float> memory;
  tensor_view<float, 2> view;
  scored(rng& r, index b, index n)
      : samples(b), tokens(n), memory(static_cast<std::size_t>(b * n), -inf), view(memory.data(), shape<2>{{b, n}}) {
    for (index s = 0; s < b; ++s) {
      lengths.push_back(static_cast<std::int32_t>(s == 0 ? n : r.integer(0, n)));
      for (index i = 0; i < lengths.back(); ++i) view(s, i) = static_cast<float>(r.integer(-20, 20)) / 8;
    }
  }
  std::vector<float> row(index b) const { return {&view(b, 0), &view(b, 0) + tokens}; }
};

}  // namespace

TEST_CASE("select_tokens: the largest of each sample, and those that are protected", "[tokens]") {
  rng r(11);
  for (index tokens : {1, 5, 40, 300})
    for (index budget : {0, 1, 3, 17, 400})
      for (auto const& policy : {cpu.on(serial), cpu.on(several_threads())}) {
        scored const s(r, 7, tokens);
        protect const always{r.integer(0, 3), r.integer(0, 3)};
        token_lists kept(7, tokens);
        select_tokens(policy, s.view, budget, always, kept.view);
        for (index b = 0; b < 7; ++b) {
          index const length = s.lengths[static_cast<std::size_t>(b)], limit = std::min(budget, length);
          index const last = std::min(always.last, limit), first = std::min(always.first, limit - last);
          ids const sure = both(range(0, first), range(length - last, length));
          CHECK(kept.row(b) == both(sure, best_of(s.row(b), limit - first - last, range(first, length - last))));
        }
      }
}

TEST_CASE("select_tokens: budgets by sample, protected tokens by list", "[tokens]") {
  rng r(12);
  for (index tokens : {4, 33, 200}) {
    scored const s(r, 5, tokens);
    ids budgets;
    std::vector<ids> lists;
    for (index b = 0; b < 5; ++b) {
      budgets.push_back(static_cast<std::int32_t>(r.integer(0, tokens)));
      ids list;
      for (std::int32_t i = 0; i < s.lengths[static_cast<std::size_t>(b)]; ++i)
        if (r.integer(0, 4) == 0) list.push_back(i);
      lists.push_back(list);
    }
    token_lists const always(lists, tokens);
    token_lists kept(5, tokens);
    select_tokens(cpu, s.view, tensor_view<std::int32_t const, 1>(tern::view(budgets)), always.view, kept.view);
    for (std::size_t b = 0; b < 5; ++b) {
      index const budget = std::min<index>(budgets[b], s.lengths[b]);
      ids const sure(lists[b].begin(), lists[b].begin() + std::min<index>(budget, static_cast<index>(lists[b].size())));
      ids rest;
      for (std::int32_t i : range(0, tokens))
        if (std::find(lists[b].begin(), lists[b].end(), i) == lists[b].end()) rest.push_back(i);
      CHECK(kept.row(static_cast<index>(b)) ==
            both(sure, best_of(s.row(static_cast<index>(b)), budget - static_cast<index>(sure.size()), rest)));
    }
  }
}

TEST_CASE("select_tokens_above, select_tokens_for_share: as many as it takes", "[tokens]") {
  rng r(13);
  index const tokens = 90;
  scored s(r, 4, tokens);
  detail::each(s.view, [](float& e) { e = e == -inf ? e : std::abs(e); });
  for (float threshold : {-inf, 0.f, 1.f, 9.f}) {
    token_lists kept(4, tokens);
    select_tokens_above(cpu, s.view, threshold, protect{1, 0}, kept.view);
    for (index b = 0; b < 4; ++b) {
      ids want;
      for (std::int32_t i = 0; i < s.lengths[static_cast<std::size_t>(b)]; ++i)
        if (i == 0 || s.view(b, i) > threshold) want.push_back(i);
      CHECK(kept.row(b) == want);
    }
  }
  for (double share : {0., 0.1, 0.5, 0.9, 1.}) {
    token_lists kept(4, tokens);
    select_tokens_for_share(cpu, s.view, share, protect{1, 0}, kept.view);
    for (index b = 0; b < 4; ++b) {
      index const length = s.lengths[static_cast<std::size_t>(b)];
      std::vector<float> sorted(length > 0 ? static_cast<std::size_t>(length - 1) : 0);
      for (std::size_t i = 0; i < sorted.size(); ++i) sorted[i] = s.view(b, static_cast<index>(i) + 1);
      std::sort(sorted.rbegin(), sorted.rend());
      double const sum = std::accumulate(sorted.begin(), sorted.end(), 0.0);  // exact: eighths
      double mass = 0;
      index p = 0;
      while (mass < share * sum * (1 - 1e-9)) mass += static_cast<double>(sorted[static_cast<std::size_t>(p++)]);
      CHECK(kept.row(b) == both(range(0, std::min<index>(1, length)), best_of(s.row(b), p, range(1, length))));
    }
  }
}

TEST_CASE("select_tokens_in_windows: the largest of each window", "[tokens]") {
  rng r(14);
  struct {
    index h, w, wh, ww;
  } const cases[] = {{1, 64, 1, 16}, {6, 8, 3, 4}, {7, 9, 3, 4}, {5, 5, 9, 2}, {4, 4, 4, 4}};
  for (auto const& c : cases)
    for (index count : {0, 1, 3, 100}) {
      scored const s(r, 3, c.h * c.w);
      token_lists kept(3, c.h * c.w);
      select_tokens_in_windows(cpu.on(several_threads()), s.view, shape<2>{{c.h, c.w}}, shape<2>{{c.wh, c.ww}}, count, kept.view);
      for (index b = 0; b < 3; ++b) {
        ids want;
        for (index y = 0; y < c.h; y += c.wh)
          for (index x = 0; x < c.w; x += c.ww) {
            ids window;
            for (index i = y; i < std::min(y + c.wh, c.h); ++i)
              for (index j = x; j < std::min(x + c.ww, c.w); ++j) window.push_back(static_cast<std::int32_t>(i * c.w + j));
            want = both(want, best_of(s.row(b), count, window));
          }
        CHECK(kept.row(b) == want);
      }
    }
}

TEST_CASE("grid_components: as by flooding", "[tokens]") {
  rng r(15);
  for (index repeat = 0; repeat < 20; ++repeat) {
    index const h = r.integer(1, 9), w = r.integer(1, 23), channels = 3;
    std::vector<float> x(static_cast<std::size_t>(h * w * channels));
    for (float& e : x) e = static_cast<float>(r.integer(0, repeat % 4));
    auto const near = [&](index i, index j) {
      double sum = 0;
      for (index c = 0; c < channels; ++c)
        sum += std::pow(
            static_cast<double>(x[static_cast<std::size_t>(i * 3 + c)]) - static_cast<double>(x[static_cast<std::size_t>(j * 3 + c)]), 2);
      return std::sqrt(sum) < 1.2;
    };
    ids want(static_cast<std::size_t>(h * w), -1);
    std::int32_t count = 0;
    for (index start = 0; start < h * w; ++start) {
      if (want[static_cast<std::size_t>(start)] >= 0) continue;
      std::vector<index> open{start};
      want[static_cast<std::size_t>(start)] = count;
      while (!open.empty()) {
        index const i = open.back();
        open.pop_back();
        index const next[] = {i % w > 0 ? i - 1 : i, i % w + 1 < w ? i + 1 : i, i >= w ? i - w : i, i + w < h * w ? i + w : i};
        for (index j : next)
          if (want[static_cast<std::size_t>(j)] < 0 && near(i, j)) {
            want[static_cast<std::size_t>(j)] = count;
            open.push_back(j);
          }
      }
      ++count;
    }
    ids labels(static_cast<std::size_t>(h * w));
    CHECK(grid_components(tern::view(x.data(), h * w, channels), shape<2>{{h, w}}, 1.2f, tern::view(labels)) == count);
    CHECK(labels == want);
    std::vector<f16> const halves(x.begin(), x.end());  // small integers: the same numbers
    CHECK(grid_components(tern::view(halves.data(), h * w, channels), shape<2>{{h, w}}, 1.2f, tern::view(labels)) == count);
    CHECK(labels == want);
  }
}

TEST_CASE("schedules: shares and tokens of each layer", "[tokens]") {
  ramp_schedule const ramp{4, 8};
  CHECK((ramp.tokens(0, 100) == 100 && ramp.tokens(4, 100) == 100 && ramp.tokens(5, 100) == 75 && ramp.tokens(8, 100) == 0));
  CHECK(ramp_schedule{4, 4, 1, 0.5}.tokens(5, 7) == 4);
  step_schedule const step{3, 0.7};
  CHECK((step.tokens(2, 196) == 196 && step.tokens(3, 196) == 138 && step.tokens(6, 196) == 97 && step.tokens(11, 100) == 35));
  std::vector<float> const list{1.f, 0.5f};
  CHECK((listed_schedule{tern::view(list)}.tokens(0, 9) == 9 && listed_schedule{tern::view(list)}.tokens(1, 9) == 5));
  std::vector<float> const above{0.1f, 0.7f};  // more than one tenth, less than seven
  CHECK((listed_schedule{tern::view(above)}.tokens(0, 10) == 1 && listed_schedule{tern::view(above)}.tokens(1, 10) == 7));
  CHECK(message_of([&] { listed_schedule{tern::view(list)}.tokens(2, 9); }) == "listed_schedule: layer is 2, expected a layer of the list");
  CHECK(message_of([&] { ramp_schedule{0, 4, 1, 2}.tokens(2, 9); }) == "ramp_schedule: a ratio in percent is 200, expected 0 to 100");
  CHECK(message_of([&] { step_schedule{0, 0.5}.tokens(2, 9); }) == "step_schedule: every is 0, expected at least 1");
}

TEST_CASE("choosers: wrong calls are refused by name", "[tokens]") {
  rng r(16);
  scored const s(r, 3, 12);
  token_lists kept(3, 12), few(2, 12), always({{1, 0}, {}, {}}, 12);
  CHECK(message_of([&] { select_tokens(cpu, s.view, -1, protect{}, kept.view); }) == "select_tokens: budget is -1, expected at least 0");
  CHECK(message_of([&] { select_tokens(cpu, s.view, 1, protect{-1}, kept.view); }) ==
        "select_tokens: protect.first is -1, expected at least 0");
  CHECK(message_of([&] { select_tokens(cpu, s.view, 1, protect{}, few.view); }) ==
        "select_tokens: the rows of kept is 2, expected scores.extent(0) = 3");
  CHECK(message_of([&] { select_tokens(cpu, s.view, 1, always.view, kept.view); }) ==
        "select_tokens: an index of a list is 0, expected more than the one before it, 1");
  token_lists same({{0, 1}, {2}, {}}, 12);
  CHECK(message_of([&] { select_tokens(cpu, s.view, 3, same.view, same.view); }) ==
        "select_tokens: kept overlaps the list of those that always stay, expected memory of its own");
  same.numbers = {3, 3, 3};
  CHECK(message_of([&] { select_tokens(cpu, s.view, tensor_view<std::int32_t const, 1>(same.view.counts), protect{}, same.view); }) ==
        "select_tokens: kept overlaps budget, expected memory of its own");
  CHECK(message_of([&] { select_tokens_for_share(cpu, s.view, 2, protect{}, kept.view); }) ==
        "select_tokens_for_share: share in percent is 200, expected 0 to 100");
  CHECK(message_of([&] { select_tokens_for_share(cpu, s.view, std::nan(""), protect{}, kept.view); }) ==
        "select_tokens_for_share: share in percent is 9223372036854775807, expected 0 to 100");
  CHECK(message_of([&] { select_tokens_in_windows(cpu, s.view, shape<2>{{3, 5}}, shape<2>{{2, 2}}, 1, kept.view); }) ==
        "select_tokens_in_windows: scores.extent(1) is 12, expected the tokens of the grid = 15");
  CHECK(message_of([&] { select_tokens_in_windows(cpu, s.view, shape<2>{{3, 4}}, shape<2>{{2, 0}}, 1, kept.view); }) ==
        "select_tokens_in_windows: an extent of the window is 0, expected at least 1");
  token_lists small(3, 2);
  CHECK(message_of([&] { select_tokens_in_windows(cpu, s.view, shape<2>{{3, 4}}, shape<2>{{2, 2}}, 1, small.view); }) ==
        "select_tokens_in_windows: the room of kept is 2, expected count for each window");
  ids labels(12);
  std::vector<float> x(36);
  CHECK(message_of([&] { grid_components(tern::view(x.data(), 12, 3), shape<2>{{3, 5}}, 1.f, tern::view(labels)); }) ==
        "grid_components: features.extent(0) is 12, expected the tokens of the grid = 15");
}

}  // namespace tern::test

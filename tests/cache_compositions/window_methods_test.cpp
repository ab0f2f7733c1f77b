// SPDX-License-Identifier: Apache-2.0
// Methods that look at what queries look at: SnapKV and what distributes its budget, TOVA, H2O.
#include "text.hpp"

#include <tern/cache/every.hpp>
#include <tern/cache/methods/adakv.hpp>
#include <tern/cache/methods/criticalkv.hpp>
#include <tern/cache/methods/h2o.hpp>
#include <tern/cache/methods/pyramidkv.hpp>
#include <tern/cache/methods/tova.hpp>
#include <tern/cache/recent_queries.hpp>

namespace tern::test {
namespace {

/// SnapKV's scores; tokens of the window have more than any.
scores_of_heads naive_snapkv(text const& t, tokens_of_heads const& held, index window, index pool, bool largest_of_them = false) {
  scores_of_heads all = t.observed(held, t.tokens - window, t.tokens);
  for (auto& row : all) {
    index const n = static_cast<index>(row.size()), before = std::max<index>(0, n - window);
    std::vector<double> const w = row;
    for (index j = 0; j < n; ++j) {
      double sum = 0, most = 0;
      for (index i = std::max<index>(0, j - pool / 2); i <= j + pool / 2 && i < before; ++i) {
        sum += w[static_cast<std::size_t>(i)];
        most = std::max(most, w[static_cast<std::size_t>(i)]);
      }
      row[static_cast<std::size_t>(j)] = j >= before ? 1e300 : largest_of_them ? most : sum / static_cast<double>(pool);
    }
  }
  return all;
}
/// Those of kvpress before the window.
scores_of_heads before_window(float const* x, index window) {
  scores_of_heads all = rows_of(x, kvpress::kv_heads, kvpress::tokens);
  for (auto& row : all) row.resize(row.size() - static_cast<std::size_t>(window));
  return all;
}

TEST_CASE("snapkv, tova, h2o: scores of kvpress") {
  text const t;
  filled const f(t);
  index const n = t.tokens;
  token_scores const scores(cpu, t.kv_heads, n);
  snapkv_scores(cpu, f.cache, f.s, 0, t.last(16), scores);
  CHECK(near(scores.second.slice(1, 0, n - 16), before_window(kvpress::snapkv_scores, 16), 1e-5));
  snapkv_scores(cpu, f.cache, f.s, 0, t.last(8), scores, {3});
  CHECK(near(scores.second.slice(1, 0, n - 8), before_window(kvpress::snapkv_window8_kernel3_scores, 8), 1e-5));
  snapkv_scores(cpu, f.cache, f.s, 0, t.last(16), scores, {1});
  CHECK(near(scores.second.slice(1, 0, n - 16), before_window(kvpress::snapkv_kernel1_scores, 16), 1e-5));

  observed_weights(cpu, t.last(1), f.cache.keys(f.s, 0), scores.first);
  average_heads(f.cache, f.s, 0, scores.first);
  auto const tova_want = rows_of(kvpress::tova_scores, 2, n, true);
  for (index j = 0; j < n - 1; ++j)
    CHECK(static_cast<double>(scores.first(1, j)) == Approx(tova_want[1][static_cast<std::size_t>(j)]).epsilon(1e-5));

  h2o_state state(t.kv_heads);
  state.observe(cpu, f.cache, f.s, 0, t.last(n));
  for (index h = 0; h < t.kv_heads; ++h)
    for (index j = 0; j < n; ++j)
      CHECK(state.sums(h)[j] / static_cast<float>(n - j) == Approx(kvpress::observed_attention_scores[h * n + j]).epsilon(1e-5));
}

TEST_CASE("snapkv: the tokens of the formula stay, of whole heads and ragged ones") {
  rng r(111);
  for (index tokens : {20, 150})
    for (index window : {8, 30})
      for (bool ragged : {false, true})
        for (index budget : {0, 5, 40}) {
          if (window > tokens) continue;
          text const t(r, tokens);
          filled f(t);
          if (ragged) make_ragged(f);
          auto const held = f.held();
          bool const largest_of_them = tokens == 150 && window == 8;
          auto const want = chosen(held, naive_snapkv(t, held, window, 7, largest_of_them), budget, 0, window);
          snapkv(some_threads(), f.cache, f.s, 0, t.last(window), budget, {7, largest_of_them});
          CHECK(f.holds(t, want));
        }
}

TEST_CASE("snapkv: a window longer than the text") {
  rng r(112);
  text const t(r, 40);
  filled f(t);
  f.cache.truncate(f.s, 10);
  snapkv(cpu, f.cache, f.s, 0, t.last(32), 6);
  CHECK(f.held() == tokens_of_heads{{4, 5, 6, 7, 8, 9}, {4, 5, 6, 7, 8, 9}});
}

TEST_CASE("tova: token by token, as its definition says") {
  rng r(113);
  text const t(r, 90);
  filled f(t);
  f.cache.truncate(f.s, 40);
  std::vector<std::int32_t> held = f.held()[0];
  for (index i = 39; i < t.tokens; ++i) {
    if (i >= 40) {
      t.append(f.cache, f.s, 0, i, i + 1);
      held.push_back(static_cast<std::int32_t>(i));
    }
    std::vector<double> mean(held.size());
    for (index g = 0; g < t.heads; ++g) {
      auto const p = t.attention(g, i, held);
      for (std::size_t j = 0; j < p.size(); ++j) mean[j] += p[j] / static_cast<double>(t.heads);
    }
    held = chosen(held, mean, 32);
    tova(some_threads(), f.cache, f.s, 0, t.queries(i - 2, i + 1), 32);
    REQUIRE(f.holds(t, {held, held}));
  }
  filled ragged(t);
  make_ragged(ragged);
  CHECK(message_of([&] {
          tova(cpu, ragged.cache, ragged.s, 0, t.last(1), 5);
        }).starts_with("average_heads: the number of a head's tokens is "));
  CHECK(message_of([&] { tova(cpu, f.cache, f.s, 0, t.last(0), 5); }) == "tova: q.extent(1) is 0, expected at least 1");
}

TEST_CASE("h2o: sums follow the tokens") {
  rng r(114);
  text const t(r, 100);
  filled f(t);
  f.cache.truncate(f.s, 50);
  h2o_state state(t.kv_heads);
  state.observe(some_threads(), f.cache, f.s, 0, t.queries(0, 50));
  tokens_of_heads held = f.held();
  scores_of_heads sums = t.observed(held, 0, 50);
  for (auto& row : sums)
    for (double& x : row) x *= 50;
  index const budget = 21;
  for (index i = 50; i <= t.tokens; ++i) {
    for (std::size_t h = 0; h < held.size(); ++h) {  // 10 heavy ones among those before the latest 11
      auto const stays = chosen(held[h], sums[h], budget, 0, 11);
      std::vector<double> left;
      for (std::size_t j = 0; j < held[h].size(); ++j)
        if (std::find(stays.begin(), stays.end(), held[h][j]) != stays.end()) left.push_back(sums[h][j]);
      held[h] = stays;
      sums[h] = left;
    }
    state.evict(some_threads(), f.cache, f.s, 0, budget);
    REQUIRE(f.holds(t, held));
    if (i == t.tokens) break;
    t.append(f.cache, f.s, 0, i, i + 1);
    state.observe(some_threads(), f.cache, f.s, 0, t.queries(i, i + 1));
    for (std::size_t h = 0; h < held.size(); ++h) {
      held[h].push_back(static_cast<std::int32_t>(i));
      sums[h].push_back(0);
    }
    auto const more = t.observed(held, i, i + 1);
    for (std::size_t h = 0; h < held.size(); ++h)
      for (std::size_t j = 0; j < held[h].size(); ++j) sums[h][j] += more[h][j];
    for (std::size_t h = 0; h < held.size(); ++h)
      for (std::size_t j = 0; j < held[h].size(); ++j)
        CHECK(static_cast<double>(state.sums(static_cast<index>(h))[static_cast<index>(j)]) == Approx(sums[h][j]).epsilon(1e-5));
  }
  auto const draft = state;
  for (std::size_t h = 0; h < held.size(); ++h) CHECK(draft.sums(static_cast<index>(h)).extent(0) == static_cast<index>(held[h].size()));
  CHECK(draft.sums(1)[5] == state.sums(1)[5]);
  f.cache.truncate(f.s, 90);
  state.evict(cpu, f.cache, f.s, 0, 3, 3);
  CHECK(state.sums(0).extent(0) == f.cache.length(f.s, 0, 0));
  h2o_state other(3);
  CHECK(message_of([&] { other.observe(cpu, f.cache, f.s, 0, t.last(1)); }) ==
        "h2o_state::observe: kv_heads of the cache is 2, expected that of the state = 3");
}

TEST_CASE("layer_budgets: those of kvpress, and lists") {
  for (auto const& c : kvpress::pyramid_cases) {
    double const mean = c.tokens * (1 - c.ratio);
    auto const budget = pyramid_budgets(mean, c.layers, c.beta, c.tokens - c.window);
    if (budget.first < budget.last || budget.last < c.window || budget.first > c.tokens)
      continue;  // where kvpress falls back to one budget for all
    INFO(c.tokens << ' ' << c.window << ' ' << c.beta << ' ' << c.ratio);
    for (int layer = 0; layer < c.layers; ++layer) CHECK(budget(layer) == c.kept[layer]);
  }
  auto const pyramid = pyramid_budgets(100, 5);
  CHECK((pyramid(0) == 195 && pyramid(2) == 100 && pyramid(4) == 5));
  CHECK(pyramid_budgets(100, 1)(0) == 195);
  auto const full = pyramid_budgets(100, 5, 20, 80);  // no layer has as many
  CHECK((full(0) == 80 && full(4) == 80));
  CHECK(uniform_budgets(7)(31) == 7);
  std::int32_t const list[] = {3, 0, 9};
  auto const listed = listed_budgets(view(list));
  CHECK((listed(0) == 3 && listed(1) == 0 && listed(2) == 9));
  CHECK(message_of([&] { listed(3); }) == "layer_budgets: the layer is 3, expected less than layers = 3");
  CHECK(message_of([] { pyramid_budgets(4, 0); }) == "pyramid_budgets: layers is 0, expected at least 1");
  CHECK(message_of([] { uniform_budgets(-4); }) == "uniform_budgets: budget is -4, expected at least 0");
}

TEST_CASE("pyramidkv: each layer its budget") {
  rng r(115);
  index const window = 8, layers = 4;
  text const t(r, 160);
  filled f(t, layers), few(t, layers);
  scores_of_heads const scores = naive_snapkv(t, t.all_heads(), window, 5);
  index const want[] = {8 + 78, 8 + 53, 8 + 27, 8 + 2};  // 40 besides the window: from 78 down to 2
  for (index layer = 0; layer < layers; ++layer) {
    pyramidkv(some_threads(), f.cache, f.s, layer, t.last(window), 48);
    CHECK(f.holds(t, chosen(t.all_heads(), scores, want[layer], 0, window), layer));
    pyramidkv(some_threads(), few.cache, few.s, layer, t.last(window), 5);
    CHECK(few.holds(t, chosen(t.all_heads(), scores, 5, 0, window), layer));
  }
}

/// The authors' allocation: how many tokens besides the window each head gets.
std::vector<index> naive_adakv(scores_of_heads const& scores, index window, index budget, double floor) {
  std::vector<double> flat;
  std::vector<std::size_t> head;
  for (std::size_t h = 0; h < scores.size(); ++h)
    for (std::size_t j = 0; j + static_cast<std::size_t>(window) < scores[h].size(); ++j) {
      flat.push_back(scores[h][j]);
      head.push_back(h);
    }
  index const each = std::max<index>(0, budget - window);
  std::vector<index> count(scores.size());
  for (std::int32_t i : largest_places(flat, each * static_cast<index>(scores.size()))) ++count[head[static_cast<std::size_t>(i)]];
  for (index& c : count) c = static_cast<index>(std::nearbyint((1 - floor) * static_cast<double>(c) + floor * static_cast<double>(each)));
  return count;
}

TEST_CASE("adakv: heads share the budget") {
  rng r(116);
  for (index budget : {0, 5, 30, 70}) {
    text t(r, 150, 3);
    for (std::size_t i = 0; i < t.q.size() / 3; ++i) t.q[i] *= 2;  // head 0 looks at few
    filled f(t);
    auto const scores = naive_snapkv(t, t.all_heads(), 8, 7, true);
    auto const share = naive_adakv(scores, 8, budget, 0.25);
    tokens_of_heads want;
    for (std::size_t h = 0; h < 3; ++h) want.push_back(chosen(t.all(), scores[h], std::min<index>(budget, 8) + share[h], 0, 8));
    adakv(some_threads(), f.cache, f.s, 0, t.last(8), budget, {7, true}, 0.25f);
    CHECK(f.holds(t, want));
    if (budget == 30) CHECK(f.cache.length(f.s, 0, 0) != f.cache.length(f.s, 0, 2));
    // and what it left goes on: heads of different lengths
    snapkv(cpu, f.cache, f.s, 0, t.last(4), 10);
    for (index h = 0; h < 3; ++h)
      CHECK(f.cache.length(f.s, 0, h) == std::min<index>(10, static_cast<index>(want[static_cast<std::size_t>(h)].size())));
  }
  text const t(r, 20);
  filled f(t);
  CHECK(message_of([&] { adakv(cpu, f.cache, f.s, 0, t.last(4), 5, {}, 1.5f); }) == "adakv: floor in percent is 150, expected 0 to 100");
}

TEST_CASE("select_tokens_together: kvpress's safeguard") {
  text const t;
  filled f(t);
  token_scores const scores(cpu, t.kv_heads, t.tokens);
  snapkv_scores(cpu, f.cache, f.s, 0, t.last(16), scores);
  select_tokens_together(scores.second, 34, {0, 16}, 0.2f, scores.kept);
  f.cache.keep(cpu, f.s, 0, scores.kept);
  CHECK(f.holds(t, marked(kvpress::adakv_snapkv_kept, t.kv_heads, t.tokens)));
}

TEST_CASE("criticalkv: norms of kvpress, and the tokens of the formula") {
  text const t;
  filled f(t);
  index const outputs = kvpress::o_proj_outputs, inputs = t.heads * t.dim;
  std::vector<float> w;
  for (index o = 0; o < outputs; ++o)
    for (index i = 0; i < inputs; ++i) w.push_back(kvpress::o_proj(static_cast<int>(o), static_cast<int>(i)));
  auto const weights = tern::view(w.data(), outputs, inputs);
  token_scores const scores(cpu, t.kv_heads, t.tokens);
  output_norms(cpu, f.cache, f.s, 0, weights, scores.first);
  CHECK(near(scores.first, rows_of(kvpress::critical_norms, t.kv_heads, t.tokens), 1e-5));

  auto a = naive_snapkv(t, t.all_heads(), 16, 5);
  for (std::size_t h = 0; h < 2; ++h) {
    auto const sure = largest_places({a[h].begin(), a[h].end() - 16}, 9);  // half of 34 - 16
    for (std::size_t j = 0; j < a[h].size(); ++j)
      a[h][j] = std::find(sure.begin(), sure.end(), static_cast<std::int32_t>(j)) != sure.end()
                    ? certainly
                    : (a[h][j] + 0.05) * static_cast<double>(kvpress::critical_norms[h * a[h].size() + j]);
  }
  criticalkv(some_threads(), f.cache, f.s, 0, t.last(16), weights, 34, {0.5f, 0.05f});
  CHECK(f.holds(t, chosen(t.all_heads(), a, 34, 0, 16)));
  CHECK(message_of([&] { criticalkv(cpu, f.cache, f.s, 0, t.last(16), weights.slice(1, 0, 40), 34); }) ==
        "output_norms: w.extent(1) is 40, expected a multiple of kv_heads dim_v");
}

TEST_CASE("every and recent_queries: compression while a text grows") {
  every due(3);
  CHECK((!due() && !due() && due() && !due() && due(2) && due(7) && !due(0)));
  CHECK(message_of([] { every never_due(0); }) == "every: tokens is 0, expected at least 1");
  rng r(117);
  text const t(r, 120);
  filled f(t), plain(t);
  f.cache.truncate(f.s, 50), plain.cache.truncate(plain.s, 50);
  recent_queries last(t.heads, 8, t.dim);
  CHECK(last.queries().extent(1) == 0);
  last.push(t.queries(0, 50));
  every step(16);
  for (index i = 50; i < t.tokens; ++i) {
    for (auto* x : {&f, &plain}) t.append(x->cache, x->s, 0, i, i + 1);
    last.push(t.queries(i, i + 1));
    auto const q = last.queries();
    REQUIRE((q.extent(0) == t.heads && q.extent(1) == 8));
    for (index g = 0; g < t.heads; ++g)
      for (index j = 0; j < 8; ++j) REQUIRE(q(g, j, 5) == t.queries(i - 7, i + 1)(g, j, 5));
    if (!step()) continue;
    snapkv(cpu, f.cache, f.s, 0, q, 40);
    snapkv(cpu, plain.cache, plain.s, 0, t.queries(i - 7, i + 1), 40);
    CHECK(f.cache.longest(f.s, 0) == 40);
  }
  CHECK(f.held() == plain.held());
}

TEST_CASE("methods of a window: budgets of all tokens change nothing, threads neither, wrong calls fail") {
  rng r(118);
  text const t(r, 130);
  filled f(t), one(t), many(t);
  auto const q = t.last(16);
  std::vector<float> const w = r.normal<float>(24 * t.heads * t.dim);
  auto const weights = tern::view(w.data(), index{24}, t.heads * t.dim);
  h2o_state state(t.kv_heads);
  state.observe(cpu, f.cache, f.s, 0, q);
  state.evict(cpu, f.cache, f.s, 0, 130);
  snapkv(cpu, f.cache, f.s, 0, q, 130);
  adakv(cpu, f.cache, f.s, 0, q, 130);
  pyramidkv(cpu, f.cache, f.s, 0, q, 130);
  criticalkv(cpu, f.cache, f.s, 0, q, weights, 400);
  tova(cpu, f.cache, f.s, 0, q, 130);
  CHECK(f.holds(t, t.all_heads()));
  for (auto* x : {&one, &many}) {
    cpu_policy const policy = x == &one ? cpu.on(serial) : some_threads();
    tova(policy, x->cache, x->s, 0, q, 110);
    criticalkv(policy, x->cache, x->s, 0, q, weights, 90);
    adakv(policy, x->cache, x->s, 0, q, 60);
  }
  CHECK(one.held() == many.held());
  for (filled* x : {&one, &many}) snapkv(cpu, x->cache, x->s, 0, q, 0);
  CHECK(one.cache.longest(one.s, 0) == 0);
  CHECK(message_of([&] { snapkv(cpu, f.cache, f.s, 0, q, -1); }) == "select_tokens: budget is -1, expected at least 0");
  CHECK(message_of([&] { snapkv(cpu, f.cache, f.s, 0, q, 5, {4}); }) == "average_neighbors: width is 4, expected an odd number");
  CHECK(message_of([&] { snapkv(cpu, f.cache, 7, 0, q, 5); }) == "kv_cache::longest: the sequence is 7, expected one that is open");
}

}  // namespace
}  // namespace tern::test

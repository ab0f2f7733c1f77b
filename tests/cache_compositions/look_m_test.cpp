// SPDX-License-Identifier: Apache-2.0
#include "layer.hpp"

#include <tern/cache/methods/cam.hpp>
#include <tern/cache/methods/look_m.hpp>

namespace tern::test::look_m_tests {
namespace {

/// The paper's three merges of rows that go into rows that stay; `partner` and `weight` as the keys have them.
struct merged {
  rows keys, values;
  merged(rows const& k, rows const& v, std::vector<std::int32_t> const& kept, merge_rule rule) {
    std::vector<rows> more_k(kept.size()), more_v(kept.size());
    for (std::int32_t e = 0; e < static_cast<std::int32_t>(k.size()); ++e) {
      if (std::find(kept.begin(), kept.end(), e) != kept.end()) continue;
      auto const at = static_cast<std::size_t>(e);
      std::size_t best = 0;
      double most = -2;
      for (std::size_t c = 0; c < kept.size(); ++c) {
        double const cosine = cosine_of(k[at], k[static_cast<std::size_t>(kept[c])]);
        if (cosine > most) best = c, most = cosine;
      }
      auto const part = [&](row const& evicted, row const& pivot) {
        row x = evicted;
        for (std::size_t d = 0; d < x.size(); ++d)
          x[d] = rule == merge_rule::mean ? evicted[d] : rule == merge_rule::pivotal ? (evicted[d] + pivot[d]) / 2 : most * evicted[d];
        return x;
      };
      more_k[best].push_back(part(k[at], k[static_cast<std::size_t>(kept[best])]));
      more_v[best].push_back(part(v[at], v[static_cast<std::size_t>(kept[best])]));
    }
    for (std::size_t c = 0; c < kept.size(); ++c) {
      keys.push_back(mean(k[static_cast<std::size_t>(kept[c])], more_k[c]));
      values.push_back(mean(v[static_cast<std::size_t>(kept[c])], more_v[c]));
    }
  }
  static row mean(row x, rows const& others) {
    for (row const& o : others)
      for (std::size_t d = 0; d < x.size(); ++d) x[d] += o[d];
    for (double& e : x) e /= static_cast<double>(others.size() + 1);
    return x;
  }
};

struct prompt {
  head_rows q, k, v;
  kv_cache<float> cache{{.layers = 1, .kv_heads = 2, .dim = 16, .dim_v = 12}};
  std::int32_t s = cache.open();
  prompt(rng& r, index tokens, index queries) : q(r, 4, queries, 16, 2), k(r, 2, tokens, 16), v(r, 2, tokens, 12) {
    cache.append(cpu, s, 0, k.view(), v.view());
  }
};

TEST_CASE("look_m: text first, the rest merges into what stays") {
  for (merge_rule rule : {merge_rule::mean, merge_rule::pivotal, merge_rule::weighted}) {
    rng r(21);
    prompt p(r, 150, 40);
    bool text[150];
    for (bool& t : text) t = r.integer(0, 4) == 0;
    auto const fork = p.cache.fork(p.s), again = p.cache.fork(p.s);
    look_m(three_threads(), p.cache, p.s, 0, p.q.view(), tern::view(text), 45, 8, rule);
    for (index h = 0; h < 2; ++h) {
      row score = observed(p.q, 2, h, p.k.of(h));
      double const bonus = *std::max_element(score.begin(), score.end());
      for (index j = 0; j < 150; ++j) score[static_cast<std::size_t>(j)] += j >= 142 ? 1e9 : text[j] ? bonus : 0;
      auto const kept = largest(score, 45);
      merged const want(p.k.of(h), p.v.of(h), kept, rule);
      auto const positions = p.cache.positions(p.s, 0, h);
      CHECK(std::equal(kept.begin(), kept.end(), positions.data(), positions.data() + positions.extent(0)));
      CHECK(distance(keys_of(p.cache, p.s, h), want.keys) < 1e-5);
      CHECK(distance(values_of(p.cache, p.s, h), want.values) < 1e-5);
      CHECK(keys_of(p.cache, fork, h) == p.k.of(h));  // whose pages were shared
    }
    // The same bits with one thread.
    look_m(cpu.on(serial), p.cache, again, 0, p.q.view(), tern::view(text), 45, 8, rule);
    for (index h = 0; h < 2; ++h) CHECK(keys_of(p.cache, again, h) == keys_of(p.cache, p.s, h));
  }
}

TEST_CASE("look_m: a budget for all changes nothing") {
  rng r(22);
  prompt p(r, 70, 5);
  bool text[70] = {};
  look_m(cpu, p.cache, p.s, 0, p.q.view(), tern::view(text), 70, 8);
  for (index h = 0; h < 2; ++h) {
    CHECK(keys_of(p.cache, p.s, h) == p.k.of(h));
    CHECK(values_of(p.cache, p.s, h) == p.v.of(h));
  }
  CHECK(message_of([&] { look_m(cpu, p.cache, p.s, 0, p.q.view(), tern::view(text).slice(0, 0, 69), 70, 8); }) ==
        "look_m: is_text.extent(0) is 69, expected the tokens of the cache = 70");
  CHECK(message_of([&] { look_m(cpu, p.cache, p.s, 0, p.q.view(), tern::view(text), -1, 8); }) ==
        "select_tokens: budget is -1, expected at least 0");
}

TEST_CASE("merge_tokens: only what gains something changes, in 16 bits too") {
  rng r(23);
  head_rows k(r, 2, 100, 32), v(r, 2, 100, 32);
  kv_cache<f16> cache({.layers = 1, .kv_heads = 2, .dim = 32});
  auto const s = cache.open();
  cache.append(cpu, s, 0, k.view(), v.view());
  std::vector<std::int32_t> first;
  for (std::int32_t t = 0; t < 100; ++t)
    if (t != 7) first.push_back(t);
  lists_of kept({first, first});
  rows const before = keys_of(cache, s, 0);
  merge_tokens(cpu, cache, s, 0, kept(), merge_rule::mean);
  merged const want(before, values_of(cache, s, 0), first, merge_rule::mean);
  rows const after = keys_of(cache, s, 0);
  int changed = 0;
  for (std::size_t i = 0; i < first.size(); ++i) {
    auto const at = static_cast<std::size_t>(first[i]);
    changed += after[at] != before[at];
    CHECK(distance({after[at]}, {want.keys[i]}) < 0x1p-9);
  }
  CHECK(changed == 1);
  kept.ids[1] = 0;
  CHECK(message_of([&] { merge_tokens(cpu, cache, s, 0, kept(), merge_rule::mean); }) ==
        "merge_tokens: an index of kept is 0, expected more than the one before it, " + std::to_string(first[0]));
}

TEST_CASE("cam: values of what goes are shared by the tokens behind it, and passed on") {
  rng r(24);
  prompt p(r, 90, 1);
  auto const unseen = p.cache.fork(p.s);
  std::vector<std::vector<std::int32_t>> lists(2);
  for (auto& list : lists)
    for (std::int32_t t = 0; t < 90; ++t)
      if (t < 4 || t > 80 || r.integer(0, 3) == 0) list.push_back(t);
  lists[1].resize(lists[1].size() - 9);  // what goes at the end has nothing that stays behind it
  lists_of kept(lists);
  std::vector<float> weights(2 * 90);
  for (float& w : weights) w = static_cast<float>(r.uniform());
  random draws(5), same(5);
  cam(three_threads(), p.cache, p.s, 0, tern::view(weights.data(), index{2}, index{90}), kept(), draws, 6);
  for (index h = 0; h < 2; ++h) {
    auto const& list = lists[static_cast<std::size_t>(h)];
    rows const k = p.k.of(h), v = p.v.of(h);
    rows now = v, want_k, want_v;
    for (std::size_t t = 0; t < 90; ++t) {
      if (std::find(list.begin(), list.end(), static_cast<std::int32_t>(t)) != list.end()) {
        want_k.push_back(k[t]), want_v.push_back(now[t]);
        continue;
      }
      double const drawn = uniform(same);
      std::size_t const behind = std::min<std::size_t>(6, 89 - t);
      double sum = 0;
      for (std::size_t j = t + 1; j <= t + behind; ++j) sum += static_cast<double>(weights[static_cast<std::size_t>(h * 90) + j]);
      double const mean = sum / static_cast<double>(behind);
      if (behind == 0 || drawn >= static_cast<double>(weights[static_cast<std::size_t>(h * 90) + t]) / mean) continue;
      for (std::size_t j = t + 1; j <= t + behind; ++j)
        for (std::size_t d = 0; d < 12; ++d) now[j][d] += now[t][d] / static_cast<double>(behind);
    }
    CHECK(keys_of(p.cache, p.s, h) == want_k);
    CHECK(distance(values_of(p.cache, p.s, h), want_v) < 1e-5);
  }
  // Nothing was looked at: nothing is merged.
  std::fill(weights.begin(), weights.end(), 0.f);
  cam(cpu, p.cache, unseen, 0, tern::view(weights.data(), index{2}, index{90}), kept(), draws);
  for (index h = 0; h < 2; ++h) {
    rows want;
    for (std::int32_t t : lists[static_cast<std::size_t>(h)]) want.push_back(p.v.of(h, t));
    CHECK(values_of(p.cache, unseen, h) == want);
  }
  CHECK(message_of([&] { cam(cpu, p.cache, p.s, 0, tern::view(weights.data(), index{2}, index{90}), kept(), draws, 0); }) ==
        "cam: receivers is 0, expected at least 1");
}

}  // namespace
}  // namespace tern::test::look_m_tests

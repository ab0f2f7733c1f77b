// SPDX-License-Identifier: Apache-2.0
// Methods that look at keys and values alone, and at none.
#include "text.hpp"

#include <tern/cache/methods/keydiff.hpp>
#include <tern/cache/methods/knorm.hpp>
#include <tern/cache/methods/lagkv.hpp>
#include <tern/cache/methods/streaming_llm.hpp>

namespace tern::test {
namespace {

scores_of_heads naive_knorm(text const& t, tokens_of_heads const& held) {
  scores_of_heads all;
  for (index h = 0; h < t.kv_heads; ++h) {
    all.emplace_back();
    for (index j : held[static_cast<std::size_t>(h)]) all.back().push_back(-std::sqrt(t.dot(t.k, h, j, t.k, h, j)));
  }
  return all;
}
scores_of_heads naive_keydiff(text const& t, tokens_of_heads const& held) {
  scores_of_heads all = naive_knorm(t, held);
  for (index h = 0; h < t.kv_heads; ++h) {
    auto& scores = all[static_cast<std::size_t>(h)];
    auto const& tokens = held[static_cast<std::size_t>(h)];
    std::vector<double> anchor(static_cast<std::size_t>(t.dim));
    for (std::size_t j = 0; j < tokens.size(); ++j)
      for (std::size_t d = 0; d < anchor.size(); ++d)
        anchor[d] += t.at(t.k, h, tokens[j], static_cast<index>(d)) / -scores[j] / static_cast<double>(tokens.size());
    double length = 0;
    for (double a : anchor) length += a * a;
    for (std::size_t j = 0; j < tokens.size(); ++j) {
      double product = 0;
      for (std::size_t d = 0; d < anchor.size(); ++d) product += anchor[d] * t.at(t.k, h, tokens[j], static_cast<index>(d));
      scores[j] = product / (scores[j] * std::sqrt(length));
    }
  }
  return all;
}
/// Score of each token of the partitions but the last; ranks within a partition are taken of it.
std::vector<double> naive_lagkv(text const& t, std::vector<std::int32_t> const& held, index h, index from, index lag, double share) {
  index const n = static_cast<index>(held.size());
  std::vector<double> score(held.size());
  for (index first = from; first + 2 * lag <= n; first += lag)
    for (auto const* x : {&t.k, &t.v}) {
      auto const at = [&](index j, index d) { return t.at(*x, h, held[static_cast<std::size_t>(j)], d); };
      std::vector<double> e;
      double sum = 0;
      for (index j = first; j < first + lag; ++j) {
        std::vector<double> y;
        double mean = 0, square = 0;
        for (index d = 0; d < t.dim; ++d) {
          double least = certainly, most = never;
          for (index i = first + lag; i < first + 2 * lag; ++i) {
            least = std::min(least, at(i, d));
            most = std::max(most, at(i, d));
          }
          y.push_back((at(j, d) - least) / (most - least));
          mean += y.back() / static_cast<double>(t.dim);
        }
        for (double z : y) square += (z - mean) * (z - mean);
        e.push_back(std::exp(std::sqrt(square / static_cast<double>(t.dim - 1))));
        sum += e.back();
      }
      for (index j = 0; j < lag; ++j)
        score[static_cast<std::size_t>(first + j)] += (x == &t.v ? share : 1) * e[static_cast<std::size_t>(j)] / sum;
    }
  return score;
}

TEST_CASE("knorm and keydiff: scores of kvpress") {
  text const t;
  filled const f(t);
  std::vector<float> memory(static_cast<std::size_t>(t.kv_heads * t.tokens));
  auto const scores = tern::view(memory.data(), t.kv_heads, t.tokens);
  key_norms(cpu, f.cache, f.s, 0, scores, -1.f);
  CHECK(near(scores, rows_of(kvpress::knorm_scores, t.kv_heads, t.tokens), 1e-6));
  keydiff_scores(cpu, f.cache, f.s, 0, scores);
  CHECK(near(scores, rows_of(kvpress::keydiff_scores, t.kv_heads, t.tokens), 1e-5));
}

TEST_CASE("knorm and keydiff: the tokens of the formula stay, of whole heads and ragged ones") {
  rng r(101);
  for (index tokens : {1, 63, 200})
    for (bool ragged : {false, true})
      for (index budget : {0, 1, 40, 150}) {
        text const t(r, tokens);
        filled a(t), b(t);
        if (ragged) make_ragged(a), make_ragged(b);
        auto const held = a.held();
        protect const always{3, 10};
        knorm(some_threads(), a.cache, a.s, 0, budget, always);
        CHECK(a.holds(t, chosen(held, naive_knorm(t, held), budget, 3, 10)));
        keydiff(some_threads(), b.cache, b.s, 0, budget);
        CHECK(b.holds(t, chosen(held, naive_keydiff(t, held), budget)));
      }
}

TEST_CASE("keydiff: keys of zeros") {
  rng r(102);
  text t(r, 30);
  std::fill(t.k.begin(), t.k.begin() + 5 * t.dim, 0.f);
  filled const f(t);
  std::vector<float> memory(static_cast<std::size_t>(t.kv_heads * t.tokens));
  keydiff_scores(cpu, f.cache, f.s, 0, tern::view(memory.data(), t.kv_heads, t.tokens));
  for (std::size_t j = 0; j < 5; ++j) CHECK(memory[j] == 0.f);
  for (float x : memory) CHECK(std::isfinite(x));
}

TEST_CASE("lagkv: scores of kvpress") {
  text const t;
  filled const f(t);
  index const lag = 16, from = kvpress::sinks;
  token_scores const scores(cpu, t.kv_heads, t.tokens);
  index const parts = lagkv_scores(cpu, f.cache, f.s, 0, from, {lag, 8}, scores);
  REQUIRE(parts == (t.tokens - from) / lag - 1);
  for (index h = 0; h < t.kv_heads; ++h)
    for (index j = from; j < from + parts * lag; ++j) {
      double const want = static_cast<double>(kvpress::lagkv_cross_scores[h * t.tokens + j]);
      CHECK(static_cast<double>(scores.first(h, j)) == Approx(2 * want).epsilon(1e-5));  // a sum here, a mean there
      index const begin = from + (j - from) / lag * lag;
      index rank = 0;
      for (index i = begin; i < begin + lag; ++i) rank += scores.first(h, i) < scores.first(h, j);
      CHECK(static_cast<float>(rank) / static_cast<float>(lag) == kvpress::lagkv_scores[h * t.tokens + j]);
    }
}

TEST_CASE("lagkv: partition by partition, and again when more has come") {
  rng r(103);
  for (index tokens : {5, 40, 47, 48, 150}) {
    text const t(r, 250);
    filled f(t);
    f.cache.truncate(f.s, tokens);
    lagkv_options const options{16, 5, 7, 0.5f};
    index done = -1;
    for (index end : {tokens, tokens + 30, index{250}}) {
      if (end > tokens) t.append(f.cache, f.s, 0, f.cache.next_position(f.s), end);
      tokens_of_heads want = f.held();
      index const from = done < 0 ? 7 : done, n = static_cast<index>(want[0].size()), parts = n - from < 32 ? 0 : (n - from) / 16 - 1;
      for (index h = 0; h < t.kv_heads; ++h) {
        auto& list = want[static_cast<std::size_t>(h)];
        auto const score = naive_lagkv(t, list, h, from, 16, 0.5);
        std::vector<char> stays(list.size(), 1);
        for (index first = from; first < from + 16 * parts; first += 16) {
          std::fill(stays.begin() + first, stays.begin() + first + 16, char{0});
          for (index i : largest_places({score.begin() + first, score.begin() + first + 16}, 5))
            stays[static_cast<std::size_t>(first + i)] = 1;
        }
        std::vector<std::int32_t> left;
        for (std::size_t j = 0; j < list.size(); ++j)
          if (stays[j] != 0) left.push_back(list[j]);
        list = left;
      }
      done = lagkv(some_threads(), f.cache, f.s, 0, options, done);
      CHECK(done == from + 5 * parts);
      CHECK(f.holds(t, want));
    }
  }
}

TEST_CASE("lagkv: a channel that does not change counts as 0") {
  rng r(104);
  text t(r, 60);
  for (index j = 0; j < t.tokens; ++j) t.k[static_cast<std::size_t>(j * t.dim + 3)] = 2.f;
  filled const f(t);
  token_scores const scores(cpu, t.kv_heads, t.tokens);
  index const parts = lagkv_scores(cpu, f.cache, f.s, 0, 0, {10, 5}, scores);
  for (index j = 0; j < parts * 10; ++j) CHECK(std::isfinite(scores.first(0, j)));
}

TEST_CASE("streaming_llm: sinks and window") {
  rng r(105);
  for (index tokens : {3, 20, 200})
    for (bool ragged : {false, true}) {
      text const t(r, tokens);
      filled f(t);
      if (ragged) make_ragged(f);
      tokens_of_heads want = f.held();
      for (auto& list : want) {
        index const n = static_cast<index>(list.size());
        if (n > 34) list.erase(list.begin() + 4, list.end() - 30);
      }
      filled paged(t);
      streaming_llm(some_threads(), f.cache, f.s, 0, {4, 30, true});
      CHECK(f.holds(t, want));
      streaming_llm(some_threads(), paged.cache, paged.s, 0, {4, 30});
      for (index h = 0; h < t.kv_heads; ++h) {
        index const n = paged.cache.length(paged.s, 0, h);
        CHECK((n >= std::min<index>(tokens, 34) && n < 34 + 64));
        auto const list = paged.held()[static_cast<std::size_t>(h)];
        CHECK(list.front() == 0);
        CHECK(list.back() == tokens - 1);
      }
    }
  text const t;
  filled f(t);
  index const all = std::count(std::begin(kvpress::streaming_llm_half_scores), std::end(kvpress::streaming_llm_half_scores), 1);
  streaming_llm(cpu, f.cache, f.s, 0, {kvpress::sinks, all - kvpress::sinks, true});
  CHECK(f.holds(t, marked(kvpress::streaming_llm_half_scores, t.kv_heads, t.tokens, true)));
}

TEST_CASE("streaming_llm: positions are counted in the cache") {
  rng r(106);
  text t(r, 150, 1);
  std::vector<float> const before = t.k;  // of rotation
  rope_options const options{rope_pairing::half};
  rope(cpu, tern::view(t.k.data(), index{1}, t.tokens, t.dim), 0, options);
  filled f(t);
  streaming_llm(cpu, f.cache, f.s, 0, {4, 30, true}, options);
  CHECK(f.cache.next_position(f.s) == 34);
  std::vector<float> turned, x(static_cast<std::size_t>(t.dim));
  for (index i = 0; i < 34; ++i) {
    index const from = i < 4 ? i : t.tokens - 34 + i;
    turned.insert(turned.end(), before.begin() + from * t.dim, before.begin() + (from + 1) * t.dim);
  }
  rope(cpu, tern::view(turned.data(), index{34}, t.dim), 0, options);
  for (index i = 0; i < 34; ++i) {
    CHECK(f.cache.positions(f.s, 0, 0)[i] == i);
    f.cache.read_key(f.s, 0, 0, i, x.data());
    for (index d = 0; d < t.dim; ++d)
      CHECK(x[static_cast<std::size_t>(d)] == Approx(turned[static_cast<std::size_t>(i * t.dim + d)]).margin(2e-6));
  }
  std::vector<float> const once = x;
  streaming_llm(cpu, f.cache, f.s, 0, {4, 30, true}, options);  // nothing goes: nothing turns
  f.cache.read_key(f.s, 0, 0, 33, x.data());
  CHECK(x == once);
}

TEST_CASE("methods without queries: budgets of all tokens change nothing, threads neither, wrong calls fail") {
  rng r(107);
  text const t(r, 100);
  filled f(t), one(t), many(t);
  knorm(cpu, f.cache, f.s, 0, 100);
  keydiff(cpu, f.cache, f.s, 0, 1000);
  streaming_llm(cpu, f.cache, f.s, 0, {50, 50, true});
  CHECK(lagkv(cpu, f.cache, f.s, 0, {60, 5}) == 16);
  CHECK(f.holds(t, t.all_heads()));
  for (auto* x : {&one, &many}) {
    cpu_policy const policy = x == &one ? cpu.on(serial) : some_threads();
    keydiff(policy, x->cache, x->s, 0, 90);
    lagkv(policy, x->cache, x->s, 0, {20, 7});
    knorm(policy, x->cache, x->s, 0, 30);
  }
  CHECK(one.held() == many.held());
  knorm(cpu, f.cache, f.s, 0, 0);
  CHECK(f.cache.longest(f.s, 0) == 0);
  keydiff(cpu, f.cache, f.s, 0, 5);
  CHECK(lagkv(cpu, f.cache, f.s, 0) == 16);
  CHECK(message_of([&] { knorm(cpu, one.cache, one.s, 0, -1); }) == "select_tokens: budget is -1, expected at least 0");
  CHECK(message_of([&] { keydiff(cpu, one.cache, one.s, 3, 4); }) == "kv_cache::longest: the layer is 3, expected less than layers = 1");
  CHECK(message_of([&] { lagkv(cpu, one.cache, one.s, 0, {0, 0}); }) == "lagkv: options.lag is 0, expected at least 1");
  CHECK(message_of([&] { lagkv(cpu, one.cache, one.s, 0, {4, 5}); }) == "lagkv: options.stay is 5, expected 0 to options.lag");
  CHECK(message_of([&] { streaming_llm(cpu, one.cache, one.s, 0, {-1, 5, true}); }) ==
        "streaming_llm: sinks or window is -1, expected not negative");
}

}  // namespace
}  // namespace tern::test

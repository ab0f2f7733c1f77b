// SPDX-License-Identifier: Apache-2.0
#include "sparse.hpp"

#include <tern/attention/systems/minference.hpp>
#include <tern/attention/systems/qwen2_5_1m.hpp>

namespace tern::test {
namespace {

/// What the paper says about one head, in double: a (tokens, keys) table of who sees whom.
struct naive_pattern {
  index tokens, keys, offset;
  std::vector<char> table;

  naive_pattern(call<float> const& c, index h, minference_head const& p, index from, index to)
      : tokens(to - from), keys(c.c.keys - c.c.tokens + to), offset(keys - tokens), table(static_cast<std::size_t>(tokens * keys)) {
    auto const q = c.q.view[h].slice(0, from, to);
    auto const k = c.k.view[h / (c.c.heads / c.c.kv_heads)].slice(0, 0, keys);
    for (index i = 0; i < tokens; ++i)
      for (index j = 0; j <= i + offset; ++j)
        if (p.pattern == minference_pattern::dense ||
            (p.pattern == minference_pattern::a_shape && (j < p.first || i / 64 * 64 + offset - j < p.second)))
          see(i, j);
    if (p.pattern == minference_pattern::vertical_slash) vertical_slash_of(q, k, p);
    if (p.pattern == minference_pattern::block_sparse) blocks_of(q, k, p);
  }
  void see(index i, index j) {
    if (j >= 0 && j <= i + offset) table[static_cast<std::size_t>(i * keys + j)] = 1;
  }
  bool operator()(index i, index j) const { return table[static_cast<std::size_t>(i * keys + j)] != 0; }

  template <class X>
  static double dot(X const& q, index i, X const& k, index j) {
    double sum = 0;
    for (index d = 0; d < q.extent(1); ++d) sum += static_cast<double>(q(i, d)) * static_cast<double>(k(j, d));
    return sum;
  }
  template <class X>
  void vertical_slash_of(X const& q, X const& k, minference_head const& p) {
    std::vector<double> column(static_cast<std::size_t>(keys)), slash(static_cast<std::size_t>(keys));
    for (index i = std::max<index>(0, tokens - 64); i < tokens; ++i) {
      std::vector<double> e;
      double sum = 0;
      for (index j = 0; j <= i + offset; ++j) {
        e.push_back(std::exp(dot(q, i, k, j) / std::sqrt(static_cast<double>(q.extent(1)))));
        sum += e.back();
      }
      for (index j = 0; j <= i + offset; ++j) {
        column[static_cast<std::size_t>(j)] += e[static_cast<std::size_t>(j)] / sum;
        slash[static_cast<std::size_t>(i + offset - j)] += e[static_cast<std::size_t>(j)] / sum;
      }
    }
    for (index i = 0; i < keys; ++i) {
      if (i < std::min(p.sink, p.first)) column[static_cast<std::size_t>(i)] = 1e9 - static_cast<double>(i);
      if (i < std::min(p.recent, p.second)) slash[static_cast<std::size_t>(i)] = 1e9 - static_cast<double>(i);
    }
    for (std::int32_t j : largest(column, p.first))
      for (index i = 0; i < tokens; ++i) see(i, j);
    for (std::int32_t s : largest(slash, p.second))
      for (index i = 0; i < tokens; ++i)
        for (index other = i / 64 * 64; other < i / 64 * 64 + 64; ++other) see(i, other + offset - s);
  }
  template <class X>
  void blocks_of(X const& q, X const& k, minference_head const& p) {
    for (index g = 0; g * 64 < tokens; ++g) {
      std::vector<double> scores;
      index const q_end = std::min(tokens, 64 * g + 64);
      for (index b = 0; 64 * b < q_end + offset; ++b) {
        index const k_end = std::min(keys, 64 * b + 64);
        double sum = 0;
        for (index i = 64 * g; i < q_end; ++i)
          for (index j = 64 * b; j < k_end; ++j) sum += dot(q, i, k, j);
        scores.push_back(sum / static_cast<double>((q_end - 64 * g) * (k_end - 64 * b)));
      }
      for (std::int32_t b : largest(scores, p.first))
        for (index i = 64 * g; i < q_end; ++i)
          for (index j = 64 * b; j < 64 * b + 64 && j < keys; ++j) see(i, j);
    }
  }
};

struct index_memory {
  std::vector<std::int32_t> numbers;
  std::vector<vertical_slash_head> runs;
  index_memory(std::vector<minference_head> const& p, index tokens, index keys)
      : numbers(static_cast<std::size_t>(minference_capacity(p.data(), static_cast<index>(p.size()), tokens, keys))), runs(p.size()) {}
  tensor_view<std::int32_t, 1> view() { return tern::view(numbers); }
};

std::vector<minference_head> const some_patterns = {{minference_pattern::vertical_slash, 20, 6, 3, 2},
                                                    {minference_pattern::a_shape, 5, 30},
                                                    {minference_pattern::block_sparse, 2},
                                                    {minference_pattern::dense}};

TEST_CASE("minference: each head its pattern") {
  rng r(41);
  for (auto [tokens, keys] : {std::pair<index, index>{300, 300}, {130, 400}, {7, 200}, {1, 90}}) {
    call<float> c(r, {4, 2, tokens, keys, 24, 20, 2});
    index_memory memory(some_patterns, tokens, keys);
    minference(cpu.on(several_threads()), c.q.view, c.k.view, c.v.view, c.out.view, some_patterns.data(), memory.view(), memory.runs.data(),
               log_sum_exp{c.lse});
    std::vector<naive_pattern> naive;
    for (index h = 0; h < 4; ++h) naive.emplace_back(c, h, some_patterns[static_cast<std::size_t>(h)], 0, tokens);
    c.check(want_by_head(c, [&](index h, index i, index j) { return naive[static_cast<std::size_t>(h)](i, j); }));
  }
}

TEST_CASE("minference: budgets of all keys are dense attention") {
  rng r(42);
  call<float> c(r, {4, 2, 200, 250, 24, 20, 1});
  std::vector<minference_head> const all = {{minference_pattern::vertical_slash, 250, 0},
                                            {minference_pattern::vertical_slash, 0, 250},
                                            {minference_pattern::block_sparse, 4},
                                            {minference_pattern::a_shape, 0, 250}};
  index_memory memory(all, 200, 250);
  minference(cpu, c.q.view, c.k.view, c.v.view, c.out.view, all.data(), memory.view(), memory.runs.data(), log_sum_exp{c.lse});
  c.check(c.want([](index i, index j) { return j <= i + 50; }));
  std::vector<float> recall(4);
  minference_recall(cpu, c.q.view, c.k.view, all.data(), memory.view(), memory.runs.data(), view(recall));
  for (float x : recall) CHECK(x == Approx(1).margin(1e-5));
  CHECK_THROWS_AS(minference(cpu, c.q.view, c.k.view, c.v.view, c.out.view, all.data(), memory.view().slice(0, 1, memory.view().extent(0)),
                             memory.runs.data(), log_sum_exp{c.lse}),
                  error);
}

TEST_CASE("minference_search: the pattern that keeps most of the weight") {
  rng r(43);
  index const n = 400;
  call<float> c(r, {3, 3, n, n, 16, 16, 0.1});
  for (index i = 0; i < n; ++i) {
    c.q.view(0, i, 0) = 8;  // head 0 looks at keys 11 and 130
    c.k.view(0, i, 0) = i == 11 || i == 130 ? 8.f : 0.f;
    for (index d = 0; d < 16; ++d) {  // head 1 at its neighbours
      c.q.view(1, i, d) = i / 25 == d ? 8.f : 0.f;
      c.k.view(1, i, d) = i / 25 == d ? 8.f : 0.f;
    }
    c.q.view(2, i, 0) = 8;  // head 2 at block 2
    c.k.view(2, i, 0) = i / 64 == 2 ? 8.f : 0.f;
  }
  std::vector<minference_head> const candidates = {
      {minference_pattern::a_shape, 4, 60}, {minference_pattern::vertical_slash, 12, 1, 1, 1}, {minference_pattern::block_sparse, 1}};
  std::vector<minference_head> most(3, {minference_pattern::block_sparse, 70}), trial(3), best(3);
  index_memory memory(most, n, n);
  std::vector<float> recall(3);
  minference_search(cpu, c.q.view, c.k.view, candidates.data(), 3, trial.data(), memory.view(), memory.runs.data(), best.data(),
                    view(recall), 200);
  CHECK(best[0].pattern == minference_pattern::vertical_slash);
  CHECK(best[1].pattern == minference_pattern::a_shape);
  CHECK(best[2].pattern == minference_pattern::block_sparse);
  // The recall by its definition.
  for (index h = 0; h < 3; ++h) {
    naive_pattern const seen(c, h, best[static_cast<std::size_t>(h)], 0, n);
    double mean = 0;
    for (index i = 200; i < n; ++i) {
      double all = 0, some = 0;
      for (index j = 0; j <= i; ++j) {
        double const e = std::exp(naive_pattern::dot(c.q.view[h], i, c.k.view[h], j) / 4);
        all += e;
        if (seen(i, j)) some += e;
      }
      mean += some / all / 200;
    }
    CHECK(static_cast<double>(recall[static_cast<std::size_t>(h)]) == Approx(mean).margin(1e-5));
  }
}

TEST_CASE("attention_recall: the mean over queries that see something") {
  float const nothing = -std::numeric_limits<float>::infinity();
  std::vector<float> sparse = {0, 1, nothing, 3, nothing, nothing}, full = {5, 1, 2, 4, nothing, nothing}, recall(2);
  attention_recall(tern::view(sparse.data(), 2, 3), tern::view(full.data(), 2, 3), view(recall), 1);
  CHECK(recall[0] == Approx(0.5));  // 1 and 0
  CHECK(recall[1] == 1);            // no query
  attention_recall(tern::view(sparse.data(), 2, 3), tern::view(full.data(), 2, 3), view(recall));
  CHECK(recall[0] == Approx((std::exp(-5.) + 1) / 3));
  CHECK(recall[1] == Approx(std::exp(-1.)));
  CHECK_THROWS_AS(attention_recall(tern::view(sparse.data(), 2, 2), tern::view(full.data(), 2, 3), view(recall)), error);
}

TEST_CASE("qwen2_5_1m: chunks of a prompt, each with patterns of its own; one chunk is minference") {
  rng r(44);
  for (index chunk : {64, 100, 1000}) {
    index const tokens = 230, keys = 290;
    call<float> c(r, {4, 2, tokens, keys, 24, 20, 2});
    index_memory memory(some_patterns, std::min(chunk, tokens), keys);
    qwen2_5_1m_prefill(cpu, c.q.view, c.k.view, c.v.view, c.out.view, some_patterns.data(), chunk, memory.view(), memory.runs.data());
    attention(cpu, c.q.view, c.k.view, c.v.view.slice(2, 0, 0), c.out.view.slice(2, 0, 0), causal{}, log_sum_exp{c.lse});
    std::vector<std::vector<naive_pattern>> naive(4);
    for (index h = 0; h < 4; ++h)
      for (index from = 0; from < tokens; from += chunk)
        naive[static_cast<std::size_t>(h)].emplace_back(c, h, some_patterns[static_cast<std::size_t>(h)], from,
                                                        std::min(tokens, from + chunk));
    auto want = want_by_head(c, [&](index h, index i, index j) {
      auto const& part = naive[static_cast<std::size_t>(h)][static_cast<std::size_t>(i / chunk)];
      return j < part.keys && part(i % chunk, j);
    });
    want.lse = c.want([](index i, index j) { return j <= i + 60; }).lse;  // the chunks' are not asked for
    c.check(want);
  }
}

TEST_CASE("qwen2_5_1m: budgets grow until the recall is reached") {
  rng r(45);
  index const n = 500;
  call<float> c(r, {3, 1, n, n, 16, 16, 1});
  std::vector<minference_head> patterns = {
      {minference_pattern::vertical_slash, 4, 1, 1, 1}, {minference_pattern::a_shape, 4, 4}, {minference_pattern::vertical_slash, n, n}};
  auto const before = patterns;
  std::vector<minference_head> const most(3, {minference_pattern::vertical_slash, n, n});
  index_memory memory(most, n, n);
  std::vector<float> recall(3);
  index const rounds =
      qwen2_5_1m_refine(cpu, c.q.view, c.k.view, patterns.data(), 0.95f, 20, memory.view(), memory.runs.data(), view(recall));
  CHECK((rounds > 1 && rounds < 20));
  for (float x : recall) CHECK(x >= 0.95f);
  CHECK((patterns[0].first > before[0].first && patterns[0].second > before[0].second));
  CHECK((patterns[1].first == 4 && patterns[1].second > 4));
  CHECK(patterns[2].first == n);
  // From the start, so many rounds suffice, and one less does not.
  auto again = before;
  qwen2_5_1m_refine(cpu, c.q.view, c.k.view, again.data(), 0.95f, rounds, memory.view(), memory.runs.data(), view(recall));
  CHECK(*std::min_element(recall.begin(), recall.end()) >= 0.95f);
  again = before;
  qwen2_5_1m_refine(cpu, c.q.view, c.k.view, again.data(), 0.95f, rounds - 1, memory.view(), memory.runs.data(), view(recall));
  CHECK(*std::min_element(recall.begin(), recall.end()) < 0.95f);
}

}  // namespace
}  // namespace tern::test

// SPDX-License-Identifier: Apache-2.0
// Methods for long prompts: FINCH, ChunkKV, Expected Attention.
#include "text.hpp"
#include "turned.hpp"

#include <tern/cache/average_heads.hpp>
#include <tern/cache/methods/chunkkv.hpp>
#include <tern/cache/methods/expected_attention.hpp>
#include <tern/cache/methods/finch.hpp>
#include <tern/cache/methods/knorm.hpp>

namespace tern::test {
namespace {

rope_options const half{rope_pairing::half};

TEST_CASE("finch: scores of kvpress, which counts one key less") {
  text const t;
  filled f(t);
  index const window = 16;
  token_scores const scores(cpu, t.kv_heads, t.tokens);
  auto want = rows_of(kvpress::finch_scores, t.kv_heads, t.tokens);
  for (auto& row : want) row.resize(row.size() - window);
  auto const before = scores.first.slice(1, 0, t.tokens - window);
  std::vector<float> memory(static_cast<std::size_t>(t.heads * window));
  auto const lse = tern::view(memory.data(), t.heads, window);
  observed_log_sums(cpu, t.last(window), f.cache.keys(f.s, 0), lse);
  for (index g = 0; g < t.heads; ++g)
    for (index i = 0; i < window; ++i) lse(g, i) -= std::log(static_cast<float>(t.tokens - window + i));
  observed_weights(cpu, t.last(window), f.cache.keys(f.s, 0), scores.first, lse);
  CHECK(near(before, want, 1e-5));
  finch_scores(cpu, f.cache, f.s, 0, t.last(window), scores.first);
  CHECK(
      near(scores.first, t.observed(t.all_heads(), t.tokens - window, t.tokens, [](index i) { return static_cast<double>(i + 1); }), 1e-5));
  finch(cpu, f.cache, f.s, 0, t.last(window), 27, half);
  std::vector<float> x(static_cast<std::size_t>(t.dim));
  for (index h = 0; h < t.kv_heads; ++h)
    for (index i = 0; i < 27; ++i) {
      index const token = kvpress::finch_tokens[h * 27 + i];
      f.cache.read_key(f.s, 0, h, i, x.data());
      auto const key =
          turned(&kvpress::keys_before_rotary[static_cast<std::size_t>((h * t.tokens + token) * t.dim)], t.dim, static_cast<double>(i));
      for (std::size_t d = 0; d < x.size(); ++d) CHECK(static_cast<double>(x[d]) == Approx(key[d]).margin(1e-5));
    }
}

TEST_CASE("rerotate: keys of kvpress") {
  text const t;
  filled f(t);
  knorm(cpu, f.cache, f.s, 0, 20);
  std::vector<float> x(static_cast<std::size_t>(t.dim));
  for (index h = 0; h < t.kv_heads; ++h)
    for (index i = 0; i < 20; ++i) CHECK(f.cache.positions(f.s, 0, h)[i] == kvpress::rerotated_tokens[h * 20 + i]);
  rerotate(cpu, f.cache, f.s, 0, 0, half);
  for (index h = 0; h < t.kv_heads; ++h)
    for (index i = 0; i < 20; ++i) {
      f.cache.read_key(f.s, 0, h, i, x.data());
      for (index d = 0; d < t.dim; ++d)
        CHECK(x[static_cast<std::size_t>(d)] == Approx(kvpress::rerotated_keys[(h * 20 + i) * t.dim + d]).margin(1e-5));
    }
}

/// The loop of the paper for a text of `chunks` chunks of 40 tokens, the question being its last 6; before rotation.
tokens_of_heads naive_finch(text const& t, index chunks, index budget) {
  tokens_of_heads held(static_cast<std::size_t>(t.kv_heads));
  index const question = 6;
  for (index c = 0; c < chunks; ++c)
    for (index h = 0; h < t.kv_heads; ++h) {
      auto& list = held[static_cast<std::size_t>(h)];
      for (index j = c * 40; j < c * 40 + 40; ++j) list.push_back(static_cast<std::int32_t>(j));
      for (index j = t.tokens - question; j < t.tokens; ++j) list.push_back(static_cast<std::int32_t>(j));
      index const n = static_cast<index>(list.size());
      std::vector<double> score(list.size());
      for (index g = h * 2; g < h * 2 + 2; ++g)
        for (index i = 0; i < question; ++i) {
          index const seen = n - question + i + 1;
          auto const q = turned(&t.q[static_cast<std::size_t>((g * t.tokens + t.tokens - question + i) * t.dim)], t.dim,
                                static_cast<double>(seen - 1));
          std::vector<double> e;
          double sum = 0;
          for (index j = 0; j < seen; ++j) {
            auto const k = turned(&t.k[static_cast<std::size_t>((h * t.tokens + list[static_cast<std::size_t>(j)]) * t.dim)], t.dim,
                                  static_cast<double>(j));
            double s = 0;
            for (std::size_t d = 0; d < k.size(); ++d) s += q[d] * k[d];
            e.push_back(std::exp(s / 4));
            sum += e.back();
          }
          for (index j = 0; j < seen; ++j)
            score[static_cast<std::size_t>(j)] += static_cast<double>(seen) * e[static_cast<std::size_t>(j)] / sum;
        }
      list = chosen(list, score, budget, 0, question);
      if (c + 1 < chunks) list.resize(list.size() - question);
    }
  return held;
}

TEST_CASE("finch: a text in chunks, each with the question") {
  rng r(121);
  index const question = 6, chunks = 5, layers = 2;
  text const t(r, chunks * 40 + question);  // before rotation
  kv_cache<float> cache({layers, t.kv_heads, t.dim});
  auto const s = cache.open();
  index const budget = 30;
  for (index c = 0; c < chunks; ++c) {
    index const first = cache.next_position(s);
    for (index layer = 0; layer < layers; ++layer) {
      std::vector<float> k, v, q;
      for (index h = 0; h < t.heads; ++h)
        for (index i = 0; i < 40 + question; ++i) {
          index const j = i < 40 ? c * 40 + i : t.tokens - question + i - 40;
          auto const take = [&](std::vector<float> const& from, std::vector<float>& to) {
            to.insert(to.end(), from.begin() + (h * t.tokens + j) * t.dim, from.begin() + (h * t.tokens + j + 1) * t.dim);
          };
          if (h < t.kv_heads) take(t.k, k), take(t.v, v);
          take(t.q, q);
        }
      auto const keys = view(k.data(), t.kv_heads, 40 + question, t.dim), queries = view(q.data(), t.heads, 40 + question, t.dim);
      rope(cpu, keys, first, half);
      rope(cpu, queries, first, half);
      cache.append(cpu, s, layer, keys, view(v.data(), t.kv_heads, 40 + question, t.dim));
      finch(some_threads(), cache, s, layer, queries.slice(1, 40, 40 + question), budget, half);
    }
    if (c + 1 < chunks) cache.truncate(s, cache.next_position(s) - question);
  }
  auto const want = naive_finch(t, chunks, budget);
  std::vector<float> x(static_cast<std::size_t>(t.dim));
  for (index layer = 0; layer < layers; ++layer)
    for (index h = 0; h < t.kv_heads; ++h) {
      REQUIRE(cache.length(s, layer, h) == budget);
      for (index i = 0; i < budget; ++i) {
        index const token = want[static_cast<std::size_t>(h)][static_cast<std::size_t>(i)];
        CHECK(cache.positions(s, layer, h)[i] == i);
        cache.read_value(s, layer, h, i, x.data());
        CHECK(static_cast<double>(x[3]) == t.at(t.v, h, token, 3));
        cache.read_key(s, layer, h, i, x.data());
        auto const key = turned(&t.k[static_cast<std::size_t>((h * t.tokens + token) * t.dim)], t.dim, static_cast<double>(i));
        for (std::size_t d = 0; d < x.size(); ++d) CHECK(static_cast<double>(x[d]) == Approx(key[d]).margin(1e-5));
      }
    }
}

/// Which tokens stay, in the words of the paper.
tokens_of_heads naive_chunks(tokens_of_heads const& held, scores_of_heads const& scores, index chunk, index budget, index first, index last,
                             bool mean) {
  tokens_of_heads all;
  for (std::size_t h = 0; h < held.size(); ++h) {
    index const n = static_cast<index>(held[h].size());
    if (budget >= n) {
      all.push_back(held[h]);
      continue;
    }
    index const end = n - std::min(last, budget), begin = std::min(first, budget - std::min(last, budget));
    std::vector<double> of_chunk;
    for (index j = begin; j < end; j += chunk) {
      of_chunk.push_back(0);
      index const size = std::min(chunk, end - j);
      for (index i = j; i < j + size; ++i) of_chunk.back() += scores[h][static_cast<std::size_t>(i)] / static_cast<double>(mean ? size : 1);
    }
    std::vector<char> stays(held[h].size(), 1);
    std::fill(stays.begin() + begin, stays.begin() + end, char{0});
    for (index c : largest_places(of_chunk, (budget - begin - (n - end)) / chunk))
      for (index j = begin + c * chunk; j < std::min(end, begin + c * chunk + chunk); ++j) stays[static_cast<std::size_t>(j)] = 1;
    all.emplace_back();
    for (std::size_t j = 0; j < stays.size(); ++j)
      if (stays[j] != 0) all.back().push_back(held[h][j]);
  }
  return all;
}

TEST_CASE("select_chunks: whole chunks") {
  rng r(122);
  for (index chunk : {1, 4, 7, 100})
    for (index budget : {0, 3, 20, 50, 60, 61})
      for (auto const& always : {protect{}, protect{3, 8}, protect{40, 40}})
        for (bool mean : {false, true}) {
          index const keys = 60;
          scores_of_heads scores;
          tokens_of_heads held;
          std::vector<float> x;
          for (index n : {60, 47, 0}) {
            auto row = r.normal<float>(n);
            for (float& y : row) y = std::abs(y);
            held.emplace_back();
            scores.push_back(widened(row));
            for (index j = 0; j < n; ++j) held.back().push_back(static_cast<std::int32_t>(j));
            row.resize(keys, -std::numeric_limits<float>::infinity());
            x.insert(x.end(), row.begin(), row.end());
          }
          std::vector<std::int32_t> ids(static_cast<std::size_t>(3 * keys)), counts(3);
          index_lists const kept{view(ids.data(), index{3}, keys), view(counts)};
          select_chunks(view(x.data(), index{3}, keys), chunk, budget, always, kept, mean ? chunk_score::mean : chunk_score::sum);
          auto const want = naive_chunks(held, scores, chunk, budget, always.first, always.last, mean);
          INFO(chunk << ' ' << budget << ' ' << always.first << ' ' << mean);
          for (index h = 0; h < 3; ++h)
            CHECK(std::vector<std::int32_t>(kept.row(h), kept.row(h) + kept.count(h)) == want[static_cast<std::size_t>(h)]);
        }
}

TEST_CASE("chunkkv: chunks of the formula, the same for several layers, and those of kvpress") {
  rng r(123);
  for (bool ragged : {false, true})
    for (index budget : {0, 12, 16, 45, 150, 200}) {
      text const t(r, 150);
      filled f(t, 2);
      if (ragged) make_ragged(f);
      auto const held = f.held();
      auto const want = naive_chunks(held, t.observed(held, t.tokens - 16, t.tokens), 10, budget, 0, 16, false);
      if (!ragged) {
        std::vector<std::int32_t> ids(static_cast<std::size_t>(t.kv_heads * t.tokens)), counts(static_cast<std::size_t>(t.kv_heads));
        index_lists const lists{view(ids.data(), t.kv_heads, t.tokens), view(counts)};
        chunkkv_lists(cpu, f.cache, f.s, 0, t.last(16), budget, lists);
        f.cache.keep(cpu, f.s, 1, lists);
        CHECK(f.holds(t, want, 1));
      }
      chunkkv(some_threads(), f.cache, f.s, 0, t.last(16), budget);
      CHECK(f.holds(t, want));
    }
  text const t;
  struct {
    index chunk, chunks;
    float const* scores;
    std::uint8_t const* kept;
  } const cases[] = {{10, 3, kvpress::snapkv_scores, kvpress::chunkkv_snapkv_kept},
                     {20, 2, kvpress::knorm_scores, kvpress::chunkkv_knorm_kept},
                     {7, 7, kvpress::knorm_scores, kvpress::chunkkv_knorm_chunk7_kept}};
  for (auto const& c : cases) {
    filled f(t);
    token_scores const scores(cpu, t.kv_heads, t.tokens);
    for (index h = 0; h < t.kv_heads; ++h)
      for (index j = 0; j < t.tokens; ++j) scores.first(h, j) = c.scores[h * t.tokens + j];
    average_heads(f.cache, f.s, 0, scores.first);
    select_chunks(scores.first, c.chunk, c.chunk * c.chunks, {}, scores.kept, chunk_score::mean);
    f.cache.keep(cpu, f.s, 0, scores.kept);
    CHECK(f.holds(t, marked(c.kept, t.kv_heads, t.tokens, true)));
  }
}

/// Scores of the paper, of queries before rotation; sinks have +inf.
scores_of_heads naive_expected(text const& t, tokens_of_heads const& held, index first, index count, expected_attention_options const& o) {
  scores_of_heads all;
  auto const n = static_cast<std::size_t>(t.dim);
  std::vector<double> c(n / 2), s(n / 2);
  for (std::size_t i = 0; i < n / 2; ++i)
    for (index p = first; p < first + count; ++p) {
      double const angle = static_cast<double>(p) * std::pow(10000., -2. * static_cast<double>(i) / static_cast<double>(t.dim));
      c[i] += std::cos(angle) / static_cast<double>(count);
      s[i] += std::sin(angle) / static_cast<double>(count);
    }
  for (index h = 0; h < t.kv_heads; ++h) {
    auto const& list = held[static_cast<std::size_t>(h)];
    auto const sinks = static_cast<std::size_t>(o.sinks);
    all.emplace_back(list.size());
    for (index g = 2 * h; g < 2 * h + 2; ++g) {
      std::vector<double> mean(n);
      for (index i = 0; i < t.tokens; ++i)
        for (std::size_t d = 0; d < n; ++d) mean[d] += t.at(t.q, g, i, static_cast<index>(d)) / static_cast<double>(t.tokens);
      // k^T R x is (R^T k)^T x: turn keys back, and leave the statistics
      std::vector<double> e;
      double sum = 0;
      for (std::int32_t j : list) {
        std::vector<double> back(n);
        for (std::size_t i = 0; i < n / 2; ++i) {
          double const a = t.at(t.k, h, j, static_cast<index>(i)), b = t.at(t.k, h, j, static_cast<index>(i + n / 2));
          back[i] = c[i] * a + s[i] * b;
          back[i + n / 2] = c[i] * b - s[i] * a;
        }
        double z = 0, variance = 0;
        for (std::size_t d = 0; d < n; ++d) z += mean[d] * back[d] / std::sqrt(static_cast<double>(n));
        for (index i = 0; i < t.tokens; ++i) {
          double x = 0;
          for (std::size_t d = 0; d < n; ++d) x += (t.at(t.q, g, i, static_cast<index>(d)) - mean[d]) * back[d];
          variance += x * x / static_cast<double>(t.tokens);
        }
        if (o.covariance) z += variance / (2 * static_cast<double>(n));
        e.push_back(e.size() < sinks ? 0 : std::exp(z));
        sum += e.back();
      }
      for (std::size_t j = 0; j < list.size(); ++j) all.back()[j] += e[j] / sum / 2;
    }
    for (std::size_t j = 0; j < list.size(); ++j) {
      double& x = all.back()[j];
      if (o.value_norm) x = (x + static_cast<double>(o.epsilon)) * std::sqrt(t.dot(t.v, h, list[j], t.v, h, list[j]));
      if (j < sinks) x = certainly;
    }
  }
  return all;
}

TEST_CASE("expected_attention: scores of kvpress") {
  text const t;
  filled const f(t);
  query_statistics future(t.heads, t.dim);
  tensor_view<float const, 3> const q(kvpress::queries_before_rotary.data(), shape<3>{{t.heads, t.tokens, t.dim}});
  future.fit(cpu, q.slice(1, kvpress::sinks, t.tokens), t.tokens, 512, half);
  double error = 0, most = 0;
  for (index g = 0; g < t.heads; ++g)
    for (index i = 0; i < t.dim; ++i)
      for (index j = 0; j < t.dim; ++j) {
        double const want = static_cast<double>(kvpress::expected_covariance[(g * t.dim + i) * t.dim + j]);
        error = std::max(error, std::abs(static_cast<double>(future.covariance(g)(i, j)) - want));
        most = std::max(most, std::abs(want));
      }
  CHECK(error < 1e-5 * most);
  token_scores const scores(cpu, t.kv_heads, t.tokens);
  struct {
    expected_attention_options options;
    float const* want;
  } const cases[] = {{{}, kvpress::expected_scores},
                     {{4, 0.02f}, kvpress::expected_epsilon_scores},
                     {{4, 0, true, false}, kvpress::expected_no_vnorm_scores},
                     {{4, 0, false, false}, kvpress::expected_mean_only_scores}};
  for (auto const& c : cases) {
    expected_attention_scores(cpu, f.cache, f.s, 0, future, scores, c.options);
    auto want = rows_of(c.want, t.kv_heads, t.tokens);
    for (auto& row : want) row.erase(row.begin(), row.begin() + 4);
    CHECK(near(scores.first.slice(1, 4, t.tokens), want, 3e-5));  // kvpress averages cosines in f32: that far from its own formula
  }
}

TEST_CASE("expected_attention: the tokens of the formula stay, of whole heads and ragged ones") {
  rng r(124);
  for (bool ragged : {false, true})
    for (expected_attention_options const& o : {expected_attention_options{}, {0, 0.02f, true, true}, {5, 0, false, false}})
      for (index budget : {0, 3, 40, 150}) {
        text const t(r, 150);
        filled f(t);
        if (ragged) make_ragged(f);
        auto const held = f.held();
        query_statistics future(t.heads, t.dim);
        future.fit(some_threads(), t.queries(0, t.tokens), 150, 60, half);
        token_scores const scores(cpu, t.kv_heads, t.tokens);
        auto const want = naive_expected(t, held, 150, 60, o);
        if (!ragged) {
          expected_attention_scores(cpu, f.cache, f.s, 0, future, scores, o);
          CHECK(near(scores.first, want, 2e-5));
        }
        expected_attention(some_threads(), f.cache, f.s, 0, future, budget, o);
        CHECK(f.holds(t, chosen(held, want, budget)));
      }
}

TEST_CASE("methods of prompts: threads change nothing, wrong calls fail") {
  rng r(125);
  text const t(r, 130);
  filled f(t), one(t), many(t), whole(t);
  auto const q = t.last(16);
  query_statistics future(t.heads, t.dim);
  future.fit(cpu, q, 130, 64);
  chunkkv(cpu, whole.cache, whole.s, 0, q, 130);
  expected_attention(cpu, whole.cache, whole.s, 0, future, 130);
  finch(cpu, whole.cache, whole.s, 0, q, 130);
  CHECK(whole.holds(t, t.all_heads()));
  for (auto* x : {&one, &many}) {
    cpu_policy const policy = x == &one ? cpu.on(serial) : some_threads();
    query_statistics again(t.heads, t.dim);
    again.fit(policy, q, 130, 64);
    chunkkv(policy, x->cache, x->s, 0, q, 110);
    expected_attention(policy, x->cache, x->s, 0, again, 70);
    finch(policy, x->cache, x->s, 0, q, 40);
  }
  std::vector<float> a(16), b(16);
  for (index i = 0; i < 40; ++i) {
    one.cache.read_key(one.s, 0, 1, i, a.data());
    many.cache.read_key(many.s, 0, 1, i, b.data());
    CHECK(a == b);
  }
  finch(cpu, one.cache, one.s, 0, q, 0);
  CHECK(one.cache.longest(one.s, 0) == 0);
  CHECK(message_of([&] { chunkkv(cpu, f.cache, f.s, 0, q, 40, 0); }) == "select_chunks: chunk is 0, expected at least 1");
  CHECK(message_of([&] { finch(cpu, f.cache, f.s, 0, q, -4); }) == "select_tokens: budget is -4, expected at least 0");
  CHECK(message_of([&] { query_statistics(4, 8).fit(cpu, q, 0, 10); }) == "query_statistics::fit: q.extent(2) is 16, expected dim = 8");
  CHECK(message_of([&] { future.fit(cpu, q, 0, 0); }) == "query_statistics::fit: first or count is 0, expected a position, and at least 1");
  CHECK(message_of([&] { expected_attention(cpu, f.cache, f.s, 0, query_statistics(3, 16), 4); }) ==
        "expected_attention: the heads of future is 3, expected a multiple of kv_heads");
}

}  // namespace
}  // namespace tern::test

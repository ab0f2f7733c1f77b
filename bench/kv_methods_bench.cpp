// SPDX-License-Identifier: Apache-2.0
// The methods of cache/methods that choose what stays of a prompt, and what others choose by. Those with an attention of their own are in
// kv_steps_bench.cpp.
//
//     <method>_h32x8_n<tokens>_d128      one call shortens a layer of a forked sequence to a quarter. Forking and closing are within the
//                                        time: pages that change are written anew. The queries are the last 64
//     h2o_observe_..., cache_craft_...   a token's part of H2O's sums; which tokens of a text are read anew
//
// Methods whose operations grow with the square of the tokens, or with an output projection, have fewer tokens.
#include "kv_cache_problem.hpp"

#include <tern/cache/methods/adakv.hpp>
#include <tern/cache/methods/cache_craft.hpp>
#include <tern/cache/methods/cam.hpp>
#include <tern/cache/methods/chunkkv.hpp>
#include <tern/cache/methods/criticalkv.hpp>
#include <tern/cache/methods/expected_attention.hpp>
#include <tern/cache/methods/finch.hpp>
#include <tern/cache/methods/h2o.hpp>
#include <tern/cache/methods/keydiff.hpp>
#include <tern/cache/methods/knorm.hpp>
#include <tern/cache/methods/lagkv.hpp>
#include <tern/cache/methods/lococo.hpp>
#include <tern/cache/methods/look_m.hpp>
#include <tern/cache/methods/pyramidkv.hpp>
#include <tern/cache/methods/streaming_llm.hpp>
#include <tern/cache/methods/tova.hpp>

#include <numeric>

namespace tern::bench {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// softmax over the first `keys` keys of q . k / sqrt(dim); read(j, x) has key j.
template <class Read>
std::vector<double> looks(float const* q, index keys, Read const& read) {
  std::vector<double> w(at(keys));
  float x[dim];
  double sum = 0;
  for (index j = 0; j < keys; ++j) {
    read(j, x);
    double const dot = std::inner_product(q, q + dim, x, 0., std::plus<>(), [](double a, double b) { return a * b; });
    sum += w[at(j)] = std::exp(dot / std::sqrt(double{dim}));
  }
  for (double& e : w) e /= sum;
  return w;
}

/// A prompt in two layers, and what methods ask for besides.
struct prompt : filled<f16, f16> {
  static constexpr index window = 64, slots = 256, width = 21;
  index stay = tokens / 4;
  buffer<float> last = buffer<float>(fast_normal(heads * window * dim)), ones = buffer<float>(kv_heads * tokens);
  buffer<float> convolution = buffer<float>(fast_normal(slots * (2 * width * dim + 1), 0.01));
  buffer<bool> is_text = buffer<bool>(tokens);
  std::vector<std::int32_t> fourths, counts;
  std::vector<h2o_state> sums;
  query_statistics future{heads, dim};
  random generator{1};

  explicit prompt(index n) : filled(n, 2), fourths(at(kv_heads * stay)), counts(kv_heads, static_cast<std::int32_t>(stay)) {
    std::fill(ones.begin(), ones.end(), 1.f);
    for (index j = 0; j < tokens; ++j) is_text[j] = j % 8 == 0;
    for (index i = 0; i < kv_heads * stay; ++i) fourths[at(i)] = static_cast<std::int32_t>(i % stay * 4);
    for (index layer = 0; layer < layers; ++layer) sums.emplace_back(kv_heads).observe(cpu, cache, s, layer, window_queries());
    future.fit(cpu, window_queries(), tokens, 512);
  }
  tensor_view<float const, 3> window_queries() const { return view(last.data(), heads, window, dim); }
  index_lists every_fourth() { return {view(fourths.data(), kv_heads, stay), view(counts.data(), kv_heads)}; }
  lococo_convolution mixes() const {
    return {view(convolution.data(), slots, width, 2 * dim), view(convolution.data() + slots * width * 2 * dim, slots)};
  }
  /// How much the last queries look at each token of a head of layer 0, on average.
  std::vector<double> observed(index h, index queries) {
    std::vector<double> sum(at(tokens));
    for (index g = h * group; g < (h + 1) * group; ++g)
      for (index i = window - queries; i < window; ++i) {
        auto const w = looks(&last[(g * window + i) * dim], tokens - window + i + 1, [&](index j, float* x) { k_row(h * tokens + j, x); });
        for (std::size_t j = 0; j < w.size(); ++j) sum[j] += w[j] / static_cast<double>(group * queries);
      }
    return sum;
  }
};

/// A method, what it takes, and, where it is quickly said, what it thinks of each token of head 0 of layer 0.
struct chooser {
  std::string name;
  index tokens;
  double flops, bytes;
  std::function<void(cpu_policy const&, prompt&, std::int32_t s, index layer)> shorten;
  std::function<std::vector<double>(prompt&)> scores = nullptr;
};

/// A quarter stays, which are those with the largest scores.
bool quarter_stays(prompt& p, std::int32_t s, std::function<std::vector<double>(prompt&)> const& scores) {
  double stay = 0;
  for (index layer = 0; layer < p.layers; ++layer)
    for (index h = 0; h < kv_heads; ++h) stay += static_cast<double>(p.cache.length(s, layer, h));
  if (std::abs(stay / static_cast<double>(p.layers * kv_heads * p.stay) - 1) > 0.05) return false;
  if (!scores) return true;
  std::vector<double> of = scores(p);
  double least = infinity, most = -infinity;
  for (std::int32_t j : std::span(p.cache.positions(s, 0, 0).data(), at(p.cache.length(s, 0)))) {
    least = std::min(least, of[at(j)]);
    of[at(j)] = -infinity;
  }
  for (double e : of) most = std::max(most, e);
  return least > most - 1e-4 * std::abs(most);
}

void add(chooser const& c) {
  workload const w{.op = "kv_cache", .name = c.name + shape_of(c.tokens), .flops = c.flops, .bytes = c.bytes};
  w.add("tern", [c](run& r) {
    prompt& p = one_cache.get("prompt" + std::to_string(c.tokens), [&] { return prompt(c.tokens); });
    auto const right = [&] {
      std::int32_t const s = p.cache.fork(p.s);
      for (index layer = 0; layer < p.layers; ++layer) c.shorten(r.policy(), p, s, layer);
      bool const is = quarter_stays(p, s, c.scores);
      p.cache.close(s);
      return is;
    };
    if (!r.check(right)) return;
    r.time([&](index i) {
      std::int32_t const s = p.cache.fork(p.s);
      c.shorten(r.policy(), p, s, i % p.layers);
      p.cache.close(s);
    });
  });
}

/// Scores, and infinite ones of the last tokens, which always stay.
std::vector<double> with_last(std::vector<double> x, index last) {
  std::fill(x.end() - last, x.end(), infinity);
  return x;
}
std::vector<double> snapkv_formula(prompt& p) {
  auto const w = p.observed(0, prompt::window);
  std::vector<double> sum(w.size());
  index const before = p.tokens - prompt::window;
  for (index j = 0; j < before; ++j)
    for (index i = std::max(index{0}, j - 2); i <= std::min(before - 1, j + 2); ++i) sum[at(j)] += w[at(i)];
  return with_last(sum, prompt::window);
}
std::vector<double> tova_formula(prompt& p) {
  std::vector<double> sum(at(p.tokens));
  for (index h = 0; h < kv_heads; ++h) {
    auto const w = p.observed(h, 1);
    std::transform(w.begin(), w.end(), sum.begin(), sum.begin(), std::plus<>());
  }
  return sum;
}
std::vector<double> knorm_formula(prompt& p) {
  std::vector<double> scores;
  float x[dim];
  for (index j = 0; j < p.tokens; ++j) {
    p.k_row(j, x);
    scores.push_back(-std::sqrt(std::inner_product(x, x + dim, x, 0.)));
  }
  return scores;
}

void add_choosers() {
  using policy = cpu_policy const&;
  using sequence = std::int32_t;
  constexpr index n = 16384, window = prompt::window, half = 4096, eighth = 2048;  // the fewer tokens of some
  auto const seen = [](index tokens) { return 4. * heads * window * static_cast<double>(tokens) * dim; };
  double const keys = bytes_of<f16>(n) / 2, moved = 2 * bytes_of<f16>(n / 4), numbers = double{kv_heads} * n * dim;
  auto const projection = lazy([] { return buffer<float>(fast_normal(heads * dim * heads * dim, 0.02)); });

  std::vector<chooser> const methods{
      {"streaming_llm", n, 0, 2 * bytes_of<f16>(page_rows),
       [](policy on, prompt& p, sequence s, index l) { streaming_llm(on, p.cache, s, l, {4, p.stay - 4}); }},
      {"streaming_llm_exact", n, 0, moved,
       [](policy on, prompt& p, sequence s, index l) { streaming_llm(on, p.cache, s, l, {4, p.stay - 4, true}); }},
      {"h2o_evict", n, 0, moved,
       [](policy on, prompt& p, sequence s, index l) {
         h2o_state sums = p.sums[at(l)];
         sums.evict(on, p.cache, s, l, p.stay);
       },
       [](prompt& p) { return with_last(p.observed(0, window), p.stay / 2); }},
      {"snapkv", n, seen(n), keys + moved,
       [](policy on, prompt& p, sequence s, index l) { snapkv(on, p.cache, s, l, p.window_queries(), p.stay); }, snapkv_formula},
      {"pyramidkv", n, seen(n), keys + moved,
       [](policy on, prompt& p, sequence s, index l) { pyramidkv(on, p.cache, s, l, p.window_queries(), p.stay); }},
      {"adakv", n, seen(n), keys + moved,
       [](policy on, prompt& p, sequence s, index l) { adakv(on, p.cache, s, l, p.window_queries(), p.stay); }},
      {"tova", n, seen(n) / window, keys + moved,
       [](policy on, prompt& p, sequence s, index l) { tova(on, p.cache, s, l, p.window_queries(), p.stay); }, tova_formula},
      {"keydiff", n, 10 * numbers, 2 * keys + moved, [](policy on, prompt& p, sequence s, index l) { keydiff(on, p.cache, s, l, p.stay); }},
      {"knorm", n, 2 * numbers, keys + moved, [](policy on, prompt& p, sequence s, index l) { knorm(on, p.cache, s, l, p.stay); },
       knorm_formula},
      {"expected_attention", n, 2. * heads * n * dim * dim, 2 * keys + moved,
       [](policy on, prompt& p, sequence s, index l) { expected_attention(on, p.cache, s, l, p.future, p.stay); }},
      {"finch", n, seen(n), keys + bytes_of<f16>(n / 4) + moved,
       [](policy on, prompt& p, sequence s, index l) { finch(on, p.cache, s, l, p.window_queries(), p.stay); }},
      {"chunkkv", n, seen(n), keys + moved,
       [](policy on, prompt& p, sequence s, index l) { chunkkv(on, p.cache, s, l, p.window_queries(), p.stay); }},
      {"lagkv", n, 16 * numbers, 4 * keys + moved, [](policy on, prompt& p, sequence s, index l) { lagkv(on, p.cache, s, l, {128, 32}); }},
      {"cam", n, numbers * (16 * 0.75 + 2 * 0.25), keys + moved,
       [](policy on, prompt& p, sequence s, index l) {
         cam(on, p.cache, s, l, view(std::as_const(p.ones).data(), kv_heads, p.tokens), p.every_fourth(), p.generator);
       }},
      {"look_m", half, seen(half) + 2. * kv_heads * dim * half * half * 3 / 16, 1.5 * bytes_of<f16>(half),
       [](policy on, prompt& p, sequence s, index l) {
         look_m(on, p.cache, s, l, p.window_queries(), view(std::as_const(p.is_text).data(), p.tokens), p.stay, window);
       }},
      {"criticalkv", eighth, seen(eighth) + 2. * heads * eighth * dim * heads * dim, 1.5 * bytes_of<f16>(eighth),
       [projection](policy on, prompt& p, sequence s, index l) {
         criticalkv(on, p.cache, s, l, p.window_queries(), view(projection().data(), heads * dim, heads * dim), p.stay);
       }},
      {"lococo", eighth, 4. * kv_heads * dim * prompt::slots * (prompt::width + 1) * (eighth * 3 / 4 + prompt::slots),
       1.5 * bytes_of<f16>(eighth),
       [](policy on, prompt& p, sequence s, index l) {
         lococo(on, p.cache, s, l, view(std::as_const(p.ones).data(), kv_heads, p.tokens), p.mixes(), p.stay, window);
       }},
  };
  for (chooser const& c : methods) add(c);
}

/// H2O's sums after each token.
struct observing : filled<f16, f16> {
  h2o_state sums{kv_heads};
  explicit observing(index n) : filled(n) {}
};
void add_h2o(index tokens) {
  add_step<observing>(
      "h2o_observe", tokens, {step_flops(static_cast<double>(tokens)), bytes_of<f16>(tokens) / 2},
      [](cpu_policy const& on, observing& x, index layer) { x.sums.observe(on, x.cache, x.s, layer, x.queries()); },
      [](cpu_policy const& on, observing& x) {
        h2o_state sums(kv_heads);
        sums.observe(on, x.cache, x.s, 0, x.queries());
        std::vector<double> want(at(x.tokens));
        for (index g = 0; g < group; ++g) {
          auto const w = looks(&x.q[g * dim], x.tokens, [&](index j, float* to) { x.k_row(j, to); });
          for (std::size_t j = 0; j < w.size(); ++j) want[j] += w[j] / group;
        }
        return test::compare(std::span(sums.sums(0).data(), want.size()), want, want, attention_rounding(unit::f32));
      });
}

/// Cache-Craft: a text of 512 tokens behind others of as many.
struct texts {
  static constexpr index n = 512;
  index tokens, count = tokens / n, layers = 1;
  buffer<float> q = buffer<float>(fast_normal(heads * n * dim)), k = buffer<float>(fast_normal(kv_heads * tokens * dim, 1, 3));
  std::vector<std::int32_t> starts, chosen = std::vector<std::int32_t>(n);
  std::vector<float> masses = std::vector<float>(at(n * count)), scores = std::vector<float>(n);

  explicit texts(index of) : tokens(of) {
    for (index j = 0; j <= count; ++j) starts.push_back(static_cast<std::int32_t>(j * n));
  }
  void choose(cpu_policy const& on) {
    auto const of = view(masses.data(), n, count);
    chunk_masses(on, view(q.data(), heads, n, dim), view(k.data(), kv_heads, tokens, dim), view(starts), of);
    cache_craft_choose(of, cache_craft_impact(of, view(starts)), 0.5, 1, view(scores), view(chosen));
  }
  /// Of the first token and the last.
  test::comparison check() const {
    std::vector<double> want(at(2 * count));
    for (index i : {index{0}, n - 1})
      for (index g = 0; g < heads; ++g) {
        auto const w = looks(&q[(g * n + i) * dim], tokens - n + i + 1,
                             [&](index j, float* x) { std::copy_n(&k[(g / group * tokens + j) * dim], dim, x); });
        for (index j = 0; j < std::ssize(w); ++j) want[at((i > 0 ? count : 0) + j / n)] += w[at(j)] / heads;
      }
    std::vector<float> got(masses.begin(), masses.begin() + count);
    got.insert(got.end(), masses.end() - count, masses.end());
    return test::compare(std::span<float const>(got), want, want, attention_rounding(unit::f32));
  }
};
void add_craft(index tokens) {
  auto const keys = static_cast<double>(tokens - texts::n / 2);
  add_step<texts>(
      "cache_craft", tokens, {2. * heads * texts::n * keys * dim, 4. * dim * (heads * texts::n + kv_heads * static_cast<double>(tokens))},
      [](cpu_policy const& on, texts& x, index) { x.choose(on); }, [](cpu_policy const& on, texts& x) { return x.choose(on), x.check(); });
}

}  // namespace

void register_benchmarks() {
  add_choosers();
  add_h2o(16384);
  add_craft(4096);
}

}  // namespace tern::bench

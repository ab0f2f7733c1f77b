// SPDX-License-Identifier: Apache-2.0
// What choosing is for: at the same number of bytes less is lost than by chance; and what rotation is for.
#include "catch.hpp"
#include "compare.hpp"

#include <tern/cache/methods/h2o.hpp>
#include <tern/cache/methods/snapkv.hpp>
#include <tern/pointwise/hadamard.hpp>

#include <algorithm>
#include <cmath>

namespace tern::test {
namespace {

constexpr index heads = 4, kv_heads = 2, tokens = 640, later = 16, dim = 64, budget = 128, window = 32;
using rows = std::vector<float>;

auto shaped(rows& x, index of, index count) { return view(x.data(), of, count, dim); }
double distance(rows const& x, rows const& y) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += std::pow(static_cast<double>(x[i]) - static_cast<double>(y[i]), 2);
  return std::sqrt(sum);
}

/// All queries look where some of the keys lie, every eleventh or so, and what is asked later does too.
struct topic {
  rows q, k, v, asked;
  explicit topic(rng& r) : q(r.normal<float>(heads * tokens * dim)), asked(r.normal<float>(heads * later * dim)) {
    rows const direction = r.normal<float>(dim);
    k = r.normal<float>(kv_heads * tokens * dim);
    v = r.normal<float>(kv_heads * tokens * dim);
    auto const towards = [&](rows& x, index row) {
      for (index d = 0; d < dim; ++d) x[static_cast<std::size_t>(row * dim + d)] += direction[static_cast<std::size_t>(d)];
    };
    for (index i = 0; i < heads * tokens; ++i) towards(q, i);
    for (index i = 0; i < heads * later; ++i) towards(asked, i);
    for (index i = 0; i < kv_heads * tokens; ++i)
      if (r.integer(0, 10) == 0) towards(k, i);
  }
};

/// What later queries get of a sequence.
template <class Cache>
rows answers(Cache const& cache, std::int32_t s, rows& asked) {
  rows out(asked.size());
  attention(cpu, shaped(asked, heads, later), cache.keys(s, 0), cache.values(s, 0), shaped(out, heads, later));
  return out;
}

TEST_CASE("snapkv and h2o lose less than chance does with as many bytes") {
  rng r(1);
  topic t(r);
  kv_cache<float> cache({.layers = 1, .kv_heads = kv_heads, .dim = dim});
  auto const whole = cache.open();
  cache.append(cpu, whole, 0, shaped(t.k, kv_heads, tokens), shaped(t.v, kv_heads, tokens));
  auto const queries = shaped(t.q, heads, tokens);
  rows const want = answers(cache, whole, t.asked);

  auto const by_snapkv = cache.fork(whole), by_h2o = cache.fork(whole), by_chance = cache.fork(whole);
  snapkv(cpu, cache, by_snapkv, 0, queries.slice(1, tokens - window, tokens), budget);
  h2o_state sums(kv_heads);
  sums.observe(cpu, cache, by_h2o, 0, queries);
  sums.evict(cpu, cache, by_h2o, 0, budget);
  std::vector<std::int32_t> ids, counts(kv_heads, static_cast<std::int32_t>(budget));
  for (index h = 0; h < kv_heads; ++h) {
    std::vector<std::int32_t> all;
    for (index j = 0; j < tokens; ++j) all.push_back(static_cast<std::int32_t>(j));
    for (index j = 0; j < budget; ++j) std::swap(all[static_cast<std::size_t>(j)], all[static_cast<std::size_t>(r.integer(j, tokens - 1))]);
    std::sort(all.begin(), all.begin() + budget);
    ids.insert(ids.end(), all.begin(), all.begin() + budget);
  }
  cache.keep(cpu, by_chance, 0, {view(ids.data(), kv_heads, budget), view(counts)});

  double const lost = distance(answers(cache, by_chance, t.asked), want);
  for (std::int32_t s : {by_snapkv, by_h2o}) {
    CHECK(cache.bytes(s) == cache.bytes(by_chance));
    CHECK(distance(answers(cache, s, t.asked), want) < 0.5 * lost);
  }
}

// Keys in 2 bits have a scale for each element, and need no help with large ones.
TEST_CASE("rotation helps a cache in 2 bits, and 4, where a few elements of values are large") {
  rng r(2);
  topic t(r);
  for (std::size_t i = 5; i < t.v.size(); i += dim) t.v[i] *= 12;
  rows turned_k(t.k.size()), turned_v(t.v.size()), turned_q(t.asked.size());
  hadamard(cpu, shaped(t.k, kv_heads, tokens), shaped(turned_k, kv_heads, tokens));
  hadamard(cpu, shaped(t.v, kv_heads, tokens), shaped(turned_v, kv_heads, tokens));
  hadamard(cpu, shaped(t.asked, heads, later), shaped(turned_q, heads, later));

  kv_shape const shape{.layers = 1, .kv_heads = kv_heads, .dim = dim};
  auto const answers_of = [&](auto cache, rows& k, rows& v, rows& asked) {
    auto const s = cache.open();
    cache.append(cpu, s, 0, shaped(k, kv_heads, tokens), shaped(v, kv_heads, tokens));
    return answers(cache, s, asked);
  };
  rows const want = answers_of(kv_cache<float>(shape), t.k, t.v, t.asked);
  auto const compare = [&](auto make) {
    rows const plain = answers_of(make(), t.k, t.v, t.asked);
    rows turned = answers_of(make(), turned_k, turned_v, turned_q);
    hadamard(cpu, shaped(turned, heads, later), shaped(turned, heads, later));
    CHECK(distance(turned, want) < distance(plain, want));
  };
  compare([&] { return kv_cache<formats::keys2, formats::values2>(shape); });
  compare([&] { return kv_cache<formats::keys4, formats::values4>(shape); });
}

}  // namespace
}  // namespace tern::test

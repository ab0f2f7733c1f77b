// SPDX-License-Identifier: Apache-2.0
// Quest: the pages that it reads are those of the largest bounds, and all of them are the whole cache.
#include "layer.hpp"

#include <tern/cache/methods/quest.hpp>

namespace tern::test {
namespace {

constexpr index heads = 4, kv_heads = 2, dim = 32;

/// Attention over the pages whose bound, by the paper's formula, is among the largest, and the last.
rows want_of(head_rows const& q, rows const& k, rows const& v, index h, index pages) {
  auto const keys = static_cast<index>(k.size()), all = (keys + 63) / 64;
  row bounds;
  for (index p = 0; p < all; ++p) {
    double best = -1e300;
    for (index g = 2 * h; g < 2 * h + 2; ++g) {
      double sum = 0;
      for (std::size_t d = 0; d < static_cast<std::size_t>(dim); ++d) {
        double low = 1e300, high = -1e300;
        for (index j = 64 * p; j < std::min(keys, 64 * p + 64); ++j) {
          low = std::min(low, k[static_cast<std::size_t>(j)][d]);
          high = std::max(high, k[static_cast<std::size_t>(j)][d]);
        }
        sum += std::max(q.of(g, 0)[d] * -rounded_up_to_bf16(-low), q.of(g, 0)[d] * rounded_up_to_bf16(high));
      }
      best = std::max(best, sum);
    }
    bounds.push_back(p == all - 1 ? 1e300 : best);
  }
  auto const chosen = largest(bounds, pages);
  rows out;
  for (index g = 2 * h; g < 2 * h + 2; ++g) {
    row const w = softmax_row(q.of(g, 0), k, 1 / std::sqrt(static_cast<double>(dim)),
                              [&](index j) { return std::count(chosen.begin(), chosen.end(), static_cast<std::int32_t>(j / 64)) > 0; });
    row sum(static_cast<std::size_t>(dim));
    for (std::size_t j = 0; j < w.size(); ++j)
      for (std::size_t d = 0; d < sum.size(); ++d) sum[d] += w[j] * v[j][d];
    out.push_back(sum);
  }
  return out;
}

template <class K, class V>
void check_quest(double bound) {
  rng r(5);
  kv_cache<K, V> cache({.layers = 2, .kv_heads = kv_heads, .dim = dim});
  auto const s = cache.open();
  quest_state state(cache.shape());
  for (index tokens : {700, 1, 30, 1, 200, 1}) {
    head_rows k(r, kv_heads, tokens, dim, 1.5), v(r, kv_heads, tokens, dim), q(r, heads, 1, dim), out(heads, 1, dim);
    cache.append(cpu, s, 1, k.view(), v.view());
    for (index pages : {1, 3, 100}) {
      quest_attention(three_threads(), state, cache, s, 1, q.view(), out.view(), pages);
      for (index h = 0; h < kv_heads; ++h) {
        rows const want = want_of(q, keys_of(cache, s, h, 1), values_of(cache, s, h, 1), h, pages);
        CAPTURE(tokens, pages, h);
        CHECK(distance(want, {out.of(2 * h, 0), out.of(2 * h + 1, 0)}) <= bound);
      }
    }
  }
  cache.slide(cpu, s, 1, 0, 300);
  quest_state noticed = state;
  state.reset();
  head_rows q(r, heads, 1, dim), out(heads, 1, dim);
  quest_attention(cpu, state, cache, s, 1, q.view(), out.view(), 2);
  rows const want = want_of(q, keys_of(cache, s, 0, 1), values_of(cache, s, 0, 1), 0, 2);
  CHECK(distance(want, {out.of(0, 0), out.of(1, 0)}) <= bound);
  quest_attention(cpu, noticed, cache, s, 1, q.view(), out.view(), 2);
  CHECK(distance(want, {out.of(0, 0), out.of(1, 0)}) <= bound);
}

TEST_CASE("quest: attention over the pages with the largest bounds") {
  check_quest<float, float>(1e-5);
  check_quest<formats::keys8, formats::values8>(0.05);  // products of integers: attention/tile_kernels.hpp
}

TEST_CASE("quest: all pages are the whole cache, to the bit") {
  rng r(6);
  kv_cache<float> cache({.layers = 1, .kv_heads = kv_heads, .dim = dim});
  auto const s = cache.open();
  quest_state state(cache.shape());
  head_rows k(r, kv_heads, 500, dim), v(r, kv_heads, 500, dim), q(r, heads, 1, dim), out(heads, 1, dim), whole(heads, 1, dim);
  cache.append(cpu, s, 0, k.view(), v.view());
  quest_attention(cpu, state, cache, s, 0, q.view(), out.view(), 8);
  attention(cpu, q.view().expanded(), cache.keys(s, 0), cache.values(s, 0), whole.view().expanded());
  CHECK(out.x == whole.x);
}

#if TERN_EXCEPTIONS
TEST_CASE("quest: wrong calls are refused") {
  rng r(7);
  kv_cache<float> cache({.layers = 1, .kv_heads = kv_heads, .dim = dim});
  auto const s = cache.open();
  quest_state state(cache.shape());
  head_rows k(r, kv_heads, 100, dim), q(r, heads, 2, dim), out(heads, 2, dim);
  cache.append(cpu, s, 0, k.view(), k.view());
  auto const said = [&](tensor_view<float, 3> const& x, index pages) {
    return message_of([&] { quest_attention(cpu, state, cache, s, 0, x, out.view(), pages); });
  };
  CHECK(said(q.view(), 2) == "quest_attention: q.extent(1) is 2, expected one token = 1");
  CHECK(said(q.view().slice(1, 0, 1), 0) == "quest_attention: pages is 0, expected at least 1");
}
#endif

}  // namespace
}  // namespace tern::test

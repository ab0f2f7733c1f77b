// SPDX-License-Identifier: Apache-2.0
// Weights that keys of a cache get, in all formats, for few and for many queries, against the sums of their definition in float64.
#include "catch.hpp"
#include "compare.hpp"

#include <tern/cache/kv_cache.hpp>
#include <tern/cache/observed_weights.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace tern::test {
namespace {

constexpr index heads = 4, kv_heads = 2, group = heads / kv_heads, dim = 32;

/// By how much scores may be off: what the tiles of a format round of q (attention/tile_kernels.hpp, two_bit_kernels.hpp), where queries
/// are few. `most_k`: the largest element of a head's keys, between whose extremes a channel's codes lie.
template <class K>
double score_error(float const* q, std::vector<float> const& key, double most_k) {
  double most_q = 0, sum = 0;
  for (index d = 0; d < dim; ++d) {
    most_q = std::max(most_q, std::abs(static_cast<double>(q[d])));
    sum += std::abs(static_cast<double>(key[static_cast<std::size_t>(d)]));
  }
  if constexpr (std::is_same_v<K, formats::keys8> || std::is_same_v<K, formats::keys4>)
    return most_q / 254 * sum / std::sqrt(static_cast<double>(dim));
  else if constexpr (std::is_same_v<K, formats::keys2>)
    return most_q / 254 * 2 * most_k * std::sqrt(static_cast<double>(dim));
  else
    return 0;
}

/// What products of bf16 round of q and k.
double bf16_error(float const* q, std::vector<float> const& key) {
  double sum = 0;
  for (std::size_t d = 0; d < dim; ++d) sum += std::abs(static_cast<double>(q[d]) * static_cast<double>(key[d]));
  return 0x1p-7 * sum / std::sqrt(static_cast<double>(dim));
}

template <class K, class V, class Products = float>
struct observed {
  kv_cache<K, V> cache{{.layers = 1, .kv_heads = kv_heads, .dim = dim}};
  std::int32_t s = cache.open();
  rng r{901};

  /// Heads with tokens of their own: the first loses all of page 1 and a few more.
  explicit observed(index tokens) {
    std::vector<float> const x = r.normal<float>(kv_heads * tokens * dim);
    cache.append(cpu, s, 0, view(x.data(), kv_heads, tokens, dim), view(x.data(), kv_heads, tokens, dim));
    std::vector<std::int32_t> ids(static_cast<std::size_t>(kv_heads * tokens)), counts(kv_heads);
    for (index h = 0; h < kv_heads; ++h)
      for (std::int32_t t = 0; t < tokens; ++t)
        if (h == 1 || t / 64 != 1 || t % 64 == 9) ids[static_cast<std::size_t>(h * tokens + counts[static_cast<std::size_t>(h)]++)] = t;
    cache.keep(cpu, s, 0, {view(ids.data(), kv_heads, tokens), view(counts)});
  }
  std::vector<float> weights(cpu_policy const& policy, std::vector<float> const& q, index queries) const {
    index const keys = cache.longest(s, 0);
    guarded<float> w(kv_heads * keys);
    observed_weights(policy, view(q.data(), heads, queries, dim), cache.keys(s, 0), view(w.data(), kv_heads, keys), products<Products>{});
    CHECK(w.intact());
    return {w.data(), w.data() + kv_heads * keys};
  }
  void check(index queries) {
    std::vector<float> const q = r.normal<float>(heads * queries * dim);
    static thread_pool pool(3);
    std::vector<float> const got = weights(cpu.on(serial), q, queries), again = weights(cpu.on(pool), q, queries);
    CHECK(std::memcmp(got.data(), again.data(), got.size() * sizeof(float)) == 0);
    for (index h = 0; h < kv_heads; ++h) check_head(h, q, queries, got.data() + h * cache.longest(s, 0));
  }

 private:
  void check_head(index h, std::vector<float> const& q, index queries, float const* got) const {
    index const keys = cache.longest(s, 0), count = cache.length(s, 0, h);
    bool const few = queries * group <= tern::detail::query_stream_rows;
    std::vector<std::vector<float>> key(static_cast<std::size_t>(count), std::vector<float>(dim));
    double most = 0;
    for (index j = 0; j < count; ++j) cache.read_key(s, 0, h, j, key[static_cast<std::size_t>(j)].data());
    for (auto const& row : key)
      for (float x : row) most = std::max(most, std::abs(static_cast<double>(x)));
    std::vector<double> want(key.size()), error = want;
    for (index g = h * group; g < (h + 1) * group; ++g)
      for (index i = 0; i < queries; ++i) {
        float const* const x = q.data() + (g * queries + i) * dim;
        std::vector<double> p(static_cast<std::size_t>(count - queries + i + 1));
        double sum = 0, off = 0;
        for (std::size_t j = 0; j < p.size(); ++j) {
          double score = 0;
          for (std::size_t d = 0; d < dim; ++d) score += static_cast<double>(x[d]) * static_cast<double>(key[j][d]);
          sum += p[j] = std::exp(score / std::sqrt(static_cast<double>(dim)));
          // Few queries meet keys as they are stored: of bf16 alone as such.
          if (few && !(std::is_same_v<Products, bf16> && std::is_same_v<K, bf16>))
            off = std::max(off, score_error<K>(x, key[j], most));
          else if (std::is_same_v<Products, bf16>)
            off = std::max(off, bf16_error(x, key[j]));
        }
        double const share = 1. / static_cast<double>(group * queries);
        for (std::size_t j = 0; j < p.size(); ++j) {
          want[j] += share * p[j] / sum;
          error[j] += share * p[j] / sum * (std::expm1(2 * off) + 1e-5);  // the log-sum-exp is off too
        }
      }
    index wrong = 0;
    for (index j = 0; j < count; ++j) {
      auto const at = static_cast<std::size_t>(j);
      wrong += !(std::abs(static_cast<double>(got[j]) - want[at]) <= error[at]);
    }
    for (index j = count; j < keys; ++j) wrong += got[j] != -std::numeric_limits<float>::infinity();
    CAPTURE(h, queries, count);
    CHECK(wrong == 0);
  }
};

TEMPLATE_TEST_CASE("observed weights: pages of rows, of blocks, of tiles", "", float, bf16, formats::q8_0, formats::keys8, formats::keys4,
                   formats::keys2) {
  using value = std::conditional_t<page_format<TestType>::granule == 1, TestType, float>;
  for (index tokens : {64, 1344}) {
    observed<TestType, value> o(tokens);
    for (index queries : {1, 5, 40})
      if (queries < o.cache.length(o.s, 0, 0)) o.check(queries);
  }
}

TEMPLATE_TEST_CASE("observed weights: products of bf16, as the prompt's attention may have them", "", f16, bf16, formats::keys8) {
  for (index tokens : {200, 1344}) {
    observed<TestType, float, bf16> o(tokens);
    for (index queries : {1, 40, 130})
      if (queries < o.cache.length(o.s, 0, 0)) o.check(queries);
  }
}

TEST_CASE("observed weights: errors are those of the call") {
  observed<float, float> o(64);
  std::vector<float> const q = o.r.normal<float>(heads * dim);
  std::vector<float> w(static_cast<std::size_t>(heads * 64));
  CHECK_THROWS_AS(observed_weights(cpu, view(q.data(), heads, 1, dim), o.cache.keys(o.s, 0), view(w.data(), heads, 64)), error);
  CHECK_THROWS_AS(observed_weights(cpu, view(q.data(), heads, 1, dim), o.cache.keys(o.s, 0), view(w.data(), kv_heads, 63)), error);
  CHECK_THROWS_AS(observed_weights(cpu, view(q.data(), heads, 1, dim / 2), o.cache.keys(o.s, 0), view(w.data(), kv_heads, 64)), error);
}

}  // namespace
}  // namespace tern::test

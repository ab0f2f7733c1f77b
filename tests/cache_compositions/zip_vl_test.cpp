// SPDX-License-Identifier: Apache-2.0
#include "layer.hpp"

#include <tern/cache/methods/zip_vl.hpp>

namespace tern::test::zip_vl_tests {
namespace {

constexpr index heads = 4, kv_heads = 2, dim = 32, tokens = 230;

struct prompt {
  head_rows q, k, v, probes;
  std::vector<std::int32_t> places;
  std::vector<float> n;
  explicit prompt(rng& r)
      : q(r, heads, tokens, dim, 3), k(r, kv_heads, tokens, dim), v(r, kv_heads, tokens, dim), probes(heads, 20, dim), n(tokens) {
    for (std::int32_t i = 0; i < 20; ++i) places.push_back(i < 10 ? 7 + 19 * i : tokens - 20 + i);  // some anywhere, and the latest
    for (index h = 0; h < heads; ++h)
      for (index i = 0; i < 20; ++i)
        for (index d = 0; d < dim; ++d) probes.view()(h, i, d) = q.view()(h, places[static_cast<std::size_t>(i)], d);
  }
  tensor_view<float const, 1> scores() const { return {n.data(), shape<1>{{tokens}}}; }
  /// By the definition: the number of important tokens, and n.
  std::pair<index, row> want(double tau) const {
    row a(tokens, 0), by_count = a;
    for (index g = 0; g < heads; ++g)
      for (index i = 0; i < 20; ++i) {
        row const w = softmax_row(probes.of(g, i), k.of(g / 2), 1 / std::sqrt(32.),
                                  [&](index j) { return j <= places[static_cast<std::size_t>(i)]; });
        for (std::size_t j = 0; j < tokens; ++j) a[j] += w[j] / 80;
      }
    for (index j = 0; j < tokens; ++j) {
      auto const see = std::count_if(places.begin(), places.end(), [&](std::int32_t at) { return at >= j; });
      by_count[static_cast<std::size_t>(j)] = a[static_cast<std::size_t>(j)] / static_cast<double>(see);
    }
    by_count.back() = HUGE_VAL;
    std::sort(a.begin(), a.end(), std::greater<>());
    double sum = 0;
    index p = 0;
    while (p < tokens && sum < tau * (1 - 1e-9)) sum += a[static_cast<std::size_t>(p++)];
    return {p, by_count};
  }
};

TEST_CASE("zip_vl: each layer finds its important tokens, which attend to each other") {
  rng r(61);
  prompt x(r);
  index last = 0;
  for (double tau : {0., 0.5, 0.9, 0.975, 1.}) {
    auto const [p, n] = x.want(tau);
    CHECK(zip_vl_rank(three_threads(), x.probes.view(), tern::view(x.places), x.k.view(), tau, tern::view(x.n.data(), tokens)) == p);
    CHECK(p >= last);
    last = p;
    for (std::size_t j = 0; j + 1 < tokens; ++j) CHECK(std::abs(static_cast<double>(x.n[j]) - n[j]) < 1e-5 * n[j] + 1e-9);
    auto const important = largest(n, p);
    outputs to(heads, tokens, dim);
    zip_vl_attention(three_threads(), x.q.view(), x.k.view(), x.v.view(), x.scores(), p, to.out_view());
    auto const listed = [&](index j) { return std::binary_search(important.begin(), important.end(), j); };
    by_rows const want(
        x.q, [&](index g) { return x.k.of(g / 2); }, [&](index g) { return x.v.of(g / 2); }, 1 / std::sqrt(32.),
        [&](index, index i, index j) { return listed(j) && j <= i; });
    int wrong = 0;
    for (index g = 0; g < heads; ++g)
      for (index i = 0; i < tokens; ++i)
        for (index d = 0; d < dim; ++d) {
          auto const at = static_cast<std::size_t>((g * tokens + i) * dim + d);
          float const got = to.out.span()[at];
          if (listed(i))
            wrong += !(std::abs(static_cast<double>(got) - want.out[at]) <= 0x1p-24 * want.magnitude[at]);
          else
            wrong += got == got;  // written
        }
    CHECK(wrong == 0);
  }
  CHECK(last == tokens);
  CHECK(message_of([&] {
          zip_vl_rank(cpu, x.probes.view(), tern::view(x.places), x.k.view().slice(1, 0, 229), 0.5, tern::view(x.n.data(), index{229}));
        }) == "zip_vl_rank: the last of places is 229, expected the last token of k");
  CHECK(message_of([&] { zip_vl_rank(cpu, x.probes.view(), tern::view(x.places), x.k.view(), 1.5, tern::view(x.n.data(), tokens)); }) ==
        "tokens_for_share: share in percent is 150, expected 0 to 100");
}

TEST_CASE("causal_at, among_listed, tokens_for_share: edges and wrong calls") {
  rng r(63);
  head_rows q(r, 2, 3, 8), k(r, 1, 20, 8);
  outputs to(2, 3, 8);
  std::int32_t places[] = {0, 7, 30};  // the last one sees all
  attention(cpu, q.view(), k.view(), k.view(), to.out_view(), causal_at{tern::view(places)}, log_sum_exp{to.lse_view()});
  to.check({q, [&](index) { return k.of(0); }, [&](index) { return k.of(0); }, 1 / std::sqrt(8.),
            [&](index, index i, index j) { return j <= places[i]; }});
  places[1] = 0;
  auto const call = [&](auto const& option) { attention(cpu, q.view(), k.view(), k.view(), to.out_view(), option); };
  CHECK(message_of([&] { call(causal_at{tern::view(places)}); }) ==
        "attention: a place of causal_at is 0, expected more than the one before");
  CHECK(message_of([&] { call(causal_at{tern::view(places).slice(0, 0, 2)}); }) ==
        "attention: the extent of causal_at's places is 2, expected the tokens of q = 3");
  CHECK(message_of([&] { call(among_listed{tern::view(places)}); }) == "attention: the tokens of q is 3, expected the keys of k = 20");
  float weights[20];
  places[1] = 7;
  probe_weights(cpu, q.view(), tern::view(places), k.view(), tern::view(weights));
  double sum = 0;
  for (float w : weights) sum += static_cast<double>(w);
  CHECK(std::abs(sum - 1) < 1e-6);
  float const some[] = {0, 3, 1, 3, 0, 1};
  for (int share = 0; share <= 10; ++share) {
    index least = 0;
    double const sums[] = {0, 3, 6, 7, 8};
    while (sums[least] < 0.8 * share - 1e-9) ++least;
    CHECK(tokens_for_share(tern::view(some), share / 10.) == least);
  }
}

TEST_CASE("zip_vl: a cache in two precisions") {
  rng r(62);
  prompt x(r);
  index const p = zip_vl_rank(cpu, x.probes.view(), tern::view(x.places), x.k.view(), 0.7, tern::view(x.n.data(), tokens));
  REQUIRE((p > 20 && p < 150));
  kv_cache<float> high({.layers = 1, .kv_heads = kv_heads, .dim = dim});
  kv_cache<formats::keys2, formats::values2> low({.layers = 1, .kv_heads = kv_heads, .dim = dim});
  auto const t = high.open(), u = low.open();
  zip_vl_store(three_threads(), x.k.view(), x.v.view(), x.scores(), p, high, t, low, u, 0);
  head_rows const late_k(r, kv_heads, 2, dim), late_v(r, kv_heads, 2, dim);
  head_rows k2 = late_k, v2 = late_v, q(r, heads, 2, dim);
  high.append(cpu, t, 0, k2.view(), v2.view());
  index const stored = tokens - (tokens - p) / 64 * 64;
  CHECK((low.length(u, 0) == tokens - stored && high.length(t, 0) == stored + 2 && low.length(u, 0) >= 64));
  row scores(x.n.begin(), x.n.end());
  auto const important = largest(scores, stored);
  for (index h = 0; h < kv_heads; ++h) {
    auto const positions = high.positions(t, 0, h);
    CHECK(std::equal(important.begin(), important.end(), positions.data()));
    CHECK((positions[stored] == tokens && positions[stored + 1] == tokens + 1));
  }
  // Against the keys and values as stored: those of important tokens to the bit, the others near.
  auto const all = [&](rows a, rows const& b) {
    a.insert(a.begin(), b.begin(), b.end());
    return a;
  };
  std::size_t const others = static_cast<std::size_t>(tokens - stored);
  auto const keys = [&](index g) { return all(keys_of(high, t, g / 2), keys_of(low, u, g / 2)); };
  auto const values = [&](index g) { return all(values_of(high, t, g / 2), values_of(low, u, g / 2)); };
  rows const first = keys(0);
  CHECK(rows(first.end() - 2, first.end()) == late_k.of(0));
  CHECK(first[others] == x.k.of(0, important[0]));
  by_rows const want(q, keys, values, 1 / std::sqrt(32.), [&](index, index i, index j) { return j <= tokens + i; });
  outputs to(heads, 2, dim), again(heads, 2, dim);
  zip_vl_decode(three_threads(), q.view(), high, t, low, u, 0, to.out_view(), to.lse_view());
  zip_vl_decode(cpu.on(serial), q.view(), high, t, low, u, 0, again.out_view(), again.lse_view());
  CHECK(again.all() == to.all());
  double worst = 0, size = 0;
  for (std::size_t i = 0; i < want.out.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(to.out.span()[i]) - want.out[i]));
    size = std::max(size, std::abs(want.out[i]));
  }
  CHECK(worst < 0.02 * size);  // tiles multiply queries and weights in 8 bits
  // All important: attention over the cache as it is.
  auto const t2 = high.open(), u2 = low.open();
  zip_vl_store(cpu, x.k.view(), x.v.view(), x.scores(), tokens, high, t2, low, u2, 0);
  zip_vl_decode(cpu, q.view(), high, t2, low, u2, 0, to.out_view(), to.lse_view());
  attention(cpu, q.view(), high.keys(t2, 0), high.values(t2, 0), again.out_view(), log_sum_exp{again.lse_view()}, causal{});
  CHECK(again.all() == to.all());
}

}  // namespace
}  // namespace tern::test::zip_vl_tests

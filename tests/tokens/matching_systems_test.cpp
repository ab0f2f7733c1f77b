// SPDX-License-Identifier: Apache-2.0
#include <tern/tokens/systems/aim.hpp>
#include <tern/tokens/systems/diffrate.hpp>
#include <tern/tokens/systems/pyra.hpp>
#include <tern/tokens/systems/tome.hpp>
#include <tern/tokens/systems/turbo.hpp>

#include "samples.hpp"

namespace tern::test {
namespace {

using rows = std::vector<std::vector<double>>;  // tokens of doubles

template <class T>
rows rows_of(token_tensor<T> const& x, index b) {
  rows r;
  for (index i = 0; i < x.view.extent(1); ++i) r.push_back(widened(x.token(b, i)));
  return r;
}
double dot(std::vector<double> const& a, std::vector<double> const& b) { return std::inner_product(a.begin(), a.end(), b.begin(), 0.0); }
double cosine(std::vector<double> const& a, std::vector<double> const& b) { return dot(a, b) / std::sqrt(dot(a, a) * dot(b, b)); }

struct edge {
  double value;
  std::size_t from, to;
};
/// ToMe's pairs by definition, without the first token where it is protected. The inputs are such that no two values are near each other.
std::vector<edge> pairs_of(rows const& m, std::size_t r, bool class_token, std::vector<double> const& penalty = {}) {
  std::vector<edge> edges;
  for (std::size_t a = class_token ? 2 : 0; a < m.size(); a += 2) {
    edge best{-2, a, 0};
    for (std::size_t b = 1; b < m.size(); b += 2)
      if (cosine(m[a], m[b]) > best.value) best = {cosine(m[a], m[b]), a, b};
    if (best.value > -2) edges.push_back({best.value - (penalty.empty() ? 0 : penalty[a]), a, best.to});
  }
  std::stable_sort(edges.begin(), edges.end(), [](edge const& x, edge const& y) { return x.value > y.value; });
  edges.resize(std::min(r, edges.size()));
  return edges;
}
/// Where tokens go: those that are not merged keep their order.
ids map_of(std::vector<edge> const& pairs, std::size_t tokens) {
  ids to(tokens, 0);
  for (edge const& e : pairs) to[e.from] = -1;
  std::int32_t count = 0;
  for (auto& t : to)
    if (t == 0) t = count++;
  for (edge const& e : pairs) to[e.from] = to[e.to];
  return to;
}
/// Means by a map; the magnitude is the mean of absolute values.
struct averaged {
  rows value, magnitude;
  std::vector<double> sizes;
  averaged(rows const& x, ids const& to, std::vector<double> const& s) {
    auto const count = static_cast<std::size_t>(1 + *std::max_element(to.begin(), to.end()));
    value.assign(count, std::vector<double>(x[0].size()));
    magnitude = value;
    sizes.assign(count, 0);
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (to[i] < 0) continue;
      auto const j = static_cast<std::size_t>(to[i]);
      sizes[j] += s[i];
      for (std::size_t c = 0; c < x[i].size(); ++c) {
        value[j][c] += s[i] * x[i][c];
        magnitude[j][c] += std::abs(s[i] * x[i][c]);
      }
    }
    for (std::size_t j = 0; j < count; ++j)
      for (std::size_t c = 0; c < value[j].size(); ++c) {
        value[j][c] /= sizes[j];
        magnitude[j][c] /= sizes[j];
      }
  }
};
template <class T>
void check_rows(token_tensor<T> const& y, index b, averaged const& want, double tolerance) {
  for (std::size_t j = 0; j < want.value.size(); ++j)
    CHECK(compare(y.view[b][static_cast<index>(j)], std::span<double const>(want.value[j]), std::span<double const>(want.magnitude[j]),
                  tolerance));
}
std::vector<float> random_sizes(rng& r, index n) {
  std::vector<float> s;
  for (index i = 0; i < n; ++i) s.push_back(static_cast<float>(r.integer(1, 6)));
  return s;
}

}  // namespace

TEST_CASE("tome: the most similar tokens become one", "[tokens]") {
  rng r(51);
  index const samples = 2, tokens = 25, dim = 12, channels = 20;
  token_tensor<float> const m(r, samples, tokens, dim);
  token_tensor<f16> const x(r, samples, tokens, channels);
  auto const sizes = random_sizes(r, samples * tokens);
  for (index count : {0, 3, 12}) {
    token_tensor<f16> y(samples, tokens, channels);
    std::vector<float> merged(sizes.size(), -1.f);
    own_map map(samples, tokens);
    tome(cpu.on(several_threads()), m.view, count, {.always = {1}}, map.view, tern::view(sizes.data(), samples, tokens),
         tern::view(merged.data(), samples, tokens), moved{x.view, y.view});
    for (index b = 0; b < samples; ++b) {
      ids const to = map_of(pairs_of(rows_of(m, b), static_cast<std::size_t>(count), true), static_cast<std::size_t>(tokens));
      CHECK(map.row(b) == to);
      std::vector<double> s(sizes.begin() + b * tokens, sizes.begin() + (b + 1) * tokens);
      averaged const want(rows_of(x, b), to, s);
      check_rows(y, b, want, 0x1p-24 * 16);
      for (std::size_t j = 0; j < want.sizes.size(); ++j)
        CHECK(static_cast<double>(merged[static_cast<std::size_t>(b * tokens) + j]) == want.sizes[j]);
      if (count == 0)
        for (index i = 0; i < tokens; ++i) CHECK(same_bits(y.token(b, i), x.token(b, i)));
    }
  }
}

TEST_CASE("turbo: what the class token looks at is merged last; without a weight it is ToMe", "[tokens]") {
  rng r(52);
  index const tokens = 21, dim = 10, count = 5;
  token_tensor<float> const m(r, 1, tokens, dim);
  std::vector<float> received(static_cast<std::size_t>(tokens));
  for (float& e : received) e = static_cast<float>(r.uniform());
  auto const a = tern::view(received.data(), 1, tokens);
  own_map map(1, tokens), plain(1, tokens);
  token_tensor<float> y(1, tokens, dim), z(1, tokens, dim);
  turbo(cpu, m.view, a, 2.f, count, {.always = {1}}, map.view, {}, {}, moved{m.view, y.view});
  std::vector<double> penalty;
  for (float e : received) penalty.push_back(2 * static_cast<double>(e));
  CHECK(map.row(0) == map_of(pairs_of(rows_of(m, 0), count, true, penalty), static_cast<std::size_t>(tokens)));
  turbo(cpu, m.view, a, 0.f, count, {.always = {1}}, map.view, {}, {}, moved{m.view, y.view});
  tome(cpu, m.view, count, {.always = {1}}, plain.view, {}, {}, moved{m.view, z.view});
  CHECK(map.row(0) == plain.row(0));
  for (index j = 0; j < tokens - count; ++j) CHECK(same_bits(y.token(0, j), z.token(0, j)));
}

TEST_CASE("pyra: what is merged away is modulated; zero weights equal plain merging", "[tokens]") {
  rng r(53);
  index const samples = 2, tokens = 19, channels = 24, count = 6;
  token_tensor<float> const x(r, samples, tokens, channels);
  auto const u = r.normal(count, 0.3), v = r.normal(channels, 0.3), gain = r.normal(channels), bias = r.normal(channels);
  auto const sizes = random_sizes(r, samples * tokens);
  auto const s = tern::view(sizes.data(), samples, tokens);
  token_tensor<float> y(samples, tokens, channels), z(samples, tokens, channels);
  own_map map(samples, tokens), plain(samples, tokens);
  pyra_weights weights{tern::view(u), tern::view(v), tern::view(gain), tern::view(bias)};
  pyra(cpu, x.view, weights, {.always = {1}}, map.view, s, {}, x.view, y.view);
  for (index b = 0; b < samples; ++b) {
    rows tokens_of = rows_of(x, b);
    rows const before = tokens_of;
    auto const pairs = pairs_of(before, count, true);
    rows p;
    for (edge const& e : pairs) {
      std::vector<double> sum(before[0].size());
      for (std::size_t c = 0; c < sum.size(); ++c) sum[c] = before[e.from][c] + before[e.to][c];
      double const mean = std::accumulate(sum.begin(), sum.end(), 0.0) / static_cast<double>(channels);
      double square = 0;
      for (double d : sum) square += (d - mean) * (d - mean) / static_cast<double>(channels);
      for (std::size_t c = 0; c < sum.size(); ++c)
        sum[c] = (sum[c] - mean) / std::sqrt(square + 1e-5) * static_cast<double>(gain[c]) + static_cast<double>(bias[c]);
      p.push_back(sum);
    }
    auto const sigmoid = [](double t) { return 1 / (1 + std::exp(-t)); };
    std::vector<double> w1(before[0].size());
    for (std::size_t k = 0; k < p.size(); ++k)
      for (std::size_t c = 0; c < w1.size(); ++c) w1[c] += static_cast<double>(u[k]) * p[k][c];
    for (std::size_t k = 0; k < p.size(); ++k) {
      double const w2 = 2 * sigmoid(dot(p[k], widened(v))) - 1;
      for (std::size_t c = 0; c < w1.size(); ++c) tokens_of[pairs[k].from][c] += before[pairs[k].from][c] * 2 * sigmoid(w1[c]) * w2;
    }
    ids const to = map_of(pairs, static_cast<std::size_t>(tokens));
    CHECK(map.row(b) == to);
    averaged const want(tokens_of, to, std::vector<double>(sizes.begin() + b * tokens, sizes.begin() + (b + 1) * tokens));
    check_rows(y, b, want, 0x1p-24 * 400);  // sums of 24 normed numbers of up to 8, in two sigmoids of slope 1/2
  }
  std::vector<float> const zero(static_cast<std::size_t>(channels));
  weights.v = tern::view(zero);
  pyra(cpu, x.view, weights, {.always = {1}}, map.view, s, {}, x.view, y.view);
  tome(cpu, x.view, count, {.always = {1}}, plain.view, s, {}, moved{x.view, z.view});
  for (index b = 0; b < samples; ++b)
    for (index j = 0; j < tokens - count; ++j) CHECK(same_bits(y.token(b, j), z.token(b, j)));
  CHECK(map.memory == plain.memory);
}

TEST_CASE("diffrate: the least important are dropped, the next merged into what they resemble", "[tokens]") {
  rng r(54);
  index const samples = 2, tokens = 30, channels = 16, pruned = 22, merged = 13;
  token_tensor<float> const x(r, samples, tokens, channels);
  std::vector<float> received(static_cast<std::size_t>(samples * tokens));
  for (float& e : received) e = static_cast<float>(r.uniform());
  auto const a = tern::view(received.data(), samples, tokens);
  auto const sizes = random_sizes(r, samples * tokens);
  auto const s = tern::view(sizes.data(), samples, tokens);
  token_tensor<float> y(samples, tokens, channels);
  std::vector<float> merged_sizes(sizes.size());
  auto const ms = tern::view(merged_sizes.data(), samples, tokens);
  own_map map(samples, tokens);
  diffrate(cpu, x.view, a, pruned, merged, map.view, s, ms, y.view);
  for (index b = 0; b < samples; ++b) {
    rows const t = rows_of(x, b);
    ids order;
    for (std::int32_t i = 1; i < tokens; ++i) order.push_back(i);
    std::sort(order.begin(), order.end(), [&](std::int32_t i, std::int32_t j) { return a(b, i) > a(b, j); });
    order.insert(order.begin(), 0);
    ids const stay(order.begin(), order.begin() + merged);
    ids to(static_cast<std::size_t>(tokens), -1);
    std::int32_t count = 0;
    for (std::int32_t i = 0; i < tokens; ++i)
      if (std::find(stay.begin(), stay.end(), i) != stay.end()) to[static_cast<std::size_t>(i)] = count++;
    std::vector<double> sums(static_cast<std::size_t>(merged));
    for (std::int32_t i : stay) sums[static_cast<std::size_t>(to[static_cast<std::size_t>(i)])] += static_cast<double>(s(b, i));
    for (index e = merged; e < pruned; ++e) {
      auto const from = static_cast<std::size_t>(order[static_cast<std::size_t>(e)]);
      edge best{-2, from, 0};
      for (std::int32_t j : stay)
        if (j > 0 && cosine(t[from], t[static_cast<std::size_t>(j)]) > best.value)
          best = {cosine(t[from], t[static_cast<std::size_t>(j)]), from, static_cast<std::size_t>(j)};
      to[from] = to[best.to];
      sums[static_cast<std::size_t>(to[from])] += static_cast<double>(sizes[static_cast<std::size_t>(b * tokens) + from]) * best.value;
    }
    CHECK(map.row(b) == to);
    check_rows(y, b, averaged(t, to, std::vector<double>(static_cast<std::size_t>(tokens), 1.)), 0x1p-24 * 16);
    for (index j = 0; j < merged; ++j)
      CHECK(std::abs(static_cast<double>(ms(b, j)) - sums[static_cast<std::size_t>(j)]) <= 0x1p-24 * 64 * 30);
  }
  diffrate(cpu, x.view, a, tokens, tokens, map.view, s, ms, y.view);
  for (index b = 0; b < samples; ++b)
    for (index i = 0; i < tokens; ++i) CHECK((same_bits(y.token(b, i), x.token(b, i)) && ms(b, i) == s(b, i)));
}

TEST_CASE("aim_merge: rounds of matching until few are left", "[tokens]") {
  rng r(55);
  index const samples = 2, tokens = 40, channels = 18;
  token_tensor<float> const x(r, samples, tokens, channels);
  for (index target : {40, 29, 20, 7, 1}) {
    token_tensor<float> y(samples, target, channels);
    own_map map(samples, tokens);
    aim_merge(cpu.on(several_threads()), x.view, target, map.view, y.view);
    CHECK(y.intact());
    for (index b = 0; b < samples; ++b) {
      rows now = rows_of(x, b);
      ids whole(now.size());
      std::iota(whole.begin(), whole.end(), 0);
      while (static_cast<index>(now.size()) > target) {
        std::size_t const count = std::min(now.size() / 2, now.size() - static_cast<std::size_t>(target));
        ids const to = map_of(pairs_of(now, count, false), now.size());
        now = averaged(now, to, std::vector<double>(now.size(), 1.)).value;
        for (auto& w : whole) w = to[static_cast<std::size_t>(w)];
      }
      CHECK(map.row(b) == whole);
      std::vector<double> const magnitude(static_cast<std::size_t>(channels), 4.);  // the largest of x
      for (std::size_t j = 0; j < now.size(); ++j)
        CHECK(compare(y.view[b][static_cast<index>(j)], std::span<double const>(now[j]), std::span<double const>(magnitude), 0x1p-24 * 32));
      if (target == tokens)
        for (index i = 0; i < tokens; ++i) CHECK(same_bits(y.token(b, i), x.token(b, i)));
    }
  }
}

TEST_CASE("systems on matching: wrong calls are refused by name", "[tokens]") {
  rng r(56);
  token_tensor<float> const x(r, 1, 8, 4);
  token_tensor<float> y(1, 8, 4);
  own_map map(1, 8);
  std::vector<float> numbers(8);
  auto const a = tern::view(numbers.data(), 1, 8);
  CHECK(message_of([&] { tome(cpu, x.view, -2, {}, map.view, {}, {}, moved{x.view, y.view}); }) ==
        "bipartite_matching: r is -2, expected at least 0");
  CHECK(message_of([&] { diffrate(cpu, x.view, a, 9, 3, map.view, {}, {}, y.view); }) ==
        "diffrate: pruned is 9, expected at most the tokens");
  CHECK(message_of([&] { diffrate(cpu, x.view, a, 5, 1, map.view, {}, {}, y.view); }) == "diffrate: merged is 1, expected 2 to pruned");
  CHECK(message_of([&] { aim_merge(cpu, x.view, 0, map.view, y.view); }) == "aim_merge: target is 0, expected 1 to the number of tokens");
  CHECK(message_of([&] { aim_merge(cpu, x.view, 4, map.view, y.view); }) == "aim_merge: y.extent(1) is 8, expected target = 4");
  CHECK(message_of([&] { turbo(cpu, x.view, tern::view(numbers.data(), 1, 7), 1.f, 2, {}, map.view, {}, {}, moved{x.view, y.view}); }) ==
        "turbo: received.extent(1) is 7, expected metric.extent(1) = 8");
  std::vector<float> const four(4), three(3);
  pyra_weights const weights{tern::view(four), tern::view(three), tern::view(four), tern::view(four)};
  CHECK(message_of([&] { pyra(cpu, x.view, weights, {}, map.view, {}, {}, x.view, y.view); }) ==
        "pyra: v, gain or bias.extent(0) is 3, expected x.extent(2) = 4");
  token_tensor<float> const longer(r, 1, 9, 4);
  CHECK(message_of([&] { pyra(cpu, longer.view, weights, {}, map.view, {}, {}, x.view, y.view); }) ==
        "pyra: metric.extent(1) is 9, expected x.extent(1) = 8");
  own_map small(1, 7);
  CHECK(message_of([&] { diffrate(cpu, x.view, a, 5, 3, small.view, {}, {}, y.view); }) ==
        "diffrate: the tokens of the map is 7, expected x.extent(1) = 8");
  CHECK(message_of([&] { diffrate(cpu, x.view, a, 5, 3, map.view, tern::view(numbers.data(), 1, 7), {}, y.view); }) ==
        "diffrate: sizes.extent(1) is 7, expected x.extent(1) = 8");
}

}  // namespace tern::test

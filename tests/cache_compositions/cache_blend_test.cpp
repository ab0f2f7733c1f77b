// SPDX-License-Identifier: Apache-2.0
#include "layer.hpp"

#include <tern/cache/methods/cache_craft.hpp>
#include <tern/cache/methods/lococo.hpp>

namespace tern::test::cache_blend_tests {
namespace {

constexpr index heads = 4, kv_heads = 2, dim = 16, dim_v = 12;

/// x at a position, in double: pairs of neighbors.
row rotated(row x, index position) {
  for (std::size_t i = 0; i < x.size(); i += 2) {
    double const angle = static_cast<double>(position) * std::pow(10000., -static_cast<double>(i) / static_cast<double>(x.size()));
    double const a = x[i], b = x[i + 1];
    x[i] = a * std::cos(angle) - b * std::sin(angle);
    x[i + 1] = b * std::cos(angle) + a * std::sin(angle);
  }
  return x;
}
head_rows rotated(head_rows x, index first) {
  for (index h = 0; h < x.heads; ++h)
    for (index t = 0; t < x.tokens; ++t) {
      row const to = rotated(x.of(h, t), first + t);
      for (index d = 0; d < x.dim; ++d) x.view()(h, t, d) = static_cast<float>(to[static_cast<std::size_t>(d)]);
    }
  return x;
}

TEST_CASE("append_chunk: keys turn to where the text now stands") {
  rng r(71);
  kv_cache<float> cache({.layers = 1, .kv_heads = kv_heads, .dim = dim, .dim_v = dim_v});
  std::vector<rows> keys(kv_heads), values(kv_heads);
  auto const s = cache.open();
  index first = 0;
  for (index tokens : {70, 3, 100}) {
    head_rows const k(r, kv_heads, tokens, dim), v(r, kv_heads, tokens, dim_v);
    head_rows at_home = rotated(k, 5), v2 = v;  // which was read from position 5 on
    auto const chunk = cache.open();
    std::vector<std::int32_t> places;
    for (std::int32_t i = 0; i < tokens; ++i) places.push_back(5 + i);
    cache.append(cpu, chunk, 0, at_home.view(), v2.view(), places);
    append_chunk(three_threads(), cache, chunk, 0, cache, s);
    for (index h = 0; h < kv_heads; ++h)
      for (index t = 0; t < tokens; ++t) {
        keys[static_cast<std::size_t>(h)].push_back(rotated(k.of(h, t), first + t));
        values[static_cast<std::size_t>(h)].push_back(v.of(h, t));
      }
    first += tokens;
  }
  for (index h = 0; h < kv_heads; ++h) {
    CHECK(distance(keys_of(cache, s, h), keys[static_cast<std::size_t>(h)]) < 1e-5);
    CHECK(values_of(cache, s, h) == values[static_cast<std::size_t>(h)]);
    for (index t = 0; t < 173; ++t) CHECK(cache.positions(s, 0, h)[t] == t);
  }
}

TEST_CASE("cache_blend: the tokens that differ most go on, over the mended cache") {
  rng r(72);
  for (index count : {12, 7, 60}) {
    CAPTURE(count);
    head_rows k(r, kv_heads, 150, dim), v(r, kv_heads, 150, dim_v), q(r, heads, 60, dim, 2), new_k(r, kv_heads, 60, dim),
        new_v(r, kv_heads, 60, dim_v);
    kv_cache<float> cache({.layers = 1, .kv_heads = kv_heads, .dim = dim, .dim_v = dim_v});
    auto const s = cache.open();
    cache.append(cpu, s, 0, k.view(), v.view());
    auto const same = cache.fork(s);
    std::vector<std::int32_t> places, chosen(static_cast<std::size_t>(count));
    for (std::int32_t i = 0; i < 60; ++i) places.push_back(i < 55 ? 2 * i + 3 : 90 + i);  // 5 of a question at the end
    row delta(60, 0);
    std::vector<rows> mended_k, mended_v;
    for (index h = 0; h < kv_heads; ++h) {
      rows of_k = k.of(h), of_v = v.of(h);
      for (index i = 0; i < 60; ++i) {
        auto const at = static_cast<std::size_t>(places[static_cast<std::size_t>(i)]);
        for (std::size_t d = 0; d < dim; ++d) delta[static_cast<std::size_t>(i)] += std::pow(of_k[at][d] - new_k.of(h, i)[d], 2);
        for (std::size_t d = 0; d < dim_v; ++d) delta[static_cast<std::size_t>(i)] += std::pow(of_v[at][d] - new_v.of(h, i)[d], 2);
        of_k[at] = new_k.of(h, i);
        of_v[at] = new_v.of(h, i);
      }
      mended_k.push_back(of_k);
      mended_v.push_back(of_v);
    }
    for (std::size_t i = 55; i < 60; ++i) delta[i] = 1e9;
    auto const want = largest(delta, count);
    outputs to(heads, count, dim_v), again(heads, count, dim_v);
    CHECK(cache_blend(three_threads(), cache, s, 0, tern::view(places), q.view(), new_k.view(), new_v.view(), count, 5, tern::view(chosen),
                      to.out_view(), to.lse_view()) == count);
    CHECK(chosen == want);
    for (index h = 0; h < kv_heads; ++h) {
      CHECK(keys_of(cache, s, h) == mended_k[static_cast<std::size_t>(h)]);
      CHECK(values_of(cache, s, h) == mended_v[static_cast<std::size_t>(h)]);
    }
    head_rows rows_of_q(heads, count, dim);
    for (index g = 0; g < heads; ++g)
      for (index i = 0; i < count; ++i)
        for (index d = 0; d < dim; ++d) rows_of_q.view()(g, i, d) = q.view()(g, want[static_cast<std::size_t>(i)], d);
    to.check({rows_of_q, [&](index g) { return mended_k[static_cast<std::size_t>(g / 2)]; },
              [&](index g) { return mended_v[static_cast<std::size_t>(g / 2)]; }, 1 / 4.,
              [&](index, index i, index j) { return j <= places[static_cast<std::size_t>(want[static_cast<std::size_t>(i)])]; }});
    cache_blend(cpu.on(serial), cache, same, 0, tern::view(places), q.view(), new_k.view(), new_v.view(), count, 5, tern::view(chosen),
                again.out_view(), again.lse_view());
    CHECK(again.all() == to.all());
    places[3] = places[2];
    CHECK(message_of([&] {
            cache_blend(cpu, cache, s, 0, tern::view(places), q.view(), new_k.view(), new_v.view(), count, 5, tern::view(chosen),
                        to.out_view(), to.lse_view());
          }) == "cache_blend: a place is 7, expected more than the one before it, 7");
  }
}

TEST_CASE("cache_craft: how much a text leans on others, and which tokens do") {
  rng r(73);
  std::int32_t const starts[] = {0, 40, 45, 45, 115, 145};
  head_rows q(r, heads, 30, dim, 2), k(r, kv_heads, 145, dim);
  std::vector<float> memory(30 * 5), scores(30);
  auto const masses = tern::view(memory.data(), index{30}, index{5});
  chunk_masses(three_threads(), q.view(), k.view(), tern::view(starts), masses);
  std::vector<row> want(30, row(5, 0));
  for (index g = 0; g < heads; ++g)
    for (index i = 0; i < 30; ++i) {
      row const w = softmax_row(q.of(g, i), k.of(g / 2), 1 / 4., [&](index j) { return j <= 115 + i; });
      for (std::size_t j = 0; j < 5; ++j)
        for (std::int32_t t = starts[j]; t < starts[j + 1]; ++t) want[static_cast<std::size_t>(i)][j] += w[static_cast<std::size_t>(t)] / 4;
    }
  row inter(5, 0), lean;
  double a = 0;
  for (std::size_t i = 0; i < 30; ++i) {
    for (std::size_t j = 0; j < 5; ++j) {
      CHECK(std::abs(want[i][j] - static_cast<double>(memory[i * 5 + j])) < 1e-5);
      inter[j] += want[i][j];
    }
    lean.push_back(want[i][0] + want[i][1] + want[i][2] + want[i][3]);
  }
  for (std::size_t j = 0; j < 4; ++j)
    if (starts[j + 1] > starts[j]) a += inter[j] / (30. * (starts[j + 1] - starts[j]));
  double const impact = 1 / (1 + std::exp(-a / (inter[4] / 900)));
  CHECK(std::abs(cache_craft_impact(masses, tern::view(starts)) - impact) < 1e-5);

  std::int32_t const before[] = {7, 3, 9, 4}, now[] = {4, 8, 7, 3};
  double const beta = (inter[0] + inter[1] + inter[3]) / (inter[0] + inter[1] + inter[2] + inter[3]);
  double const overlap = beta * (1 - 2 / 3.);  // 4 went before 7 and 3
  CHECK(std::abs(cache_craft_overlap(masses, tern::view(before), tern::view(now)) - overlap) < 1e-6);
  CHECK(cache_craft_overlap(masses, tern::view(before), tern::view(before)) == 1);
  CHECK(cache_craft_overlap(masses, tern::view(before), tern::view(now).slice(0, 1, 2)) == 0);
  CHECK(cache_craft_overlap(masses.slice(1, 4, 5), tern::view(before).slice(0, 0, 0), tern::view(now)) == 1);

  std::vector<std::int32_t> chosen(30);
  for (double alpha : {0., 0.5, 1., 100.}) {
    index const n = cache_craft_choose(masses, impact, overlap, alpha, tern::view(scores), tern::view(chosen));
    CHECK(n == std::min<index>(30, static_cast<index>(std::ceil(alpha * impact * (1 - overlap) * 30))));
    CHECK(std::vector<std::int32_t>(chosen.begin(), chosen.begin() + n) == largest(lean, n));
  }
  CHECK(message_of([&] { chunk_masses(cpu, q.view(), k.view().slice(1, 0, 144), tern::view(starts), masses); }) ==
        "chunk_masses: the last of starts is 145, expected k.extent(1) = 144");
}

TEST_CASE("lococo: a convolution mixes what is not kept") {
  for (auto const& [blend, relu] : {std::pair{0.5f, true}, {1.f, false}, {0.f, true}}) {
    CAPTURE(blend, relu);
    rng r(74);
    constexpr index slots = 10, width = 5, memory = 40, local = 6, channels = dim + dim_v;
    head_rows k(r, kv_heads, 100, dim), v(r, kv_heads, 100, dim_v), w(r, slots, width, channels, 0.2), b(r, 1, 1, slots);
    std::vector<float> scores;
    for (int i = 0; i < 200; ++i) scores.push_back(static_cast<float>(r.uniform()));
    kv_cache<float> cache({.layers = 1, .kv_heads = kv_heads, .dim = dim, .dim_v = dim_v});
    auto const s = cache.open();
    cache.append(cpu, s, 0, k.view(), v.view());
    auto const again = cache.fork(s);
    lococo_convolution const by{w.view(), tern::view(b.x.data(), slots), blend, relu};
    lococo(three_threads(), cache, s, 0, tern::view(scores.data(), kv_heads, index{100}), by, memory, local);
    for (index h = 0; h < kv_heads; ++h) {
      row score(scores.begin() + h * 100, scores.begin() + (h + 1) * 100), others;
      for (std::size_t j = 94; j < 100; ++j) score[j] += 10;
      auto const heavy = largest(score, memory - slots);
      std::vector<std::int32_t> rest, slot;
      for (std::int32_t j = 0; j < 100; ++j)
        if (!std::binary_search(heavy.begin(), heavy.end(), j)) {
          rest.push_back(j);
          others.push_back(score[static_cast<std::size_t>(j)]);
        }
      slot = largest(others, slots);
      auto const count = static_cast<index>(rest.size());
      rows x, keys = k.of(h), values = v.of(h);
      for (std::int32_t j : rest) {
        row both = k.of(h, j);
        for (double e : v.of(h, j)) both.push_back(e);
        x.push_back(both);
      }
      for (index m = 0; m < slots; ++m) {
        row weight(static_cast<std::size_t>(count), 0);
        double top = -1e300, sum = 0;
        for (index t = 0; t < count; ++t) {
          double y = static_cast<double>(b.x[static_cast<std::size_t>(m)]);
          for (index d = 0; d < width; ++d)
            if (t + d - 2 >= 0 && t + d - 2 < count) y += dot(x[static_cast<std::size_t>(t + d - 2)], w.of(m, d));
          weight[static_cast<std::size_t>(t)] = relu ? std::max(y, 0.) : y;
          top = std::max(top, weight[static_cast<std::size_t>(t)]);
        }
        for (double& e : weight) sum += e = std::exp(e - top);
        row mixed(channels, 0);
        for (index t = 0; t < count; ++t) {
          double const share = static_cast<double>(blend) * weight[static_cast<std::size_t>(t)] / sum +
                               (1 - static_cast<double>(blend)) * (t == slot[static_cast<std::size_t>(m)]);
          for (std::size_t d = 0; d < channels; ++d) mixed[d] += share * x[static_cast<std::size_t>(t)][d];
        }
        auto const at = static_cast<std::size_t>(rest[static_cast<std::size_t>(slot[static_cast<std::size_t>(m)])]);
        keys[at] = {mixed.begin(), mixed.begin() + dim};
        values[at] = {mixed.begin() + dim, mixed.end()};
      }
      std::vector<std::int32_t> kept = heavy;
      for (std::int32_t t : slot) kept.push_back(rest[static_cast<std::size_t>(t)]);
      std::sort(kept.begin(), kept.end());
      rows want_k, want_v;
      for (std::int32_t j : kept)
        want_k.push_back(keys[static_cast<std::size_t>(j)]), want_v.push_back(values[static_cast<std::size_t>(j)]);
      auto const positions = cache.positions(s, 0, h);
      CHECK(std::equal(kept.begin(), kept.end(), positions.data(), positions.data() + positions.extent(0)));
      double const allowed = blend == 0 ? 0 : 2e-5;  // without the mix, to the bit
      CHECK(distance(keys_of(cache, s, h), want_k) <= allowed);
      CHECK(distance(values_of(cache, s, h), want_v) <= allowed);
    }
    lococo(cpu.on(serial), cache, again, 0, tern::view(scores.data(), kv_heads, index{100}), by, memory, local);
    for (index h = 0; h < kv_heads; ++h) CHECK(keys_of(cache, again, h) == keys_of(cache, s, h));
    // Nothing to do, and nonsense.
    lococo(cpu, cache, again, 0, tern::view(scores.data(), kv_heads, index{40}), by, memory, local);
    for (index h = 0; h < kv_heads; ++h) CHECK(keys_of(cache, again, h) == keys_of(cache, s, h));
    CHECK(message_of([&] { lococo(cpu, cache, s, 0, tern::view(scores.data(), kv_heads, index{40}), by, 15, local); }) ==
          "lococo: memory is 15, expected at least the slots and local");
  }
}

}  // namespace
}  // namespace tern::test::cache_blend_tests

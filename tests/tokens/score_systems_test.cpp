// SPDX-License-Identifier: Apache-2.0
#include <tern/tokens/systems/ia_red2.hpp>
#include <tern/tokens/systems/paraformer.hpp>
#include <tern/tokens/systems/showui.hpp>
#include <tern/tokens/systems/simvlg.hpp>
#include <tern/tokens/systems/toc3d.hpp>

#include "dense.hpp"
#include "samples.hpp"

namespace tern::test {
namespace {

std::size_t at(index i) { return static_cast<std::size_t>(i); }

}  // namespace

TEMPLATE_TEST_CASE("ia_red2: patches that the policy token finds informative", "[tokens]", float, f16, bf16) {
  rng r(71);
  index const samples = 3, heads = 2, tokens = 40, dim = 6;
  auto const q = r.normal<TestType>(samples * heads * tokens * dim), k = r.normal<TestType>(samples * heads * dim);
  auto const qs = tern::view(q.data(), samples, heads, tokens, dim);
  auto const ks = tern::view(k.data(), samples, heads, dim);
  std::vector<float> scores(at(samples * tokens));
  auto const s = tern::view(scores.data(), samples, tokens);
  token_lists kept(samples, tokens);
  ia_red2(cpu, qs, ks, 0.5f, protect{1}, s, kept.view);
  for (index b = 0; b < samples; ++b) {
    ids want{0};
    for (index i = 0; i < tokens; ++i) {
      double sum = 0;
      for (index h = 0; h < heads; ++h) sum += 1 / (1 + std::exp(-inner(matrix_of(qs[b][h])[at(i)], matrix_of(ks[b])[at(h)]))) / heads;
      CHECK(std::abs(static_cast<double>(s(b, i)) - sum) <= 0x1p-24 * 64);
      if (i > 0 && s(b, i) > 0.5f) want.push_back(static_cast<std::int32_t>(i));
    }
    CHECK(kept.row(b) == want);
  }
  ia_red2(cpu, qs, ks, 0.f, protect{}, s, kept.view);
  for (index b = 0; b < samples; ++b) CHECK(kept.view.count(b) == tokens);
  CHECK(message_of([&] { ia_red2(cpu, qs, tern::view(k.data(), samples, heads, dim - 1), 0.5f, protect{}, s, kept.view); }) ==
        "ia_red2: k.extent(2) is 5, expected q.extent(3) = 6");
}

TEST_CASE("toc3d: scores, the slow path, and what the others get", "[tokens]") {
  rng r(72);
  index const samples = 2, tokens = 21, channels = 12, d = 8, queries = 5, count = 9;
  token_tensor<float> x(r, samples, tokens, channels);
  auto const project = r.normal(d * channels, 0.4), project_bias = r.normal(d), gather_w = r.normal(2 * queries), gather_bias = r.normal(2),
             history = r.normal(samples * queries * d);
  auto const hist = tern::view(history.data(), samples, queries, d);
  std::vector<float> scores(at(samples * tokens));
  auto const s = tern::view(scores.data(), samples, tokens);
  toc3d_scores(
      cpu, x.view,
      {tern::view(project.data(), d, channels), tern::view(project_bias), tern::view(gather_w.data(), 2, queries), tern::view(gather_bias)},
      hist, s);
  for (index b = 0; b < samples; ++b) {
    matrix e = product(matrix_of(x.view[b]), matrix_of(tern::view(project.data(), d, channels)));
    for (auto& row : e)
      for (std::size_t c = 0; c < row.size(); ++c) row[c] += static_cast<double>(project_bias[c]);
    matrix const a = each(product(e, matrix_of(hist[b])), [](double v) { return v / std::sqrt(8.0); });
    matrix const p = product(a, matrix_of(tern::view(gather_w.data(), 2, queries)));
    for (index i = 0; i < tokens; ++i) {
      double const p0 = p[at(i)][0] + static_cast<double>(gather_bias[0]), p1 = p[at(i)][1] + static_cast<double>(gather_bias[1]);
      double const want = p0 - std::max(p0, p1) - std::log(std::exp(p0 - std::max(p0, p1)) + std::exp(p1 - std::max(p0, p1)));
      CHECK(std::abs(static_cast<double>(s(b, i)) - want) <= 0x1p-24 * 40 * (1 + std::abs(p0) + std::abs(p1) + 20));
    }
  }
  token_lists kept(samples, tokens);
  own_map map(samples, tokens);
  token_tensor<float> slow(samples, count + 1, channels);
  toc3d_compress(cpu, x.view, s, count, kept.view, map.view, slow.view);
  CHECK(slow.intact());
  token_tensor<float> const done(r, samples, count + 1, channels);
  matrix before[2] = {matrix_of(x.view[0]), matrix_of(x.view[1])};
  for (index b = 0; b < samples; ++b) {
    ids order(at(tokens));
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](std::int32_t i, std::int32_t j) { return s(b, i) > s(b, j); });
    ids stay(order.begin(), order.begin() + count);
    std::sort(stay.begin(), stay.end());
    CHECK(kept.row(b) == stay);
    std::vector<double> rest(at(channels));
    double total = 0;
    for (index i = count; i < tokens; ++i) {
      std::int32_t const t = order[at(i)];
      total += static_cast<double>(s(b, t));
      for (std::size_t c = 0; c < rest.size(); ++c) rest[c] += static_cast<double>(s(b, t)) * before[b][at(t)][c];
    }
    for (double& e : rest) e /= total;
    CHECK(near(slow.view[b].slice(0, count, count + 1), {rest}, 4, 0x1p-24 * 32));
    for (index i = 0; i < count; ++i) CHECK(same_bits(slow.token(b, i), x.token(b, stay[at(i)])));
  }
  toc3d_restore(cpu, kept.view, map.view, slow.view, done.view, x.view);
  for (index b = 0; b < samples; ++b)
    for (index i = 0; i < tokens; ++i) {
      ids const stay = kept.row(b);
      auto const place = std::find(stay.begin(), stay.end(), i);
      if (place != stay.end()) {
        CHECK(same_bits(x.token(b, i), done.token(b, place - stay.begin())));
        continue;
      }
      std::vector<double> want = before[b][at(i)];
      for (index c = 0; c < channels; ++c) want[at(c)] += done(b, count, c) - slow(b, count, c);
      CHECK(near(x.view[b].slice(0, i, i + 1), {want}, 8, 0x1p-24 * 4));
    }
}

TEST_CASE("toc3d: all tokens slow changes no bit; wrong calls are refused by name", "[tokens]") {
  rng r(73);
  token_tensor<bf16> x(r, 1, 10, 7);
  std::vector<float> const scores(r.normal(10));
  auto const s = tern::view(scores.data(), 1, 10);
  token_lists kept(1, 10);
  own_map map(1, 10);
  token_tensor<bf16> slow(1, 10, 7);
  std::vector<std::vector<bf16>> before;
  for (index i = 0; i < 10; ++i) before.push_back(x.token(0, i));
  toc3d_compress(cpu, x.view, s, 10, kept.view, map.view, slow.view);
  toc3d_restore(cpu, kept.view, map.view, slow.view, slow.view, x.view);
  for (index i = 0; i < 10; ++i) CHECK((same_bits(slow.token(0, i), before[at(i)]) && same_bits(x.token(0, i), before[at(i)])));
  CHECK(message_of([&] { toc3d_compress(cpu, x.view, s, 11, kept.view, map.view, slow.view); }) ==
        "toc3d_compress: count is 11, expected 0 to the number of tokens");
  CHECK(message_of([&] { toc3d_compress(cpu, x.view, s, 4, kept.view, map.view, slow.view); }) ==
        "toc3d_compress: slow.extent(1) is 10, expected the slow tokens = 5");
  own_map small(1, 9), more({ids(10, 10)});
  small.memory.assign(9, -1);
  small.numbers = {0};
  CHECK(message_of([&] { toc3d_restore(cpu, kept.view, small.view, slow.view, slow.view, x.view); }) ==
        "toc3d_restore: the tokens of the map is 9, expected x.extent(1) = 10");
  CHECK(message_of([&] { toc3d_restore(cpu, kept.view, more.view, slow.view, slow.view, x.view); }) ==
        "toc3d_restore: a count of the map is 11, expected at most the slow tokens");
}

TEST_CASE("showui: a share of each region of one color, spread evenly", "[tokens]") {
  // Two colors: a 3 x 4 background with a button of two patches, and one patch alone.
  std::vector<float> const patches{0, 0, 0, 0, 0, 5, 5, 0, 0, 0, 0, 9};
  ids labels(12);
  token_lists kept(1, 12);
  auto const call = [&](double skip) {
    showui(cpu, tern::view(patches.data(), 1, 12, 1), shape<2>{{3, 4}}, 1.f, skip, tern::view(labels.data(), 1, 12), kept.view);
    return kept.row(0);
  };
  ids all(12);
  std::iota(all.begin(), all.end(), 0);
  CHECK(call(0) == all);
  CHECK(labels == ids{0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 2});
  // 9 - round(4.5) = 5 of the background: numbers 0, 2, 4, 6, 8 of 0 1 2 3 4 7 8 9 10; 2 - 1 = 1 of the button; the patch alone.
  CHECK(call(0.5) == ids{0, 2, 4, 5, 8, 10, 11});
  CHECK(call(1) == ids{0, 5, 11});
  token_lists small(1, 5);
  auto const wrong = [&](index channels, token_lists const& to) {
    return message_of([&] {
      showui(cpu, tern::view(patches.data(), 1, 12 / channels, channels), shape<2>{{3, 4}}, 1.f, 0, tern::view(labels.data(), 1, 12),
             to.view);
    });
  };
  CHECK(wrong(1, small) == "showui: the room of kept is 5, expected a place for each patch");
  CHECK(wrong(2, kept) == "showui: patches.extent(1) is 6, expected the tokens of the grid = 12");
}

TEST_CASE("showui: images of a batch do not see each other", "[tokens]") {
  rng r(75);
  index const samples = 5, n = 42, channels = 3;
  token_tensor<bf16> const x(r, samples, n, channels);
  ids labels(at(samples * n)), own(at(n));
  token_lists kept(samples, n), one(1, n);
  shape<2> const grid{{6, 7}};
  showui(cpu.on(several_threads()), x.view, grid, 1.5f, 0.5, tern::view(labels.data(), samples, n), kept.view);
  for (index b = 0; b < samples; ++b) {
    showui(cpu.on(serial), x.view.slice(0, b, b + 1), grid, 1.5f, 0.5, tern::view(own.data(), 1, n), one.view);
    CHECK(kept.row(b) == one.row(0));
    CHECK(own == ids(labels.begin() + b * n, labels.begin() + (b + 1) * n));
  }
}

TEST_CASE("paraformer: frames are summed until their weights reach one", "[tokens]") {
  rng r(75);
  index const samples = 3, frames = 50, channels = 9, most = 30;
  token_tensor<f16> const h(r, samples, frames, channels);
  std::vector<float> weights(at(samples * frames));
  for (float& w : weights) w = static_cast<float>(r.integer(0, 40)) / 32;  // sums are exact
  auto const alpha = tern::view(weights.data(), samples, frames);
  token_tensor<float> y(samples, most, channels);
  ids counts(at(samples));
  integrate_and_fire(cpu.on(several_threads()), h.view, alpha, y.view, tern::view(counts));
  CHECK(y.intact());
  for (index b = 0; b < samples; ++b) {
    double sum = 0;
    matrix want(at(most), std::vector<double>(at(channels)));
    for (index t = 0; t < frames; ++t) {
      double const before = sum;
      sum += static_cast<double>(alpha(b, t));
      for (index j = 0; j < most; ++j) {
        double const part = std::max(0.0, std::min(sum, static_cast<double>(j + 1)) - std::max(before, static_cast<double>(j)));
        for (index c = 0; c < channels; ++c) want[at(j)][at(c)] += part * h(b, t, c);
      }
    }
    REQUIRE(counts[at(b)] == std::min<index>(most, static_cast<index>(std::floor(sum))));
    want.resize(at(counts[at(b)]));
    CHECK(near(y.view[b].slice(0, 0, counts[at(b)]), want, 4, 0x1p-24 * 16));
  }
  for (float& w : weights) w = 1;
  integrate_and_fire(cpu, h.view, alpha, y.view, tern::view(counts));
  CHECK(counts == ids{30, 30, 30});
  for (index j = 0; j < most; ++j)
    for (index c = 0; c < channels; ++c) CHECK(static_cast<double>(y.view(0, j, c)) == h(0, j, c));
  CHECK(message_of([&] { integrate_and_fire(cpu, h.view, tern::view(weights.data(), samples, 49), y.view, tern::view(counts)); }) ==
        "integrate_and_fire: alpha.extent(1) is 49, expected h.extent(1) = 50");
}

TEMPLATE_TEST_CASE("simvlg: ToMe on the mean of keys", "[tokens]", float, f16) {
  rng r(74);
  index const samples = 2, heads = 3, tokens = 16, dim = 8;
  auto const keys = r.normal<TestType>(samples * heads * tokens * dim);
  auto const k = tern::view(keys.data(), samples, heads, tokens, dim);
  auto const number = [](TestType e) { return static_cast<float>(e); };
  token_tensor<float> const x(r, samples, tokens, 5);
  token_tensor<float> mean(samples, tokens, dim), y(samples, tokens, 5), z(samples, tokens, 5);
  for (index b = 0; b < samples; ++b)
    for (index i = 0; i < tokens; ++i)
      for (index d = 0; d < dim; ++d)
        mean.view(b, i, d) = (number(k(b, 0, i, d)) + number(k(b, 1, i, d)) + number(k(b, 2, i, d))) * (1.f / 3);
  own_map map(samples, tokens), plain(samples, tokens);
  simvlg(cpu, k, 4, map.view, {}, {}, moved{x.view, y.view});
  tome(cpu, mean.view, 4, {}, plain.view, {}, {}, moved{x.view, z.view});
  CHECK(map.memory == plain.memory);
  for (index b = 0; b < samples; ++b)
    for (index j = 0; j < tokens - 4; ++j) CHECK(same_bits(y.token(b, j), z.token(b, j)));
}

}  // namespace tern::test

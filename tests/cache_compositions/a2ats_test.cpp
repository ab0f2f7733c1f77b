// SPDX-License-Identifier: Apache-2.0
#include "layer.hpp"
#include "turned.hpp"

#include <tern/cache/methods/a2ats.hpp>

namespace tern::test::a2ats_tests {
namespace {

constexpr index heads = 4, kv_heads = 2, dim = 16, codes = 24;

/// A codebook in memory of its own.
struct book {
  head_rows metric{kv_heads, dim, dim}, centroids{kv_heads, codes, dim}, keys{kv_heads, codes, dim};
  query_codebook operator()() { return {metric.view(), centroids.view(), keys.view()}; }
};
/// (x - c) H (x - c)^T with H the sum of q q^T.
double by_queries(rows const& q, row const& x, row const& c) {
  row d = x;
  for (std::size_t i = 0; i < d.size(); ++i) d[i] -= c[i];
  double sum = 0;
  for (row const& e : q) sum += dot(e, d) * dot(e, d);
  return sum;
}
row at(row const& x, index position) { return turned(x.data(), dim, static_cast<double>(position)); }

struct text {
  head_rows q, k, v, samples;
  book codebook;
  std::vector<std::int32_t> labels;
  std::vector<float> table;
  kv_cache<float> cache{{.layers = 1, .kv_heads = kv_heads, .dim = dim}};
  std::int32_t s = cache.open();
  index n;
  text(rng& r, index tokens, index fitted, float magnitude = 1)
      : q(r, heads, 1, dim, 2),
        k(r, kv_heads, tokens, dim),
        v(r, kv_heads, tokens, dim),
        samples(r, heads, 50, dim),
        labels(static_cast<std::size_t>(kv_heads * tokens)),
        table(static_cast<std::size_t>(400 * dim)),
        n(tokens) {
    for (std::size_t i = 0; i < samples.x.size(); ++i) samples.x[i] *= i % 3 == 0 ? 3.f : 0.3f;  // directions that matter
    rope_table(cpu, 0, tern::view(table.data(), index{400}, dim), {.pairing = rope_pairing::half, .magnitude = magnitude});
    cache.append(cpu, s, 0, k.view(), v.view());
    fit_query_codebook(three_threads(), samples.view(), k.view().slice(1, 0, fitted), codebook(), 30);
    nearest_codes(three_threads(), codebook(), k.view(), code());
  }
  tensor_view<std::int32_t, 2> code() { return tern::view(labels.data(), kv_heads, n); }
  rows samples_of(index h) const {
    rows all = samples.of(2 * h);
    for (row const& e : samples.of(2 * h + 1)) all.push_back(e);
    return all;
  }
};

TEST_CASE("a2ats: codes are nearest by the queries, and centroids their means") {
  rng r(51);
  text t(r, 200, 200);
  for (index h = 0; h < kv_heads; ++h) {
    rows const q = t.samples_of(h), c = t.codebook.keys.of(h);
    double plain = 0, aware = 0;
    for (index j = 0; j < 200; ++j) {
      row const x = t.k.of(h, j);
      auto const code = static_cast<std::size_t>(t.code()(h, j));
      double const own = by_queries(q, x, c[code]);
      double least = 1e300;
      for (row const& e : c) least = std::min(least, by_queries(q, x, e));
      CHECK(own <= least * (1 + 1e-3) + 1e-3);
      aware += own;
    }
    // What k-means of the keys as they are leaves, by the same measure.
    head_rows centroids(1, codes, dim);
    std::vector<std::int32_t> labels(200);
    std::vector<float> counts(codes);
    k_means(cpu, t.k.view()[h], centroids.view()[0], tern::view(labels.data(), index{200}), tern::view(counts.data(), codes), 30,
            cluster_by::place);
    for (index j = 0; j < 200; ++j) plain += by_queries(q, t.k.of(h, j), centroids.of(0, labels[static_cast<std::size_t>(j)]));
    CHECK(aware < plain);
    // Lloyd's algorithm has converged: a centroid is the mean of its keys.
    rows mean(codes, row(dim, 0));
    row count(codes, 0);
    for (index j = 0; j < 200; ++j) {
      auto const code = static_cast<std::size_t>(t.code()(h, j));
      count[code] += 1;
      for (std::size_t d = 0; d < dim; ++d) mean[code][d] += t.k.of(h, j)[d];
    }
    for (std::size_t i = 0; i < codes; ++i)
      for (std::size_t d = 0; d < dim && count[i] > 0; ++d) CHECK(std::abs(mean[i][d] / count[i] - c[i][d]) < 1e-3);
  }
}

TEST_CASE("a2ats: a step looks at the window, sinks, and the best by code") {
  float const magnitude = GENERATE(1.F, 1.2F);
  rng r(52);
  text t(r, 230, 200, magnitude);
  auto const table = tern::view(static_cast<float const*>(t.table.data()), index{400}, dim);
  for (auto const& reach :
       {a2ats_reach{20, 37, 5, 17}, {20, 37, 0, 1}, {1, 300, 3, 0}, {20, 37, 5, 1000}, {230, 64, 8, 8}, {500, 64, 8, 8}}) {
    CAPTURE(reach.window, reach.top, magnitude);
    index const before = std::max<index>(0, 230 - reach.window);
    std::vector<std::vector<char>> seen(kv_heads, std::vector<char>(230, 0));
    for (index h = 0; h < kv_heads; ++h) {
      for (index j = 0; j < 230; ++j) seen[static_cast<std::size_t>(h)][static_cast<std::size_t>(j)] = j < reach.sinks || j >= before;
      for (index g = 2 * h; g < 2 * h + 2; ++g) {
        row score;
        for (index j = reach.sinks; j < before; ++j)
          score.push_back(dot(at(t.q.of(g, 0), reach.far), t.codebook.keys.of(h, t.code()(h, j))));
        for (std::int32_t j : largest(score, reach.top)) seen[static_cast<std::size_t>(h)][static_cast<std::size_t>(j + reach.sinks)] = 1;
      }
    }
    outputs to(heads, 1, dim), again(heads, 1, dim);
    a2ats_attention(three_threads(), t.q.view(), t.codebook(), t.code(), table, reach, t.cache, t.s, 0, to.out_view(), to.lse_view(),
                    rope_pairing::half);
    // Turning q by the distance is turning the key back.
    auto const keys = [&](index g) {
      rows all = t.k.of(g / 2);
      for (index j = 0; j < 230; ++j) {
        row& e = all[static_cast<std::size_t>(j)];
        e = at(e, j >= before ? -(229 - j) : -reach.far);
        for (double& d : e) d *= std::pow(static_cast<double>(magnitude), 2);  // of q and of the key
      }
      return all;
    };
    to.check({t.q, keys, [&](index g) { return t.v.of(g / 2); }, 1 / 4.,
              [&](index g, index, index j) { return seen[static_cast<std::size_t>(g / 2)][static_cast<std::size_t>(j)] != 0; }, 12});
    a2ats_attention(cpu.on(serial), t.q.view(), t.codebook(), t.code(), table, reach, t.cache, t.s, 0, again.out_view(), again.lse_view(),
                    rope_pairing::half);
    CHECK(again.all() == to.all());
  }
  outputs to(heads, 1, dim);
  t.code()(1, 7) = codes;
  CHECK(message_of([&] {
          a2ats_attention(cpu, t.q.view(), t.codebook(), t.code(), table, {20, 37, 5, 17}, t.cache, t.s, 0, to.out_view(), to.lse_view());
        }) == "a2ats_attention: a code is 24, expected a centroid of the codebook");
  CHECK(message_of([&] {
          a2ats_attention(cpu, t.q.view(), t.codebook(), t.code(), table, {20, 400, 5, 17}, t.cache, t.s, 0, to.out_view(), to.lse_view());
        }) == "a2ats_attention: table.extent(0) is 400, expected a row for each token, and for far");
}

}  // namespace
}  // namespace tern::test::a2ats_tests

// SPDX-License-Identifier: Apache-2.0
#include "sparse.hpp"

#include <tern/attention/estimators/centroids.hpp>
#include <tern/attention/estimators/k_means.hpp>
#include <tern/attention/estimators/last_queries.hpp>
#include <tern/attention/estimators/page_bounds.hpp>
#include <tern/attention/estimators/pooled_blocks.hpp>

namespace tern::test {
namespace {

double dot(tensor_view<float, 2> const& a, index i, tensor_view<float, 2> const& b, index j) {
  double sum = 0;
  for (index d = 0; d < a.extent(1); ++d) sum += static_cast<double>(a(i, d)) * static_cast<double>(b(j, d));
  return sum;
}

/// Whether `got` are the `budget` largest of `sums`, where sums nearer than `slack` to the last one may stand for each other.
bool are_largest(std::vector<std::int32_t> const& got, std::vector<double> const& sums, index budget, double slack) {
  auto const want = largest(sums, budget);
  if (got.size() != want.size() || !std::is_sorted(got.begin(), got.end())) return false;
  double least = std::numeric_limits<double>::infinity();
  for (std::int32_t i : want) least = std::min(least, sums[static_cast<std::size_t>(i)]);
  for (std::int32_t i : want)
    if (sums[static_cast<std::size_t>(i)] > least + slack && std::find(got.begin(), got.end(), i) == got.end()) return false;
  for (std::int32_t i : got)
    if (sums[static_cast<std::size_t>(i)] < least - slack) return false;
  return true;
}

TEST_CASE("estimate_vertical_slash: the sums of the last queries' probabilities") {
  rng r(31);
  for (auto [tokens, keys] : {std::pair<index, index>{200, 200}, {70, 1300}, {5, 130}, {1, 1}}) {
    cache<float> q(r, 4, tokens, 24, 2), k(r, 2, keys, 24);
    own_lists columns(4, 60), slashes(4, 60);
    std::vector<vertical_slash_budget> budgets = {{40, 20, 3, 5}, {60, 60, 0, 0}, {10, 1, 30, 100}, {0, 7, 1, 0}};
    for (auto const& policy : {cpu.on(serial), cpu.on(several_threads())}) {
      estimate_vertical_slash(policy, q.view, k.view, budgets.data(), columns.lists(), slashes.lists());
      for (index h = 0; h < 4; ++h) {
        auto const& b = budgets[static_cast<std::size_t>(h)];
        std::vector<double> column(static_cast<std::size_t>(keys)), slash(static_cast<std::size_t>(keys));
        index const rows = std::min<index>(64, tokens);
        for (index i = tokens - rows; i < tokens; ++i) {
          index const position = keys - tokens + i;
          std::vector<double> p;
          double sum = 0;
          for (index j = 0; j <= position; ++j) {
            p.push_back(std::exp(dot(q.view[h], i, k.view[h / 2], j) / std::sqrt(24.)));
            sum += p.back();
          }
          for (index j = 0; j <= position; ++j) {
            column[static_cast<std::size_t>(j)] += p[static_cast<std::size_t>(j)] / sum;
            slash[static_cast<std::size_t>(position - j)] += p[static_cast<std::size_t>(j)] / sum;
          }
        }
        double const inf = std::numeric_limits<double>::infinity();
        for (index i = 0; i < std::min(keys, std::min(b.sink, b.columns)); ++i) column[static_cast<std::size_t>(i)] = inf;
        for (index i = 0; i < std::min(keys, std::min(b.recent, b.slashes)); ++i) slash[static_cast<std::size_t>(i)] = inf;
        // A sum of at most 64 probabilities, each right to some 40 u (|q| |k| / sqrt(24) is below 40).
        CHECK(are_largest(columns.get(h), column, b.columns, 64 * 80 * 0x1p-24));
        CHECK(are_largest(slashes.get(h), slash, b.slashes, 64 * 80 * 0x1p-24));
      }
    }
  }
}

TEST_CASE("estimate_blocks: means of blocks, causal") {
  rng r(32);
  for (auto [tokens, keys] : {std::pair<index, index>{200, 200}, {130, 333}, {5000, 5000}, {3, 90}}) {
    cache<float> q(r, 1, tokens, 21), k(r, 1, keys, 21);
    index const q_blocks = (tokens + 63) / 64, k_blocks = (keys + 63) / 64;
    own_lists blocks(q_blocks + 1, 5);
    estimate_blocks(cpu, q.view[0], k.view[0], 5, blocks.lists(), 1);
    auto mean = [](tensor_view<float, 2> const& x, index b, index d) {
      double sum = 0;
      index const end = std::min(x.extent(0), 64 * (b + 1));
      for (index i = 64 * b; i < end; ++i) sum += static_cast<double>(x(i, d));
      return sum / static_cast<double>(end - 64 * b);
    };
    std::vector<std::vector<double>> qm(static_cast<std::size_t>(q_blocks)), km(static_cast<std::size_t>(k_blocks));
    for (index d = 0; d < 21; ++d) {
      for (index g = 0; g < q_blocks; ++g) qm[static_cast<std::size_t>(g)].push_back(mean(q.view[0], g, d));
      for (index b = 0; b < k_blocks; ++b) km[static_cast<std::size_t>(b)].push_back(mean(k.view[0], b, d));
    }
    bool right = true;
    for (index g = 0; g < q_blocks; ++g) {
      std::vector<double> scores;
      for (index b = 0; b < k_blocks && 64 * b <= std::min(keys - 1, keys - tokens + 64 * g + 63); ++b) {
        double sum = 0;
        for (std::size_t d = 0; d < 21; ++d) sum += qm[static_cast<std::size_t>(g)][d] * km[static_cast<std::size_t>(b)][d];
        scores.push_back(sum);
      }
      right = right && are_largest(blocks.get(g + 1), scores, 5, 64 * 0x1p-24);
    }
    CHECK(right);
    CHECK(blocks.get(0).empty());
  }
}

TEMPLATE_TEST_CASE("page_bounds, page_scores: an upper bound of every score, in two levels of pages", "", float, bf16) {
  using bound = TestType;
  rng r(33);
  for (index dim : {index{1}, W - 1, index{64}, index{80}}) {
    index const pages = 7, page = 16, logical = 4, keys = 5 * page + 6;
    guarded<float> pool(pages * 2 * page * dim);
    guarded<bound> low(pages * 2 * 4 * dim), high(pages * 2 * 4 * dim);
    auto const k = tern::view(pool.data(), pages, 2, page, dim);
    auto const lows = tern::view(low.data(), pages, 2, 4, dim), highs = tern::view(high.data(), pages, 2, 4, dim);
    std::vector<std::int32_t> table = {3, 0, 6, 1, 5, 2};
    for (index p = 0; p < 6; ++p) {
      index const rows = std::min(page, keys - p * page), at = table[static_cast<std::size_t>(p)];
      for (index h = 0; h < 2; ++h)
        for (index j = 0; j < rows; ++j)
          for (index d = 0; d < dim; ++d) k(at, h, j, d) = static_cast<float>(r.normal());
      page_bounds(cpu, k[at].slice(1, 0, rows), logical, lows[at], highs[at]);
    }
    cache<float> q(r, 1, 6, dim);
    guarded<float> scores(2 * 6, 1);
    page_scores(cpu.on(several_threads()), q.view[0], lows, highs, tensor_view<std::int32_t const, 1>(table.data(), shape<1>{{6}}), page,
                keys, tern::view(scores.data(), 2, 6));
    std::vector<double> want, magnitude;
    for (index h = 0; h < 2; ++h)
      for (index p = 0; p < 6; ++p) {
        double best = -1e300, most = 0, largest_dot = -1e300;
        for (index l = 0; l * logical + p * page < keys && l < 4; ++l)
          for (index i = 0; i < 3; ++i) {
            double sum = 0, sizes = 0;
            index const end = std::min(logical, keys - p * page - l * logical);
            for (index d = 0; d < dim; ++d) {
              double lo = 1e300, hi = -1e300;
              for (index j = 0; j < end; ++j) {
                lo = std::min(lo, static_cast<double>(k(table[static_cast<std::size_t>(p)], h, l * logical + j, d)));
                hi = std::max(hi, static_cast<double>(k(table[static_cast<std::size_t>(p)], h, l * logical + j, d)));
              }
              if (std::is_same_v<bound, bf16>) lo = -rounded_up_to_bf16(-lo), hi = rounded_up_to_bf16(hi);
              double const x = static_cast<double>(q.view(0, 3 * h + i, d));
              sum += std::max(x * lo, x * hi);
              sizes += std::abs(x) * std::max(std::abs(lo), std::abs(hi));
            }
            best = std::max(best, sum);
            most = std::max(most, sizes);
            for (index j = 0; j < end; ++j)
              largest_dot = std::max(largest_dot, dot(q.view[0], 3 * h + i, k[table[static_cast<std::size_t>(p)]][h], l * logical + j));
          }
        want.push_back(best);
        magnitude.push_back(most * (static_cast<double>(dim / W) + 5));
        CHECK(best >= largest_dot - 1e-12);
      }
    CHECK(compare(tern::view(scores.data(), 2, 6), want, magnitude, 0x1p-24));
    CHECK((scores.intact() && low.intact() && high.intact()));
  }
}

TEST_CASE("k_means: Lloyd's algorithm from evenly spread seeds") {
  rng r(34);
  index const n = 600, dim = 12, clusters = 7;
  cache<float> k(r, 1, n, dim);
  // Directions that lie well apart, in seven bundles of different size and length.
  for (index j = 0; j < n; ++j)
    for (index d = 0; d < dim; ++d)
      k.view(0, j, d) = static_cast<float>((d == j * j % 7 ? 3. : 0.) + 0.05 * r.normal()) * static_cast<float>(1 + j % 5);
  std::vector<float> centroids(clusters * dim), counts(clusters);
  std::vector<std::int32_t> labels(n);
  auto const c = tern::view(centroids.data(), clusters, dim);
  index const rounds = k_means(cpu.on(several_threads()), k.view[0], c, view(labels), view(counts));
  CHECK(rounds < 150);
  // The same in double.
  std::vector<std::vector<double>> x(n, std::vector<double>(dim)), m(clusters);
  for (std::size_t j = 0; j < n; ++j) {
    double const size = std::sqrt(dot(k.view[0], static_cast<index>(j), k.view[0], static_cast<index>(j)));
    for (std::size_t d = 0; d < dim; ++d) x[j][d] = static_cast<double>(k.view(0, static_cast<index>(j), static_cast<index>(d))) / size;
  }
  for (std::size_t i = 0; i < clusters; ++i) m[i] = x[i * n / clusters];
  std::vector<std::size_t> label(n, 99);
  for (bool changed = true; changed;) {
    changed = false;
    for (std::size_t j = 0; j < n; ++j) {
      std::size_t best = 0;
      double least = 1e300;
      for (std::size_t i = 0; i < clusters; ++i) {
        double distance = 0;
        for (std::size_t d = 0; d < dim; ++d) distance += (x[j][d] - m[i][d]) * (x[j][d] - m[i][d]);
        if (distance < least) {
          least = distance;
          best = i;
        }
      }
      changed = changed || best != label[j];
      label[j] = best;
    }
    for (std::size_t i = 0; i < clusters; ++i) {
      std::vector<double> sum(dim);
      double count = 0;
      for (std::size_t j = 0; j < n; ++j)
        if (label[j] == i) {
          ++count;
          for (std::size_t d = 0; d < dim; ++d) sum[d] += x[j][d];
        }
      if (count > 0)
        for (std::size_t d = 0; d < dim; ++d) m[i][d] = sum[d] / count;
    }
  }
  for (std::size_t j = 0; j < n; ++j) REQUIRE(static_cast<std::size_t>(labels[j]) == label[j]);
  std::vector<double> want(clusters * dim), magnitude(clusters * dim, 1e-30), number(clusters);
  for (std::size_t j = 0; j < n; ++j) ++number[label[j]];
  for (std::size_t j = 0; j < n; ++j)
    for (std::size_t d = 0; d < dim; ++d) {
      double const e = static_cast<double>(k.view(0, static_cast<index>(j), static_cast<index>(d))) / number[label[j]];
      want[label[j] * dim + d] += e;
      magnitude[label[j] * dim + d] += std::abs(e);
    }
  CHECK(compare(c, want, magnitude, 0x1p-23));
  for (std::size_t i = 0; i < clusters; ++i) CHECK(static_cast<double>(counts[i]) == number[i]);

  // Equal keys go to the first cluster, and the others end empty.
  cache<float> same(1, 9, dim);
  detail::each(same.view, [](float& e) { e = 3; });
  k_means(cpu, same.view[0], c, view(labels).slice(0, 0, 9), view(counts));
  CHECK((counts[0] == 9 && counts[1] == 0 && c(0, 0) == 3.f && c(1, 0) == 0.f));

  // Every key its own cluster.
  std::vector<float> own(n * dim), ones(n);
  k_means(cpu, k.view[0], tern::view(own.data(), n, dim), view(labels), view(ones), 1);
  float sum = 0;
  for (float e : ones) sum += e;
  CHECK(sum == static_cast<float>(n));
  CHECK_THROWS_AS(k_means(cpu, k.view[0].slice(0, 0, 3), c, view(labels).slice(0, 0, 3), view(counts)), error);
}

TEST_CASE("centroid_scores: weights of keys as their centroids would have them, in one level and two") {
  rng r(35);
  index const rows = 5, dim = 20, clusters = 33;
  cache<float> q(r, 1, rows, dim), c(r, 1, clusters, dim);
  std::vector<float> counts(clusters), scores(clusters), kept(clusters);
  for (float& e : counts) e = static_cast<float>(r.integer(0, 9));
  counts[4] = 0;
  centroid_scores(cpu, q.view[0], c.view[0], tensor_view<float const, 1>(view(counts)), view(scores));
  auto want_of = [&](std::vector<float> const& number) {
    std::vector<double> want(clusters);
    for (index i = 0; i < rows; ++i) {
      double sum = 0;
      for (std::size_t j = 0; j < clusters; ++j)
        sum += static_cast<double>(number[j]) * std::exp(dot(q.view[0], i, c.view[0], static_cast<index>(j)) / std::sqrt(20.));
      for (std::size_t j = 0; j < clusters; ++j)
        if (number[j] > 0) want[j] += std::exp(dot(q.view[0], i, c.view[0], static_cast<index>(j)) / std::sqrt(20.)) / sum / rows;
    }
    return want;
  };
  // softmax.error(33, 20), and (matmul.accuracy + 4) u 40 for the scores, |q| |c| being below 40 sqrt(20).
  double const tolerance = softmax.error(clusters, 20) + 0x1p-24 * (12 + 1) * 40;
  auto const want = want_of(counts);
  CHECK(compare(view(scores), want, want, tolerance));

  std::vector<std::int32_t> coarse(clusters);
  for (std::size_t j = 0; j < clusters; ++j) coarse[j] = static_cast<std::int32_t>(j % 4);
  std::vector<float> coarse_scores = {0.1f, 0.3f, 0.2f, 0.4f};
  tensor_view<std::int32_t const, 1> const labels(coarse.data(), shape<1>{{clusters}});
  keep_members(labels, tensor_view<float const, 1>(view(coarse_scores)), 0.2f, tensor_view<float const, 1>(view(counts)), view(kept));
  for (std::size_t j = 0; j < clusters; ++j) CHECK(kept[j] == (j % 2 == 1 ? counts[j] : 0.f));
  centroid_scores(cpu, q.view[0], c.view[0], tensor_view<float const, 1>(view(kept)), view(scores));
  auto const fine = want_of(kept);
  CHECK(compare(view(scores), fine, fine, tolerance));

  std::vector<std::int32_t> keys(clusters);
  index const count = select_members(labels, tensor_view<float const, 1>(view(coarse_scores)), 0.25f, view(keys));
  CHECK(count == 16);
  for (index i = 0; i < count; ++i) CHECK(keys[static_cast<std::size_t>(i)] == 2 * i + 1);
}

}  // namespace
}  // namespace tern::test

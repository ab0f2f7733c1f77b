// SPDX-License-Identifier: Apache-2.0
#include "sparse.hpp"

#include <tern/attention/estimators/k_means.hpp>
#include <tern/attention/systems/squeezed_attention.hpp>

namespace tern::test {
namespace {

/// Clusters of a fixed context, key head by key head.
struct level {
  std::vector<float> centroids, counts;
  std::vector<std::int32_t> labels;
  index k_heads, clusters, keys, dim;
  float threshold = 0;

  level(tensor_view<float, 3> const& k, index number)
      : centroids(static_cast<std::size_t>(k.extent(0) * number * k.extent(2))),
        counts(static_cast<std::size_t>(k.extent(0) * number)),
        labels(static_cast<std::size_t>(k.extent(0) * k.extent(1))),
        k_heads(k.extent(0)),
        clusters(number),
        keys(k.extent(1)),
        dim(k.extent(2)) {
    for (index h = 0; h < k_heads; ++h) k_means(cpu, k[h], center()[h], label()[h], count()[h]);
  }
  tensor_view<float, 3> center() { return tern::view(centroids.data(), k_heads, clusters, dim); }
  tensor_view<float, 2> count() { return tern::view(counts.data(), k_heads, clusters); }
  tensor_view<std::int32_t, 2> label() { return tern::view(labels.data(), k_heads, keys); }
  squeezed_clusters operator()() { return {center(), count(), label(), threshold}; }
};

/// S of the clusters of a key head, averaged over the queries and heads that share it, in double. `number` are the keys of each.
std::vector<double> naive_scores(call<float> const& c, index kh, level& of, std::vector<double> const& number) {
  std::vector<double> mean(static_cast<std::size_t>(of.clusters));
  index const shared = c.c.heads / c.c.kv_heads;
  for (index h = kh * shared; h < (kh + 1) * shared; ++h)
    for (index i = 0; i < c.c.tokens; ++i) {
      std::vector<double> e;
      double sum = 0;
      for (index j = 0; j < of.clusters; ++j) {
        double dot = 0;
        for (index d = 0; d < c.c.dim; ++d) dot += static_cast<double>(c.q.view(h, i, d)) * static_cast<double>(of.center()(kh, j, d));
        e.push_back(std::exp(dot / std::sqrt(static_cast<double>(c.c.dim))));
        sum += number[static_cast<std::size_t>(j)] * e.back();
      }
      for (std::size_t j = 0; j < mean.size(); ++j)
        if (number[j] > 0) mean[j] += e[j] / sum / static_cast<double>(shared * c.c.tokens);
    }
  return mean;
}

/// A threshold that lies in a gap between scores, so that rounding cannot decide; about `share` of the clusters are above it.
float threshold_between(std::vector<double> scores, double share) {
  std::sort(scores.begin(), scores.end());
  auto const at = static_cast<std::size_t>((1 - share) * static_cast<double>(scores.size()));
  std::size_t best = at;
  for (std::size_t i = at; i + 1 < scores.size() && i < at + 4; ++i)
    if (scores[i + 1] - scores[i] > scores[best + 1] - scores[best]) best = i;
  return static_cast<float>((scores[best] + scores[best + 1]) / 2);
}

TEST_CASE("squeezed_attention: clusters above the threshold, and the user's tokens") {
  rng r(51);
  for (auto const& sizes : {std::pair<index, index>{1, 9}, {3, 3}, {40, 40}})
    for (bool two_levels : {false, true}) {
      index const tokens = sizes.first, user = sizes.second, fixed = 300;
      call<float> c(r, {4, 2, tokens, fixed + user, 24, 20, 2});
      auto const k = c.k.view, v = c.v.view;
      level fine(k.slice(1, 0, fixed), 40), coarse(fine.center(), 6);
      own_lists selected(2, fixed);
      std::vector<std::vector<double>> scores(2);
      // The counts of coarse clusters are keys, not fine clusters; thresholds fit key head 0, and key head 1 takes the same.
      for (index h = 0; h < 2; ++h) {
        std::vector<double> number(6), kept(40);
        for (index f = 0; f < 40; ++f) number[static_cast<std::size_t>(coarse.label()(h, f))] += static_cast<double>(fine.count()(h, f));
        for (index j = 0; j < 6; ++j) coarse.count()(h, j) = static_cast<float>(number[static_cast<std::size_t>(j)]);
        auto const rough = naive_scores(c, h, coarse, number);
        if (h == 0) coarse.threshold = threshold_between(rough, 0.5);
        for (index f = 0; f < 40; ++f)
          if (!two_levels || rough[static_cast<std::size_t>(coarse.label()(h, f))] > static_cast<double>(coarse.threshold))
            kept[static_cast<std::size_t>(f)] = static_cast<double>(fine.count()(h, f));
        scores[static_cast<std::size_t>(h)] = naive_scores(c, h, fine, kept);
        if (h == 0) fine.threshold = threshold_between(scores[0], 0.3);
      }
      if (two_levels)
        squeezed_select(cpu, c.q.view, fine(), coarse(), selected.lists());
      else
        squeezed_select(cpu, c.q.view, fine(), selected.lists());
      squeezed_attention(cpu.on(several_threads()), c.q.view, k.slice(1, 0, fixed), v.slice(1, 0, fixed), selected.lists(),
                         k.slice(1, fixed, fixed + user), v.slice(1, fixed, fixed + user), c.out.view, c.lse);
      c.check(want_by_head(c, [&](index h, index i, index j) {
        if (j >= fixed) return j - fixed <= i + user - tokens;
        return scores[static_cast<std::size_t>(h / 2)][static_cast<std::size_t>(fine.label()(h / 2, j))] >
               static_cast<double>(fine.threshold);
      }));
      CHECK((selected.get(0).size() > 10 && selected.get(0).size() < 290));

      // A threshold of 0 selects all: dense attention. One of 1 selects nothing: the user's tokens alone.
      for (float threshold : {0.f, 1.f}) {
        fine.threshold = threshold;
        squeezed_select(cpu, c.q.view, fine(), selected.lists());
        squeezed_attention(cpu, c.q.view, k.slice(1, 0, fixed), v.slice(1, 0, fixed), selected.lists(), k.slice(1, fixed, fixed + user),
                           v.slice(1, fixed, fixed + user), c.out.view, c.lse);
        c.check(c.want([&](index i, index j) { return j >= fixed ? j - fixed <= i + user - tokens : threshold == 0; }));
      }
    }
}

}  // namespace
}  // namespace tern::test

// SPDX-License-Identifier: Apache-2.0
#include <tern/tokens/bipartite_matching.hpp>

#include "samples.hpp"

namespace tern::test {
namespace {

template <class T>
double cosine(token_tensor<T> const& m, index b, index i, index j) {
  double ab = 0, aa = 0, bb = 0;
  for (index c = 0; c < m.view.extent(2); ++c) {
    ab += m(b, i, c) * m(b, j, c);
    aa += m(b, i, c) * m(b, i, c);
    bb += m(b, j, c) * m(b, j, c);
  }
  return aa == 0 || bb == 0 ? 0 : ab / std::sqrt(aa * bb);
}
double bound(index dim) {
  double const d = static_cast<double>(dim);
  return 0x1p-24 * (matmul.accuracy(dim) + 2 * std::sqrt(d) + 6);
}

/// Whether `best` is a target that is as near as any, but for rounding, and the similarity its cosine.
template <class T>
void check_best(token_tensor<T> const& m, index b, index source, ids const& targets, index best, float similarity) {
  double const e = bound(m.view.extent(2));
  double most = -2;
  for (std::int32_t t : targets) most = std::max(most, cosine(m, b, source, t));
  REQUIRE(std::find(targets.begin(), targets.end(), best) != targets.end());
  CHECK(cosine(m, b, source, best) >= most - 2 * e);
  CHECK(std::abs(static_cast<double>(similarity) - cosine(m, b, source, best)) <= e);
}

template <class T>
void check_most_similar(rng& r, cpu_policy const& policy, index samples, index tokens, index dim) {
  token_tensor<T> m(r, samples, tokens, dim);
  std::vector<ids> from(static_cast<std::size_t>(samples)), to(from.size());
  for (std::size_t b = 0; b < from.size(); ++b)
    for (index i = 0; i < tokens; ++i) (i == 0 || (i > 1 && r.integer(0, 2) > 0) ? from : to)[b].push_back(static_cast<std::int32_t>(i));
  token_lists const sources(from, tokens), targets(to, tokens);
  std::vector<std::int32_t> best(static_cast<std::size_t>(samples * tokens));
  std::vector<float> similarity(best.size());
  most_similar(policy, m.view, sources.view, targets.view, tern::view(best.data(), samples, tokens),
               tern::view(similarity.data(), samples, tokens));
  for (index b = 0; b < samples; ++b)
    for (index i = 0; i < sources.view.count(b); ++i)
      check_best(m, b, from[static_cast<std::size_t>(b)][static_cast<std::size_t>(i)], to[static_cast<std::size_t>(b)],
                 best[static_cast<std::size_t>(b * tokens + i)], similarity[static_cast<std::size_t>(b * tokens + i)]);
}

/// Features of plus and minus one: their products are exact, and many are equal.
void fill_with_signs(rng& r, token_tensor<float>& m) {
  detail::each(m.view, [&](float& e) { e = r.integer(0, 1) == 0 ? 1.f : -1.f; });
}

}  // namespace

TEST_CASE("most_similar: the nearest target of each source", "[tokens]") {
  rng r(31);
  for (auto const& policy : {cpu.on(serial), cpu.on(several_threads())})
    for (index dim : {1, 7, 64, 100}) {
      check_most_similar<float>(r, policy, 1, 2, dim);
      check_most_similar<float>(r, policy, 3, 71, dim);
      check_most_similar<f16>(r, policy, 2, 40, dim);
      check_most_similar<bf16>(r, policy, 1, 130, dim);
    }
  check_most_similar<float>(r, cpu.on(several_threads()), 1, 1900, 24);
}

TEST_CASE("most_similar: of equally near targets the first; NaN is near nothing, zeros are at right angles", "[tokens]") {
  index const dim = 4;
  token_tensor<float> m(1, 6, dim);
  detail::each(m.view, [](float& e) { e = 1; });
  for (index c = 0; c < dim; ++c) {
    m.view(0, 1, c) = 0;
    m.view(0, 2, c) = std::nanf("");
    m.view(0, 3, c) = -1;
  }
  token_lists const sources({{0, 1, 2, 3}}, 6), targets({{1, 2, 4, 5}}, 6), none({{}}, 6), only({{2}}, 6);
  ids best(4);
  std::vector<float> similarity(4);
  auto const b = tern::view(best.data(), 1, 4);
  auto const s = tern::view(similarity.data(), 1, 4);
  most_similar(cpu, m.view, sources.view, targets.view, b, s);
  CHECK(best == ids{4, 1, 1, 1});
  CHECK((similarity[0] == 1.f && similarity[1] == 0.f && similarity[2] == -INFINITY && similarity[3] == 0.f));
  most_similar(cpu, m.view, sources.view, none.view, b, s);
  CHECK(best == ids{-1, -1, -1, -1});
  CHECK(similarity == std::vector<float>(4, -INFINITY));
  most_similar(cpu, m.view, sources.view, only.view, b, s);
  CHECK(best == ids{2, 2, 2, 2});
  CHECK(similarity == std::vector<float>(4, -INFINITY));
}

TEST_CASE("bipartite_matching: ToMe by its definition, with ties", "[tokens]") {
  rng r(32);
  for (index tokens : {1, 2, 9, 50})
    for (index r_wanted : {0, 1, 7, 100})
      for (index first : {0, 1, 2}) {
        index const samples = 3, dim = 16;  // lengths of 4: all is exact
        token_tensor<float> m(samples, tokens, dim);
        fill_with_signs(r, m);
        ids lengths;
        std::vector<float> penalties(static_cast<std::size_t>(samples * tokens));
        for (float& p : penalties) p = static_cast<float>(r.integer(0, 3)) / 4;
        for (index b = 0; b < samples; ++b) lengths.push_back(static_cast<std::int32_t>(b == 0 ? tokens : r.integer(0, tokens)));
        protect const always{first, r.integer(0, 1)};
        index const room = std::max<index>(1, std::min(r_wanted, bipartite_sources(tokens, always)));
        own_pairs pairs(samples, room);
        auto const penalty = tern::view(penalties.data(), samples, tokens);
        bipartite_matching(cpu.on(several_threads()), m.view, r_wanted, pairs.view, {always, tern::view(lengths), penalty});
        for (index b = 0; b < samples; ++b) {
          struct edge {
            double value;
            index from, to;
          };
          std::vector<edge> edges;
          index const end = lengths[static_cast<std::size_t>(b)] - always.last;
          for (index a = 0; a < end; a += 2) {
            if (a < first) continue;
            edge best{-2, a, -1};
            for (index t = 1; t < end; t += 2) {
              if (t < first) continue;
              double const c = std::round(cosine(m, b, a, t) * 16) / 16;
              if (c > best.value) best = {c, a, t};
            }
            if (best.to >= 0) edges.push_back({best.value - static_cast<double>(penalty(b, a)), a, best.to});
          }
          std::stable_sort(edges.begin(), edges.end(), [](edge const& x, edge const& y) { return x.value > y.value; });
          if (static_cast<index>(edges.size()) > r_wanted) edges.resize(static_cast<std::size_t>(r_wanted));
          REQUIRE(pairs.view.count(b) == static_cast<index>(edges.size()));
          for (index p = 0; p < pairs.view.count(b); ++p) {
            auto const& e = edges[static_cast<std::size_t>(p)];
            CHECK((pairs.view.from(b, p) == e.from && pairs.view.to(b, p) == e.to));
            CHECK(std::abs(static_cast<double>(pairs.view.similarity(b, p)) - e.value) <= bound(dim));
          }
        }
      }
}

TEST_CASE("bipartite_matching: threads change no bit, memory of the caller's is enough", "[tokens]") {
  rng r(33);
  token_tensor<bf16> const m(r, 1, 300, 48);
  own_pairs one(1, 100), many(1, 100);
  bipartite_matching(cpu.on(serial), m.view, 100, one.view);
  bipartite_matching(cpu.on(several_threads()), m.view, 100, many.view);
  CHECK((one.from == many.from && one.to == many.to && one.similarity == many.similarity && one.numbers == many.numbers));
}

TEST_CASE("bipartite_matching, most_similar: wrong calls are refused by name", "[tokens]") {
  rng r(35);
  token_tensor<float> const m(r, 2, 10, 4);
  own_pairs pairs(2, 3), other(1, 3);
  CHECK(message_of([&] { bipartite_matching(cpu, m.view, -1, pairs.view); }) == "bipartite_matching: r is -1, expected at least 0");
  CHECK(message_of([&] { bipartite_matching(cpu, m.view, 4, pairs.view); }) ==
        "bipartite_matching: pairs.from.extent(1) is 3, expected at least r, or the sources where they are fewer = 4");
  CHECK(message_of([&] { bipartite_matching(cpu, m.view, 1, other.view); }) ==
        "bipartite_matching: pairs.counts.extent(0) is 1, expected the samples = 2");
  ids const lengths{3, 11};
  CHECK(message_of([&] { bipartite_matching(cpu, m.view, 1, pairs.view, {.lengths = tern::view(lengths)}); }) ==
        "bipartite_matching: a length is 11, expected 0 to the number of tokens");
  CHECK(message_of([&] { bipartite_matching(cpu, m.view, 1, pairs.view, {.always = {0, -2}}); }) ==
        "bipartite_matching: protect.last is -2, expected at least 0");
  std::vector<float> p(20);
  CHECK(message_of([&] { bipartite_matching(cpu, m.view, 1, pairs.view, {.penalty = tern::view(p.data(), 2, 9)}); }) ==
        "bipartite_matching: penalty.extent(1) is 9, expected the tokens = 10");
  token_lists const sources({{0, 10}, {}}, 5), fine({{0, 1}, {}}, 5);
  ids best(2);
  std::vector<float> similarity(2);
  CHECK(message_of([&] {
          most_similar(cpu, m.view, sources.view, fine.view, tern::view(best.data(), 2, 1), tern::view(similarity.data(), 2, 1));
        }) == "most_similar: an index of a list is 10, expected at least 0 and less than 10");
  CHECK(message_of([&] {
          most_similar(cpu, m.view, fine.view, fine.view, tern::view(best.data(), 2, 1), tern::view(similarity.data(), 2, 1));
        }) == "most_similar: best is 1, expected room for each source");
}

}  // namespace tern::test

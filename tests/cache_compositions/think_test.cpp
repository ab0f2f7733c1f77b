// SPDX-License-Identifier: Apache-2.0
#include "layer.hpp"

#include <tern/cache/methods/matryoshka_kv.hpp>
#include <tern/cache/methods/think.hpp>
#include <tern/cache/principal_components.hpp>

namespace tern::test::think_tests {
namespace {

constexpr index heads = 4, kv_heads = 2, dim = 24, dim_v = 20;

TEST_CASE("think: old keys lose the channels that queries use least") {
  for (auto const& [kept, kept_v] : {std::pair<index, index>{14, 20}, {24, 20}, {14, 11}}) {
    rng r(31);
    CAPTURE(kept, kept_v);
    head_rows q(r, heads, 32, dim, 2), k(r, kv_heads, 200, dim), v(r, kv_heads, 200, dim_v);
    // Channels of different size.
    for (std::size_t i = 0; i < q.x.size(); ++i) q.x[i] *= 0.1f + static_cast<float>(i * 7 % 24 % 11) / 8;
    kv_cache<float> cache({.layers = 1, .kv_heads = kv_heads, .dim = dim, .dim_v = dim_v});
    kv_cache<float> pruned({.layers = 1, .kv_heads = kv_heads, .dim = kept, .dim_v = kept_v});
    auto const s = cache.open(), t = pruned.open();
    cache.append(cpu, s, 0, k.view().slice(1, 0, 180), v.view().slice(1, 0, 180));
    std::vector<std::int32_t> memory(static_cast<std::size_t>(kv_heads * kept));
    auto const channels = tern::view(memory.data(), kv_heads, kept);
    select_key_channels(cache, s, 0, q.view(), channels);
    std::vector<std::vector<std::int32_t>> want(kv_heads);
    for (index h = 0; h < kv_heads; ++h) {
      row score(dim, 0);
      for (index c = 0; c < dim; ++c) {
        double of_q = 0, of_k = 0;
        for (index g = 2 * h; g < 2 * h + 2; ++g)
          for (row const& x : q.of(g)) of_q += x[static_cast<std::size_t>(c)] * x[static_cast<std::size_t>(c)];
        for (index j = 0; j < 180; ++j) of_k += std::pow(k.of(h, j)[static_cast<std::size_t>(c)], 2);
        score[static_cast<std::size_t>(c)] = std::sqrt(of_q) * std::sqrt(of_k);
      }
      auto& list = want[static_cast<std::size_t>(h)] = largest(score, kept);
      CHECK(std::equal(list.begin(), list.end(), &channels(h, 0)));
    }
    // Of values: the norm of what the queries see of them.
    std::vector<std::int32_t> memory_v(static_cast<std::size_t>(kv_heads * kept_v));
    auto const of_values = tern::view(memory_v.data(), kv_heads, kept_v);
    std::vector<std::vector<std::int32_t>> want_v(kv_heads, std::vector<std::int32_t>(dim_v));
    think_kept const stay{channels, kept_v < dim_v ? tensor_view<std::int32_t const, 2>(of_values) : tensor_view<std::int32_t const, 2>()};
    select_value_channels(three_threads(), cache, s, 0, q.view(), of_values);
    for (index h = 0; h < kv_heads; ++h) {
      row sum(dim_v, 0);
      rows const of_k = keys_of(cache, s, h), of_v = values_of(cache, s, h);
      for (index g = 2 * h; g < 2 * h + 2; ++g)
        for (index i = 0; i < 32; ++i) {
          row const w = softmax_row(q.of(g, i), of_k, 1 / std::sqrt(24.), [&](index j) { return j <= 148 + i; });
          for (std::size_t c = 0; c < dim_v; ++c) {
            double seen = 0;
            for (std::size_t j = 0; j < w.size(); ++j) seen += w[j] * of_v[j][c];
            sum[c] += seen * seen;
          }
        }
      auto& list = want_v[static_cast<std::size_t>(h)] = largest(sum, kept_v);
      CHECK(std::equal(list.begin(), list.end(), &of_values(h, 0)));
    }
    // Pruned twice: what is recent grows old.
    think_prune(three_threads(), cache, s, 0, stay, 40, pruned, t);
    CHECK((pruned.length(t, 0) == 140 && cache.length(s, 0) == 40));
    cache.append(cpu, s, 0, k.view().slice(1, 180, 200), v.view().slice(1, 180, 200));
    think_prune(cpu, cache, s, 0, stay, 30, pruned, t);
    CHECK((pruned.length(t, 0) == 170 && cache.length(s, 0) == 30));
    CHECK(pruned.positions(t, 0, 1)[169] == 169);
    for (index tokens : {1, 3}) {
      head_rows x(r, heads, tokens, dim, 2);
      outputs to(heads, tokens, dim_v);
      think_attention(three_threads(), x.view(), stay, pruned, t, cache, s, 0, to.out_view(), to.lse_view());
      auto const keys = [&](index g) {
        rows all = k.of(g / 2);
        for (std::size_t j = 0; j < 170; ++j)
          for (std::int32_t c = 0; c < dim; ++c) {
            auto const& list = want[static_cast<std::size_t>(g / 2)];
            if (std::find(list.begin(), list.end(), c) == list.end()) all[j][static_cast<std::size_t>(c)] = 0;
          }
        return all;
      };
      auto const values = [&](index g) {
        rows all = v.of(g / 2);
        for (std::size_t j = 0; j < 170; ++j)
          for (std::int32_t c = 0; c < dim_v; ++c) {
            auto const& list = want_v[static_cast<std::size_t>(g / 2)];
            if (std::find(list.begin(), list.end(), c) == list.end()) all[j][static_cast<std::size_t>(c)] = 0;
          }
        return all;
      };
      to.check({x, keys, values, 1 / std::sqrt(24.), [&](index, index i, index j) { return j <= 200 - tokens + i; }});
      outputs again(heads, tokens, dim_v);
      think_attention(cpu.on(serial), x.view(), stay, pruned, t, cache, s, 0, again.out_view(), again.lse_view());
      CHECK(again.all() == to.all());
    }
  }
}

TEST_CASE("think: wrong calls") {
  kv_cache<float> cache({.layers = 1, .kv_heads = 2, .dim = 8}), pruned({.layers = 1, .kv_heads = 2, .dim = 5, .dim_v = 8, .max_pages = 1});
  auto const s = cache.open(), t = pruned.open();
  rng r(32);
  head_rows k(r, 2, 80, 8);
  cache.append(cpu, s, 0, k.view(), k.view());
  std::vector<std::int32_t> memory = {0, 1, 2, 3, 4, 0, 1, 2, 2, 4, 5, 6};
  auto const channels = tern::view(memory.data(), index{2}, index{5});
  CHECK(message_of([&] { think_prune(cpu, cache, s, 0, {channels}, 10, pruned, t); }) ==
        "think_prune: channels of keys is 2, expected more than the one before it, 2");
  memory[8] = 3;
  CHECK(message_of([&] { think_prune(cpu, cache, s, 0, {channels}, 10, pruned, t); }) ==
        "copy_tokens: the number of new pages is 4, expected at most those that are left");
  CHECK((cache.length(s, 0) == 80 && pruned.length(t, 0) == 0));
  CHECK(message_of([&] { select_key_channels(cache, s, 0, k.view(), tern::view(memory.data(), index{1}, index{9})); }) ==
        "select_key_channels: channels.extent(0) is 1, expected the heads of the cache = 2");
}

/// Keys, values and their directions: the r first of each head.
struct projected {
  head_rows x;
  std::vector<float> components, variances, means;
  index n;
  projected(rng& r, index tokens, index of) : x(r, kv_heads, tokens, of), n(of) {
    // Numbers that lie near a space of few dimensions, away from zero.
    for (index h = 0; h < kv_heads; ++h)
      for (index t = 0; t < tokens; ++t)
        for (index d = 0; d < n; ++d) {
          float& e = x.view()(h, t, d);
          e = e / static_cast<float>(1 + d) + 0.3f * x.view()(h, t, 0) + 0.5f;
        }
    components.resize(static_cast<std::size_t>(kv_heads * n * n));
    variances.resize(static_cast<std::size_t>(kv_heads * n));
    means.resize(static_cast<std::size_t>(kv_heads * n));
    for (index h = 0; h < kv_heads; ++h)
      principal_components(x.view()[h], directions()[h], tern::view(variances.data(), kv_heads, n)[h], mean()[h]);
  }
  tensor_view<float, 3> directions() { return tern::view(components.data(), kv_heads, n, n); }
  tensor_view<float, 2> mean() { return tern::view(means.data(), kv_heads, n); }
  matryoshka_projection operator()() { return {directions(), mean()}; }
  /// m + U_r U_r^T (x - m) in double.
  rows seen(index h, index rank) {
    rows all = x.of(h);
    for (row& e : all) {
      row back(e.size());
      for (index d = 0; d < n; ++d) back[static_cast<std::size_t>(d)] = static_cast<double>(mean()(h, d));
      for (index c = 0; c < rank; ++c) {
        double along = 0;
        for (index d = 0; d < n; ++d)
          along += (e[static_cast<std::size_t>(d)] - static_cast<double>(mean()(h, d))) * static_cast<double>(directions()(h, c, d));
        for (index d = 0; d < n; ++d) back[static_cast<std::size_t>(d)] += along * static_cast<double>(directions()(h, c, d));
      }
      e = back;
    }
    return all;
  }
};

TEST_CASE("principal_components: orthogonal, and the best of each rank") {
  rng r(33);
  projected p(r, 60, dim);
  for (index h = 0; h < kv_heads; ++h) {
    double before = 1e300;
    for (index rank = 0; rank <= dim; ++rank) {
      double lost = 0, left = 0;
      rows const x = p.x.of(h), y = p.seen(h, rank);
      for (std::size_t i = 0; i < x.size(); ++i)
        for (std::size_t d = 0; d < x[i].size(); ++d) lost += (x[i][d] - y[i][d]) * (x[i][d] - y[i][d]) / 60;
      for (index c = rank; c < dim; ++c) left += static_cast<double>(p.variances[static_cast<std::size_t>(h * dim + c)]);
      CHECK(std::abs(lost - left) < 1e-5);  // what is lost is the variance along the others
      CHECK(lost <= before);
      before = lost;
    }
    for (index a = 0; a < dim; ++a)
      for (index b = 0; b <= a; ++b) {
        double sum = 0;
        for (index d = 0; d < dim; ++d) sum += static_cast<double>(p.directions()(h, a, d)) * static_cast<double>(p.directions()(h, b, d));
        CHECK(std::abs(sum - (a == b)) < 1e-6);
      }
  }
  // Rows of two dimensions about zero: A B of rank 2 is exact.
  head_rows a(r, 1, 40, 2), b(r, 1, 2, 9), x(1, 40, 9);
  for (index i = 0; i < 40; ++i)
    for (index d = 0; d < 9; ++d)
      x.view()(0, i, d) = static_cast<float>(a.of(0, i)[0] * b.of(0, 0)[static_cast<std::size_t>(d)] +
                                             a.of(0, i)[1] * b.of(0, 1)[static_cast<std::size_t>(d)]);
  float components[18], variances[9];
  principal_components(x.view()[0], tern::view(components, index{2}, index{9}), tern::view(variances, index{9}));
  CHECK((variances[1] > 0.01f && variances[2] < 1e-6f));
  CHECK(rank_of(tern::view(static_cast<float const*>(variances), index{9}), 0.9999) == 2);
  x.x[5] = std::nanf("");
  CHECK(message_of([&] {
          principal_components(x.view()[0], tern::view(components, index{2}, index{9}), tern::view(variances, index{9}));
        }) == "principal_components: the first row of some that hold NaN or infinity is 0, expected finite numbers");
}

TEST_CASE("matryoshka_kv: attention in fewer dimensions") {
  rng r(34);
  projected k(r, 90, dim), v(r, 90, dim_v);
  head_rows q(r, heads, 5, dim, 2);
  std::int32_t const ranks[] = {3, 9};
  struct of {
    index rank, rank_v;
    bool by_head;
  };
  for (auto const& now : {of{dim, dim_v, false}, {8, 6, false}, {9, 20, true}}) {
    index const rank = now.rank, rank_v = now.rank_v;
    bool const by_head = now.by_head;
    CAPTURE(rank, rank_v, by_head);
    auto of_keys = k(), of_values = v();
    if (by_head) of_keys.ranks = tern::view(ranks);
    kv_cache<float> cache({.layers = 1, .kv_heads = kv_heads, .dim = rank, .dim_v = rank_v});
    auto const s = cache.open();
    matryoshka_append(three_threads(), cache, s, 0, of_keys, of_values, k.x.view().slice(1, 0, 80), v.x.view().slice(1, 0, 80));
    matryoshka_append(cpu, cache, s, 0, of_keys, of_values, k.x.view().slice(1, 80, 90), v.x.view().slice(1, 80, 90));
    outputs to(heads, 5, dim_v);
    matryoshka_attention(three_threads(), q.view(), cache, s, 0, of_keys, of_values, to.out_view(), to.lse_view(), causal{});
    // At full rank this is attention over the keys themselves.
    auto const keys = [&](index g) { return rank == dim ? k.x.of(g / 2) : k.seen(g / 2, by_head ? ranks[g / 2] : rank); };
    auto const values = [&](index g) { return rank_v == dim_v ? v.x.of(g / 2) : v.seen(g / 2, rank_v); };
    to.check({q, keys, values, 1 / std::sqrt(24.), [](index, index i, index j) { return j <= 85 + i; }, 40});
    outputs again(heads, 5, dim_v);
    matryoshka_attention(cpu.on(serial), q.view(), cache, s, 0, of_keys, of_values, again.out_view(), again.lse_view(), causal{});
    CHECK(again.all() == to.all());
  }
  kv_cache<float> cache({.layers = 1, .kv_heads = kv_heads, .dim = dim + 1, .dim_v = 4});
  CHECK(message_of([&] { matryoshka_append(cpu, cache, cache.open(), 0, k(), v(), k.x.view(), v.x.view()); }) ==
        "matryoshka_append: the number of components is 24, expected at least the dimensions of the cache");
}

}  // namespace
}  // namespace tern::test::think_tests

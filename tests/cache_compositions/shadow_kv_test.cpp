// SPDX-License-Identifier: Apache-2.0
#include "layer.hpp"

#include <tern/cache/methods/shadow_kv.hpp>

namespace tern::test::shadow_kv_tests {
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
head_rows rotated(head_rows const& x, index first) {
  head_rows y = x;
  for (index h = 0; h < x.heads; ++h)
    for (index t = 0; t < x.tokens; ++t) {
      row const to = rotated(x.of(h, t), first + t);
      for (index d = 0; d < x.dim; ++d) y.view()(h, t, d) = static_cast<float>(to[static_cast<std::size_t>(d)]);
    }
  return y;
}

/// `rank` orthonormal rows (Gram and Schmidt).
head_rows orthonormal(rng& r, index rank, index n) {
  rows basis;
  head_rows x(r, 1, rank, n);
  for (index c = 0; c < rank; ++c) {
    row e = x.of(0, c);
    for (int twice = 0; twice < 2; ++twice)
      for (row const& b : basis) {
        double const along = dot(e, b);
        for (std::size_t d = 0; d < e.size(); ++d) e[d] -= along * b[d];
      }
    double const size = std::sqrt(dot(e, e));
    for (double& d : e) d /= size;
    basis.push_back(e);
    for (index d = 0; d < n; ++d) x.view()(0, c, d) = static_cast<float>(e[static_cast<std::size_t>(d)]);
  }
  return x;
}

struct shadow {
  index tokens, rank, chunk, local, chunks;
  head_rows k, v, basis, codes, landmarks;
  lists_of exact;
  std::vector<float> table;
  kv_cache<float> cache{{.layers = 1, .kv_heads = kv_heads, .dim = dim, .dim_v = dim_v}};
  std::int32_t s = cache.open();
  shadow(rng& r, index n, index of_rank, index of_local)
      : tokens(n),
        rank(of_rank),
        chunk(4),
        local(of_local),
        chunks(shadow_chunks(n, 4, of_local)),
        k(r, kv_heads, n, dim),
        v(r, kv_heads, n, dim_v),
        basis(orthonormal(r, of_rank, kv_heads * dim)),
        codes(1, n, of_rank),
        landmarks(kv_heads, chunks, dim),
        exact(kv_heads, std::max<index>(chunks, 1)),
        table(static_cast<std::size_t>(n * dim)) {
    rope_table(cpu, 0, tern::view(table.data(), n, dim));
  }
  shadow_context context() {
    return {.codes = codes.view()[0],
            .basis = basis.view()[0],
            .landmarks = landmarks.view(),
            .exact = exact(),
            .table = tern::view(table.data(), tokens, dim),
            .chunk = chunk};
  }
  /// The keys of A B of numbers of 8 bits, in double, rotated.
  rows made_of_bf16(index h) const {
    auto const rounded = [](double x) { return static_cast<double>(static_cast<float>(bf16(static_cast<float>(x)))); };
    rows all;
    for (index t = 0; t < tokens; ++t) {
      row key(dim, 0);
      for (index c = 0; c < rank; ++c)
        for (std::size_t d = 0; d < dim; ++d)
          key[d] += rounded(codes.of(0, t)[static_cast<std::size_t>(c)]) * rounded(basis.of(0, c)[static_cast<std::size_t>(h * dim) + d]);
      all.push_back(rotated(key, t));
    }
    return all;
  }
  /// The keys as A B gives them, in double, rotated.
  rows made(index h) const {
    rows all;
    for (index t = 0; t < tokens; ++t) {
      row whole, key(dim, 0);
      for (index g = 0; g < kv_heads; ++g)
        for (double e : k.of(g, t)) whole.push_back(e);
      for (index c = 0; c < rank; ++c) {
        row const b = basis.of(0, c);
        double const along = dot(whole, b);
        for (std::size_t d = 0; d < dim; ++d) key[d] += along * b[static_cast<std::size_t>(h * dim) + d];
      }
      all.push_back(rotated(key, t));
    }
    return all;
  }
};

TEST_CASE("shadow_kv: landmarks choose, and what is chosen is made anew") {
  struct of {
    index tokens, rank, local, outliers, budget;
  };
  for (auto const& now :
       {of{131, 32, 4, 5, 100}, {131, 32, 4, 5, 7}, {131, 13, 2, 0, 6}, {64, 9, 3, 2, 1}, {9, 5, 4, 5, 3}, {700, 13, 2, 3, 150}}) {
    index const tokens = now.tokens, rank = now.rank, local = now.local, outliers = now.outliers, budget = now.budget;
    CAPTURE(tokens, rank, local, outliers, budget);
    rng r(41);
    shadow p(r, tokens, rank, local);
    shadow_kv_prompt(three_threads(), p.k.view(), p.v.view(), p.context(), local, outliers, p.cache, p.s, 0);
    index const listed = std::min(outliers, p.chunks);
    std::vector<std::vector<std::int32_t>> outlier(kv_heads);
    std::vector<rows> landmark(kv_heads);
    for (index h = 0; h < kv_heads; ++h) {
      row score;
      for (index c = 0; c < p.chunks; ++c) {
        row mean(dim, 0);
        double least = 1;
        for (index j = c * 4; j < c * 4 + 4; ++j)
          for (std::size_t d = 0; d < dim; ++d) mean[d] += rotated(p.k.of(h, j), j)[d] / 4;
        for (index j = c * 4; j < c * 4 + 4; ++j) least = std::min(least, cosine_of(mean, rotated(p.k.of(h, j), j)));
        score.push_back(-least);
        landmark[static_cast<std::size_t>(h)].push_back(mean);
      }
      outlier[static_cast<std::size_t>(h)] = largest(score, listed);
      CHECK(p.exact[h] == outlier[static_cast<std::size_t>(h)]);
      CHECK(distance(p.landmarks.of(h), landmark[static_cast<std::size_t>(h)]) < 1e-5);
      CHECK(p.cache.length(p.s, 0, h) == listed * 4 + tokens - p.chunks * 4);
    }
    // Two tokens later.
    head_rows const late_k(r, kv_heads, 2, dim), late_v(r, kv_heads, 2, dim_v), q(r, heads, 2, dim, 2);
    head_rows rotated_k = rotated(late_k, tokens), rotated_q = rotated(q, tokens), late = late_v;
    p.cache.append(cpu, p.s, 0, rotated_k.view(), late.view());
    outputs to(heads, 2, dim_v);
    shadow_kv_attention(three_threads(), rotated_q.view(), p.context(), p.v.view(), budget, p.cache, p.s, 0, to.out_view(), to.lse_view());
    std::vector<std::vector<char>> seen;  // 1: as it was, 2: made anew
    for (index h = 0; h < kv_heads; ++h) {
      row best(static_cast<std::size_t>(p.chunks), 0);
      auto const& out = outlier[static_cast<std::size_t>(h)];
      auto const is_out = [&](index chunk) { return std::find(out.begin(), out.end(), chunk) != out.end(); };
      for (index g = 2 * h; g < 2 * h + 2 && p.chunks > 0; ++g) {
        row sum(best.size(), 0);
        for (index i = 0; i < 2; ++i) {
          row const w =
              softmax_row(rotated_q.of(g, i), landmark[static_cast<std::size_t>(h)], 1 / 4., [&](index chunk) { return !is_out(chunk); });
          for (std::size_t c = 0; c < w.size(); ++c) sum[c] += w[c];
        }
        for (std::size_t c = 0; c < sum.size(); ++c) best[c] = std::max(best[c], sum[c]);
      }
      for (index c = 0; c < p.chunks; ++c)
        if (is_out(c)) best[static_cast<std::size_t>(c)] = -1;
      std::vector<char> all(static_cast<std::size_t>(tokens + 2), 0);
      for (index j = p.chunks * 4; j < tokens + 2; ++j) all[static_cast<std::size_t>(j)] = 1;
      for (std::int32_t c : out) std::fill_n(all.begin() + c * 4, 4, char{1});
      for (std::int32_t c : largest(best, std::min(budget, p.chunks - listed))) std::fill_n(all.begin() + c * 4, 4, char{2});
      seen.push_back(all);
    }
    auto const keys = [&](index g) {
      rows all = p.made(g / 2);
      for (std::size_t j = 0; j < all.size(); ++j)
        if (seen[static_cast<std::size_t>(g / 2)][j] == 1 || rank == 32)
          all[j] = rotated(p.k.of(g / 2, static_cast<index>(j)), static_cast<index>(j));
      for (row const& e : rotated_k.of(g / 2)) all.push_back(e);
      return all;
    };
    auto const values = [&](index g) {
      rows all = p.v.of(g / 2);
      for (row const& e : late.of(g / 2)) all.push_back(e);
      return all;
    };
    auto const keys_of_bf16 = [&](index g) {
      rows all = keys(g), made = p.made_of_bf16(g / 2);
      for (std::size_t j = 0; j < made.size(); ++j)
        if (seen[static_cast<std::size_t>(g / 2)][j] == 2) all[j] = made[j];
      return all;
    };
    auto const sees = [&](index g, index i, index j) {
      return seen[static_cast<std::size_t>(g / 2)][static_cast<std::size_t>(j)] != 0 && j <= tokens + i;
    };
    to.check(by_rows(rotated_q, keys, values, 1 / 4., sees, 60));
    outputs again(heads, 2, dim_v);
    shadow_kv_attention(cpu.on(serial), rotated_q.view(), p.context(), p.v.view(), budget, p.cache, p.s, 0, again.out_view(),
                        again.lse_view());
    CHECK(again.all() == to.all());
    outputs of_bf16(heads, 2, dim_v);
    shadow_kv_attention(three_threads(), rotated_q.view(), p.context(), p.v.view(), budget, p.cache, p.s, 0, of_bf16.out_view(),
                        of_bf16.lse_view(), compute::bf16);
    of_bf16.check(by_rows(rotated_q, keys_of_bf16, values, 1 / 4., sees, 60));
    shadow_kv_attention(cpu.on(serial), rotated_q.view(), p.context(), p.v.view(), budget, p.cache, p.s, 0, again.out_view(),
                        again.lse_view(), compute::bf16);
    CHECK(again.all() == of_bf16.all());
  }
}

TEST_CASE("shadow_kv: wrong calls") {
  rng r(42);
  float const keys[] = {1, 0, 0, 0, 3, 4, 3, 4};
  float means[4], strays[2];
  chunk_means(tern::view(keys, index{4}, index{2}), 2, tern::view(means, index{2}, index{2}), tern::view(strays));
  CHECK((means[0] == 0.5f && means[1] == 0 && means[2] == 3 && means[3] == 4));
  CHECK((strays[0] == 0 && std::abs(strays[1] + 1) < 1e-6f));  // a key of zeros points nowhere
  CHECK(message_of([&] {
          chunk_means(tern::view(keys, index{4}, index{2}), 3, tern::view(means, index{2}, index{2}), tern::view(strays));
        }) == "chunk_means: means.extent(0) is 2, expected at most the whole chunks of keys");
  shadow p(r, 40, 8, 4);
  CHECK(message_of([&] { shadow_kv_prompt(cpu, p.k.view(), p.v.view(), p.context(), 3, 2, p.cache, p.s, 0); }) ==
        "shadow_kv_prompt: landmarks.extent(1) is 6, expected shadow_chunks = 7");
  shadow_kv_prompt(cpu, p.k.view(), p.v.view(), p.context(), 4, 2, p.cache, p.s, 0);
  CHECK(message_of([&] { shadow_kv_prompt(cpu, p.k.view(), p.v.view(), p.context(), 4, 2, p.cache, p.s, 0); }) ==
        "shadow_kv_prompt: the tokens of the sequence is 24, expected none = 0");
  shadow_context few = p.context();
  few.table = few.table.slice(0, 0, 39);
  outputs to(heads, 1, dim_v);
  head_rows q(r, heads, 1, dim);
  CHECK(message_of([&] { shadow_kv_attention(cpu, q.view(), few, p.v.view(), 3, p.cache, p.s, 0, to.out_view(), to.lse_view()); }) ==
        "shadow_kv_attention: table.extent(0) is 39, expected a row for each token of v");
  head_rows landmarks(kv_heads, 11, dim);
  shadow_context many = p.context();
  many.landmarks = landmarks.view();
  CHECK(message_of([&] { shadow_kv_attention(cpu, q.view(), many, p.v.view(), 3, p.cache, p.s, 0, to.out_view(), to.lse_view()); }) ==
        "shadow_kv_attention: landmarks.extent(1) is 11, expected at most the chunks of v");
}

}  // namespace
}  // namespace tern::test::shadow_kv_tests

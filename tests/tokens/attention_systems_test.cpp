// SPDX-License-Identifier: Apache-2.0
#include <tern/tokens/systems/aim.hpp>
#include <tern/tokens/systems/evad.hpp>
#include <tern/tokens/systems/expediting_vit.hpp>
#include <tern/tokens/systems/glmix.hpp>
#include <tern/tokens/systems/lemo.hpp>
#include <tern/tokens/systems/sit.hpp>
#include <tern/tokens/systems/stvit.hpp>

#include "dense.hpp"
#include "samples.hpp"

namespace tern::test {
namespace {

/// Scores of up to 8, weights of sums of values of up to 4: what attention's own bound gives for these, with room for a few steps.
constexpr double soft = 0x1p-24 * 400;

matrix unit_rows(matrix m) {
  for (auto& row : m) {
    double const length = std::sqrt(inner(row, row));
    for (double& e : row) e /= length;
  }
  return m;
}
/// softmax(factor q k^T) v
matrix attended(matrix const& q, matrix const& k, matrix const& v, double factor) {
  matrix w = each(product(q, k), [&](double e) { return factor * e; });
  softmax_rows(w);
  return product(w, transposed(v));
}
std::size_t at(index i) { return static_cast<std::size_t>(i); }

}  // namespace

TEST_CASE("sit: new tokens are mixtures of the old ones", "[tokens]") {
  rng r(61);
  index const samples = 2, tokens = 30, channels = 20, hidden = 10, slim = 7;
  token_tensor<float> const x(r, samples, tokens, channels);
  auto const gain = r.normal(channels), shift = r.normal(channels), w1 = r.normal(hidden * channels, 0.3), b1 = r.normal(hidden),
             w2 = r.normal(slim * hidden, 0.5);
  token_tensor<float> y(samples, slim, channels);
  sit(cpu, x.view,
      {tern::view(gain), tern::view(shift), tern::view(w1.data(), hidden, channels), tern::view(b1), tern::view(w2.data(), slim, hidden),
       1.5f},
      y.view);
  CHECK(y.intact());
  for (index b = 0; b < samples; ++b) {
    matrix const m = matrix_of(x.view[b]);
    matrix normed = m;
    for (auto& row : normed) {
      double const mean = std::accumulate(row.begin(), row.end(), 0.0) / static_cast<double>(channels);
      double square = 0;
      for (double e : row) square += (e - mean) * (e - mean) / static_cast<double>(channels);
      for (std::size_t c = 0; c < row.size(); ++c)
        row[c] = (row[c] - mean) / std::sqrt(square + 1e-5) * static_cast<double>(gain[c]) + static_cast<double>(shift[c]);
    }
    matrix h = product(normed, matrix_of(tern::view(w1.data(), hidden, channels)));
    for (auto& row : h)
      for (std::size_t c = 0; c < row.size(); ++c) {
        double const e = row[c] + static_cast<double>(b1[c]);
        row[c] = e * std::erfc(-e / std::sqrt(2.0)) / 2;
      }
    CHECK(near(y.view[b], attended(matrix_of(tern::view(w2.data(), slim, hidden)), h, m, 1.5), 4, soft));
  }
}

TEST_CASE("glmix: tokens are gathered into slots, and slots dispatched to tokens", "[tokens]") {
  rng r(62);
  index const samples = 2, height = 6, width = 9, channels = 16, slots = 4;
  token_tensor<float> const x(r, samples, height * width, channels);
  token_tensor<float> seeds(samples, slots, channels), s(samples, slots, channels), y(samples, height * width, channels);
  pool_grid(cpu, x.view, shape<2>{{height, width}}, seeds.view, shape<2>{{2, 2}});
  glmix_gather(cpu, x.view, seeds.view, 3.f, s.view);
  glmix_dispatch(cpu, x.view, seeds.view, 3.f, s.view, y.view);
  CHECK((seeds.intact() && s.intact() && y.intact()));
  for (index b = 0; b < samples; ++b) {
    matrix const m = matrix_of(x.view[b]);
    matrix pooled;
    for (index i = 0; i < 2; ++i)
      for (index j = 0; j < 2; ++j) {
        std::vector<double> sum(at(channels));
        double count = 0;
        for (index row = i * 3; row < i * 3 + 3; ++row)
          for (index column = j * 9 / 2; column < (j * 9 + 10) / 2; ++column, ++count)
            for (std::size_t c = 0; c < sum.size(); ++c) sum[c] += m[at(row * width + column)][c];
        for (double& e : sum) e /= count;
        pooled.push_back(sum);
      }
    CHECK(near(seeds.view[b], pooled, 1, 0x1p-24 * 20));
    matrix const k = unit_rows(m), q = unit_rows(pooled), gathered = attended(q, k, m, 3);
    CHECK(near(s.view[b], gathered, 4, soft));
    CHECK(near(y.view[b], attended(k, q, gathered, 3), 4, soft));
  }
}

TEST_CASE("stvit: semantic tokens ask themselves and the image, the image asks them", "[tokens]") {
  rng r(63);
  index const heads = 2, tokens = 33, semantic = 5, dim = 8;
  auto const q = r.normal(heads * semantic * dim), ks = r.normal(heads * semantic * dim), vs = r.normal(heads * semantic * dim),
             kx = r.normal(heads * tokens * dim), vx = r.normal(heads * tokens * dim), qx = r.normal(heads * tokens * dim);
  std::vector<float> out(q.size()), out_x(qx.size());
  auto const few = [&](auto& x) { return tern::view(x.data(), index{1}, heads, semantic, dim); };
  auto const many = [&](auto& x) { return tern::view(x.data(), index{1}, heads, tokens, dim); };
  stvit_refine(cpu, few(q), few(ks), many(kx), few(vs), many(vx), few(out));
  stvit_recover(cpu, many(qx), few(ks), few(vs), many(out_x));
  for (index h = 0; h < heads; ++h) {
    matrix k = matrix_of(few(ks)[0][h]), v = matrix_of(few(vs)[0][h]);
    CHECK(near(many(out_x)[0][h], attended(matrix_of(many(qx)[0][h]), k, v, 1 / std::sqrt(8.0)), 4, soft));
    for (auto const& row : matrix_of(many(kx)[0][h])) k.push_back(row);
    for (auto const& row : matrix_of(many(vx)[0][h])) v.push_back(row);
    CHECK(near(few(out)[0][h], attended(matrix_of(few(q)[0][h]), k, v, 1 / std::sqrt(8.0)), 4, soft));
  }
}

TEMPLATE_TEST_CASE("expediting_vit: clusters by definition, and the image put together again", "[tokens]", float, bf16) {
  rng r(64);
  index const samples = 2, height = 8, width = 12, channels = 10, h = 2, w = 3, clusters = h * w;
  token_tensor<TestType> const x(r, samples, height * width, channels);
  token_tensor<float> s(samples, clusters, channels), y(samples, height * width, channels);
  token_tensor<float> const refined(r, samples, clusters, channels);
  expediting_options const how{.temperature = 0.1f, .iterations = 3, .reach = 1, .nearest = 4};
  expediting_cluster(cpu, x.view, shape<2>{{height, width}}, how, s.view, shape<2>{{h, w}});
  expediting_reconstruct(cpu, x.view, s.view, refined.view, how, y.view);
  CHECK((s.intact() && y.intact()));
  for (index b = 0; b < samples; ++b) {
    matrix const m = matrix_of(x.view[b]);
    matrix centers(at(clusters), std::vector<double>(at(channels)));
    auto const own = [&](index i) { return std::pair{i / width * h / height, i % width * w / width}; };
    for (index i = 0; i < height * width; ++i)
      for (index c = 0; c < channels; ++c) centers[at(own(i).first * w + own(i).second)][at(c)] += m[at(i)][at(c)] / 16;
    for (int n = 0; n < 3; ++n) {
      matrix a;
      for (index i = 0; i < height * width; ++i) {
        a.emplace_back();
        for (index p = 0; p < clusters; ++p) {
          bool const near_by = std::abs(p / w - own(i).first) <= 1 && std::abs(p % w - own(i).second) <= 1;
          a.back().push_back(near_by ? -0.1 * distance_squared(m[at(i)], centers[at(p)]) : -INFINITY);
        }
      }
      softmax_rows(a);
      for (index p = 0; p < clusters; ++p) {
        double total = 0;
        std::vector<double> sum(at(channels));
        for (index i = 0; i < height * width; ++i) {
          total += a[at(i)][at(p)];
          for (index c = 0; c < channels; ++c) sum[at(c)] += a[at(i)][at(p)] * m[at(i)][at(c)];
        }
        for (index c = 0; c < channels; ++c) centers[at(p)][at(c)] = sum[at(c)] / total;
      }
    }
    CHECK(near(s.view[b], centers, 4, soft));
    matrix const found = matrix_of(s.view[b]);  // so that the nearest are the same
    matrix want;
    for (index i = 0; i < height * width; ++i) {
      ids order(at(clusters));
      std::iota(order.begin(), order.end(), 0);
      auto const d = [&](std::int32_t p) { return distance_squared(m[at(i)], found[at(p)]); };
      std::sort(order.begin(), order.end(), [&](std::int32_t p, std::int32_t q) { return d(p) < d(q); });
      double total = 0;
      std::vector<double> sum(at(channels));
      for (std::size_t n = 0; n < 4; ++n) {
        double const weight = std::exp(-0.1 * d(order[n]));
        total += weight;
        for (index c = 0; c < channels; ++c) sum[at(c)] += weight * refined(b, order[n], c);
      }
      for (double& e : sum) e /= total;
      want.push_back(sum);
    }
    CHECK(near(y.view[b], want, 4, soft));
  }
}

TEST_CASE("expediting_vit: one cluster a token and no reach changes nothing; wrong calls are refused", "[tokens]") {
  rng r(65);
  token_tensor<float> const x(r, 1, 12, 5);
  token_tensor<float> s(1, 12, 5), y(1, 12, 5);
  expediting_options how{.temperature = 0.1f, .iterations = 2, .reach = 0, .nearest = 1};
  expediting_cluster(cpu, x.view, shape<2>{{3, 4}}, how, s.view, shape<2>{{3, 4}});
  expediting_reconstruct(cpu, x.view, s.view, s.view, how, y.view);
  for (index i = 0; i < 12; ++i) CHECK((same_bits(s.token(0, i), x.token(0, i)) && same_bits(y.token(0, i), x.token(0, i))));
  how.nearest = 13;
  CHECK(message_of([&] { expediting_reconstruct(cpu, x.view, s.view, s.view, how, y.view); }) ==
        "expediting_reconstruct: nearest is 13, expected 1 to the number of clusters");
  CHECK(message_of([&] { pool_grid(cpu, x.view, shape<2>{{3, 5}}, s.view, shape<2>{{3, 4}}); }) ==
        "pool_grid: x.extent(1) is 12, expected the tokens of the grid = 15");
  ids const other(12, 12);
  std::vector<float> const weights(12);
  CHECK(message_of([&] { mix_tokens(cpu, tern::view(other.data(), 1, 12, 1), tern::view(weights.data(), 1, 12, 1), x.view, y.view); }) ==
        "mix_tokens: an id is 12, expected -1 or a token of from");
}

TEST_CASE("evad: the keyframe's tokens, and those that it attends to", "[tokens]") {
  rng r(66);
  index const heads = 2, tokens = 24, dim = 8, keys = 6;
  auto const q = r.normal(heads * tokens * dim), k = r.normal(heads * tokens * dim), v = r.normal(heads * tokens * dim);
  auto const view = [&](auto& x) { return tern::view(x.data(), index{1}, heads, tokens, dim); };
  std::vector<float> out(q.size()), lse(at(heads * tokens)), scores(at(tokens));
  auto const l = tern::view(lse.data(), 1, heads, tokens);
  auto const s = tern::view(scores.data(), 1, tokens);
  attention(cpu, view(q), view(k), view(v), view(out), log_sum_exp{l});
  token_lists kept(1, tokens);
  evad(cpu, view(q), view(k), l, keys, 0.5, 4.f, s, kept.view);
  std::vector<double> want(at(tokens));
  for (index h = 0; h < heads; ++h) {
    matrix p = each(product(matrix_of(view(q)[0][h]), matrix_of(view(k)[0][h])), [](double e) { return e / std::sqrt(8.0); });
    softmax_rows(p);
    for (index i = 0; i < tokens; ++i)
      for (index j = 0; j < tokens; ++j) want[at(j)] += p[at(i)][at(j)] * (i < keys ? 4 : 1) / static_cast<double>(heads * tokens);
  }
  CHECK(compare(scores, want, want, soft));
  ids order;
  for (std::int32_t i = keys; i < tokens; ++i) order.push_back(i);
  std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) { return want[at(a)] > want[at(b)]; });
  order.resize(at(tokens / 2 - keys));
  for (std::int32_t i = 0; i < keys; ++i) order.push_back(i);
  std::sort(order.begin(), order.end());
  CHECK(kept.row(0) == order);
  evad(cpu, view(q), view(k), l, keys, 1, 4.f, s, kept.view);
  CHECK(kept.view.count(0) == tokens);
  evad(cpu, view(q), view(k), l, keys, 0.1, 4.f, s, kept.view);
  CHECK(kept.row(0) == ids{0, 1, 2, 3, 4, 5});
  CHECK(message_of([&] { evad(cpu, view(q), view(k), l, keys, 0.5, 0.f, s, kept.view); }) ==
        "evad: the sign of weight is 0, expected that of a positive number");
}

TEST_CASE("aim: importance is a PageRank; text stays, and a share of the rest", "[tokens]") {
  rng r(67);
  index const heads = 3, tokens = 17, dim = 8;
  auto const q = r.normal(heads * tokens * dim, 0.4), k = r.normal(heads * tokens * dim, 0.4);
  auto const view = [&](auto& x) { return tern::view(x.data(), index{1}, heads, tokens, dim); };
  std::vector<float> importance(at(tokens));
  auto const to = tern::view(importance.data(), 1, tokens);
  aim_importance(cpu, view(q), view(k), to, causal{});
  std::vector<double> squares(at(tokens));
  for (index h = 0; h < heads; ++h) {
    matrix p = each(product(matrix_of(view(q)[0][h]), matrix_of(view(k)[0][h])), [](double e) { return e / std::sqrt(8.0) / 0.1; });
    for (std::size_t i = 0; i < p.size(); ++i)
      for (std::size_t j = i + 1; j < p.size(); ++j) p[i][j] = -INFINITY;
    softmax_rows(p);
    std::vector<double> rank(at(tokens), 1.0 / 17);
    for (int n = 0; n < 5; ++n) {
      std::vector<double> next(at(tokens));
      for (std::size_t i = 0; i < p.size(); ++i)
        for (std::size_t j = 0; j < p.size(); ++j) next[j] += rank[i] * p[i][j];
      rank = next;
    }
    for (std::size_t j = 0; j < rank.size(); ++j) squares[j] += rank[j] * rank[j] / 3;
  }
  for (double& e : squares) e = std::sqrt(e);
  CHECK(compare(importance, squares, squares, 5 * soft));  // five products of weights whose scores are ten times as large
  token_lists const text({{0, 1, 14, 15, 16}}, tokens);
  token_lists kept(1, tokens);
  aim_prune(cpu, to, text.view, 0.5, kept.view);
  ids order;
  for (std::int32_t i = 2; i < 14; ++i) order.push_back(i);
  std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) { return squares[at(a)] > squares[at(b)]; });
  order.resize(6);
  for (std::int32_t i : {0, 1, 14, 15, 16}) order.push_back(i);
  std::sort(order.begin(), order.end());
  CHECK(kept.row(0) == order);
  aim_prune(cpu, to, text.view, 0, kept.view);
  CHECK(kept.row(0) == text.row(0));
}

TEST_CASE("lemo: kept tokens among themselves, where they lie", "[tokens]") {
  rng r(68);
  index const heads = 2, tokens = 30, dim = 8;
  ids const kept{0, 3, 4, 11, 20, 21, 29};
  auto const q = r.normal(heads * tokens * dim), k = r.normal(heads * tokens * dim), v = r.normal(heads * tokens * dim);
  guarded<float> out(heads * tokens * dim);
  auto const view = [&](auto& x) { return tern::view(x.data(), heads, tokens, dim); };
  lemo_attention(cpu, view(q), view(k), view(v), view(out), kept, causal{});
  auto const some = [&](auto const& x) {
    matrix m;
    for (std::int32_t i : kept) m.push_back(matrix_of(x)[at(i)]);
    return m;
  };
  for (index h = 0; h < heads; ++h) {
    matrix p = each(product(some(view(q)[h]), some(view(k)[h])), [](double e) { return e / std::sqrt(8.0); });
    for (std::size_t i = 0; i < p.size(); ++i)
      for (std::size_t j = i + 1; j < p.size(); ++j) p[i][j] = -INFINITY;
    softmax_rows(p);
    matrix const want = product(p, transposed(some(view(v)[h])));
    std::size_t next = 0;
    for (index i = 0; i < tokens; ++i) {
      auto const row = view(out)[h].slice(0, i, i + 1);
      if (next < kept.size() && kept[next] == i)
        CHECK(near(row, matrix{want[next++]}, 4, soft));
      else
        CHECK(is_poison(std::vector<float>(&row(0, 0), &row(0, 0) + dim)));
    }
  }
  auto const w = r.normal(5 * dim);
  guarded<float> y(tokens * 5);
  lemo_matmul(cpu, view(q)[0], kept, tern::view(w.data(), 5, dim), tern::view(y.data(), tokens, 5));
  for (index i = 0; i < tokens; ++i) {
    auto const row = tern::view(y.data() + i * 5, 1, 5);
    if (std::find(kept.begin(), kept.end(), i) != kept.end())
      CHECK(near(row, product({matrix_of(view(q)[0])[at(i)]}, matrix_of(tern::view(w.data(), 5, dim))), 10, 0x1p-24 * 16));
    else
      CHECK(is_poison(std::vector<float>(row.data(), row.data() + 5)));
  }
  ids all(at(tokens));
  std::iota(all.begin(), all.end(), 0);
  std::vector<float> whole(q.size()), plain(q.size());
  lemo_attention(cpu, view(q), view(k), view(v), view(whole), all);
  attention(cpu, view(q), view(k), view(v), view(plain));
  CHECK(whole == plain);
  ids const back{3, 1};
  CHECK(message_of([&] { lemo_attention(cpu, view(q), view(k), view(v), view(out), back); }) ==
        "attention: a kept token is 1, expected more than the one before it, 3");
}

}  // namespace tern::test

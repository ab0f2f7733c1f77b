// SPDX-License-Identifier: Apache-2.0
#include <tern/tokens/attention_received.hpp>
#include <tern/tokens/proportional.hpp>
#include <tern/tokens/token_norms.hpp>

#include "samples.hpp"

namespace tern::test {
namespace {

/// Queries, keys and values of several heads, with the weights of every key by definition.
struct attended {
  index samples, heads, tokens, dim;
  std::vector<float> q, k, v, out, lse;
  std::vector<double> sizes;  // (samples, tokens)

  attended(rng& r, index b, index h, index n, index d)
      : samples(b),
        heads(h),
        tokens(n),
        dim(d),
        q(r.normal(b * h * n * d)),
        k(r.normal(b * h * n * d)),
        v(r.normal(b * h * n * d)),
        out(q.size()),
        lse(static_cast<std::size_t>(b * h * n)),
        sizes(static_cast<std::size_t>(b * n), 1.) {}
  tensor_view<float, 4> view(std::vector<float>& x) { return tern::view(x.data(), samples, heads, tokens, dim); }
  tensor_view<float, 3> lse_view() { return tern::view(lse.data(), samples, heads, tokens); }

  double score(index b, index h, index i, index j) const {
    double dot = 0;
    std::size_t const row = static_cast<std::size_t>((b * heads + h) * tokens * dim);
    for (index d = 0; d < dim; ++d)
      dot += static_cast<double>(q[row + static_cast<std::size_t>(i * dim + d)]) *
             static_cast<double>(k[row + static_cast<std::size_t>(j * dim + d)]);
    return dot / std::sqrt(static_cast<double>(dim));
  }
  /// The softmax weights of a query, where key j counts sizes_j times.
  std::vector<double> weights(index b, index h, index i) const {
    std::vector<double> w;
    double sum = 0;
    for (index j = 0; j < tokens; ++j) w.push_back(std::exp(score(b, h, i, j)) * sizes[static_cast<std::size_t>(b * tokens + j)]);
    for (double e : w) sum += e;
    for (double& e : w) e /= sum;
    return w;
  }
  std::vector<double> received(index b, query_range const& range) const {
    std::vector<double> sum(static_cast<std::size_t>(tokens));
    for (index h = 0; h < heads; ++h)
      for (index i = range.first; i < range.last; i += range.step) {
        auto const w = weights(b, h, i);
        for (std::size_t j = 0; j < sum.size(); ++j) sum[j] += w[j] / static_cast<double>(heads * range.count());
      }
    return sum;
  }
  /// What a weight may be off by, relatively: scores and their logarithm's sum, of which the largest is below 8 here.
  double tolerance() const {
    return 0x1p-24 * (attention_accuracy::b0 + attention_accuracy::b1 * std::sqrt(static_cast<double>(dim)) * 8 + 2 * 16 +
                      std::sqrt(static_cast<double>(tokens)) + static_cast<double>(heads) + 4);
  }
};

}  // namespace

TEST_CASE("attention_received: the mean of weights over heads and queries", "[tokens]") {
  rng r(41);
  for (index tokens : {5, 70}) {
    attended a(r, 2, 3, tokens, 16);
    attention(cpu, a.view(a.q), a.view(a.k), a.view(a.v), a.view(a.out), log_sum_exp{a.lse_view()});
    for (query_range const range : {query_range{0, 1}, query_range{2, 5}, query_range{0, tokens}, query_range{1, tokens, 3}}) {
      guarded<float> scores(2 * tokens, 1);
      attention_received(cpu, a.view(a.q), a.view(a.k), a.lse_view(), range, tern::view(scores.data(), 2, tokens));
      for (index b = 0; b < 2; ++b) {
        auto const want = a.received(b, range);
        CHECK(compare(scores.data() + b * tokens, want.data(), want.data(), tokens, a.tolerance()));
      }
      CHECK(scores.intact());
    }
  }
}

TEST_CASE("attention_received: from all queries, as the attention call saw them", "[tokens]") {
  rng r(45);
  for (index tokens : {5, 70}) {
    attended a(r, 2, 3, tokens, 16);
    std::vector<float> sums(static_cast<std::size_t>(2 * 3 * tokens));
    auto const weights = tern::view(sums.data(), 2, 3, tokens);
    attention(cpu, a.view(a.q), a.view(a.k), a.view(a.v), a.view(a.out), key_weights{weights});
    guarded<float> scores(2 * tokens, 1);
    attention_received(cpu, weights, tokens, tern::view(scores.data(), 2, tokens));
    for (index b = 0; b < 2; ++b) {
      auto const want = a.received(b, {0, tokens});
      CHECK(compare(scores.data() + b * tokens, want.data(), want.data(), tokens, a.tolerance()));
    }
    CHECK(scores.intact());
    CHECK(message_of([&] { attention_received(cpu, weights, 0, tern::view(scores.data(), 2, tokens)); }) ==
          "attention_received: the number of queries is 0, expected at least 1");
  }
}

TEST_CASE("proportional: a token counts as often as its size says", "[tokens]") {
  rng r(42);
  index const tokens = 37, dim = 8;
  attended a(r, 2, 2, tokens, dim);
  std::vector<float> sizes, logarithms(a.sizes.size());
  for (double& s : a.sizes) sizes.push_back(static_cast<float>(s = static_cast<double>(r.integer(1, 9))));
  auto const log_view = tern::view(logarithms.data(), 2, tokens);
  log_sizes(cpu, tern::view(sizes.data(), 2, tokens), log_view);
  attention(cpu, a.view(a.q), a.view(a.k), a.view(a.v), a.view(a.out), log_sum_exp{a.lse_view()}, proportional{log_view});
  for (index b = 0; b < 2; ++b)
    for (index h = 0; h < 2; ++h)
      for (index i = 0; i < tokens; ++i) {
        auto const w = a.weights(b, h, i);
        std::vector<double> want(static_cast<std::size_t>(dim)), magnitude(want.size());
        std::size_t const head = static_cast<std::size_t>((b * 2 + h) * tokens * dim);
        for (index j = 0; j < tokens; ++j)
          for (std::size_t d = 0; d < want.size(); ++d) {
            double const x = w[static_cast<std::size_t>(j)] * static_cast<double>(a.v[head + static_cast<std::size_t>(j * dim) + d]);
            want[d] += x;
            magnitude[d] += std::abs(x);
          }
        CHECK(compare(a.out.data() + head + static_cast<std::size_t>(i * dim), want.data(), magnitude.data(), dim, a.tolerance()));
      }
  std::vector<float> scores(static_cast<std::size_t>(2 * tokens));
  attention_received(cpu, a.view(a.q), a.view(a.k), a.lse_view(), {0, 1}, tern::view(scores.data(), 2, tokens), proportional{log_view});
  for (index b = 0; b < 2; ++b) {
    auto const want = a.received(b, {0, 1});
    CHECK(compare(scores.data() + b * tokens, want.data(), want.data(), tokens, a.tolerance()));
  }
}

TEST_CASE("token_norms: of every token", "[tokens]") {
  rng r(44);
  for (index channels : {1, 16, 50}) {
    token_tensor<bf16> const x(r, 2, 9, channels);
    std::vector<float> scores(18);
    token_norms(cpu.on(several_threads()), x.view, tern::view(scores.data(), 2, 9));
    for (index i = 0; i < 18; ++i) {
      double sum = 0;
      for (index c = 0; c < channels; ++c) sum += x(i / 9, i % 9, c) * x(i / 9, i % 9, c);
      double const want = std::sqrt(sum);
      CHECK(compare(&scores[static_cast<std::size_t>(i)], &want, &want, 1, token_norms.error(channels)));
    }
  }
}

TEST_CASE("scores: wrong calls are refused by name", "[tokens]") {
  rng r(45);
  attended a(r, 2, 2, 6, 4);
  std::vector<float> scores(12);
  auto const s = tern::view(scores.data(), 2, 6);
  auto const received = [&](query_range const& range, tensor_view<float, 2> const& to) {
    attention_received(cpu, a.view(a.q), a.view(a.k), a.lse_view(), range, to);
  };
  CHECK(message_of([&] { received({0, 7}, s); }) == "attention_received: the end of the queries is 7, expected a range of q's tokens");
  CHECK(message_of([&] { received({3, 3}, s); }) == "attention_received: the number of queries is 0, expected at least 1");
  CHECK(message_of([&] { received({0, 6, 0}, s); }) == "attention_received: the step of the queries is 0, expected at least 1");
  CHECK(message_of([&] { received({0, 1}, tern::view(scores.data(), 2, 5)); }) ==
        "attention_received: scores.extent(1) is 5, expected the keys = 6");
  CHECK(message_of([&] {
          attention(cpu, a.view(a.q), a.view(a.k), a.view(a.v), a.view(a.out), proportional{tern::view(scores.data(), 1, 6)});
        }) == "attention: the samples of proportional is 1, expected the batch = 2");
  CHECK(message_of([&] { log_sizes(cpu, s, tern::view(scores.data(), 2, 5)); }) ==
        "log_sizes: logarithms.extent(1) is 5, expected sizes.extent(1) = 6");
  token_tensor<float> const x(r, 2, 6, 3);
  CHECK(message_of([&] { token_norms(cpu, x.view, tern::view(scores.data(), 2, 5)); }) ==
        "token_norms: scores.extent(1) is 5, expected x.extent(1) = 6");
}

}  // namespace tern::test

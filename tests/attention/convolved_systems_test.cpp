// SPDX-License-Identifier: Apache-2.0
#include <tern/attention/systems/kernelized_rpe.hpp>
#include <tern/attention/systems/tcnca.hpp>

#include "catch.hpp"
#include "compare.hpp"
#include "message.hpp"

#include <functional>
#include <limits>

namespace tern::test {
namespace {

std::size_t at(index i) { return static_cast<std::size_t>(i); }

/// Heads of n tokens; features as a function of a token's numbers.
struct rpe_case {
  rng r;
  index heads = 2, n, dim = 5, dim_v = 3, m = 7;
  std::vector<float> q, k, v, b, w, out;

  explicit rpe_case(index tokens)
      : r(static_cast<std::uint64_t>(tokens)),
        n(tokens),
        q(r.normal(heads * n * dim)),
        k(r.normal(heads * n * dim)),
        v(r.normal(heads * n * dim_v)),
        b(r.normal(heads * (2 * n - 1))),
        w(r.normal(m * dim)),
        out(v.size()) {}
  template <class... Options>
  void run(Options const&... options) {
    kernelized_rpe(cpu, view(q.data(), heads, n, dim), view(k.data(), heads, n, dim), view(v.data(), heads, n, dim_v),
                   view(b.data(), heads, 2 * n - 1), view(out.data(), heads, n, dim_v), options...);
  }
  std::vector<double> token(std::vector<float> const& x, index h, index i) const {
    std::vector<double> t;
    for (index d = 0; d < dim; ++d) t.push_back(static_cast<double>(x[at((h * n + i) * dim + d)]));
    return t;
  }
  /// The definition. Errors are relative to the sizes of convolved rows, over the denominator.
  using map = std::function<std::vector<double>(std::vector<double> const&)>;
  comparison close(map const& phi, bool is_causal) const {
    std::vector<double> want, sizes;
    for (index h = 0; h < heads; ++h) {
      double most = -1e300, squares = 0;
      index const first = is_causal ? n - 1 : 2 * n - 2;
      for (index t = 0; t <= first; ++t) most = std::max(most, bias(h, t));
      for (index t = 0; t <= first; ++t) squares += std::exp(2 * (bias(h, t) - most));
      std::vector<std::vector<double>> of_k;
      std::vector<double> feature_size(phi(token(k, h, 0)).size());
      for (index j = 0; j < n; ++j) {
        of_k.push_back(phi(token(k, h, j)));
        for (std::size_t f = 0; f < feature_size.size(); ++f) feature_size[f] += of_k.back()[f] * of_k.back()[f];
      }
      for (index i = 0; i < n; ++i) {
        auto const of_q = phi(token(q, h, i));
        std::vector<double> sum(at(dim_v));
        double below = 0, size = 0;
        for (index j = 0; j < (is_causal ? i + 1 : n); ++j) {
          double product = 0;
          for (std::size_t f = 0; f < of_q.size(); ++f) product += of_q[f] * of_k[at(j)][f];
          double const weight = std::exp(bias(h, j - i + n - 1) - most) * product;
          below += weight;
          for (index d = 0; d < dim_v; ++d) sum[at(d)] += weight * static_cast<double>(v[at((h * n + j) * dim_v + d)]);
        }
        for (std::size_t f = 0; f < of_q.size(); ++f) size += of_q[f] * std::sqrt(feature_size[f] * squares);
        for (double s : sum) {
          want.push_back(s / below);
          sizes.push_back(4 * size / below * (1 + std::abs(s / below)));  // v's numbers stay below 4
        }
      }
    }
    // long_conv's bound, and a few roundings of features, of factors and of the sum over features.
    return compare(out, want, sizes, long_conv.error(3 * n) + 0x1p-24 * (16 + matmul.accuracy(dim)));
  }
  double bias(index h, index t) const { return static_cast<double>(b[at(h * (2 * n - 1) + t)]); }

  map random_features() const {
    return [this](std::vector<double> const& x) {
      double squares = 0;
      for (double e : x) squares += e * e;
      std::vector<double> phi;
      for (index f = 0; f < m; ++f) {
        double dot = 0;
        for (index d = 0; d < dim; ++d) dot += static_cast<double>(w[at(f * dim + d)]) * x[at(d)];
        phi.push_back(std::exp(dot / std::sqrt(squares) - 0.5) / std::sqrt(static_cast<double>(m)));
      }
      return phi;
    };
  }
  static std::vector<double> elu(std::vector<double> x) {
    for (double& e : x) e = e > 0 ? e + 1 : std::exp(e);
    return x;
  }
};

}  // namespace

TEST_CASE("kernelized_rpe is the sum of its definition, for every key and for those before", "[attention]") {
  for (index n : {1, 2, 17, 150, 700}) {
    rpe_case c(n);
    INFO("n " << n);
    c.run(positive_random_features{view(c.w.data(), c.m, c.dim)});
    CHECK(c.close(c.random_features(), false));
    c.run(positive_random_features{view(c.w.data(), c.m, c.dim)}, causal{});
    CHECK(c.close(c.random_features(), true));
    c.run(elu_features{});
    CHECK(c.close(&rpe_case::elu, false));
    c.run(elu_features{}, causal{});
    CHECK(c.close(&rpe_case::elu, true));
  }
}

TEST_CASE("kernelized_rpe: a bias for the own token alone gives back the values, a constant one is linear attention", "[attention]") {
  rpe_case c(60);
  auto const lowest = -std::numeric_limits<float>::infinity();
  for (index h = 0; h < c.heads; ++h)
    for (index t = 0; t < 2 * c.n - 1; ++t) c.b[at(h * (2 * c.n - 1) + t)] = t == c.n - 1 ? 3.f : lowest;
  c.run(elu_features{});
  CHECK(c.close(&rpe_case::elu, false));
  CHECK(compare(c.out, widened(c.v), std::vector<double>(c.v.size(), 100.), 0x1p-18));
  for (float& e : c.b) e = 80.f;  // e^80 times what is summed would overflow
  c.run(elu_features{}, causal{});
  CHECK(c.close(&rpe_case::elu, true));
}

TEST_CASE("kernelized_rpe says what is wrong", "[attention]") {
  rpe_case c(4);
  auto const q = view(c.q.data(), 2, 4, 5), k = view(c.k.data(), 2, 4, 5), v = view(c.v.data(), 2, 4, 3), out = view(c.out.data(), 2, 4, 3);
  auto const b = view(c.b.data(), 2, 7);
  CHECK(message_of([&] { kernelized_rpe(cpu, q, k.slice(1, 0, 3), v, b, out, elu_features{}); }) ==
        "kernelized_rpe: k.extent(1) is 3, expected q.extent(1) = 4");
  CHECK(message_of([&] { kernelized_rpe(cpu, q, k, v.slice(0, 0, 1), b, out, elu_features{}); }) ==
        "kernelized_rpe: v.extent(0) is 1, expected q.extent(0) = 2");
  CHECK(message_of([&] { kernelized_rpe(cpu, q, k, v, b, out.slice(2, 0, 2), elu_features{}); }) ==
        "kernelized_rpe: out.extent(2) is 2, expected v.extent(2) = 3");
  CHECK(message_of([&] { kernelized_rpe(cpu, q, k, v, b.slice(1, 0, 4), out, elu_features{}); }) ==
        "kernelized_rpe: b.extent(1) is 4, expected 2 q.extent(1) - 1 = 7");
  CHECK(message_of([&] { kernelized_rpe(cpu, q, k, v, b, out, positive_random_features{view(c.w.data(), 7, 4)}); }) ==
        "kernelized_rpe: w.extent(1) is 4, expected q.extent(2) = 5");
  CHECK(message_of([&] { kernelized_rpe(cpu, q, k, v, b, out, elu_features{}, causal{2}); }) ==
        "kernelized_rpe: the offset of causal is 2, expected none");
}

namespace {

/// A layer of the definition: x (length, channels) of one sequence.
std::vector<double> dilated_layer(std::vector<double> const& x, float const* w, index width, index apart, index channels, bool rectified) {
  std::vector<double> y(x.size());
  for (index i = 0; i < static_cast<index>(x.size()); ++i) {
    for (index j = 0; j < width; ++j) {
      index const from = i - (width - 1 - j) * apart * channels;
      if (from >= 0) y[at(i)] += static_cast<double>(w[j * channels + i % channels]) * x[at(from)];
    }
    if (rectified) y[at(i)] = std::max(y[at(i)], 0.);
  }
  return y;
}

}  // namespace

TEST_CASE("tcnca: a stack of dilated convolutions, whole and token by token", "[attention]") {
  rng r(3);
  index const length = 130, channels = 11, width = 5, growth = 3;
  for (index layers : {1, 2, 4})
    for (bool rectified : {false, true}) {
      auto const x = r.normal(2 * length * channels), w = r.normal(layers * width * channels, 0.4);
      std::vector<float> whole(x.size()), pieces(x.size());
      auto const xs = view(x.data(), 2, length, channels);
      auto const ws = view(w.data(), layers, width, channels);
      auto const ys = view(pieces.data(), 2, length, channels);
      index const rows = tcnca_rows(layers, width, growth);
      std::vector<float> state(at(2 * rows * channels));
      std::vector<index> first(at(layers));
      tcnca_state const kept{view(state.data(), 2, rows, channels), view(first)};
      auto const call = [&](auto const& from, auto const& to, auto const&... with) {
        if (rectified)
          tcnca_convolve(cpu, from, ws, growth, to, with..., act::relu{});
        else
          tcnca_convolve(cpu, from, ws, growth, to, with...);
      };
      call(xs, view(whole.data(), 2, length, channels));
      for (index t = 0, step = 1; t < length; t += step, step = step % 3 + 1) {
        index const end = std::min(length, t + step);
        call(xs.slice(1, t, end), ys.slice(1, t, end), kept);
      }
      CHECK(whole == pieces);
      for (index b = 0; b < 2; ++b) {
        auto const all = widened(x);
        std::vector<double> y(all.begin() + b * length * channels, all.begin() + (b + 1) * length * channels), size = y;
        for (double& e : size) e = std::abs(e);
        auto const magnitudes = [&](float const* at_layer) {
          std::vector<float> absolute;
          for (index i = 0; i < width * channels; ++i) absolute.push_back(std::abs(at_layer[i]));
          return absolute;
        };
        for (index l = 0, apart = 1; l < layers; ++l, apart *= growth) {
          float const* const of_layer = w.data() + l * width * channels;
          y = dilated_layer(y, of_layer, width, apart, channels, rectified);
          size = dilated_layer(size, magnitudes(of_layer).data(), width, apart, channels, false);
        }
        auto const got = view(whole.data() + b * length * channels, length * channels);
        CHECK(compare(got, y, size, static_cast<double>(layers) * causal_conv.accuracy(width) * 0x1p-24));
      }
    }
  static_assert(tcnca_rows(4, 17, 17) == 16 * (1 + 17 + 289 + 4913));
}

TEST_CASE("tcnca: attention within chunks, whole and token by token", "[attention]") {
  rng r(4);
  index const heads = 2, n = 45, dim = 8, chunk = 16;
  auto const q = r.normal(heads * n * dim), k = r.normal(heads * n * dim), v = r.normal(heads * n * dim);
  std::vector<float> out(q.size()), step(at(heads * dim));
  auto const qs = view(q.data(), heads, n, dim), ks = view(k.data(), heads, n, dim), vs = view(v.data(), heads, n, dim);
  tcnca_attention(cpu, qs, ks, vs, view(out.data(), heads, n, dim), chunk);
  std::vector<double> want;
  for (index h = 0; h < heads; ++h)
    for (index i = 0; i < n; ++i) {
      std::vector<double> sum(at(dim));
      double below = 0;
      for (index j = i / chunk * chunk; j <= i; ++j) {
        double s = 0;
        for (index d = 0; d < dim; ++d) s += static_cast<double>(qs(h, i, d)) * static_cast<double>(ks(h, j, d));
        double const weight = std::exp(s / std::sqrt(static_cast<double>(dim)));
        below += weight;
        for (index d = 0; d < dim; ++d) sum[at(d)] += weight * static_cast<double>(vs(h, j, d));
      }
      for (double s : sum) want.push_back(s / below);
    }
  std::vector<double> const sizes(want.size(), 4.);
  CHECK(compare(out, want, sizes, 0x1p-20));
  for (index t = 0; t < n; ++t) {
    index const from = t / chunk * chunk;
    tcnca_attention(cpu, qs.slice(1, t, t + 1), ks.slice(1, from, t + 1), vs.slice(1, from, t + 1), view(step.data(), heads, 1, dim), chunk,
                    t);
    for (index i = 0; i < heads * dim; ++i)
      REQUIRE(std::abs(static_cast<double>(step[at(i)]) - want[at((i / dim * n + t) * dim + i % dim)]) <= 4 * 0x1p-20);
  }
}

TEST_CASE("tcnca says what is wrong", "[attention]") {
  std::vector<float> x(2 * 5 * 6), y(x.size()), w(2 * 3 * 6);
  std::vector<index> first(2);
  auto const xs = view(x.data(), 2, 5, 6), ys = view(y.data(), 2, 5, 6);
  auto const ws = view(w.data(), 2, 3, 6);
  tcnca_state const state{view(x.data(), 2, 5, 6), view(first)};
  CHECK(message_of([&] { tcnca_convolve(cpu, xs, ws, 0, ys); }) == "tcnca_convolve: growth is 0, expected at least 1");
  CHECK(message_of([&] { tcnca_convolve(cpu, xs, view(w.data(), 4, 1, 6), 2048, ys); }) ==
        "tcnca_convolve: growth is 2048, expected a dilation of at most 2^31 in every layer");
  CHECK(message_of([&] { tcnca_convolve(cpu, xs, ws.slice(0, 0, 0), 2, ys); }) == "tcnca_convolve: w.extent(0) is 0, expected at least 1");
  CHECK(message_of([&] { tcnca_convolve(cpu, xs, ws, 2, xs); }) == "tcnca_convolve: y is x, expected memory of its own");
  CHECK(message_of([&] { tcnca_convolve(cpu, xs, ws, 2, ys.slice(1, 0, 4)); }) ==
        "tcnca_convolve: y.extent(1) is 4, expected x.extent(1) = 5");
  CHECK(message_of([&] { tcnca_convolve(cpu, xs, ws, 2, ys, state); }) ==
        "tcnca_convolve: state.values.extent(1) is 5, expected tcnca_rows(layers, width, growth) = 6");
  CHECK(message_of([&] { tcnca_convolve(cpu, xs, ws.slice(0, 0, 1), 2, ys, state); }) ==
        "tcnca_convolve: state.first.extent(0) is 2, expected w's layers = 1");
  std::vector<float> rings(2 * 6 * 6);
  first = {1, 4};
  CHECK(message_of([&] { tcnca_convolve(cpu, xs, ws, 2, ys, tcnca_state{view(rings.data(), 2, 6, 6), view(first)}); }) ==
        "tcnca_convolve: an element of state.first is 4, expected a row of its ring");
  CHECK(first == std::vector<index>{1, 4});
  auto const q = view(x.data(), 1, 1, 6), k = view(w.data(), 1, 3, 6);
  auto const out = view(y.data(), 1, 1, 6);
  CHECK(message_of([&] { tcnca_attention(cpu, q, k, k, out, 4, 5); }) ==
        "tcnca_attention: the keys of k is 3, expected position % chunk + 1 = 2");
  CHECK(message_of([&] { tcnca_attention(cpu, q, k, k, out, 0, 5); }) == "tcnca_attention: chunk is 0, expected at least 1");
}

}  // namespace tern::test

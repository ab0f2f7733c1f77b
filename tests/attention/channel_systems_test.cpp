// SPDX-License-Identifier: Apache-2.0
// Published attention over channels, clusters, groups of channels and reduced images against each paper's formula.
#include "formula.hpp"

#include <tern/attention/systems/dlgsanet.hpp>
#include <tern/attention/systems/efficientformer.hpp>
#include <tern/attention/systems/efficientvit.hpp>
#include <tern/attention/systems/kmax_deeplab.hpp>
#include <tern/attention/systems/pvt.hpp>
#include <tern/attention/systems/shvit.hpp>
#include <tern/attention/systems/x_pool.hpp>

namespace tern::test {
namespace {

TEST_CASE("dlgsanet: channels attend to channels, similarities below zero do not count") {
  rng r(41);
  for (index channels : {3, 8, 30})
    for (index pixels : {35, 200}) {
      index const heads = 2;
      call<float> c(r, {heads, heads, channels, channels, pixels, pixels, 1});
      std::vector<float> const divisors{0.7f, 1.6f};
      dlgsanet(cpu, c.q.view, c.k.view, c.v.view, c.out.view, divisors);
      auto const q = c.q.values(), k = c.k.values(), v = c.v.values();
      std::vector<double> want, magnitude;
      for (index h = 0; h < heads; ++h)
        for (index i = 0; i < channels; ++i) {
          std::vector<double> weight;
          for (index j = 0; j < channels; ++j) {
            double qk = 0, qq = 0, kk = 0;
            for (index p = 0; p < pixels; ++p) {
              double const x = q[at((h * channels + i) * pixels + p)], y = k[at((h * channels + j) * pixels + p)];
              qk += x * y;
              qq += x * x;
              kk += y * y;
            }
            weight.push_back(std::max(0., qk / std::sqrt(qq * kk) / static_cast<double>(divisors[at(h)])));
          }
          for (index p = 0; p < pixels; ++p) {
            double sum = 0, size = 0;
            for (index j = 0; j < channels; ++j) {
              sum += weight[at(j)] * v[at((h * channels + j) * pixels + p)];
              size += std::abs(v[at((h * channels + j) * pixels + p)]);
            }
            want.push_back(sum);
            // A similarity is off by u (b0 + b1 sqrt(dim)) / t: its terms add up to at most 1 / t.
            magnitude.push_back(size / static_cast<double>(divisors[at(h)]));
          }
        }
      using a = attention_accuracy;
      double const allowed = a::b0 + a::b1 * std::sqrt(static_cast<double>(pixels)) + a::b2 * std::sqrt(static_cast<double>(channels));
      CHECK(compare(c.out.view, want, magnitude, allowed * 0x1p-24));
    }
}

TEST_CASE("dlgsanet_local: each pixel has a kernel of its own, which a head's channels share") {
  rng r(47);
  for (index kernel : {1, 3, 7})
    for (auto [height, width] : {std::pair<index, index>{11, 19}, {5, 3}, {1, 1}}) {
      index const heads = 3, channels = 5, pixels = height * width, reach = kernel / 2;
      call<float> c(r, {heads, heads, pixels, pixels, 1, channels});
      auto const w = r.normal(heads * pixels * kernel * kernel);
      auto const weights = view(w.data(), heads, pixels, kernel * kernel);
      dlgsanet_local(cpu.on(several_threads()), weights, c.v.view, c.out.view, shape<2>{{height, width}}, kernel);
      std::vector<double> want, magnitude;
      for (index h = 0; h < heads; ++h)
        for (index p = 0; p < pixels; ++p)
          for (index d = 0; d < channels; ++d) {
            double sum = 0, size = 0;
            for (index y = -reach; y <= reach; ++y)
              for (index x = -reach; x <= reach; ++x) {
                index const row = p / width + y, column = p % width + x;
                if (row < 0 || row >= height || column < 0 || column >= width) continue;
                double const term = static_cast<double>(weights(h, p, (y + reach) * kernel + x + reach)) *
                                    static_cast<double>(c.v.view(h, row * width + column, d));
                sum += term;
                size += std::abs(term);
              }
            want.push_back(sum);
            magnitude.push_back(size);
          }
      INFO("kernel " << kernel << ", " << height << " x " << width);
      CHECK(compare(c.out.view, want, magnitude, 0x1p-24 * static_cast<double>(kernel * kernel + 2)));
      CHECK(c.out.memory.untouched_outside(c.out.view));
    }
  call<float> c(r, {1, 1, 6, 6, 1, 4});
  std::vector<float> w(6 * 9);
  auto const call_with = [&](index kernel, index pixels, index width) {
    dlgsanet_local(cpu, view(w.data(), 1, pixels, 9), c.v.view, c.out.view, shape<2>{{2, width}}, kernel);
  };
  CHECK_NOTHROW(call_with(3, 6, 3));
  CHECK_THROWS_WITH(call_with(2, 6, 3), "attention: the kernel of dlgsanet_local is 2, expected an odd number");
  CHECK_THROWS_WITH(call_with(5, 6, 3), "attention: the last extent of dlgsanet_local's weights is 9, expected kernel^2 = 25");
  CHECK_THROWS_WITH(call_with(3, 5, 3), "attention: the pixels of dlgsanet_local's weights is 5, expected the pixels of v = 6");
  CHECK_THROWS_AS(call_with(3, 6, 4), error);
}

TEST_CASE("kmax_deeplab: pixels go to clusters, and clusters sum them up") {
  rng r(42);
  for (index clusters : {1, 3, 40})
    for (index n : {1, 50, 700}) {
      index const dim = 12, dim_v = 17;
      auto const centers = r.normal<float>(clusters * dim), pixels = r.normal<float>(n * dim), values = r.normal<float>(n * dim_v);
      std::vector<float> update(at(clusters * dim_v), poison<float>()), scores(at(n));
      std::vector<std::int32_t> assignment(at(n)), order(at(n)), starts(at(clusters + 1));
      kmax_deeplab(cpu, view(centers.data(), clusters, dim), view(pixels.data(), n, dim), view(values.data(), n, dim_v),
                   view(update.data(), clusters, dim_v), {view(assignment), view(scores), view(order), view(starts)});
      std::vector<double> want(update.size(), 0), magnitude(update.size(), 0);
      for (index p = 0; p < n; ++p) {
        index best = 0;
        std::vector<double> s;
        for (index c = 0; c < clusters; ++c) {
          s.push_back(0);
          for (index d = 0; d < dim; ++d)
            s.back() += static_cast<double>(centers[at(c * dim + d)]) * static_cast<double>(pixels[at(p * dim + d)]);
          if (s[at(c)] > s[at(best)]) best = c;
        }
        REQUIRE(assignment[at(p)] == best);
        for (index d = 0; d < dim_v; ++d) {
          want[at(best * dim_v + d)] += static_cast<double>(values[at(p * dim_v + d)]);
          magnitude[at(best * dim_v + d)] += std::abs(static_cast<double>(values[at(p * dim_v + d)]));
        }
      }
      CHECK(compare(update, want, magnitude, (attention_accuracy::b0 + std::sqrt(static_cast<double>(n))) * 0x1p-24));
    }
}

TEST_CASE("kmax_deeplab: a pixel whose scores are NaN belongs nowhere") {
  std::vector<float> const centers{1, 0, 0, 1}, values{1, 2, 4};
  std::vector<float> pixels{2, 1, std::numeric_limits<float>::quiet_NaN(), 1, 1, 3}, update(2), scores(3);
  std::vector<std::int32_t> assignment(3), order(3), starts(3);
  kmax_deeplab(cpu, view(centers.data(), 2, 2), view(pixels.data(), 3, 2), view(values.data(), 3, 1), view(update.data(), 2, 1),
               {view(assignment), view(scores), view(order), view(starts)});
  CHECK(assignment == std::vector<std::int32_t>{0, -1, 1});
  CHECK(update == std::vector<float>{1, 4});
}

TEST_CASE("efficientformer: a bias of distances along both axes") {
  rng r(43);
  for (auto const& now : {std::array<index, 2>{7, 7}, {2, 3}, {9, 4}}) {
    index const rows = now[0], columns = now[1], entries = (2 * rows - 1) * (2 * columns - 1);
    call<float> c(r, {4, 2, rows * columns, rows * columns, 16, 24, 1});
    auto const bias = r.normal<float>(4 * rows * columns);
    std::vector<float> table(at(4 * entries));
    efficientformer(cpu, c.q.view, c.k.view, c.v.view, c.out.view, shape{rows, columns}, view(bias.data(), 4, rows * columns),
                    view(table.data(), 4, entries), log_sum_exp{c.lse});
    c.check(attend(c, {.bias = [&](index h, index i, index j) {
                     index const dy = std::abs(i / columns - j / columns), dx = std::abs(i % columns - j % columns);
                     return static_cast<double>(bias[at((h * rows + dy) * columns + dx)]);
                   }}));
  }
}

/// y = x w^T + b in float64: x (rows, k), w (n, k).
std::vector<double> linear(std::vector<double> const& x, index k, std::vector<float> const& w, std::vector<float> const& b) {
  std::vector<double> y;
  for (std::size_t r = 0; r < x.size() / at(k); ++r)
    for (std::size_t n = 0; n < b.size(); ++n) {
      double sum = static_cast<double>(b[n]);
      for (std::size_t i = 0; i < at(k); ++i) sum += x[r * at(k) + i] * static_cast<double>(w[n * at(k) + i]);
      y.push_back(sum);
    }
  return y;
}
/// Columns [from, to) of x (rows, n).
std::vector<double> columns_of(std::vector<double> const& x, index n, index from, index to) {
  std::vector<double> y;
  for (std::size_t r = 0; r < x.size() / at(n); ++r)
    for (index c = from; c < to; ++c) y.push_back(x[r * at(n) + at(c)]);
  return y;
}
std::vector<float> part_of(std::vector<float> const& x, index from, index count) { return {x.begin() + from, x.begin() + from + count}; }

/// y = x w^T + b within matmul's bound and the rounding of one addition.
void check_linear(std::vector<float> const& y, std::vector<double> const& x, index k, std::vector<float> const& w,
                  std::vector<float> const& b) {
  auto const size = [](auto v) {
    for (auto& e : v) e = std::abs(e);
    return v;
  };
  auto const magnitude = linear(size(x), k, size(w), size(b));
  CHECK(compare(y, linear(x, k, w, b), magnitude, (matmul.accuracy(k) + 1) * 0x1p-24));
}
/// One head of attention on what was computed before, within attention's bound.
void check_attended(std::vector<double> const& got, oracle::attended e, case_of const& c) {
  using a = attention_accuracy;
  for (std::size_t row = 0; row < e.lse.size(); ++row)
    for (std::size_t d = 0; d < at(c.dim_v); ++d)
      e.magnitude[row * at(c.dim_v) + d] *=
          a::b0 + a::b1 * std::sqrt(static_cast<double>(c.dim)) * e.growth[row] + a::b2 * std::sqrt(static_cast<double>(c.keys));
  std::vector<float> const stored(got.begin(), got.end());
  CHECK(compare(stored, e.value, e.magnitude, 0x1p-24));
}

TEST_CASE("efficientvit: heads in a cascade, a convolution of q by the caller") {
  rng r(44);
  for (auto const& now : {std::array<index, 3>{7, 7, 4}, {2, 3, 2}, {4, 5, 1}}) {
    index const rows = now[0], columns = now[1], n = now[2];
    index const tokens = rows * columns, dim = 16, d = 24, all = 2 * dim + d;
    index const entries = (2 * rows - 1) * (2 * columns - 1);
    auto const x = r.normal<float>(tokens * n * d), w = r.normal<float>(n * all * d, 0.2), b = r.normal<float>(n * all);
    auto const bias = r.normal<float>(n * tokens);
    std::vector<float> table(at(n * entries)), out(at(tokens * n * d)), input(at(tokens * d)), qkv(at(tokens * all));
    mirror_table(view(bias.data(), n, tokens), shape{rows, columns}, view(table.data(), n, entries));
    auto double_with_head = [](index h, tensor_view<float, 2> const& q) {
      detail::each(q, [&](float& e) { e *= h % 2 == 0 ? 2.f : 0.5f; });
    };
    // The first heads alone, so that memory holds what the last of them had.
    for (index h = 0; h < n; ++h) {
      efficientvit(cpu, view(x.data(), tokens, n * d).slice(1, 0, (h + 1) * d), view(w.data(), h + 1, all, d), view(b.data(), h + 1, all),
                   shape{rows, columns}, view(table.data(), h + 1, entries), double_with_head,
                   view(out.data(), tokens, n * d).slice(1, 0, (h + 1) * d),
                   {view(input.data(), tokens, d), view(qkv.data(), tokens, all)});
      auto in = columns_of(widened(x), n * d, h * d, (h + 1) * d);
      if (h > 0) {
        auto const before = columns_of(widened(out), n * d, (h - 1) * d, h * d);
        for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<double>(static_cast<float>(in[i] + before[i]));
      }
      auto y = qkv;
      for (std::size_t i = 0; i < y.size(); ++i)
        if (static_cast<index>(i) % all < dim) y[i] *= h % 2 == 0 ? 0.5f : 2.f;
      check_linear(y, in, d, part_of(w, h * all * d, all * d), part_of(b, h * all, all));
      case_of const c{1, 1, tokens, tokens, dim, d};
      auto const got = widened(qkv);
      check_attended(columns_of(widened(out), n * d, h * d, (h + 1) * d),
                     attend(c, columns_of(got, all, 0, dim), columns_of(got, all, dim, 2 * dim), columns_of(got, all, 2 * dim, all),
                            {.bias =
                                 [&](index, index i, index j) {
                                   index const dy = std::abs(i / columns - j / columns), dx = std::abs(i % columns - j % columns);
                                   return static_cast<double>(bias[at(h * tokens + dy * columns + dx)]);
                                 }}),
                     c);
    }
  }
}

TEST_CASE("shvit: one head on some channels") {
  rng r(45);
  for (index tokens : {1, 8, 49}) {
    index const c = 40, dim = 16, all = 2 * dim + c, whole = 100;
    auto const x = r.normal<float>(tokens * whole), w = r.normal<float>(all * c, 0.1), b = r.normal<float>(all);
    std::vector<float> qkv(at(tokens * all)), out(at(tokens * c));
    shvit(cpu, view(x.data(), tokens, whole).slice(1, 0, c), view(w.data(), all, c), view(b), view(qkv.data(), tokens, all),
          view(out.data(), tokens, c));
    check_linear(qkv, columns_of(widened(x), whole, 0, c), c, w, b);
    case_of const one{1, 1, tokens, tokens, dim, c};
    auto const y = widened(qkv);
    check_attended(widened(out),
                   attend(one, columns_of(y, all, 0, dim), columns_of(y, all, dim, 2 * dim), columns_of(y, all, 2 * dim, all), {}), one);
  }
}

TEST_CASE("pvt: all tokens ask a reduced image") {
  rng r(46);
  for (auto const& now : {std::array<index, 3>{8, 12, 4}, {4, 2, 2}, {3, 5, 1}}) {
    index const H = now[0], W = now[1], R = now[2], heads = 2, dim = 12, C = heads * dim, n = H * W, small = n / R / R;
    auto const x = r.normal<float>(n * C), q = r.normal<float>(heads * n * dim), w = r.normal<float>(C * R * R * C, 0.1);
    auto const wb = r.normal<float>(C), g = r.normal<float>(C), gb = r.normal<float>(C), kvw = r.normal<float>(2 * C * C, 0.2),
               kvb = r.normal<float>(2 * C);
    std::vector<float> reduced(at(small * C)), kv(at(small * 2 * C)), out(at(heads * n * dim));
    pvt(cpu, view(q.data(), heads, n, dim), view(x.data(), n, C), shape{H, W}, R,
        {view(w.data(), C, R, R, C), view(wb), view(g), view(gb), view(kvw.data(), 2 * C, C), view(kvb)}, view(reduced.data(), small, C),
        view(kv.data(), small, 2 * C), view(out.data(), heads, n, dim));
    // The convolution has matmul's error; the norm multiplies that by |g| / deviation (twice: of an element and of the mean) and adds
    // its own.
    std::vector<double> normed, allowed;
    for (index Y = 0; Y < H / R; ++Y)
      for (index X = 0; X < W / R; ++X) {
        std::vector<double> conv;
        double error = 0;
        for (index o = 0; o < C; ++o) {
          conv.push_back(static_cast<double>(wb[at(o)]));
          double size = std::abs(conv.back());
          for (index dy = 0; dy < R; ++dy)
            for (index dx = 0; dx < R; ++dx)
              for (index c = 0; c < C; ++c) {
                double const term = static_cast<double>(x[at(((Y * R + dy) * W + X * R + dx) * C + c)]) *
                                    static_cast<double>(w[at(((o * R + dy) * R + dx) * C + c)]);
                conv.back() += term;
                size += std::abs(term);
              }
          error = std::max(error, (matmul.accuracy(R * C) + static_cast<double>(R)) * size);
        }
        double mean = 0, variance = 0, most = 0;
        for (double v : conv) mean += v / static_cast<double>(C);
        for (double v : conv) variance += (v - mean) * (v - mean) / static_cast<double>(C);
        for (double v : conv) most = std::max(most, std::abs(v - mean));
        double const deviation = std::sqrt(variance + 1e-5);
        for (index o = 0; o < C; ++o) {
          double const y = (conv[at(o)] - mean) / deviation, gain = std::abs(static_cast<double>(g[at(o)]));
          normed.push_back(y * static_cast<double>(g[at(o)]) + static_cast<double>(gb[at(o)]));
          double const own = gain * most / deviation + std::abs(static_cast<double>(gb[at(o)]));
          allowed.push_back(gain * (2 + std::abs(y)) * error / deviation + layer_norm.error(C) * 0x1p24 * own);
        }
      }
    CHECK(compare(reduced, normed, allowed, 0x1p-24));
    check_linear(kv, widened(reduced), C, kvw, kvb);
    auto const y = widened(kv);
    case_of const one{1, 1, n, small, dim, dim};
    for (index h = 0; h < heads; ++h)
      check_attended(widened(part_of(out, h * n * dim, n * dim)),
                     attend(one, widened(part_of(q, h * n * dim, n * dim)), columns_of(y, 2 * C, h * dim, (h + 1) * dim),
                            columns_of(y, 2 * C, C + h * dim, C + (h + 1) * dim), {}),
                     one);
  }
}

TEST_CASE("x_pool: every text pools every video") {
  rng r(47);
  index const texts = 5, videos = 3, frames = 12, dim = 20;
  call<float> c(r, {videos, videos, texts, frames, dim, dim, 1});
  for (index v = 1; v < videos; ++v)
    for (index t = 0; t < texts; ++t)
      for (index d = 0; d < dim; ++d) c.q.view(v, t, d) = c.q.view(0, t, d);
  x_pool(cpu, c.q.view[0], c.k.view, c.v.view, c.out.view, log_sum_exp{c.lse});
  c.check(attend(c, {}));
}

}  // namespace
}  // namespace tern::test

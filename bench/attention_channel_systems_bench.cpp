// SPDX-License-Identifier: Apache-2.0
// Published systems of attention over whole images whose keys are few or come from elsewhere: channels, clusters, reduced images, heads
// in a cascade, frames of videos.
#include "attention_systems.hpp"

#include <tern/attention/systems/dlgsanet.hpp>
#include <tern/attention/systems/efficientformer.hpp>
#include <tern/attention/systems/efficientvit.hpp>
#include <tern/attention/systems/kmax_deeplab.hpp>
#include <tern/attention/systems/pvt.hpp>
#include <tern/attention/systems/shvit.hpp>
#include <tern/attention/systems/x_pool.hpp>

namespace tern::bench {
namespace {

using matrix = tensor_view<float const, 2>;
using row_of = tensor_view<float const, 1>;

/// to = x w^T + b, in float64.
void project(matrix const& x, matrix const& w, row_of const& b, tensor_view<float, 2> const& to) {
  for (index r = 0; r < x.extent(0); ++r)
    for (index n = 0; n < w.extent(0); ++n) to(r, n) = static_cast<float>(wide(b[n]) + dot(x[r], w[n]));
}
/// The same for head h's q, k and v, whose weights are rows of one w.
void project_all(matrix const& x, matrix const& w, row_of const& b, problem const& y, index h) {
  index const dim = y.n.dim, all = 2 * dim + y.n.dim_v;
  project(x, w.slice(0, 0, dim), b.slice(0, 0, dim), y.q[h]);
  project(x, w.slice(0, dim, 2 * dim), b.slice(0, dim, 2 * dim), y.k[h]);
  project(x, w.slice(0, 2 * dim, all), b.slice(0, 2 * dim, all), y.v[h]);
}

/// A bias for each distance along both axes of an image.
formula distances(std::vector<float> const& bias, index side) {
  return {.score = [&bias, side](problem const&, index h, index i, index j, double s) {
    index const dy = std::abs(i / side - j / side), dx = std::abs(i % side - j % side);
    return s + wide(bias[at((h * side + dy) * side + dx)]);
  }};
}

/// Six heads of 30 channels of 64 x 64 pixels.
void add_dlgsanet() {
  static std::vector<float> const divisors{0.1f, 0.2f, 0.3f, 0.5f, 0.7f, 1.f};
  add_formula("dlgsanet", inputs({.heads = 6, .tokens = 30, .dim = 64 * 64}),
              {.score =
                   [](problem const& x, index h, index i, index j, double) {
                     auto const q = x.q[h][i], k = x.k[h][j];
                     return dot(q, k) / std::sqrt(dot(q, q) * dot(k, k)) / wide(divisors[at(h)]);
                   },
               .weight = [](double s) { return std::max(s, 0.); }},
              [](cpu_policy const& on, problem& x) { dlgsanet(on, x.q, x.k, x.v, x.out, divisors); });
}

/// Six heads of 30 channels of 64 x 64 pixels, a kernel of 7 x 7 for each pixel of a head.
void add_dlgsanet_local() {
  static constexpr index side = 64, heads = 6, pixels = side * side, kernel = 7, reach = kernel / 2;
  static std::vector<float> const values = fast_normal(heads * pixels * kernel * kernel, 1, 12);
  static auto const weights = view(values.data(), heads, pixels, kernel * kernel);
  add(
      "dlgsanet_local", inputs({.heads = heads, .tokens = pixels, .dim = 1, .dim_v = 30}), 2. * heads * pixels * 30 * kernel * kernel,
      [](problem const& x) {
        for (index h : sample(heads, 3))
          for (index p : sample(pixels, 13))
            for (index d : sample(index{30}, 4)) {
              double sum = 0;
              for (index o = 0; o < kernel * kernel; ++o) {
                index const row = p / side + o / kernel - reach, column = p % side + o % kernel - reach;
                if (row >= 0 && row < side && column >= 0 && column < side)
                  sum += wide(weights(h, p, o)) * wide(x.v(h, row * side + column, d));
              }
              if (!(std::abs(wide(x.out(h, p, d)) - sum) < 1e-4)) return false;
            }
        return true;
      },
      [](cpu_policy const& on, problem& x) { dlgsanet_local(on, weights, x.v, x.out, shape{side, side}, kernel); });
}

void add_efficientformer() {
  static constexpr index side = 16, heads = 8, entries = (2 * side - 1) * (2 * side - 1);
  static std::vector<float> const bias = fast_normal(heads * side * side, 1, 11);
  static std::vector<float> table(heads * entries);
  add_formula("efficientformer", inputs({.heads = heads, .tokens = side * side, .dim = 32, .dim_v = 128}), distances(bias, side),
              [](cpu_policy const& on, problem& x) {
                efficientformer(on, x.q, x.k, x.v, x.out, shape{side, side}, view(bias.data(), heads, side * side),
                                view(table.data(), heads, entries));
              });
}

/// Three heads of 64 channels; no convolution of q.
void add_efficientvit() {
  static constexpr index side = 24, heads = 3, tokens = side * side, dim = 16, d = 64, all = 2 * dim + d,
                         entries = (2 * side - 1) * (2 * side - 1);
  static std::vector<float> const image = fast_normal(tokens * heads * d, 1, 21), weight = fast_normal(heads * all * d, 0.125, 22),
                                  biases = fast_normal(heads * all, 1, 23), of_distance = fast_normal(heads * tokens, 1, 24);
  static std::vector<float> table(heads * entries), input(tokens * d), qkv(tokens * all);
  static matrix const pixels = view(image.data(), tokens, heads * d), offsets = view(biases.data(), heads, all);
  static tensor_view<float const, 3> const w = view(weight.data(), heads, all, d);
  auto const out = [](problem const& x) { return view(x.out.data(), tokens, heads * d); };
  inputs const data({.heads = heads, .tokens = tokens, .dim = dim, .dim_v = d});
  mirror_table(view(of_distance.data(), heads, tokens), shape{side, side}, view(table.data(), heads, entries));
  add(
      "efficientvit", data, flops(data.n, heads * tokens * tokens) + 2. * heads * tokens * d * all,
      [=](problem const& x) {
        problem const y(x.n);
        std::vector<float> in(tokens * d);
        for (index h = 0; h < heads; ++h) {
          for (index i = 0; i < tokens; ++i)
            for (index c = 0; c < d; ++c) in[at(i * d + c)] = pixels(i, h * d + c) + (h > 0 ? y.out(h - 1, i, c) : 0);
          project_all(view(in.data(), tokens, d), w[h], offsets[h], y, h);
          for (index i = 0; i < tokens; ++i) {
            auto const row = weighed(y, weights(y, distances(of_distance, side), h, i), h);
            if (!near(out(x)[i].slice(0, h * d, (h + 1) * d), row)) return false;
            for (index c = 0; c < d; ++c) y.out(h, i, c) = static_cast<float>(row[at(c)]);
          }
        }
        return true;
      },
      [=](cpu_policy const& on, problem& x) {
        efficientvit(on, pixels, w, offsets, shape{side, side}, view(table.data(), heads, entries),
                     [](index, tensor_view<float, 2> const&) {}, out(x), {view(input.data(), tokens, d), view(qkv.data(), tokens, all)});
      });
}

/// 128 clusters of 16384 pixels.
void add_kmax_deeplab() {
  static constexpr index clusters = 128, pixels = 128 * 128, dim = 128;
  static std::vector<std::int32_t> assignment(pixels), order(pixels), starts(clusters + 1);
  static std::vector<float> scores(pixels);
  inputs const data({.heads = 1, .tokens = clusters, .dim = dim, .keys = pixels});
  add(
      "kmax_deeplab", data, 2. * clusters * pixels * dim + pixels * dim,
      [](problem const& x) {
        for (index p : sample(pixels, 20))
          for (index c = 0; c < clusters; ++c)
            if (!(dot(x.q[0][c], x.k[0][p]) < dot(x.q[0][assignment[at(p)]], x.k[0][p]) + 1e-4)) return false;
        return right(x, [&](index, index c) {
          std::vector<double> mine;
          for (std::int32_t a : assignment) mine.push_back(a == c ? 1 : 0);
          return weighed(x, mine, 0);
        });
      },
      [](cpu_policy const& on, problem& x) {
        kmax_deeplab(on, x.q[0], x.k[0], x.v[0], x.out[0], {view(assignment), view(scores), view(order), view(starts)});
      });
}

/// Images of 56 x 56 pixels, 128 channels, keys from patches of 4 x 4.
void add_pvt() {
  static constexpr index side = 56, heads = 2, dim = 64, C = heads * dim, R = 4, across = side / R, small = across * across;
  static std::vector<float> const image = fast_normal(side * side * C, 1, 31), reduction = fast_normal(C * R * R * C, 0.02, 32),
                                  projection = fast_normal(2 * C * C, 0.1, 33), vectors = fast_normal(5 * C, 1, 34);
  static matrix const pixels = view(image.data(), side * side, C), to_kv = view(projection.data(), 2 * C, C);
  static tensor_view<float const, 4> const taps = view(reduction.data(), C, R, R, C);
  static row_of const taps_bias = view(vectors.data(), C), gain = view(vectors.data() + C, C), shift = view(vectors.data() + 2 * C, C),
                      kv_bias = view(vectors.data() + 3 * C, 2 * C);
  static std::vector<float> reduced(small * C), kv(small * 2 * C);
  inputs const data({.heads = heads, .tokens = side * side, .dim = dim, .keys = small});
  add(
      "pvt", data, flops(data.n, heads * side * side * small) + 2. * C * C * (side * side + 2 * small),
      [](problem const& x) {
        problem const y(x.n);  // the same q
        std::vector<float> normed(C), row(2 * C);
        for (index j = 0; j < small; ++j) {
          std::vector<double> conv(C);
          double mean = 0, variance = 0;
          for (index o = 0; o < C; ++o) {
            conv[at(o)] = wide(taps_bias[o]);
            for (index t = 0; t < R * R; ++t)
              conv[at(o)] += dot(taps[o][t / R][t % R], pixels[(j / across * R + t / R) * side + j % across * R + t % R]);
            mean += conv[at(o)] / C;
          }
          for (double e : conv) variance += (e - mean) * (e - mean) / C;
          for (index o = 0; o < C; ++o)
            normed[at(o)] = static_cast<float>((conv[at(o)] - mean) / std::sqrt(variance + 1e-5) * wide(gain[o]) + wide(shift[o]));
          project(view(normed.data(), 1, C), to_kv, kv_bias, view(row.data(), 1, 2 * C));
          for (index h = 0; h < heads; ++h)
            for (index d = 0; d < dim; ++d) {
              y.k(h, j, d) = row[at(h * dim + d)];
              y.v(h, j, d) = row[at(C + h * dim + d)];
            }
        }
        return right(x, [&](index h, index i) { return weighed(y, weights(y, {}, h, i), h); });
      },
      [](cpu_policy const& on, problem& x) {
        pvt(on, x.q, pixels, shape{side, side}, R, {taps, taps_bias, gain, shift, to_kv, kv_bias}, view(reduced.data(), small, C),
            view(kv.data(), small, 2 * C), x.out);
      });
}

/// 48 of 224 channels of 32 x 32 pixels.
void add_shvit() {
  static constexpr index tokens = 32 * 32, dim = 16, c = 48, all = 2 * dim + c;
  static std::vector<float> const image = fast_normal(tokens * 224, 1, 41), weight = fast_normal(all * c, 0.125, 42),
                                  bias = fast_normal(all, 1, 43);
  static matrix const x_c = matrix(view(image.data(), tokens, 224)).slice(1, 0, c), w = view(weight.data(), all, c);
  static std::vector<float> qkv(tokens * all);
  inputs const data({.heads = 1, .tokens = tokens, .dim = dim, .dim_v = c});
  add(
      "shvit", data, flops(data.n, tokens * tokens) + 2. * tokens * all * c,
      [](problem const& x) {
        problem const y(x.n);
        project_all(x_c, w, view(bias), y, 0);
        return right(x, [&](index h, index i) { return weighed(y, weights(y, {}, h, i), h); });
      },
      [](cpu_policy const& on, problem& x) { shvit(on, x_c, w, view(bias), view(qkv.data(), tokens, all), x.out[0]); });
}

/// 512 texts ask 32 videos of 12 frames.
void add_x_pool() {
  add_formula("x_pool", inputs({.heads = 32, .tokens = 512, .dim = 256, .keys = 12}),
              {.score = [](problem const& x, index h, index i, index j, double) { return dot(x.q[0][i], x.k[h][j]) / 16; }},
              [](cpu_policy const& on, problem& x) { x_pool(on, x.q[0], x.k, x.v, x.out); });
}

}  // namespace

void register_benchmarks() {
  add_dlgsanet();
  add_dlgsanet_local();
  add_efficientformer();
  add_efficientvit();
  add_kmax_deeplab();
  add_pvt();
  add_shvit();
  add_x_pool();
}

}  // namespace tern::bench

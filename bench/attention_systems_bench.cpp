// SPDX-License-Identifier: Apache-2.0
// Published systems of attention that differ in who sees whom: their time, and how near the peak the pairs that they keep are
// computed. Names: <system>_h<heads>x<heads>_n<tokens>_d<dim>. Operations count visible pairs only.
#include "harness.hpp"
#include "inputs.hpp"

#include <tern/attention.hpp>
#include <tern/attention/systems/anchor_attention.hpp>
#include <tern/attention/systems/byte_transformer.hpp>
#include <tern/attention/systems/cswin.hpp>
#include <tern/attention/systems/flash_attention_2.hpp>
#include <tern/attention/systems/flash_sigmoid.hpp>
#include <tern/attention/systems/longlora.hpp>
#include <tern/attention/systems/maxvit.hpp>
#include <tern/attention/systems/s2_attention.hpp>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

namespace tern::bench {
namespace {

/// Random q, k and v of one text or image, and who sees whom.
struct problem {
  index heads, tokens, dim;
  std::vector<float> q, k, v, out, lse;

  problem(index h, index n, index d)
      : heads(h),
        tokens(n),
        dim(d),
        q(fast_normal(h * n * d, 1, 1)),
        k(fast_normal(h * n * d, 1, 2)),
        v(fast_normal(h * n * d, 1, 3)),
        out(q.size()),
        lse(static_cast<std::size_t>(h * n)) {}
  tensor_view<float, 3> of(std::vector<float>& x) const { return {x.data(), {heads, tokens, dim}}; }
};

/// Whether head h's query i sees key j.
using sees = std::function<bool(index h, index i, index j)>;

double pairs(problem const& p, sees const& seen) {
  double sum = 0;
  for (index h = 0; h < p.heads; ++h)
    for (index i = 0; i < p.tokens; ++i)
      for (index j = 0; j < p.tokens; ++j) sum += seen(h, i, j) ? 1 : 0;
  return sum;
}

/// A few rows against f64: softmax, or the sigmoids of scores - log(tokens).
bool right(problem const& p, sees const& seen, bool softmax) {
  for (index h : sample(p.heads, 3))
    for (index i : sample(p.tokens, 5)) {
      std::vector<double> w(static_cast<std::size_t>(p.tokens));
      double sum = 0;
      for (index j = 0; j < p.tokens; ++j) {
        double s = 0;
        for (index d = 0; d < p.dim; ++d)
          s += static_cast<double>(p.q[static_cast<std::size_t>((h * p.tokens + i) * p.dim + d)]) *
               static_cast<double>(p.k[static_cast<std::size_t>((h * p.tokens + j) * p.dim + d)]);
        s /= std::sqrt(static_cast<double>(p.dim));
        double const weight = softmax ? std::exp(s) : 1 / (1 + std::exp(-s) * static_cast<double>(p.tokens));
        sum += w[static_cast<std::size_t>(j)] = seen(h, i, j) ? weight : 0;
      }
      for (index d = 0; d < p.dim; d += 7) {
        double want = 0;
        for (index j = 0; j < p.tokens; ++j)
          want += w[static_cast<std::size_t>(j)] / (softmax ? sum : 1) *
                  static_cast<double>(p.v[static_cast<std::size_t>((h * p.tokens + j) * p.dim + d)]);
        if (!(std::abs(want - static_cast<double>(p.out[static_cast<std::size_t>((h * p.tokens + i) * p.dim + d)])) < 2e-5)) return false;
      }
    }
  return true;
}

template <class Data, class Call>
void add(std::string const& system, Data const& data, double visible, sees const& seen, Call call, bool softmax = true) {
  problem const& p = data();
  std::string const n = std::to_string(p.tokens), h = std::to_string(p.heads);
  workload{.op = "attention_systems",
           .name = system + "_h" + h + "x" + h + "_n" + n + "_d" + std::to_string(p.dim),
           .flops = 4.0 * visible * static_cast<double>(p.dim)}
      .add("tern", [=](run& r) {
        problem& x = data();
        auto const once = [&](index) { call(r.policy(), x); };
        if (r.check([&] {
              once(0);
              return right(x, seen, softmax);
            }))
          r.time(once);
      });
}

void add_texts() {
  auto const data = lazy([] { return problem(8, 1024, 64); });
  problem const& p = data();
  auto const text = [&](std::string const& system, sees const& seen, auto call, bool softmax = true) {
    add(system, data, pairs(p, seen), seen, call, softmax);
  };
  sees const all = [](index, index, index) { return true; };
  text("flash_attention_2", all, [](cpu_policy const& on, problem& x) {
    flash_attention_2(on, x.of(x.q), x.of(x.k), x.of(x.v), x.of(x.out), view(x.lse.data(), x.heads, x.tokens));
  });
  text(
      "flash_sigmoid", all, [](cpu_policy const& on, problem& x) { flash_sigmoid(on, x.of(x.q), x.of(x.k), x.of(x.v), x.of(x.out)); },
      false);

  static std::vector<std::int32_t> ids, cu{0, 100, 300, 310, 700, 1024};
  for (index i = 0, d = 0; i < p.tokens; ++i) ids.push_back(static_cast<std::int32_t>(d += i == cu[static_cast<std::size_t>(d + 1)]));
  text(
      "anchor_attention",
      [](index, index i, index j) { return j <= i && (j == 0 || ids[static_cast<std::size_t>(i)] == ids[static_cast<std::size_t>(j)]); },
      [](cpu_policy const& on, problem& x) { attention(on, x.of(x.q), x.of(x.k), x.of(x.v), x.of(x.out), anchor_attention(ids)); });
  text(
      "byte_transformer", [](index, index i, index j) { return ids[static_cast<std::size_t>(i)] == ids[static_cast<std::size_t>(j)]; },
      [](cpu_policy const& on, problem& x) { attention(on, x.of(x.q), x.of(x.k), x.of(x.v), x.of(x.out), varlen(cu)); });
  text(
      "longlora",
      [](index h, index i, index j) {
        index const shift = h >= 4 ? 128 : 0, a = i + (shift > 0 ? 256 - shift : 0), b = j + (shift > 0 ? 256 - shift : 0);
        return j <= i && a / 256 == b / 256;
      },
      [](cpu_policy const& on, problem& x) { attention(on, x.of(x.q), x.of(x.k), x.of(x.v), x.of(x.out), longlora{256}, causal{}); });
  text(
      "s2_attention", [](index h, index i, index j) { return j <= i && (i / 64 - j / 64 < 2 || (j / 64 + h * 1 + 1) % 8 == 0); },
      [](cpu_policy const& on, problem& x) {
        attention(on, x.of(x.q), x.of(x.k), x.of(x.v), x.of(x.out), s2_attention{64, 2, 8}, causal{});
      });
}

void add_images() {
  auto const data = lazy([] { return problem(8, 56 * 56, 32); });
  problem const& p = data();
  static std::vector<float> const bias(8 * 13 * 13, 0.f);
  auto const image = [&](std::string const& system, index keys, sees const& seen, auto call) {
    add(system, data, static_cast<double>(p.heads * p.tokens * keys), seen, call);
  };
  image(
      "maxvit_block", 49, [](index, index i, index j) { return i / 56 / 7 == j / 56 / 7 && i % 56 / 7 == j % 56 / 7; },
      [](cpu_policy const& on, problem& x) {
        maxvit(on, x.of(x.q), x.of(x.k), x.of(x.v), x.of(x.out), shape{56, 56}, shape{7, 7}, multi_axis::block, view(bias.data(), 8, 169));
      });
  image(
      "maxvit_grid", 49, [](index, index i, index j) { return i / 56 % 8 == j / 56 % 8 && i % 56 % 8 == j % 56 % 8; },
      [](cpu_policy const& on, problem& x) {
        maxvit(on, x.of(x.q), x.of(x.k), x.of(x.v), x.of(x.out), shape{56, 56}, shape{7, 7}, multi_axis::grid, view(bias.data(), 8, 169));
      });
  image(
      "cswin", 7 * 56, [](index h, index i, index j) { return h < 4 ? i % 56 / 7 == j % 56 / 7 : i / 56 / 7 == j / 56 / 7; },
      [](cpu_policy const& on, problem& x) { cswin(on, x.of(x.q), x.of(x.k), x.of(x.v), x.of(x.out), shape{56, 56}, 7); });
}

}  // namespace

void register_benchmarks() {
  add_texts();
  add_images();
}

}  // namespace tern::bench

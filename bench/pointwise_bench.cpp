// SPDX-License-Identifier: Apache-2.0
// What happens between a model's matrix products, in the shapes of SmolLM2-135M: width 576, hidden width 1536, 9 heads of 64,
// 49152 tokens of vocabulary. One row is a step of generation, 512 a batch of the prompt; both reuse their data, so it lies in cache.
#include "harness.hpp"
#include "inputs.hpp"
#include "oracle/pointwise.hpp"
#include "peers.hpp"

#include <tern/pointwise.hpp>
#include <tern/sampling.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

namespace tern::bench {
namespace {

/// Inputs and outputs of (rows, n) elements, a weight of n, and what the oracle expects of a few rows.
struct problem {
  index rows, n;
  buffer<float> a, b, weight, y;

  problem(index r, index width, double deviation)
      : rows(r), n(width), a(fast_normal(r * width, deviation)), b(fast_normal(r * width)), weight(fast_normal(width)), y(r * width) {}

  tensor_view<float, 2> view(buffer<float>& of) { return {of.data(), shape<2>{{rows, n}}}; }
  static std::vector<double> row_of(buffer<float> const& of, index row, index n) {
    return test::widened(std::span<float const>(of.data() + row * n, static_cast<std::size_t>(n)));
  }
  /// want(row) is compared with some rows of y.
  template <class Want>
  test::comparison compare_rows(double tolerance, Want&& want) {
    for (index row : sample(rows, 5)) {
      oracle::expected const e = want(row);
      auto const c = test::compare(y.data() + row * n, e.value.data(), e.magnitude.data(), n, tolerance);
      if (!c) return c;
    }
    return {};
  }
};

template <class Check, class Call>
void checked(run& r, problem& p, Call&& call, Check&& check) {
  set_peer_threads(r.threads());
  std::fill(p.y.begin(), p.y.end(), std::nanf(""));  // not what the implementation before left
  r.check([&] {
    call();
    return check();
  });
  r.time([&](index) { call(); });
}

void add_rms_norm(index rows) {
  index const n = 576;
  auto data = lazy([=] { return problem(rows, n, 1); });
  workload const w{.op = "rms_norm",
                   .name = "n576_rows" + std::to_string(rows),
                   .flops = 4.0 * static_cast<double>(rows * n),
                   .bytes = 8.0 * static_cast<double>(rows * n)};
  auto right = [](problem& p) {
    return p.compare_rows(rms_norm.error(n), [&](index row) {
      return oracle::rms_norm(problem::row_of(p.a, row, n), problem::row_of(p.weight, 0, n), 1e-5f);
    });
  };
  w.add("tern", [=](run& r) {
    problem& p = data();
    checked(r, p, [&] { rms_norm(r.policy(), p.view(p.a), p.weight, p.view(p.y), 1e-5f); }, [&] { return right(p); });
  });
#if TERN_BENCH_HAVE_EIGEN
  w.add("eigen", [=](run& r) {
    problem& p = data();
    using array = Eigen::Array<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    Eigen::Map<array const> const x(p.a.data(), rows, n);
    Eigen::Map<Eigen::Array<float, 1, Eigen::Dynamic> const> const weight(p.weight.data(), n);
    Eigen::Map<array> y(p.y.data(), rows, n);
    checked(
        r, p,
        [&] {
          for (index i = 0; i < rows; ++i) y.row(i) = x.row(i) * (1.f / std::sqrt(x.row(i).square().mean() + 1e-5f)) * weight;
        },
        [&] { return right(p); });
  });
#endif
#if TERN_BENCH_HAVE_GGML
  w.add("ggml", [=](run& r) {
    problem& p = data();
    ggml_operator op(r.threads(), [&](ggml_context* c) {
      ggml_tensor* const x = ggml_new_tensor_2d(c, GGML_TYPE_F32, n, rows);
      ggml_tensor* const weight = ggml_new_tensor_1d(c, GGML_TYPE_F32, n);
      x->data = p.a.data();
      weight->data = p.weight.data();
      ggml_tensor* const normed = ggml_rms_norm(c, x, 1e-5f);
      ggml_tensor* const y = ggml_mul(c, normed, weight);
      normed->data = y->data = p.y.data();
      return y;
    });
    checked(r, p, [&] { op(); }, [&] { return right(p); });
  });
#endif
}

void add_swiglu(index rows) {
  index const n = 1536;
  auto data = lazy([=] { return problem(rows, n, 2); });
  workload const w{.op = "swiglu",
                   .name = "n1536_rows" + std::to_string(rows),
                   .flops = 20.0 * static_cast<double>(rows * n),
                   .bytes = 12.0 * static_cast<double>(rows * n)};
  auto right = [](problem& p) {
    return p.compare_rows(swiglu.error + 0x1p-20,
                          [&](index row) { return oracle::swiglu(problem::row_of(p.a, row, n), problem::row_of(p.b, row, n)); });
  };
  w.add("tern", [=](run& r) {
    problem& p = data();
    checked(r, p, [&] { swiglu(r.policy(), p.view(p.a), p.view(p.b), p.view(p.y)); }, [&] { return right(p); });
  });
#if TERN_BENCH_HAVE_EIGEN
  w.add("eigen", [=](run& r) {
    problem& p = data();
    Eigen::Map<Eigen::ArrayXf const> const gate(p.a.data(), rows * n), up(p.b.data(), rows * n);
    Eigen::Map<Eigen::ArrayXf> y(p.y.data(), rows * n);
    checked(r, p, [&] { y = gate / (1.f + (-gate).exp()) * up; }, [&] { return right(p); });
  });
#endif
}

/// What a Kolmogorov-Arnold layer multiplies: eight splines of each of 576 inputs, and silu.
void add_kan_features(index rows) {
  static constexpr index n = 576, width = 9 * n;
  struct features {
    buffer<float> x, f;
    explicit features(index r) : x(fast_normal(r * n)), f(r * width) {}
  };
  auto data = lazy([=] { return features(rows); });
  workload const w{.op = "kan_features",
                   .name = "n576_splines8_rows" + std::to_string(rows),
                   .flops = 15.0 * static_cast<double>(rows * width),
                   .bytes = 4.0 * static_cast<double>(rows * (n + width))};
  w.add("tern", [=](run& r) {
    features& p = data();
    cubic_splines const basis;
    auto const call = [&](index) {
      kan_features(r.policy(), tern::view(std::as_const(p.x).data(), rows, n), basis, tern::view(p.f.data(), rows, width));
    };
    bool const right = r.check([&] {
      call(0);
      for (index row : sample(rows, 5))
        for (index i : sample(n, 7)) {
          double const u = 2.5 * (static_cast<double>(p.x[row * n + i]) + 1);  // in cells
          for (index b = 0; b < 8; ++b) {
            double want = 0;  // the truncated powers of the spline
            for (int j = 0; j <= 4; ++j) {
              double const v = std::max(u + 3 - static_cast<double>(b) - j, 0.);
              want += (j % 2 == 0 ? 1. : -1.) * (j == 2 ? 6. : j % 4 == 0 ? 1. : 4.) * v * v * v / 6;
            }
            if (!(std::abs(static_cast<double>(p.f[row * width + (1 + b) * n + i]) - want) < 1e-5)) return false;
          }
        }
      return true;
    });
    if (right) r.time(call);
  });
}

void add_softmax(index rows, index n) {
  auto data = lazy([=] { return problem(rows, n, 3); });
  workload const w{.op = "softmax",
                   .name = "n" + std::to_string(n) + "_rows" + std::to_string(rows),
                   .flops = 20.0 * static_cast<double>(rows * n),
                   .bytes = 8.0 * static_cast<double>(rows * n)};
  auto right = [n](problem& p) {
    return p.compare_rows(softmax.error(n, 16), [&](index row) { return oracle::softmax(problem::row_of(p.a, row, n), n, 1); });
  };
  w.add("tern", [=](run& r) {
    problem& p = data();
    checked(r, p, [&] { softmax(r.policy(), p.view(p.a), p.view(p.y)); }, [&] { return right(p); });
  });
#if TERN_BENCH_HAVE_EIGEN
  w.add("eigen", [=](run& r) {
    problem& p = data();
    using array = Eigen::Array<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    Eigen::Map<array const> const x(p.a.data(), rows, n);
    Eigen::Map<array> y(p.y.data(), rows, n);
    checked(
        r, p,
        [&] {
          for (index i = 0; i < rows; ++i) {
            y.row(i) = (x.row(i) - x.row(i).maxCoeff()).exp();
            y.row(i) *= 1.f / y.row(i).sum();
          }
        },
        [&] { return right(p); });
  });
#endif
#if TERN_BENCH_HAVE_GGML
  w.add("ggml", [=](run& r) {
    problem& p = data();
    ggml_operator op(r.threads(), [&](ggml_context* c) {
      ggml_tensor* const x = ggml_new_tensor_2d(c, GGML_TYPE_F32, n, rows);
      x->data = p.a.data();
      ggml_tensor* const y = ggml_soft_max(c, x);
      y->data = p.y.data();
      return y;
    });
    checked(r, p, [&] { op(); }, [&] { return right(p); });
  });
#endif
}

/// Nine heads of 64, with the table that serves all layers, and the making of that table.
void add_rope(index tokens) {
  index const heads = 9, dim = 64;
  auto data = lazy([=] { return problem(tokens, heads * dim, 1); });
  auto table = lazy([=] {
    buffer<float> t(tokens * dim);
    rope_table(cpu, 0, tern::view(t.data(), tokens, dim));
    return t;
  });
  std::string const name = "heads9_dim64_tokens" + std::to_string(tokens);
  workload const w{.op = "rope",
                   .name = name,
                   .flops = 3.0 * static_cast<double>(tokens * heads * dim),
                   .bytes = 8.0 * static_cast<double>(tokens * heads * dim)};
  for (auto const pairing : {rope_pairing::interleaved, rope_pairing::half})
    w.add(pairing == rope_pairing::half ? "tern_half" : "tern", [=](run& r) {
      problem& p = data();
      auto by_head = [&](buffer<float>& x) {
        return tensor_view<float, 3>(x.data(), shape<3>{{heads, tokens, dim}}, shape<3>{{dim, heads * dim, 1}});
      };
      checked(
          r, p, [&] { rope(r.policy(), by_head(p.a), by_head(p.y), tern::view(table().data(), tokens, dim), {.pairing = pairing}); },
          [&] {
            return p.compare_rows(rope.error + rope_table.error(static_cast<double>(tokens)), [&](index t) {
              return oracle::rope(problem::row_of(p.a, t, heads * dim), std::vector<double>(heads, static_cast<double>(t)),
                                  {.half = pairing == rope_pairing::half, .n = dim, .d = dim});
            });
          });
    });
  workload const make{.op = "rope_table", .name = "dim64_tokens" + std::to_string(tokens)};
  make.add("tern", [=](run& r) {
    buffer<float> mine(tokens * dim);  // not the table above, which must stay that of position 0
    r.time([&](index i) { rope_table(r.policy(), i, tern::view(mine.data(), tokens, dim)); });
  });
}

void add_sample() {
  index const n = 49152;
  auto data = lazy([=] { return problem(1, n, 2.5); });
  for (auto const& [name, s] : {std::pair{"greedy", sampling{.temperature = 0.f}}, std::pair{"all", sampling{}},
                                std::pair{"top_k40", sampling{.top_k = 40}}, std::pair{"top_p0.95", sampling{.top_p = 0.95f}},
                                std::pair{"top_k40_top_p0.95", sampling{.temperature = 0.7f, .top_k = 40, .top_p = 0.95f}}}) {
    workload const w{.op = "sample", .name = "vocabulary49152_" + std::string(name), .bytes = 4.0 * static_cast<double>(n), .threads = {1}};
    w.add("tern", [=, options = s](run& r) {
      problem& p = data();
      tern::random generator(1);
      auto const probability = oracle::sampling(problem::row_of(p.a, 0, n), options.temperature == 0.f ? 1.0 : options.temperature,
                                                options.temperature == 0.f ? 1 : options.top_k, options.top_p, options.min_p);
      r.check([&] { return probability[static_cast<std::size_t>(tern::sample(r.policy(), p.a, options, generator))] > 0; });
      r.time([&](index) { benchmark::DoNotOptimize(tern::sample(r.policy(), p.a, options, generator)); });
    });
  }
}

}  // namespace

void register_benchmarks() {
  for (index rows : {1, 512}) {
    add_rms_norm(rows);
    add_swiglu(rows);
    add_kan_features(rows);
    add_rope(rows);
  }
  add_softmax(512, 576);
  add_softmax(1, 49152);
  add_sample();
}

}  // namespace tern::bench

// SPDX-License-Identifier: Apache-2.0
// Prologues, epilogues and chosen rows: each against the product of the oracle and the formula in f64.
#include "catch.hpp"
#include "random_weights.hpp"

#include <cmath>

namespace tern::test::matmul_options {

namespace {
using doubles = std::vector<double>;
std::size_t at(index i) { return static_cast<std::size_t>(i); }

/// x (rows, k), w (n, k) with a tolerance for what follows the sums.
struct fixture {
  rng r;
  index rows, n, k;
  random_weights w;
  std::vector<float> x, start;
  guarded<float> y;

  fixture(weight_type type, index rows_, index n_, index k_)
      : r(static_cast<std::uint64_t>(rows_ * 1000 + n_)),
        rows(rows_),
        n(n_),
        k(k_),
        w(r, type, n, k),
        x(r.normal(rows * k)),
        start(r.normal(rows * n)),
        y(start, 1) {}
  auto xs() { return view(x.data(), rows, k); }
  auto ys() { return view(y.data(), rows, n); }
  oracle::product exact(std::vector<float> const& input) const { return oracle::matmul(widened(input), w.decoded, rows, n, k); }
};
}  // namespace

TEST_CASE("epilogues: bias, residual, functions, and their order") {
  for (weight_type type : {weight_type::f32, weight_type::q4_0})
    for (index rows : {1, 5, 40}) {
      fixture f(type, rows, 70, 96);
      auto const b = f.r.normal(f.n);
      auto const res = f.r.normal(rows * f.n);
      auto want = f.exact(f.x);
      for (index i = 0; i < rows * f.n; ++i) {
        double const z = want.value[at(i)] + static_cast<double>(b[at(i % f.n)]);
        want.value[at(i)] = z / (1 + std::exp(-z)) + static_cast<double>(res[at(i)]);
        want.magnitude[at(i)] = 1.1 * want.magnitude[at(i)] + std::abs(z) + std::abs(static_cast<double>(res[at(i)]));
      }
      matmul(cpu, f.xs(), f.w.m, f.ys(), bias{b}, act::silu{}, residual{view(res.data(), rows, f.n)});
      CHECK(compare(f.y.span(), want.value, want.magnitude, tolerance(f.k) + 12 * 0x1p-24));
      CHECK(f.y.intact());
    }
}

TEST_CASE("epilogues: every function, and one of the caller's own") {
  fixture f(weight_type::f32, 3, 37, 64);
  auto const z = f.exact(f.x);
  auto const check = [&](auto const& option, auto const& function) {
    matmul(cpu, f.xs(), f.w.m, f.ys(), option);
    doubles want, magnitude;
    for (std::size_t i = 0; i < z.value.size(); ++i) {
      want.push_back(function(z.value[i]));
      magnitude.push_back(2 * (z.magnitude[i] + 1) * (1 + std::abs(z.value[i])));
    }
    CHECK(compare(f.y.span(), want, magnitude, tolerance(f.k) + 16 * 0x1p-24));
  };
  check(act::silu{}, [](double v) { return v / (1 + std::exp(-v)); });
  check(act::gelu{}, [](double v) { return v * (1 + std::erf(v / std::sqrt(2.))) / 2; });
  check(act::gelu_tanh{}, [](double v) { return v * (1 + std::tanh(std::sqrt(2 / std::acos(-1.)) * (v + 0.044715 * v * v * v))) / 2; });
  check(act::relu{}, [](double v) { return std::max(v, 0.); });
  check(act::squared_relu{}, [](double v) { return std::max(v, 0.) * std::max(v, 0.); });
  check(act::sigmoid{}, [](double v) { return 1 / (1 + std::exp(-v)); });
  check(act::tanh{}, [](double v) { return std::tanh(v); });
  check(each{[](simd::pack<float> v) { return v * v; }}, [](double v) { return v * v; });
}

TEST_CASE("gate: two products and their join") {
  for (index rows : {1, 20})
    for (compute mode : {compute::f32, compute::int8}) {
      fixture f(weight_type::q8_0, rows, 45, 64);
      random_weights const g(f.r, weight_type::q4_1, f.n, f.k);
      auto const up = expected(f.x, f.w, rows, mode), z = expected(f.x, g, rows, mode);
      doubles want, magnitude;
      for (std::size_t i = 0; i < up.value.size(); ++i) {
        double const s = z.value[i] / (1 + std::exp(-z.value[i]));
        want.push_back(s * up.value[i]);
        magnitude.push_back(std::abs(s) * up.magnitude[i] + 1.1 * z.magnitude[i] * (std::abs(up.value[i]) + up.magnitude[i] * 1e-6) +
                            std::abs(want.back()));
      }
      matmul(cpu, f.xs(), f.w.m, f.ys(), mode, gate{g.m, act::silu{}});
      CHECK(compare(f.y.span(), want, magnitude, tolerance(f.k) + 12 * 0x1p-24));
    }
}

TEST_CASE("prologues: norms, scales, clipping, in their order; x stays as it is") {
  for (index rows : {1, 4, 33}) {
    fixture f(weight_type::q4_0, rows, 40, 64);
    auto const g = f.r.normal(f.k), b = f.r.normal(f.k);
    auto const before = f.x;
    auto const check = [&](auto const& row_function, auto const&... options) {
      matmul(cpu, f.xs(), f.w.m, f.ys(), options...);
      std::vector<double> prepared;
      for (index i = 0; i < rows; ++i) {
        doubles row(f.x.begin() + i * f.k, f.x.begin() + (i + 1) * f.k);
        row_function(row);
        prepared.insert(prepared.end(), row.begin(), row.end());
      }
      auto const want = oracle::matmul(prepared, f.w.decoded, rows, f.n, f.k);
      CHECK(compare(f.y.span(), want.value, want.magnitude, tolerance(f.k) + 40 * 0x1p-24));
      CHECK(f.x == before);
    };
    auto const rms = [&](doubles& row) {
      double s = 0;
      for (double e : row) s += e * e;
      for (index j = 0; j < f.k; ++j) row[at(j)] *= static_cast<double>(g[at(j)]) / std::sqrt(s / static_cast<double>(f.k) + 1e-6);
    };
    auto const clip = [](doubles& row) {
      for (double& e : row) e = std::clamp(e, -0.5, 0.5);
    };
    check(rms, rms_norm_in{g});
    check(clip, clip_in{0.5f});
    check([&](doubles& row) { rms(row), clip(row); }, rms_norm_in{g}, clip_in{0.5f});
    check(
        [&](doubles& row) {
          for (index j = 0; j < f.k; ++j) row[at(j)] *= static_cast<double>(b[at(j)]);
        },
        scale_in{b});
  }
}

TEST_CASE("prologues: layer norm, relative to its own magnitude") {
  fixture f(weight_type::f32, 3, 20, 64);
  auto const g = f.r.normal(f.k), b = f.r.normal(f.k);
  std::vector<float> normalized(f.x.size());
  layer_norm(cpu, f.xs(), g, b, view(normalized.data(), f.rows, f.k), 1e-5f);
  auto const want = f.exact(normalized);
  matmul(cpu, f.xs(), f.w.m, f.ys(), layer_norm_in{g, b, 1e-5f});
  CHECK(compare(f.y.span(), want.value, want.magnitude, tolerance(f.k)));
}

TEST_CASE("hadamard_in undoes the rotation of the weights") {
  for (index k : {64, 96, 576}) {
    fixture f(weight_type::f32, 4, 30, k);
    std::vector<float> w(f.w.decoded.begin(), f.w.decoded.end()), turned(w.size());
    hadamard(cpu, view(w.data(), f.n, k), view(turned.data(), f.n, k));
    auto const plain = f.exact(f.x);
    doubles magnitude;
    for (index r = 0; r < f.rows; ++r)
      for (index i = 0; i < f.n; ++i) {
        double xx = 0, ww = 0;
        for (index c = 0; c < k; ++c) {
          xx += std::pow(static_cast<double>(f.x[at(r * k + c)]), 2);
          ww += std::pow(f.w.decoded[at(i * k + c)], 2);
        }
        magnitude.push_back(std::sqrt(xx * ww));
      }
    matmul(cpu, f.xs(), view(turned.data(), f.n, k), f.ys(), hadamard_in{k});
    CHECK(compare(f.y.span(), plain.value, magnitude, 2 * hadamard.error(k) + tolerance(k)));
  }
  float x[64] = {};
  CHECK_THROWS_WITH(matmul(cpu, view(x, 1, 32), view(x, 1, 32), view(x + 32, 1, 1), hadamard_in{64}),
                    "matmul: hadamard_in's k is 64, expected x.extent(1) = 32");
}

TEST_CASE("low_rank adds a path of small rank") {
  for (index rows : {1, 7, 40})
    for (compute mode : {compute::f32, compute::int8}) {
      fixture f(weight_type::q4_0, rows, 75, 64);
      index const rank = 5;
      auto const a = f.r.normal(rank * f.k), b = f.r.normal(f.n * rank);
      auto want = expected(f.x, f.w, rows, mode);
      auto const t = oracle::matmul(widened(f.x), widened(a), rows, rank, f.k);
      auto const side = oracle::matmul(t.value, widened(b), rows, f.n, rank),
                 most = oracle::matmul(t.magnitude, widened(b), rows, f.n, rank);
      for (std::size_t i = 0; i < want.value.size(); ++i) {
        want.value[i] += 0.5 * side.value[i];
        want.magnitude[i] += 0.5 * (side.magnitude[i] + most.magnitude[i]);
      }
      matmul(cpu, f.xs(), f.w.m, f.ys(), mode, low_rank{view(a.data(), rank, f.k), view(b.data(), f.n, rank), 0.5f});
      CHECK(compare(f.y.span(), want.value, want.magnitude, 2 * tolerance(f.k)));
      CHECK(f.y.intact());
    }
}

TEST_CASE("split_outliers: LLM.int8() and mllm-NPU") {
  for (weight_type type : {weight_type::q8_0, weight_type::q4_0, weight_type::q6_k})
    for (index rows : {1, 6})
      for (bool clip : {false, true}) {
        fixture f(type, rows, 40, 512);
        for (index c : {3, 40, 41, 300}) f.x[at(c)] = 50.f + static_cast<float>(c);
        f.x[at((rows - 1) * f.k + 300)] = -20.f;
        std::vector<float> rest = f.x;
        doubles outside(f.x.size());
        for (index c = 0; c < f.k; ++c) {
          bool found = false;
          for (index r = 0; r < rows; ++r) found |= std::abs(f.x[at(r * f.k + c)]) >= 6.f;
          for (index r = 0; r < rows && found; ++r) {
            float& e = rest[at(r * f.k + c)];
            float const kept = clip ? std::clamp(e, -6.f, 6.f) : 0.f;
            outside[at(r * f.k + c)] = static_cast<double>(e - kept);
            e = kept;
          }
        }
        auto want = expected(rest, f.w, rows, compute::int8);
        auto const exact = oracle::matmul(outside, f.w.decoded, rows, f.n, f.k);
        for (std::size_t i = 0; i < want.value.size(); ++i) {
          want.value[i] += exact.value[i];
          want.magnitude[i] += exact.magnitude[i];
        }
        matmul(cpu, f.xs(), f.w.m, f.ys(), compute::int8, split_outliers{6.f, clip});
        INFO(info(type).name << " rows " << rows << " clip " << clip);
        CHECK(compare(f.y.span(), want.value, want.magnitude, tolerance(f.k)));
      }
}

TEST_CASE("split_outliers splits the gate's product too") {
  for (index rows : {1, 40}) {
    fixture f(weight_type::q8_0, rows, 45, 64);
    random_weights const g(f.r, weight_type::q4_1, f.n, f.k);
    f.x[at((rows - 1) * f.k + 7)] = 30.f;
    auto const up = f.exact(f.x), z = oracle::matmul(widened(f.x), g.decoded, rows, f.n, f.k);
    doubles want, magnitude;
    for (std::size_t i = 0; i < up.value.size(); ++i) {
      double const s = z.value[i] / (1 + std::exp(-z.value[i]));
      want.push_back(s * up.value[i]);
      magnitude.push_back(std::abs(s) * up.magnitude[i] + 1.1 * z.magnitude[i] * (std::abs(up.value[i]) + up.magnitude[i] * 1e-6) +
                          std::abs(want.back()));
    }
    for (bool clip : {false, true}) {
      matmul(cpu, f.xs(), f.w.m, f.ys(), gate{g.m}, split_outliers{6.f, clip});
      CHECK(compare(f.y.span(), want, magnitude, 2 * tolerance(f.k) + 12 * 0x1p-24));
    }
  }
}

TEST_CASE("gather, scatter and chosen rows") {
  fixture f(weight_type::q4_1, 6, 40, 64);
  std::vector<std::int32_t> const ids{4, 0, 4, 5};
  std::vector<float> gathered;
  for (auto i : ids) gathered.insert(gathered.end(), f.x.begin() + i * f.k, f.x.begin() + (i + 1) * f.k);
  for (compute mode : {compute::f32, compute::bf16, compute::int8}) {
    std::vector<float> want(4 * 40), got(4 * 40);
    matmul(cpu, view(gathered.data(), 4, f.k), f.w.m, view(want.data(), 4, f.n), mode);
    matmul(cpu, f.xs(), f.w.m, view(got.data(), 4, f.n), mode, gather{ids});
    CHECK(got == want);

    std::vector<std::int32_t> const to{2, 7, 2, 0};
    std::vector<float> const factors{1.f, 2.f, 0.5f, -1.f};
    std::vector<float> y(8 * 40, 3.f), sum(8 * 40, 3.f);
    matmul(cpu, f.xs(), f.w.m, view(y.data(), 8, f.n), mode, gather{ids}, scatter{to, factors}, accumulate{});
    for (index r = 0; r < 4; ++r)
      for (index i = 0; i < f.n; ++i) sum[at(to[at(r)] * f.n + i)] += factors[at(r)] * want[at(r * f.n + i)];
    CHECK(y == sum);

    std::vector<std::int32_t> const neurons{39, 3, 3, 17, 20};
    std::vector<float> all(6 * 40), some(6 * 5);
    matmul(cpu, f.xs(), f.w.m, view(all.data(), 6, f.n), mode);
    matmul(cpu, f.xs(), chosen_rows(f.w.m, neurons), view(some.data(), 6, 5), mode);
    for (index r = 0; r < 6; ++r)
      for (index i = 0; i < 5; ++i) CHECK(some[at(r * 5 + i)] == all[at(r * f.n + neurons[at(i)])]);
  }
  for (weight_type type : {weight_type::f32, weight_type::f16}) {
    random_weights const w(f.r, type, 40, 64);
    std::vector<std::int32_t> const neurons{39, 3, 17};
    std::vector<float> some(6 * 3);
    matmul(cpu, f.xs(), chosen_rows(w.m, neurons), view(some.data(), 6, 3));
    auto const all = oracle::matmul(widened(f.x), w.decoded, 6, 40, 64);
    for (index r = 0; r < 6; ++r)
      for (index i = 0; i < 3; ++i) {
        std::size_t const j = at(r * 40 + neurons[at(i)]);
        CHECK(std::abs(static_cast<double>(some[at(r * 3 + i)]) - all.value[j]) <= tolerance(64) * all.magnitude[j]);
      }
  }
}

TEST_CASE("results with options are the same bits whatever the threads") {
  fixture f(weight_type::q4_0, 41, 150, 256);
  f.x[5] = 30.f;
  auto const g = f.r.normal(f.k), b = f.r.normal(f.n);
  thread_pool pool(3);
  std::vector<float> one(at(f.rows * f.n)), three(one.size());
  auto const run = [&](cpu_policy const& policy, std::vector<float>& y) {
    matmul(policy, f.xs(), f.w.m, view(y.data(), f.rows, f.n), compute::int8, rms_norm_in{g}, split_outliers{4.f}, bias{b},
           gate{f.w.m, act::gelu{}});
  };
  run(cpu.on(serial), one);
  run(cpu.on(pool), three);
  CHECK(one == three);
}

TEST_CASE("options say what is wrong, and what scratch memory they need") {
  fixture f(weight_type::q4_0, 3, 40, 64);
  std::vector<float> const short_bias(39), g(64, 1.f);
  std::vector<std::int32_t> const bad{0, 3}, ids{0, 1};
  CHECK_THROWS_WITH(matmul(cpu, f.xs(), f.w.m, f.ys(), bias{short_bias}), "matmul: bias.extent(0) is 39, expected w's rows = 40");
  CHECK_THROWS_WITH(matmul(cpu, f.xs(), f.w.m, f.ys(), rms_norm_in{short_bias}),
                    "matmul: rms_norm_in.weight.extent(0) is 39, expected x.extent(1) = 64");
  CHECK_THROWS_WITH(matmul(cpu, f.xs(), f.w.m, view(f.y.data(), 2, 40), gather{bad}),
                    "matmul: gather.ids is 3, expected at least 0 and less than the rows");
  CHECK_THROWS_WITH(matmul(cpu, f.xs(), f.w.m, f.ys(), gather{ids}), "matmul: y.extent(0) is 3, expected gather.ids.extent(0) = 2");
  CHECK_THROWS_WITH(chosen_rows(f.w.m, std::vector<std::int32_t>{40}),
                    "matmul: chosen_rows.ids is 40, expected at least 0 and less than the rows");
  CHECK_THROWS_WITH(matmul(cpu, f.xs(), f.w.m, f.ys(), low_rank{view(g.data(), 2, 32), view(g.data(), 32, 2)}),
                    "matmul: low_rank.a's columns is 32, expected x.extent(1) = 64");
  CHECK_THROWS_WITH(matmul(cpu, f.xs(), f.w.m, f.ys(), clip_in{-1.f}), "matmul: clip_in.limit is negative or NaN, expected at least 0");

  CHECK_THROWS_WITH(matmul(cpu, f.xs(), f.w.m, f.ys(), residual{f.ys()}),
                    "matmul: the residual overlaps y, expected memory of its own, or accumulate{}");
  std::vector<float> both(200);  // (8, 25): x is columns 0 to 15, y 10 to 24, or 16 to 24
  tensor_view<float, 2> const all = view(both.data(), 8, 25), left = all.slice(1, 0, 16);
  block_matrix const square(g.data(), weight_type::f32, 4, 16);
  CHECK_THROWS_WITH(matmul(cpu, left, square, all.slice(1, 15, 19)), "matmul: y overlaps x, expected memory of its own");
  CHECK_NOTHROW(matmul(cpu, left, square, all.slice(1, 16, 20)));
  CHECK_THROWS_WITH(matmul(cpu, left, block_matrix(left.slice(0, 0, 4)), all.slice(1, 12, 16)),
                    "matmul: y overlaps x, expected memory of its own");
  CHECK_THROWS_WITH(matmul(cpu, view(g.data(), 4, 16), left.slice(0, 0, 4), all.slice(1, 12, 16).slice(0, 3, 7)),
                    "matmul: y overlaps the weights, expected memory of its own");
  CHECK_NOTHROW(matmul(cpu, view(g.data(), 4, 16), left.slice(0, 0, 4), all.slice(1, 16, 20).slice(0, 3, 7)));
  CHECK_NOTHROW(matmul(cpu, view(g.data(), 4, 16), left.slice(0, 0, 4), all.slice(1, 12, 16).slice(0, 4, 8)));
  CHECK_THROWS_WITH(matmul(cpu, f.xs(), block_matrix(nullptr, weight_type::q4_0, 40, 64), f.ys()),
                    "matmul: w.data is 0, expected not null");
  CHECK_THROWS_WITH(matmul(cpu, f.xs(), f.w.m, tensor_view<float, 2>(nullptr, {3, 40})), "matmul: y.data() is 0, expected not null");

  auto const size = workspace_size(matmul, cpu, f.xs(), f.w.m, f.ys(), rms_norm_in{g}, split_outliers{4.f}, gate{f.w.m});
  std::vector<std::byte> memory(size);
  workspace enough(memory.data(), size), little(memory.data(), size / 2);
  matmul(cpu.with(enough), f.xs(), f.w.m, f.ys(), rms_norm_in{g}, split_outliers{4.f}, gate{f.w.m});
  CHECK_THROWS_AS(matmul(cpu.with(little), f.xs(), f.w.m, f.ys(), rms_norm_in{g}, split_outliers{4.f}, gate{f.w.m}), error);
}

}  // namespace tern::test::matmul_options

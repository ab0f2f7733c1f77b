// SPDX-License-Identifier: Apache-2.0
// Published systems of convolutions along whole sequences and of transforms, each beside what else computes the same: kernelized attention
// with relative positions beside matrix products ("matmul"), Monarch transforms beside real_fft and long_conv. TCNCA's dilated stacks
// stand beside long convolutions of as many taps as they see ("tcnca_fft"), which are other results. Some results are checked in float64.
#include "harness.hpp"
#include "inputs.hpp"
#include "oracle/long_conv.hpp"

#include <tern/attention/systems/kernelized_rpe.hpp>
#include <tern/attention/systems/tcnca.hpp>
#include <tern/conv.hpp>
#include <tern/conv/systems/efficient_train.hpp>
#include <tern/conv/systems/flash_butterfly.hpp>
#include <tern/conv/systems/gaunt.hpp>
#include <tern/fft.hpp>

#include <cmath>
#include <complex>
#include <string>
#include <vector>

namespace tern::bench {
namespace {

std::size_t at(index i) { return static_cast<std::size_t>(i); }
double wide(float x) { return static_cast<double>(x); }

workload named(std::string const& name, double flops, double bytes) {
  return {.op = "conv_systems", .name = name, .flops = flops, .bytes = bytes};
}

/// One head of kernelized attention, causal.
struct rpe_problem {
  index n, m = 32, d = 64;
  std::vector<float> q = fast_normal(n * d), k = fast_normal(n * d, 1, 2), v = fast_normal(n * d, 1, 3), w = fast_normal(m * d, 1, 4),
                     b = fast_normal(2 * n - 1, 1, 5), out = std::vector<float>(at(n * d)), factors = std::vector<float>(at(n)),
                     phi_q = std::vector<float>(at(n * m)), phi_k = phi_q, values = out, weights = std::vector<float>(at(512 * n));
  explicit rpe_problem(index tokens) : n(tokens) {
    // Distances matter less the larger they are.
    for (index t = 0; t < 2 * n - 1; ++t) b[at(t)] -= static_cast<float>(std::log1p(std::abs(static_cast<double>(t - n + 1))));
  }
  tensor_view<float, 3> head(std::vector<float>& x) { return view(x.data(), 1, n, d); }

  void convolved(cpu_policy const& on) {
    kernelized_rpe(on, head(q), head(k), head(v), view(b.data(), 1, 2 * n - 1), head(out), positive_random_features{view(w.data(), m, d)},
                   causal{});
  }
  /// The same by products of queries and keys, 512 queries at a time.
  void multiplied(cpu_policy const& on) {
    positive_random_features const features{view(w.data(), m, d)};
    features.write(on, view(q.data(), n, d), view(phi_q.data(), m, n));
    features.write(on, view(k.data(), n, d), view(phi_k.data(), m, n));
    for (index t = 0; t < n; ++t) factors[at(t)] = std::exp(b[at(t)]);
    for (index i = 0; i < n * d; ++i) values[at(i / d + i % d * n)] = v[at(i)];
    std::vector<float> keys(at(n * m));
    for (index i = 0; i < n * m; ++i) keys[at(i % n * m + i / n)] = phi_k[at(i)];
    for (index from = 0; from < n; from += 512) {
      index const end = from + 512;
      auto const products = view(weights.data(), 512, end);
      matmul(on, view(phi_q.data(), m, n).slice(1, from, end).transposed(0, 1), view(keys.data(), end, m), products);
      tern::detail::parallel_for(on, 512, [&](index i, index) {
        float* const row = &products(i, 0);
        float sum = 0;
        for (index j = 0; j < end; ++j) sum += row[j] *= j <= from + i ? factors[at(j - from - i + n - 1)] : 0.f;
        for (index j = 0; j < end; ++j) row[j] /= sum;
      });
      matmul(on, products, view(values.data(), d, n).slice(1, 0, end), view(out.data() + from * d, 512, d));
    }
  }
  bool right() const {
    std::vector<std::vector<double>> keys;
    auto const phi = [&](std::vector<float> const& x, index i) {
      double squares = 0;
      for (index e = 0; e < d; ++e) squares += wide(x[at(i * d + e)]) * wide(x[at(i * d + e)]);
      std::vector<double> f;
      for (index r = 0; r < m; ++r) {
        double dot = 0;
        for (index e = 0; e < d; ++e) dot += wide(w[at(r * d + e)]) * wide(x[at(i * d + e)]);
        f.push_back(std::exp(dot / std::sqrt(squares)));
      }
      return f;
    };
    for (index j = 0; j < n; ++j) keys.push_back(phi(k, j));
    for (index i : sample(n, 5)) {
      auto const query = phi(q, i);
      std::vector<double> sum(at(d));
      double below = 0;
      for (index j = 0; j <= i; ++j) {
        double s = 0;
        for (index r = 0; r < m; ++r) s += query[at(r)] * keys[at(j)][at(r)];
        s *= std::exp(wide(b[at(j - i + n - 1)]));
        below += s;
        for (index e = 0; e < d; ++e) sum[at(e)] += s * wide(v[at(j * d + e)]);
      }
      for (index e = 0; e < d; ++e)
        if (!(std::abs(sum[at(e)] / below - wide(out[at(i * d + e)])) <= 1e-3)) return false;
    }
    return true;
  }
};

void add_rpe(index n) {
  static room data;
  double const tokens = static_cast<double>(n);
  workload const w = named("kernelized_rpe_m32_d64_n" + std::to_string(n), 2 * tokens * tokens / 2 * (32 + 64), 16. * 64 * tokens);
  auto const get = [=]() -> rpe_problem& { return data.get(std::to_string(n), [=] { return rpe_problem(n); }); };
  auto const add = [&](std::string const& name, void (rpe_problem::*call)(cpu_policy const&)) {
    w.add(name, [=](run& r) {
      rpe_problem& p = get();
      r.check([&] {
        (p.*call)(r.policy());
        return p.right();
      });
      r.time([&](index) { (p.*call)(r.policy()); });
    });
  };
  add("tern", &rpe_problem::convolved);
  add("matmul", &rpe_problem::multiplied);
}

/// Four layers of 17 taps that together see the whole of n tokens, of 64 channels; and a filter of n taps.
struct tcnca_problem {
  static constexpr index channels = 64, layers = 4, width = 17;
  index n, growth;
  buffer<float> x, y;
  std::vector<float> w = fast_normal(layers * width * channels, 0.25, 2);
  long_filter filter;
  tcnca_problem(index length, index by)
      : n(length),
        growth(by),
        x(fast_normal(n * channels)),
        y(n * channels),
        filter(cpu, view(fast_normal(channels * n, 1 / std::sqrt(static_cast<double>(n)), 3).data(), channels, n), n) {}

  void stack(cpu_policy const& on) {
    tcnca_convolve(on, view(x.data(), 1, n, channels), view(w.data(), layers, width, channels), growth, view(y.data(), 1, n, channels));
  }
  double layer(index l, index t, index c) const {
    if (l < 0) return wide(x[t * channels + c]);
    double sum = 0;
    index apart = 1;
    for (index i = 0; i < l; ++i) apart *= growth;
    for (index j = 0; j < width; ++j)
      if (index const from = t - (width - 1 - j) * apart; from >= 0)
        sum += wide(w[at((l * width + j) * channels + c)]) * layer(l - 1, from, c);
    return sum;
  }
  bool right() const {
    for (index t : sample(n, 4))
      if (!(std::abs(layer(layers - 1, t, t % channels) - wide(y[t * channels + t % channels])) <= 1e-4)) return false;
    return true;
  }
};

void add_tcnca(index n, index growth) {
  static room data;
  std::string const size = "_c64_n" + std::to_string(n);
  auto const get = [=]() -> tcnca_problem& { return data.get(size, [=] { return tcnca_problem(n, growth); }); };
  double const numbers = static_cast<double>(n * tcnca_problem::channels);
  named("tcnca_stack" + size, 2 * 4 * 17 * numbers, 8 * numbers).add("tern", [=](run& r) {
    tcnca_problem& p = get();
    r.check([&] {
      p.stack(r.policy());
      return p.right();
    });
    r.time([&](index) { p.stack(r.policy()); });
  });
  // Checked by bench/long_conv_bench.
  named("tcnca_fft" + size, 0, 8 * numbers).add("tern", [=](run& r) {
    tcnca_problem& p = get();
    auto const c = tcnca_problem::channels;
    r.time([&](index) { long_conv(r.policy(), view(p.x.data(), c, n), p.filter, view(p.y.data(), c, n)); });
  });
}

struct gaunt_problem {
  index items, numbers;
  gaunt_plan plan;
  std::vector<float> x, z, out;
  gaunt_problem(index degree, index count)
      : items(count),
        numbers((degree + 1) * (degree + 1)),
        plan(degree, degree, degree),
        x(fast_normal(items * numbers)),
        z(fast_normal(items * numbers, 1, 2)),
        out(x.size()) {}
  tensor_view<float, 3> rows(std::vector<float>& v) { return view(v.data(), 1, items, numbers); }
  /// The plan's own matrices are right by tests: here, that they are multiplied.
  bool right() const {
    for (index item : sample(items, 3)) {
      std::vector<double> at_points(at(plan.points()));
      for (index p = 0; p < plan.points(); ++p) {
        double a = 0, b = 0;
        for (index i = 0; i < numbers; ++i) {
          a += wide(plan.values(0)(p, i)) * wide(x[at(item * numbers + i)]);
          b += wide(plan.values(1)(p, i)) * wide(z[at(item * numbers + i)]);
        }
        at_points[at(p)] = a * b;
      }
      for (index i = 0; i < numbers; ++i) {
        double sum = 0;
        for (index p = 0; p < plan.points(); ++p) sum += wide(plan.sums()(i, p)) * at_points[at(p)];
        if (!(std::abs(sum - wide(out[at(item * numbers + i)])) <= 1e-4 * static_cast<double>(numbers))) return false;
      }
    }
    return true;
  }
};

void add_gaunt(index degree, index items) {
  auto const data = lazy([=] { return gaunt_problem(degree, items); });
  index const numbers = (degree + 1) * (degree + 1), points = (3 * degree / 2 + 1) * (3 * degree + 1);
  double const count = static_cast<double>(items * numbers);
  named("gaunt_l" + std::to_string(degree) + "_items" + std::to_string(items), 6 * count * static_cast<double>(points), 12 * count)
      .add("tern", [=](run& r) {
        gaunt_problem& p = data();
        auto const call = [&](index) { gaunt(r.policy(), p.plan, p.rows(p.x), p.rows(p.z), p.rows(p.out)); };
        r.check([&] {
          call(0);
          return p.right();
        });
        r.time(call);
      });
}

/// Circular convolutions of 64 channels by exact factors, or products of factors of their own at each place.
struct butterfly_problem {
  static constexpr index channels = 64;
  index n;
  monarch_plan forward, back;
  std::vector<float> u = fast_normal(channels * n), k = fast_normal(channels * n, 1, 2), y = std::vector<float>(u.size());
  std::vector<complex_f32> spectra = std::vector<complex_f32>(u.size()), z = spectra, half = spectra;
  long_filter filter;
  butterfly_problem(monarch_plan&& a, monarch_plan&& b)
      : n(a.size()), forward(std::move(a)), back(std::move(b)), filter(cpu, rows(k), n, long_mode::circular) {
    monarch(cpu, forward, rows(k), view(spectra.data(), channels, n));
  }
  tensor_view<float, 2> rows(std::vector<float>& x) const { return view(x.data(), channels, n); }
  bool right(double tolerance) const {
    oracle::row const x(u.begin(), u.begin() + n), f(k.begin(), k.begin() + n);
    auto const which = sample(n, 5);
    auto const want = oracle::long_conv_at(x, f, oracle::filter_place::circular, which);
    for (std::size_t i = 0; i < which.size(); ++i)
      if (!(std::abs(want[i] - wide(y[at(which[i])])) <= tolerance * oracle::norm(x) * oracle::norm(f))) return false;
    return true;
  }
};

template <std::size_t P>
void add_butterfly(std::string const& size, index const (&sizes)[P]) {
  std::vector<index> const extents(sizes, sizes + P);
  auto const data = lazy([=] {
    index n[P];
    std::copy(extents.begin(), extents.end(), n);
    return butterfly_problem(monarch_plan::dft(n), monarch_plan::dft(n, fft_direction::inverse));
  });
  double n = 1, sum = 0;
  for (index e : sizes) n *= static_cast<double>(e), sum += static_cast<double>(e);
  double const rows = butterfly_problem::channels, flops = rows * n * (8 * sum - 4 * static_cast<double>(sizes[0]));
  workload const conv = named("flash_butterfly_" + size, 2 * flops, rows * 16 * n);
  for (compute mode : {compute::f32, compute::bf16})
    conv.add(mode == compute::f32 ? "tern" : "tern_bf16", mode == compute::f32 ? unit::f32 : unit::bf16, [=](run& r) {
      butterfly_problem& p = data();
      auto const call = [&](index) {
        flash_butterfly(r.policy(), view(p.u.data(), 1, p.channels, p.n), view(p.spectra.data(), p.channels, p.n), p.forward, p.back,
                        view(p.y.data(), 1, p.channels, p.n), mode);
      };
      r.check([&] {
        call(0);
        return p.right(mode == compute::f32 ? 1e-5 : 2e-2);
      });
      r.time(call);
    });
  conv.add("long_conv", [=](run& r) {
    butterfly_problem& p = data();
    auto const call = [&](index) { long_conv(r.policy(), p.rows(p.u), p.filter, p.rows(p.y)); };
    r.check([&] {
      call(0);
      return p.right(1e-5);
    });
    r.time(call);
  });
  workload const transform = named("monarch_" + size, flops, rows * 12 * n);
  transform.add("tern", [=](run& r) {
    butterfly_problem& p = data();
    r.time([&](index) { monarch(r.policy(), p.forward, p.rows(p.u), view(p.z.data(), p.channels, p.n)); });
  });
  transform.add("real_fft", [=](run& r) {
    butterfly_problem& p = data();
    r.time([&](index) { real_fft(r.policy(), p.rows(p.u), view(p.half.data(), p.channels, p.n / 2 + 1)); });
  });
}

/// Learned factors: a block of its own at each place.
void add_learned() {
  constexpr index n = 4096, side = 64;
  auto const data = lazy([] {
    static std::vector<complex_f32> blocks(at(n * side));
    auto const values = fast_normal(2 * n * side, 1 / std::sqrt(2. * side), 7);
    for (index i = 0; i < n * side; ++i) blocks[at(i)] = {values[at(2 * i)], values[at(2 * i + 1)]};
    monarch_factor const f{view(blocks.data(), side, side, side)};
    return butterfly_problem(monarch_plan({side, side}, {f, f}), monarch_plan({side, side}, {f, f}, fft_direction::inverse));
  });
  named("flash_butterfly_learned_64x64", 2. * 64 * n * (8 * 128 - 4 * 64), 64. * 16 * n).add("tern", [=](run& r) {
    butterfly_problem& p = data();
    r.time([&](index) {
      flash_butterfly(r.policy(), view(p.u.data(), 1, p.channels, p.n), view(p.spectra.data(), p.channels, p.n), p.forward, p.back,
                      view(p.y.data(), 1, p.channels, p.n));
    });
  });
}

void add_crop() {
  constexpr index images = 8, side = 224, s = 160;
  struct problem {
    std::vector<float> x = fast_normal(images * 3 * side * side), out = std::vector<float>(at(images * 3 * s * s));
  };
  auto const data = lazy([] { return problem(); });
  double const count = images * 3 * side * side, left = images * 3 * s * s;
  named("efficient_train_224_160", 2.5 * (count * std::log2(side * side) + left * std::log2(s * s)), 4 * (count + left))
      .add("tern", [=](run& r) {
        problem& p = data();
        auto const call = [&](index) {
          efficient_train(r.policy(), view(p.x.data(), images, 3, side, side), view(p.out.data(), images, 3, s, s));
        };
        // The mean stays.
        r.check([&] {
          call(0);
          double a = 0, b = 0;
          for (index i = 0; i < side * side; ++i) a += wide(p.x[at(i)]) / (side * side);
          for (index i = 0; i < s * s; ++i) b += wide(p.out[at(i)]) / (s * s);
          return std::abs(a - b) <= 1e-5;
        });
        r.time(call);
      });
}

}  // namespace

void register_benchmarks() {
  for (index n : {1024, 4096, 16384}) add_rpe(n);
  add_tcnca(8192, 8);
  add_tcnca(32768, 13);
  add_tcnca(131072, 20);
  add_gaunt(2, 8192);
  add_gaunt(6, 2048);
  add_gaunt(12, 512);
  add_butterfly("32x32", {32, 32});
  add_butterfly("64x64", {64, 64});
  add_butterfly("16x16x16", {16, 16, 16});
  add_butterfly("128x128", {128, 128});
  add_learned();
  add_crop();
}

}  // namespace tern::bench

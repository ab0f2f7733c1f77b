// SPDX-License-Identifier: Apache-2.0
// Makers of the filters of long convolutions, for 64 channels. Some taps of each are checked against the formula in float64. Operations are
// those that the headers state.
#include "harness.hpp"
#include "inputs.hpp"

#include <tern/conv.hpp>

#include <algorithm>
#include <cmath>
#include <complex>
#include <functional>
#include <string>
#include <vector>

namespace tern::bench {
namespace {

constexpr index channels = 64, states = 32, order = 16;
using narrow = std::complex<float>;
using wide = std::complex<double>;

double d(float x) { return static_cast<double>(x); }
std::size_t at(index i) { return static_cast<std::size_t>(i); }

/// What the makers take, each what it needs.
struct problem {
  index n;
  std::vector<float> numbers, feedback, rates, steps, raw;
  std::vector<narrow> poles, low, in, out;
  buffer<float> taps;

  explicit problem(index length)
      : n(length),
        numbers(fast_normal(1 << 16)),
        feedback(fast_normal(channels * order, 0.05, 4)),
        raw(fast_normal(channels * n, 1, 2)),
        taps(channels * n) {
    auto const any = fast_normal(6 * channels * states, 1, 3);
    for (index i = 0; i < channels * states; ++i) {
      poles.push_back({-0.5f, 3.14159265f * static_cast<float>(i % states)});
      low.push_back({any[at(6 * i)], any[at(6 * i + 1)]});
      in.push_back({any[at(6 * i + 2)], any[at(6 * i + 3)]});
      out.push_back({any[at(6 * i + 4)], any[at(6 * i + 5)]});
    }
    for (index c = 0; c < channels; ++c) {
      rates.push_back(static_cast<float>(c + 1) / static_cast<float>(8 * n));
      steps.push_back(0.001f * std::pow(100.f, static_cast<float>(c) / channels));
    }
  }
  tensor_view<float, 2> k() { return view(taps.data(), channels, n); }
  tensor_view<float const, 2> directly() const { return view(raw.data(), channels, n); }
  template <class... N>
  auto weights(N... extents) const {
    return view(numbers.data(), extents...);
  }
  tensor_view<narrow const, 2> of_states(std::vector<narrow> const& z) const { return view(z.data(), channels, states); }
};

/// All taps of a channel.
using formula = std::function<std::vector<double>(problem const&, index)>;

void add(std::string const& name, index n, double flops_a_tap, double tolerance,
         std::function<void(cpu_policy const&, problem&)> const& call, formula const& want) {
  static room data;
  auto const get = [=]() -> problem& { return data.get(std::to_string(n), [=] { return problem(n); }); };
  double const taps = static_cast<double>(channels * n);
  workload const w{.op = "long_filters", .name = name + "_c64_n" + std::to_string(n), .flops = flops_a_tap * taps, .bytes = 4 * taps};
  w.add("tern", [=](run& r) {
    problem& p = get();
    r.check([&] {
      call(r.policy(), p);
      std::vector<float> got;
      std::vector<double> wanted, size;
      for (index c : {index{1}, channels - 1}) {
        auto const all = want(p, c);
        double squares = 0;
        for (double e : all) squares += e * e;
        for (index j : sample(n, 50)) {
          got.push_back(p.k()(c, j));
          wanted.push_back(all[at(j)]);
          size.push_back(std::sqrt(squares));
        }
      }
      return test::compare(got, wanted, size, tolerance);
    });
    r.time([&](index) { call(r.policy(), p); });
  });
}

/// f(j) for all taps.
template <class F>
std::vector<double> each_tap(index n, F&& f) {
  std::vector<double> k;
  for (index j = 0; j < n; ++j) k.push_back(f(j));
  return k;
}

/// S4's recurrence with a rank of 1, a state at a time: x = (1 - h A)^-1 (1 + h A) x, by Woodbury.
std::vector<double> s4_recurrence(problem const& p, index c) {
  double const h = d(p.steps[at(c)]) / 2;
  std::vector<wide> x, low, weights, poles;
  for (index i = c * states; i < (c + 1) * states; ++i) {
    x.push_back(2 * h * wide(p.in[at(i)]));
    low.emplace_back(p.low[at(i)]);
    weights.emplace_back(p.out[at(i)]);
    poles.emplace_back(p.poles[at(i)]);
  }
  auto const along = [&](std::vector<wide> const& z) {
    double sum = 0;
    for (std::size_t i = 0; i < z.size(); ++i) sum += 2 * (std::conj(low[i]) * z[i]).real();
    return sum;
  };
  auto const solve = [&] {
    double gram = 1;
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] /= 1. - h * poles[i];
      gram += 2 * h * (std::conj(low[i]) * low[i] / (1. - h * poles[i])).real();
    }
    double const w = h * along(x) / gram;
    for (std::size_t i = 0; i < x.size(); ++i) x[i] -= w * low[i] / (1. - h * poles[i]);
  };
  solve();
  return each_tap(p.n, [&](index) {
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) sum += 2 * (weights[i] * x[i]).real();
    double const before = along(x);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += h * (poles[i] * x[i] - low[i] * before);
    solve();
    return sum;
  });
}

void add_formulas(index n) {
  add(
      "decay", n, 2, 1e-7, [](cpu_policy const& on, problem& p) { decay_filter(on, p.weights(channels), p.rates, p.k()); },
      [](problem const& p, index c) {
        return each_tap(p.n, [&](index j) { return d(p.numbers[at(c)]) * std::exp(-d(p.rates[at(c)]) * static_cast<double>(j)); });
      });
  add(
      "squash", n, 2, 1e-7, [](cpu_policy const& on, problem& p) { squash_filter(on, p.directly(), 0.1f, p.k()); },
      [](problem const& p, index c) {
        return each_tap(p.n, [&](index j) {
          double const e = d(p.directly()(c, j));
          return std::copysign(std::max(std::abs(e) - d(0.1f), 0.), e);
        });
      });
  add(
      "smooth7", n, 7, 1e-7, [](cpu_policy const& on, problem& p) { smooth_filter(on, p.directly(), 7, p.k()); },
      [](problem const& p, index c) {
        return each_tap(p.n, [&](index j) {
          double sum = 0;
          for (index i = std::max(index{0}, j - 3); i <= std::min(p.n - 1, j + 3); ++i) sum += d(p.directly()(c, i));
          return sum / 7;
        });
      });
  index const scales = static_cast<index>(std::log2(static_cast<double>(n) / 16)) + 1;
  add(
      "sgconv", n, 8, 1e-7,
      [=](cpu_policy const& on, problem& p) { multiscale_filter(on, p.weights(channels, scales, 16), 0.5f, p.k(), false); },
      [=](problem const& p, index c) {
        auto const pieces = p.weights(channels, scales, 16)[c];
        std::vector<double> k;
        for (index s = 0; s < scales; ++s) {
          index const stretch = s < 2 ? 1 : index{1} << (s - 1);
          for (index j = 0; j < 16 * stretch; ++j) {
            double const place = std::clamp((static_cast<double>(j) + 0.5) / static_cast<double>(stretch) - 0.5, 0., 15.);
            auto const low = static_cast<index>(place), high = std::min(low + 1, index{15});
            double const part = place - static_cast<double>(low);
            k.push_back(std::pow(0.5, static_cast<double>(s)) * ((1 - part) * d(pieces(s, low)) + part * d(pieces(s, high))));
          }
        }
        return k;
      });
}

void add_state_spaces(index n) {
  add(
      "s4d_states32", n, 8 * states, 1e-6,
      [](cpu_policy const& on, problem& p) { s4d_filter(on, p.of_states(p.poles), p.of_states(p.out), p.steps, p.k()); },
      [](problem const& p, index c) {
        double const step = d(p.steps[at(c)]);
        return each_tap(p.n, [&](index j) {
          double sum = 0;
          for (index i = c * states; i < (c + 1) * states; ++i) {
            wide const pole(p.poles[at(i)]);
            sum += 2 * (wide(p.out[at(i)]) * (std::exp(step * pole) - 1.) / pole * std::exp(step * static_cast<double>(j) * pole)).real();
          }
          return sum;
        });
      });
  for (bool truncated : {false, true})
    add(
        truncated ? "s4_learned_states32" : "s4_states32", n, 26 * states, s4_filter.error(n),
        [=](cpu_policy const& on, problem& p) {
          s4_filter(on, p.of_states(p.poles), view(p.low.data(), channels, 1, states), p.of_states(p.in), p.of_states(p.out), p.steps,
                    p.k(), truncated);
        },
        [=](problem const& p, index c) {
          if (!truncated) return s4_recurrence(p, c);
          // Longer by as much as it takes for the rest to vanish, wound around.
          problem longer(1);
          longer.n = 1 << 17;
          auto const all = s4_recurrence(longer, c);
          std::vector<double> k(at(p.n));
          for (std::size_t j = 0; j < all.size(); ++j) k[j % k.size()] += all[j];
          return k;
        });
  add(
      "spacetime_order16", n, 64, 1e-6,
      [](cpu_policy const& on, problem& p) {
        auto const b = p.weights(2, channels, order);
        companion_filter(on, view(p.feedback.data(), channels, order), b[0], b[1], p.k());
      },
      [](problem const& p, index c) {
        auto const b = p.weights(2, channels, order);
        std::vector<double> x(at(order));
        for (index i = 0; i < order; ++i) x[at(i)] = d(b(0, c, i));
        return each_tap(p.n, [&](index) {
          double sum = 0;
          for (index i = 0; i < order; ++i) sum += d(b(1, c, i)) * x[at(i)];
          double const last = x.back();
          std::rotate(x.begin(), x.end() - 1, x.end());
          x[0] = 0;
          for (index i = 0; i < order; ++i) x[at(i)] += d(p.feedback[at(c * order + i)]) * last;
          return sum;
        });
      });
}

void add_network(index n) {
  constexpr index width = 64, features = 5;
  static std::vector<float> const waves = [] {
    std::vector<float> x(65536 * features);
    position_features(cpu, 65536, view(x.data(), 65536, features));
    return x;
  }();
  auto const weights = [](index scale) { return fast_normal(width * scale, 1 / std::sqrt(static_cast<double>(scale)), 5); };
  static std::vector<float> const first = weights(features), second = weights(width), ones(width, 1.f), zeros(width);
  add(
      "hyena_order64", n, 2. * (features + width + channels) * width / channels, 1e-4,
      [=](cpu_policy const& on, problem& p) {
        sine_layer const layers[] = {{view(first.data(), width, features), view(zeros), view(ones)},
                                     {view(second.data(), width, width), view(zeros), view(ones)}};
        implicit_filter(on, view(waves.data(), n, features), layers, view(second.data(), channels, width), p.k(), decay_window{p.rates});
      },
      [=](problem const& p, index c) {
        return each_tap(n, [&](index j) {
          double h[width], tap = 0;
          for (index i = 0; i < width; ++i) {
            double sum = 0;
            for (index e = 0; e < features; ++e) sum += d(first[at(i * features + e)]) * d(waves[at(j * features + e)]);
            h[i] = std::sin(sum);
          }
          for (index i = 0; i < width; ++i) {
            double sum = 0;
            for (index e = 0; e < width; ++e) sum += d(second[at(i * width + e)]) * h[e];
            tap += d(second[at(c * width + i)]) * std::sin(sum);
          }
          return tap * std::exp(-d(p.rates[at(c)]) * static_cast<double>(j));
        });
      });
}

}  // namespace

void register_benchmarks() {
  for (index n : {1024, 65536}) {
    add_formulas(n);
    add_state_spaces(n);
    add_network(n);
  }
}

}  // namespace tern::bench

// SPDX-License-Identifier: Apache-2.0
// Algorithms that make weights, off line: one linear layer (m, k) of a small model, with inputs whose columns depend on each other.
// Names: quantize/<algorithm>_<format>_m<rows>_k<columns>. Each is held against rounding, by the error of the layer's outputs. Operations
// are those of the formula's largest part.
#include "harness.hpp"
#include "inputs.hpp"

#include <tern/quantize.hpp>
#include <tern/quantize/additive_codebook_fit.hpp>

#include <cmath>
#include <string>
#include <vector>

namespace tern::bench {
namespace {

constexpr index m = 576, k = 576, samples = 2048;
constexpr double all = static_cast<double>(m * k);

struct layer {
  std::vector<float> w = fast_normal(m * k, 1 / std::sqrt(static_cast<double>(k)), 1), x = inputs();
  calibration seen{k};
  layer() { seen.add(cpu, tern::view(std::as_const(x).data(), samples, k)); }
  tensor_view<float const, 2> weights() const { return tern::view(w.data(), m, k); }
  double error(block_matrix const& q) const { return layer_error(cpu, weights(), q, seen); }
  double rounded() const { return error(round_to_nearest(cpu, weights(), weight_type::q4_0)); }

 private:
  /// Each column leans on the one before it.
  static std::vector<float> inputs() {
    auto v = fast_normal(samples * k, 1, 2);
    for (index i = 0; i < samples; ++i)
      for (index j = 1; j < k; ++j) v[static_cast<std::size_t>(i * k + j)] += 0.8f * v[static_cast<std::size_t>(i * k + j - 1)];
    return v;
  }
};

template <class Data, class Call, class Right>
void add(std::string const& name, Data const& data, double flops, Call const& call, Right const& right) {
  workload const w{.op = "quantize", .name = name + "_m" + std::to_string(m) + "_k" + std::to_string(k), .flops = flops, .peak = unit::f32};
  w.add("tern", [=](run& r) {
    layer const& of = data();
    if (r.check([&] { return right(of, call(r.policy(), of)); })) r.time([&](index) { call(r.policy(), of); });
  });
}

/// Codes and codebooks of 2x8 for the first rows: two rounds.
template <class Data>
void add_codebooks(Data const& data) {
  static constexpr index rows = 64;
  workload const w{.op = "quantize",
                   .name = "additive_codebook_fit_2x8_m64_k576",
                   .flops = 2. * 2 * 256 * 8 * static_cast<double>(rows * k),
                   .peak = unit::f32};
  w.add("tern", [=](run& r) {
    layer const& of = data();
    double start = 0, end = 0;
    auto const call = [&](index) {
      fit_additive_codebook(r.policy(), of.weights().slice(0, 0, rows),
                            {.rounds = 2, .progress = [&](index round, double error) { (round == 0 ? start : end) = error; }});
    };
    bool const better = r.check([&] {
      call(0);
      return end > 0 && end < start && start < 0.3;
    });
    if (better) r.time(call);
  });
}

}  // namespace

void register_benchmarks() {
  using enum weight_type;
  auto const data = lazy([] { return layer(); });
  auto const better = [](layer const& of, block_matrix const& q) { return of.error(q) < of.rounded(); };

  add(
      "round_to_nearest_q4_0", data, 2 * all,
      [](cpu_policy const& on, layer const& of) { return round_to_nearest(on, of.weights(), q4_0); },
      [](layer const& of, block_matrix const& q) {
        std::vector<float> row(k);
        double lost = 0;
        for (index i = 0; i < m; ++i) {
          decode(q, i, row.data());
          for (index j = 0; j < k; ++j)
            lost += std::pow(static_cast<double>(row[static_cast<std::size_t>(j)]) - static_cast<double>(of.weights()(i, j)), 2);
        }
        return std::sqrt(lost / m) < 0.095;  // the weights of a row have squares that add up to 1; q4_0 loses 0.086 of them
      });
  add(
      "gptq_q4_0", data, all * k + 2. / 3 * k * k * k,
      [](cpu_policy const& on, layer const& of) { return gptq(on, of.weights(), of.seen, q4_0); }, better);
  add(
      "gptq_act_order_q4_0", data, all * k + 2. / 3 * k * k * k,
      [](cpu_policy const& on, layer const& of) { return gptq(on, of.weights(), of.seen, q4_0, {.act_order = true}); }, better);
  add(
      "learned_rounding_q4_0", data, 2 * all * k,
      [](cpu_policy const& on, layer const& of) { return learned_rounding(on, of.weights(), of.seen, q4_0); }, better);
  add(
      "awq_q4_0", data, 21 * 2 * all * k, [](cpu_policy const& on, layer const& of) { return awq(on, of.weights(), of.seen, q4_0); },
      [](layer const& of, awq_result const& q) { return q.error <= of.rounded() * (1 + 1e-5); });
  add_codebooks(data);
}

}  // namespace tern::bench

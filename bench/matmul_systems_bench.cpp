// SPDX-License-Identifier: Apache-2.0
// The published systems whose operators are products with weights: a format, what is fused into the product, or both. Names:
// matmul_systems/<system>_m<rows of w>_k<columns>_rows<rows of x>. Each is checked against its formula in f64 on a sample of y. Data is
// reused from call to call.
#include "matmul_systems.hpp"

#include <tern/matmul.hpp>

namespace tern::bench {
namespace {

workload make(std::string const& system, index rows, double bits, unit peak) {
  return {.op = "matmul_systems",
          .name = system + "_m" + std::to_string(m) + "_k" + std::to_string(k) + "_rows" + std::to_string(rows),
          .flops = 2.0 * static_cast<double>(m * k * rows),
          .bytes = static_cast<double>(m * k) * bits / 8 + 4.0 * static_cast<double>(rows * (m + k)),
          .peak = peak};
}

/// A product with a format.
template <class Bytes>
void add_format(std::string const& system, double bits, compute mode, factors rounded) {
  auto const data = lazy([] { return matmul_problem(m, k, shown<Bytes>{}); });
  for (index rows : {4, 128})
    make(system, rows, bits, mode == compute::f32 ? unit::f32 : unit::int8).add("tern", [=](run& r) {
      auto& p = data();
      auto const x = tern::view(std::as_const(p.x).data(), rows, k);
      auto const y = tern::view(p.y.data(), rows, m);
      auto const w = p.w[0];  // some views check what they show
      check_and_time(r, p, rows, rounded, [&](index) { matmul(r.policy(), x, w, y, mode); });
    });
}

/// A product with options: value(r, i, product, bound) says what becomes of each, in f64, and of its bound.
template <class Bytes, class Call, class Value>
void add_fused(std::string const& system, double bits, unit peak, factors rounded, Call const& call, Value const& value) {
  auto const data = lazy([] { return matmul_problem(m, k, shown<Bytes>{}); });
  for (index rows : {4, 128})
    make(system, rows, bits, peak).add("tern", [=](run& r) {
      auto& p = data();
      auto const x = tern::view(std::as_const(p.x).data(), rows, k);
      auto const y = tern::view(p.y.data(), rows, m);
      bool const right = r.check([&] {
        call(r.policy(), x, p.w[0], y);
        std::vector<float> got, row(at(k));
        std::vector<double> want, bound;
        for (index i : sample(m, 13)) {
          p.w.decode(i, row.data());
          for (index j : sample(rows, 5)) {
            matmul_sums sums;
            for (index c = 0; c < k; ++c) sums.add(static_cast<double>(p.x[j * k + c]), static_cast<double>(row[at(c)]));
            auto const [v, b] = value(j, i, sums.value, sums.bound(rounded, k, sums.most_x), p);
            want.push_back(v);
            bound.push_back(b);
            got.push_back(p.y[j * m + i]);
          }
        }
        return test::compare(std::span<float const>(got), want, bound, 1);
      });
      if (right) r.time([&](index) { call(r.policy(), x, p.w[0], y); });
    });
}

using expected = std::pair<double, double>;

void add_fusions() {
  static auto const one = std::vector<float>(at(m), 1.f), bias_values = fast_normal(m, 1, 5);
  add_fused<int8_bytes>(
      "deepspeed_norm_bias_gelu", 8, unit::int8, factors::int8_whole,
      [](cpu_policy const& policy, auto x, auto const& w, auto y) {
        matmul(policy, x, w, y, compute::int8_tokens, rms_norm_in{one}, bias{bias_values}, act::gelu{});
      },
      [](index r, index i, double product, double bound, auto& p) -> expected {
        double square = 1e-6;
        for (index c = 0; c < k; ++c) square += std::pow(static_cast<double>(p.x[r * k + c]), 2) / static_cast<double>(k);
        double const z = product / std::sqrt(square) + static_cast<double>(bias_values[at(i)]);
        return {z * (1 + std::erf(z / std::sqrt(2.))) / 2, 1.2 * bound / std::sqrt(square) + 1e-5 * (1 + std::abs(z))};
      });
  // Activations without outliers: the search and the split product's absence are what is timed beside the product.
  add_fused<int8_bytes>(
      "llm_int8", 8, unit::int8, factors::int8_whole,
      [](cpu_policy const& policy, auto x, auto const& w, auto y) { matmul(policy, x, w, y, compute::int8_tokens, split_outliers{4.5f}); },
      [](index, index, double product, double bound, auto&) -> expected { return {product, bound}; });
  add_fused<int8_bytes>(
      "mllm_npu", 8, unit::int8, factors::int8_whole,
      [](cpu_policy const& policy, auto x, auto const& w, auto y) {
        matmul(policy, x, w, y, compute::int8_tokens, split_outliers{4.5f, true});
      },
      [](index, index, double product, double bound, auto&) -> expected { return {product, bound}; });
  static index const rank = 16;
  static auto const down = normal_weights(rank, k, 6), up = normal_weights(m, rank, 7);
  add_fused<nf4_bytes>(
      "qst_low_rank", 4.5, unit::f32, factors::exact,
      [](cpu_policy const& policy, auto x, auto const& w, auto y) {
        matmul(policy, x, w, y, low_rank{tern::view(down.data(), rank, k), tern::view(up.data(), m, rank)});
      },
      [](index r, index i, double product, double bound, auto& p) -> expected {
        for (index j = 0; j < rank; ++j) {
          double t = 0;
          for (index c = 0; c < k; ++c) t += static_cast<double>(p.x[r * k + c]) * static_cast<double>(down[at(j * k + c)]);
          product += t * static_cast<double>(up[at(i * rank + j)]);
        }
        return {product, 4 * bound};
      });
  add_fused<q4_0_bytes>(
      "geglu_gate", 9, unit::int8, factors::int8_blocks,
      [](cpu_policy const& policy, auto x, auto const& w, auto y) { matmul(policy, x, w, y, compute::int8, gate{w, act::gelu{}}); },
      [](index, index, double product, double bound, auto&) -> expected {
        double const g = product * (1 + std::erf(product / std::sqrt(2.))) / 2;
        return {g * product, bound * (std::abs(g) + 1.2 * std::abs(product) + 1.2 * bound)};
      });
}

/// An adapter of one bit a weight beside a product in four bits.
void add_one_bit_adapters() {
  using adapter = formats::gaussian_quantile_weights<1>;
  static constexpr index rank = 32;
  struct half {
    index rows, columns;
    std::vector<std::uint8_t> codes;
    std::vector<float> mean = {0}, deviation = {0};
    half(index n, index width, std::uint64_t seed) : rows(n), columns(width), codes(at(n * width / 8)) {
      auto const w = normal_weights(n, width, seed);
      formats::encode_gaussian_quantile<1>(tern::view(w.data(), n, width), tern::view(codes.data(), n, width / 8), tern::view(mean),
                                           tern::view(deviation));
    }
    adapter view() const { return {tern::view(codes.data(), rows, columns / 8), tern::view(mean), tern::view(deviation)}; }
    std::vector<double> decoded() const {
      std::vector<float> row(at(columns));
      std::vector<double> all;
      for (index i = 0; i < rows; ++i) {
        decode(view(), i, row.data());
        all.insert(all.end(), row.begin(), row.end());
      }
      return all;
    }
  };
  static half const down(rank, k, 6), up(m, rank, 7);
  static auto const a = down.decoded(), b = up.decoded();
  add_fused<q4_0_bytes>(
      "one_bit_adapters", 4.5, unit::int8, factors::int8_blocks,
      [](cpu_policy const& policy, auto x, auto const& w, auto y) {
        matmul(policy, x, w, y, compute::int8, low_rank{down.view(), up.view(), 0.5f});
      },
      [](index r, index i, double product, double bound, auto& p) -> expected {
        double size = 0;
        for (index j = 0; j < rank; ++j) {
          double t = 0;
          for (index c = 0; c < k; ++c) t += static_cast<double>(p.x[r * k + c]) * a[at(j * k + c)];
          product += 0.5 * t * b[at(i * rank + j)];
          size += std::abs(t * b[at(i * rank + j)]);
        }
        return {product, bound + 1e-5 * size};
      });
}

/// Activations that are kept for a backward pass.
struct activations {
  static constexpr index batch = 4, heads = 12, tokens = 197, dim = 64, count = batch * heads * tokens * dim;
  std::vector<float> x = fast_normal(count, 1, 12), scale = std::vector<float>(heads), zero = scale, back = x;
  std::vector<std::uint8_t> codes = std::vector<std::uint8_t>(count);
  template <class T>
  static tensor_view<T, 4> of(std::vector<T>& v) {
    return tern::view(v.data(), batch, heads, tokens, dim);
  }
};
/// Mesa: activations kept for a backward pass, (4, 12 heads, 197 tokens, 64).
void add_mesa() {
  auto const data = lazy([] {
    activations p;
    formats::update_head_ranges(activations::of(p.x), tern::view(p.scale), tern::view(p.zero));
    return p;
  });
  workload w{.op = "matmul_systems", .name = "mesa_encode_b4_h12_n197_d64", .bytes = 5.0 * activations::count, .peak = unit::f32};
  w.add("tern", [=](run& r) {
    auto& p = data();
    auto const call = [&](index i) {
      formats::encode_stochastic_int8(activations::of(p.x), static_cast<std::uint64_t>(i), activations::of(p.codes), tern::view(p.scale),
                                      tern::view(p.zero));
    };
    bool const right = r.check([&] {
      call(0);
      formats::decode_stochastic_int8(activations::of(p.codes), tern::view(p.scale), tern::view(p.zero), activations::of(p.back));
      double sum = 0;  // of errors in steps, which are uniform within one and have a mean of zero
      for (index i = 0; i < activations::count; ++i) {
        double const step = static_cast<double>(p.scale[at(i / (activations::tokens * activations::dim) % activations::heads)]);
        double const e = (static_cast<double>(p.back[at(i)]) - static_cast<double>(p.x[at(i)])) / step;
        if (!(std::abs(e) < 1.0001)) return false;
        sum += e;
      }
      return std::abs(sum) < 6 * std::sqrt(activations::count / 6.);
    });
    if (right) r.time(call);
  });
}

/// HALO: x and w turned, both in eight bits.
void add_halo() {
  struct turned_bytes : int8_bytes {
    static std::vector<float> turned(std::vector<float> w) {
      hadamard(cpu, tern::view(w.data(), m, k), tern::view(w.data(), m, k));
      return w;
    }
    explicit turned_bytes(std::vector<float> const& w) : int8_bytes(turned(w)) {}
  };
  add_fused<turned_bytes>(
      "halo", 8, unit::int8, factors::int8_whole,
      [](cpu_policy const& policy, auto x, auto const& w, auto y) { matmul(policy, x, w, y, compute::int8_tokens, hadamard_in{k}); },
      [](index r, index i, double, double bound, auto& p) -> expected {
        std::vector<float> x(p.x.data() + r * k, p.x.data() + (r + 1) * k), row(at(k));
        hadamard(cpu, tern::view(x.data(), 1, k), tern::view(x.data(), 1, k));
        p.w.decode(i, row.data());
        double sum = 0;
        for (index c = 0; c < k; ++c) sum += static_cast<double>(x[at(c)]) * static_cast<double>(row[at(c)]);
        return {sum, bound};
      });
}

/// HAWQ-V3: int8 in, int8 out, nothing but integers between.
void add_hawq() {
  struct problem {
    std::vector<std::int8_t> x, w, y;
    std::vector<std::int32_t> multiplier = std::vector<std::int32_t>(at(m), 1 << 20), shift = std::vector<std::int32_t>(at(m), 34);
  };
  auto const data = lazy([] {
    problem p;
    test::rng r(11);
    for (auto* v : {&p.x, &p.w}) {
      v->resize(at(m * k));
      for (auto& e : *v) e = static_cast<std::int8_t>(r.bits() & 255);
    }
    p.y.resize(at(128 * m));
    return p;
  });
  for (index rows : {4, 128})
    make("hawq_v3", rows, 8, unit::int8).add("tern", [=](run& r) {
      auto& p = data();
      auto const call = [&](index) {
        integer_matmul(r.policy(), tern::view(std::as_const(p.x).data(), rows, k), tern::view(std::as_const(p.w).data(), m, k),
                       tern::view(p.y.data(), rows, m), dyadic{tern::view(p.multiplier), tern::view(p.shift)});
      };
      bool const right = r.check([&] {
        call(0);
        for (index i : sample(m, 13))
          for (index j : sample(rows, 5)) {
            std::int64_t sum = 0;
            for (index c = 0; c < k; ++c) sum += p.x[at(j * k + c)] * p.w[at(i * k + c)];
            double const z = std::floor(static_cast<double>(sum) * 0x1p-14 + 0.5);
            if (p.y[at(j * m + i)] != std::clamp(z, -128., 127.)) return false;
          }
        return true;
      });
      if (right) r.time(call);
    });
}

/// Bipolar-INT: both sides in planes of bits, products by counts of ones. The integers are exact, their scales are f32.
void add_bipolar() {
  for (auto const& [x_bits, w_bits] : {std::pair{2, 2}, {4, 4}}) {
    int const bits_x = x_bits, bits_w = w_bits;  // clang 14 captures no bindings
    auto const data = lazy([=] {
      auto const x = fast_normal(128 * k, 1, 2);
      return std::pair(plane_bytes(x, 128, bits_x), plane_bytes(normal_weights(), m, bits_w));
    });
    std::string const name = "bipolar_int_" + std::to_string(bits_x) + "x" + std::to_string(bits_w);
    make(name, 128, bits_w, unit::int8).add("tern", [=](run& r) {
      auto& p = data();
      static std::vector<float> y(at(128 * m));
      auto const call = [&](index) { bit_plane_matmul(r.policy(), p.first.view(), p.second.view(), tern::view(y.data(), 128, m)); };
      bool const right = r.check([&] {
        call(0);
        std::vector<float> a(at(k)), b(at(k)), got;
        std::vector<double> want, bound;
        for (index i : sample(m, 13))
          for (index j : sample(128, 5)) {
            matmul_sums sums;
            decode(bit_plane_weights(p.first.view()), j, a.data());
            decode(bit_plane_weights(p.second.view()), i, b.data());
            for (index c = 0; c < k; ++c) sums.add(static_cast<double>(a[at(c)]), static_cast<double>(b[at(c)]));
            want.push_back(sums.value);
            bound.push_back(8 * 0x1p-24 * sums.absolute);
            got.push_back(y[at(j * m + i)]);
          }
        return test::compare(std::span<float const>(got), want, bound, 1);
      });
      if (right) r.time(call);
    });
  }
}

}  // namespace

void register_benchmarks() {
  using enum compute;
  add_format<dgq_bytes>("dgq", 4.2, int8_tokens, factors::int8_whole);
  add_format<group_bytes<128>>("finequant", 4.125, int8, factors::int8_blocks);
  add_format<group_bytes<k>>("glm_130b", 4, int8, factors::int8_blocks);
  add_format<gptq_bytes>("gptq", 4.16, int8, factors::int8_blocks);
  add_format<awq_bytes>("awq", 4.16, int8, factors::int8_blocks);
  add_format<float_bytes<formats::fp8_e4m3>>("fp8_e4m3", 8, f32, factors::exact);
  add_format<float_bytes<formats::fp8_e5m2>>("fp8_e5m2", 8, f32, factors::exact);
  add_format<float_bytes<formats::e2m3>>("fp6_e2m3", 6, f32, factors::exact);
  add_format<float_bytes<formats::e2m1>>("fp4_e2m1", 4, f32, factors::exact);
  add_format<nf4_bytes>("nf4", 4.5, f32, factors::exact);
  add_format<nested_nf4_bytes>("nf4_double_quantized", 4.127, f32, factors::exact);
  add_format<codebook_bytes>("pv_tuning_2x8", 2, f32, factors::exact);
  add_format<mid_rise_bytes>("ofq_statsq", 2, int8_tokens, factors::int8_whole);
  add_format<shift_bytes>("shiftadd_shift", 4, int8, factors::int8_blocks);
  add_format<binary_bytes>("shiftadd_add", 1, int8_tokens, factors::int8_whole);
  add_fusions();
  add_one_bit_adapters();
  add_mesa();
  add_halo();
  add_hawq();
  add_bipolar();
}

}  // namespace tern::bench

// SPDX-License-Identifier: Apache-2.0
#include <tern/decode/sampling.hpp>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>

#include "catch.hpp"
#include "compare.hpp"
#include "oracle/pointwise.hpp"

namespace tern::test {
namespace {

/// Returns one number again and again: which token a given u draws.
struct fixed {
  std::uint64_t value;
  static constexpr std::uint64_t min() { return 0; }
  static constexpr std::uint64_t max() { return ~std::uint64_t{0}; }
  std::uint64_t operator()() const { return value; }
};
fixed at(double u) { return {static_cast<std::uint64_t>(u * 0x1p53) << 11}; }

/// Walks u through [0, 1): every token must own the stretch that the oracle gives it.
template <class T>
void check_stretches(std::vector<T> const& logits, sampling const& s) {
  auto const p = tern::oracle::sampling(widened(logits), s.temperature, s.top_k, s.top_p, s.min_p);
  INFO("n " << logits.size() << " T " << s.temperature << " top_k " << s.top_k << " top_p " << s.top_p << " min_p " << s.min_p << " seed "
            << current_seed);
  constexpr double slack = 0x1p-17;  // what the header states
  double low = 0;
  bool right = true;
  for (std::size_t i = 0; i < p.size(); ++i) {
    double const high = low + p[i];
    if (p[i] > 4 * slack)
      for (double u : {low + slack, (low + high) / 2, high - slack}) {
        auto g = at(u);
        right = right && sample(logits, s, g) == static_cast<index>(i);
      }
    low = high;
  }
  CHECK(right);
}

std::string message_of(std::vector<float> const& logits, sampling const& s) {
  tern::random g(1);
  try {
    sample(logits, s, g);
  } catch (tern::error const& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("sample: temperature 0 takes the first of the largest", "[decode]") {
  rng r(1);
  tern::random g(1);
  tern::random const before = g;
  for (index n : {1, 2, 3, 7, 15, 16, 17, 33, 100, 1000})
    for (int repeat = 0; repeat < 20; ++repeat) {
      auto x = r.normal(n);
      index const a = r.integer(0, n - 1), b = r.integer(0, n - 1);
      x[static_cast<std::size_t>(a)] = x[static_cast<std::size_t>(b)] = repeat % 2 != 0 ? 10.f : INFINITY;
      CHECK(sample(x, {.temperature = 0.f}, g) == std::min(a, b));
      if (repeat % 2 == 0) CHECK(sample(x, {}, g) == std::min(a, b));  // infinity beats any finite logit
    }
  tern::random unused = before;
  CHECK(g() == unused());
}

TEST_CASE("sample: each token owns its stretch of [0, 1)", "[decode]") {
  rng r(2);
  for (index n : {1, 2, 5, 16, 17, 100, 257, 600})
    for (float temperature : {0.5f, 1.f, 2.f}) {
      auto const x = r.normal(n, 2);
      check_stretches(x, {.temperature = temperature});
      check_stretches(x, {.temperature = temperature, .top_k = 5});
      check_stretches(x, {.temperature = temperature, .top_k = n + 3});
      check_stretches(x, {.temperature = temperature, .top_p = 0.8f});
      check_stretches(x, {.temperature = temperature, .top_k = 20, .top_p = 0.6f});
      check_stretches(x, {.temperature = temperature, .min_p = 0.1f});
      check_stretches(x, {.temperature = temperature, .top_k = 50, .top_p = 0.95f, .min_p = 0.02f});
      check_stretches(r.normal<tern::bf16>(n, 2), {.temperature = temperature, .top_k = 30});
    }
}

TEST_CASE("sample: top_k and top_p keep what sorting keeps", "[decode]") {
  rng r(3);
  for (int repeat = 0; repeat < 12; ++repeat) {
    index const n = r.integer(300, 5000);
    auto x = r.normal(n, 3);
    if (repeat % 3 == 0)  // many equal logits
      for (float& e : x) e = std::round(e);
    std::vector<float> sorted = x;
    if (repeat % 4 == 1) std::sort(x.begin(), x.end());  // the worst order for a threshold
    if (repeat % 4 == 2) std::sort(x.begin(), x.end(), std::greater<>());
    for (sampling s : {sampling{.top_k = 1},
                       {.top_k = 40},
                       {.top_k = 300},
                       {.top_k = n - 1},
                       {.top_p = 0.5f},
                       {.top_p = 0.99f},
                       {.top_k = 200, .top_p = 0.9f}}) {
      auto const p = tern::oracle::sampling(widened(x), 1, s.top_k, s.top_p, 0);
      std::vector<float> scratch_masses(static_cast<std::size_t>(n / 256 + 1));
      std::vector<tern::detail::candidate> c(
          static_cast<std::size_t>(tern::detail::candidate_bytes(s, n) / sizeof(tern::detail::candidate)));
      float const top = *std::max_element(x.begin(), x.end());
      auto const keep = tern::detail::choose_cut(x.data(), n, s, tern::detail::softmax_weight{top, 1.f}, c.data(), scratch_masses.data());
      index wrong = 0;
      for (index i = 0; i < n; ++i) {
        float const v = x[static_cast<std::size_t>(i)];
        bool const kept = v > keep.value || (v == keep.value && i <= keep.last);
        wrong += kept != (p[static_cast<std::size_t>(i)] > 0);
      }
      INFO("n " << n << " top_k " << s.top_k << " top_p " << s.top_p << " repeat " << repeat);
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("sample: frequencies follow probabilities", "[decode]") {
  rng r(4);
  auto const x = r.normal(50, 1.5);
  for (sampling s : {sampling{.temperature = 0.8f}, {.top_k = 10}, {.top_p = 0.7f}}) {
    auto const p = tern::oracle::sampling(widened(x), s.temperature, s.top_k, s.top_p, s.min_p);
    std::vector<double> counts(x.size());
    tern::random g(77);
    int const draws = 40000;
    for (int i = 0; i < draws; ++i) ++counts[static_cast<std::size_t>(sample(x, s, g))];
    double chi = 0, freedom = -1, rare_count = 0, rare_want = 0;
    for (std::size_t i = 0; i < p.size(); ++i) {
      double const want = p[i] * draws;
      if (p[i] == 0) CHECK(counts[i] == 0);
      if (want < 10) {  // too rare for the test: together
        rare_count += counts[i];
        rare_want += want;
        continue;
      }
      chi += (counts[i] - want) * (counts[i] - want) / want;
      ++freedom;
    }
    CHECK(chi < freedom + 5 * std::sqrt(2 * freedom));
    CHECK(std::abs(rare_count - rare_want) <= 5 * std::sqrt(rare_want) + 1e-6);
  }
}

TEST_CASE("sample: the same seed draws the same tokens, whatever the generator's type and the memory", "[decode]") {
  rng r(5);
  auto const x = r.normal(5000, 2);
  sampling const s{.temperature = 0.9f, .top_k = 100, .top_p = 0.9f};
  tern::random a(3), b(3);
  std::vector<char> memory(tern::workspace_size(sample, cpu, x, s, a));
  tern::workspace w(memory.data(), memory.size());
  for (int i = 0; i < 100; ++i) CHECK(sample(x, s, a) == sample(cpu.on(tern::serial).with(w), x, s, b));
  std::mt19937_64 twister(1);
  CHECK(sample(x, s, twister) >= 0);
}

TEST_CASE("sample: edges", "[decode]") {
  tern::random g(1);
  std::vector<float> const equal(100, 3.f);
  check_stretches(equal, {});
  check_stretches(equal, {.top_k = 7});
  check_stretches(equal, {.top_p = 0.255f});
  check_stretches(equal, {.top_k = 50, .top_p = 0.29f});
  for (int i = 0; i < 20; ++i) {
    CHECK(sample(equal, {.top_p = 0.f}, g) == 0);
    CHECK(sample(equal, {.top_k = 1}, g) == 0);
    CHECK(sample(std::vector<float>{1.f, 5.f, 2.f}, {.top_p = 0.f}, g) == 1);
    CHECK(sample(std::vector<float>{1.f, 5.f, 2.f, 5.f}, {.top_k = 1, .min_p = 1.f}, g) == 1);
    CHECK(sample(std::vector<float>{-3e38f, 3e38f, 0.f}, {.temperature = 1e-3f}, g) == 1);
  }
  std::vector<float> masked(300, -INFINITY);
  masked[123] = -1e30f;
  masked[299] = -1e30f;
  for (sampling s : {sampling{},
                     {.top_k = 5},
                     {.top_p = 0.9f},
                     {.temperature = INFINITY},
                     {.temperature = 1e30f, .top_p = 0.99f},
                     {.top_k = 2, .top_p = 0.4f},
                     {.min_p = 1.f}})
    for (int i = 0; i < 20; ++i) {
      index const t = sample(masked, s, g);
      CHECK((t == 123 || t == 299));
      if (s.top_p == 0.4f) CHECK(t == 123);
    }
  auto last = at(1 - 0x1p-53);
  CHECK(sample(masked, {}, last) == 299);
  CHECK(sample(equal, {}, last) == 99);
}

TEST_CASE("sample: errors name what is wrong", "[decode]") {
  std::vector<float> x(20, 1.f);
  CHECK(message_of({}, {}) == "sample: logits.extent(0) is 0, expected 1 to 2^31 - 1");
  CHECK(message_of(std::vector<float>(20, -INFINITY), {}) == "sample: all logits are -infinity, expected at least one that can be drawn");
  CHECK(message_of(x, {.temperature = -1.f}) == "sample: sampling.temperature is negative or NaN, expected at least 0");
  CHECK(message_of(x, {.temperature = NAN}) == "sample: sampling.temperature is negative or NaN, expected at least 0");
  CHECK(message_of(x, {.top_k = -1}) == "sample: sampling.top_k is -1, expected at least 0");
  CHECK(message_of(x, {.top_p = -0.1f}) == "sample: sampling.top_p is negative or NaN, expected at least 0");
  CHECK(message_of(x, {.min_p = 1.5f}) == "sample: sampling.min_p is outside [0, 1]");
  for (int i : {0, 3, 15, 16, 19}) {
    auto y = x;
    y[static_cast<std::size_t>(i)] = NAN;
    for (float temperature : {0.f, 1.f})
      CHECK(message_of(y, {.temperature = temperature}) == "sample: logits[" + std::to_string(i) + "] is NaN, expected a number");
  }
}

}  // namespace tern::test

// SPDX-License-Identifier: Apache-2.0
#include "sample.hpp"

#include <tern/attention/rotary.hpp>
#include <tern/pointwise/rope_scaling.hpp>
#include <tern/pointwise/rope_sections.hpp>

namespace tern::test {
namespace {

/// Where query i and key j stand for pair p, and what a pair's frequency is: all that a rotary encoding says.
struct rotation {
  std::function<double(index i, index pair)> query, key;
  std::function<double(index pair)> frequency;
  index d;
  bool half;
  double magnitude = 1;
};

double score_of(sample const& s, rotation const& at, index h, index i, index j) {
  double sum = 0;
  auto const q = [&](index d) { return static_cast<double>(s.q_row(h, i)[d]); };
  auto const k = [&](index d) { return static_cast<double>(s.k_row(h, j)[d]); };
  for (index p = 0; p < at.d / 2; ++p) {
    index const a = at.half ? p : 2 * p, b = at.half ? p + at.d / 2 : 2 * p + 1;
    double const x = at.query(i, p) * at.frequency(p), y = at.key(j, p) * at.frequency(p);
    double const qa = q(a) * std::cos(x) - q(b) * std::sin(x), qb = q(b) * std::cos(x) + q(a) * std::sin(x);
    double const ka = k(a) * std::cos(y) - k(b) * std::sin(y), kb = k(b) * std::cos(y) + k(a) * std::sin(y);
    sum += at.magnitude * at.magnitude * (qa * ka + qb * kb);
  }
  for (index d = at.d; d < s.n.dim; ++d) sum += q(d) * k(d);
  return sum / std::sqrt(static_cast<double>(s.n.dim));
}

std::function<double(index)> frequencies(index d, double base = 10000) {
  return [=](index p) { return std::pow(base, -2.0 * static_cast<double>(p) / static_cast<double>(d)); };
}

/// A call with `option`, causal, against the formula.
void check(sample& s, rotary const& option, rotation const& at) {
  attention(cpu, s.q.view(), s.k.view(), s.v.view(), s.out_view(), log_sum_exp{s.lse_view()}, causal{}, option);
  s.check(s.softmax([&](index h, index i, index j) { return s.before(i, j) < 0 ? hidden : score_of(s, at, h, i, j); }, 8,
                    at.magnitude * at.magnitude - 1));
}

struct table {
  std::vector<float> x;
  tensor_view<float, 2> view;
  table(index rows, index d) : x(static_cast<std::size_t>(rows * d)), view(x.data(), shape<2>{{rows, d}}) {}
};

TEST_CASE("rotary: both pairings, all and a part of the elements, positions as the mask counts them") {
  rng r(601);
  for (auto const& of : usual_samples())
    for (index d : {of.dim, index{8}, index{0}})
      for (rope_pairing pairing : {rope_pairing::interleaved, rope_pairing::half}) {
        sample s(r, of);
        table t(of.keys, d);
        rope_table(cpu, 0, t.view);
        check(s, rotary{t.view, pairing},
              {[&](index i, index) { return static_cast<double>(i + of.keys - of.tokens); },
               [](index j, index) { return static_cast<double>(j); }, frequencies(d), d, pairing == rope_pairing::half});
      }
}

TEST_CASE("rotary: positions of the caller's for queries and keys, in several coordinates") {
  rng r(602);
  for (auto const& of : usual_samples()) {
    sample s(r, of);
    index const half = of.dim / 2;
    std::vector<std::int32_t> at(static_cast<std::size_t>(3 * of.keys)), axis(static_cast<std::size_t>(half)),
        sections = {2, 3, static_cast<std::int32_t>(half) - 5};
    for (auto& p : at) p = static_cast<std::int32_t>(r.integer(0, 5000));
    rope_axes(sections, axis);
    CHECK(axis[0] == 0);
    CHECK(axis[2] == 1);
    CHECK(axis[5] == 2);
    table keys(of.keys, of.dim);
    rope_options options;  // M-RoPE++: time as it is, width slowed down fourfold, height in between
    std::vector<float> factors;
    for (index p = 0; p < half; ++p) factors.push_back(p < 2 ? 1.f : (p < 5 ? static_cast<float>(p) : 4.f));
    options.factors = view(std::as_const(factors));
    rope_sections(cpu, view(at.data(), 3, of.keys), axis, keys.view, options);
    index const first = of.keys - of.tokens;
    rotary_rows of_queries{keys.view.slice(0, first, of.keys)}, of_keys{keys.view};
    of_queries.by_token = of_keys.by_token = true;
    auto const coordinate = [&](index t, index p) {
      return static_cast<double>(at[static_cast<std::size_t>((p < 2 ? 0 : (p < 5 ? 1 : 2)) * of.keys + t)]);
    };
    check(s, {of_queries, of_keys},
          {[&](index i, index p) { return coordinate(i + first, p); }, coordinate,
           [&](index p) { return frequencies(of.dim)(p) / static_cast<double>(factors[static_cast<std::size_t>(p)]); }, of.dim, false});
  }
}

TEST_CASE("rotary: linear, NTK and YaRN scaling, with YaRN's temperature") {
  rng r(603);
  sample_of const of{2, 1, 1, 20, 150, 64, 16};
  auto const stands = [&](index i, index) { return static_cast<double>(i + of.keys - of.tokens); };
  auto const key = [](index j, index) { return static_cast<double>(j); };
  sample s(r, of);
  table t(of.keys, 64);
  double const length = 8;
  rope_options linear, ntk, yarn;
  linear.scale = 0.125f;
  rope_table(cpu, 0, t.view, linear);
  check(s, rotary{t.view}, {stands, key, [](index p) { return frequencies(64)(p) / 8; }, 64, false});

  ntk.base = ntk_base(10000.f, length, 64);
  rope_table(cpu, 0, t.view, ntk);
  check(s, rotary{t.view}, {stands, key, frequencies(64, static_cast<double>(ntk.base)), 64, false});
  CHECK(std::abs(static_cast<double>(ntk.base) / (10000 * std::pow(8.0, 64.0 / 62.0)) - 1) < 0x1p-23);
  // The slowest pair is slowed down by the whole factor.
  CHECK(std::abs(std::pow(static_cast<double>(ntk.base), -62.0 / 64) * 8 / std::pow(10000.0, -62.0 / 64) - 1) < 1e-6);

  std::vector<float> factors(32);
  yarn_factors(length, 64, factors, yarn, 8, 1);
  yarn.factors = view(std::as_const(factors));
  yarn.magnitude = yarn_magnitude(length);
  rope_table(cpu, 0, t.view, yarn);
  auto const pair_of = [](double turns) { return 64 * std::log(64 / (turns * 2 * 3.14159265358979323846)) / (2 * std::log(10000.0)); };
  double const low = std::max(std::floor(pair_of(8)), 0.0), high = std::min(std::ceil(pair_of(1)), 63.0);
  auto const mixed = [&](index p) {
    double const ramp = std::clamp((static_cast<double>(p) - low) / (high - low), 0.0, 1.0), f = frequencies(64)(p);
    return f / 8 * ramp + f * (1 - ramp);
  };
  double const magnitude = 0.1 * std::log(8.0) + 1;
  check(s, rotary{t.view}, {stands, key, mixed, 64, false, magnitude});
  CHECK(factors[0] == 1.f);
  CHECK(factors[31] == 8.f);
  CHECK(yarn_magnitude(0.5) == 1.f);
}

TEST_CASE("rotary: a row that the table does not have is NaN, and wrong tables are refused") {
  rng r(604);
  sample s(r, {2, 2, 2, 3, 40, 16, 16});
  table t(38, 16), wide(40, 18), odd(40, 7);
  rope_table(cpu, 0, t.view);
  attention(cpu, s.q.view(), s.k.view(), s.v.view(), s.out_view(), log_sum_exp{s.lse_view()}, causal{}, rotary{t.view});
  CHECK(std::isfinite(s.out_view()(0, 0, 0)));  // at position 37
  CHECK(std::isnan(s.out_view()(0, 1, 0)));
  attention_shape const shape{1, 2, 2, 2, 3, 40, 16, 16};
  CHECK_THROWS_AS(rotary{wide.view}.check(shape), error);
  CHECK_THROWS_AS(rotary{odd.view}.check(shape), error);
  rotary_rows few{t.view};
  few.by_token = true;
  CHECK_THROWS_AS(rotary(few, few).check(shape), error);
  rotary_rows no_period{t.view, 0};
  CHECK_THROWS_AS(rotary(no_period, no_period).check(shape), error);
}

/// Rounded to bf16.
double coarse(double x) { return static_cast<double>(static_cast<bf16>(static_cast<float>(x))); }

TEST_CASE("rotary: far from 0 scores still depend on the distance alone, which bf16 angles break") {
  rng r(605);
  index const dim = 64, distance = 5;
  auto const q = r.normal<float>(dim), k = r.normal<float>(dim), v = r.normal<float>(dim);
  double const size = std::sqrt(dot(q.data(), q.data(), dim) * dot(k.data(), k.data(), dim)) / 8;
  double exact = 0, worst = 0, worst_in_bf16 = 0;
  for (index place : {index{0}, index{1000}, index{32767}, index{131071}, index{1'000'003}}) {
    std::vector<std::int32_t> const of_query = {static_cast<std::int32_t>(place + distance)}, of_key = {static_cast<std::int32_t>(place)};
    table tq(1, dim), tk(1, dim);
    rope_table(cpu, of_query, tq.view);
    rope_table(cpu, of_key, tk.view);
    rotary_rows rows_q{tq.view}, rows_k{tk.view};
    rows_q.by_token = rows_k.by_token = true;
    std::vector<float> out(static_cast<std::size_t>(dim)), lse(1);
    attention(cpu, view(q.data(), 1, 1, dim), view(k.data(), 1, 1, dim), view(v.data(), 1, 1, dim), view(out.data(), 1, 1, dim),
              log_sum_exp{view(lse.data(), 1, 1)}, causal{}, rotary(rows_q, rows_k));
    double bf16_score = 0;
    exact = 0;
    for (index p = 0; p < dim / 2; ++p) {
      double const w = std::pow(10000.0, -2.0 * static_cast<double>(p) / 64);
      auto const at = [&](std::vector<float> const& x, index d) { return static_cast<double>(x[static_cast<std::size_t>(2 * p + d)]); };
      double const turn = static_cast<double>(distance) * w;
      exact +=
          ((at(q, 0) * at(k, 0) + at(q, 1) * at(k, 1)) * std::cos(turn) + (at(q, 0) * at(k, 1) - at(q, 1) * at(k, 0)) * std::sin(turn)) / 8;
      double const x = coarse(coarse(static_cast<double>(place + distance)) * coarse(w)),
                   y = coarse(coarse(static_cast<double>(place)) * coarse(w));
      bf16_score +=
          ((at(q, 0) * at(k, 0) + at(q, 1) * at(k, 1)) * std::cos(x - y) + (at(q, 0) * at(k, 1) - at(q, 1) * at(k, 0)) * std::sin(x - y)) /
          8;
    }
    worst = std::max(worst, std::abs(static_cast<double>(lse[0]) - exact));  // of one key, log-sum-exp is the score
    worst_in_bf16 = std::max(worst_in_bf16, std::abs(bf16_score - exact));
  }
  CHECK(worst <= 0x1p-24 * ((8 + 8) * size + 16 + 2 * std::abs(exact)));  // sqrt(dim), and the roundings of two rotations
  CHECK(worst_in_bf16 > 1000 * 0x1p-24 * ((8 + 8) * size + 16 + 2 * std::abs(exact)));
}

}  // namespace
}  // namespace tern::test

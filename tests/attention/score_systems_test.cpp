// SPDX-License-Identifier: Apache-2.0
// Systems that are scores and normalizers: each against its paper's formula in float64.
#include "sample.hpp"

#include <tern/attention/systems/diff_qkv.hpp>
#include <tern/attention/systems/flash_attention_2.hpp>
#include <tern/attention/systems/flash_sigmoid.hpp>
#include <tern/attention/systems/rcmha.hpp>
#include <tern/attention/systems/transformer_xl.hpp>

#include <numeric>

namespace tern::test {
namespace {

TEST_CASE("FlashAttention-2: exact softmax attention and its log-sum-exp, causal from the last query") {
  rng r(201);
  for (auto const& of : usual_samples()) {
    sample s(r, of, 2);
    flash_attention_2(cpu, s.q.view(), s.k.view(), s.v.view(), s.out_view(), s.lse_view(), causal{});
    s.check(s.softmax([&](index h, index i, index j) { return s.before(i, j) >= 0 ? s.scaled(h, i, j) : hidden; }));
  }
}

TEST_CASE("FlashSigmoid: sigmoid(s - log keys), hidden keys weigh nothing") {
  rng r(202);
  for (auto const& of : usual_samples())
    for (bool own_bias : {false, true}) {
      sample s(r, of, 2);
      double const bias = own_bias ? -0.75 : -std::log(static_cast<double>(of.keys));
      if (own_bias)
        flash_sigmoid(cpu, s.q.view(), s.k.view(), s.v.view(), s.out_view(), sigmoid{-0.75f}, causal{});
      else
        flash_sigmoid(cpu, s.q.view(), s.k.view(), s.v.view(), s.out_view(), causal{});
      auto const f = [=](double x) { return 1 / (1 + std::exp(-x - bias)); };
      s.check(s.weighed([&](index h, index i, index j) { return s.before(i, j) >= 0 ? s.scaled(h, i, j) : hidden; }, f,
                        [=](double x) { return f(x) * (1 + std::abs(bias)); }));
    }
}

/// Depthwise causal convolution over time, kernel length 3, in place, f32.
void convolve(block& x, block const& filter) {
  block const from = x;
  for (index h = 0; h < x.a; ++h)
    for (index t = 0; t < x.b; ++t)
      for (index d = 0; d < x.c; ++d) {
        float sum = 0;
        for (index c = 0; c < 3; ++c)
          if (t - 2 + c >= 0) sum += filter.row(h, d)[c] * from.row(h, t - 2 + c)[d];
        x.row(h, t)[d] = sum;
      }
}

TEST_CASE("RCMHA: Transformer-XL's relative scores over convolved q, k and v") {
  rng r(203);
  for (auto const& of : usual_samples()) {
    sample s(r, of);
    for (block* x : {&s.q, &s.k, &s.v}) convolve(*x, block(r, x->a, x->c, 3));
    block relative(r, of.heads, of.keys, of.dim), u(r, of.heads, 1, of.dim), w(r, of.heads, 1, of.dim);
    rcmha(cpu, s.q.view(), s.k.view(), s.v.view(), relative.view(), view(u.x.data(), of.heads, of.dim), view(w.x.data(), of.heads, of.dim),
          s.out_view(), log_sum_exp{s.lse_view()}, causal{});
    auto const score = [&](index h, index i, index j) {
      if (s.before(i, j) < 0) return hidden;
      double sum = 0;  // rel_shift: the row of R that encodes distance i - j is the one (i - j) before the last
      for (index d = 0; d < of.dim; ++d)
        sum += (s.q(h, i, d) + u(h, 0, d)) * static_cast<double>(s.k_row(h, j)[d]) +
               (s.q(h, i, d) + w(h, 0, d)) * relative(h, of.keys - 1 - s.before(i, j), d);
      return sum / std::sqrt(static_cast<double>(of.dim));
    };
    // The second product and the two biases: another |q| |k|-like term, which `extra` stands for (vectors of equal spread).
    s.check(s.softmax(score, 4, 4));
  }
}

TEST_CASE("Transformer-XL: without distances that matter, it is attention with biased queries; far keys take the first row") {
  rng r(204);
  sample s(r, {2, 2, 2, 20, 33, 16, 16});
  block relative(r, 2, 1, 16), u(r, 2, 1, 16, 0), w(r, 2, 1, 16);
  transformer_xl(cpu, s.q.view(), s.k.view(), s.v.view(), relative.view(), view(u.x.data(), 2, 16), view(w.x.data(), 2, 16), s.out_view(),
                 log_sum_exp{s.lse_view()}, causal{});
  wanted plain = s.softmax([&](index h, index i, index j) { return s.before(i, j) >= 0 ? s.scaled(h, i, j) : hidden; }, 8, 4);
  plain.lse.clear();
  s.check(plain);
}

TEST_CASE("DiffQKV: fewer key heads than value heads, other dims") {
  rng r(205);
  for (auto const& of : {sample_of{8, 2, 4, 3, 140, 24, 8}, sample_of{8, 2, 4, 40, 77, 12, 20}, sample_of{6, 3, 2, 33, 33, 16, 16}}) {
    sample s(r, of);
    diff_qkv(cpu, s.q.view(), s.k.view(), s.v.view(), s.out_view(), log_sum_exp{s.lse_view()}, causal{});
    s.check(s.softmax([&](index h, index i, index j) { return s.before(i, j) >= 0 ? s.scaled(h, i, j) : hidden; }));
  }
}

/// Of a query, the `count` keys with the largest scores.
std::vector<char> largest(std::function<double(index)> const& score, index keys, index count) {
  std::vector<index> order(static_cast<std::size_t>(keys));
  std::iota(order.begin(), order.end(), index{0});
  std::stable_sort(order.begin(), order.end(), [&](index a, index b) { return score(a) > score(b); });
  std::vector<char> in(order.size(), 0);
  for (index c = 0; c < std::min(count, keys); ++c) in[static_cast<std::size_t>(order[static_cast<std::size_t>(c)])] = 1;
  return in;
}

TEST_CASE("DiffQKV: values of the largest weights only, and of all") {
  rng r(206);
  for (auto const& of : {sample_of{4, 1, 2, 2, 300, 20, 8}, sample_of{4, 2, 4, 19, 61, 12, 20}})
    for (index count : {index{1}, index{7}, of.keys + 2}) {
      sample s(r, of, 3);
      std::vector<std::int32_t> ids(static_cast<std::size_t>(of.heads * of.tokens * count));
      std::vector<float> scores(ids.size());
      diff_qkv_selective(cpu, s.q.view(), s.k.view(), s.v.view(), s.out_view(), view(ids.data(), of.heads, of.tokens, count),
                         view(scores.data(), of.heads, of.tokens, count), causal{});
      auto const score = [&](index h, index i, index j) { return s.before(i, j) >= 0 ? s.scaled(h, i, j) : hidden; };
      wanted w = s.softmax(score);  // for what errors are relative to
      for (index h = 0; h < of.heads; ++h)
        for (index i = 0; i < of.tokens; ++i) {
          double const sum = w.lse[static_cast<std::size_t>(h * of.tokens + i)];
          auto const in = largest([&](index j) { return score(h, i, j); }, of.keys, count);
          for (index d = 0; d < of.dim_v; ++d) {
            double total = 0;
            for (index j = 0; j < of.keys; ++j)
              if (in[static_cast<std::size_t>(j)]) total += std::exp(score(h, i, j) - sum) * static_cast<double>(s.v_row(h, j)[d]);
            std::size_t const at = static_cast<std::size_t>((h * of.tokens + i) * of.dim_v + d);
            w.out[at] = total;
            w.magnitude[at] += 4 * std::abs(sum) * w.magnitude[at];  // s - lse is rounded at the size of lse
          }
        }
      w.lse.clear();
      s.check(w);
    }
}

}  // namespace
}  // namespace tern::test

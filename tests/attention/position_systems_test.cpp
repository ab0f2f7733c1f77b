// SPDX-License-Identifier: Apache-2.0
// Systems that place queries and keys anew, or see keys block by block: each against its paper's formula in float64.
#include "sample.hpp"
#include "stored.hpp"

#include <tern/attention/systems/dual_chunk_attention.hpp>
#include <tern/attention/systems/lm_infinite.hpp>
#include <tern/attention/systems/ring_attention.hpp>
#include <tern/pointwise/rope_table.hpp>

namespace tern::test {
namespace {

/// The score of q at position p and k at position c, all dims rotated in pairs of neighbours, base 10000.
double rotated(float const* q, float const* k, index dim, double p, double c) {
  double sum = 0;
  for (index i = 0; i < dim / 2; ++i) {
    double const w = std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(dim));
    double const q0 = static_cast<double>(q[2 * i]), q1 = static_cast<double>(q[2 * i + 1]);
    double const k0 = static_cast<double>(k[2 * i]), k1 = static_cast<double>(k[2 * i + 1]);
    double const cq = std::cos(p * w), sq = std::sin(p * w), ck = std::cos(c * w), sk = std::sin(c * w);
    sum += (q0 * cq - q1 * sq) * (k0 * ck - k1 * sk) + (q1 * cq + q0 * sq) * (k1 * ck + k0 * sk);
  }
  return sum / std::sqrt(static_cast<double>(dim));
}

struct rows_of_table {
  std::vector<float> x;
  tensor_view<float, 2> view;
  rows_of_table(index rows, index d, rope_options const& options = {})
      : x(static_cast<std::size_t>(rows * d)), view(x.data(), shape<2>{{rows, d}}) {
    rope_table(cpu, 0, view, options);
  }
};

// A rotation rounds each element three times, and its cosines and sines once.
constexpr double roundings = 8;

std::vector<sample_of> long_samples() { return {{4, 2, 1, 3, 331, 20, 17}, {2, 1, 2, 1, 700, 16, 16}, {4, 2, 2, 150, 171, 24, 9}}; }

TEST_CASE("LM-Infinite: a lambda of sinks and window, distances at most the window's") {
  rng r(301);
  for (auto const& of : long_samples())
    for (index sinks : {index{0}, index{5}, index{130}})
      for (index length : {index{1}, index{40}, index{133}, index{2000}}) {
        sample s(r, of);
        rows_of_table const table(2001, of.dim);
        lm_infinite(cpu, s.q.view(), s.k.view(), s.v.view(), s.out_view(), s.lse_view(), table.view, sinks, length);
        auto const score = [&](index h, index i, index j) {
          index const d = s.before(i, j);
          if (d < 0 || (d >= length && j >= sinks)) return hidden;
          return rotated(s.q_row(h, i), s.k_row(h, j), of.dim, static_cast<double>(std::min(d, length)), 0);
        };
        s.check(s.softmax(score, roundings));
      }
}

TEST_CASE("LM-Infinite: a window of all keys is rotary attention") {
  rng r(302);
  sample_of const of{4, 2, 2, 30, 90, 16, 16};
  sample s(r, of);
  rows_of_table const table(300, of.dim);
  lm_infinite(cpu, s.q.view(), s.k.view(), s.v.view(), s.out_view(), s.lse_view(), table.view, 4, 90);
  auto const first = std::vector<float>(s.out.span().begin(), s.out.span().end());
  attention(cpu, s.q.view(), s.k.view(), s.v.view(), s.out_view(), rotary{table.view}, causal{});
  for (std::size_t e = 0; e < first.size(); ++e)
    CHECK(std::abs(first[e] - s.out[static_cast<index>(e)]) <= 0x1p-21f * (1 + std::abs(first[e])));
}

TEST_CASE("LM-Infinite: over pages, a sequence of a batch is as it is alone") {
  rng r(306);
  constexpr index heads = 4, tokens = 3, dim = 16, sinks = 2, length = 30;
  std::vector<std::int32_t> const lengths = {75, 40}, all(2, tokens);
  in_pages const k(r, {2, 2, 77, dim}, lengths), v(r, {2, 2, 77, dim}, lengths);
  strided<float> const q(r, {2, heads, tokens, dim}, all);
  std::vector<float> together(2 * heads * tokens * dim), alone(heads * tokens * dim), lse(2 * heads * tokens);
  rows_of_table const table(100, dim);
  auto const both = view(together.data(), 2, heads, tokens, dim);
  lm_infinite(cpu, q.view, k(), v(), both, view(lse.data(), 2, heads, tokens), table.view, sinks, length);
  std::vector<float> const k_memory(k.values.begin(), k.values.end()), v_memory(v.values.begin(), v.values.end());
  auto const k_rows = view(k_memory.data(), 2, 2, 77, dim), v_rows = view(v_memory.data(), 2, 2, 77, dim);
  for (index b = 0; b < 2; ++b) {
    index const keys = lengths[static_cast<std::size_t>(b)];
    lm_infinite(cpu, q.view[b], k_rows[b].slice(1, 0, keys), v_rows[b].slice(1, 0, keys), view(alone.data(), heads, tokens, dim),
                view(lse.data(), heads, tokens), table.view, sinks, length);
    CHECK(std::memcmp(both[b].data(), alone.data(), alone.size() * sizeof(float)) == 0);
  }
}

TEST_CASE("windowed rotary: clamped distances (ReRoPE) and groups of positions (Self-Extend)") {
  rng r(303);
  index const length = 37, group = 5;
  for (auto const& of : long_samples())
    for (bool grouped : {false, true}) {
      sample s(r, of);
      rows_of_table const table(800, of.dim);
      auto const far = grouped ? grouped_rows(table.view, length, group) : clamped_rows(table.view, length);
      windowed_rotary(cpu, s.q.view(), s.k.view(), s.v.view(), s.out_view(), s.lse_view(), rotary{table.view}, far, length, of.keys);
      auto const score = [&](index h, index i, index j) {
        index const d = s.before(i, j), p = d + j;
        if (d < 0) return hidden;
        index const apart = d < length ? d : (grouped ? p / group + length - length / group - j / group : length);
        return rotated(s.q_row(h, i), s.k_row(h, j), of.dim, static_cast<double>(apart), 0);
      };
      s.check(s.softmax(score, roundings));
    }
}

TEST_CASE("dual chunk attention: positions within, next to and beyond a chunk") {
  rng r(304);
  for (auto const& of : long_samples())
    for (auto const& sizes : {std::pair<index, index>{48, 8}, {40, 39}, {130, 20}}) {
      index const chunk = sizes.first, local = sizes.second;
      sample s(r, of);
      rows_of_table const table(chunk + 1, of.dim);
      dual_chunk_attention(cpu, s.q.view(), s.k.view(), s.v.view(), s.out_view(), s.lse_view(), table.view, chunk, local);
      index const size = chunk - local;
      // Transcribed from the paper: the three position sequences, and which of them a pair takes.
      auto const score = [&](index h, index i, index j) {
        index const p = i + of.keys - of.tokens;
        if (j > p) return hidden;
        index const apart = p / size - j / size;
        index const at = apart == 0 ? p % size : (apart == 1 ? std::min(p % size + size, chunk) : std::min(2 * size - 1, chunk));
        return rotated(s.q_row(h, i), s.k_row(h, j), of.dim, static_cast<double>(at), static_cast<double>(j % size));
      };
      s.check(s.softmax(score, roundings));
    }
}

TEST_CASE("dual chunk attention: one chunk that holds everything is rotary attention, also with its temperature") {
  rng r(305);
  sample_of const of{2, 1, 1, 40, 60, 16, 16};
  sample s(r, of);
  rope_options options;
  options.magnitude = 1.25f;
  rows_of_table const table(200, of.dim, options);
  dual_chunk_attention(cpu, s.q.view(), s.k.view(), s.v.view(), s.out_view(), s.lse_view(), table.view, 100, 20);
  auto const score = [&](index h, index i, index j) {
    index const d = s.before(i, j);
    return d < 0 ? hidden : 1.25 * 1.25 * rotated(s.q_row(h, i), s.k_row(h, j), of.dim, static_cast<double>(d), 0);
  };
  s.check(s.softmax(score, roundings, 1));
}

/// Pairs of one segment only; segments ascend.
struct same_segment {
  std::vector<int> const& of_query;
  std::vector<int> const& of_key;
  index first_key;
  key_range range(index, index) const { return {0, 1 << 20}; }
  coverage covers(index, index, index, index) const { return coverage::some; }
  bool visible(index i, index j) const { return of_query[static_cast<std::size_t>(i)] == of_key[static_cast<std::size_t>(first_key + j)]; }
};

TEST_CASE("RingAttention: blocks in any order, packed segments, and the parts of several workers at once") {
  rng r(306);
  for (auto const& of : {sample_of{4, 2, 1, 3, 250, 20, 17}, sample_of{2, 1, 2, 90, 90, 16, 16}}) {
    std::vector<int> query_segment, key_segment;
    for (index j = 0; j < of.keys; ++j) key_segment.push_back(static_cast<int>(j / 70));
    for (index i = 0; i < of.tokens; ++i) query_segment.push_back(key_segment[static_cast<std::size_t>(i + of.keys - of.tokens)]);
    sample s(r, of);
    auto const out = s.out_view();
    auto const lse = s.lse_view();
    auto const score = [&](index h, index i, index j) {
      bool const same = query_segment[static_cast<std::size_t>(i)] == key_segment[static_cast<std::size_t>(j)];
      return s.before(i, j) >= 0 && same ? s.scaled(h, i, j) : hidden;
    };
    wanted const want = s.softmax(score, 16);
    index const step = 33, blocks = (of.keys + step - 1) / step;
    std::vector<float> parts(static_cast<std::size_t>(blocks * out.size())), sums(static_cast<std::size_t>(blocks * lse.size()));
    ring_attention_start(out, lse);
    for (index n = 0; n < blocks; ++n) {
      index const b = (n + 2) % blocks, from = b * step, to = std::min(from + step, of.keys);
      auto const k = s.k.view().slice(1, from, to), v = s.v.view().slice(1, from, to);
      auto const mask = causal{of.keys - of.tokens - from} & same_segment{query_segment, key_segment, from};
      ring_attention_step(cpu, s.q.view(), k, v, out, lse, mask);
      attention(cpu, s.q.view(), k, v, view(parts.data() + n * out.size(), of.heads, of.tokens, of.dim_v),
                log_sum_exp{view(sums.data() + n * lse.size(), of.heads, of.tokens)}, mask);
    }
    s.check(want);
    merge(cpu, view(parts.data(), blocks, of.heads, of.tokens, of.dim_v), view(sums.data(), blocks, of.heads, of.tokens), out, lse);
    s.check(want);
  }
}

TEST_CASE("merge of parts: empty ones are left out, only empty ones give zeros, in place, wrong shapes are refused") {
  float const none = hidden;
  std::vector<float> parts = {std::nanf(""), std::nanf(""), 1.f, 2.f, 3.f, 6.f}, sums = {none, 0.f, 0.f};
  merge(cpu, view(parts.data(), 3, 1, 2), view(sums.data(), 3, 1), view(parts.data() + 4, 1, 2), view(sums.data() + 2, 1));
  CHECK(parts[4] == 2.f);
  CHECK(parts[5] == 4.f);
  CHECK(std::abs(sums[2] - 0.693147181f) < 1e-6f);
  sums = {none, none, none};
  std::vector<float> out(2, 5.f), lse(1, 5.f);
  merge(cpu, view(parts.data(), 3, 1, 2), view(sums.data(), 3, 1), view(out.data(), 1, 2), lse);
  CHECK(out == std::vector<float>{0.f, 0.f});
  CHECK(lse[0] == none);
  CHECK_THROWS_AS(merge(cpu, view(parts.data(), 3, 1, 2), view(sums.data(), 2, 1), view(out.data(), 1, 2), lse), error);
  // More columns than registers hold at a time.
  rng r(307);
  auto const wide = r.normal<float>(5 * 301);
  std::vector<float> five = {0.5f, -1.f, 2.f, 0.f, -3.f}, to(301);
  merge(cpu, view(wide.data(), 5, 1, 301), view(five.data(), 5, 1), view(to.data(), 1, 301), lse);
  double total = 0;
  for (float x : five) total += std::exp(static_cast<double>(x));
  for (std::size_t d = 0; d < 301; ++d) {
    double want = 0, magnitude = 0;
    for (std::size_t p = 0; p < 5; ++p) {
      double const term = std::exp(static_cast<double>(five[p])) / total * static_cast<double>(wide[p * 301 + d]);
      want += term;
      magnitude += std::abs(term);
    }
    CHECK(std::abs(static_cast<double>(to[d]) - want) <= (6 + 5 + 5) * 0x1p-24 * magnitude);
  }
}

}  // namespace
}  // namespace tern::test

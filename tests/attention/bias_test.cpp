// SPDX-License-Identifier: Apache-2.0
// Score modifiers and row transforms, and the systems that are little more: MosaicBERT, HSTU, PLDR-LLM.
#include "sample.hpp"

#include <tern/attention/cosine.hpp>
#include <tern/attention/query_bias.hpp>
#include <tern/attention/relative_scores.hpp>
#include <tern/attention/systems/hstu.hpp>
#include <tern/attention/systems/mosaic_bert.hpp>
#include <tern/attention/systems/pldr_llm.hpp>
#include <tern/attention/t5_bias.hpp>
#include <tern/attention/tanh_score.hpp>

#include <string>

namespace tern::test {
namespace {

index const everything = std::numeric_limits<index>::max();

/// Sequences packed side by side, each with its own queries and keys: a layout that the library does not know.
struct sequences {
  struct one {
    static constexpr bool local = true;
    index queries, keys;
    index first;
    index query(index i) const { return first + i; }
    index key(index j) const { return first + j; }
  };
  static constexpr bool per_head = false;
  std::vector<index> const& starts;  // and the end
  index groups(index, index) const { return static_cast<index>(starts.size()) - 1; }
  one group(index, index, index g) const {
    index const first = starts[static_cast<std::size_t>(g)], n = starts[static_cast<std::size_t>(g + 1)] - first;
    return {n, n, first};
  }
};
index sequence_of(std::vector<index> const& starts, index t) {
  index g = 0;
  while (t >= starts[static_cast<std::size_t>(g + 1)]) ++g;
  return g;
}

TEST_CASE("ALiBi: the paper's slopes") {
  CHECK(alibi_slope(8, 0) == 0.5f);
  CHECK(alibi_slope(8, 7) == 0x1p-8f);
  CHECK(alibi_slope(16, 0) == std::exp2(-0.5f));
  // 12 heads: eight of 8, then every second of 16, as get_slopes of the authors' code lists them.
  for (index h = 0; h < 8; ++h) CHECK(alibi_slope(12, h) == alibi_slope(8, h));
  for (index h = 8; h < 12; ++h) CHECK(alibi_slope(12, h) == alibi_slope(16, 2 * (h - 8)));
}

TEST_CASE("MosaicBERT: ALiBi both ways over packed sequences; the limit that LM-Infinite takes") {
  rng r(401);
  std::vector<index> const starts = {0, 3, 4, 60, 67};
  sample s(r, {3, 1, 1, 67, 67, 20, 12});
  std::vector<float> slopes;
  for (index h = 0; h < 3; ++h) slopes.push_back(alibi_slope(3, h));
  mosaic_bert(cpu, s.q.view(), s.k.view(), s.v.view(), s.out_view(), slopes, sequences{starts}, log_sum_exp{s.lse_view()});
  s.check(s.softmax([&](index h, index i, index j) {
    if (sequence_of(starts, i) != sequence_of(starts, j)) return hidden;
    return s.scaled(h, i, j) - static_cast<double>(slopes[static_cast<std::size_t>(h)]) * std::abs(static_cast<double>(i - j));
  }));
  for (auto const& of : usual_samples())
    for (index right : {index{0}, everything}) {
      sample d(r, of);
      slopes.assign(static_cast<std::size_t>(of.heads), 0.125f);
      attention(cpu, d.q.view(), d.k.view(), d.v.view(), d.out_view(), alibi{slopes, 25.f}, window{everything, right},
                log_sum_exp{d.lse_view()});
      d.check(d.softmax([&](index h, index i, index j) {
        index const before = d.before(i, j);
        if (before < 0 && right == 0) return hidden;
        return d.scaled(h, i, j) - 0.125 * std::min(std::abs(static_cast<double>(before)), 25.0);
      }));
    }
}

/// T5's bucket of memory_position - query_position, transcribed from the public implementations, in f64.
index t5_bucket(index relative, bool both_ways, index buckets, index most) {
  index bucket = 0;
  if (both_ways) {
    buckets /= 2;
    if (relative > 0) bucket += buckets;
    relative = std::abs(relative);
  } else {
    relative = std::max<index>(-relative, 0);
  }
  index const exact = buckets / 2;
  if (relative < exact) return bucket + relative;
  double const ratio = std::log(static_cast<double>(relative) / static_cast<double>(exact)) /
                       std::log(static_cast<double>(most) / static_cast<double>(exact));
  index const large = exact + static_cast<index>(ratio * static_cast<double>(buckets - exact) + 1e-9);
  return bucket + std::min(large, buckets - 1);
}

TEST_CASE("T5 bias: buckets, both ways and causal") {
  rng r(402);
  for (bool both_ways : {true, false})
    for (auto const& [buckets, most] : {std::pair<index, index>{32, 128}, {12, 50}, {128, 1000}})
      for (auto const& of : {sample_of{2, 1, 1, 3, 401, 16, 16}, sample_of{3, 3, 3, 50, 301, 16, 8}}) {
        sample s(r, of);
        block table(r, 1, of.heads, buckets, 2);
        attention(cpu, s.q.view(), s.k.view(), s.v.view(), s.out_view(), log_sum_exp{s.lse_view()}, scale{0.25f}, causal{of.keys / 2},
                  t5_bias{view(table.x.data(), of.heads, buckets), both_ways, most});
        s.check(s.softmax([&](index h, index i, index j) {
          index const p = i + of.keys / 2;
          return j > p ? hidden : s.scaled(h, i, j) + table(0, h, t5_bucket(j - p, both_ways, buckets, most));
        }));
      }
}

TEST_CASE("T5 bias: keys behind the query have buckets of their own") {
  rng r(403);
  sample s(r, {2, 2, 2, 40, 40, 16, 16});
  block table(r, 1, 2, 32);
  attention(cpu, s.q.view(), s.k.view(), s.v.view(), s.out_view(), log_sum_exp{s.lse_view()}, scale{0.25f}, window{everything, everything},
            t5_bias{view(table.x.data(), 2, 32)});
  s.check(s.softmax([&](index h, index i, index j) { return s.scaled(h, i, j) + table(0, h, t5_bucket(j - i, true, 32, 128)); }));
}

TEST_CASE("HSTU: SiLU of score, position bias and time bias, over jagged sequences") {
  rng r(404);
  std::vector<index> const starts = {0, 5, 6, 80, 85};
  index const n = 100, tokens = 85, buckets = 20;
  for (bool scaled : {false, true}) {
    sample s(r, {2, 2, 2, tokens, tokens, 16, 12});
    block position(r, 1, 1, 2 * n - 1), time(r, 1, 2, buckets);
    std::vector<std::int64_t> at(tokens), next(tokens);
    for (index t = 0; t < tokens; ++t) {
      auto const i = static_cast<std::size_t>(t);
      at[i] = 1'700'000'000'000 + 1000 * t + r.integer(0, 40) * (t % 7 == 0 ? 100'000'000 : 1);
    }
    for (std::size_t i = 0; i < at.size(); ++i) next[i] = at[i + 1 < at.size() ? i + 1 : i];
    relative_bias const positions{view(position.x.data(), 1, 2 * n - 1)};
    time_bias const times{next, at, view(time.x.data(), 2, buckets)};
    double const alpha = scaled ? 0.25 : 1;
    if (scaled)
      hstu(cpu, s.q.view(), s.k.view(), s.v.view(), s.out_view(), positions, times, n, sequences{starts}, scale{0.25f});
    else
      hstu(cpu, s.q.view(), s.k.view(), s.v.view(), s.out_view(), positions, times, n, sequences{starts});
    auto const score = [&](index h, index i, index j) {
      if (j > i || sequence_of(starts, i) != sequence_of(starts, j)) return hidden;
      double const apart = std::abs(static_cast<double>(next[static_cast<std::size_t>(i)] - at[static_cast<std::size_t>(j)]));
      index const bucket = static_cast<index>(std::log(std::max(apart, 1.0)) / static_cast<double>(0.301f));
      return alpha * 4 * s.scaled(h, i, j) + position(0, 0, j - i + n - 1) + time(0, h, std::min(bucket, buckets - 1));
    };
    auto const silu_of = [=](double x) { return x / (1 + std::exp(-x)) / static_cast<double>(n); };
    s.check(s.weighed(score, silu_of, [=](double x) { return (std::abs(x) + 4) / static_cast<double>(n); }));
  }
}

TEST_CASE("relative bias: clipped distances, a table for each head") {
  rng r(405);
  for (auto const& of : usual_samples()) {
    sample s(r, of);
    index const reach = 12;
    block table(r, 1, of.heads, 2 * reach - 1);
    attention(cpu, s.q.view(), s.k.view(), s.v.view(), s.out_view(), log_sum_exp{s.lse_view()}, tanh_score{},
              relative_bias{view(table.x.data(), of.heads, 2 * reach - 1)});
    s.check(s.softmax([&](index h, index i, index j) {
      index const offset = std::clamp<index>(-s.before(i, j), -(reach - 1), reach - 1);
      return std::tanh(s.scaled(h, i, j)) + table(0, h, offset + reach - 1);
    }));
  }
}

TEST_CASE("cosine: lengths do not matter, a temperature for each head") {
  rng r(406);
  for (auto const& of : usual_samples()) {
    sample s(r, of, 100);
    for (index d = 0; d < of.dim; ++d) s.k.row(0, 1)[d] = 0;  // no direction at all
    std::vector<float> tau;
    for (index h = 0; h < of.heads; ++h) tau.push_back(0.02f + 0.3f * static_cast<float>(h));
    attention(cpu, s.q.view(), s.k.view(), s.v.view(), s.out_view(), log_sum_exp{s.lse_view()}, cosine{tau}, scale{1.f});
    auto const score = [&](index h, index i, index j) {
      auto const length = [&](float const* x) { return std::max(std::sqrt(dot(x, x, of.dim)), 1e-12); };
      return dot(s.q_row(h, i), s.k_row(h, j), of.dim) / length(s.q_row(h, i)) / length(s.k_row(h, j)) /
             static_cast<double>(tau[static_cast<std::size_t>(h)]);
    };
    // Scores are at most 1 / tau: what their errors grow with is that, not |q| |k|.
    wanted w = s.softmax(score);
    for (index h = 0; h < of.heads; ++h)
      for (index i = 0; i < of.tokens; ++i) {
        std::size_t const row = static_cast<std::size_t>(h * of.tokens + i), dims = static_cast<std::size_t>(of.dim_v);
        double const was = s.allowed(s.growth(score, h, i, 0), 0), growth = 2 / static_cast<double>(tau[static_cast<std::size_t>(h)]);
        double const units = s.allowed(growth, 8);
        for (std::size_t d = 0; d < dims; ++d) w.magnitude[row * dims + d] *= units / was;
        w.lse_magnitude[row] += units - was;
      }
    s.check(w);
  }
}

TEST_CASE("PLDR-LLM: scores through a matrix of the head; the unit matrix is attention") {
  rng r(407);
  for (auto const& of : usual_samples())
    for (bool unit : {false, true}) {
      sample s(r, of);
      block g(r, of.heads, of.dim, of.dim, unit ? 0 : 0.3);
      for (index h = 0; h < of.heads && unit; ++h)
        for (index d = 0; d < of.dim; ++d) g.row(h, d)[d] = 1;
      pldr_llm(cpu, s.q.view(), g.view(), s.k.view(), s.v.view(), s.out_view(), log_sum_exp{s.lse_view()}, causal{});
      auto const score = [&](index h, index i, index j) {
        if (s.before(i, j) < 0) return hidden;
        double sum = 0;
        for (index a = 0; a < of.dim; ++a)
          for (index b = 0; b < of.dim; ++b) sum += s.q(h, i, a) * g(h, a, b) * static_cast<double>(s.k_row(h, j)[b]);
        return sum / std::sqrt(static_cast<double>(of.dim));
      };
      // |G| is at most 0.3 (2 sqrt(dim)) but for the tails: errors of q G grow with it.
      s.check(s.softmax(score, std::sqrt(static_cast<double>(of.dim)), unit ? 0 : 0.6 * std::sqrt(static_cast<double>(of.dim))));
    }
}

/// What check says, without an instantiation of attention.
template <class Option>
std::string refused(Option const& option) {
  try {
    option.check({1, 2, 2, 2, 3, 5, 16, 16});
  } catch (error const& e) {
    return e.what();
  }
  return "no error";
}

TEST_CASE("score policies: wrong tables are refused") {
  std::vector<float> x(64, 0.1f);
  std::vector<std::int64_t> t(5);
  auto const few = view(x.data(), 1);
  CHECK(refused(alibi{few}) == "attention: the extent of alibi's slopes is 1, expected the heads of q = 2");
  CHECK(refused(relative_bias{view(x.data(), 2, 4)}).find("odd") != std::string::npos);
  CHECK(refused(relative_bias{view(x.data(), 3, 5)}).find("is 3") != std::string::npos);
  CHECK(refused(t5_bias{view(x.data(), 2, 3)}).find("buckets") != std::string::npos);
  CHECK(refused(t5_bias{view(x.data(), 2, 32), true, 8}).find("largest distance") != std::string::npos);
  CHECK(refused(time_bias{t, t, view(x.data(), 1, 8)}).find("times of queries") != std::string::npos);
  CHECK(refused(cosine{few}).find("temperatures") != std::string::npos);
  CHECK(refused(bilinear{view(x.data(), 2, 4, 4)}).find("bilinear") != std::string::npos);
  CHECK(refused(query_bias{view(x.data(), 2, 4)}).find("query_bias") != std::string::npos);
  CHECK(refused(relative_scores{view(x.data(), 2, 4, 4), 1.f}).find("tokens") != std::string::npos);
}

}  // namespace
}  // namespace tern::test

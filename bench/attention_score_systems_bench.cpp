// SPDX-License-Identifier: Apache-2.0
// Published systems of attention that differ in what a score is: normalizers, biases, relative terms and positions.
#include "attention_systems.hpp"

#include <tern/attention/systems/diff_qkv.hpp>
#include <tern/attention/systems/dual_chunk_attention.hpp>
#include <tern/attention/systems/flash_attention_2.hpp>
#include <tern/attention/systems/flash_sigmoid.hpp>
#include <tern/attention/systems/hstu.hpp>
#include <tern/attention/systems/lm_infinite.hpp>
#include <tern/attention/systems/mosaic_bert.hpp>
#include <tern/attention/systems/pldr_llm.hpp>
#include <tern/attention/systems/rcmha.hpp>
#include <tern/attention/systems/transformer_xl.hpp>
#include <tern/attention/varlen.hpp>
#include <tern/pointwise/rope_table.hpp>

namespace tern::bench {
namespace {

constexpr index heads = 8, tokens = 1024, dim = 64;

bool up_to_own(index, index i, index j) { return j <= i; }

void add_normalizers(inputs const& text) {
  add_formula("flash_attention_2", text, {}, [](cpu_policy const& on, problem& x) { flash_attention_2(on, x.q, x.k, x.v, x.out, x.lse); });
  add_formula("flash_sigmoid", text, {.weight = [](double s) { return 1 / (1 + std::exp(-s) * tokens); }},
              [](cpu_policy const& on, problem& x) { flash_sigmoid(on, x.q, x.k, x.v, x.out); });
}

void add_diff_qkv() {
  inputs const data({.heads = heads, .tokens = tokens, .dim = dim, .k_heads = 2, .v_heads = 4});
  add_formula("diff_qkv", data, {.sees = up_to_own},
              [](cpu_policy const& on, problem& x) { diff_qkv(on, x.q, x.k, x.v, x.out, causal{}); });

  // The values of the 64 largest weights.
  static constexpr index count = 64;
  static std::vector<std::int32_t> ids(heads * tokens * count);
  static std::vector<float> scores(ids.size());
  double const seen = heads * tokens * (tokens + 1) / 2., fetched = heads * (tokens * count - count * (count - 1) / 2.);
  add(
      "diff_qkv_selective", data, 2 * dim * (seen + fetched),
      [](problem const& x) {
        return right(x, [&](index h, index i) {
          auto w = weights(x, {.sees = up_to_own}, h, i), sorted = w;
          std::nth_element(sorted.begin(), sorted.begin() + count - 1, sorted.end(), std::greater{});
          for (double& e : w) e = e < sorted[count - 1] ? 0 : e;
          return weighed(x, w, h);
        });
      },
      [](cpu_policy const& on, problem& x) {
        diff_qkv_selective(on, x.q, x.k, x.v, x.out, view(ids.data(), heads, tokens, count), view(scores.data(), heads, tokens, count),
                           causal{});
      });
}

void add_biases(inputs const& text) {
  static std::vector<std::int32_t> const cu{0, 100, 300, 310, 700, 1024};
  static std::vector<float> slopes;
  for (index h = 0; h < heads; ++h) slopes.push_back(alibi_slope(heads, h));
  auto const sequence = [](index i) { return std::upper_bound(cu.begin(), cu.end(), i); };
  add_formula("mosaic_bert", text,
              {.sees = [=](index, index i, index j) { return sequence(i) == sequence(j); },
               .score = [](problem const&, index h, index i, index j,
                           double s) { return s - wide(slopes[at(h)]) * static_cast<double>(std::abs(i - j)); }},
              [](cpu_policy const& on, problem& x) { mosaic_bert(on, x.q, x.k, x.v, x.out, slopes, varlen(cu)); });

  // Events half an hour to some days apart, in seconds.
  static constexpr index buckets = 64;
  static std::vector<float> const positions = fast_normal(2 * tokens - 1, 1, 11), times = fast_normal(heads * buckets, 1, 12);
  static std::vector<std::int64_t> event{0}, next;
  for (index i = 1; i < tokens; ++i) event.push_back(event.back() + 2000 + i * i % 17 * 20000);
  next.assign(event.begin() + 1, event.end());
  next.push_back(event.back());
  add_formula("hstu", text,
              {.sees = up_to_own,
               .score =
                   [](problem const&, index h, index i, index j, double s) {
                     double const apart = static_cast<double>(std::max<std::int64_t>(std::abs(next[at(i)] - event[at(j)]), 1));
                     index const bucket = std::min(static_cast<index>(std::log(apart) / 0.301), buckets - 1);
                     return 8 * s + wide(positions[at(j - i + tokens - 1)]) + wide(times[at(h * buckets + bucket)]);
                   },
               .weight = [](double s) { return s / (1 + std::exp(-s)) / tokens; }},
              [](cpu_policy const& on, problem& x) {
                hstu(on, x.q, x.k, x.v, x.out, relative_bias{view(positions.data(), 1, 2 * tokens - 1)},
                     time_bias{next, event, view(times.data(), heads, buckets)}, tokens);
              });
}

void add_products(inputs const& text) {
  // Of a spread that leaves scores as large as they are.
  static std::vector<float> g = fast_normal(heads * dim * dim, 0.125, 13);
  static tensor_view<float const, 3> const metric = view(g.data(), heads, dim, dim);
  add_formula(
      "pldr_llm", text,
      {.sees = up_to_own,
       .score =
           [](problem const& x, index h, index i, index j, double) {
             double sum = 0;
             for (index a = 0; a < dim; ++a) sum += wide(x.q(h, i, a)) * dot(metric[h][a], x.k[h][j]);
             return sum / 8;
           }},
      [](cpu_policy const& on, problem& x) { pldr_llm(on, x.q, metric, x.k, x.v, x.out, causal{}); }, -1, 2. * heads * tokens * dim * dim);

  static std::vector<float> r = fast_normal(heads * tokens * dim, 1, 14), u = fast_normal(heads * dim, 1, 15),
                            w = fast_normal(heads * dim, 1, 16);
  static tensor_view<float const, 3> const relative = view(r.data(), heads, tokens, dim);
  static tensor_view<float const, 2> const us = view(u.data(), heads, dim), ws = view(w.data(), heads, dim);
  formula const f{.sees = up_to_own, .score = [](problem const& x, index h, index i, index j, double s) {
                    auto const distance = relative[h][tokens - 1 - (i - j)];
                    return s + (dot(us[h], x.k[h][j]) + dot(x.q[h][i], distance) + dot(ws[h], distance)) / 8;
                  }};
  auto const call = [](cpu_policy const& on, problem& x) { transformer_xl(on, x.q, x.k, x.v, relative, us, ws, x.out, causal{}); };
  double const distances = 2. * heads * tokens * tokens * dim;
  add_formula("transformer_xl", text, f, call, -1, distances);
  add_formula(
      "rcmha", text, f, [](cpu_policy const& on, problem& x) { rcmha(on, x.q, x.k, x.v, relative, us, ws, x.out, causal{}); }, -1,
      distances);
}

/// q_i . k_j / 8 where q stands `apart` behind k: pairs of neighbours turned, base 10000.
double rotated(problem const& x, index h, index i, index j, index apart) {
  double sum = 0;
  for (index d = 0; d < dim; d += 2) {
    double const angle = static_cast<double>(apart) * std::pow(10000., -static_cast<double>(d) / dim);
    double const q0 = wide(x.q(h, i, d)), q1 = wide(x.q(h, i, d + 1)), k0 = wide(x.k(h, j, d)), k1 = wide(x.k(h, j, d + 1));
    sum += (q0 * k0 + q1 * k1) * std::cos(angle) + (q0 * k1 - q1 * k0) * std::sin(angle);
  }
  return sum / 8;
}

void add_positions(inputs const& text) {
  static std::vector<float> cosines((tokens + 1) * dim);
  static tensor_view<float, 2> const table = view(cosines.data(), tokens + 1, dim);
  rope_table(cpu, 0, table);

  static constexpr index sinks = 16, length = 256;
  add_formula("lm_infinite", text,
              {.sees = [](index, index i, index j) { return j <= i && (j < sinks || i - length < j); },
               .score = [](problem const& x, index h, index i, index j, double) { return rotated(x, h, i, j, std::min(i - j, length)); }},
              [](cpu_policy const& on, problem& x) { lm_infinite(on, x.q, x.k, x.v, x.out, x.lse, table, sinks, length); });

  static constexpr index chunk = 384, local = 64, s = chunk - local;
  add_formula("dual_chunk_attention", text,
              {.sees = up_to_own,
               .score =
                   [](problem const& x, index h, index i, index j, double) {
                     index const chunks = i / s - j / s, far = std::min(2 * s - 1, chunk);
                     return rotated(x, h, i, j, (chunks == 0 ? i % s : chunks == 1 ? std::min(i % s + s, chunk) : far) - j % s);
                   }},
              [](cpu_policy const& on, problem& x) { dual_chunk_attention(on, x.q, x.k, x.v, x.out, x.lse, table, chunk, local); });
}

}  // namespace

void register_benchmarks() {
  inputs const text({.heads = heads, .tokens = tokens, .dim = dim});
  add_normalizers(text);
  add_diff_qkv();
  add_biases(text);
  add_products(text);
  add_positions(text);
}

}  // namespace tern::bench

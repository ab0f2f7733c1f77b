// SPDX-License-Identifier: Apache-2.0
// Sentences of mixed length through one layer of a text encoder of MiniLM's shape (384 channels, 12 heads, 1536 hidden): packed behind
// each other without padding (`tern`, and with weights interleaved ahead of time), and padded to the longest. The lengths are those of
// the first 32 sentences of the GPL in BERT's word pieces, 12 to 72. Operations and speed count real tokens alone.
#include "harness.hpp"
#include "inputs.hpp"

#include <tern/attention.hpp>
#include <tern/attention/varlen.hpp>
#include <tern/matmul.hpp>
#include <tern/pointwise.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

namespace tern::bench {
namespace {

constexpr std::int32_t lengths[] = {12, 13, 36, 23, 25, 39, 35, 12, 18, 72, 25, 30, 37, 19, 15, 47,
                                    27, 38, 29, 19, 28, 21, 38, 13, 46, 24, 15, 17, 24, 17, 12, 16};
constexpr index texts = std::size(lengths), channels = 384, hidden = 1536, heads = 12, dim = channels / heads;

/// Weights (n, k): rows of f32, and bf16 panels made ahead.
struct matrix {
  index n, k;
  std::vector<float> rows, bias;
  std::vector<bf16> panels;
  interleaved_matrix fast;
  matrix(index n_, index k_, std::uint64_t seed)
      : n(n_),
        k(k_),
        rows(fast_normal(n * k, 0.05, seed)),
        bias(fast_normal(n, 0.1, seed + 1)),
        panels(rows.begin(), rows.end()),
        fast(interleave(cpu, block_matrix(tern::view(panels.data(), n, k)), panels.data())) {}
};

/// Tokens of all texts as rows, and a layer that they pass through.
struct batch {
  compute mode;
  bool padded;
  std::vector<std::int32_t> begins{0}, counts;  // of the texts' rows
  matrix query, key, value, out, up, down;
  buffer<float> x, q, k, v, h, wide, y;
  std::vector<float> gain = std::vector<float>(channels, 1.f), shift = std::vector<float>(channels, 0.f);

  batch(compute m, bool with_padding)
      : mode(m),
        padded(with_padding),
        counts(std::begin(lengths), std::end(lengths)),
        query(channels, channels, 1),
        key(channels, channels, 3),
        value(channels, channels, 5),
        out(channels, channels, 7),
        up(hidden, channels, 9),
        down(channels, hidden, 11) {
    std::int32_t const longest = *std::max_element(counts.begin(), counts.end());
    for (std::int32_t n : counts) begins.push_back(begins.back() + (padded ? longest : n));
    for (auto* const memory : {&x, &q, &k, &v, &h, &y}) *memory = buffer<float>(rows() * channels);
    wide = buffer<float>(rows() * hidden);
    std::vector<float> const values = fast_normal(std::accumulate(counts.begin(), counts.end(), index{0}) * channels);
    for (index b = 0, from = 0; b < texts; from += counts[static_cast<std::size_t>(b++)])
      std::copy_n(values.data() + from * channels, counts[static_cast<std::size_t>(b)] * channels, x.data() + begin(b) * channels);
  }
  index rows() const { return begins.back(); }
  index begin(index b) const { return begins[static_cast<std::size_t>(b)]; }
  tensor_view<float, 2> view(buffer<float>& of, index n = channels) const { return tern::view(of.data(), rows(), n); }
  tensor_view<float, 3> by_head(buffer<float>& of) const { return {of.data(), {{heads, rows(), dim}}, {{dim, channels, 1}}}; }
  tensor_view<float, 4> by_text(buffer<float>& of) const {
    index const longest = rows() / texts;
    return {of.data(), {{texts, heads, longest, dim}}, {{longest * channels, dim, channels, 1}}};
  }

  template <class... Options>
  void multiply(cpu_policy const& policy, tensor_view<float, 2> const& from, matrix const& w, bool ahead, tensor_view<float, 2> const& to,
                Options const&... options) {
    if (ahead)
      matmul(policy, from, w.fast, to, mode, tern::bias{w.bias}, options...);
    else
      matmul(policy, from, tern::view(w.rows.data(), w.n, w.k), to, mode, tern::bias{w.bias}, options...);
  }
  /// y = the layer of x.
  void run(cpu_policy const& policy, bool ahead) {
    multiply(policy, view(x), query, ahead, view(q));
    multiply(policy, view(x), key, ahead, view(k));
    multiply(policy, view(x), value, ahead, view(v));
    if (padded)
      attention(policy, by_text(q), by_text(k), by_text(v), by_text(h), key_lengths(counts));
    else
      attention(policy, by_head(q), by_head(k), by_head(v), by_head(h), varlen(begins));
    multiply(policy, view(h), out, ahead, view(v), residual{view(x)});
    layer_norm(policy, view(v), gain, shift, view(q));
    multiply(policy, view(q), up, ahead, view(wide, hidden), act::gelu{});
    multiply(policy, view(wide, hidden), down, ahead, view(h), residual{view(q)});
    layer_norm(policy, view(h), gain, shift, view(y));
  }
};

/// Whether both have the same for each real token. Where attention differs in a last bit, bf16 rounds to numbers 2^-8 apart.
bool agree(batch const& a, batch const& b) {
  float const tolerance = a.mode == compute::bf16 ? 0x1p-7f : 1e-4f;
  for (index t = 0; t < texts; ++t)
    for (index i = 0; i < a.counts[static_cast<std::size_t>(t)] * channels; ++i)
      if (!(std::abs(a.y[a.begin(t) * channels + i] - b.y[b.begin(t) * channels + i]) < tolerance)) return false;
  return true;
}

void add(compute mode) {
  struct both {
    batch packed, padded;
  };
  auto data = lazy([=] { return both{batch(mode, false), batch(mode, true)}; });
  double tokens = 0, pairs = 0;
  for (std::int32_t n : lengths) tokens += n, pairs += static_cast<double>(n) * n;
  bool const is_bf16 = mode == compute::bf16;
  workload const w{.op = "tokens",
                   .name = std::string("packed_mixed_") + (is_bf16 ? "bf16" : "f32") + "_texts32_c384",
                   .flops = 2 * tokens * (4.0 * channels * channels + 2.0 * channels * hidden) + 4 * pairs * channels,
                   .peak = is_bf16 ? unit::bf16 : unit::f32};
  auto const register_one = [&](char const* who, bool with_padding, bool ahead) {
    w.add(who, [=](run& r) {
      both& b = data();
      batch &mine = with_padding ? b.padded : b.packed, &other = with_padding ? b.packed : b.padded;
      r.check([&] {
        other.run(r.policy(), false);
        mine.run(r.policy(), ahead);
        return agree(mine, other);
      });
      r.time([&](index) { mine.run(r.policy(), ahead); });
    });
  };
  register_one("tern", false, false);
  register_one("padded", true, false);
  if (is_bf16) register_one("tern_interleaved", false, true);
}

}  // namespace

void register_benchmarks() {
  add(compute::f32);
  add(compute::bf16);
}

}  // namespace tern::bench

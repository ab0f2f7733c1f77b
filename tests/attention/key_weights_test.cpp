// SPDX-License-Identifier: Apache-2.0
#include "column_sums.hpp"

#include <tern/attention/alibi.hpp>
#include <tern/attention/key_weights.hpp>
#include <tern/attention/rotary.hpp>
#include <tern/pointwise/rope_table.hpp>

namespace tern::test {
namespace {

columns grouped(columns const& c, sample_of const& n) {
  columns g{std::vector<double>(static_cast<std::size_t>(n.k_heads * n.keys), 0), {}};
  g.magnitude = g.sum;
  for (index h = 0; h < n.heads; ++h)
    for (index j = 0; j < n.keys; ++j) {
      std::size_t const to = static_cast<std::size_t>(h / (n.heads / n.k_heads) * n.keys + j),
                        from = static_cast<std::size_t>(h * n.keys + j);
      g.sum[to] += c.sum[from];
      g.magnitude[to] += c.magnitude[from] + static_cast<double>(n.heads / n.k_heads) * c.sum[from];
    }
  return g;
}

/// Attention and then column sums, both with `options`, per head and per key head.
template <class... Options>
void check(sample& s, sample::score_fn const& score, double roundings, Options const&... options) {
  attention(cpu, s.q.view(), s.k.view(), s.v.view(), s.out_view(), log_sum_exp{s.lse_view()}, options...);
  guarded<float> out(s.n.heads * s.n.keys, 1), few(s.n.k_heads * s.n.keys, 1);
  attention_key_weights(cpu, s.q.view(), s.k.view(), s.lse_view(), view(out.data(), s.n.heads, s.n.keys), options...);
  attention_key_weights(cpu, s.q.view(), s.k.view(), s.lse_view(), view(few.data(), s.n.k_heads, s.n.keys), options...);
  columns const want = column_sums(s, score, roundings), by_key_head = grouped(want, s.n);
  INFO(s.n.heads << '/' << s.n.k_heads << " heads, " << s.n.tokens << " tokens, " << s.n.keys << " keys");
  CHECK(compare(out.span(), want.sum, want.magnitude, 0x1p-24));
  CHECK(compare(few.span(), by_key_head.sum, by_key_head.magnitude, 0x1p-24));
  CHECK(out.intact());
  CHECK(few.intact());
  guarded<float> within(s.n.heads * s.n.keys, 1);
  attention(cpu, s.q.view(), s.k.view(), s.v.view(), s.out_view(), key_weights{view(within.data(), s.n.heads, s.n.keys)}, options...);
  CHECK(compare(within.span(), want.sum, want.magnitude, 0x1p-24));
  CHECK(within.intact());
}

TEST_CASE("key weights: column sums of the softmax, windows that end anywhere, with and without queries that see nothing") {
  rng r(501);
  auto samples = usual_samples();
  samples.push_back({4, 2, 2, 90, 40, 16, 8});  // more queries than keys: the first see nothing
  samples.push_back({2, 2, 2, 1, 3, 16, 8});
  for (auto const& of : samples)
    for (auto const& m : {window{std::numeric_limits<index>::max(), std::numeric_limits<index>::max()},
                          window{std::numeric_limits<index>::max(), 0}, window{20, 3}, window{7, 0, 11}, window{1, 2, -2}}) {
      sample s(r, of, 2);
      index const offset = m.offset == bottom_right ? of.keys - of.tokens : m.offset;
      auto const score = [&](index h, index i, index j) {
        double const behind = static_cast<double>(j - i - offset);
        bool const seen = behind > -static_cast<double>(m.length) && behind <= static_cast<double>(m.right);
        return seen ? s.scaled(h, i, j) : hidden;
      };
      check(s, score, 0, m);
    }
}

/// Which heads see which keys: a mask of a head, with a hidden triangle that causal does not know.
struct upper {
  index shift;
  key_range range(index, index) const { return {0, 1 << 20}; }
  coverage covers(index i0, index i1, index j0, index j1) const {
    return j1 - 1 <= i0 + shift ? coverage::all : (j0 > i1 - 1 + shift ? coverage::none : coverage::some);
  }
  bool visible(index i, index j) const { return j <= i + shift; }
};
struct upper_by_head {
  upper at(index batch, index head) const { return {10 * head + 100 * batch}; }
};

struct window_by_head {
  window at(index, index head) const { return {20 + head, head, 7 * head}; }
};

TEST_CASE("key weights: a window for each head, each with an offset") {
  rng r(511);
  for (auto const& of : usual_samples()) {
    sample s(r, of);
    auto const score = [&](index h, index i, index j) {
      index const behind = j - i - 7 * h;
      return behind > -(20 + h) && behind <= h ? s.scaled(h, i, j) : hidden;
    };
    check(s, score, 0, window_by_head{});
  }
}

TEST_CASE("key weights: a mask for each head, causal, ALiBi, softcap and scale together") {
  rng r(502);
  for (auto const& of : usual_samples()) {
    sample s(r, of);
    std::vector<float> slopes;
    for (index h = 0; h < of.heads; ++h) slopes.push_back(0.01f * static_cast<float>(h + 1));
    auto const score = [&](index h, index i, index j) {
      if (s.before(i, j) < 0 || j > i + 10 * h) return hidden;
      double const x = 1.5 * std::sqrt(static_cast<double>(of.dim)) * s.scaled(h, i, j);
      return 4 * std::tanh(x / 4) - static_cast<double>(slopes[static_cast<std::size_t>(h)]) * static_cast<double>(s.before(i, j));
    };
    // scale 1.5 is 1.5 sqrt(dim) of what growth counts with.
    check(s, score, 8 * static_cast<double>(of.dim), softcap{4.f}, alibi{slopes}, scale{1.5f}, causal{}, upper_by_head{});
  }
}

TEST_CASE("key weights: rotated rows, queries at their own positions") {
  rng r(503);
  for (auto const& of : usual_samples()) {
    sample s(r, of);
    std::vector<float> table(static_cast<std::size_t>(of.keys * of.dim));
    rope_table(cpu, 0, view(table.data(), of.keys, of.dim));
    tensor_view<float const, 2> const rows = view(table.data(), of.keys, of.dim);
    // Queries turn by min(position, 20), keys by their position: not a function of the distance.
    rotary const turn(rotary_rows{rows, rotary_rows::far, 1, 0, 20}, rotary_rows{rows});
    auto const score = [&](index h, index i, index j) {
      double sum = 0;
      if (s.before(i, j) < 0) return hidden;
      for (index d = 0; d < of.dim; d += 2) {
        double const angle = (static_cast<double>(std::min<index>(s.before(i, j) + j, 20)) - static_cast<double>(j)) *
                             std::pow(10000.0, -static_cast<double>(d) / static_cast<double>(of.dim));
        double const q0 = s.q(h, i, d), q1 = s.q(h, i, d + 1);
        double const k0 = static_cast<double>(s.k_row(h, j)[d]), k1 = static_cast<double>(s.k_row(h, j)[d + 1]);
        sum += (q0 * k0 + q1 * k1) * std::cos(angle) + (q0 * k1 - q1 * k0) * std::sin(angle);
      }
      return sum / std::sqrt(static_cast<double>(of.dim));
    };
    check(s, score, 8, turn, causal{});
  }
}

TEST_CASE("key weights: a batch, one head, and the sum over keys is one for each query") {
  rng r(504);
  index const batch = 3, heads = 4, k_heads = 2, tokens = 11, keys = 30, dim = 16;
  auto const q = r.normal<float>(batch * heads * tokens * dim), k = r.normal<float>(batch * k_heads * keys * dim),
             v = r.normal<float>(batch * k_heads * keys * dim);
  std::vector<float> out(static_cast<std::size_t>(batch * heads * tokens * dim)), lse(static_cast<std::size_t>(batch * heads * tokens)),
      weights(static_cast<std::size_t>(batch * heads * keys));
  auto const qs = view(q.data(), batch, heads, tokens, dim);
  auto const ks = view(k.data(), batch, k_heads, keys, dim);
  auto const sums = view(lse.data(), batch, heads, tokens);
  attention(cpu, qs, ks, view(v.data(), batch, k_heads, keys, dim), view(out.data(), batch, heads, tokens, dim), log_sum_exp{sums},
            upper_by_head{});
  attention_key_weights(cpu, qs, ks, sums, view(weights.data(), batch, heads, keys), upper_by_head{});
  for (index b = 0; b < batch; ++b)
    for (index h = 0; h < heads; ++h) {
      double sum = 0;
      for (index j = 0; j < keys; ++j) sum += static_cast<double>(weights[static_cast<std::size_t>((b * heads + h) * keys + j)]);
      CHECK(std::abs(sum - static_cast<double>(tokens)) < 1e-4);
    }
  CHECK_THROWS_AS(attention_key_weights(cpu, qs, ks, sums, view(weights.data(), batch, 3, keys), upper_by_head{}), error);
}

TEST_CASE("key weights: a log-sum-exp with gaps gives the bits of one without") {
  rng r(505);
  index const heads = 4, k_heads = 2, keys = 150, dim = 16;
  for (index tokens : {5, 41, 90}) {
    auto const q = r.normal<float>(heads * tokens * dim), k = r.normal<float>(k_heads * keys * dim);
    guarded<float> lse(r.normal<float>(heads * tokens), 1);
    guarded<float> with_gaps(heads * tokens * 3, 1);
    tensor_view<float, 2> const apart(with_gaps.data(), shape<2>{{heads, tokens}}, shape<2>{{3, 3 * heads}});
    for (index h = 0; h < heads; ++h)
      for (index i = 0; i < tokens; ++i) apart(h, i) = lse[h * tokens + i];
    std::vector<float> out(static_cast<std::size_t>(heads * keys)), other = out;
    auto const qs = view(q.data(), heads, tokens, dim);
    auto const ks = view(k.data(), k_heads, keys, dim);
    attention_key_weights(cpu, qs, ks, view(lse.data(), heads, tokens), view(out.data(), heads, keys));
    attention_key_weights(cpu, qs, ks, apart, view(other.data(), heads, keys));
    CAPTURE(tokens);
    CHECK(out == other);
    CHECK(out[0] > 0);
  }
}

}  // namespace
}  // namespace tern::test

// SPDX-License-Identifier: Apache-2.0
#include <tern/attention/attention.hpp>

#include "call.hpp"
#include "column_sums.hpp"
#include "message.hpp"

namespace tern::test {
namespace {

tensor_view<float, 2> columns_of(guarded<float>& weights, sample const& s) { return view(weights.data(), s.n.heads, s.n.keys); }

TEST_CASE("key weights of the call: rows are worked on in turn, to the bits of a call that keeps none") {
  rng r(521);
  // 400 rows of 2000 keys are more than are kept at a time; later rows see blocks that earlier ones did not.
  for (sample_of const& of : {sample_of{2, 2, 2, 400, 2000, 16, 24}, sample_of{4, 1, 1, 250, 1500, 8, 8}}) {
    sample s(r, of);
    auto const score = [&](index h, index i, index j) { return s.before(i, j) < 0 ? hidden : s.scaled(h, i, j); };
    guarded<float> weights(of.heads * of.keys, 1);
    attention(cpu.on(several_threads()), s.q.view(), s.k.view(), s.v.view(), s.out_view(), causal{}, key_weights{columns_of(weights, s)});
    columns const want = column_sums(s, score);
    CHECK(compare(weights.span(), want.sum, want.magnitude, 0x1p-24));
    CHECK(weights.intact());

    auto const out = std::vector<float>(s.out.span().begin(), s.out.span().end());
    attention(cpu.on(serial), s.q.view(), s.k.view(), s.v.view(), s.out_view(), causal{});
    CHECK(std::equal(out.begin(), out.end(), s.out.span().begin()));
    guarded<float> alone(of.heads * of.keys, 1);
    attention(cpu.on(serial), s.q.view(), s.k.view(), s.v.view(), s.out_view(), causal{}, key_weights{columns_of(alone, s)});
    CHECK(std::equal(alone.span().begin(), alone.span().end(), weights.span().begin()));
  }
}

TEST_CASE("key weights of the call: every query gives one in all, whatever is multiplied") {
  rng r(522);
  sample s(r, {4, 2, 2, 70, 300, 32, 16});
  auto const adds_up = [&](auto product) {
    guarded<float> weights(s.n.heads * s.n.keys, 1);
    attention(cpu, s.q.view(), s.k.view(), s.v.view(), s.out_view(), product, key_weights{columns_of(weights, s)});
    for (index h = 0; h < s.n.heads; ++h) {
      double sum = 0;
      for (index j = 0; j < s.n.keys; ++j) sum += static_cast<double>(weights.data()[h * s.n.keys + j]);
      CHECK(std::abs(sum / 70 - 1) < 0x1p-24 * (attention_accuracy::b0 + 70 + 300));
    }
    return std::vector<float>(weights.span().begin(), weights.span().end());
  };
  auto const exact = adds_up(products<float>{}), rough = adds_up(products<bf16>{}), rougher = adds_up(products<std::int8_t>{});
  for (std::size_t i = 0; i < exact.size(); ++i) {  // scores of about 1, each off by 2^-7 of the sum of |q k| or less
    CHECK(std::abs(rough[i] - exact[i]) < 0.1f * exact[i]);
    CHECK(std::abs(rougher[i] - exact[i]) < 0.1f * exact[i]);
  }
}

TEST_CASE("key weights of the call: sinks take their share") {
  rng r(523);
  sample s(r, {2, 1, 1, 9, 40, 16, 16});
  std::vector<float> const scores{0.5f, -std::numeric_limits<float>::infinity()};
  guarded<float> weights(2 * 40, 1);
  attention(cpu, s.q.view(), s.k.view(), s.v.view(), s.out_view(), sinks{view(scores.data(), 2)}, key_weights{columns_of(weights, s)});
  auto const score = [&](index h, index i, index j) { return s.scaled(h, i, j); };
  columns want = column_sums(s, score);
  for (index j = 0; j < 40; ++j) {  // only head 0 has a sink
    double& sum = want.sum[static_cast<std::size_t>(j)] = 0;
    for (index i = 0; i < 9; ++i) {
      double all = std::exp(0.5);
      for (index l = 0; l < 40; ++l) all += std::exp(s.scaled(0, i, l));
      sum += std::exp(s.scaled(0, i, j)) / all;
    }
  }
  CHECK(compare(weights.span(), want.sum, want.magnitude, 0x1p-24));
}

TEST_CASE("key weights of the call: one head, a batch, no queries, NaN") {
  rng r(524);
  index const batch = 2, tokens = 50, keys = 33, dim = 8;
  auto q = r.normal<float>(batch * tokens * dim);
  auto const k = r.normal<float>(batch * keys * dim);
  std::vector<float> out(q.size()), together(static_cast<std::size_t>(batch * keys)), alone(static_cast<std::size_t>(keys));
  attention(cpu, view(q.data(), batch, 1, tokens, dim), view(k.data(), batch, 1, keys, dim), view(k.data(), batch, 1, keys, dim),
            view(out.data(), batch, 1, tokens, dim), key_weights{view(together.data(), batch, 1, keys)});
  for (index b = 0; b < batch; ++b) {
    attention(cpu, view(q.data() + b * tokens * dim, tokens, dim), view(k.data() + b * keys * dim, keys, dim),
              view(k.data() + b * keys * dim, keys, dim), view(out.data(), tokens, dim), key_weights{view(alone.data(), keys)});
    CHECK(std::equal(alone.begin(), alone.end(), together.begin() + b * keys));
  }
  attention(cpu, view(q.data(), 0, dim), view(k.data(), keys, dim), view(k.data(), keys, dim), view(out.data(), 0, dim),
            key_weights{view(alone.data(), keys)});
  for (float x : alone) CHECK(x == 0);
  q[7 * dim] = std::nanf("");
  attention(cpu, view(q.data(), tokens, dim), view(k.data(), keys, dim), view(k.data(), keys, dim), view(out.data(), tokens, dim),
            key_weights{view(alone.data(), keys)});
  for (float x : alone) CHECK(x != x);
}

TEST_CASE("key weights of the call: a block that a row does not see counts nothing, whatever its scores elsewhere") {
  // Row i sees keys 124 + i to 126 + i: the first see nothing of the second block of keys, the last nothing of the first. All scores are
  // the same, and such that 2^-score is beyond f32, at it, and below.
  index const tokens = 8, keys = 264, dim = 4;
  for (float const score : {-60.f, -88.5f, -88.75f, -89.f, -300.f, -1e30f}) {
    std::vector<float> const q(tokens * dim, 0.5f), k(keys * dim, score / 2);
    std::vector<float> out(tokens * dim), weights(keys);
    attention(cpu, view(q.data(), tokens, dim), view(k.data(), keys, dim), view(k.data(), keys, dim), view(out.data(), tokens, dim),
              scale{1.f}, window{3, 0, 126}, key_weights{view(weights.data(), keys)});
    for (index j = 0; j < keys; ++j) {
      float want = 0;
      for (index i = 0; i < tokens; ++i) want += j >= 124 + i && j <= 126 + i ? 1.f / 3 : 0.f;
      CHECK(std::abs(weights[static_cast<std::size_t>(j)] - want) < 0x1p-24f * (attention_accuracy::b0 + 3));
    }
  }
}

TEST_CASE("key weights of the call: a query that is NaN spoils the keys that it sees") {
  rng r(526);
  index const tokens = 200, dim = 8, odd = 137;
  auto q = r.normal<float>(tokens * dim);
  auto const k = r.normal<float>(tokens * dim);
  std::vector<float> out(q.size()), weights(tokens), others(tokens);
  auto const run = [&](std::vector<float>& to) {
    attention(cpu, view(q.data(), tokens, dim), view(k.data(), tokens, dim), view(k.data(), tokens, dim), view(out.data(), tokens, dim),
              causal{}, key_weights{view(to.data(), tokens)});
  };
  run(others);
  q[odd * dim] = std::nanf("");
  run(weights);
  for (std::size_t j = 0; j < weights.size(); ++j) {
    CHECK((weights[j] != weights[j]) == (j <= odd));
    if (j > odd) CHECK(weights[j] == others[j]);
  }
}

TEST_CASE("key weights of the call: scratch is as announced, and wrong places are refused") {
  rng r(525);
  sample s(r, {4, 2, 2, 300, 1200, 16, 16});
  guarded<float> weights(4 * 1200, 1);
  auto const run = [&](auto const& call, cpu_policy const& policy) {
    return call(policy, s.q.view(), s.k.view(), s.v.view(), s.out_view(), key_weights{columns_of(weights, s)});
  };
  auto const threads = cpu.on(several_threads());
  std::size_t const bytes = run([](auto const&... x) { return workspace_size(attention, x...); }, threads);
  guarded<char> fixed(static_cast<index>(bytes) + 64);
  workspace exact(fixed.data(), bytes + 64);
  run(attention, threads.with(exact));
  CHECK(fixed.intact());
  workspace own(bytes);
  run(attention, threads.with(own));
  CHECK(own.capacity() == workspace::rounded(bytes));

  auto const said = [&](auto const& to) {
    return message_of([&] { attention(cpu, s.q.view(), s.k.view(), s.v.view(), s.out_view(), key_weights{to}); });
  };
  CHECK(said(view(weights.data(), 4, 1199)) == "attention: an extent of key_weights is 1199, expected that of k = 1200");
  CHECK(said(view(weights.data(), 2, 1200)) == "attention: an extent of key_weights is 2, expected that of q = 4");
  CHECK(said(view(weights.data(), 1200)) == "attention: the rank of key_weights is 1, expected the rank of q - 1 = 2");
}

}  // namespace
}  // namespace tern::test

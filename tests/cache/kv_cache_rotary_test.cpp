// SPDX-License-Identifier: Apache-2.0
// Attention over a cache of keys that are not rotated yet, after tokens have gone: that of the tokens that stayed, each rotated by the
// position that it had in its text.
#include "compare.hpp"
#include "model.hpp"

#include <tern/attention.hpp>
#include <tern/attention/key_weights.hpp>
#include <tern/attention/rotary.hpp>
#include <tern/pointwise/rope_table.hpp>

#include <cmath>
#include <numbers>

namespace tern::test {
namespace {

/// A row turned by a position, in float64.
std::vector<double> turned(float const* x, index dim, index position, bool half) {
  std::vector<double> y(x, x + dim);
  for (index p = 0; p < dim / 2; ++p) {
    auto const a = static_cast<std::size_t>(half ? p : 2 * p), b = static_cast<std::size_t>(half ? p + dim / 2 : 2 * p + 1);
    double const angle = static_cast<double>(position) * std::pow(10000., -2. * static_cast<double>(p) / static_cast<double>(dim));
    double const u = y[a], v = y[b];
    y[a] = u * std::cos(angle) - v * std::sin(angle);
    y[b] = v * std::cos(angle) + u * std::sin(angle);
  }
  return y;
}

template <class K, class V>
struct rotated_cache : modelled<K, V> {
  using base = modelled<K, V>;
  using typename base::sequence;
  static constexpr index heads = 4, kv_heads = 2, dim = 64, dim_v = 32, rows = 4096;
  rng r;
  std::vector<float> memory = std::vector<float>(static_cast<std::size_t>(rows * dim));
  tensor_view<float, 2> table{memory.data(), shape<2>{{rows, dim}}};

  explicit rotated_cache(std::uint64_t seed) : base({.layers = 2, .kv_heads = kv_heads, .dim = dim, .dim_v = dim_v}), r(seed) {
    rope_table(cpu, 0, table);
  }
  /// So many of a head's tokens, from all over.
  std::vector<std::int32_t> some(index length, index count) {
    std::vector<std::int32_t> list;
    for (index t = 0; t < length; ++t)
      if (r.integer(0, length - t - 1) < count - static_cast<index>(list.size())) list.push_back(static_cast<std::int32_t>(t));
    return list;
  }

  /// The call's causal attention and the weights that keys get, for queries that are the last tokens or stand `behind` them.
  void check(index layer, std::vector<sequence> const& batch, index tokens, bool half, index behind = 0) {
    index const n = static_cast<index>(batch.size());
    auto const pairing = half ? rope_pairing::half : rope_pairing::interleaved;
    std::vector<float> const q = r.normal<float>(n * heads * tokens * dim);
    guarded<float> out(n * heads * tokens * dim_v), lse(n * heads * tokens);
    auto const queries = view(q.data(), n, heads, tokens, dim);
    auto const to = view(out.data(), n, heads, tokens, dim_v);
    auto const sums = view(lse.data(), n, heads, tokens);
    auto const keys = this->cache.keys(batch, layer);
    auto const values = this->cache.values(batch, layer);
    rotary const turns = stored_rotary(table, keys, pairing);
    index most = 0;
    for (auto const s : batch) most = std::max(most, this->cache.longest(s, layer));
    guarded<float> weight(n * heads * most);
    auto const weights = view(weight.data(), n, heads, most);
    if (behind == 0) {
      attention(some_threads(), queries, keys, values, to, causal{}, log_sum_exp{sums}, turns);
      attention_key_weights(some_threads(), queries, keys, sums, weights, causal{}, turns);
    } else {
      // Heads of one length: an offset is one for all.
      causal const mask{this->cache.length(batch[0], layer) - tokens + behind};
      attention(some_threads(), queries, keys, values, to, mask, log_sum_exp{sums}, turns);
      attention_key_weights(some_threads(), queries, keys, sums, weights, mask, turns);
    }
    std::vector<double> want, magnitude, want_lse, lse_magnitude, want_weights, weights_magnitude;
    for (index b = 0; b < n; ++b)
      for (index h = 0; h < heads; ++h) {
        auto const& of = this->at(batch[static_cast<std::size_t>(b)], layer, h / (heads / kv_heads)).tokens;
        index const count = static_cast<index>(of.size());
        std::vector<std::vector<double>> keys_turned;
        for (auto const& token : of) keys_turned.push_back(turned(token->key.data(), dim, token->position, half));
        std::vector<double> got(static_cast<std::size_t>(most)), allowed = got;
        for (index i = 0; i < tokens; ++i) {
          index const place = count - tokens + i + behind, last = of[static_cast<std::size_t>(count - 1)]->position;
          index const position =
              place < count ? of[static_cast<std::size_t>(std::max<index>(place, 0))]->position : last + 1 + place - count;
          add_query(of, keys_turned, turned(&queries(b, h, i, 0), dim, position, half), std::min(place + 1, count), want, magnitude,
                    want_lse, lse_magnitude, got, allowed);
        }
        want_weights.insert(want_weights.end(), got.begin(), got.end());
        weights_magnitude.insert(weights_magnitude.end(), allowed.begin(), allowed.end());
      }
    CAPTURE(layer, n, tokens, half, behind, current_seed);
    CHECK(compare(out.span(), want, magnitude, 0x1p-24));
    CHECK(compare(lse.span(), want_lse, lse_magnitude, 0x1p-24));
    CHECK(compare(weight.span(), want_weights, weights_magnitude, 0x1p-24));
    CHECK((out.intact() && lse.intact() && weight.intact()));
  }

 private:
  /// One query over the first `seen` tokens.
  template <class Tokens>
  static void add_query(Tokens const& of, std::vector<std::vector<double>> const& keys, std::vector<double> const& q, index seen,
                        std::vector<double>& want, std::vector<double>& magnitude, std::vector<double>& want_lse,
                        std::vector<double>& lse_magnitude, std::vector<double>& weights, std::vector<double>& allowed) {
    std::vector<double> score, value(dim_v), absolute(dim_v);
    double growth = 0, top = -std::numeric_limits<double>::infinity(), sum = 0;
    for (index j = 0; j < seen; ++j) {
      std::vector<double> const& k = keys[static_cast<std::size_t>(j)];
      double s = 0, qq = 0, kk = 0;
      for (std::size_t d = 0; d < k.size(); ++d) {
        s += q[d] * k[d] / 8;  // sqrt(64)
        qq += q[d] * q[d];
        kk += k[d] * k[d];
      }
      score.push_back(s);
      growth = std::max(growth, std::sqrt(qq * kk) / 8 + std::abs(s));
      top = std::max(top, s);
    }
    for (double s : score) sum += std::exp(s - top);
    double const lse = top + std::log(sum);
    using a = attention_accuracy;
    double const units = a::b0 + (a::b1 * 8 + 8) * growth + a::b2 * std::sqrt(static_cast<double>(of.size()));  // 8: the rotations
    for (index j = 0; j < seen; ++j) {
      double const p = std::exp(score[static_cast<std::size_t>(j)] - lse);
      weights[static_cast<std::size_t>(j)] += p;
      allowed[static_cast<std::size_t>(j)] += p * (2 * units + 2 * std::abs(lse) + 16);
      for (std::size_t d = 0; d < value.size(); ++d) {
        value[d] += p * static_cast<double>(of[static_cast<std::size_t>(j)]->value[d]);
        absolute[d] += p * std::abs(static_cast<double>(of[static_cast<std::size_t>(j)]->value[d]));
      }
    }
    for (std::size_t d = 0; d < value.size(); ++d) {
      want.push_back(seen > 0 ? value[d] : 0);
      magnitude.push_back(units * absolute[d]);
    }
    want_lse.push_back(seen > 0 ? lse : -std::numeric_limits<double>::infinity());
    lse_magnitude.push_back(seen > 0 ? units + 2 * std::abs(lse) : 0);
  }
};

template <class K, class V>
void check_rotation(std::uint64_t seed) {
  rotated_cache<K, V> m(seed);
  auto const a = m.open(), b = m.open(), c = m.open();
  m.append(m.r, a, 1, 200);
  m.append(m.r, b, 1, 70);
  m.append(m.r, c, 1, 1300);
  m.keep(a, 1, {m.some(200, 66), m.some(200, 37)});
  m.slide(c, 1, 4, 1100);
  m.keep(c, 1, {m.some(1108, 513), m.some(1108, 1100)});
  auto const d = m.fork(a);
  m.append(m.r, a, 1, 9);                                              // at 200, ...
  m.append(m.r, d, 1, 4, {900, 905, 906, 1000, 300, 301, 302, 1000});  // each head its own
  m.append(m.r, c, 1, 1);
  m.verify();
  for (bool half : {false, true})
    for (index tokens : {1, 3, 9}) m.check(1, {c, d, a, b, a}, tokens, half);
  m.check(1, {d, b, a}, 60, false);  // more than some heads have
  m.check(1, {a, c}, 240, true);
  m.check(1, {b}, 5, true, 5);  // none of them is in the cache
  m.check(1, {b}, 90, false, 30);
}

TEST_CASE("kv_cache: stored_rotary turns f32 by the positions that tokens have after others went") { check_rotation<float, float>(11); }
TEST_CASE("kv_cache: stored_rotary turns f16 by the positions that tokens have after others went") { check_rotation<f16, f16>(12); }
TEST_CASE("kv_cache: stored_rotary turns keys of tiles, as stored, by the positions that tokens have after others went") {
  check_rotation<formats::keys8, float>(13);
}

TEST_CASE("kv_cache: before a token goes, positions are places, and both kinds of rotary give the same bits") {
  rotated_cache<f16, f16> m(14);
  auto const s = m.open();
  m.append(m.r, s, 0, 150);
  std::vector<float> const q = m.r.normal<float>(4 * 3 * 64);
  std::vector<float> x(4 * 3 * 32), y = x;
  auto const k = m.cache.keys(s, 0);
  attention(cpu, view(q.data(), 4, 3, 64), k, m.cache.values(s, 0), view(x.data(), 4, 3, 32), causal{}, rotary{m.table});
  attention(cpu, view(q.data(), 4, 3, 64), k, m.cache.values(s, 0), view(y.data(), 4, 3, 32), causal{}, stored_rotary(m.table, k));
  CHECK(x == y);
}

TEST_CASE("kv_cache: stored_rotary says which positions do not fit the call") {
  rotated_cache<f16, f16> m(15);
  auto const s = m.open();
  m.append(m.r, s, 0, 5);
  std::vector<std::int32_t> const twice = {s, s};
  std::vector<float> x(4096);
  auto const said = [&](rotary const& option, index sequences) {
    auto const q = view(x.data(), sequences, 4, 3, 64), out = view(x.data(), sequences, 4, 3, 32);
    std::vector<std::int32_t> const batch(static_cast<std::size_t>(sequences), s);
    return message_of([&] { (void)workspace_size(attention, cpu, q, m.cache.keys(batch, 0), m.cache.values(batch, 0), out, option); });
  };
  auto const k = m.cache.keys(s, 0);
  CHECK(said(stored_rotary(m.table, k), 1) == "no error");
  CHECK(said(stored_rotary(m.table, m.cache.keys(twice, 0)), 2) == "no error");
  CHECK(said(stored_rotary(m.table, k), 2) == "attention: the sequences of rotary's stored positions is 1, expected the batch of k = 2");
  CHECK(said(stored_rotary(m.table.slice(0, 0, 4), k), 1) ==
        "attention: the rows of rotary's table is 4, expected at least one for each stored position = 5");
  kv_cache<f16> other({.layers = 1, .kv_heads = 4, .dim = 64});
  auto const t = other.open();
  CHECK(said(stored_rotary(m.table, other.keys(t, 0)), 1) ==
        "attention: the heads of rotary's stored positions is 4, expected those of k = 2");
  page_list const nowhere[2] = {{nullptr, 5}, {nullptr, 5}};
  paged_heads<f16> const none{nullptr, 0, {nowhere, shape<2>{{1, 2}}}, 64};
  CHECK(said(stored_rotary(m.table, none), 1) ==
        "attention: the number of positions stored with a head's keys is 0, expected one for each key");
}

}  // namespace
}  // namespace tern::test

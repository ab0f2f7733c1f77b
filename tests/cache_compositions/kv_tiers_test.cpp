// SPDX-License-Identifier: Apache-2.0
// Two caches for one text: attention over both is that over the tokens they hold, and tokens go from one to the other in whole pages.
#include "layer.hpp"

#include <tern/cache/kv_tiers.hpp>

namespace tern::test {
namespace {

constexpr index heads = 4, kv_heads = 2, dim = 32;
using tiers = kv_tiers<kv_cache<formats::keys2, formats::values2>, kv_cache<f16>>;

/// All that the tiers hold of a head, oldest first.
rows keys_held(tiers const& t, std::int32_t s, index h) {
  rows all = keys_of(t.old, s, h);
  for (row const& x : keys_of(t.recent, s, h)) all.push_back(x);
  return all;
}
rows values_held(tiers const& t, std::int32_t s, index h) {
  rows all = values_of(t.old, s, h);
  for (row const& x : values_of(t.recent, s, h)) all.push_back(x);
  return all;
}

void append(tiers& t, rng& r, std::int32_t s, index tokens) {
  head_rows k(r, kv_heads, tokens, dim), v(r, kv_heads, tokens, dim);
  for (index layer = 0; layer < t.old.shape().layers; ++layer) t.append(three_threads(), s, layer, k.view(), v.view());
}

void check_attention(tiers const& t, rng& r, std::int32_t s, index tokens) {
  head_rows q(r, heads, tokens, dim), out(heads, tokens, dim);
  t.attend(three_threads(), s, 0, q.view(), out.view());
  for (index g = 0; g < heads; ++g) {
    rows const k = keys_held(t, s, g / 2), v = values_held(t, s, g / 2);
    auto const before = static_cast<index>(k.size()) - tokens;
    for (index i = 0; i < tokens; ++i) {
      row const w = softmax_row(q.of(g, i), k, 1 / std::sqrt(static_cast<double>(dim)), [&](index j) { return j <= before + i; });
      row want(static_cast<std::size_t>(dim));
      double most = 0;
      for (std::size_t j = 0; j < w.size(); ++j)
        for (std::size_t d = 0; d < want.size(); ++d) {
          want[d] += w[j] * v[j][d];
          most = std::max(most, std::abs(v[j][d]));
        }
      row const got = out.of(g, i);
      // Products of integers (attention/two_bit_kernels.hpp): scores off by a few hundredths, weights by half of 1 / 255.
      for (std::size_t d = 0; d < want.size(); ++d)
        if (!(std::abs(got[d] - want[d]) <= 0.06 * most)) FAIL_CHECK("head " << g << " query " << i << ": " << got[d] << ", " << want[d]);
    }
  }
}

TEST_CASE("kv_tiers: attention is that over both, and the latest tokens are unrounded") {
  rng r(1);
  tiers t({.layers = 2, .kv_heads = kv_heads, .dim = dim}, 64);
  auto const s = t.open();
  index length = 0;
  for (index tokens : {1, 50, 3, 120, 1, 1, 200, 7}) {
    append(t, r, s, tokens);
    length += tokens;
    CAPTURE(length);
    CHECK(t.length(s, 0) == length);
    CHECK(t.old.length(s, 0) % 64 == 0);
    CHECK(t.recent.length(s, 0) >= std::min<index>(length, 64));
    CHECK(t.recent.length(s, 0) - tokens < 64 + 64);
    for (index h = 0; h < kv_heads; ++h) {
      if (t.old.length(s, 1, h) > 0) CHECK(t.old.positions(s, 1, h)[t.old.length(s, 1, h) - 1] == t.old.length(s, 1, h) - 1);
      CHECK(t.recent.positions(s, 1, h)[0] == t.old.length(s, 1, h));
    }
    check_attention(t, r, s, std::min<index>(tokens, 20));
  }
}

TEST_CASE("kv_tiers: a fork goes its own way, and truncation reaches into compressed pages") {
  rng r(2);
  tiers t({.layers = 1, .kv_heads = kv_heads, .dim = dim}, 64);
  auto const s = t.open();
  append(t, r, s, 300);
  append(t, r, s, 1);  // settles
  index const old = t.old.length(s, 0);
  CHECK(old == 192);
  rows const before = keys_held(t, s, 1);
  auto const draft = t.fork(s);
  t.truncate(cpu, draft, 150);
  CHECK(t.length(draft, 0) == 150);
  CHECK(t.old.length(draft, 0) == 128);
  rows const left = keys_held(t, draft, 1);
  for (std::size_t j = 0; j < left.size(); ++j) {
    double off = 0;
    for (std::size_t d = 0; d < left[j].size(); ++d) off = std::max(off, std::abs(left[j][d] - before[j][d]));
    CHECK(off <= (j < 128 ? 0 : 0x1p-9));  // those that came back were rounded to f16
  }
  append(t, r, draft, 200);
  check_attention(t, r, draft, 10);
  CHECK(keys_held(t, s, 1) == before);
  t.close(draft);
  t.close(s);
  CHECK(t.bytes() == 0);
}

}  // namespace
}  // namespace tern::test

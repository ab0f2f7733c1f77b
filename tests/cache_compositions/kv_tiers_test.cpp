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

/// A text of 301 tokens, of which 192 have moved to `old`.
std::int32_t filled(tiers& t, rng& r) {
  auto const s = t.open();
  append(t, r, s, 300);
  append(t, r, s, 1);  // settles
  return s;
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
  auto const s = filled(t, r);
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

/// Places of a head, ascending: of the first `old` every `step`th from `first` on, then `recent` of those behind them.
std::vector<std::int32_t> some_places(index old, index first, index step, index recent, index length) {
  std::vector<std::int32_t> list;
  for (index j = first; j < old; j += step) list.push_back(static_cast<std::int32_t>(j));
  for (index j = length - recent; j < length; ++j) list.push_back(static_cast<std::int32_t>(j));
  return list;
}

rows listed(rows const& all, std::vector<std::int32_t> const& list) {
  rows some;
  for (std::int32_t j : list) some.push_back(all[static_cast<std::size_t>(j)]);
  return some;
}

TEST_CASE("kv_tiers: keep takes places through both caches, each head its own") {
  rng r(3);
  tiers t({.layers = 2, .kv_heads = kv_heads, .dim = dim}, 64);
  auto const s = filled(t, r);
  REQUIRE(t.old.length(s, 0) == 192);
  auto const other = t.fork(s);
  rows const keys[] = {keys_held(t, s, 0), keys_held(t, s, 1)}, values[] = {values_held(t, s, 0), values_held(t, s, 1)};
  std::vector<std::vector<std::int32_t>> const places = {some_places(192, 1, 3, 109, 301), some_places(192, 128, 1, 109, 301)};
  REQUIRE(places[0].size() == 173);
  lists_of lists(places);
  t.keep(three_threads(), s, 0, lists());
  for (index h = 0; h < kv_heads; ++h) {
    auto const at = static_cast<std::size_t>(h);
    CHECK(t.old.length(s, 0, h) == 64);
    CHECK(t.recent.length(s, 0, h) == 109);
    CHECK(t.length(s, 1, h) == 301);
    CHECK(values_held(t, s, h) == listed(values[at], places[at]));
    rows const now = keys_held(t, s, h), before = listed(keys[at], places[at]);
    for (std::size_t j = 0; j < now.size(); ++j) {
      // A page of keys in 2 bits is rounded anew: by half a step, a third of what an element ranges over (at most 8 in all pages).
      double const most = j < 64 ? 8. / 6 : 0;
      for (std::size_t d = 0; d < now[j].size(); ++d) REQUIRE(std::abs(now[j][d] - before[j][d]) <= most);
      auto const position =
          j < 64 ? t.old.positions(s, 0, h)[static_cast<index>(j)] : t.recent.positions(s, 0, h)[static_cast<index>(j) - 64];
      REQUIRE(position == places[at][j]);
    }
    CHECK(keys_held(t, other, h) == keys[at]);
  }
  check_attention(t, r, s, 5);
  append(t, r, s, 100);
  CHECK(t.old.length(s, 0) == 64);  // 45 of 109 are behind the latest 64
  append(t, r, s, 1);
  CHECK(t.old.length(s, 0) == 192);
  CHECK(t.length(s, 0) == 274);
  check_attention(t, r, s, 5);
  CHECK(message_of([&] { t.truncate(cpu, s, 140); }) ==
        "kv_tiers::truncate: the tokens that a head of old has left is 12, expected those of the first head = 47");
  CHECK(t.length(s, 0) == 274);
  CHECK(t.length(s, 1) == 402);
  CHECK(t.next_position(s) == 402);
}

TEST_CASE("kv_tiers: heads that hold other positions are truncated by theirs") {
  rng r(6);
  tiers t({.layers = 1, .kv_heads = kv_heads, .dim = dim}, 64);
  auto const s = filled(t, r);
  std::vector<std::vector<std::int32_t>> places(2);
  for (std::int32_t i = 0; i < 192; ++i) {
    if (i < 64 || i >= 128) places[0].push_back(i);
    if (i < 64 || (i >= 96 && i < 128) || i >= 160) places[1].push_back(i);
  }
  lists_of lists(places);
  t.keep(cpu, s, 0, lists());
  rows const keys[] = {keys_held(t, s, 0), keys_held(t, s, 1)}, values[] = {values_held(t, s, 0), values_held(t, s, 1)};
  t.truncate(cpu, s, 160);
  for (index h = 0; h < kv_heads; ++h) {
    auto const at = static_cast<std::size_t>(h);
    REQUIRE(t.old.length(s, 0, h) == 64);
    REQUIRE(t.recent.length(s, 0, h) == 32);
    for (index i = 0; i < 32; ++i) CHECK(t.recent.positions(s, 0, h)[i] == places[at][static_cast<std::size_t>(64 + i)]);
    auto same = [](rows const& have, rows const& want) {  // but for f16's rounding of what moved back
      REQUIRE(have.size() == 96);
      for (std::size_t j = 0; j < 96; ++j)
        for (std::size_t d = 0; d < have[j].size(); ++d)
          REQUIRE(std::abs(have[j][d] - want[j][d]) <= (j < 64 ? 0 : 0x1p-11 * std::abs(want[j][d])));
    };
    same(keys_held(t, s, h), keys[at]);
    same(values_held(t, s, h), values[at]);
  }
  append(t, r, s, 100);
  append(t, r, s, 1);
  CHECK(t.old.length(s, 0) == 128);
  check_attention(t, r, s, 5);
}

TEST_CASE("kv_tiers: keep of a full list changes nothing, of an empty one leaves nothing; rows may be ragged in old") {
  rng r(4);
  kv_tiers<kv_cache<formats::q8_0>, kv_cache<f16>> t({.layers = 1, .kv_heads = kv_heads, .dim = dim}, 64);
  auto const s = t.open();
  head_rows k(r, kv_heads, 200, dim), v(r, kv_heads, 200, dim);
  t.append(cpu, s, 0, k.view(), v.view());
  t.append(cpu, s, 0, k.view(), v.view());
  REQUIRE(t.old.length(s, 0) == 128);
  rows const old[] = {keys_of(t.old, s, 0), keys_of(t.old, s, 1)}, recent = keys_of(t.recent, s, 1);
  auto const all = some_places(128, 0, 1, 272, 400);
  lists_of everything({all, all});
  t.keep(cpu, s, 0, everything());
  CHECK(t.length(s, 0) == 400);
  CHECK(keys_of(t.old, s, 1) == old[1]);
  CHECK(keys_of(t.recent, s, 1) == recent);
  std::vector<std::vector<std::int32_t>> const places = {some_places(128, 0, 2, 3, 400), some_places(128, 127, 1, 3, 400)};
  lists_of ragged(places);
  t.keep(cpu, s, 0, ragged());
  CHECK(keys_of(t.old, s, 0) == listed(old[0], {places[0].begin(), places[0].end() - 3}));
  CHECK(keys_of(t.old, s, 1) == rows{old[1][127]});
  CHECK(keys_of(t.recent, s, 1) == rows(recent.end() - 3, recent.end()));
  lists_of nothing(std::vector<std::vector<std::int32_t>>(2));
  t.keep(cpu, s, 0, nothing());
  CHECK(t.length(s, 0) == 0);
  CHECK(t.bytes() == 0);
}

TEST_CASE("kv_tiers: what keep refuses") {
  rng r(5);
  tiers t({.layers = 1, .kv_heads = kv_heads, .dim = dim}, 64);
  auto const s = filled(t, r);
  rows const before = keys_held(t, s, 1);
  auto said = [&](std::vector<std::int32_t> const& a, std::vector<std::int32_t> const& b, index layer = 0) {
    lists_of lists({a, b});
    return message_of([&] { t.keep(cpu, s, layer, lists()); });
  };
  auto const all = some_places(192, 0, 1, 109, 301), third = some_places(192, 0, 3, 109, 301), half = some_places(192, 0, 2, 109, 301);
  std::string const op = "kv_tiers::keep: ", of_old = op + "the listed tokens of old of a head", first = "those of the first head";
  CHECK(said(third, all) == of_old + " is 192, expected " + first + " = 64");
  CHECK(said(half, half) == of_old + " is 96, expected a multiple of 64, which these keys are written in");
  CHECK(said(third, some_places(192, 0, 3, 108, 301)) == op + "the listed tokens of recent of a head is 108, expected " + first + " = 109");
  CHECK(said(third, {5, 4}) == op + "an index of lists is 4, expected more than the one before it, 5");
  CHECK(said({301}, third) == op + "an index of lists is 301, expected at least 0 and less than 301");
  CHECK(said(all, all, 1) == "kv_cache::longest: the layer is 1, expected less than layers = 1");
  lists_of three({all, all, all});
  CHECK(message_of([&] { t.keep(cpu, s, 0, three()); }) ==
        op + "the rows of a list of indices is 3, expected the rows that are needed = 2");
  CHECK(keys_held(t, s, 1) == before);
  t.close(s);
  CHECK(said(all, all) == "kv_cache::longest: the sequence is 0, expected one that is open");
}

}  // namespace
}  // namespace tern::test

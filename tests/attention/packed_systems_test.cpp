// SPDX-License-Identifier: Apache-2.0
// Published systems of packed texts, each against its paper's formula: AnchorAttention, FLAME, ByteTransformer, Prepacking, LongLoRA.
#include "by_definition.hpp"

#include <tern/attention/systems/anchor_attention.hpp>
#include <tern/attention/systems/byte_transformer.hpp>
#include <tern/attention/systems/flame.hpp>
#include <tern/attention/systems/longlora.hpp>
#include <tern/attention/systems/prepacking.hpp>
#include <tern/pointwise/convert.hpp>
#include <tern/pointwise/embedding.hpp>
#include <tern/pointwise/rope.hpp>

#include <numeric>

namespace tern::test {
namespace {

auto at(auto const& list, index i) { return list[static_cast<std::size_t>(i)]; }

TEST_CASE("anchor_attention: documents see themselves and the first token") {
  rng r(301);
  for (auto [heads, tokens, keys] : {std::array<index, 3>{4, 333, 333}, {8, 1, 200}, {2, 5, 5}, {4, 70, 301}}) {
    std::vector<std::int32_t> doc;
    for (index j = 0; j < keys; ++j) doc.push_back(j == 0 ? 0 : doc.back() + (r.integer(0, 30) == 0));
    call<float> c(r, {heads, 2, tokens, keys, 32, 16, 1});
    index const before = keys - tokens;
    c(cpu.on(several_threads()), anchor_attention(std::span(doc).subspan(static_cast<std::size_t>(before)), doc));
    c.check(where(c, [&](index, index i, index j) { return j <= i + before && (at(doc, i + before) == at(doc, j) || j == 0); }));
  }
  // Documents of each batch: heads as a batch of two.
  std::vector<std::int32_t> ids;
  for (index b = 0; b < 2; ++b)
    for (index j = 0; j < 60; ++j) ids.push_back(static_cast<std::int32_t>(j / (b == 0 ? 7 : 45)));
  call<float> two(r, {2, 2, 60, 60, 16, 16, 1});
  auto apart = [](auto const& x) {
    auto const s = x.view;
    return tensor_view(s.data(), shape<4>{{2, 1, s.extent(1), s.extent(2)}}, shape<4>{{s.stride(0), 0, s.stride(1), 1}});
  };
  tensor_view<float, 3> const lse(two.lse.data(), shape<3>{{2, 1, 60}}, shape<3>{{two.lse.stride(0), 0, two.lse.stride(1)}});
  attention(cpu, apart(two.q), apart(two.k), apart(two.v), apart(two.out), log_sum_exp{lse}, anchor_attention(view(ids.data(), 2, 60)));
  two.check(where(two, [&](index b, index i, index j) { return j <= i && (at(ids, 60 * b + i) == at(ids, 60 * b + j) || j == 0); }));
  // One document is causal.
  call<float> c(r, {2, 1, 150, 150, 16, 16, 1});
  std::vector<std::int32_t> const one(150, 7);
  c(cpu, anchor_attention(one, one));
  auto const anchored = c.results();
  c(cpu, causal{});
  CHECK(same_bits(c.results(), anchored));
}

TEST_CASE("anchor_attention: rotations in f32 keep the relative position, rotations rounded to bf16 do not") {
  rng r(302);
  index const dim = 64;
  std::vector<float> const q = r.normal<float>(dim), k = r.normal<float>(dim);
  std::vector<float> a(64), b(64);
  double worst = 0, worst_rounded = 0, first = 0, q_square = 0, k_square = 0;
  for (index d = 0; d < dim; ++d) {
    q_square += static_cast<double>(at(q, d)) * static_cast<double>(at(q, d));
    k_square += static_cast<double>(at(k, d)) * static_cast<double>(at(k, d));
  }
  for (index shift : {0, 1, 100, 4097, 30000, 131000}) {
    rope(cpu, view(q.data(), 1, dim), view(a.data(), 1, dim), shift + 17);
    rope(cpu, view(k.data(), 1, dim), view(b.data(), 1, dim), shift);
    double score = 0, rounded = 0;
    for (index d = 0; d < dim; ++d) {
      auto const in_bf16 = [](float x) { return static_cast<double>(static_cast<float>(static_cast<bf16>(x))); };
      score += static_cast<double>(at(a, d)) * static_cast<double>(at(b, d));
      rounded += in_bf16(at(a, d)) * in_bf16(at(b, d));
    }
    if (shift == 0) first = score;
    worst = std::max(worst, std::abs(score - first));
    worst_rounded = std::max(worst_rounded, std::abs(rounded - first));
  }
  // Elements of a turned pair are off by e (|x_a| + |x_b|) <= e sqrt(2) |pair|, in q and in k, at both shifts.
  CHECK(worst <= 8 * (rope.error + rope_table.error(131017)) * std::sqrt(q_square * k_square));
  CHECK(worst_rounded > 10 * worst);
}

TEST_CASE("flame: facets share the caption and nothing else") {
  rng r(303);
  for (auto [prefix, facet, count] : {std::array<index, 3>{150, 9, 5}, {3, 1, 4}, {0, 40, 4}}) {
    std::vector<std::int32_t> ids(static_cast<std::size_t>(prefix), -1);
    for (index f = 0; f < count; ++f) ids.insert(ids.end(), static_cast<std::size_t>(facet), static_cast<std::int32_t>(f));
    call<float> c(r, {4, 2, std::ssize(ids), std::ssize(ids), 16, 16, 1});
    c(cpu, facet_decoupled(ids, prefix));
    c.check(
        where(c, [n = prefix, m = facet](index, index i, index j) { return j <= i && (j < n || (i >= n && (i - n) / m == (j - n) / m)); }));
  }
}

TEST_CASE("byte_transformer: attention on packed rows is attention on padded ones without the padding") {
  rng r(304);
  index const heads = 4, length = 70, dim = 16, n = heads * dim;
  std::vector<std::int32_t> const lengths{70, 0, 3, 51, 1, 0};
  index const batch = std::ssize(lengths), rows_padded = batch * length;
  std::vector<unsigned char> mask(static_cast<std::size_t>(rows_padded));
  for (index b = 0; b < batch; ++b)
    for (index t = 0; t < at(lengths, b); ++t) mask[static_cast<std::size_t>(b * length + t)] = 1;
  std::vector<std::int32_t> cu(7), rows(125), cu_m(7), rows_m(125);
  index const tokens = unpad_index(lengths, length, cu, rows);
  REQUIRE(tokens == 125);
  CHECK(cu == std::vector<std::int32_t>{0, 70, 70, 73, 124, 125, 125});
  CHECK(unpad_index(view(mask.data(), batch, length), cu_m, rows_m) == 125);
  CHECK((cu_m == cu && rows_m == rows));
  CHECK(message_of([&] { unpad_index(lengths, length, cu, std::span(rows).first(124)); }) ==
        "unpad_index: the extent of rows is 124, expected room for each token");
  CHECK(message_of([&] { unpad_index(lengths, 69, cu, rows); }) == "unpad_index: a length is 70, expected at most the padded length");

  std::vector<float> padded[3], packed[3];
  for (int x = 0; x < 3; ++x) {
    padded[x] = r.normal<float>(rows_padded * n);
    packed[x].resize(static_cast<std::size_t>(tokens * n));
    embedding(cpu, rows, view(padded[x].data(), rows_padded, n), view(packed[x].data(), tokens, n));
  }
  std::vector<float> result(static_cast<std::size_t>(tokens * n)), unpacked(static_cast<std::size_t>(rows_padded * n), poison<float>());
  auto split = [&](std::vector<float>& x) {
    return tensor_view<float, 3>(x.data(), shape<3>{{heads, tokens, dim}}, shape<3>{{dim, n, 1}});
  };
  attention(cpu, split(packed[0]), split(packed[1]), split(packed[2]), split(result), varlen(cu));
  repad(cpu, view(result.data(), tokens, n), rows, view(unpacked.data(), rows_padded, n));

  // Each padded sequence by the definition: softmax over the keys that the mask has.
  for (index b = 0; b < batch; ++b) {
    call<float> c(r, {heads, heads, length, length, dim, dim, 1});
    for (index h = 0; h < heads; ++h)
      for (index t = 0; t < length; ++t)
        for (index d = 0; d < dim; ++d) {
          index const from = (b * length + t) * n + h * dim + d;
          c.q.view(h, t, d) = at(padded[0], from);
          c.k.view(h, t, d) = at(padded[1], from);
          c.v.view(h, t, d) = at(padded[2], from);
          c.out.view(h, t, d) = at(unpacked, from);
        }
    auto want = where(c, [&](index, index i, index j) { return i < at(lengths, b) && j < at(lengths, b); });
    for (index h = 0, row = 0; h < heads; ++h)
      for (index t = 0; t < length; ++t, ++row) c.lse(h, t) = static_cast<float>(at(want.lse, row));
    c.check(want);
  }
}

TEST_CASE("prepacking: first-fit decreasing, restarted positions, and each prompt as if alone") {
  std::vector<std::int32_t> const lengths{30, 100, 45, 0, 70, 55, 30, 100, 1};
  index const prompts = std::ssize(lengths);
  std::vector<std::int32_t> memory(static_cast<std::size_t>(prepacking::room(prompts)));
  prepacking const plan(lengths, 100, memory);
  // By hand: 100 | 100 | 70 30 | 55 45 | 30 1, and the empty one in the first.
  std::vector<index> order, bins;
  for (index s = 0; s < prompts; ++s) order.push_back(plan.prompt(s));
  for (index b = 0; b <= plan.bins(); ++b) bins.push_back(plan.bin(b));
  CHECK(order == std::vector<index>{1, 3, 7, 4, 0, 5, 2, 6, 8});
  CHECK(bins == std::vector<index>{0, 2, 3, 5, 7, 9});
  REQUIRE(plan.tokens() == 431);
  std::vector<std::int32_t> positions(431);
  plan.fill_positions(positions);

  rng r(305);
  index const heads = 4, kv_heads = 2, dim = 16;
  call<float> c(r, {heads, kv_heads, plan.tokens(), plan.tokens(), dim, dim, 1});
  c(cpu, plan.layout(), causal{});
  // Who a token belongs to, and where it stands there, from the lengths in packed order.
  std::vector<index> owner, place;
  for (index p : order)
    for (index t = 0; t < at(lengths, p); ++t) owner.push_back(p), place.push_back(t);
  for (index t = 0; t < 431; ++t) REQUIRE(at(positions, t) == at(place, t));
  c.check(where(c, [&](index, index i, index j) { return at(owner, i) == at(owner, j) && at(place, j) <= at(place, i); }));
  auto const whole = c.out.values();

  // A bin by itself, and a prompt whose keys are handed out, give the same.
  for (index b = 0; b < plan.bins(); ++b) {
    index const from = plan.cu()[plan.bin(b)], to = plan.cu()[plan.bin(b + 1)];
    attention(cpu, c.q.view.slice(1, from, to), c.k.view.slice(1, from, to), c.v.view.slice(1, from, to), c.out.view.slice(1, from, to),
              log_sum_exp{c.lse.slice(1, from, to)}, plan.layout(b), causal{});
  }
  CHECK(same_bits(c.out.values(), whole));
  for (index p = 0; p < prompts; ++p) {
    index const from = plan.offset(p), n = plan.length(p);
    cache<float> own(kv_heads, n, dim);
    convert(cpu, c.k.view.slice(1, from, from + n), own.view);
    attention(cpu, c.q.view.slice(1, from, from + n), own.view, c.v.view.slice(1, from, from + n), c.out.view.slice(1, from, from + n),
              causal{});
  }
  CHECK(same_bits(c.out.values(), whole));

  // Bins hold what they may, and all prompts stand somewhere, for lengths at random.
  for (int trial = 0; trial < 30; ++trial) {
    std::vector<std::int32_t> some(static_cast<std::size_t>(r.integer(0, 60)));
    for (auto& n : some) n = static_cast<std::int32_t>(r.integer(0, 50));
    std::vector<std::int32_t> room(static_cast<std::size_t>(prepacking::room(std::ssize(some))));
    prepacking const random(some, 50, room);
    std::vector<bool> seen(some.size());
    index sum = 0;
    for (index b = 0; b < random.bins(); ++b) {
      index full = 0;
      for (index s = random.bin(b); s < random.bin(b + 1); ++s) {
        index const p = random.prompt(s);
        REQUIRE(!at(seen, p));
        seen[static_cast<std::size_t>(p)] = true;
        REQUIRE(random.offset(p) == sum);
        full += at(some, p);
        sum += at(some, p);
      }
      REQUIRE(full <= 50);
    }
    REQUIRE(random.tokens() == sum);
    REQUIRE(sum == std::accumulate(some.begin(), some.end(), index{0}));
    REQUIRE(random.bins() <= 2 * (sum + 49) / 50 + 1);
  }
  CHECK(message_of([&] { prepacking(lengths, 99, memory); }) == "prepacking: the length of a prompt is 100, expected at most the capacity");
}

TEST_CASE("longlora: groups, which half of the heads shift by half") {
  rng r(306);
  for (auto [heads, tokens, group] : {std::array<index, 3>{4, 320, 64}, {2, 96, 96}, {6, 100, 7}, {4, 6, 2}, {2, 5, 300}}) {
    call<float> c(r, {heads, 2, tokens, tokens, 16, 16, 1});
    c(cpu, longlora{group}, causal{});
    c.check(where(c, [&, n = group, half = heads / 2](index h, index i, index j) {
      index const s = h >= half ? n - n / 2 : 0;  // (i + s) / n counts groups whose boundaries stand at n / 2, 3 n / 2, ...
      return j <= i && (i + s) / n == (j + s) / n;
    }));
  }
  // Rolled: the text turned by half a group, attended to in groups, and turned back.
  for (auto [heads, tokens, group] : {std::array<index, 3>{4, 320, 64}, {2, 12, 4}}) {
    call<float> c(r, {heads, 2, tokens, tokens, 16, 16, 1});
    c(cpu, longlora{group, true}, causal{});
    c.check(where(c, [&, n = group, half = heads / 2, all = tokens](index h, index i, index j) {
      index const s = h >= half ? n / 2 : 0;
      index const a = (i - s + all) % all, b = (j - s + all) % all;  // where they stand in the rolled text
      return b <= a && a / n == b / n;
    }));
  }
}

}  // namespace
}  // namespace tern::test

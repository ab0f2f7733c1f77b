// SPDX-License-Identifier: Apache-2.0
// The same bits whatever the number of threads, and whatever stands beside a sequence: in a batch, in a packed layout, in pages.
// Groups that count by token, layouts and masks that differ from head to head.
#include "stored.hpp"

namespace tern::test {
namespace {

struct sequence {
  index queries, keys;
};

/// Sequences side by side, some of them, in any order.
struct side_by_side {
  static constexpr bool per_head = false;
  sequence const* all;
  std::int32_t const* order;
  index count;
  struct one {
    static constexpr bool local = true;
    index queries, keys, first_query, first_key;
    index query(index i) const { return first_query + i; }
    index key(index j) const { return first_key + j; }
  };
  index groups(index, index) const { return count; }
  one group(index, index, index g) const {
    one at{all[order[g]].queries, all[order[g]].keys, 0, 0};
    for (index n = 0; n < order[g]; ++n) at.first_query += all[n].queries, at.first_key += all[n].keys;
    return at;
  }
};

TEST_CASE("attention: a sequence alone, beside others and in another order, has the same bits") {
  rng r(31);
  sequence const all[] = {{2, 50}, {40, 150}, {0, 3}, {1, 1300}, {90, 90}, {3, 1}, {4, 513}, {21, 2100}};
  index tokens = 0, keys = 0;
  for (sequence const& s : all) tokens += s.queries, keys += s.keys;
  call<f16, f16, f16, float> c(r, {4, 2, tokens, keys, 40, 33, 1});
  std::vector<float> const z = {0.5f, 1, 2, -1};
  auto run = [&](cpu_policy const& policy, std::vector<std::int32_t> const& order) {
    c(policy, side_by_side{all, order.data(), static_cast<index>(order.size())}, causal{}, sinks{z},
      [](floats s, score_at const& at) { return s - floats(0x1p-5f) * at.distance(); });
  };
  run(cpu.on(serial), {0, 1, 2, 3, 4, 5, 6, 7});
  auto const together = c.results();
  run(cpu.on(several_threads()), {6, 4, 2, 7, 0, 1, 3, 5});
  CHECK(same_bits(c.results(), together));
  detail::each(c.out.view, [](float& x) { x = 7; });
  detail::each(c.lse, [](float& x) { x = 7; });
  for (std::int32_t n = 7; n >= 0; --n) run(n % 2 == 0 ? cpu : cpu.on(several_threads()), {n});
  CHECK(same_bits(c.results(), together));

  oracle::attention_spec spec{4, 2, tokens, keys, 40, 33, 1 / std::sqrt(40.0)};
  auto const place = [&](index i, bool key) {  // the sequence, and where in it
    index n = 0;
    for (; i >= (key ? all[n].keys : all[n].queries); ++n) i -= key ? all[n].keys : all[n].queries;
    return std::pair(n, i);
  };
  auto const distance = [&](index i, index j) {
    auto const [a, x] = place(i, false);
    auto const [b, y] = place(j, true);
    return a == b ? x + all[a].keys - all[a].queries - y : -1;
  };
  spec.visible = [&](index i, index j) { return distance(i, j) >= 0; };
  spec.distance = [&](index, index, index i, index j) { return static_cast<double>(distance(i, j)); };
  spec.modify = [](double s, index, index, index, index, double d) { return s - d / 32; };
  spec.sinks = widened(z);
  c.check(oracle::attention(c.q.values(), c.k.values(), c.v.values(), spec));
}

struct half_of_odd {
  void query(float*, index, row_at const&) const {}
  void key(float* row, index dim, row_at const& at) const {
    for (index d = 0; d < dim; ++d) row[d] *= at.position % 2 == 0 ? 1.f : 0.5f;
  }
};

TEST_CASE("attention: a sequence of a batch in pages, and alone with the keys it has") {
  for (index tokens : {index{2}, index{40}}) {
    rng r(32);
    std::vector<std::int32_t> const lengths = {1090, 530, 7}, all(3, static_cast<std::int32_t>(tokens));
    in_pages const k(r, {3, 2, 1092, 32}, lengths), v(r, {3, 2, 1092, 24}, lengths);
    strided<float> const q(r, {3, 4, tokens, 32}, all);
    auto const n = static_cast<std::size_t>(3 * 4 * tokens * 24);
    std::vector<float> together(n), threads(n), alone(n);
    auto out = [&](std::vector<float>& x) { return view(x.data(), 3, 4, tokens, 24); };
    attention(cpu.on(serial), q.view, k(), v(), out(together), half_of_odd{}, softcap{4});
    attention(cpu.on(several_threads()), q.view, k(), v(), out(threads), half_of_odd{}, softcap{4});
    for (index b = 0; b < 3; ++b) {
      auto sequence = [&](in_pages const& x) {
        auto const whole = x();
        // Fewer pages in the table, as many as this sequence has.
        return paged(whole.pool, whole.table.slice(0, b, b + 1).slice(1, 0, (lengths[static_cast<std::size_t>(b)] + 6) / 7),
                     view(lengths.data() + b, 1));
      };
      attention(cpu, q.view.slice(0, b, b + 1), sequence(k), sequence(v), out(alone).slice(0, b, b + 1), half_of_odd{}, softcap{4});
    }
    CHECK(std::memcmp(together.data(), threads.data(), n * sizeof(float)) == 0);
    CHECK(std::memcmp(together.data(), alone.data(), n * sizeof(float)) == 0);
  }
}

/// Every (head + 2)-th token and key make a group, which counts by token and key index.
struct interleaved {
  static constexpr bool per_head = true;
  index tokens, keys;
  struct one {
    static constexpr bool local = false;
    index queries, keys, step, first;
    index query(index i) const { return first + i * step; }
    index key(index j) const { return first + j * step; }
  };
  index groups(index, index head) const { return head + 2; }
  one group(index, index head, index g) const {
    index const step = head + 2;
    return {(tokens - g + step - 1) / step, (keys - g + step - 1) / step, step, g};
  }
};

TEST_CASE("attention: groups that differ by head and count by token, under causal and window") {
  for (index tokens : {index{8}, index{50}})
    for (index keys : {index{60}, index{1400}}) {
      rng r(33);
      call<float> c(r, {4, 2, tokens, keys, 16, 24, 1});
      c(cpu.on(several_threads()), interleaved{tokens, keys}, causal{}, window{700, 1},
        [](floats s, score_at const& at) { return s - floats(0x1p-7f) * at.distance() + floats(static_cast<float>(at.position % 3)); });
      oracle::attention_spec spec{4, 2, tokens, keys, 16, 24, 0.25};
      index const offset = keys - tokens;
      spec.sees = [=](index, index h, index i, index j) { return i % (h + 2) == j % (h + 2) && j <= i + offset && j > i + offset - 700; };
      spec.distance = [=](index, index, index i, index j) { return static_cast<double>(i + offset - j); };
      spec.modify = [=](double s, index, index, index i, index, double d) { return s - d / 128 + static_cast<double>((i + offset) % 3); };
      c.check(oracle::attention(c.q.values(), c.k.values(), c.v.values(), spec));
    }
}

/// Every key that a head's number divides.
struct multiples {
  index of;
  key_range range(index, index) const { return {0, 1 << 20}; }
  coverage covers(index, index, index, index) const { return of == 1 ? coverage::all : coverage::some; }
  bool visible(index, index j) const { return j % of == 0; }
};
struct multiples_by_head {
  multiples at(index batch, index head) const { return {batch + head + 1}; }
};

TEST_CASE("attention: masks that differ by head, with others on either side") {
  for (index tokens : {index{3}, index{50}}) {
    rng r(34);
    call<float> c(r, {4, 2, tokens, 600, 16, 24, 1});
    oracle::attention_spec spec{4, 2, tokens, 600, 16, 24, 0.25};
    spec.sees = [=](index, index h, index i, index j) { return j % (h + 1) == 0 && j <= i + 580 && j > i + 580 - 300 && j % 7 == 0; };
    std::vector<float> sums(static_cast<std::size_t>(4 * tokens));
    attention(cpu, c.q.view, c.k.view, c.v.view, c.out.view, window{300, 0, 580}, multiples_by_head{}, multiples{7}, causal{}, relu{},
              weight_sum{view(sums.data(), 4, tokens)});
    spec.weight = [](double s) { return s > 0 ? s : 0; };
    spec.steepness = [](double) { return 1.0; };
    auto want = oracle::attention(c.q.values(), c.k.values(), c.v.values(), spec);
    for (std::size_t row = 0; row < want.growth.size(); ++row) {
      double const allowed =
          attention_accuracy::b0 + attention_accuracy::b1 * 4 * want.growth[row] + attention_accuracy::b2 * std::sqrt(600.0);
      for (std::size_t d = 0; d < 24; ++d) want.magnitude[row * 24 + d] *= allowed;
      want.weight_magnitude[row] *= allowed;
    }
    CHECK(compare(c.out.view, want.value, want.magnitude, 0x1p-24));
    CHECK(compare(sums, want.weight_sum, want.weight_magnitude, 0x1p-24));
  }
}

TEST_CASE("attention: more ranges than are kept side by side are worked on in turn, to the same bits") {
  rng r(36);
  index const batch = 520, heads = 8, tokens = 4, keys = 600, dim = 8, dim_v = 512;
  auto const qs = r.normal(batch * heads * tokens * dim), ks = r.normal(keys * dim), vs = r.normal(keys * dim_v);
  std::vector<float> together(static_cast<std::size_t>(batch * heads * tokens * dim_v)), alone(together.size() / batch);
  auto const run = [&](index first, index count, std::vector<float>& to) {
    tensor_view<float const, 4> const q(qs.data() + first * heads * tokens * dim, {count, heads, tokens, dim});
    tensor_view<float const, 4> const k(ks.data(), shape<4>{{count, 1, keys, dim}}, shape<4>{{0, 0, dim, 1}});
    tensor_view<float const, 4> const v(vs.data(), shape<4>{{count, 1, keys, dim_v}}, shape<4>{{0, 0, dim_v, 1}});
    auto const out = view(to.data(), count, heads, tokens, dim_v);
    CHECK(attention.workspace_size(cpu.on(serial), q, k, v, out, causal{}) < std::size_t{70} << 20);
    attention(cpu.on(several_threads()), q, k, v, out, causal{});
  };
  run(0, batch, together);
  for (index b : {0, 300, 519}) {
    run(b, 1, alone);
    CHECK(std::memcmp(alone.data(), together.data() + b * heads * tokens * dim_v, alone.size() * sizeof(float)) == 0);
  }
}

struct late_windows {
  window at(index, index head) const { return {40 + head, 0, 100 * head}; }
};

TEST_CASE("attention: masks that differ by head in where their queries stand") {
  for (index tokens : {index{3}, index{50}}) {
    rng r(35);
    call<float> c(r, {4, 2, tokens, 400, 16, 24, 1});
    oracle::attention_spec spec{4, 2, tokens, 400, 16, 24, 0.25};
    spec.sees = [](index, index h, index i, index j) { return j <= i + 100 * h && j > i + 99 * h - 40; };
    c(cpu, late_windows{});
    c.check(oracle::attention(c.q.values(), c.k.values(), c.v.values(), spec));
  }
}

}  // namespace
}  // namespace tern::test

// SPDX-License-Identifier: Apache-2.0
#include "allocations.hpp"
#include "call.hpp"
#include "message.hpp"

#include <string>

namespace tern::test {
namespace {

TEST_CASE("attention: dims around the lane count, tokens around the tile") {
  rng r(1);
  for (index dim : {index{1}, W - 1, W, W + 1, index{64}, index{80}, index{128}})
    for (index tokens : {index{1}, index{2}, tile - 1, tile, tile + 1, index{200}}) {
      call<float> plain(r, {2, 2, tokens, tokens + 3, dim, dim > 1 ? dim - 1 : 3, 1});
      plain(cpu.on(serial));
      plain.check(plain.want());
      plain(cpu, causal{});
      plain.check(plain.want([](index i, index j) { return j <= i + 3; }));
    }
}

TEST_CASE("attention: key counts around blocks and splits, large scores") {
  rng r(2);
  for (index tokens : {index{1}, index{40}})
    for (index keys : {index{1}, 2 * W - 1, 2 * W + 1, index{127}, index{129}, index{1025}, index{2048}, index{2500}}) {
      call<float> wide(r, {1, 1, tokens, keys, 32, 33, 8});
      wide(cpu.on(several_threads()));
      wide.check(wide.want());
    }
}

TEST_CASE("attention: grouped heads, and the same as heads repeated") {
  rng r(3);
  for (index group : {1, 2, 3, 4, 7, 9})
    for (index tokens : {1, 2, 3, 30}) {
      call<float> grouped(r, {2 * group, 2, tokens, 150, 24, 40, 1});
      grouped(cpu, causal{});
      index const offset = 150 - tokens;
      grouped.check(grouped.want([=](index i, index j) { return j <= i + offset; }));

      call<float> repeated(r, {2 * group, 2 * group, tokens, 150, 24, 40, 1});
      for (index h = 0; h < 2 * group; ++h)
        for (index j = 0; j < 150; ++j) {
          for (index d = 0; d < 24; ++d) repeated.k.view(h, j, d) = grouped.k.view(h / group, j, d);
          for (index d = 0; d < 40; ++d) repeated.v.view(h, j, d) = grouped.v.view(h / group, j, d);
        }
      for (index h = 0; h < 2 * group; ++h)
        for (index i = 0; i < tokens; ++i)
          for (index d = 0; d < 24; ++d) repeated.q.view(h, i, d) = grouped.q.view(h, i, d);
      repeated(cpu, causal{});
      repeated.check(grouped.want([=](index i, index j) { return j <= i + offset; }));
    }
}

template <class Q, class K, class V, class O>
void check_types(rng& r) {
  for (index tokens : {1, 3, 30})
    for (index dim : {index{5}, 2 * W, index{64}}) {
      call<Q, K, V, O> mixed(r, {6, 2, tokens, 140, dim, dim + 1, 1});
      mixed(cpu, causal{});
      mixed.check(mixed.want([=](index i, index j) { return j <= i + 140 - tokens; }));
    }
}
TEST_CASE("attention: element types, each for itself") {
  rng r(4);
  check_types<f16, f16, f16, f16>(r);
  check_types<bf16, bf16, bf16, bf16>(r);
  check_types<float, f16, bf16, float>(r);
}

/// Every third key, and never a key beyond 100: a mask that the library does not know.
struct thirds {
  key_range range(index, index) const { return {0, 101}; }
  coverage covers(index, index, index j0, index) const { return j0 > 100 ? coverage::none : coverage::some; }
  bool visible(index i, index j) const { return (i + j) % 3 == 0 && j <= 100; }
};

TEST_CASE("attention: masks, each with each") {
  rng r(5);
  for (index tokens : {index{1}, index{4}, index{70}})
    for (index keys : {index{1}, index{30}, index{71}, index{300}}) {
      call<float> c(r, {2, 1, tokens, keys, 20, 20, 1});
      index const end = keys - tokens;  // the position of query 0, aligned to the bottom right
      auto both = [](auto a, auto b) { return [=](index i, index j) { return a(i, j) && b(i, j); }; };
      auto upto = [](index offset) { return [=](index i, index j) { return j <= i + offset; }; };
      auto near = [](index n, index right, index offset) {
        return [=](index i, index j) { return j > i + offset - n && j <= i + offset + right; };
      };
      auto third = [](index i, index j) { return thirds{}.visible(i, j); };

      c(cpu, causal{});
      c.check(c.want(upto(end)));
      c(cpu, causal{3});
      c.check(c.want(upto(3)));
      c(cpu, causal{-2});
      c.check(c.want(upto(-2)));
      c(cpu, causal{keys + 5});
      c.check(c.want());
      c(cpu, window{5});
      c.check(c.want(near(5, 0, end)));
      c(cpu, window{2, 4});
      c.check(c.want(near(2, 4, end)));
      c(cpu, causal{} & window{64});
      c.check(c.want(near(64, 0, end)));
      c(cpu, window{7, 3}, causal{10});  // the window takes the offset that is stated
      c.check(c.want(near(7, 0, 10)));
      c(cpu, window{std::numeric_limits<index>::max(), std::numeric_limits<index>::max()});
      c.check(c.want());
      c(cpu, thirds{});
      c.check(c.want(third));
      c(cpu, thirds{} & causal{});
      c.check(c.want(both(third, upto(end))));
    }
}

TEST_CASE("attention: scale, softcap and masks in any order") {
  rng r(6);
  for (index tokens : {index{1}, index{33}}) {
    call<float> c(r, {3, 1, tokens, 145, 40, 24, 3});
    auto seen = [=](index i, index j) { return j <= i + 145 - tokens && j > i + 145 - tokens - 50; };
    c(cpu, scale{0.3f});
    c.check(c.want(nullptr, 0, static_cast<double>(0.3f)));
    c(cpu, softcap{2.f}, causal{}, window{50});
    c.check(c.want(seen, 2));
    c(cpu, causal{}, scale{-1.5f}, window{50}, softcap{5.f});
    c.check(c.want(seen, 5, -1.5));
  }
}

TEST_CASE("attention: one head, a batch, and other views of the same memory") {
  rng r(7);
  call<float> c(r, {4, 2, 9, 21, 16, 16, 1});
  c(cpu, causal{});
  auto const whole = c.results();
  // Heads as a batch of pairs: the same key head for each pair.
  auto batched = [](auto const& v, index per) {
    auto const s = v.view;
    return tensor_view(s.data(), shape<4>{{s.extent(0) / per, per, s.extent(1), s.extent(2)}},
                       shape<4>{{per * s.stride(0), s.stride(0), s.stride(1), 1}});
  };
  tensor_view<float, 3> const lse(c.lse.data(), shape<3>{{2, 2, 9}}, shape<3>{{2 * c.lse.stride(0), c.lse.stride(0), c.lse.stride(1)}});
  attention(cpu, batched(c.q, 2), batched(c.k, 1), batched(c.v, 1), batched(c.out, 2), log_sum_exp{lse}, causal{});
  CHECK(same_bits(c.results(), whole));
  for (index h = 0; h < 4; ++h)
    attention(cpu, c.q.view[h], c.k.view[h / 2], c.v.view[h / 2], c.out.view[h], causal{}, log_sum_exp{c.lse[h]});
  // Nine rows or eighteen: the tiles differ, the rows do not.
  CHECK(same_bits(c.results(), whole));
}

TEST_CASE("attention: the same bits whatever threads there are and whatever stands beside") {
  rng r(8);
  call<f16> prompt(r, {6, 2, 300, 300, 64, 64, 1});
  prompt(cpu.on(serial), causal{});
  auto const alone = prompt.results();
  prompt(cpu.on(several_threads()), causal{});
  CHECK(same_bits(prompt.results(), alone));
  // The prompt in two pieces, the second at its offset.
  for (index from : {index{0}, index{170}}) {
    index const to = from == 0 ? 170 : 300;
    attention(cpu, prompt.q.view.slice(1, from, to), prompt.k.view.slice(1, 0, to), prompt.v.view.slice(1, 0, to),
              prompt.out.view.slice(1, from, to), causal{}, log_sum_exp{prompt.lse.slice(1, from, to)});
  }
  CHECK(same_bits(prompt.results(), alone));

  call<f16> token(r, {6, 2, 1, 3000, 64, 64, 1});
  token(cpu.on(serial));
  auto const one = token.results();
  token(cpu.on(several_threads()));
  CHECK(same_bits(token.results(), one));
}

TEST_CASE("attention: the order of keys does not matter") {
  rng r(9);
  call<float> c(r, {1, 1, 20, 200, 32, 32, 1});
  auto const want = c.want();
  for (index j = 0; j < 100; ++j)
    for (index d = 0; d < 32; ++d) {
      std::swap(c.k.view(0, j, d), c.k.view(0, 199 - j, d));
      std::swap(c.v.view(0, j, d), c.v.view(0, 199 - j, d));
    }
  c(cpu);
  c.check(want);
}

TEST_CASE("attention: queries that see nothing, and no keys at all") {
  rng r(10);
  for (index tokens : {index{6}, index{60}}) {
    call<float> c(r, {2, 2, tokens, tokens - 4, 16, 16, 1});
    c(cpu, causal{});
    c.check(c.want([](index i, index j) { return j <= i - 4; }));
    CHECK(c.out.view(1, 3, 5) == 0.f);
    CHECK(c.lse(1, 3) == -std::numeric_limits<float>::infinity());
    attention(cpu, c.q.view, c.k.view.slice(1, 0, 0), c.v.view.slice(1, 0, 0), c.out.view, log_sum_exp{c.lse});
    detail::each(c.out.view, [](float x) { REQUIRE(x == 0.f); });
    detail::each(c.lse, [](float x) { REQUIRE(x == -std::numeric_limits<float>::infinity()); });
  }
}

TEST_CASE("attention: NaN and infinity reach those who see them, and nobody else") {
  float const nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  rng r(11);
  for (index tokens : {index{4}, index{30}})
    for (bool in_values : {false, true})
      for (float odd : {nan, std::bit_cast<float>(0x7fc5a5a5u), inf}) {
        call<float> c(r, {2, 2, tokens, tokens, 16, 16, 1});
        index const key = tokens - 2;
        (in_values ? c.v : c.k).view(0, key, 3) = odd;
        if (!in_values && odd == inf)
          for (index i = 0; i < tokens; ++i) c.q.view(0, i, 3) = 1;  // a score of +inf
        c(cpu, causal{});
        for (index i = 0; i < tokens; ++i)
          for (index d = 0; d < 16; ++d) {
            bool const reached = i >= key && (!in_values || d == 3);
            float const got = c.out.view(0, i, d);
            CAPTURE(tokens, in_values, odd, i, d);
            if (!reached)
              REQUIRE(std::isfinite(got));
            else if (in_values && odd == inf)
              REQUIRE(got == inf);
            else
              REQUIRE(std::isnan(got));
            REQUIRE(std::isfinite(c.out.view(1, i, d)));
          }
      }
}

TEST_CASE("attention: merged parts are the whole") {
  rng r(12);
  for (index cut : {0, 1, 63, 100}) {
    call<float> c(r, {3, 3, 5, 100, 32, 19, 1});
    cache<float> a(3, 5, 19), b(3, 5, 19);
    std::vector<float> sums(30);
    auto const x = view(sums.data(), 3, 5), y = view(sums.data() + 15, 3, 5);
    attention(cpu, c.q.view, c.k.view.slice(1, 0, cut), c.v.view.slice(1, 0, cut), a.view, log_sum_exp{x});
    attention(cpu, c.q.view, c.k.view.slice(1, cut, 100), c.v.view.slice(1, cut, 100), b.view, log_sum_exp{y});
    if (cut == 0) detail::each(a.view, [](float& e) { e = poison<float>(); });  // a side without keys is not looked at
    merge(cpu, a.view, x, b.view, y, c.out.view, c.lse);
    c.check(c.want());
    merge(cpu, b.view, y, a.view, x, b.view, x);  // in place
    CHECK(detail::close(b.view(2, 4, 18), static_cast<double>(c.out.view(2, 4, 18)), 1, 1e-5));
    CHECK(detail::close(x(2, 4), static_cast<double>(c.lse(2, 4)), 1, 1e-5));
  }
  std::vector<float> none(2, -std::numeric_limits<float>::infinity()), out(8, 1.f);
  merge(cpu, view(out.data(), 2, 4), none, view(out.data(), 2, 4), none, view(out.data(), 2, 4), none);
  CHECK(out == std::vector<float>(8, 0.f));
  CHECK(none[1] == -std::numeric_limits<float>::infinity());
}

TEST_CASE("attention: wrong calls say what is wrong") {
  std::vector<float> memory(1 << 14);
  auto t = [&](index a, index b, index c) { return view(memory.data(), a, b, c); };
  auto fails = [&](auto const& q, auto const& k, auto const& v, auto const& out, auto const&... options) {
    return message_of([&] { attention(cpu, q, k, v, out, options...); });
  };
  auto const q = t(4, 3, 8), k = t(2, 5, 8), v = t(2, 5, 6), out = t(4, 3, 6);
  CHECK(fails(q, k, v, out) == "no error");
  CHECK(fails(q, t(2, 5, 7), v, out) == "attention: k.extent(2) is 7, expected q.extent(2) = 8");
  CHECK(fails(q, k, t(2, 4, 6), out) == "attention: v.extent(1) is 4, expected k.extent(1) = 5");
  CHECK(fails(q, t(3, 5, 8), t(3, 5, 6), out) == "attention: k.extent(0) is 3, expected a divisor of the heads of q = 4");
  CHECK(fails(q, k, t(1, 5, 6), out) == "no error");  // heads of k and v need not be as many
  CHECK(fails(q, k, t(3, 5, 6), out) == "attention: v.extent(0) is 3, expected a divisor of the heads of q = 4");
  CHECK(fails(q, k, v, t(4, 3, 8)) == "attention: out.extent(2) is 8, expected v.extent(2) = 6");
  CHECK(fails(q.transposed(1, 2), t(2, 5, 3), v, t(4, 8, 6)) ==
        "attention: the stride of q's last dimension is 8, expected 1 (contiguous rows)");
  CHECK(fails(t(4, -1, 8), k, v, t(4, -1, 6)) == "attention: q.extent(1) is -1, expected at least 0");
  CHECK(fails(q, k, v, out, softcap{-0.5f}).find("softcap is -1") != std::string::npos);
  CHECK(fails(q, k, v, out, softcap{0}).find("softcap") != std::string::npos);
  CHECK(fails(q, k, v, out, log_sum_exp{view(memory.data(), 4, 2)}).find("log_sum_exp") != std::string::npos);
}

TEST_CASE("attention: out may be q") {
  rng r(14);
  for (index tokens : {index{1}, index{200}}) {
    call<float> c(r, {6, 2, tokens, 700, 64, 64, 1});
    auto const policy = cpu.on(several_threads());
    c(policy, causal{});
    attention(policy, c.q.view, c.k.view, c.v.view, c.q.view, causal{});
    CHECK(c.q.values() == c.out.values());
  }
}

TEST_CASE("attention: scratch is as announced, and a second call allocates nothing") {
  rng r(13);
  for (index tokens : {index{1}, index{100}})
    for (index keys : {index{100}, index{5000}}) {
      call<float> c(r, {4, 2, tokens, keys, 64, 64, 1});
      std::size_t const bytes = workspace_size(attention, cpu.on(several_threads()), c.q.view, c.k.view, c.v.view, c.out.view);
      workspace own(bytes);
      auto const policy = cpu.on(several_threads()).with(own);
      c(policy);
      CHECK(own.capacity() == workspace::rounded(bytes));
      guarded<char> fixed(static_cast<index>(bytes) + 64);
      workspace exact(fixed.data(), bytes + 64);
      c(cpu.on(several_threads()).with(exact));
      CHECK(fixed.intact());
      auto const want = c.results();
      index const before = allocations();
      c(policy);
      CHECK(allocations() == before);
      CHECK(same_bits(c.results(), want));
    }
}

/// Tokens and keys in two halves.
struct halves {
  static constexpr bool per_head = false;
  index tokens, keys;
  struct one {
    static constexpr bool local = true;
    index queries, keys, first_query, first_key;
    index query(index i) const { return first_query + i; }
    index key(index j) const { return first_key + j; }
  };
  index groups(index, index) const { return 2; }
  one group(index, index, index g) const {
    return {g == 0 ? tokens / 2 : tokens - tokens / 2, g == 0 ? keys / 2 : keys - keys / 2, g * (tokens / 2), g * (keys / 2)};
  }
};
struct negated {
  void query(float* row, index, row_at const&) const { row[0] = -row[0]; }
  void key(float* row, index, row_at const&) const { row[0] = -row[0]; }
};

TEST_CASE("attention: scratch is as announced with options too") {
  rng r(15);
  auto const several = cpu.on(several_threads());
  std::vector<std::int32_t> ids(4 * 100 * 7);
  std::vector<float> scores(ids.size()), z(4, 0.5f);
  for (index tokens : {index{4}, index{100}})
    for (index keys : {index{100}, index{5000}}) {
      call<float, f16, f16> c(r, {4, 2, tokens, keys, 64, 48, 1});
      auto run = [&](auto const& f, cpu_policy const& policy) {
        return f(
            policy, c.q.view, c.k.view, tern::ring(c.v.view, keys / 2), c.out.view, halves{tokens, keys}, causal{}, sinks{z},
            [](floats s, score_at const& at) { return s - at.distance() * floats(0x1p-9f); }, negated{}, log_sum_exp{c.lse},
            top_keys{view(ids.data(), 4, tokens, 7), view(scores.data(), 4, tokens, 7)});
      };
      auto const size = [&](auto const&... x) { return workspace_size(attention, x...); };
      std::size_t const bytes = run(size, several);
      workspace own(bytes);
      run(attention, several.with(own));
      CHECK(own.capacity() == workspace::rounded(bytes));
      guarded<char> fixed(static_cast<index>(bytes) + 64);
      workspace exact(fixed.data(), bytes + 64);
      run(attention, several.with(exact));
      CHECK(fixed.intact());
      auto const want = c.results();
      index const before = allocations();
      run(attention, several.with(own));
      CHECK(allocations() == before);
      CHECK(same_bits(c.results(), want));
      CHECK(run(size, cpu.on(serial)) <= bytes);
    }
}

}  // namespace
}  // namespace tern::test

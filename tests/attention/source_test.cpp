// SPDX-License-Identifier: Apache-2.0
// Pages, rings and segments of keys: what is hidden stays hidden, what is wrong is said, and lengths hold for both sides.
#include "matrix_case.hpp"
#include "message.hpp"

#include <string>

namespace tern::test {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

static_assert(attention_layout<matrix::groups_layout> && attention_group<matrix::groups_layout::one>);
static_assert(!attention_layout<matrix::pattern> && custom_mask<matrix::pattern> && mask_by_head<matrix::pattern_by_head>);

/// Two sequences of 100 and 60 keys in pages, in groups of any order: one type of call for all tests below.
struct in_groups {
  index tokens;
  std::vector<std::int32_t> lengths = {100, 60};
  in_pages k, v;
  strided<float> q;
  std::vector<matrix::grouping> groupings;
  guarded<float> out_memory, lse_memory;
  tensor_view<float, 4> out;
  tensor_view<float, 3> lse;

  in_groups(rng& r, index n)
      : tokens(n),
        k(r, {2, 2, 105, 32}, lengths),
        v(r, {2, 2, 105, 24}, lengths),
        q(r, {2, 4, n, 32}, {static_cast<std::int32_t>(n), static_cast<std::int32_t>(n)}),
        out_memory(8 * n * 24, 1),
        lse_memory(8 * n, 1),
        out(out_memory.data(), shape<4>{{2, 4, n, 24}}),
        lse(lse_memory.data(), shape<3>{{2, 4, n}}) {
    for (std::int32_t keys : lengths) groupings.emplace_back(r, n, keys);
  }
  void operator()(cpu_policy const& policy, tensor_view<float, 4> const& to) {
    attention(policy, q.view, k(), v(), to, matrix::groups_layout{groupings.data()}, causal{}, log_sum_exp{lse});
  }
  bool sees(index b, index i, index j) const {
    auto const& g = groupings[static_cast<std::size_t>(b)];
    auto const ii = static_cast<std::size_t>(i), jj = static_cast<std::size_t>(j);
    return j < lengths[static_cast<std::size_t>(b)] && g.query_group[ii] == g.key_group[jj] &&
           g.key_rank[jj] <= g.query_rank[ii] + g.offset(g.query_group[ii]) && matrix::pattern{}.visible(g.query_rank[ii], g.key_rank[jj]);
  }
  static float& row_of(in_pages& x, index b, index h, index j) {
    index const page = x.table[static_cast<std::size_t>(b * x.per_sequence + j / in_pages::rows)];
    return x.memory[((page * x.n.heads + h) * in_pages::rows + j % in_pages::rows) * x.n.dim];
  }
};

TEST_CASE("attention sources: NaN and infinity in pages and groups reach who sees them, and nobody else") {
  for (index tokens : {index{2}, index{40}})
    for (bool in_values : {false, true})
      for (float odd : {nan, std::numeric_limits<float>::infinity()})
        for (index key : {index{0}, index{31}, index{77}}) {
          rng r(21);
          in_groups c(r, tokens);
          in_groups::row_of(in_values ? c.v : c.k, 0, 1, key) = odd;
          for (index h = 0; h < 4; ++h)
            for (index i = 0; i < tokens; ++i) c.q.view(0, h, i, 0) = 1;  // infinite keys give scores of +inf
          c(cpu, c.out);
          for (index b = 0; b < 2; ++b)
            for (index h = 0; h < 4; ++h)
              for (index i = 0; i < tokens; ++i)
                for (index d = 0; d < 24; ++d) {
                  bool const reached = b == 0 && h >= 2 && c.sees(0, i, key) && (!in_values || d == 0);
                  CAPTURE(tokens, in_values, odd, key, b, h, i, d);
                  REQUIRE(std::isfinite(c.out(b, h, i, d)) == !reached);
                }
        }
}

TEST_CASE("attention sources: out may be q, whatever the order of the groups") {
  for (index tokens : {index{2}, index{90}}) {
    rng r(22);
    in_groups c(r, tokens);
    tensor_view<float, 4> const narrow = c.q.view.slice(3, 0, 24);
    c(cpu.on(several_threads()), c.out);
    c(cpu.on(several_threads()), narrow);
    index wrong = 0, at = 0;
    detail::each(narrow, [&](float x) { wrong += x != c.out_memory[at++]; });
    CHECK(wrong == 0);
  }
}

TEST_CASE("attention sources: a sequence without keys is empty") {
  for (index tokens : {index{2}, index{40}}) {
    rng r(23);
    in_groups c(r, tokens);
    c.lengths[1] = 0;
    c.k.lengths = c.v.lengths = c.lengths;
    std::vector<std::int32_t> const none(15, -1);
    std::copy(none.begin(), none.end(), c.k.table.begin() + 15);
    std::copy(none.begin(), none.end(), c.v.table.begin() + 15);
    attention(cpu, c.q.view, c.k(), c.v(), c.out, log_sum_exp{c.lse});
    for (index h = 0; h < 4; ++h) {
      REQUIRE(c.out(1, h, tokens - 1, 23) == 0.f);
      REQUIRE(c.lse(1, h, 0) == -std::numeric_limits<float>::infinity());
      REQUIRE(c.out(0, h, 0, 0) != 0.f);
    }
  }
}

/// Keys and values of two sequences, each where its source has them, against the oracle.
template <source K, source V>
void check_sources(std::vector<std::int32_t> const& lengths) {
  for (index tokens : {index{2}, index{40}})
    for (index keys : {index{105}, index{1092}}) {
      rng r(24);
      std::vector<std::int32_t> has, all(2, static_cast<std::int32_t>(tokens));
      for (std::int32_t n : lengths) has.push_back(static_cast<std::int32_t>(keys) - n);
      auto const k = stored_as<K>(r, {2, 2, keys, 32}, has);
      auto const v = stored_as<V>(r, {2, 1, keys, 32}, has);
      strided<float> const q(r, {2, 4, tokens, 32}, all);
      guarded<float> memory(8 * tokens * 32, 1);
      tensor_view<float, 4> const out(memory.data(), shape<4>{{2, 4, tokens, 32}});
      attention(cpu.on(several_threads()), q.view, k(), v(), out);
      oracle::attention_spec spec{4, 2, tokens, keys, 32, 32, 1 / std::sqrt(32.0)};
      spec.batch = 2;
      spec.v_heads = 1;
      spec.sees = [&](index b, index, index, index j) { return j < has[static_cast<std::size_t>(b)]; };
      auto want = oracle::attention(q.values, k.values, v.values, spec);
      using a = attention_accuracy;
      for (std::size_t n = 0; n < want.magnitude.size(); ++n)
        want.magnitude[n] *= a::b0 + a::b1 * std::sqrt(32.0) * want.growth[n / 32] + a::b2 * std::sqrt(static_cast<double>(keys));
      CHECK(compare(out, want.value, want.magnitude, 0x1p-24));
      CHECK(memory.intact());
    }
}
TEST_CASE("attention sources: rings, segments, pages and blocks") {
  check_sources<source::ring, source::joined>({0, 0});
  check_sources<source::q8_0, source::paged>({3, 50});  // lengths of v alone
}

/// What a call says; nothing is run.
template <class... X>
std::string said(X const&... x) {
  try {
    (void)workspace_size(attention, cpu, x...);
  } catch (error const& e) {
    return e.what();
  }
  return "no error";
}

TEST_CASE("attention sources: wrong pages") {
  std::vector<float> memory(1 << 14);
  std::vector<std::int32_t> table = {0, 1, 2, 3, 4, 5}, lengths = {12, 7}, others = {12, 8};
  tensor_view<float const, 4> const pool(memory.data(), shape<4>{{6, 2, 4, 8}});
  tensor_view<std::int32_t const, 2> const pages(table.data(), shape<2>{{2, 3}});
  auto const q = view(memory.data(), 2, 4, 3, 8), k = view(memory.data(), 2, 2, 12, 8);
  auto const p = paged(pool, pages);
  CHECK(said(q, p, p, q) == "no error");
  CHECK(said(q, p, k, q) == "no error");
  CHECK(said(q, p, k.slice(2, 0, 11), q) == "attention: v.extent(2) is 11, expected the keys of k = 12");
  CHECK(said(q.slice(0, 0, 1), p, p, q.slice(0, 0, 1)) == "attention: the batch of k is 2, expected q.extent(0) = 1");
  CHECK(said(q, paged(pool.transposed(2, 3), pages), p, q) == "attention: the row stride of k's pages is 8, expected contiguous rows");
  CHECK(said(q, k, paged(pool.slice(2, 0, 0), pages), q) == "attention: the rows of a page is 0, expected at least 1");
  CHECK(message_of([&] { static_cast<void>(paged(pool, pages, std::vector<std::int32_t>{5})); }) ==
        "paged: lengths.extent(0) is 1, expected table.extent(0) = 2");
  CHECK(said(q, paged(pool, pages, lengths), paged(pool, pages, others), q) == "attention: a length of v is 8, expected that of k = 7");
  table[5] = 6;
  CHECK(said(q, p, k, q) == "attention: an entry of k's page table is 6, expected a page of the pool");
  CHECK(said(q, k, p, q) == "attention: an entry of v's page table is 6, expected a page of the pool");
  CHECK(said(q, paged(pool, pages, lengths), k, q) == "no error");  // of the second sequence only two pages are read
  table[4] = -1;
  CHECK(said(q, paged(pool, pages, lengths), k, q) == "attention: an entry of k's page table is -1, expected a page of the pool");
  lengths[1] = 13;
  CHECK(said(q, paged(pool, pages, lengths), k, q) == "attention: a length of k is 13, expected what its pages hold");
  lengths[1] = -1;
  CHECK(said(q, k, paged(pool, pages, lengths), q) == "attention: a length of v is -1, expected what its pages hold");
}

TEST_CASE("attention sources: wrong rings, segments and blocks") {
  std::vector<float> memory(1 << 14);
  auto const q = view(memory.data(), 2, 4, 3, 8), k = view(memory.data(), 2, 2, 12, 8);
  CHECK(said(q, ring(k, 11), k, q) == "no error");
  CHECK(said(q, ring(k, 12), k, q) == "attention: the first row of a ring is 12, expected a row of it");
  CHECK(said(q, ring(k, -1), k, q) == "attention: the first row of a ring is -1, expected a row of it");
  CHECK(said(q, k, ring(k, 0, 13), q) == "attention: the length of a ring is 13, expected at most its rows");
  CHECK(said(q, k, ring(k, 5, 11), q) == "attention: the keys of v is 11, expected k.extent(2) = 12");
  CHECK(said(q, k, ring(k.transposed(2, 3), 0), q) == "attention: the last stride of a ring is 8, expected contiguous rows");
  auto const a = k.slice(2, 0, 5), b = k.slice(2, 5, 12), shared = a.slice(0, 0, 1);
  CHECK(said(q, joined(a, b), joined(shared, b), q) == "no error");
  CHECK(said(q, joined(a, a), k, q) == "attention: v.extent(2) is 12, expected the keys of k = 10");
  CHECK(said(q, k, joined(a, view(memory.data(), 3, 2, 7, 8)), q) ==
        "attention: the batch of a segment is 3, expected 1, or the batch of q");
  CHECK(said(q, joined(a, b.slice(1, 0, 1)), k, q) == "attention: the heads of a segment is 1, expected those of the first = 2");
  CHECK(said(q, joined(a, b.slice(3, 0, 7)), k, q) == "attention: the dim of a segment is 7, expected that of the first = 8");
  CHECK(said(q, joined(view(memory.data(), 2, 2, 8, 5).transposed(2, 3), b), k, q) ==
        "attention: the last stride of a segment is 5, expected contiguous rows");
  formats::q8_0::block const block{};
  CHECK(said(q, view(&block, 2, 2, 12, 1), k, q) == "attention: the dim of k is 32, expected q.extent(3) = 8");
}

TEST_CASE("attention sources: pages, rings and segments of blocks are what the same rows are as a tensor") {
  rng r(24);
  blocked<formats::q8_0> const k(r, {1, 2, 96, 64}, {96});
  blocked<formats::q4_0> const v(r, {1, 2, 96, 32}, {96});
  strided<float> const q(r, {1, 4, 2, 64}, {2});
  using key = formats::q8_0::block;
  using value = formats::q4_0::block;
  std::vector<float> want(4 * 2 * 32), got(want.size());
  auto const into = [](std::vector<float>& x) { return view(x.data(), 1, 4, 2, 32); };
  attention(cpu, q.view, k(), v(), into(want), causal{});

  // Pages of 32 rows of both heads, in another order.
  std::vector<std::int32_t> const order = {2, 0, 1};
  std::vector<key> key_pages(k.blocks.size());
  std::vector<value> value_pages(v.blocks.size());
  for (index h = 0; h < 2; ++h)
    for (index j = 0; j < 96; ++j) {
      index const to = (order[static_cast<std::size_t>(j / 32)] * 2 + h) * 32 + j % 32, from = h * 96 + j;
      std::copy_n(k.blocks.begin() + from * 2, 2, key_pages.begin() + to * 2);
      value_pages[static_cast<std::size_t>(to)] = v.blocks[static_cast<std::size_t>(from)];
    }
  auto const table = view(order.data(), 1, 3);
  attention(cpu, q.view, paged(view(key_pages.data(), 3, 2, 32, 2), table), paged(view(value_pages.data(), 3, 2, 32, 1), table), into(got),
            causal{});
  CHECK(got == want);

  // The oldest row at 40 of 96.
  std::vector<key> key_ring(k.blocks.size());
  for (index h = 0; h < 2; ++h)
    for (index j = 0; j < 96; ++j) std::copy_n(k.blocks.begin() + (h * 96 + j) * 2, 2, key_ring.begin() + (h * 96 + (j + 40) % 96) * 2);
  attention(cpu, q.view, ring(view(key_ring.data(), 1, 2, 96, 2), 40), joined(v().slice(2, 0, 37), v().slice(2, 37, 96)), into(got),
            causal{});
  CHECK(got == want);
}

TEST_CASE("attention sources: wrong sinks and places for what is returned") {
  std::vector<float> memory(1 << 14);
  std::vector<std::int32_t> ints(1 << 10);
  auto const q = view(memory.data(), 4, 3, 8), k = view(memory.data(), 2, 12, 8);
  auto ids = [&](index a, index b, index c) { return view(ints.data(), a, b, c); };
  auto scores = [&](index a, index b, index c) { return view(memory.data(), a, b, c); };
  auto place = [&](index a, index b) { return view(memory.data(), a, b); };
  CHECK(said(q, k, k, q, sinks{view(memory.data(), 4)}) == "no error");
  CHECK(said(q, k, k, q, sinks{view(memory.data(), 2)}) == "attention: the extent of sinks is 2, expected the heads of q = 4");
  CHECK(said(q, k, k, q, top_keys{ids(4, 3, 5), scores(4, 3, 5)}) == "no error");
  CHECK(said(q, k, k, q, top_keys{ids(4, 2, 5), scores(4, 3, 5)}) ==
        "attention: an extent of the ids of top_keys is 2, expected that of q = 3");
  CHECK(said(q, k, k, q, top_keys{ids(4, 3, 5), scores(2, 3, 5)}) ==
        "attention: an extent of the scores of top_keys is 2, expected that of q = 4");
  CHECK(said(q, k, k, q, top_keys{ids(4, 3, 0), scores(4, 3, 0)}) == "attention: the count of top_keys is 0, expected at least 1");
  CHECK(said(q, k, k, q, top_keys{ids(4, 3, 5), scores(4, 3, 4)}) ==
        "attention: the count of the scores of top_keys is 4, expected that of the ids = 5");
  CHECK(said(q, k, k, q, top_keys{view(ints.data(), 3, 5), view(memory.data(), 3, 5)}) ==
        "attention: the rank of top_keys is 2, expected the rank of q = 3");
  CHECK(said(q, k, k, q, row_max{place(4, 3)}, hard{}) == "no error");
  CHECK(said(q, k, k, q, row_max{place(3, 3)}, hard{}) == "attention: the rank or an extent of row_max is 3, expected an extent of q = 4");
  CHECK(said(q, k, k, q, weight_sum{place(4, 2)}, relu{}) ==
        "attention: the rank or an extent of weight_sum is 2, expected an extent of q = 3");
  CHECK(said(q, k, k, q, log_sum_exp{scores(4, 3, 1)}) ==
        "attention: the rank or an extent of log_sum_exp is 3, expected the rank of q - 1 = 2");
}

}  // namespace
}  // namespace tern::test

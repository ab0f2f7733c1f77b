// SPDX-License-Identifier: Apache-2.0
// Attention over the pages of a cache: the same bits as over each head's tokens alone, as tensors and tiles that hold just them.
#include "attention/call.hpp"
#include "model.hpp"

namespace tern::test {
namespace {

/// Tokens of one head in memory of their own: rows of F, or blocks of it.
template <class F>
struct alone {
  using element = typename page_format<F>::source;
  static constexpr index granule = page_format<F>::granule;
  index dim, count;
  std::vector<element> rows;

  alone(std::vector<std::shared_ptr<shadow_head::token const>> const& tokens, bool keys, index n)
      : dim(n), count(static_cast<index>(tokens.size())), rows(tokens.size() * static_cast<std::size_t>(n / granule)) {
    std::size_t at = 0;
    for (auto const& token : tokens) {
      auto const& given = keys ? token->given_key : token->given_value;
      auto const& stored = keys ? token->key : token->value;
      if constexpr (granule == 1) {
        for (float x : stored) rows[at++] = static_cast<element>(x);
      } else {
        for (index d = 0; d < n; d += granule) {
          float x[granule];
          rows[at] = F::encode(given.data() + d);
          F::decode(rows[at++], x);
          REQUIRE(std::equal(x, x + granule, stored.data() + d));
        }
      }
    }
  }
  auto operator()() const { return view(rows.data(), 1, count, dim / granule); }
};
/// In tiles.
template <class F>
  requires requires { F::tile_bytes(index{}); }
struct alone<F> {
  index dim, count;
  std::vector<std::byte> memory;

  alone(std::vector<std::shared_ptr<shadow_head::token const>> const& tokens, bool keys, index n)
      : dim(n), count(static_cast<index>(tokens.size())), memory(static_cast<std::size_t>(kv_tiles<F>::bytes(count, n))) {
    index t = 0;
    for (auto const& token : tokens) (*this)().append(t++, view((keys ? token->given_key : token->given_value).data(), 1, 1, n));
  }
  kv_tiles<F> operator()() const { return {const_cast<std::byte*>(memory.data()), 1, count, dim, static_cast<index>(memory.size())}; }
};

struct result {
  guarded<float> out, lse;
  result(index rows, index dim_v) : out(rows * dim_v), lse(rows) {}
};

/// A cache whose pages are full of infinity before anything is written, and calls of attention over it.
template <class K, class V>
struct read_by_attention : modelled<K, V> {
  using base = modelled<K, V>;
  using typename base::sequence;
  static constexpr index heads = 4, dim = 64, dim_v = 32;  // of 2 key heads
  rng r;

  explicit read_by_attention(std::uint64_t seed) : base({.layers = 2, .kv_heads = 2, .dim = dim, .dim_v = dim_v}), r(seed) {
    std::vector<float> const x(2 * 1500 * dim, std::numeric_limits<float>::infinity());
    base::open();  // holds the memory
    base::append(r, 0, 0, 1);
    auto const all = this->cache.open();
    this->cache.append(cpu, all, 0, view(x.data(), 2, 1500, dim), view(x.data(), 2, 1500, dim_v));
    this->cache.close(all);
  }
  /// So many of a head's tokens, from all over.
  std::vector<std::int32_t> some(index length, index count) {
    std::vector<std::int32_t> list;
    for (index t = 0; t < length; ++t)
      if (r.integer(0, length - t - 1) < count - static_cast<index>(list.size())) list.push_back(static_cast<std::int32_t>(t));
    return list;
  }
  /// A batch, each of its sequences, and each head of those: the same bits.
  void check(index layer, std::vector<sequence> const& batch, index tokens) {
    index const n = static_cast<index>(batch.size()), rows = heads * tokens;
    std::vector<float> const q = r.normal<float>(n * rows * dim);
    result together(n * rows, dim_v), one(rows, dim_v), head(rows, dim_v);
    {
      auto const out = view(together.out.data(), n, heads, tokens, dim_v);
      auto const lse = log_sum_exp{view(together.lse.data(), n, heads, tokens)};
      auto const queries = view(q.data(), n, heads, tokens, dim);
      auto const keys = this->cache.keys(batch, layer);
      auto const values = this->cache.values(batch, layer);
      std::vector<std::byte> memory(workspace_size(attention, some_threads(), queries, keys, values, out, causal{}, lse));
      workspace scratch(memory.data(), memory.size());
      attention(some_threads().with(scratch), queries, keys, values, out, causal{}, lse);
    }
    for (index b = 0; b < n; ++b) {
      auto const s = batch[static_cast<std::size_t>(b)];
      CAPTURE(layer, b, s, tokens, this->cache.length(s, layer, 0), this->cache.length(s, layer, 1));
      auto const queries = view(q.data() + b * rows * dim, heads, tokens, dim);
      attention(cpu.on(serial), queries, this->cache.keys(s, layer), this->cache.values(s, layer),
                view(one.out.data(), heads, tokens, dim_v), causal{}, log_sum_exp{view(one.lse.data(), heads, tokens)});
      for (index h = 0; h < 2; ++h) {
        auto const& of = this->at(s, layer, h).tokens;
        alone<K> const keys(of, true, dim);
        alone<V> const values(of, false, dim_v);
        attention(cpu, queries.slice(0, 2 * h, 2 * h + 2), keys(), values(),
                  view(head.out.data(), heads, tokens, dim_v).slice(0, 2 * h, 2 * h + 2), causal{},
                  log_sum_exp{view(head.lse.data(), heads, tokens).slice(0, 2 * h, 2 * h + 2)});
      }
      auto const same = [](float const* x, float const* y, index count) {
        return std::memcmp(x, y, static_cast<std::size_t>(count) * 4) == 0;
      };
      CHECK(same(one.out.data(), head.out.data(), rows * dim_v));
      CHECK(same(one.lse.data(), head.lse.data(), rows));
      CHECK(same(one.out.data(), together.out.data() + b * rows * dim_v, rows * dim_v));
      CHECK(same(one.lse.data(), together.lse.data() + b * rows, rows));
      // Queries before a head's first key see nothing; the others a finite number of something.
      index odd = 0;
      for (index row = 0; row < rows; ++row) {
        bool const sees = row % tokens + this->cache.length(s, layer, row / tokens / 2) >= tokens;
        odd += std::isfinite(one.lse[row]) != sees;
        for (index d = 0; d < dim_v; ++d) odd += sees ? !std::isfinite(one.out[row * dim_v + d]) : one.out[row * dim_v + d] != 0;
      }
      CHECK(odd == 0);
    }
    CHECK(together.out.intact());
    CHECK(together.lse.intact());
  }
};

template <class K, class V>
void check_reading(std::uint64_t seed) {
  read_by_attention<K, V> m(seed);
  auto const a = m.open(), b = m.open(), c = m.open(), d = m.open();
  m.append(m.r, a, 1, 200);
  m.append(m.r, b, 1, 64);
  m.append(m.r, c, 1, 1300);  // several ranges
  auto const e = m.fork(a);
  m.keep(a, 1, {m.some(200, 66), m.some(200, 37)});
  m.append(m.r, e, 1, 7);
  m.truncate(b, 61);
  m.slide(c, 1, 4, 1100);
  m.keep(c, 1, {m.some(1108, 513), m.some(1108, 1100)});
  m.append(m.r, c, 1, 3);
  m.verify();
  for (index tokens : {1, 2, 5, 8}) m.check(1, {c, d, a, e, b, a}, tokens);
  m.cache.defragment();
  m.close(b);
  m.check(1, {e, a, d}, 100);
  m.check(1, {d, a}, 400);
}

TEST_CASE("kv_cache: attention over f16 is that over tensors of each head's tokens") { check_reading<f16, f16>(1); }
TEST_CASE("kv_cache: attention over q8_0 and f32 is that over tensors of each head's tokens") { check_reading<formats::q8_0, float>(2); }
TEST_CASE("kv_cache: attention over vector-quantized codes is that over tensors of each head's tokens") {
  check_reading<formats::e8p, formats::e8p>(5);
}
TEST_CASE("kv_cache: attention over tiles is that over tiles of each head's tokens") { check_reading<formats::keys8, formats::values4>(3); }

TEST_CASE("kv_cache: attention says what does not fit") {
  rng r(4);
  modelled<f16, f16> m({.layers = 1, .kv_heads = 2, .dim = 64, .dim_v = 32});
  auto const a = m.open(), b = m.open();
  m.append(r, a, 0, 5);
  m.append(r, b, 0, 5);
  m.keep(b, 0, {{0, 1, 2, 3, 4}, {1, 2}});
  std::vector<float> x(4096);
  std::vector<std::int32_t> batch = {a, b};
  auto const said = [&](index sequences, index heads, index dim, auto const& k, auto const& v) {
    auto const q = view(x.data(), sequences, heads, 3, dim), out = view(x.data(), sequences, heads, 3, 32);
    return message_of([&] { (void)workspace_size(attention, cpu, q, k, v, out, causal{}); });
  };
  auto const& c = m.cache;
  CHECK(said(1, 4, 64, c.keys(a, 0), c.values(a, 0)) == "no error");
  CHECK(said(2, 4, 64, c.keys(batch, 0), c.values(batch, 0)) == "no error");
  CHECK(said(1, 4, 64, c.keys(a, 0), c.values(b, 0)) == "attention: a length of v is 2, expected that of k = 5");
  CHECK(said(1, 4, 32, c.keys(a, 0), c.values(a, 0)) == "attention: the dim of k is 64, expected q.extent(3) = 32");
  CHECK(said(1, 3, 64, c.keys(a, 0), c.values(a, 0)) == "attention: the heads of k is 2, expected a divisor of the heads of q = 3");
  CHECK(said(2, 4, 64, c.keys(a, 0), c.values(a, 0)) == "attention: the batch of k is 1, expected q.extent(0) = 2");
  auto const k = c.keys(batch, 0), v = c.values(batch, 0);
  batch[1] = 2;  // behind the cache's back
  CHECK(said(2, 4, 64, k, v) == "attention: a sequence of the batch is 2, expected one of those that have pages");
}

}  // namespace
}  // namespace tern::test

// SPDX-License-Identifier: Apache-2.0
// Random calls beside a plain model, and by hand: what forks share, what goes when, who owns what.
#include "model.hpp"

namespace tern::test {
namespace {

/// A random choice of a head's tokens.
std::vector<std::int32_t> some_of(rng& r, index length) {
  std::vector<std::int32_t> list;
  double const share = r.integer(0, 4) == 0 ? 1 : r.uniform();
  index const first = r.integer(0, 1) * r.integer(0, length);  // all before stay
  for (index t = 0; t < length; ++t)
    if (t < first || r.uniform() < share) list.push_back(static_cast<std::int32_t>(t));
  return list;
}

/// One random call.
template <class K, class V>
void act(rng& r, modelled<K, V>& m) {
  if (m.texts.empty()) {
    m.open();
    return;
  }
  auto const s = std::next(m.texts.begin(), r.integer(0, static_cast<index>(m.texts.size()) - 1))->first;
  index const layer = r.integer(0, m.cache.shape().layers - 1), length = m.cache.length(s, layer);
  switch (r.integer(0, 11)) {
    case 0:
      if (m.texts.size() < 5) m.open();
      break;
    case 1:
      if (m.texts.size() < 8) m.fork(s);
      break;
    case 2:
      if (r.integer(0, 2) == 0) m.close(s);
      break;
    case 3:
      m.truncate(s, r.integer(0, m.next(s, layer) + 1));
      break;
    case 4: {
      std::vector<std::vector<std::int32_t>> lists;
      for (index h = 0; h < m.cache.shape().kv_heads; ++h) lists.push_back(some_of(r, m.cache.length(s, layer, h)));
      m.keep(s, layer, lists);
      break;
    }
    case 5:
      m.slide(s, layer, r.integer(0, 2) * r.integer(0, 70), r.integer(0, 1) * r.integer(0, 150));
      break;
    case 6:
      m.slide(s, layer, 64 * r.integer(0, 1), std::max<index>(0, length - 64 * r.integer(1, 2)));
      break;
    case 7: {  // for all heads, from behind what any has seen, or for each
      index const heads = m.cache.shape().kv_heads, count = r.integer(1, 40), lists = r.integer(0, 1) == 0 ? 1 : heads;
      std::vector<std::int32_t> positions;
      for (index h = 0; h < lists; ++h) {
        auto const& tokens = m.at(s, layer, h).tokens;
        index position = lists == 1 ? m.next(s, layer) : tokens.empty() ? 0 : tokens.back()->position + 1;
        for (index n = 0; n < count; ++n) {
          position += r.integer(0, 1) * r.integer(0, 9);
          positions.push_back(static_cast<std::int32_t>(position++));
        }
      }
      m.append(r, s, layer, count, positions);
      break;
    }
    case 8:
      m.template append<bf16>(r, s, layer, r.integer(0, 5));
      break;
    case 9:
      m.template append<bf16>(r, s, layer, r.integer(1, 150));
      break;
    default:
      m.append(r, s, layer, r.integer(1, 150));
  }
}

template <class K, class V>
void tell(std::uint64_t seed, index dim, index dim_v, std::map<std::string, int>& refused) {
  rng r(seed);
  modelled<K, V> m({.layers = 2, .kv_heads = 2, .dim = dim, .dim_v = dim_v, .max_pages = 45});
  for (int step = 0; step < 150; ++step) {
    act(r, m);
    m.verify();
    if (step % 10 != 9) continue;
    m.cache.defragment();
    m.verify();
    // All pages fit one slab: 256 of them, or as many as a large page has room for.
    index const slab = std::min<index>(256 * m.page_bytes(), index{1} << 21);
    REQUIRE(m.cache.reserved_bytes() == (m.cache.bytes() > 0 ? slab : 0));
  }
  for (auto const& [name, count] : m.refused) refused[name] += count;
  while (!m.texts.empty()) m.close(m.texts.begin()->first);
  m.verify();
  CHECK(m.cache.bytes() == 0);
  CHECK(m.cache.reserved_bytes() == 0);
}

TEST_CASE("kv_cache: whatever is called in whatever order, it holds what a plain model does") {
  std::map<std::string, int> refused;
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    tell<f16, f16>(seed, 33, 20, refused);
    tell<formats::q8_0, float>(seed, 64, 24, refused);
    tell<formats::e8p, formats::e8p>(seed, 32, 64, refused);
    tell<formats::keys8, formats::values4>(seed, 64, 32, refused);
    tell<formats::keys4, formats::values8>(seed, 32, 64, refused);
  }
  for (char const* name : {"append", "keep", "slide"}) {
    INFO(name);
    CHECK(refused[name] > 0);
  }
}

/// A cache of keys and values in f16, small.
struct small : modelled<f16, f16> {
  explicit small(index layers = 2) : modelled({.layers = layers, .kv_heads = 2, .dim = 33, .dim_v = 20}) {}
  /// So many tokens more in all layers.
  void grow(rng& r, sequence s, index count) {
    for (index layer = 0; layer < cache.shape().layers; ++layer) append(r, s, layer, count);
  }
  /// Pages in use, after a look at everything.
  index pages() {
    verify();
    return cache.bytes() / page_bytes();
  }
  std::vector<std::int32_t> positions(sequence s, index layer, index h) const {
    auto const all = cache.positions(s, layer, h);
    return {all.data(), all.data() + all.extent(0)};
  }
};

TEST_CASE("kv_cache: a fork shares all pages, and what either writes is its own") {
  rng r(1);
  small m;
  auto const a = m.open();
  m.grow(r, a, 100);
  CHECK(m.pages() == 8);  // 2 of each head of each layer
  auto const b = m.fork(a), c = m.fork(b);
  CHECK(m.pages() == 8);
  CHECK(m.cache.next_position(b) == 100);
  m.append(r, b, 1, 1);
  CHECK(m.pages() == 10);  // the last page of both heads of layer 1
  m.append(r, b, 1, 27);
  CHECK(m.pages() == 10);
  m.append(r, a, 1, 28);
  CHECK(m.pages() == 12);  // c still has the old one
  m.append(r, c, 1, 28);
  CHECK(m.pages() == 12);  // which is now its own
  m.append(r, c, 1, 1);
  CHECK(m.pages() == 14);  // behind 128 tokens new ones begin
  m.close(a);
  CHECK(m.pages() == 12);
  m.close(c);
  CHECK(m.pages() == 8);
  CHECK(m.cache.bytes(b) == 8 * m.page_bytes());
  m.close(b);
  CHECK(m.pages() == 0);
  CHECK(m.cache.reserved_bytes() == 0);
}

TEST_CASE("kv_cache: a draft is a fork that is truncated, taken or dropped") {
  rng r(2);
  small m(1);
  auto const text = m.open();
  m.grow(r, text, 125);
  for (int step = 0; step < 30; ++step) {
    auto const draft = m.fork(text);
    index const length = m.cache.length(text, 0), drafted = r.integer(1, 8), accepted = r.integer(0, drafted);
    m.grow(r, draft, drafted);
    CHECK(m.cache.length(text, 0) == length);
    m.verify();
    m.truncate(draft, length + accepted);
    m.verify();
    if (step % 2 == 0) {
      m.append(r, text, 0, 1 + accepted);  // the text goes on by itself
      m.close(draft);
    } else {
      m.append(r, draft, 0, 1);
      m.verify();
      m.truncate(text, length - 3);  // the text steps back, and the draft does not notice
      m.append<bf16>(r, text, 0, 5);
    }
    m.verify();
    for (auto s = m.texts.begin(); m.texts.size() > 3; ++s)
      if (s->first != text) {
        m.close(s->first);
        s = m.texts.begin();
      }
    m.verify();
  }
}

TEST_CASE("kv_cache: positions stay with their tokens, and new ones follow the last that was seen") {
  rng r(3);
  small m;
  auto const s = m.open();
  m.append(r, s, 0, 3, {2, 5, 6});
  m.append(r, s, 0, 2);
  m.append(r, s, 1, 4);
  CHECK(m.positions(s, 0, 1) == std::vector<std::int32_t>{2, 5, 6, 7, 8});
  m.keep(s, 0, {{0, 2}, {1, 2, 4}});
  CHECK(m.positions(s, 0, 0) == std::vector<std::int32_t>{2, 6});
  CHECK(m.positions(s, 0, 1) == std::vector<std::int32_t>{5, 6, 8});
  CHECK(m.cache.next_position(s, 0) == 9);
  m.truncate(s, 6);
  CHECK(m.positions(s, 0, 0) == std::vector<std::int32_t>{2});
  CHECK(m.positions(s, 0, 1) == std::vector<std::int32_t>{5});
  CHECK(m.cache.next_position(s, 0) == 6);
  CHECK(m.cache.next_position(s, 1) == 4);  // which had not come so far
  m.append(r, s, 0, 1);
  CHECK(m.positions(s, 0, 0) == std::vector<std::int32_t>{2, 6});
  m.keep(s, 1, {{}, {3}});
  CHECK(m.cache.length(s, 1, 0) == 0);
  CHECK(m.cache.next_position(s, 1) == 4);
  m.append(r, s, 1, 1);
  CHECK(m.positions(s, 1, 0) == std::vector<std::int32_t>{4});
  CHECK(m.positions(s, 1, 1) == std::vector<std::int32_t>{3, 4});
  m.keep(s, 1, {{}, {0}});
  m.append(r, s, 1, 2, {1, 7, 4, 5});  // of each head behind its own
  CHECK(m.positions(s, 1, 0) == std::vector<std::int32_t>{1, 7});
  CHECK(m.positions(s, 1, 1) == std::vector<std::int32_t>{3, 4, 5});
  CHECK(m.cache.next_position(s, 1) == 8);
  m.truncate(s, 0);
  CHECK(m.cache.next_position(s, 0) == 0);
  CHECK(m.pages() == 0);
}

TEST_CASE("kv_cache: slide forgets whole pages of tokens behind the sinks") {
  rng r(4);
  small m(1);
  auto const s = m.open();
  m.grow(r, s, 300);
  m.slide(s, 0, 4, 100);
  CHECK(m.pages() == 4);
  std::vector<std::int32_t> want = {0, 1, 2, 3};
  for (std::int32_t p = 196; p < 300; ++p) want.push_back(p);
  CHECK(m.positions(s, 0, 0) == want);
  m.slide(s, 0, 4, 41);  // 63 too many
  CHECK(m.cache.length(s, 0) == 108);
  m.slide(s, 0, 200, 10);
  CHECK(m.cache.length(s, 0) == 108);
  m.slide(s, 0, 4, 40);
  CHECK(m.cache.length(s, 0) == 44);
  CHECK(m.cache.next_position(s) == 300);
  m.grow(r, s, 148);
  m.slide(s, 0, 64, 0);
  CHECK(m.cache.length(s, 0) == 64);
  CHECK(m.pages() == 2);
  m.slide(s, 0, 0, 0);
  CHECK(m.pages() == 0);
}

TEST_CASE("kv_cache: a slide finds the pages it needs, though memory goes while it drops others") {
  rng r(5);
  modelled<formats::q8_0, float> m({.layers = 1, .kv_heads = 2, .dim = 1024, .dim_v = 3072});  // 2 pages in a slab of memory
  auto const a = m.open(), x = m.open(), y = m.open(), z = m.open();
  m.append(r, a, 0, 40);  // slab 0
  m.append(r, x, 0, 1);   // slab 1
  m.append(r, y, 0, 1);   // slab 2
  m.keep(y, 0, {{0}, {}});
  m.append(r, a, 0, 60);  // of head 0 in slab 2, of head 1 in slab 3
  m.append(r, z, 0, 1);   // slab 3
  m.keep(z, 0, {{0}, {}});
  auto const b = m.fork(a);
  m.truncate(b, 10);
  m.keep(x, 0, {{}, {0}});  // a free page in slab 1,
  m.close(y);               // and one in slab 2, beside the page that head 0 drops
  CHECK(m.cache.reserved_bytes() == 8 * m.page_bytes());
  m.slide(a, 0, 10, 0);
  m.verify();
  m.append(r, a, 0, 100);
  m.verify();
}

TEST_CASE("kv_cache: one by one, at once and by several threads is the same") {
  rng r(6);
  for (index before : {index{0}, index{10}, index{63}, index{101}}) {
    index const count = 300;
    input<float> const k(r, 2, before + count, 32), v(r, 2, before + count, 64);
    kv_cache<formats::keys4, formats::values8> cache({.layers = 1, .kv_heads = 2, .dim = 32, .dim_v = 64});
    auto const slow = cache.open(), fast = cache.open();
    auto const append = [&](cpu_policy const& policy, std::int32_t s, index first, index last) {
      cache.append(policy, s, 0, k.view.slice(1, first, last), v.view.slice(1, first, last));
    };
    for (index t = 0; t < before + count; ++t) append(cpu.on(serial), slow, t, t + 1);
    append(cpu.on(serial), fast, 0, before);
    for (int turn = 0; turn < 10; ++turn) {
      cache.truncate(fast, before);
      append(some_threads(), fast, before, before + count);
      index wrong = 0;
      std::vector<float> x(64), y(64);
      for (index h = 0; h < 2; ++h)
        for (index t = 0; t < before + count; ++t) {
          cache.read_key(slow, 0, h, t, x.data());
          cache.read_key(fast, 0, h, t, y.data());
          wrong += x != y;
          cache.read_value(slow, 0, h, t, x.data());
          cache.read_value(fast, 0, h, t, y.data());
          wrong += x != y;
        }
      REQUIRE(wrong == 0);
    }
  }
}

TEST_CASE("kv_cache: tokens that stay are the same to the bit, however far they move") {
  for (index dim : {128, 40}) {
    kv_cache<f16> cache({.layers = 1, .kv_heads = 2, .dim = dim});
    rng r(17);
    constexpr index tokens = 8000, count = tokens / 3;
    auto const k = r.normal<float>(2 * tokens * dim), v = r.normal<float>(2 * tokens * dim);
    std::int32_t const s = cache.open();
    cache.append(cpu, s, 0, view(k.data(), index{2}, tokens, dim), view(v.data(), index{2}, tokens, dim));
    std::vector<std::int32_t> ids, counts(2, count);
    for (index i = 0; i < count; ++i) ids.push_back(static_cast<std::int32_t>(3 * i + i % 2));
    cache.keep(cpu, s, 0, {{ids.data(), shape<2>{{2, count}}, shape<2>{{0, 1}}}, view(counts)});
    index wrong = 0;
    std::vector<float> row(static_cast<std::size_t>(dim));
    for (index h = 0; h < 2; ++h)
      for (index i = 0; i < count; ++i) {
        index const from = (h * tokens + 3 * i + i % 2) * dim;
        cache.read_key(s, 0, h, i, row.data());
        for (index d = 0; d < dim; ++d) wrong += row[static_cast<std::size_t>(d)] != f16(k[static_cast<std::size_t>(from + d)]);
        cache.read_value(s, 0, h, i, row.data());
        for (index d = 0; d < dim; ++d) wrong += row[static_cast<std::size_t>(d)] != f16(v[static_cast<std::size_t>(from + d)]);
      }
    CHECK(wrong == 0);
  }
}

TEST_CASE("kv_cache: numbers of sequences come again, without what they held") {
  rng r(7);
  small m(1);
  auto const a = m.open(), b = m.open();
  CHECK(a != b);
  m.grow(r, a, 70);
  m.grow(r, b, 3);
  m.close(a);
  CHECK(!m.cache.is_open(a));
  CHECK(m.cache.is_open(b));
  CHECK(!m.cache.is_open(-1));
  CHECK(!m.cache.is_open(100));
  auto const again = m.open();
  CHECK(again == a);
  CHECK(m.cache.length(again, 0) == 0);
  CHECK(m.cache.next_position(again) == 0);
  CHECK(m.pages() == 2);
}

TEST_CASE("kv_cache: a cache that moves takes all along") {
  rng r(8);
  small m;
  auto const s = m.open();
  m.grow(r, s, 100);
  kv_cache<f16> const moved(std::move(m.cache));
  CHECK(moved.length(s, 1, 1) == 100);
  CHECK(moved.bytes() == 8 * m.page_bytes());
  std::vector<float> key(33);
  for (index t : {index{0}, index{99}}) {
    auto const& want = m.texts.at(s).heads[3].tokens[static_cast<std::size_t>(t)]->key;
    moved.read_key(s, 1, 1, t, key.data());
    CHECK(key == want);
    page_format<f16>::read(moved.keys(s, 1).page(0, 1, t), 33, t % 64, key.data());
    CHECK(key == want);
  }
}

}  // namespace
}  // namespace tern::test

// SPDX-License-Identifier: Apache-2.0
// Snapshots: what is loaded is what was saved, and what is damaged is refused, with nothing changed.
#include "catch.hpp"
#include "compare.hpp"
#include "message.hpp"

#include <tern/cache/snapshot.hpp>

#include <string>
#include <vector>

namespace tern::test {
namespace {

template <class K, class V>
std::vector<std::byte> saved(kv_cache<K, V> const& cache, std::int32_t s, std::uint64_t model) {
  std::vector<std::byte> bytes;
  save_snapshot(cache, s, model, [&](void const* data, std::size_t n) {
    auto const* const at = static_cast<std::byte const*>(data);
    bytes.insert(bytes.end(), at, at + n);
  });
  return bytes;
}

/// A cache of two layers with a text whose heads have lost different tokens.
template <class K, class V>
struct sample {
  kv_cache<K, V> cache{{.layers = 2, .kv_heads = 2, .dim = 32, .dim_v = 64}};
  std::int32_t s = cache.open();
  explicit sample(std::uint64_t seed) {
    rng r(seed);
    std::vector<float> const k = r.normal<float>(2 * 192 * 32), v = r.normal<float>(2 * 192 * 64);
    for (index layer = 0; layer < 2; ++layer) cache.append(cpu, s, layer, view(k.data(), 2, 192, 32), view(v.data(), 2, 192, 64));
    std::vector<std::int32_t> ids, counts = {100, 70};
    for (index h = 0; h < 2; ++h)
      for (std::int32_t i = 0; i < 100; ++i) ids.push_back(i + (h == 0 ? i / 2 : i));
    cache.keep(cpu, s, 1, {view(ids.data(), 2, 100), view(counts.data(), 2)});
  }
};

template <class K, class V>
void check_round_trip() {
  sample<K, V> from(7);
  auto const bytes = saved(from.cache, from.s, 42);
  kv_cache<K, V> to({.layers = 2, .kv_heads = 2, .dim = 32, .dim_v = 64});
  auto const other = to.open();  // another number
  std::int32_t const s = load_snapshot(to, 42, bytes.data(), bytes.size());
  CHECK(s != other);
  CHECK(to.bytes() == from.cache.bytes());
  std::vector<float> a(64), b(64);
  for (index layer = 0; layer < 2; ++layer) {
    CHECK(to.next_position(s, layer) == from.cache.next_position(from.s, layer));
    for (index h = 0; h < 2; ++h) {
      REQUIRE(to.length(s, layer, h) == from.cache.length(from.s, layer, h));
      for (index t = 0; t < to.length(s, layer, h); ++t) {
        CHECK(to.positions(s, layer, h)[t] == from.cache.positions(from.s, layer, h)[t]);
        a.assign(64, 0), b.assign(64, 0);
        to.read_key(s, layer, h, t, a.data());
        from.cache.read_key(from.s, layer, h, t, b.data());
        CHECK(a == b);
        to.read_value(s, layer, h, t, a.data());
        from.cache.read_value(from.s, layer, h, t, b.data());
        CHECK(a == b);
      }
    }
  }
  CHECK(saved(to, s, 42) == bytes);
}

TEST_CASE("snapshot: what is loaded is what was saved") {
  check_round_trip<f16, f16>();
  check_round_trip<formats::keys4, formats::values8>();
  check_round_trip<formats::keys2, formats::values2>();
}

#if TERN_EXCEPTIONS
TEST_CASE("snapshot: a byte that is wrong, or missing, or too many, is refused") {
  using cache_type = kv_cache<f16, formats::values4>;
  sample<f16, formats::values4> from(8);
  auto const bytes = saved(from.cache, from.s, 42);
  cache_type to({.layers = 2, .kv_heads = 2, .dim = 32, .dim_v = 64});
  auto const load = [&](std::vector<std::byte> const& x) { load_snapshot(to, 42, x.data(), x.size()); };
  for (std::size_t i = 0; i < bytes.size(); i += i < 400 ? 1 : 211) {
    auto damaged = bytes;
    damaged[i] ^= std::byte{16};
    if (message_of([&] { load(damaged); }) == "no error") FAIL_CHECK("byte " << i);
  }
  for (std::size_t n = 0; n < bytes.size(); n += n < 100 ? 1 : 509)
    if (message_of([&] { load({bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n)}); }) == "no error") FAIL_CHECK(n << " bytes");
  auto const said = [&](std::size_t i, unsigned char x, std::size_t n) {
    auto damaged = bytes;
    damaged[i] = std::byte{x};
    damaged.resize(n);
    return message_of([&] { load(damaged); });
  };
  CHECK(said(1, 'a', bytes.size()) == "load_snapshot: the name at the start is tarnkv, expected ternkv");
  CHECK(said(7, 2, bytes.size()) == "load_snapshot: the version is 2, expected the one that is known = 1");
  std::size_t const positions = 40 + 4 + 4;  // of the first head
  CHECK(said(positions + 4, 0, bytes.size()) == "load_snapshot: a position is 0, expected at least the one behind the token before = 1");
  CHECK(said(0, 't', 42) ==
        "load_snapshot: the number of bytes that are left (the file ends early) is 2, expected at least what follows = 4");
  std::string const sum = said(bytes.size() - 9, 77, bytes.size());
  CHECK(sum.find("load_snapshot: the checksum of the bytes is ") == 0);
  CHECK(sum.find(", as stored (they are damaged)") != std::string::npos);
  auto longer = bytes;
  longer.push_back(std::byte{});
  CHECK(message_of([&] { load(longer); }) == "load_snapshot: the number of bytes behind the last head is 9, expected 8");
  CHECK(to.bytes() == 0);
  CHECK(!to.is_open(0));
  load(bytes);
  CHECK(to.bytes() == from.cache.bytes());
}

TEST_CASE("snapshot: of another model, format or shape it is refused by name") {
  sample<f16, formats::values4> from(9);
  auto const bytes = saved(from.cache, from.s, 42);
  auto const said = [&](auto&& cache, std::uint64_t model = 42) {
    return message_of([&] { load_snapshot(cache, model, bytes.data(), bytes.size()); });
  };
  using same = kv_cache<f16, formats::values4>;
  kv_shape const shape{.layers = 2, .kv_heads = 2, .dim = 32, .dim_v = 64};
  CHECK(said(same(shape), 43) == "load_snapshot: the model is 42, expected that of the cache = 43");
  CHECK(said(kv_cache<bf16, formats::values4>(shape)) == "load_snapshot: the format of keys is f16 , expected bf16");
  CHECK(said(kv_cache<f16, formats::values8>(shape)) == "load_snapshot: the format of values is val4, expected val8");
  CHECK(said(same({.layers = 3, .kv_heads = 2, .dim = 32, .dim_v = 64})) ==
        "load_snapshot: the number of layers is 2, expected layers = 3");
  CHECK(said(same({.layers = 2, .kv_heads = 1, .dim = 32, .dim_v = 64})) ==
        "load_snapshot: the number of heads is 2, expected kv_heads = 1");
  CHECK(said(same({.layers = 2, .kv_heads = 2, .dim = 64, .dim_v = 64})) == "load_snapshot: the dim of keys is 32, expected dim = 64");
  CHECK(said(same({.layers = 2, .kv_heads = 2, .dim = 32, .dim_v = 32})) == "load_snapshot: the dim of values is 64, expected dim_v = 32");
  same small({.layers = 2, .kv_heads = 2, .dim = 32, .dim_v = 64, .max_pages = 9});
  CHECK(said(small) == "load_snapshot: the number of new pages is 10, expected at most those that are left");
  CHECK(!small.is_open(0));
}
#endif

}  // namespace
}  // namespace tern::test

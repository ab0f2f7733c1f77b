// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/snapshot.hpp
/// A sequence of a kv_cache as bytes, to go on later without reading the text again.
///
///     save_snapshot(cache, s, model, sink)            calls sink(void const* data, std::size_t bytes) until all is written
///     s = load_snapshot(cache, model, data, bytes)    a new sequence of a cache of the same formats and shape, from a mapped file
///
///     bytes | "ternkv" 0 1 | K | V | layers | kv_heads | dim | dim_v | model |      8, 4 letters each, 4 of 4, 8
///           for each layer | the next position |                                    4
///             for each head | tokens | positions | pages |                          4, 4 each, as in memory; the last token fills its page
///           | checksum |                                                            8
///
/// Numbers are little-endian. `model` is a number of the caller's that says which model the keys are of. The version is the 1.
/// Checksum  FNV-1a over the 32-bit words in front of it (pages are multiples of 4 bytes), 64 bits.
/// Errors    another version, format, shape or model, a file that ends early or goes on, a checksum that is wrong, positions that do not
///           ascend, too few pages left: the message says which, and the cache is as before.
/// Cost      one pass over the bytes, and a copy.

#include <tern/cache/kv_cache.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

struct snapshot_header {
  char magic[8] = {'t', 'e', 'r', 'n', 'k', 'v', 0, 1};
  char keys[4], values[4];
  std::uint32_t layers, kv_heads, dim, dim_v;
  std::uint64_t model;

  template <class Cache>
  TERN_INLINE snapshot_header(Cache const& cache, std::uint64_t which) : model(which) {
    __builtin_memcpy(keys, Cache::key_format::name, 4);
    __builtin_memcpy(values, Cache::value_format::name, 4);
    kv_shape const& n = cache.shape();
    layers = static_cast<std::uint32_t>(n.layers);
    kv_heads = static_cast<std::uint32_t>(n.kv_heads);
    dim = static_cast<std::uint32_t>(n.dim);
    dim_v = static_cast<std::uint32_t>(n.dim_v);
  }
};
static_assert(sizeof(snapshot_header) == 40);

class checksum {
 public:
  /// A multiple of 4 bytes.
  TERN_INLINE void add(void const* data, index bytes) {
    auto const* const at = static_cast<unsigned char const*>(data);
    for (index i = 0; i + 4 <= bytes; i += 4) {
      std::uint32_t word;
      __builtin_memcpy(&word, at + i, 4);
      hash_ = (hash_ ^ word) * 0x100000001b3u;
    }
  }
  TERN_INLINE std::uint64_t value() const { return hash_; }

 private:
  std::uint64_t hash_ = 0xcbf29ce484222325u;
};

/// Bytes that are taken from front to back, and never behind the end.
class snapshot_reader {
 public:
  TERN_INLINE snapshot_reader(void const* data, std::size_t bytes)
      : at_(static_cast<std::byte const*>(data)), left_(static_cast<index>(bytes)) {}
  TERN_INLINE std::byte const* take(index bytes) {
    expect_at_least("load_snapshot", "the number of bytes that are left (the file ends early)", left_, "at least what follows", bytes);
    std::byte const* const piece = at_;
    at_ += bytes;
    left_ -= bytes;
    return piece;
  }
  template <class T>
  TERN_INLINE T number() {
    T x;
    __builtin_memcpy(&x, take(sizeof(T)), sizeof(T));
    return x;
  }
  TERN_INLINE index left() const { return left_; }

 private:
  std::byte const* at_;
  index left_;
};

[[noreturn]] TERN_COLD inline void fail_snapshot(char const* what, char const* was, char const* expected) {
  (message() << "load_snapshot: " << what << " is " << was << ", expected " << expected).fail();
}
/// Fails unless `count` letters are those expected.
template <int count>
inline void expect_letters(char const* what, char const* was, char const* expected) {
  char a[count + 1] = {}, b[count + 1] = {};
  bool same = true;
  for (int i = 0; i < count; ++i) {
    a[i] = was[i] >= ' ' && was[i] <= '~' ? was[i] : '?';
    b[i] = expected[i];
    same = same && was[i] == expected[i];
  }
  if (!same) fail_snapshot(what, a, b);
}
[[noreturn]] TERN_COLD inline void fail_checksum(std::uint64_t was, std::uint64_t expected) {
  (message() << "load_snapshot: the checksum of the bytes is " << was << ", expected " << expected << ", as stored (they are damaged)")
      .fail();
}

/// Reads a snapshot twice: to check it all, and to take it.
struct snapshot_access {
  template <class Cache, class Sink>
  static void save(Cache const& cache, std::int32_t s, std::uint64_t model, Sink const& sink) {
    cache.check(s, "save");
    checksum sum;
    auto const put = [&](void const* data, index bytes) {
      sum.add(data, bytes);
      sink(data, static_cast<std::size_t>(bytes));
    };
    snapshot_header const header(cache, model);
    put(&header, sizeof header);
    growing<std::byte> page;
    page.reserve(cache.pool_.page_bytes());
    for (index layer = 0; layer < cache.shape().layers; ++layer) {
      std::int32_t const next = cache.next(s, layer);
      put(&next, 4);
      for (index h = 0; h < cache.shape().kv_heads; ++h) {
        auto const& of = cache.at(s, layer, h);
        auto const count = static_cast<std::uint32_t>(of.size());
        put(&count, 4);
        put(of.positions.data(), 4 * of.size());
        for (index p = 0; p < of.pages.size(); ++p) {
          index const rows = of.size() - p * page_rows;
          put(rows >= page_rows ? cache.pool_.at(of.pages[p]) : first_rows(cache, of, p, rows, page.data()), cache.pool_.page_bytes());
        }
      }
    }
    std::uint64_t const value = sum.value();
    sink(static_cast<void const*>(&value), sizeof value);
  }

  template <class Cache>
  static std::int32_t load(Cache& cache, std::uint64_t model, void const* data, std::size_t bytes) {
    snapshot_reader all(data, bytes);
    check_header(cache, model, all.take(sizeof(snapshot_header)));
    snapshot_reader rest = all;
    index needed = 0;
    std::int32_t behind = 0;  // the next position of the layer
    each_head(
        cache, rest, [&](index, std::int32_t next) { behind = next; },
        [&](index, index, std::int32_t const* positions, index count, std::byte const*) {
          for (index i = 0; i < count; ++i) {
            std::int32_t const last = i > 0 ? word(positions, i - 1) : -1;
            expect_at_least("load_snapshot", "a position", word(positions, i), "at least the one behind the token before", index{last} + 1);
          }
          if (count > 0)
            expect_at_least("load_snapshot", "the next position of a layer", behind, "at least the one behind its last token",
                            index{word(positions, count - 1)} + 1);
          needed += divide_up(count, page_rows);
        });
    expect(rest.left() == 8, "load_snapshot", "the number of bytes behind the last head", rest.left(), "8");
    checksum sum;
    sum.add(data, static_cast<index>(bytes) - 8);
    auto const stored = rest.number<std::uint64_t>();
    if (stored != sum.value()) fail_checksum(sum.value(), stored);
    cache.reserve("load_snapshot", needed);
    std::int32_t const s = cache.open();
    each_head(
        cache, all, [&](index layer, std::int32_t next) { cache.next(s, layer) = next; },
        [&](index layer, index h, std::int32_t const* positions, index count, std::byte const* pages) {
          cache.extend(s, layer, h, count, [&](index i) { return word(positions, i); });
          auto const& of = cache.at(s, layer, h);
          index const size = cache.pool_.page_bytes();
          for (index p = 0; p < of.pages.size(); ++p)
            __builtin_memcpy(cache.pool_.at(of.pages[p]), pages + p * size, static_cast<std::size_t>(size));
        });
    return s;
  }

 private:
  template <class Cache, class Head>
  TERN_INLINE static std::byte const* first_rows(Cache const& cache, Head const& of, index page, index rows, std::byte* to) {
    typename Cache::page_gather nothing;
    cache.gather(of, rows, [&](index i) TERN_LAMBDA { return page * page_rows + i; }, to, nothing);
    if constexpr (Cache::by_page)  // written whole; gathering would round it anew
      __builtin_memcpy(to, cache.pool_.at(of.pages[page]), static_cast<std::size_t>(cache.key_bytes(cache.shape())));
    return to;
  }
  /// Of memory that may not be aligned.
  TERN_INLINE static std::int32_t word(std::int32_t const* from, index i) {
    std::int32_t x;
    __builtin_memcpy(&x, reinterpret_cast<std::byte const*>(from) + 4 * i, 4);
    return x;
  }
  template <class Cache>
  static void check_header(Cache const& cache, std::uint64_t model, std::byte const* bytes) {
    snapshot_header const wanted(cache, model);
    snapshot_header file = wanted;
    __builtin_memcpy(&file, bytes, sizeof file);
    constexpr char const* op = "load_snapshot";
    expect_letters<6>("the name at the start", file.magic, wanted.magic);
    expect_equal(op, "the version", file.magic[7], "the one that is known", wanted.magic[7]);
    expect_letters<4>("the format of keys", file.keys, wanted.keys);
    expect_letters<4>("the format of values", file.values, wanted.values);
    expect_equal(op, "the number of layers", file.layers, "layers", wanted.layers);
    expect_equal(op, "the number of heads", file.kv_heads, "kv_heads", wanted.kv_heads);
    expect_equal(op, "the dim of keys", file.dim, "dim", wanted.dim);
    expect_equal(op, "the dim of values", file.dim_v, "dim_v", wanted.dim_v);
    expect_equal(op, "the model", static_cast<index>(file.model), "that of the cache", static_cast<index>(model));
  }
  /// Calls of_layer(layer, next) and of_head(layer, h, positions, count, pages).
  template <class Cache, class F, class G>
  static void each_head(Cache const& cache, snapshot_reader& from, F&& of_layer, G&& of_head) {
    for (index layer = 0; layer < cache.shape().layers; ++layer) {
      auto const next = from.number<std::int32_t>();
      expect(next >= 0 && next < (index{1} << 31) - key_limit_slack, "load_snapshot", "the next position of a layer", next,
             "0 to 2^31 - 1025");
      of_layer(layer, next);
      for (index h = 0; h < cache.shape().kv_heads; ++h) {
        auto const count = index{from.number<std::uint32_t>()};
        expect_at_least("load_snapshot", "the number of bytes that are left (the file ends early)", from.left(),
                        "at least those of a head's positions", 4 * count);
        auto const* const positions = reinterpret_cast<std::int32_t const*>(from.take(4 * count));
        of_head(layer, h, positions, count, from.take(divide_up(count, page_rows) * cache.pool_.page_bytes()));
      }
    }
  }
};

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// Writes a sequence: see the top of this file.
template <class K, class V, class Sink>
void save_snapshot(kv_cache<K, V> const& cache, std::int32_t s, std::uint64_t model, Sink const& sink) {
  detail::snapshot_access::save(cache, s, model, sink);
}
/// A new sequence, as it was written: see the top of this file.
template <class K, class V>
std::int32_t load_snapshot(kv_cache<K, V>& cache, std::uint64_t model, void const* data, std::size_t bytes) {
  return detail::snapshot_access::load(cache, model, data, bytes);
}

}  // namespace TERN_ABI
}  // namespace tern

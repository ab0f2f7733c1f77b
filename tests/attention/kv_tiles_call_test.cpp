// SPDX-License-Identifier: Apache-2.0
// Attention over caches in tiles of 8, 4 and 2 bits: against the oracle on what the tiles decode to.
#include "call.hpp"

#include <tern/formats/kv_two_bits.hpp>

namespace tern::test {
namespace {

template <class Format>
struct tiled_cache {
  index stride;
  std::vector<std::byte> memory;
  kv_tiles<Format> tiles;
  std::vector<double> decoded;

  tiled_cache(rng& r, index heads, index tokens, index dim)
      : stride(kv_tiles<Format>::bytes(tokens, dim)),
        memory(static_cast<std::size_t>(heads * stride)),
        tiles{memory.data(), heads, tokens, dim, stride} {
    index const room = (tokens + 63) / 64 * 64;
    std::vector<float> x(static_cast<std::size_t>(heads * room * dim));
    for (float& e : x) e = static_cast<float>(r.normal());
    for (index h = 0; h < heads; ++h)
      for (index t = 0; t < room; ++t)
        for (index b = 0; b < dim / 32; ++b) {
          float const* const at = x.data() + (h * room + t) * dim + 32 * b;
          if constexpr (Format::keys && Format::bits == 2) {
            if (t % 64 == 0) Format::encode_tokens(at, dim, dim, b, tiles.tile(h, t));
          } else {
            Format::encode(at, dim, b, t % 64, tiles.tile(h, t));
          }
        }
    for (index h = 0; h < heads; ++h)
      for (index t = 0; t < tokens; ++t) {
        tiles.decode(h, t, x.data());
        decoded.insert(decoded.end(), x.data(), x.data() + dim);
      }
  }
};

/// What tile_kernels.hpp states for integer products, added up for one row without any help of chance: each score is off by at most
/// sum over blocks of (max |q| / 254) sum |k|, so a weight by a factor of e^(2 delta), and the integer weights by half a step in each
/// tile (of 2 bits: each block of keys): P / 510 times what its tokens hold at most.
/// With keys of 2 bits, a score is off by (max over elements of |q| d) / 254 for each step of its codes, d the step of an element in a
/// tile.
struct tile_bound {
  double delta = 0;             // of scores
  index tokens;                 // in a tile, or a block of keys
  std::vector<double> largest;  // P of each
  tile_bound(int bits, double const* q, double const* k, index keys, index dim, double scale, std::function<bool(index)> const& seen)
      : tokens(bits == 2 ? tern::detail::key_block : 64), largest(static_cast<std::size_t>((keys + tokens - 1) / tokens)) {
    std::vector<double> p(static_cast<std::size_t>(keys));
    double sum = 0;
    for (index j = 0; j < keys; ++j) {
      if (!seen(j)) continue;
      double score = 0, off = 0;
      if (bits == 2) off = two_bit_error(q, k, keys, dim, j);
      for (index b = 0; b < dim; b += 32) {
        double most = 0, all = 0;
        for (index e = b; e < b + 32; ++e) {
          most = std::max(most, std::abs(q[e]));
          all += std::abs(k[j * dim + e]);
          score += q[e] * k[j * dim + e];
        }
        if (bits != 2) off += most / 254 * all;
      }
      delta = std::max(delta, scale * off);
      sum += p[static_cast<std::size_t>(j)] = std::exp(scale * score);
    }
    find_largest(p, sum);
  }

 private:
  static double two_bit_error(double const* q, double const* k, index keys, index dim, index j) {
    double most = 0, steps = 0;
    for (index e = 0; e < dim; ++e) {
      double low = k[j * dim + e], high = low;
      for (index t = j / 64 * 64; t < keys && t < j / 64 * 64 + 64; ++t) {
        low = std::min(low, k[t * dim + e]);
        high = std::max(high, k[t * dim + e]);
      }
      // Where not all tokens of the tile are keys, codes may begin above 0 and end below 3.
      bool const whole = j / 64 * 64 + 64 <= keys;
      double const step = high > low ? (whole ? (high - low) / 3 : 1.5) : 0;
      most = std::max(most, std::abs(q[e]) * step);
      steps += step > 0 ? (whole ? (k[j * dim + e] - low) / step : 3) : 0;
    }
    return most / 254 * steps;
  }
  void find_largest(std::vector<double> const& p, double sum) {
    for (index j = 0; j < static_cast<index>(p.size()); ++j) {
      double& most = largest[static_cast<std::size_t>(j / tokens)];
      most = std::max(most, p[static_cast<std::size_t>(j)] / sum);
    }
  }
};

/// Few queries take integer products, many f32 products of the decoded numbers.
template <class Keys, class Values>
void check_tiles(index tokens, index keys, index window_length) {
  rng r(31);
  index const heads = 4, kv_heads = 2, dim = 64, dim_v = 96;
  double const scale = 1 / std::sqrt(static_cast<double>(dim));
  cache<float> q(r, heads, tokens, dim), out(heads, tokens, dim_v);
  tiled_cache<Keys> k(r, kv_heads, keys, dim);
  tiled_cache<Values> v(r, kv_heads, keys, dim_v);
  auto seen = [=](index i, index j) { return j <= i + keys - tokens && j > i + keys - tokens - window_length; };
  auto const queries = q.values();
  auto const want = oracle::attention(queries, k.decoded, v.decoded, {heads, kv_heads, tokens, keys, dim, dim_v, scale, 0, seen});
  attention(cpu.on(several_threads()), q.view, k.tiles, v.tiles, out.view, causal{}, window{window_length});

  double most_v = 0;
  for (double x : v.decoded) most_v = std::max(most_v, std::abs(x));
  bool const integers = tokens * heads / kv_heads <= tern::detail::query_stream_rows;
  std::vector<double> magnitude;
  for (index row = 0; row < heads * tokens; ++row) {
    tile_bound const bound(Keys::bits, queries.data() + row * dim, k.decoded.data() + row / tokens / (heads / kv_heads) * keys * dim, keys,
                           dim, scale, [&](index j) { return seen(row % tokens, j); });
    double steps = 0;
    for (double p : bound.largest)
      steps += std::exp(2 * bound.delta) * p * static_cast<double>(bound.tokens) * most_v / (Values::bits == 2 ? 510 / 2. : 510);
    for (index d = 0; d < dim_v; ++d) {
      auto const at = static_cast<std::size_t>(row * dim_v + d);
      double const exact = (attention_accuracy::b0 + std::sqrt(static_cast<double>(dim)) * want.growth[static_cast<std::size_t>(row)] +
                            std::sqrt(static_cast<double>(keys))) *
                           0x1p-24;
      magnitude.push_back(want.magnitude[at] * (exact + (integers ? std::expm1(2 * bound.delta) : 0)) + (integers ? steps : 0));
    }
  }
  CAPTURE(tokens, keys, window_length);
  CHECK(compare(out.view, want.value, magnitude, 1));
}

TEST_CASE("attention over tiles of 8, 4 and 2 bits") {
  for (index tokens : {1, 3, 8, 16, 40})
    for (index keys : {40, 64, 129, 700}) {
      check_tiles<formats::keys8, formats::values8>(tokens, keys, keys + 1);
      check_tiles<formats::keys8, formats::values8>(tokens, keys, 33);
      check_tiles<formats::keys4, formats::values4>(tokens, keys, keys + 1);
      check_tiles<formats::keys2, formats::values2>(tokens, keys, keys + 1);
    }
}

/// Where scales have no step, codes do not count, and nothing is rounded: the minima alone make scores and sums.
TEST_CASE("attention over tiles of 2 bits: what has no step is exact") {
  using formats::keys2, formats::values2;
  constexpr index heads = 2, keys = 128, dim = 64;
  rng r(32);
  std::vector<float> const q = r.normal<float>(heads * dim), channel = r.normal<float>(2 * dim), level = r.normal<float>(keys * 2);
  std::vector<std::byte> k(static_cast<std::size_t>(2 * keys2::tile_bytes(dim))), v(static_cast<std::size_t>(2 * values2::tile_bytes(dim)));
  std::vector<double> key, value;  // (keys, dim), rounded to f16
  for (index t = 0; t < keys; ++t)
    for (index e = 0; e < dim; ++e) {
      key.push_back(static_cast<double>(static_cast<float>(f16(channel[static_cast<std::size_t>(t / 64 * dim + e)]))));
      value.push_back(static_cast<double>(static_cast<float>(f16(level[static_cast<std::size_t>(t * 2 + e / 32)]))));
    }
  std::vector<float> const rows(key.begin(), key.end()), levels(value.begin(), value.end());
  for (index t = 0; t < keys; ++t)
    for (index b = 0; b < 2; ++b) {
      if (t % 64 == 0) keys2::encode_tokens(rows.data() + t * dim + 32 * b, dim, dim, b, k.data() + t / 64 * keys2::tile_bytes(dim));
      values2::encode(levels.data() + t * dim + 32 * b, dim, b, t % 64, v.data() + t / 64 * values2::tile_bytes(dim));
    }
  std::vector<float> out(static_cast<std::size_t>(heads * dim));
  attention(cpu, view(q.data(), heads, index{1}, dim), kv_tiles<keys2>{k.data(), 1, keys, dim, 0},
            kv_tiles<values2>{v.data(), 1, keys, dim, 0}, view(out.data(), heads, index{1}, dim));
  std::vector<double> const queries(q.begin(), q.end());
  auto const want = oracle::attention(queries, key, value, {heads, 1, 1, keys, dim, dim, 0.125, 0, [](index, index) { return true; }});
  std::vector<double> magnitude = want.magnitude;
  for (std::size_t i = 0; i < magnitude.size(); ++i)
    magnitude[i] *= (attention_accuracy::b0 + 8 * want.growth[i / dim] + std::sqrt(static_cast<double>(keys))) * 0x1p-24;
  CHECK(compare(std::span<float const>(out), want.value, magnitude, 1));
}

/// Rows share the walk over a tile, and nothing else.
TEST_CASE("attention over tiles of 2 bits: a query that is no number leaves the others as they are") {
  constexpr index heads = 4, keys = 130, dim = 64;
  rng r(33);
  tiled_cache<formats::keys2> const k(r, 1, keys, dim);
  tiled_cache<formats::values2> const v(r, 1, keys, dim);
  std::vector<float> q = r.normal<float>(heads * dim);
  auto const results = [&] {
    std::vector<float> out(static_cast<std::size_t>(heads * dim));
    attention(cpu, view(q.data(), heads, index{1}, dim), k.tiles, v.tiles, view(out.data(), heads, index{1}, dim));
    return out;
  };
  std::vector<float> const finite = results();
  for (float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()})
    for (index h = 0; h < heads; ++h) {
      float const good = std::exchange(q[static_cast<std::size_t>(h * dim + 5)], bad);
      std::vector<float> const got = results();
      q[static_cast<std::size_t>(h * dim + 5)] = good;
      for (index i = 0; i < heads * dim; ++i) {
        float const x = got[static_cast<std::size_t>(i)];
        CHECK((i / dim == h ? std::isnan(x) : x == finite[static_cast<std::size_t>(i)]));
      }
    }
}

}  // namespace
}  // namespace tern::test

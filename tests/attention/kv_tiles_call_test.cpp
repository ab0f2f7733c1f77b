// SPDX-License-Identifier: Apache-2.0
// Attention over caches in tiles of 8 and 4 bits: against the oracle on what the tiles decode to.
#include "call.hpp"

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
    std::vector<float> x(static_cast<std::size_t>(heads * tokens * dim));
    for (float& e : x) e = static_cast<float>(r.normal());
    tiles.append(0, view(x.data(), heads, tokens, dim));
    for (index h = 0; h < heads; ++h)
      for (index t = 0; t < tokens; ++t) {
        tiles.decode(h, t, x.data());
        decoded.insert(decoded.end(), x.data(), x.data() + dim);
      }
  }
};

/// What tile_kernels.hpp states for integer products, added up for one row without any help of chance: each score is off by at most
/// sum over blocks of (max |q| / 254) sum |k|, so a weight by a factor of e^(2 delta), and the integer weights by half a step in each
/// tile: P / 510 times what its tokens hold at most.
struct tile_bound {
  double delta = 0;             // of scores
  std::vector<double> largest;  // P of each tile
  tile_bound(double const* q, double const* k, index keys, index dim, double scale, std::function<bool(index)> const& seen)
      : largest(static_cast<std::size_t>((keys + 63) / 64)) {
    std::vector<double> p(static_cast<std::size_t>(keys));
    double sum = 0;
    for (index j = 0; j < keys; ++j) {
      if (!seen(j)) continue;
      double score = 0, off = 0;
      for (index b = 0; b < dim; b += 32) {
        double most = 0, all = 0;
        for (index e = b; e < b + 32; ++e) {
          most = std::max(most, std::abs(q[e]));
          all += std::abs(k[j * dim + e]);
          score += q[e] * k[j * dim + e];
        }
        off += most / 254 * all;
      }
      delta = std::max(delta, scale * off);
      sum += p[static_cast<std::size_t>(j)] = std::exp(scale * score);
    }
    for (index j = 0; j < keys; ++j) {
      double& most = largest[static_cast<std::size_t>(j / 64)];
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
    tile_bound const bound(queries.data() + row * dim, k.decoded.data() + row / tokens / (heads / kv_heads) * keys * dim, keys, dim, scale,
                           [&](index j) { return seen(row % tokens, j); });
    double steps = 0;
    for (double p : bound.largest) steps += std::exp(2 * bound.delta) * p / 510 * 64 * most_v;
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

TEST_CASE("attention over tiles of 8 and 4 bits") {
  for (index tokens : {1, 3, 8, 16, 40})
    for (index keys : {40, 64, 129, 700}) {
      check_tiles<formats::keys8, formats::values8>(tokens, keys, keys + 1);
      check_tiles<formats::keys8, formats::values8>(tokens, keys, 33);
      check_tiles<formats::keys4, formats::values4>(tokens, keys, keys + 1);
    }
}

}  // namespace
}  // namespace tern::test

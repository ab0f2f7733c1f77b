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
      : stride(kv_tiles<Format>::bytes(tokens, dim)), memory(static_cast<std::size_t>(heads * stride)), tiles{memory.data(), heads, tokens, dim, stride} {
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

/// Few queries take integer products: each score is off by at most (max |q| / 254) sum |k| in a block of 32, and each weight by half
/// of 1/255 of the largest in its tile. Many queries take f32 products of the decoded numbers.
template <class Keys, class Values>
void check_tiles(index tokens, index keys, index window_length) {
  rng r(31);
  index const heads = 4, kv_heads = 2, dim = 64, dim_v = 96;
  cache<float> q(r, heads, tokens, dim), out(heads, tokens, dim_v);
  tiled_cache<Keys> k(r, kv_heads, keys, dim);
  tiled_cache<Values> v(r, kv_heads, keys, dim_v);
  auto seen = [=](index i, index j) { return j <= i + keys - tokens && j > i + keys - tokens - window_length; };
  auto const want = oracle::attention(q.values(), k.decoded, v.decoded,
                                      {heads, kv_heads, tokens, keys, dim, dim_v, 1 / std::sqrt(static_cast<double>(dim)), 0, seen});
  attention(cpu.on(several_threads()), q.view, k.tiles, v.tiles, out.view, causal{}, window{window_length});

  bool const integers = tokens * heads / kv_heads <= 8;
  std::vector<double> magnitude;
  for (std::size_t row = 0; row < want.lse.size(); ++row)
    for (index d = 0; d < dim_v; ++d) {
      double const exact = (attention_accuracy::b0 + 8 * want.growth[row] + std::sqrt(static_cast<double>(keys))) * 0x1p-24;
      // |q| <= 4.5 and |v| <= 4.5 for these inputs; a block's rounding errors add up like the square root of their number.
      double const score = integers ? 4.5 / 254 * std::sqrt(static_cast<double>(dim)) / std::sqrt(static_cast<double>(dim)) * 4 : 0;
      double const weight = integers ? 64 * 4.5 / 510 : 0;
      auto const m = want.magnitude[row * static_cast<std::size_t>(dim_v) + static_cast<std::size_t>(d)];
      // e^(score error) - 1 of each weight, and the steps of the weights of all tiles, whose largest weight is at most 1 / sum.
      double const largest = std::exp(2.5 * 2.5) / std::exp(want.lse[row]);
      magnitude.push_back(m * (exact + 2 * std::expm1(score)) + weight * std::min(1.0, largest) * std::sqrt(static_cast<double>(keys) / 64 + 1));
    }
  CAPTURE(tokens, keys, window_length);
  CHECK(compare(out.view, want.value, magnitude, 1));
}

TEST_CASE("attention over tiles of 8 and 4 bits") {
  for (index tokens : {1, 3, 40})
    for (index keys : {40, 64, 129, 700}) {
      check_tiles<formats::keys8, formats::values8>(tokens, keys, keys + 1);
      check_tiles<formats::keys8, formats::values8>(tokens, keys, 33);
      check_tiles<formats::keys4, formats::values4>(tokens, keys, keys + 1);
    }
}

}  // namespace
}  // namespace tern::test

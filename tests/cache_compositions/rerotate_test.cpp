// SPDX-License-Identifier: Apache-2.0
// Keys that were rotated in float64 at one position are, after rerotate, what they are in float64 at the other.
#include "layer.hpp"
#include "turned.hpp"

#include <tern/cache/rerotate.hpp>

namespace tern::test::rerotate_tests {
namespace {

TEST_CASE("rerotate: many pages, a part of the elements, wherever the tokens move") {
  constexpr index heads = 2, tokens = 300, dim = 16, turning = 8;
  rng r(61);
  std::vector<float> plain = r.normal<float>(heads * tokens * dim), k = plain;
  auto const at = [](index h, index t) { return static_cast<std::size_t>((h * tokens + t) * dim); };
  for (index h = 0; h < heads; ++h)
    for (index t = 0; t < tokens; ++t) {
      auto const x = turned(&plain[at(h, t)], turning, static_cast<double>(t));
      for (std::size_t d = 0; d < x.size(); ++d) k[at(h, t) + d] = static_cast<float>(x[d]);
    }
  kv_cache<float> cache({.layers = 1, .kv_heads = heads, .dim = dim});
  auto const s = cache.open();
  cache.append(cpu, s, 0, view(k.data(), heads, tokens, dim), view(k.data(), heads, tokens, dim));
  std::vector<std::int32_t> ids(static_cast<std::size_t>(heads * tokens)), counts(heads);
  for (index h = 0; h < heads; ++h)
    for (std::int32_t t = 0; t < tokens; ++t)
      if (r.integer(0, 9) > (t / 50 + h) % 3 * 4)  // runs, and tokens one by one
        ids[static_cast<std::size_t>(h * tokens + counts[static_cast<std::size_t>(h)]++)] = t;
  cache.keep(cpu, s, 0, {view(ids.data(), heads, tokens), view(counts.data(), heads)});
  auto const other = cache.fork(s);
  rope_options const options{.pairing = rope_pairing::half, .dimensions = turning};
  rerotate(cpu.on(serial), cache, s, 0, 37, options);
  rerotate(three_threads(), cache, other, 0, 37, options);
  CHECK(cache.length(s, 0, 0) > 2 * page_rows);
  index wrong = 0;
  for (index h = 0; h < heads; ++h)
    for (index i = 0; i < cache.length(s, 0, h); ++i) {
      float got[dim], again[dim];
      cache.read_key(s, 0, h, i, got);
      cache.read_key(other, 0, h, i, again);
      float const* const from = &plain[at(h, ids[static_cast<std::size_t>(h * tokens + i)])];
      auto const want = turned(from, turning, static_cast<double>(37 + i));
      for (index d = 0; d < dim; ++d) {
        auto const a = std::abs(static_cast<double>(from[d % (turning / 2)])),
                   b = std::abs(static_cast<double>(from[d % (turning / 2) + turning / 2]));
        // Two rotations, of three roundings each, and two that store.
        double const right = d < turning ? want[static_cast<std::size_t>(d)] : static_cast<double>(from[d]),
                     bound = d < turning ? 8 * 0x1p-24 * (a + b) : 0;
        wrong += !(std::abs(static_cast<double>(got[d]) - right) <= bound) || got[d] != again[d];
      }
    }
  CHECK(wrong == 0);
  CHECK(cache.next_position(s) == 37 + cache.longest(s, 0));
}

}  // namespace
}  // namespace tern::test::rerotate_tests

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/rerotate.hpp
/// Rotated keys of a cache at other positions: what is left of a text, or a text that was read elsewhere, moves together.
///
///     rerotate(policy, cache, s, layer, first, options)     the tokens of each head stand at first, first + 1, ... from then on
///
///     k' = rotate(k, new position - old position)           options as the keys were rotated with (pointwise/rope.hpp)
///
/// A rotation by p and one by d make one by p + d, so that k' is what rotating at the new position had given, but for the rounding of
/// the cache's format, which comes in once more.
/// Memory    scratch from the policy: for each thread 64 keys and as many rows of a table.
/// Cost      reading and writing once each key that moves, and what rope_table costs for each distance of a page of 64: tokens that
///           follow each other mostly share theirs.
/// Source    "key rerotation" of FINCH (Corallo and Papotti 2024, arXiv:2408.00167); CacheBlend (arXiv:2405.16444).

#include <tern/cache/kv_cache.hpp>
#include <tern/pointwise/rope.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr struct rerotate_fn {
  template <class K, class V>
    requires(!written_by_page<K>)
  void operator()(cpu_policy const& policy, kv_cache<K, V>& cache, std::int32_t s, index layer, index first = 0,
                  rope_options options = {}) const {
    detail::expect(first >= 0 && first + cache.longest(s, layer) < (index{1} << 31) - detail::key_limit_slack, "rerotate", "first", first,
                   "positions below 2^31 - 1024");
    index const heads = cache.shape().kv_heads, dim = cache.shape().dim, d = options.dimensions != 0 ? options.dimensions : dim;
    detail::expect(d <= dim, "rerotate", "options.dimensions", d, "at most the dim of the cache");
    detail::expect_rope_options("rerotate", options, d);
    cache.own_pages(s, layer);
    options.magnitude = 1;
    index const pages = (cache.longest(s, layer) + page_rows - 1) / page_rows;
    index const size = page_rows * (2 * dim + 1);
    workspace::lease const scratch(policy.scratch(),
                                   static_cast<std::size_t>(detail::slots_for(policy, heads * pages) * size) * sizeof(float));
    detail::parallel_for(policy, heads * pages, [&](index item, index slot) TERN_LAMBDA {
      index const h = item / pages, t0 = item % pages * page_rows, left = cache.length(s, layer, h) - t0;
      if (left > 0)
        turn(policy.on(serial), cache, s, layer, h, t0, left < page_rows ? left : page_rows, first, options,
             reinterpret_cast<float*>(scratch.data()) + slot * size);
    });
    cache.renumber(s, layer, first);
  }

 private:
  /// Tokens t0, t0 + 1, ... of a page, run by run of those that move equally far.
  template <class Cache>
  static void turn(cpu_policy const& policy, Cache& cache, std::int32_t s, index layer, index h, index t0, index count, index first,
                   rope_options const& options, float* memory) {
    index const dim = cache.shape().dim, d = options.dimensions != 0 ? options.dimensions : dim;
    float* const rows = memory;                                                 // (page_rows, dim)
    float* const table = rows + page_rows * dim;                                // (runs, d)
    auto* const by = reinterpret_cast<std::int32_t*>(table + page_rows * dim);  // of each run
    auto const positions = cache.positions(s, layer, h);
    auto const distance = [&](index i) { return static_cast<std::int32_t>(first + t0 + i - index{positions[t0 + i]}); };
    index runs = 0;
    for (index i = 0; i < count; ++i)
      if (i == 0 || distance(i) != by[runs - 1]) by[runs++] = distance(i);
    rope_table(policy, tern::view(by, runs), tern::view(table, runs, d), options);
    for (index i = 0, run = 0, end; i < count; i = end, ++run) {
      for (end = i; end < count && distance(end) == by[run]; ++end)
        if (by[run] != 0) cache.read_key(s, layer, h, t0 + end, rows + end * dim);
      if (by[run] == 0) continue;
      tensor_view<float const, 2> const turns(table + run * d, shape<2>{{end - i, d}}, shape<2>{{0, 1}});
      rope(policy, tern::view(rows + i * dim, end - i, dim), turns, {.pairing = options.pairing});
      for (index e = i; e < end; ++e) cache.write_key(s, layer, h, t0 + e, rows + e * dim);
    }
  }
} rerotate{};

}  // namespace TERN_ABI
}  // namespace tern

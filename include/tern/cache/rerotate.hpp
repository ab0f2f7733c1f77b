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
/// Cost      reading and writing each key once, and what rope_table costs for each token and head.
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
    cache.own_pages(s, layer);
    options.magnitude = 1;
    for (index h = 0; h < cache.shape().kv_heads; ++h)
      for (index t0 = 0, length = cache.length(s, layer, h); t0 < length; t0 += page_rows)
        turn(policy, cache, s, layer, h, t0, length - t0 < page_rows ? length - t0 : page_rows, cache.shape().dim, first, options);
    cache.renumber(s, layer, first);
  }

 private:
  template <class Cache>
  static void turn(cpu_policy const& policy, Cache& cache, std::int32_t s, index layer, index h, index t0, index count, index dim,
                   index first, rope_options const& options) {
    workspace::lease const scratch(policy.scratch(), static_cast<std::size_t>(page_rows * (dim + 1)) * sizeof(float));
    auto const rows = tern::view(reinterpret_cast<float*>(scratch.data()), count, dim);
    auto const by = tern::view(reinterpret_cast<std::int32_t*>(rows.data() + page_rows * dim), count);
    for (index i = 0; i < count; ++i) {
      cache.read_key(s, layer, h, t0 + i, &rows(i, 0));
      by[i] = static_cast<std::int32_t>(first + t0 + i - index{cache.positions(s, layer, h)[t0 + i]});
    }
    rope(policy, rows, by, options);
    for (index i = 0; i < count; ++i) cache.write_key(s, layer, h, t0 + i, &rows(i, 0));
  }
} rerotate{};

}  // namespace TERN_ABI
}  // namespace tern

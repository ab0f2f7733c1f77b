// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/append_chunk.hpp
/// A text that was read by itself, behind another: its keys turn to where it now stands.
///
///     append_chunk(policy, from, chunk, layer, to, s, options)       all tokens of sequence `chunk`, behind those of `s`
///
///     position' = position + d,  k' = rotate(k, d),    d = the next position of s - the first position of the chunk
///
/// `from` and `to` may be one cache; options as the keys were rotated with (pointwise/rope.hpp). What the tokens would know of the text
/// before them had they been read there, they do not: CacheBlend and Cache-Craft mend that (cache/methods/).
///
/// Rounding  that of the formats, once more; where d is 0, the bits of f32, f16 and bf16 stay.
/// Errors    heads of the chunk with different numbers of tokens; what copy_tokens refuses.
/// Cost      reading, turning and writing each token once.
/// Source    CacheBlend (arXiv:2405.16444), Cache-Craft (arXiv:2502.15734).

#include <tern/cache/copy_tokens.hpp>
#include <tern/pointwise/rope.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr struct append_chunk_fn {
  template <class From, class To>
  void operator()(cpu_policy const& policy, From const& from, std::int32_t chunk, index layer, To& to, std::int32_t s,
                  rope_options options = {}) const {
    index const heads = from.shape().kv_heads, dim = from.shape().dim, length = from.longest(chunk, layer);
    static_cast<void>(to.longest(s, layer));  // fails unless it is open
    for (index h = 0; h < heads; ++h)
      detail::expect_equal("append_chunk", "the tokens of a head", from.length(chunk, layer, h), "those of the longest", length);
    if (length == 0) return;
    options.magnitude = 1;
    index const turned = options.dimensions != 0 ? options.dimensions : dim,
                by = to.next_position(s, layer) - from.positions(chunk, layer, 0)[0];
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(turned + length + heads) * sizeof(float));
    auto const table = tern::view(reinterpret_cast<float*>(memory.data()), index{1}, turned);
    rope_table(policy, by, table, options);
    index_lists const all = consecutive_tokens(reinterpret_cast<std::int32_t*>(table.data() + turned), heads, 0, length);
    copy_tokens(
        policy, from, chunk, layer, all, to, s,
        [&](index, tensor_view<float, 2> const& keys, tensor_view<float, 2> const& into, tensor_view<std::int32_t, 1> const& positions) {
          index const count = keys.extent(0);
          rope(policy, keys, into, tensor_view<float const, 2>(table.data(), shape<2>{{count, turned}}, shape<2>{{0, 1}}), options);
          for (index i = 0; i < count; ++i) positions[i] += static_cast<std::int32_t>(by);
        });
  }
} append_chunk{};

}  // namespace TERN_ABI
}  // namespace tern

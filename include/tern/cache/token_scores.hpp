// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/token_scores.hpp
/// Memory for what a method thinks of the tokens of a layer: two numbers and a place in a list for each token of each key head, from the
/// policy's scratch.

#include <tern/attention/index_lists.hpp>
#include <tern/core/policy.hpp>

namespace tern {
inline namespace TERN_ABI {

/// Scores of tokens and a list of some of them: see the top of this file.
class token_scores {
 public:
  token_scores(cpu_policy const& policy, index kv_heads, index keys)
      : memory_(policy.scratch(), static_cast<std::size_t>(3 * kv_heads * keys + kv_heads) * 4) {
    auto* const at = reinterpret_cast<float*>(memory_.data());
    auto* const ids = reinterpret_cast<std::int32_t*>(at + 2 * kv_heads * keys);
    first = tern::view(at, kv_heads, keys);
    second = tern::view(at + kv_heads * keys, kv_heads, keys);
    kept = {tern::view(ids, kv_heads, keys), tern::view(ids + kv_heads * keys, kv_heads)};
  }

  tensor_view<float, 2> first, second;  ///< (kv_heads, keys)
  index_lists kept;                     ///< a row for each key head, with room for all keys

 private:
  workspace::lease memory_;
};

}  // namespace TERN_ABI
}  // namespace tern

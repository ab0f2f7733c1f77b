// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/encoder/token_memory.hpp
/// Memory for what reductions of tokens need, which grows to what was needed most.

#include <tern/tokens/token_map.hpp>

#include <cstdint>
#include <vector>

namespace encoder {

/// Lists, pairs and maps of tokens.
class map_memory {
 public:
  tern::token_map map(tern::index texts, tern::index tokens) { return {numbers(to_, texts, tokens), numbers(map_counts_, texts)}; }
  tern::index_lists list(tern::index texts, tern::index most) { return {numbers(kept_, texts, most), numbers(kept_counts_, texts)}; }
  tern::token_pairs pairs(tern::index texts, tern::index most) {
    similarity_.resize(static_cast<std::size_t>(texts * most));
    return {numbers(first_, texts, most), numbers(second_, texts, most), tern::view(similarity_.data(), texts, most),
            numbers(pair_counts_, texts)};
  }

 private:
  template <class... Extents>
  static tern::tensor_view<std::int32_t, sizeof...(Extents)> numbers(std::vector<std::int32_t>& memory, Extents... extents) {
    memory.resize(static_cast<std::size_t>((extents * ...)));
    return tern::view(memory.data(), extents...);
  }
  std::vector<std::int32_t> to_, map_counts_, kept_, kept_counts_, first_, second_, pair_counts_;
  std::vector<float> similarity_;
};

/// Tokens on their way, with their keys and sizes.
class token_memory {
 public:
  struct views {
    tern::tensor_view<float, 3> x, keys;
    tern::tensor_view<float, 2> sizes;
  };
  /// `tokens` of each text instead of as many as x has.
  views like(tern::tensor_view<float const, 3> const& x, tern::index tokens) {
    tern::index const texts = x.extent(0), width = x.extent(2);
    for (auto* const memory : {&x_, &keys_}) memory->resize(static_cast<std::size_t>(texts * tokens * width));
    sizes_.resize(static_cast<std::size_t>(texts * tokens));
    return {tern::view(x_.data(), texts, tokens, width), tern::view(keys_.data(), texts, tokens, width),
            tern::view(sizes_.data(), texts, tokens)};
  }

 private:
  std::vector<float> x_, keys_, sizes_;
};

}  // namespace encoder

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/encoder/token_memory.hpp
/// Memory for what reductions of tokens need, which grows to what was needed most.

#include <tern/tokens/token_map.hpp>

#include <cstdint>
#include <vector>

namespace encoder {

/// Lists and maps of tokens.
class map_memory {
 public:
  tern::token_map map(tern::index texts, tern::index tokens) { return {rows(to_, texts, tokens), counts(map_counts_, texts)}; }
  tern::index_lists list(tern::index texts, tern::index most) { return {rows(kept_, texts, most), counts(kept_counts_, texts)}; }

 private:
  using numbers = std::vector<std::int32_t>;
  static tern::tensor_view<std::int32_t, 2> rows(numbers& memory, tern::index texts, tern::index each) {
    memory.resize(static_cast<std::size_t>(texts * each));
    return tern::view(memory.data(), texts, each);
  }
  static tern::tensor_view<std::int32_t, 1> counts(numbers& memory, tern::index texts) {
    memory.resize(static_cast<std::size_t>(texts));
    return tern::view(memory);
  }
  numbers to_, map_counts_, kept_, kept_counts_;
};

/// Tokens on their way, with their sizes.
class token_memory {
 public:
  struct views {
    tern::tensor_view<float, 3> x;      // (texts, tokens, width)
    tern::tensor_view<float, 2> sizes;  // (texts, tokens)
  };
  /// `tokens` of each text instead of as many as x has.
  views like(tern::tensor_view<float const, 3> const& x, tern::index tokens) {
    tern::index const texts = x.extent(0), width = x.extent(2);
    x_.resize(static_cast<std::size_t>(texts * tokens * width));
    sizes_.resize(static_cast<std::size_t>(texts * tokens));
    return {tern::view(x_.data(), texts, tokens, width), tern::view(sizes_.data(), texts, tokens)};
  }

 private:
  std::vector<float> x_, sizes_;
};

}  // namespace encoder

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/borrowed.hpp
/// Lists, maps and pairs of tokens in scratch memory, borrowed until they go out of scope (core/steps.hpp).

#include <tern/core/steps.hpp>
#include <tern/tokens/token_map.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// A list for each sample, with room for `most` tokens.
template <class Steps>
struct borrowed_lists {
  using numbers = decltype(borrow<std::int32_t>(std::declval<Steps&>(), index{}));
  borrowed_view<std::int32_t, 2, decltype(numbers::memory)> ids;
  numbers counts;
  index_lists view;
  TERN_INLINE borrowed_lists(Steps& steps, index samples, index most)
      : ids(steps, samples, most), counts(steps, samples), view{ids.view, counts.view} {}
};

/// A map of each sample's tokens.
template <class Steps>
struct borrowed_map {
  borrowed_lists<Steps> memory;
  token_map view;
  TERN_INLINE borrowed_map(Steps& steps, index samples, index tokens)
      : memory(steps, samples, tokens), view{memory.ids.view, memory.counts.view} {}
};

/// Room for `most` pairs of each sample.
template <class Steps>
struct borrowed_pairs {
  borrowed_lists<Steps> from;
  decltype(borrowed_lists<Steps>::ids) to;
  decltype(borrow<float>(std::declval<Steps&>(), index{}, index{})) similarity;
  token_pairs view;
  TERN_INLINE borrowed_pairs(Steps& steps, index samples, index most)
      : from(steps, samples, most),
        to(steps, samples, most),
        similarity(steps, samples, most),
        view{from.ids.view, to.view, similarity.view, from.counts.view} {}
};

}  // namespace TERN_ABI
}  // namespace tern::detail

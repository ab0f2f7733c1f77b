// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/select_tokens.hpp
/// Which tokens of a cache stay: those with the largest scores, and some that always do.
///
///     select_tokens(scores, budget, protect{4, 32}, kept)            each key head its own `budget` tokens (tokens/select_tokens.hpp)
///     select_tokens_together(scores, budget, protect, share, kept)   kv_heads * budget tokens, wherever the scores are largest, but at
///                                                                    least share * budget in each head
///
/// Shapes    scores (kv_heads, keys) f32; kept a row for each key head, with a place for each key.
/// Protected the first and the last tokens of a head count as larger than any score; where the budget has no room for both, the last
///           stay. Where a head has fewer tokens than the longest, its scores end with -inf: such are never kept, and "last" means before
///           them.
/// Ties      go to the earlier head, and in it to the earlier token. The result follows from the scores alone.
/// Cost      as select_top, for each head and for all together.
/// Source    the idea is Ada-KV's (Feng et al. 2024, arXiv:2407.11550), the share for each head kvpress's AdaKVPress.

#include <tern/tokens/select_tokens.hpp>

namespace tern {

namespace detail {

/// Makes the scores of protected tokens +inf.
TERN_INLINE void mark_protected(tensor_view<float, 1> const& scores, index budget, protect const& p) {
  protected_tokens const of(scores, budget, p);
  for (index j = 0; j < of.first; ++j) scores[j] = __builtin_inff();
  for (index j = of.length - of.last; j < of.length; ++j) scores[j] = __builtin_inff();
}

}  // namespace detail

/// kv_heads * budget tokens of all heads together, at least `share` of the budget from each: see the top of this file. Scores of protected
/// tokens, and of each head's share, become +inf.
TERN_INLINE void select_tokens_together(tensor_view<float, 2> const& scores, index budget, protect const& always, float share,
                                        index_lists const& kept) {
  constexpr char const* op = "select_tokens_together";
  index const heads = scores.extent(0), keys = scores.extent(1);
  detail::expect(budget >= 0, op, "budget", budget, "at least 0");
  detail::expect_share(op, "share in percent", static_cast<double>(share));
  detail::expect(scores.is_contiguous(), op, "scores.stride(0)", scores.stride(0), "scores.extent(1) (rows without gaps)");
  detail::check_room(op, heads, kept);
  detail::expect(kept.most() >= keys, op, "the room of kept", kept.most(), "a place for each key");
  auto const safe = static_cast<index>(share * static_cast<float>(budget));
  for (index h = 0; h < heads; ++h) {
    detail::mark_protected(scores[h], budget, always);
    index const count = select_top(scores[h], safe, kept.room(h));
    for (index i = 0; i < count; ++i) scores(h, kept.row(h)[i]) = __builtin_inff();
  }
  index const all = heads * keys, wanted = budget < keys ? heads * budget : all;
  tensor_view<float const, 1> const flat(scores.data(), shape<1>{{all}});
  detail::kth_score const last(flat, wanted > 0 ? wanted : 1);
  index equal = last.equal;
  for (index h = 0; h < heads; ++h) {
    index count = 0;
    for (index j = 0; j < keys && wanted > 0; ++j) {
      std::uint32_t const x = detail::order_of(scores(h, j));
      if (x == 0 || x < last.order || (x == last.order && equal-- <= 0)) continue;
      kept.row(h)[count++] = static_cast<std::int32_t>(j);
    }
    kept.counts[h] = static_cast<std::int32_t>(count);
  }
}

}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/lserve.hpp
/// LServe: Efficient Long-sequence LLM Serving with Unified Sparse Attention (Yang et al. 2025, arXiv:2502.14866).
///
/// Key heads are of two kinds, and so are the heads that share them. Streaming heads see the first and the latest keys, whole blocks or
/// pages of them; retrieval heads see, in a prompt, all keys or what another pattern finds, and while decoding `pages` of the cache:
///
///     prompt    o = minference(..., patterns) with lserve_pattern(streaming, retrieval pattern) for each head
///     decoding  score of a page = max over its logical pages and the heads that share it of sum_d max(q_d low_d, q_d high_d)
///               selected = the `recent` latest pages, and those with the largest scores, `pages` together
///               o = softmax over the keys of the selected pages
///
/// A selection is used for `interval` steps; a page begun since then joins it.
///
///     lserve_select(policy, q, low, high, table, page, keys, streaming, budget, step, selected);    before each step and sequence
///     lserve_decode(policy, q, k, v, out, selected, options...);                                    one token of each sequence
///
/// Shapes    lserve_select: q (heads, dim) of one sequence; low, high (pages, k_heads, logical pages, dim) as page_bounds keeps them;
///           table the pool pages of the sequence; `page` keys a page, `keys` of the sequence, the token's own included; streaming one
///           bool a key head; selected a row a key head, of lserve_room(budget, page) pages.
///           lserve_decode: q, out (batch, heads, 1, dim), k, v paged; selected row b * k_heads + h.
/// Memory    scratch from the policy: a score for each key head and page.
/// Cost      page_scores every `interval` steps; attention over `pages` pages at each, whatever the length of the context.
/// Error     attention_accuracy, for the keys that are seen.
/// Ties      go to the earlier page.
/// Source    the paper; defaults from the evaluation scripts of its authors (omniserve): sink 128 and local 4096 tokens in prompts, sink
///           128 and local 256 while decoding, a budget of 4096 tokens in pages of 64, 4 logical pages each, interval 4.

#include <tern/attention/estimators/page_bounds.hpp>
#include <tern/attention/gathered.hpp>
#include <tern/attention/systems/minference.hpp>

namespace tern {

/// What decoding looks at, in pages.
struct lserve_budget {
  index pages = 64;           ///< of a retrieval head
  index recent = 1;           ///< of these, always the latest
  index sink = 2, local = 4;  ///< of a streaming head: the first and the latest
  index interval = 4;         ///< steps that a selection is used for
};

/// The pattern of a head for minference in prompts: streaming heads see `sink` and `local` tokens.
TERN_INLINE constexpr minference_head lserve_pattern(bool streaming, minference_head const& retrieval = {minference_pattern::dense},
                                                     index sink = 128, index local = 4096) {
  return streaming ? minference_head{minference_pattern::a_shape, sink, local} : retrieval;
}

/// How many pages a row of `selected` must hold: the budget, and those begun while it is used.
TERN_INLINE constexpr index lserve_room(lserve_budget const& budget, index page) {
  index const streaming = budget.sink + budget.local, begun = budget.interval / page + 2;
  return (budget.pages > streaming ? budget.pages : streaming) + begun;
}

namespace detail {
inline namespace TERN_ABI {

/// The first and the latest pages.
TERN_INLINE void select_ends(index pages, index sink, index local, index_lists const& to, index row) {
  index count = 0;
  for (index p = 0; p < pages; ++p) {
    if (p >= sink && p < pages - local) p = pages - local;
    if (p >= pages) break;
    expect(count < to.most(), "lserve_select", "the pages that a row of selected holds", to.most(), "lserve_room");
    to.row(row)[count++] = static_cast<std::int32_t>(p);
  }
  to.counts[row] = static_cast<std::int32_t>(count);
}

/// Pages begun since a selection was made join it.
TERN_INLINE void select_begun(index pages, index recent, index_lists const& to, index row) {
  index count = to.count(row);
  index p = count > 0 ? to.row(row)[count - 1] + 1 : 0;
  if (p < pages - recent) p = pages - recent;
  for (; p < pages; ++p) {
    expect(count < to.most(), "lserve_select", "the pages that a row of selected holds", to.most(), "lserve_room");
    to.row(row)[count++] = static_cast<std::int32_t>(p);
  }
  to.counts[row] = static_cast<std::int32_t>(count);
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// lserve_select(policy, q, low, high, table, page, keys, streaming, budget, step, selected): see the top of this file.
inline constexpr struct lserve_select_fn {
  template <tensor_like Q>
  void operator()(cpu_policy const& policy, Q&& q, tensor_view<float const, 4> const& low, tensor_view<float const, 4> const& high,
                  tensor_view<std::int32_t const, 1> const& table, index page, index keys, bool const* streaming,
                  lserve_budget const& budget, index step, index_lists const& selected) const {
    index const k_heads = low.extent(1);
    detail::expect(page >= 1 && keys >= 1 && budget.interval >= 1, "lserve_select", "the page, the keys or the interval",
                   page < keys ? page : keys, "at least 1");
    detail::expect(budget.recent >= 1 && budget.local >= 1, "lserve_select", "the recent or the local pages",
                   budget.recent < budget.local ? budget.recent : budget.local, "at least 1");
    detail::expect(selected.rows() >= k_heads, "lserve_select", "the rows of selected", selected.rows(), "one for each key head");
    index const pages = detail::divide_up(keys, page);
    bool const anew = step % budget.interval == 0;
    workspace::lease const scratch(policy.scratch(), static_cast<std::size_t>(anew ? k_heads * pages : 0) * sizeof(float));
    auto const scores = tern::view(reinterpret_cast<float*>(scratch.data()), k_heads, pages);
    if (anew) page_scores(policy, q, low, high, table, page, keys, scores);
    for (index h = 0; h < k_heads; ++h) {
      if (streaming[h]) {
        detail::select_ends(pages, budget.sink, budget.local, selected, h);
      } else if (anew) {
        for (index p = pages < budget.recent ? 0 : pages - budget.recent; p < pages; ++p) scores(h, p) = -detail::negative_infinity;
        selected.counts[h] = static_cast<std::int32_t>(select_top(scores[h], budget.pages, selected.room(h)));
      } else {
        detail::select_begun(pages, budget.recent, selected, h);
      }
    }
  }
} lserve_select{};

/// lserve_decode(policy, q, k, v, out, selected, options...): see the top of this file.
inline constexpr struct lserve_decode_fn {
  template <tensor_like Q, class K, class V, tensor_like O, class... Options>
  void operator()(cpu_policy const& policy, Q&& q, paged<K> const& k, paged<V> const& v, O&& out, index_lists const& selected,
                  Options const&... options) const {
    static_assert(view_of<Q>::rank == 4, "tern: lserve_decode takes q (batch, heads, 1, dim)");
    auto const x = tern::view(q);
    index const page = k.pool.extent(2);
    attention(policy, q, k, v, out,
              gathered{selected, x.extent(1), k.pool.extent(1), x.extent(2), k.table.extent(1) * page, page, k.lengths}, options...);
  }
} lserve_decode{};

}  // namespace TERN_ABI
}  // namespace tern

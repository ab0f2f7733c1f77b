// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/methods/quest.hpp
/// Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference (Tang et al. 2024, arXiv:2406.10774).
///
/// The cache stays whole; each step reads the pages of 64 tokens that may matter to its query:
///
///     bound_p = sum_d max(q_d low_pd, q_d high_pd)        low, high: the least and the largest of each element of the page's keys, in
///                                                         bf16, rounded away from them
///     selected = the `pages` pages with the largest bounds, the last one always among them; of heads that share keys the largest counts
///     o = softmax over the keys of the selected pages
///
///     quest_state state(cache.shape());                                     for one layer of one sequence
///     quest_attention(policy, state, cache, s, layer, q, out, pages);       q, out (heads, 1, dim): one token, whose key is in the cache
///
/// Pages     are of 64 tokens, and the last one, however full, is one of `pages`.
/// Errors    heads of different lengths.
/// When      at each step of decoding, after the layer's append. What was appended, and nothing else, may have happened to the layer since
///           the last step; after keep, slide or truncate call state.reset(). A fork takes a copy of the state.
/// Keeps     everything: memory is that of the cache and 4 kv_heads dim bytes for each 64 tokens.
/// Cost      4 heads dim flop for each page, and attention over `pages` pages. The bounds of the last page are made anew each step.
/// Source    the paper; pages of 16 there.

#include <tern/attention/attention.hpp>
#include <tern/attention/estimators/page_bounds.hpp>
#include <tern/attention/gathered.hpp>
#include <tern/cache/kv_cache.hpp>

namespace tern {
inline namespace TERN_ABI {

/// Bounds of the pages of a layer: see the top of this file.
class quest_state {
 public:
  explicit quest_state(kv_shape const& shape) : heads_(shape.kv_heads), dim_(shape.dim) {}
  /// All pages have changed.
  void reset() { keys_ = 0; }

  /// Takes in what was appended to the layer.
  template <class K, class V>
  void update(cpu_policy const& policy, kv_cache<K, V> const& cache, std::int32_t s, index layer) {
    index const keys = cache.length(s, layer);
    if (keys < keys_) reset();
    for (index h = 1; h < heads_; ++h)
      detail::expect_equal("quest", "the tokens of a head", cache.length(s, layer, h), "those of the first", keys);
    index const pages = detail::divide_up(keys, page_rows);
    make_room(pages);
    workspace::lease const scratch(policy.scratch(), static_cast<std::size_t>(page_rows * dim_) * sizeof(float));
    auto* const rows = reinterpret_cast<float*>(scratch.data());
    for (index page = keys_ / page_rows; page < pages; ++page) {
      index const first = page * page_rows, count = keys - first < page_rows ? keys - first : page_rows;
      for (index h = 0; h < heads_; ++h) {
        for (index i = 0; i < count; ++i) cache.read_key(s, layer, h, first + i, rows + i * dim_);
        page_bounds(policy, tern::view(rows, index{1}, count, dim_), page_rows, head_bounds(page, h, 0), head_bounds(page, h, 1));
      }
    }
    keys_ = keys;
  }
  TERN_INLINE index pages() const { return detail::divide_up(keys_, page_rows); }
  TERN_INLINE index keys() const { return keys_; }
  /// (pages, kv_heads, 1, dim)
  TERN_INLINE tensor_view<bf16 const, 4> low() const { return bounds(0); }
  TERN_INLINE tensor_view<bf16 const, 4> high() const { return bounds(1); }

 private:
  /// Room for so many pages of each head, and for half as many again when it grows.
  void make_room(index pages) {
    if (pages <= room_) return;
    index const more = pages + pages / 2;
    detail::growing<bf16> bounds;
    bounds.reserve(heads_ * more * 2 * dim_);
    for (index h = 0; h < heads_; ++h)
      for (index i = 0; i < more * 2 * dim_; ++i) bounds.push(i < room_ * 2 * dim_ ? bounds_[h * room_ * 2 * dim_ + i] : bf16{});
    bounds_ = static_cast<detail::growing<bf16>&&>(bounds);
    room_ = more;
  }
  TERN_INLINE tensor_view<bf16, 3> head_bounds(index page, index h, index side) {
    return tern::view(bounds_.data() + ((h * room_ + page) * 2 + side) * dim_, index{1}, index{1}, dim_);
  }
  TERN_INLINE tensor_view<bf16 const, 4> bounds(index side) const {
    return {bounds_.data() + side * dim_, shape<4>{{pages(), heads_, 1, dim_}}, shape<4>{{2 * dim_, room_ * 2 * dim_, dim_, 1}}};
  }

  index heads_, dim_, keys_ = 0, room_ = 0;
  detail::growing<bf16> bounds_;  // (kv_heads, room, low and high, dim)
};

/// See the top of this file.
inline constexpr struct quest_attention_fn {
  template <class K, class V, tensor_like Q, tensor_like O>
  void operator()(cpu_policy const& policy, quest_state& state, kv_cache<K, V> const& cache, std::int32_t s, index layer, Q&& q, O&& out,
                  index pages) const {
    static_assert(view_of<Q>::rank == 3, "tern: quest_attention takes q (heads, 1, dim)");
    auto const x = tern::view(q);
    detail::expect_equal("quest_attention", "q.extent(1)", x.extent(1), "one token", 1);
    detail::expect(pages >= 1, "quest_attention", "pages", pages, "at least 1");
    state.update(policy, cache, s, layer);
    index const kv_heads = cache.shape().kv_heads, all = state.pages(), keys = state.keys();
    if (pages >= all) return attention(policy, x.expanded(), cache.keys(s, layer), cache.values(s, layer), tern::view(out).expanded());
    workspace::lease const scratch(policy.scratch(), static_cast<std::size_t>(kv_heads * (all + pages + 1) + all) * 4);
    auto const scores = tern::view(reinterpret_cast<float*>(scratch.data()), kv_heads, all);
    auto* const ids = reinterpret_cast<std::int32_t*>(scores.data() + kv_heads * all);
    index_lists const selected{tern::view(ids, kv_heads, pages), tern::view(ids + kv_heads * pages, kv_heads)};
    auto* const table = ids + kv_heads * (pages + 1);
    for (index p = 0; p < all; ++p) table[p] = static_cast<std::int32_t>(p);
    page_scores(policy, x.slice(1, 0, 1).transposed(0, 1)[0], state.low(), state.high(),
                tensor_view<std::int32_t const, 1>(table, shape<1>{{all}}), page_rows, keys, scores);
    for (index h = 0; h < kv_heads; ++h) {
      scores(h, all - 1) = __builtin_inff();
      selected.counts[h] = static_cast<std::int32_t>(select_top(scores[h], pages, selected.room(h)));
    }
    attention(policy, x.expanded(), cache.keys(s, layer), cache.values(s, layer), tern::view(out).expanded(),
              gathered_pages{selected, x.extent(0), kv_heads, 1, keys});
  }
} quest_attention{};

}  // namespace TERN_ABI
}  // namespace tern

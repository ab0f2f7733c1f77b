// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/prepacking.hpp
/// Prepacking: prompts of different lengths are packed into bins and prefilled side by side, each as if it were alone, and each one's
/// keys and values are handed to its cache afterwards.
///
///     tern::prepacking const plan(lengths, capacity, memory);           // memory: tern::prepacking::room(prompts) int32
///     plan.fill_positions(positions);                                   // 0, 1, ... from the start of each prompt again: for RoPE
///     tern::attention(policy, q, k, v, out, plan.layout(), tern::causal{});                      // all bins at once
///     tern::convert(policy, k.slice(1, plan.offset(p), plan.offset(p) + plan.length(p)), cache_of(p));    // unpack, of any prompt p
///
/// Tokens    prompt plan.prompt(s) is the s-th of the packed text, tokens [plan.cu()[s], plan.cu()[s + 1]); bin b holds the prompts
///           at places [plan.bin(b), plan.bin(b + 1)), at most `capacity` tokens. A caller whose memory holds one bin at a time runs them
///           one by one: plan.layout(b) on the tokens [plan.cu()[plan.bin(b)], plan.cu()[plan.bin(b + 1)]).
/// Planner   first-fit decreasing: prompts by falling length, equal ones as they come, each into the first bin with room; at most
///           11/9 of the least number of bins, + 6/9 (Dosa 2007). The capacity that the paper takes is the longest prompt.
/// Errors    a prompt longer than the capacity, too little memory.
/// Cost      of planning: prompts * bins comparisons; of attention: that of the prompts, no padding.
/// Source    Zhao et al. 2024 (arXiv:2404.09529): restarted positions and the block-diagonal causal mask; the authors' code packs
///           with a greedy best-fit in place of first-fit, which changes nothing but which prompts are neighbours.

#include <tern/attention/varlen.hpp>

namespace tern {

/// A packing of prompts into bins.
class prepacking {
 public:
  /// The int32 elements that a plan needs, which have to stay alive with it.
  TERN_INLINE static constexpr index room(index prompts) { return 5 * prompts + 2; }

  template <tensor_like L, tensor_like M>
  TERN_INLINE prepacking(L&& lengths, index capacity, M&& memory) : lengths_(tern::view(lengths)) {
    tensor_view<std::int32_t, 1> const all = tern::view(memory);
    index const n = prompts();
    detail::expect(all.extent(0) >= room(n), "prepacking", "the extent of memory", all.extent(0), "room(prompts)");
    index at = 0;
    auto take = [&](index count) {
      at += count;
      return all.slice(0, at - count, at);
    };
    order_ = take(n);
    bin_of_ = take(n);
    offset_ = take(n);
    cu_ = take(n + 1);
    bins_ = take(n + 1);
    place(capacity);
  }

  TERN_INLINE index prompts() const { return lengths_.extent(0); }
  TERN_INLINE index bins() const { return count_; }
  TERN_INLINE index tokens() const { return cu_[prompts()]; }
  /// The prompt that stands at a place of the packed text.
  TERN_INLINE index prompt(index place) const { return order_[place]; }
  /// The place of the first prompt of a bin.
  TERN_INLINE index bin(index b) const { return bins_[b]; }
  TERN_INLINE index length(index prompt) const { return lengths_[prompt]; }
  /// The first token of a prompt in the packed text, and so the first row of its keys and values.
  TERN_INLINE index offset(index prompt) const { return offset_[prompt]; }
  TERN_INLINE tensor_view<std::int32_t const, 1> cu() const { return cu_; }

  /// All bins side by side.
  TERN_INLINE varlen layout() const { return varlen(cu_); }
  /// One bin by itself.
  TERN_INLINE varlen layout(index b) const { return varlen(cu_.slice(0, bins_[b], bins_[b + 1] + 1)); }
  /// The position of each token within its prompt: int32 (tokens).
  template <tensor_like P>
  TERN_INLINE void fill_positions(P&& of_tokens) const {
    tensor_view<std::int32_t, 1> const positions = tern::view(of_tokens);
    detail::expect_equal("prepacking", "the extent of positions", positions.extent(0), "the tokens of all prompts", tokens());
    for (index s = 0; s < prompts(); ++s)
      for (index t = cu_[s]; t < cu_[s + 1]; ++t) positions[t] = static_cast<std::int32_t>(t - cu_[s]);
  }

 private:
  tensor_view<std::int32_t const, 1> lengths_;
  tensor_view<std::int32_t, 1> order_, bin_of_, offset_, cu_, bins_;
  index count_ = 0;

  /// Whether prompt a is placed before prompt b.
  TERN_INLINE bool earlier(index a, index b) const { return lengths_[a] != lengths_[b] ? lengths_[a] > lengths_[b] : a < b; }
  /// Shell's sort of the order.
  template <class Before>
  TERN_INLINE void sort(Before const& before) const {
    index const n = prompts();
    index gap = 1;
    while (gap < n / 3) gap = 3 * gap + 1;
    for (; gap > 0; gap /= 3)
      for (index i = gap; i < n; ++i) {
        std::int32_t const moved = order_[i];
        index j = i;
        for (; j >= gap && before(moved, order_[j - gap]); j -= gap) order_[j] = order_[j - gap];
        order_[j] = moved;
      }
  }
  TERN_INLINE void place(index capacity) {
    index const n = prompts();
    for (index p = 0; p < n; ++p) {
      detail::expect(lengths_[p] >= 0 && lengths_[p] <= capacity, "prepacking", "the length of a prompt", lengths_[p],
                     "at most the capacity");
      order_[p] = static_cast<std::int32_t>(p);
    }
    sort([&](index a, index b) { return earlier(a, b); });
    for (index i = 0; i < n; ++i) {  // bins_ holds how full each bin is
      index const p = order_[i];
      index b = 0;
      while (b < count_ && bins_[b] + lengths_[p] > capacity) ++b;
      if (b == count_) bins_[count_++] = 0;
      bins_[b] += lengths_[p];
      bin_of_[p] = static_cast<std::int32_t>(b);
    }
    sort([&](index a, index b) { return bin_of_[a] != bin_of_[b] ? bin_of_[a] < bin_of_[b] : earlier(a, b); });
    cu_[0] = 0;
    bins_[count_] = static_cast<std::int32_t>(n);
    for (index s = n; s-- > 0;) bins_[bin_of_[order_[s]]] = static_cast<std::int32_t>(s);
    for (index s = 0; s < n; ++s) {
      offset_[order_[s]] = cu_[s];
      cu_[s + 1] = cu_[s] + lengths_[order_[s]];
    }
  }
};

}  // namespace tern

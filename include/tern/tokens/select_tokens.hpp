// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/select_tokens.hpp
/// Which tokens of each sample stay: those with the largest scores, and some that always do.
///
///     select_tokens(policy, scores, budget, protect{4, 32}, kept)         `budget` tokens of each sample, first 4 and last 32 among them
///     select_tokens(policy, scores, budget, always, kept)                 those of a list for each sample among them
///     select_tokens_above(policy, scores, threshold, protect{1}, kept)    as many as are above the threshold
///
/// Shapes    scores (samples, tokens) f32; budget a number, or an int32 for each sample; always, kept index_lists with a row for each
///           sample, whose room is the most that it keeps, also of a larger budget.
/// Protected tokens count as larger than any score. Where the budget has no room for the first and the last, the last stay; where it has
///           none for a list, its first.
/// Ragged    where a sample has fewer tokens than the longest, its scores end with -inf: such are kept only where a list says so, and
///           "last" means before them.
/// Ties      go to the earlier token. The result follows from the scores alone.
/// Errors    a budget below 0, rows of kept that are missing, a list that does not ascend, kept where the budget or a list lies.
/// Memory    none; with a list, a copy of the scores from the policy.
/// Cost      as select_top (pointwise/select_top.hpp).

#include <tern/attention/index_lists.hpp>
#include <tern/core/overlap.hpp>
#include <tern/pointwise/rows.hpp>

namespace tern {

/// Tokens that stay whatever their scores.
struct protect {
  index first = 0, last = 0;
};

/// How many tokens each sample keeps: as many as the others, or a number of its own.
struct token_budget {
  index count = 0;
  tensor_view<std::int32_t const, 1> each;  ///< (samples), or nothing

  TERN_INLINE token_budget(index n) : count(n) {}
  TERN_INLINE token_budget(tensor_view<std::int32_t const, 1> const& counts) : each(counts) {}
  TERN_INLINE index operator()(index b) const { return each.data() != nullptr ? index{each[b]} : count; }
  TERN_INLINE void check(char const* op, index samples) const {
    if (each.data() != nullptr) detail::expect_equal(op, "budget.extent(0)", each.extent(0), "the samples", samples);
    for (index b = 0; b < (each.data() != nullptr ? samples : 1); ++b)
      detail::expect((*this)(b) >= 0, op, "budget", (*this)(b), "at least 0");
  }
};

namespace detail {

/// How many tokens a sample has, and how many of its first and last ones stay.
struct protected_tokens {
  index length, first, last;

  TERN_INLINE protected_tokens(tensor_view<float const, 1> const& scores, index budget, protect const& p) : length(scores.extent(0)) {
    while (length > 0 && scores[length - 1] == -__builtin_inff()) --length;
    index const limit = budget < length ? budget : length;
    last = p.last < limit ? p.last : limit;
    first = p.first < limit - last ? p.first : limit - last;
  }
};
TERN_INLINE void check_room(char const* op, index samples, index_lists const& kept) {
  expect_equal(op, "the rows of kept", kept.rows(), "scores.extent(0)", samples);
  expect(kept.ids.extent(0) >= samples, op, "kept.ids.extent(0)", kept.ids.extent(0), "a row for each sample");
  expect(kept.most() <= 1 || kept.ids.stride(1) == 1, op, "kept.ids.stride(1)", kept.ids.stride(1), "1 (contiguous rows)");
}
TERN_INLINE void check_protect(char const* op, protect const& always) {
  expect(always.first >= 0, op, "protect.first", always.first, "at least 0");
  expect(always.last >= 0, op, "protect.last", always.last, "at least 0");
}

inline namespace TERN_ABI {

/// The protected tokens of a sample, and between them what select(scores, room, to) writes, which returns how many that are.
template <class Select>
TERN_INLINE index select_between(tensor_view<float const, 1> const& scores, index budget, protect const& always,
                                 tensor_view<std::int32_t, 1> const& to, Select const& select) {
  index const limit = budget < to.extent(0) ? budget : to.extent(0);
  protected_tokens const of(scores, limit, always);
  auto const first = static_cast<std::int32_t>(of.first);
  for (std::int32_t j = 0; j < first; ++j) to[j] = j;
  index const room = limit - of.first - of.last;
  index count = of.first + select(scores.slice(0, of.first, of.length - of.last), room, to.slice(0, of.first, of.first + room));
  for (index i = of.first; i < count; ++i) to[i] += first;
  for (index j = of.length - of.last; j < of.length; ++j) to[count++] = static_cast<std::int32_t>(j);
  return count;
}
/// Tokens of a list, and the largest of the others, which are selected from a copy; both ascend, and are merged.
inline index select_with_list(tensor_view<float const, 1> const& scores, index budget, std::int32_t const* always, index listed,
                              float* copy, tensor_view<std::int32_t, 1> const& to) noexcept {
  index const n = scores.extent(0), limit = budget < to.extent(0) ? budget : to.extent(0);
  listed = listed < limit ? listed : limit;
  for (index j = 0; j < n; ++j) copy[j] = scores[j];
  for (index i = 0; i < listed; ++i) copy[always[i]] = -__builtin_inff();
  index const others = select_top(tern::view(static_cast<float const*>(copy), n), limit - listed, to.slice(0, listed, to.extent(0)));
  index a = 0, o = listed;
  for (index i = 0; i < listed + others; ++i) to[i] = o == listed + others || (a < listed && always[a] < to[o]) ? always[a++] : to[o++];
  return listed + others;
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// The tokens of each sample with the largest scores: see the top of this file.
inline constexpr struct select_tokens_fn {
  void operator()(cpu_policy const& policy, tensor_view<float const, 2> const& scores, token_budget const& budget, protect const& always,
                  index_lists const& kept) const {
    check(scores, budget, kept);
    detail::check_protect(op, always);
    detail::for_rows(policy, scores.extent(0), scores.extent(1), [&](index b) TERN_LAMBDA {
      kept.counts[b] = static_cast<std::int32_t>(
          detail::select_between(scores[b], budget(b), always, kept.room(b),
                                 [](tensor_view<float const, 1> const& s, index room, tensor_view<std::int32_t, 1> const& to)
                                     TERN_LAMBDA { return select_top(s, room, to); }));
    });
  }
  void operator()(cpu_policy const& policy, tensor_view<float const, 2> const& scores, token_budget const& budget,
                  index_lists const& always, index_lists const& kept) const {
    check(scores, budget, kept);
    index const samples = scores.extent(0), n = scores.extent(1);
    always.check(op, samples, n);
    detail::expect_apart(op, "kept", "the list of those that always stay", kept.ids, kept.counts, always.ids, always.counts);
    workspace::lease const copies(policy.scratch(), workspace_size(policy, scores, budget, always, kept));
    auto* const copy = reinterpret_cast<float*>(copies.data());  // (samples, n)
    detail::for_rows(policy, samples, n, [&](index b) TERN_LAMBDA {
      kept.counts[b] = static_cast<std::int32_t>(
          detail::select_with_list(scores[b], budget(b), always.row(b), always.count(b), copy + b * n, kept.room(b)));
    });
  }
  /// For tern::workspace_size: bytes of scratch of the same call.
  std::size_t workspace_size(cpu_policy const&, tensor_view<float const, 2> const&, token_budget const&, protect const&,
                             index_lists const&) const {
    return 0;
  }
  std::size_t workspace_size(cpu_policy const&, tensor_view<float const, 2> const& scores, token_budget const&, index_lists const&,
                             index_lists const&) const {
    return static_cast<std::size_t>(scores.size()) * sizeof(float);
  }
  /// On the calling thread.
  void operator()(tensor_view<float const, 2> const& scores, index budget, protect const& always, index_lists const& kept) const {
    (*this)(cpu.on(serial), scores, budget, always, kept);
  }

 private:
  static constexpr char const* op = "select_tokens";
  TERN_INLINE static void check(tensor_view<float const, 2> const& scores, token_budget const& budget, index_lists const& kept) {
    budget.check(op, scores.extent(0));
    detail::check_room(op, scores.extent(0), kept);
    detail::expect_apart(op, "kept", "budget", kept.ids, kept.counts, budget.each, budget.each);
  }
} select_tokens{};

/// The tokens of each sample whose scores are above the threshold, and the protected ones: see the top of this file.
inline constexpr struct select_tokens_above_fn {
  void operator()(cpu_policy const& policy, tensor_view<float const, 2> const& scores, float threshold, protect const& always,
                  index_lists const& kept) const {
    constexpr char const* op = "select_tokens_above";
    detail::check_room(op, scores.extent(0), kept);
    detail::check_protect(op, always);
    detail::for_rows(policy, scores.extent(0), scores.extent(1), [&](index b) TERN_LAMBDA {
      kept.counts[b] = static_cast<std::int32_t>(
          detail::select_between(scores[b], scores.extent(1), always, kept.room(b),
                                 [&](tensor_view<float const, 1> const& s, index, tensor_view<std::int32_t, 1> const& to)
                                     TERN_LAMBDA { return select_above(s, threshold, to); }));
    });
  }
} select_tokens_above{};

}  // namespace TERN_ABI
}  // namespace tern

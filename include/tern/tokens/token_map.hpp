// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/token_map.hpp
/// Where each token went: what undoes and explains a reduction.
///
///     token_map map{to, counts};          to (samples, tokens) int32: the token of the result that a token went to, -1 for none;
///                                         counts (samples) int32: how many tokens the result has
///     map_kept(kept, map)                       tokens of a list stay, others go nowhere
///     map_kept(kept, map, others::together)     others become one more token, behind those that stay (if there are any)
///     map_merged(pairs, map)                    each pair's first token goes where its second goes; no second is another pair's first
///     chain_maps(first, second, both)           where tokens went in two steps; `both` may be `first`
///
/// Shapes    kept index_lists with a row for each sample; pairs token_pairs of as many samples. The tokens of the result stand in the order
///           of those that they stem from.
/// Ragged    lengths (samples) int32, as a last argument of the first three: tokens from there on are none, and go nowhere.
/// Errors    lists that do not ascend or leave the sample; pairs that merge a token twice, or into one that is merged itself; a map that is
///           written where something lies that is read.
/// Cost      a pass over the map.

#include <tern/attention/index_lists.hpp>
#include <tern/core/overlap.hpp>

namespace tern {

/// Where each token of each sample went: see the top of this file.
struct token_map {
  tensor_view<std::int32_t, 2> to;      // (samples, tokens)
  tensor_view<std::int32_t, 1> counts;  // (samples)

  TERN_INLINE index samples() const { return to.extent(0); }
  TERN_INLINE index tokens() const { return to.extent(1); }
  TERN_INLINE index count(index b) const { return static_cast<index>(counts[b]); }
  /// The most tokens that a sample's result has.
  TERN_INLINE index most() const {
    index most = 0;
    for (index b = 0; b < samples(); ++b) most = count(b) > most ? count(b) : most;
    return most;
  }
  TERN_INLINE void check_shape(char const* op, index wanted) const {
    detail::expect_equal(op, "the samples of a map", samples(), "the samples that are needed", wanted);
    detail::expect_equal(op, "map.counts.extent(0)", counts.extent(0), "map.to.extent(0)", samples());
  }
  /// Fails unless every token goes to one of the result, or nowhere.
  TERN_INLINE void check(char const* op) const {
    check_shape(op, samples());
    for (index b = 0; b < samples(); ++b) {
      detail::expect(count(b) >= 0, op, "a count of the map", count(b), "at least 0");
      for (index i = 0; i < tokens(); ++i)
        detail::expect(to(b, i) >= -1 && to(b, i) < counts[b], op, "an entry of the map", index{to(b, i)}, "-1 or less than its count");
    }
  }
};

/// Pairs of tokens of each sample, the best first: `from` is to be merged into `to`.
struct token_pairs {
  tensor_view<std::int32_t, 2> from, to;  // (samples, most)
  tensor_view<float, 2> similarity;       // (samples, most)
  tensor_view<std::int32_t, 1> counts;    // (samples)

  TERN_INLINE index samples() const { return counts.extent(0); }
  TERN_INLINE index most() const { return from.extent(1); }
  TERN_INLINE index count(index b) const { return static_cast<index>(counts[b]); }
  TERN_INLINE void check_shape(char const* op, index wanted) const {
    detail::expect_equal(op, "pairs.counts.extent(0)", samples(), "the samples", wanted);
    detail::expect_equal(op, "pairs.from.extent(0)", from.extent(0), "the samples", wanted);
    detail::expect_equal(op, "pairs.to.extent(0)", to.extent(0), "the samples", wanted);
    detail::expect_equal(op, "pairs.similarity.extent(0)", similarity.extent(0), "the samples", wanted);
    detail::expect_equal(op, "pairs.to.extent(1)", to.extent(1), "pairs.from.extent(1)", most());
    detail::expect_equal(op, "pairs.similarity.extent(1)", similarity.extent(1), "pairs.from.extent(1)", most());
  }
  /// Fails unless there are pairs of `wanted` samples, as many as is said.
  TERN_INLINE void check(char const* op, index wanted) const {
    check_shape(op, wanted);
    for (index b = 0; b < wanted; ++b)
      detail::expect(count(b) >= 0 && count(b) <= most(), op, "a count of pairs", count(b), "0 to what there is room for");
  }
};

/// What becomes of tokens that a list does not keep.
enum class others { nowhere, together };

namespace detail {

/// The length of a sample, where there may be no list of lengths.
TERN_INLINE index length_of(tensor_view<std::int32_t const, 1> const& lengths, index sample, index tokens) {
  return lengths.data() != nullptr ? index{lengths[sample]} : tokens;
}
TERN_INLINE void check_lengths(char const* op, tensor_view<std::int32_t const, 1> const& lengths, index samples, index tokens) {
  if (lengths.data() == nullptr) return;
  expect_equal(op, "lengths.extent(0)", lengths.extent(0), "the samples", samples);
  for (index b = 0; b < samples; ++b)
    expect(lengths[b] >= 0 && lengths[b] <= tokens, op, "a length", index{lengths[b]}, "0 to the number of tokens");
}

}  // namespace detail

/// Tokens of a list stay: see the top of this file.
TERN_INLINE void map_kept(index_lists const& kept, token_map const& map, others rest = others::nowhere,
                          tensor_view<std::int32_t const, 1> const& lengths = {}) {
  constexpr char const* op = "map_kept";
  index const samples = map.samples(), tokens = map.tokens();
  map.check_shape(op, samples);
  kept.check_shape(op, samples);
  detail::check_lengths(op, lengths, samples, tokens);
  detail::expect_apart(op, "the map", "kept", map.to, map.counts, kept.ids, kept.counts);
  for (index b = 0; b < samples; ++b) {
    index const length = detail::length_of(lengths, b, tokens);
    detail::expect_ascending(op, "an index of kept", kept.row(b), kept.count(b), length);
    auto const count = static_cast<std::int32_t>(kept.count(b));
    std::int32_t next = 0;
    for (index i = 0; i < tokens; ++i) {
      bool const stays = next < count && kept.row(b)[next] == i;
      map.to(b, i) = stays ? next++ : rest == others::together && i < length ? count : -1;
    }
    map.counts[b] = count + (rest == others::together && count < length);
  }
}

/// Each pair's first token goes where its second goes: see the top of this file.
TERN_INLINE void map_merged(token_pairs const& pairs, token_map const& map, tensor_view<std::int32_t const, 1> const& lengths = {}) {
  constexpr char const* op = "map_merged";
  index const samples = map.samples(), tokens = map.tokens();
  map.check_shape(op, samples);
  pairs.check(op, samples);
  detail::check_lengths(op, lengths, samples, tokens);
  detail::expect_apart(op, "the map", "the pairs", map.to, map.counts, pairs.from, pairs.counts);
  detail::expect_apart(op, "the map", "the pairs", map.to, map.counts, pairs.to, pairs.counts);
  for (index b = 0; b < samples; ++b) {
    index const length = detail::length_of(lengths, b, tokens);
    for (index i = 0; i < tokens; ++i) map.to(b, i) = i < length ? 0 : -1;
    for (index p = 0; p < pairs.count(b); ++p) {
      index const from = pairs.from(b, p);
      detail::expect(from >= 0 && from < length && map.to(b, from) == 0, op, "a token to be merged", from, "one of the sample, once");
      map.to(b, from) = -2;
    }
    for (index p = 0; p < pairs.count(b); ++p) {
      index const to = pairs.to(b, p);
      detail::expect(to >= 0 && to < length && map.to(b, to) == 0, op, "a token to merge into", to, "one of the sample that is not merged");
    }
    std::int32_t count = 0;
    for (index i = 0; i < length; ++i)
      if (map.to(b, i) == 0) map.to(b, i) = count++;
    for (index p = 0; p < pairs.count(b); ++p) map.to(b, pairs.from(b, p)) = map.to(b, pairs.to(b, p));
    map.counts[b] = count;
  }
}

/// Where tokens went in two steps: see the top of this file.
TERN_INLINE void chain_maps(token_map const& first, token_map const& second, token_map const& both) {
  constexpr char const* op = "chain_maps";
  second.check_shape(op, first.samples());
  both.check_shape(op, first.samples());
  first.check(op);
  detail::expect_equal(op, "the tokens of both", both.tokens(), "the tokens of first", first.tokens());
  detail::expect_apart(op, "both", "second", both.to, both.counts, second.to, second.counts);
  for (index b = 0; b < first.samples(); ++b) {
    detail::expect(first.count(b) <= second.tokens(), op, "a count of first", first.count(b), "at most the tokens of second");
    for (index i = 0; i < first.tokens(); ++i) both.to(b, i) = first.to(b, i) < 0 ? -1 : second.to(b, first.to(b, i));
    both.counts[b] = second.counts[b];
  }
}

}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/options.hpp
/// What a caller may add to an attention call, in any order; what is not asked for is not compiled.
///
///     masks                  mask.hpp; several hide what any of them hides
///     a layout               layout.hpp; at most one
///     score modifiers        score.hpp; in the order written
///     a normalizer           normalizer.hpp; at most one
///     row transforms         below and rotary.hpp; in the order written
///     scale{x}               x q.k instead of q.k / sqrt(dim)
///     products<T>            what the two products multiply: float, as nothing else is said; bf16; std::int8_t
///     log_sum_exp{lse}       also writes log sum_j exp(score_j), natural logarithm, one for each query
///     row_max{m}             also writes each query's largest score
///     weight_sum{w}          also writes the sum of each query's weights, of a normalizer that does not divide by it
///     top_keys{ids, scores}  also writes the keys with the largest scores of each query
///     key_weights{w}         also writes how much weight each key receives: the column sums of the softmax

#include <tern/attention/layout.hpp>
#include <tern/attention/normalizer.hpp>
#include <tern/core/float16.hpp>

namespace tern {

/// Multiplies q.k; the default is 1 / sqrt(dim).
struct scale {
  float value;
};

/// What both products multiply. Sums are f32 in any case.
///     float         exactly what q, k and v hold
///     bf16          q, k, v and the weights rounded to bf16, where the CPU has bf16 dot products; float elsewhere
///     std::int8_t   q, k, v and the weights rounded to 8 bits in blocks, where the CPU has dot products of bytes; float elsewhere. A
///                   block of 128 keys shares the step of each column of v, so hidden values count for it. Where there are matrix
///                   registers, bf16 is faster and is taken
/// Of few queries (at most 32 of queries * heads that share keys) bf16 takes keys and values that are bf16, and q and the weights that they
/// are multiplied by; all others are multiplied as float, and tiles of 8 and 4 bits as integers (tile_kernels.hpp).
template <class T>
struct products {
  static_assert(std::same_as<T, float> || std::same_as<T, bf16> || std::same_as<T, std::int8_t>, "tern: products of float, bf16 or int8");
};

/// A place for one number of each query: (tokens), (heads, tokens) or (batch, heads, tokens), as q has its rank.
#define TERN_ROW_OUTPUT(name)                                          \
  template <int Rank>                                                  \
  struct name {                                                        \
    tensor_view<float, Rank> out;                                      \
    template <tensor_like X>                                           \
    TERN_INLINE constexpr explicit name(X&& x) : out(tern::view(x)) {} \
  };                                                                   \
  template <tensor_like X>                                             \
  name(X&&)->name<view_of<X>::rank>
/// Where to write the log-sum-exp of each query's scores, a natural logarithm; of no score, -inf.
TERN_ROW_OUTPUT(log_sum_exp);
/// Where to write the largest score of each query; of no score, -inf.
TERN_ROW_OUTPUT(row_max);
/// Where to write the sum of each query's weights.
TERN_ROW_OUTPUT(weight_sum);
#undef TERN_ROW_OUTPUT

/// Where to write the indices of the `count` keys with the largest scores of each query, the largest first and of equal ones the
/// first, and their scores: (..., tokens, count), of one rank more than for log_sum_exp. Behind the last key: -1 and -inf.
/// Splitting the keys of one query over threads is given up.
template <int Rank>
struct top_keys {
  tensor_view<std::int32_t, Rank> ids;
  tensor_view<float, Rank> scores;
  template <tensor_like I, tensor_like S>
  TERN_INLINE constexpr top_keys(I&& i, S&& s) : ids(tern::view(i)), scores(tern::view(s)) {}
};
template <tensor_like I, tensor_like S>
top_keys(I&&, S&&) -> top_keys<view_of<I>::rank>;

/// Where to write the weight that each key receives from the queries of a head, sum_i e^(s_ij - lse_i): (keys), (heads, keys) or
/// (batch, heads, keys), as q has its rank. 0 for keys that nobody sees; a query that sees nothing gives nothing, and one whose sum is NaN
/// gives NaN to the keys that it sees. Softmax only, without layouts. Weights are kept until the sum of their row is known, in 1 MiB a
/// thread and more from some ten thousand keys on; splitting the keys of one query over threads is given up. `attention_key_weights` does
/// the same after the call, for some of its queries.
template <int Rank>
struct key_weights {
  tensor_view<float, Rank> out;
  template <tensor_like X>
  TERN_INLINE constexpr explicit key_weights(X&& x) : out(tern::view(x)) {}
};
template <tensor_like X>
key_weights(X&&) -> key_weights<view_of<X>::rank>;

/// Which row a transform is given.
struct row_at {
  index batch, head;      ///< of q for queries, of k for keys
  index key_head;         ///< of k: what the query's head reads, or the key's own
  index token;            ///< the query's, or the key's index
  std::int32_t position;  ///< as masks count it
};

/// What changes rows of q and k before they are multiplied, in f32: a rotation by position, a normalization. `row` has `dim`
/// elements; queries are not yet scaled. Called from several threads; may not throw.
template <class T>
concept row_transform = requires(T const& t, float* row, index dim, row_at const& at) {
  t.query(row, dim, at);
  t.key(row, dim, at);
};

/// A layout that needs the extents of the call: layout.hpp.
template <class L>
concept layout_over_shape = requires(L const& l, attention_shape const& n) {
  { l.over(n) } -> attention_layout;
};

namespace detail {

template <class T>
inline constexpr bool is_products = false;
template <class T>
inline constexpr bool is_products<products<T>> = true;
template <class T>
inline constexpr bool is_log_sum_exp = false;
template <int R>
inline constexpr bool is_log_sum_exp<log_sum_exp<R>> = true;
template <class T>
inline constexpr bool is_row_max = false;
template <int R>
inline constexpr bool is_row_max<row_max<R>> = true;
template <class T>
inline constexpr bool is_weight_sum = false;
template <int R>
inline constexpr bool is_weight_sum<weight_sum<R>> = true;
template <class T>
inline constexpr bool is_top_keys = false;
template <int R>
inline constexpr bool is_top_keys<top_keys<R>> = true;
template <class T>
inline constexpr bool is_key_weights = false;
template <int R>
inline constexpr bool is_key_weights<key_weights<R>> = true;

template <class T>
inline constexpr bool is_layout = attention_layout<T> || layout_over_shape<T>;

template <class T>
concept attention_option =
    attention_mask<T> || is_layout<T> || score_modifier<T> || attention_normalizer<T> || row_transform<T> || std::same_as<T, scale> ||
    is_products<T> || is_log_sum_exp<T> || is_row_max<T> || is_weight_sum<T> || is_top_keys<T> || is_key_weights<T>;

struct no_option {};
template <class T>
inline constexpr bool is_given = !std::same_as<std::remove_cvref_t<T>, no_option>;

/// The option for which `Is` holds, or `no_option`.
#define TERN_FIND_OPTION(name, what)                                                         \
  TERN_INLINE constexpr no_option name() { return {}; }                                      \
  template <class First, class... Rest>                                                      \
  TERN_INLINE constexpr auto name(First const& first, Rest const&... rest) {                 \
    if constexpr (what<First>) {                                                             \
      static_assert(!(what<Rest> || ...), "tern: the same attention option is given twice"); \
      return first;                                                                          \
    } else {                                                                                 \
      return name(rest...);                                                                  \
    }                                                                                        \
  }                                                                                          \
  static_assert(true)
template <class T>
inline constexpr bool is_scale = std::same_as<T, scale>;
template <class T>
inline constexpr bool is_normalizer = attention_normalizer<T>;
TERN_FIND_OPTION(find_scale, is_scale);
TERN_FIND_OPTION(find_layout, is_layout);
TERN_FIND_OPTION(find_normalizer, is_normalizer);
TERN_FIND_OPTION(find_products, is_products);
TERN_FIND_OPTION(find_log_sum_exp, is_log_sum_exp);
TERN_FIND_OPTION(find_row_max, is_row_max);
TERN_FIND_OPTION(find_weight_sum, is_weight_sum);
TERN_FIND_OPTION(find_top_keys, is_top_keys);
TERN_FIND_OPTION(find_key_weights, is_key_weights);
#undef TERN_FIND_OPTION

/// The layout of a call with these extents.
template <class L>
TERN_INLINE constexpr auto layout_over(L const& layout, attention_shape const& n) {
  if constexpr (layout_over_shape<L>)
    return layout.over(n);
  else
    return layout;
}

/// All masks among the options, as one.
TERN_INLINE constexpr no_mask find_mask() { return {}; }
template <class First, class... Rest>
TERN_INLINE constexpr auto find_mask(First const& first, Rest const&... rest) {
  auto const others = find_mask(rest...);
  if constexpr (!attention_mask<First>)
    return others;
  else if constexpr (std::same_as<decltype(others), no_mask const>)
    return first;
  else
    return first & others;
}

/// All score modifiers among the options, in their order.
template <class First, class... Rest>
TERN_INLINE constexpr auto chain_front(First const& first, score_chain<Rest...> const& rest) {
  return score_chain<First, Rest...>{first, rest};
}
TERN_INLINE constexpr score_chain<> find_modifiers() { return {}; }
template <class First, class... Rest>
TERN_INLINE constexpr auto find_modifiers(First const& first, Rest const&... rest) {
  auto const others = find_modifiers(rest...);
  if constexpr (score_modifier<First>)
    return chain_front(first, others);
  else
    return others;
}

/// Row transforms one after the other.
template <class... T>
struct transform_chain;
template <>
struct transform_chain<> {
  static constexpr bool empty = true;
  TERN_INLINE void query(float*, index, row_at const&) const {}
  TERN_INLINE void key(float*, index, row_at const&) const {}
};
template <class First, class... Rest>
struct transform_chain<First, Rest...> {
  static constexpr bool empty = false;
  First first;
  transform_chain<Rest...> rest;
  TERN_INLINE void query(float* row, index dim, row_at const& at) const {
    first.query(row, dim, at);
    rest.query(row, dim, at);
  }
  TERN_INLINE void key(float* row, index dim, row_at const& at) const {
    first.key(row, dim, at);
    rest.key(row, dim, at);
  }
};
template <class First, class... Rest>
TERN_INLINE constexpr auto transform_front(First const& first, transform_chain<Rest...> const& rest) {
  return transform_chain<First, Rest...>{first, rest};
}
TERN_INLINE constexpr transform_chain<> find_transforms() { return {}; }
template <class First, class... Rest>
TERN_INLINE constexpr auto find_transforms(First const& first, Rest const&... rest) {
  auto const others = find_transforms(rest...);
  if constexpr (row_transform<First>)
    return transform_front(first, others);
  else
    return others;
}

}  // namespace detail
}  // namespace tern

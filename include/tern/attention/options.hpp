// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/options.hpp
/// What a caller may add to an attention call beside masks, in any order; what is not asked for is not compiled.
///
///     scale{x}               x q.k instead of q.k / sqrt(dim)
///     softcap{c}             c tanh(score / c), before any mask
///     log_sum_exp{lse}       also writes log sum_j exp(score_j), natural logarithm, one for each query

#include <tern/attention/mask.hpp>
#include <tern/core/tensor_view.hpp>

namespace tern {

/// Multiplies q.k; the default is 1 / sqrt(dim).
struct scale {
  float value;
};

/// Bounds scores: limit * tanh(score / limit), after the scale and before the mask.
struct softcap {
  float limit;
};

/// Where to write the log-sum-exp of each query's scores: (tokens), (heads, tokens) or (batch, heads, tokens), as q has its rank.
template <int Rank>
struct log_sum_exp {
  tensor_view<float, Rank> out;
  template <tensor_like X>
  TERN_INLINE constexpr explicit log_sum_exp(X&& x) : out(tern::view(x)) {}
};
template <tensor_like X>
log_sum_exp(X&&) -> log_sum_exp<view_of<X>::rank>;

namespace detail {

template <class T>
inline constexpr bool is_log_sum_exp = false;
template <int R>
inline constexpr bool is_log_sum_exp<log_sum_exp<R>> = true;

template <class T>
concept attention_option = attention_mask<T> || std::same_as<T, scale> || std::same_as<T, softcap> || is_log_sum_exp<T>;

struct no_option {};

/// The last of the options for which `Is<T>()` holds, or `no_option`.
template <class Is>
TERN_INLINE constexpr no_option find_option(Is) {
  return {};
}
template <class Is, class First, class... Rest>
TERN_INLINE constexpr auto find_option(Is is, First const& first, Rest const&... rest) {
  if constexpr (Is::template holds<First>) {
    static_assert((!Is::template holds<Rest> && ...), "tern: the same attention option is given twice");
    return first;
  } else {
    return find_option(is, rest...);
  }
}
struct is_scale_option {
  template <class T>
  static constexpr bool holds = std::same_as<T, scale>;
};
struct is_softcap_option {
  template <class T>
  static constexpr bool holds = std::same_as<T, softcap>;
};
struct is_lse_option {
  template <class T>
  static constexpr bool holds = is_log_sum_exp<T>;
};

/// All masks among the options, as one.
TERN_INLINE constexpr no_option find_mask() { return {}; }
template <class First, class... Rest>
TERN_INLINE constexpr auto find_mask(First const& first, Rest const&... rest) {
  auto const others = find_mask(rest...);
  if constexpr (!attention_mask<First>)
    return others;
  else if constexpr (std::same_as<decltype(others), no_option const>)
    return first;
  else
    return first & others;
}

}  // namespace detail
}  // namespace tern

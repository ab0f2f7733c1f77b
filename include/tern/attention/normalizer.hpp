// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/normalizer.hpp
/// How scores become the weights of values.
///
///     softmax                        e^s_ij / sum_j' e^s_ij', when nothing else is said
///     sinks{z}                       the same with one more score z_h for each head, whose value is zero:
///                                    e^s_ij / (e^z_h + sum_j' e^s_ij')
///     sigmoid{b}                     1 / (1 + e^-(s_ij + b))            Ramapuram et al. 2024 (arXiv:2409.04431) takes b = -log keys
///     silu{n}                        s_ij / (1 + e^-s_ij) / n           Zhai et al. 2024, HSTU (arXiv:2402.17152)
///     relu{}, squared_relu{}         max(s_ij, 0), max(s_ij, 0)^2
///     identity{}                     s_ij
///     hard{}                         1 for the key with the largest score, the first of several, and 0 for the others
///     weigh_by(f)                    f(s_ij), f a function of a register of scores
///
/// All but softmax, sinks and hard add up what they weigh and divide by nothing.

#include <tern/attention/score.hpp>
#include <tern/core/tensor_view.hpp>

namespace tern {
inline namespace TERN_ABI {

/// A score for each head that weighs nothing: (heads).
struct sinks {
  tensor_view<float const, 1> scores;
  template <tensor_like X>
  TERN_INLINE constexpr explicit sinks(X&& x) : scores(tern::view(x)) {}
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_equal("attention", "the extent of sinks", scores.extent(0), "the heads of q", n.heads);
  }
};

/// 1 / (1 + e^-(s + bias))
struct sigmoid {
  float bias = 0;
  TERN_INLINE floats operator()(floats s) const { return simd::sigmoid(s + floats(bias)); }
};
/// s / (1 + e^-s) / count
struct silu {
  float count = 1;
  TERN_INLINE floats operator()(floats s) const { return simd::silu(s) * floats(1 / count); }
};
/// max(s, 0)
struct relu {
  TERN_INLINE floats operator()(floats s) const { return simd::max(floats(0.f), s); }
};
/// max(s, 0)^2
struct squared_relu {
  TERN_INLINE floats operator()(floats s) const {
    floats const x = simd::max(floats(0.f), s);
    return x * x;
  }
};
/// s
struct identity {
  TERN_INLINE floats operator()(floats s) const { return s; }
};
/// The whole weight for the largest score.
struct hard {};

/// f(s), for a function of a register of scores.
template <class F>
struct weigh_by {
  F f;
  TERN_INLINE constexpr explicit weigh_by(F const& function) : f(function) {}
  TERN_INLINE floats operator()(floats s) const { return f(s); }
};

}  // namespace TERN_ABI

namespace detail {
template <class N>
inline constexpr bool is_elementwise = std::same_as<N, sigmoid> || std::same_as<N, silu> || std::same_as<N, relu> ||
                                       std::same_as<N, squared_relu> || std::same_as<N, identity>;
template <class F>
inline constexpr bool is_elementwise<weigh_by<F>> = true;
}  // namespace detail

inline namespace TERN_ABI {

/// A function of scores alone: one of the above, or weigh_by of one's own.
template <class N>
concept elementwise_normalizer = detail::is_elementwise<N>;

/// What attention takes as a normalizer.
template <class N>
concept attention_normalizer = std::same_as<N, sinks> || std::same_as<N, hard> || elementwise_normalizer<N>;

}  // namespace TERN_ABI
}  // namespace tern

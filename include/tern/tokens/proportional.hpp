// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/proportional.hpp
/// Attention to tokens that stand for several: each counts as many times as its size.
///
///     log_sizes(policy, sizes, logarithms)
///     attention(policy, q, k, v, out, proportional{logarithms})       s_ij + log(size_j): softmax weighs key j size_j times
///
/// Shapes    sizes, logarithms (samples, keys) f32, one sample for each text of the batch. A size of 0 hides a token: its logarithm is
///           -inf, but its key and value still have to be numbers. Any positive weight may stand in place of a size.
/// Errors    samples and keys that are not the call's.
/// Cost      reads 4 bytes a score.
/// Source    ToMe (arXiv:2210.09461, section 3).

#include <tern/attention/additive_mask.hpp>
#include <tern/pointwise/rows.hpp>
#include <tern/simd/math.hpp>

namespace tern {
inline namespace TERN_ABI {

/// log_sizes(policy, sizes, logarithms): see the top of this file.
inline constexpr struct log_sizes_fn {
  void operator()(cpu_policy const& policy, tensor_view<float const, 2> const& sizes, tensor_view<float, 2> const& logarithms) const {
    constexpr char const* op = "log_sizes";
    detail::expect_rows(op, "sizes", sizes);
    detail::expect_like(op, "logarithms", logarithms, "sizes", sizes);
    detail::for_rows(policy, sizes.extent(0), 4 * sizes.extent(1), [&](index b) TERN_LAMBDA {
      float const* const from = sizes.data() + b * sizes.stride(0);
      float* const to = logarithms.data() + b * logarithms.stride(0);
      detail::each_pack(0, sizes.extent(1),
                        [&](index i, auto part) TERN_LAMBDA { detail::store(to + i, simd::log(detail::load(from + i, part)), part); });
    });
  }
} log_sizes{};

/// A score modifier that counts keys as often as their sizes say: see the top of this file.
struct proportional {
  additive_mask<4> numbers;

  template <tensor_like X>
  TERN_INLINE explicit proportional(X&& logarithms) : numbers(repeated(tern::view(logarithms))) {}

  TERN_INLINE floats operator()(floats s, score_at const& at) const { return numbers(s, at); }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_equal("attention", "the samples of proportional", numbers.values.extent(0), "the batch", n.batch);
    detail::expect_equal("attention", "the tokens of proportional", numbers.values.extent(3), "the keys", n.keys);
  }

 private:
  /// The same numbers for all heads and queries.
  TERN_INLINE static tensor_view<float const, 4> repeated(tensor_view<float const, 2> const& x) {
    return {x.data(), shape<4>{{x.extent(0), 1, 1, x.extent(1)}}, shape<4>{{x.stride(0), 0, 0, x.stride(1)}}};
  }
};

}  // namespace TERN_ABI
}  // namespace tern

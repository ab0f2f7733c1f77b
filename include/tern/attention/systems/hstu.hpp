// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/hstu.hpp
/// HSTU's pointwise aggregated attention, of generative recommenders.
///
///     out_i = sum_{j <= i} SiLU(alpha q_i . k_j + position_bias(j - i) + time_bias(t_{i+1} - t_j)) / n v_j
///
///     hstu(policy, q, k, v, out, positions, times, n, options...)
///
/// positions is a relative_bias (attention/relative_bias.hpp), times a time_bias (attention/time_bias.hpp), n the length that sequences
/// are padded to in training. Jagged batches are one packed tensor with a layout of sequences among `options`, within whose groups
/// positions count anew; other masks besides causal, for targets that do not see each other for one, go there too.
/// alpha is 1 unless `options` have a scale. The rest of a block, out's norm, gate U and projections, is the caller's.
/// Shapes, errors, cost: attention/attention.hpp. No row maximum, no sum, one pass.
/// Source  Zhai et al. 2024 (arXiv:2402.17152) and its public code (generative-recommenders).

#include <tern/attention/attention.hpp>
#include <tern/attention/relative_bias.hpp>
#include <tern/attention/time_bias.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr struct hstu_fn {
  template <tensor_like Q, detail::key_source K, detail::key_source V, tensor_like O, class... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, relative_bias const& positions, time_bias const& times, index n,
                  Options const&... options) const {
    detail::expect(n >= 1, "hstu", "the length of sequences", n, "at least 1");
    silu const weight{static_cast<float>(n)};
    if constexpr ((std::same_as<Options, scale> || ...))
      attention(policy, q, k, v, out, positions, times, weight, causal{}, options...);
    else
      attention(policy, q, k, v, out, positions, times, weight, causal{}, scale{1.f}, options...);
  }
} hstu{};

}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/flash_sigmoid.hpp
/// FlashSigmoid: every score is weighed by itself, no maximum and no sum of a row.
///
///     out_i = sum_j sigmoid(q_i . k_j / sqrt(dim) + b) v_j,   b = -log(keys) unless `options` have a sigmoid{b} of their own
///
///     flash_sigmoid(policy, q, k, v, out, options...)
///
/// Masks hide as ever (weight zero). With alibi among the options, sigmoid{0} is what the paper takes.
/// Shapes, errors, cost: attention/attention.hpp.
/// Source  Ramapuram et al. 2024 (arXiv:2409.04431).

#include <tern/attention/attention.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr struct flash_sigmoid_fn {
  template <tensor_like Q, tensor_like K, detail::key_source V, tensor_like O, class... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, Options const&... options) const {
    if constexpr ((attention_normalizer<Options> || ...)) {
      attention(policy, q, k, v, out, options...);
    } else {
      index const keys = tern::view(k).extent(view_of<K>::rank - 2);
      attention(policy, q, k, v, out, sigmoid{keys > 0 ? -static_cast<float>(__builtin_log(static_cast<double>(keys))) : 0.f}, options...);
    }
  }
} flash_sigmoid{};

}  // namespace TERN_ABI
}  // namespace tern

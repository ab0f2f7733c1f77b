// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/systems/lm_infinite.hpp
/// LM-Infinite: the lambda-shaped mask and a limit on distances, for contexts longer than the model was trained for.
///
///     query i sees keys j < sinks and i - length < j, of those up to its own; a distance above `length` counts as `length`:
///     s_ij = scale rotate(q_i, min(i - j, length)) . k_j
///
///     lm_infinite(policy, q, k, v, out, lse, table, sinks, length, pairing, options...)
///
/// Two calls and their merge: the window with both sides rotated; the sinks before it as they are, with queries rotated by `length`.
/// For ALiBi in place of rotation: one call of attention with a mask of sinks and window and alibi{slopes, length}.
/// Shapes  k not rotated; table (rows, d) of tern::rope_table from position 0, more rows than keys and than `length`; lse
///         (heads, tokens). Others, memory and cost: attention/windowed_rotary.hpp; time and memory O(tokens (length + sinks)).
/// Source  Han et al. 2023 (arXiv:2308.16137).

#include <tern/attention/windowed_rotary.hpp>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr struct lm_infinite_fn {
  template <tensor_like Q, detail::key_source K, detail::key_source V, tensor_like O, tensor_like L, class... Options>
  void operator()(cpu_policy const& policy, Q&& q, K&& k, V&& v, O&& out, L&& lse, tensor_view<float const, 2> const& table, index sinks,
                  index length, rope_pairing pairing = rope_pairing::interleaved, Options const&... options) const {
    detail::expect(sinks >= 0, "lm_infinite", "the number of sinks", sinks, "at least 0");
    windowed_rotary(policy, q, k, v, out, lse, rotary{table, pairing}, clamped_rows(table, length, pairing), length, sinks, options...);
  }
} lm_infinite{};

}  // namespace TERN_ABI
}  // namespace tern

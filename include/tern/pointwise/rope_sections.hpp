// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file pointwise/rope_sections.hpp
/// Rotary tables for tokens with several coordinates: each pair of elements turns by one of them (M-RoPE: time, height, width).
///
///     theta(t, i) = positions(axis_i, t) scale base^(-2i/d) / factors_i         0 <= i < d/2
///
/// Shapes  positions int32 (axes, tokens); axis int32 (d/2), which coordinate a pair takes; table f32 (tokens, d), as rope_table's.
///         `rope_axes(sections, axis)` fills axis by runs: Qwen2-VL's sections {16, 24, 24} give 16 times 0, 24 times 1, 24 times 2.
///         Giraffe's M-RoPE++ for contexts s times as long (arXiv:2412.12735) is sections 2:3:3 with factors of 1 on the pairs of time,
///         ramping up to s over those of height, and s on those of width.
/// Error   that of rope_table.
/// Source  Wang et al. 2024, Qwen2-VL (arXiv:2409.12191).

#include <tern/pointwise/rope_table.hpp>

namespace tern {
inline namespace TERN_ABI {

/// axis = 0 sections[0] times, 1 sections[1] times, and so on; the sections add up to the extent of axis.
template <tensor_like S, tensor_like A>
void rope_axes(S&& sections, A&& axis) {
  tensor_view<std::int32_t const, 1> const from = tern::view(sections);
  tensor_view<std::int32_t, 1> const to = tern::view(axis);
  index total = 0;
  for (index s = 0; s < from.extent(0); ++s) total += from[s];
  detail::expect_equal("rope_axes", "the sum of sections", total, "axis.extent(0)", to.extent(0));
  index at = 0;
  for (index s = 0; s < from.extent(0); ++s)
    for (std::int32_t i = 0; i < from[s]; ++i) to[at++] = static_cast<std::int32_t>(s);
}

/// `tern::rope_sections(policy, positions, axis, table, options = {})`: see the top of pointwise/rope_sections.hpp.
inline constexpr struct rope_sections_fn {
  template <tensor_like P, tensor_like A, tensor_like T>
  void operator()(cpu_policy const& policy, P&& positions, A&& axis, T&& table, rope_options const& options = {}) const {
    tensor_view<std::int32_t const, 2> const at = tern::view(positions);  // (axes, tokens)
    tensor_view<std::int32_t const, 1> const which = tern::view(axis);    // (d / 2)
    tensor_view<float, 2> const to = tern::view(table);                   // (tokens, d)
    index const tokens = to.extent(0), d = to.extent(1), half = d / 2;
    detail::expect_rows("rope_sections", "table", to);
    detail::expect_rope_options("rope_sections", options, d);
    detail::expect_equal("rope_sections", "positions.extent(1)", at.extent(1), "table.extent(0)", tokens);
    detail::expect_equal("rope_sections", "axis.extent(0)", which.extent(0), "half of table.extent(1)", half);
    for (index i = 0; i < half; ++i)
      detail::expect(which[i] >= 0 && which[i] < at.extent(0), "rope_sections", "an entry of axis", which[i], "a row of positions");
    double const magnitude = static_cast<double>(options.magnitude);
    index const blocks = (tokens + 31) / 32;  // as in rope_table: frequencies cost more than what they are used for
    detail::for_rows(policy, blocks, 32 * d * 16, [&](index block) TERN_LAMBDA {
      index const end = block * 32 + 32 < tokens ? block * 32 + 32 : tokens;
      for (index i = 0; i < half; ++i) {
        double const frequency = detail::rope_frequency(options, d, i);
        for (index t = block * 32; t < end; ++t) {
          double const theta = static_cast<double>(at(which[i], t)) * frequency;
          to(t, i) = static_cast<float>(magnitude * __builtin_cos(theta));
          to(t, half + i) = static_cast<float>(magnitude * __builtin_sin(theta));
        }
      }
    });
  }
} rope_sections{};

}  // namespace TERN_ABI
}  // namespace tern

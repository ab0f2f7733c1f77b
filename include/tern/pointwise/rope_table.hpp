// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file pointwise/rope_table.hpp
/// The cosines and sines of rotary position encoding. One table serves all heads and layers of a step.
///
///     theta(p, i) = p scale base^(-2i/d) / factors_i          0 <= i < d/2, d the rotated dimensions
///     table(t, i) = magnitude cos(theta(p_t, i)),   table(t, d/2 + i) = magnitude sin(theta(p_t, i))
///
/// Shapes  positions: the first one of consecutive tokens, or a view of int32 (tokens); table f32 (tokens, d).
/// Error   angles, cosines and sines are computed in f64 and rounded once: |error| <= rope_table.error(p) magnitude, about 2^-24 for any
///         position a model has. An angle rounded to f32 would be off by p 2^-24, 0.008 at position 131072.
/// Same    an entry depends on its position and the options only, not on the other tokens.
/// Cost    one f64 cosine and sine an entry pair, about 30 ns.
/// Source  Su et al., "RoFormer", 2021. scale: Chen et al., "Extending Context Window ... via Positional Interpolation", 2023.
///         factors: Llama 3.1 and LongRoPE. magnitude: the attention factor of YaRN, Peng et al., 2023.

#include <tern/pointwise/rows.hpp>

#include <concepts>
#include <cstdint>

namespace tern {

/// Which two elements of a row turn together, d being the rotated dimensions.
enum class rope_pairing {
  interleaved,  ///< (x[2i], x[2i+1]): the paper; GGUF files of the Llama architecture, whose weights are permuted for it
  half,         ///< (x[i], x[i + d/2]): GPT-NeoX; safetensors of Llama, Qwen, and most models
};

/// How positions become angles. Every member has the value that most models use.
struct rope_options {
  rope_pairing pairing = rope_pairing::interleaved;
  float base = 10000.f;
  /// Elements of a row that are rotated, from its first; the others pass unchanged. 0 stands for all.
  index dimensions = 0;
  /// Multiplies positions: 1 / (context extension) for linear scaling.
  float scale = 1.f;
  /// Divides each frequency, (dimensions / 2); no view stands for ones.
  tensor_view<float const, 1> factors = {};
  /// Multiplies cosines and sines.
  float magnitude = 1.f;
};

namespace detail {
inline namespace TERN_ABI {

template <class P>
concept rope_start = std::integral<std::remove_cvref_t<P>>;

/// Consecutive positions, or listed ones.
struct position_range {
  index first;
  TERN_INLINE index operator[](index t) const { return first + t; }
};
struct position_list {
  tensor_view<std::int32_t const, 1> list;
  TERN_INLINE index operator[](index t) const { return list[t]; }
};

/// i -> scale base^(-2i/d) / factors_i in f64.
TERN_INLINE double rope_frequency(rope_options const& options, index dimensions, index i) {
  double const exponent = -2.0 * static_cast<double>(i) / static_cast<double>(dimensions);
  double const frequency = static_cast<double>(options.scale) * __builtin_pow(static_cast<double>(options.base), exponent);
  return options.factors.data() != nullptr ? frequency / static_cast<double>(options.factors[i]) : frequency;
}

template <class Positions>
inline void rope_table_rows(cpu_policy const& policy, Positions const& positions, tensor_view<float, 2> const& table,
                            rope_options const& options) {
  index const tokens = table.extent(0), d = table.extent(1), half = d / 2;
  double const magnitude = static_cast<double>(options.magnitude);
  // A cosine costs as much as a few dozen elements of other kernels, a power as much as two cosines: frequencies outside.
  index const blocks = (tokens + 31) / 32;
  for_rows(policy, blocks, 32 * d * 16, [&](index block) TERN_LAMBDA {
    index const end = block * 32 + 32 < tokens ? block * 32 + 32 : tokens;
    for (index i = 0; i < half; ++i) {
      double const frequency = rope_frequency(options, d, i);
      for (index t = block * 32; t < end; ++t) {
        double const theta = static_cast<double>(positions[t]) * frequency;
        float* const row = table.data() + t * table.stride(0);  // (d)
        row[i] = static_cast<float>(magnitude * __builtin_cos(theta));
        row[half + i] = static_cast<float>(magnitude * __builtin_sin(theta));
      }
    }
  });
}

[[noreturn]] TERN_COLD inline void fail_rope_base(char const* op) {
  (message() << op << ": options.base is zero, negative or NaN, expected a positive number").fail();
}
/// Fails unless `d` elements can be rotated with these options.
TERN_INLINE void expect_rope_options(char const* op, rope_options const& options, index d) {
  expect(d >= 0 && d % 2 == 0, op, "the number of rotated dimensions", d, "an even number");
  if (!(options.base > 0.f)) [[unlikely]]
    fail_rope_base(op);
  if (options.factors.data() != nullptr)
    expect_equal(op, "options.factors.extent(0)", options.factors.extent(0), "half of the rotated dimensions", d / 2);
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// `tern::rope_table(policy, positions, table, options = {})`: see the top of pointwise/rope_table.hpp.
inline constexpr struct rope_table_fn {
  template <class P, tensor_like T>
    requires(detail::rope_start<P> || tensor_like<P>)
  void operator()(cpu_policy const& policy, P&& positions, T&& table, rope_options const& options = {}) const {
    tensor_view<float, 2> const to = tern::view(table);  // (tokens, d)
    detail::expect_rows("rope_table", "table", to);
    detail::expect_rope_options("rope_table", options, to.extent(1));
    if (options.dimensions != 0)
      detail::expect_equal("rope_table", "table.extent(1)", to.extent(1), "options.dimensions", options.dimensions);
    if constexpr (detail::rope_start<P>) {
      detail::rope_table_rows(policy, detail::position_range{static_cast<index>(positions)}, to, options);
    } else {
      tensor_view<std::int32_t const, 1> const list = tern::view(positions);  // (tokens)
      detail::expect_equal("rope_table", "positions.extent(0)", list.extent(0), "table.extent(0)", to.extent(0));
      detail::rope_table_rows(policy, detail::position_list{list}, to, options);
    }
  }

  /// The largest error of an entry: its rounding to f32, and the angle's in f64 (power, product, factor).
  static constexpr double error(double position) { return 0x1p-24 + 0x1p-53 * 4 * (position + 4); }
} rope_table{};

}  // namespace TERN_ABI
}  // namespace tern

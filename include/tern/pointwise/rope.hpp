// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file pointwise/rope.hpp
/// Rotary position encoding: pairs of elements turn by angles that grow with the token's position.
///
///     y_a = x_a cos(theta) - x_b sin(theta)
///     y_b = x_b cos(theta) + x_a sin(theta)         theta(position, pair): see pointwise/rope_table.hpp
///
/// Shapes  x, y (heads, tokens, dim) or (tokens, dim); rows contiguous, leading dimensions of any strides; y may be x.
///         Positions: the first of consecutive tokens, an int32 view (tokens), or a table (tokens, rotated dimensions) that
///         `tern::rope_table` made with the same options.
/// Types   f32, f16 or bf16 each; f32 inside.
/// Cost    6 flop a pair; without a table, besides, what rope_table costs, and 4 tokens dim bytes of scratch memory.
/// Error   |y_a - y*_a| <= (rope.error + rope_table.error(position)) (|x_a| + |x_b|) magnitude, and the rounding of y's type.
/// Source  Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021.

#include <tern/pointwise/rope_table.hpp>
#include <tern/simd/pairs.hpp>

#include <cstdint>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// Pairs (x[i], x[i + d/2]).
template <class X, class Y>
inline void rope_row_half(X const* x, Y* y, float const* cosines, float const* sines, index d) noexcept {
  index const half = d / 2;
  each_pack(0, half, [&](index i, auto part) TERN_LAMBDA {
    auto const a = load(x + i, part), b = load(x + half + i, part);
    auto const c = load(cosines + i, part), s = load(sines + i, part);
    store(y + i, simd::fnma(b, s, a * c), part);
    store(y + half + i, simd::fma(a, s, b * c), part);
  });
}

/// Pairs (x[2i], x[2i + 1]).
template <class X, class Y>
inline void rope_row_interleaved(X const* x, Y* y, float const* cosines, float const* sines, index d) noexcept {
  using simd::lanes;
  auto const sign = simd::alternating(1.f);
  index i = 0;
  for (; i + lanes <= d; i += lanes) {
    auto const a = simd::load(x + i), b = simd::swap_pairs(a);
    auto const c = simd::load_twice(cosines + i / 2), s = simd::load_twice(sines + i / 2) * sign;
    simd::store(y + i, simd::fma(b, s, a * c));
  }
  for (; i < d; i += 2) {
    float const a = static_cast<float>(x[i]), b = static_cast<float>(x[i + 1]);
    float const c = cosines[i / 2], s = sines[i / 2];
    y[i] = static_cast<Y>(a * c - b * s);
    y[i + 1] = static_cast<Y>(b * c + a * s);
  }
}

template <class X, class Y>
inline void rope_rows(cpu_policy const& policy, tensor_view<X, 3> const& x, tensor_view<Y, 3> const& y,
                      tensor_view<float const, 2> const& table, rope_pairing pairing) {
  index const heads = x.extent(0), tokens = x.extent(1), n = x.extent(2), d = table.extent(1);
  for_rows(policy, tokens, heads * n, [&](index t) TERN_LAMBDA {
    float const* const cosines = table.data() + t * table.stride(0);  // (d / 2)
    float const* const sines = cosines + d / 2;                       // (d / 2)
    for (index h = 0; h < heads; ++h) {
      X const* const from = x.data() + h * x.stride(0) + t * x.stride(1);  // (n)
      Y* const to = y.data() + h * y.stride(0) + t * y.stride(1);          // (n)
      if (pairing == rope_pairing::half)
        rope_row_half(from, to, cosines, sines, d);
      else
        rope_row_interleaved(from, to, cosines, sines, d);
      if (static_cast<void const*>(from) != static_cast<void const*>(to)) convert_row(from + d, to + d, n - d);
    }
  });
}

template <class T>
TERN_INLINE tensor_view<T, 3> with_heads(tensor_view<T, 2> const& x) {
  return x.expanded();
}
template <class T>
TERN_INLINE tensor_view<T, 3> with_heads(tensor_view<T, 3> const& x) {
  return x;
}

/// Where tokens stand: an integer, an int32 view, or a table.
template <class P>
concept rope_positions = rope_start<P> || tensor_like<P>;

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// `tern::rope(policy, x, positions, options = {})` in place, `tern::rope(policy, x, y, positions, options = {})` into y: see the top of
/// pointwise/rope.hpp. With a table, of the options only `pairing` is looked at.
inline constexpr struct rope_fn : takes_policy {
  using takes_policy::operator();

  template <tensor_like X, detail::rope_positions P>
  void operator()(cpu_policy const& policy, X&& x, P&& positions, rope_options const& options = {}) const {
    (*this)(policy, x, x, positions, options);
  }

  template <tensor_like X, tensor_like Y, detail::rope_positions P>
  void operator()(cpu_policy const& policy, X&& x, Y&& y, P&& positions, rope_options const& options = {}) const {
    auto const xs = tern::view(x);  // (heads, tokens, dim) or (tokens, dim)
    auto const ys = tern::view(y);
    constexpr int rank = decltype(xs)::rank;
    static_assert(rank == 2 || rank == 3, "rope: x is (heads, tokens, dim) or (tokens, dim)");
    detail::expect_rows("rope", "x", xs);
    detail::expect_like("rope", "y", ys, "x", xs);
    if constexpr (is_table<P>()) {
      tensor_view<float const, 2> const table = tern::view(positions);  // (tokens, d)
      detail::expect_rows("rope", "table", table);
      detail::expect_extent("rope", "table", table, 0, "x", xs, rank - 2);
      detail::expect(table.extent(1) % 2 == 0 && table.extent(1) <= xs.extent(rank - 1), "rope", "table.extent(1)", table.extent(1),
                     "an even number, at most the extent of x's rows");
      detail::rope_rows(policy, detail::with_heads(xs), detail::with_heads(ys), table, options.pairing);
    } else {
      index const tokens = xs.extent(rank - 2), d = rotated(options, xs.extent(rank - 1));
      workspace::lease const scratch(policy.scratch(), workspace_size(policy, x, positions, options));
      tensor_view<float, 2> const table(reinterpret_cast<float*>(scratch.data()), shape<2>{{tokens, d}});
      rope_table(policy, positions, table, options);
      detail::rope_rows(policy, detail::with_heads(xs), detail::with_heads(ys), tensor_view<float const, 2>(table), options.pairing);
    }
  }

  /// Scratch memory, in bytes: none with a table.
  template <tensor_like X, detail::rope_positions P>
  std::size_t workspace_size(cpu_policy const&, X&& x, P&&, rope_options const& options = {}) const {
    auto const xs = tern::view(x);
    constexpr int rank = decltype(xs)::rank;
    if constexpr (is_table<P>())
      return 0;
    else
      return workspace::rounded(sizeof(float) * static_cast<std::size_t>(xs.extent(rank - 2) * rotated(options, xs.extent(rank - 1))));
  }
  template <tensor_like X, tensor_like Y, detail::rope_positions P>
  std::size_t workspace_size(cpu_policy const& policy, X&& x, Y&&, P&& positions, rope_options const& options = {}) const {
    return workspace_size(policy, x, positions, options);
  }

  /// Rounding of two products and a sum.
  static constexpr double error = 3 * 0x1p-24;

 private:
  template <class P>
  static constexpr bool is_table() {
    if constexpr (detail::rope_start<P>)
      return false;
    else
      return view_of<P>::rank == 2;
  }
  static index rotated(rope_options const& options, index n) {
    index const d = options.dimensions != 0 ? options.dimensions : n;
    detail::expect(d <= n, "rope", "options.dimensions", d, "at most the extent of x's rows");
    detail::expect_rope_options("rope", options, d);
    return d;
  }
} rope{};

}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file pointwise/swiglu.hpp
/// The gated activation of Llama-like models.
///
///     y = silu(gate) up,    silu(z) = z / (1 + e^-z)
///
/// Shapes  gate, up, y (..., n); rows contiguous, leading dimensions of any strides; y may be gate or up.
/// Types   f32, f16 or bf16 each; f32 inside.
/// Special as the formula says: a gate of -infinity gives NaN.
/// Cost    about 20 flop an element.
/// Error   |y - y*| <= swiglu.error |y*| + 2^-119 |up| (a gate below -87 may give 0), and the rounding of y's type.
/// Source  Shazeer, "GLU Variants Improve Transformer", 2020.

#include <tern/pointwise/rows.hpp>
#include <tern/simd/math.hpp>

namespace tern {
inline namespace TERN_ABI {

/// `tern::swiglu(policy, gate, up, y)`: see the top of pointwise/swiglu.hpp.
inline constexpr struct swiglu_fn {
  template <tensor_like G, tensor_like U, tensor_like Y>
  void operator()(cpu_policy const& policy, G&& gate, U&& up, Y&& y) const {
    auto const gs = tern::view(gate);  // (..., n)
    auto const us = tern::view(up);    // (..., n)
    auto const ys = tern::view(y);     // (..., n)
    detail::expect_rows("swiglu", "gate", gs);
    detail::expect_like("swiglu", "up", us, "gate", gs);
    detail::expect_like("swiglu", "y", ys, "gate", gs);
    detail::row_list const g(gs);
    detail::row_list const u(us);
    detail::row_list const to(ys);
    detail::for_pieces(policy, g.count, g.n, [&](index r, index begin, index end) TERN_LAMBDA {
      auto const* const gate_row = g[r];
      auto const* const up_row = u[r];
      auto* const y_row = to[r];
      detail::each_pack(begin, end, [&](index i, auto part) TERN_LAMBDA {
        detail::store(y_row + i, simd::silu(detail::load(gate_row + i, part)) * detail::load(up_row + i, part), part);
      });
    });
  }

  /// The largest relative error: silu within 5 units in the last place (of 2^-23) without FMA, and a product.
  static constexpr double error = 11 * 0x1p-24;
} swiglu{};

}  // namespace TERN_ABI
}  // namespace tern

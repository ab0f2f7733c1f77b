// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file pointwise/convert.hpp
/// y = x, between types and memory layouts: filling a cache, widening weights.
///
/// Shapes  x, y (..., n); rows contiguous, leading dimensions of any strides; y may be x.
/// Types   f32, f16 or bf16 each; rounded to nearest, ties to even.

#include <tern/pointwise/rows.hpp>

namespace tern {
inline namespace TERN_ABI {

/// `tern::convert(policy, x, y)`: see the top of pointwise/convert.hpp.
inline constexpr struct convert_fn {
  template <tensor_like X, tensor_like Y>
  void operator()(cpu_policy const& policy, X&& x, Y&& y) const {
    auto const xs = tern::view(x);  // (..., n)
    auto const ys = tern::view(y);  // (..., n)
    detail::expect_rows("convert", "x", xs);
    detail::expect_like("convert", "y", ys, "x", xs);
    detail::row_list const from(xs);
    detail::row_list const to(ys);
    detail::for_pieces(policy, from.count, from.n, [&](index r, index begin, index end) TERN_LAMBDA {
      detail::convert_row(from[r] + begin, to[r] + begin, end - begin);
    });
  }
} convert{};

}  // namespace TERN_ABI
}  // namespace tern

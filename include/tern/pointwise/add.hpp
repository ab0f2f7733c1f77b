// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file pointwise/add.hpp
/// y = a + b, the residual connection.
///
/// Shapes  a, b, y (..., n); rows contiguous, leading dimensions of any strides; y may be a or b.
/// Types   f32, f16 or bf16 each; the sum is rounded to f32, then to y's type.

#include <tern/pointwise/rows.hpp>

namespace tern {
inline namespace TERN_ABI {

/// `tern::add(policy, a, b, y)`: see the top of pointwise/add.hpp.
inline constexpr struct add_fn {
  template <tensor_like A, tensor_like B, tensor_like Y>
  void operator()(cpu_policy const& policy, A&& a, B&& b, Y&& y) const {
    auto const as = tern::view(a);  // (..., n)
    auto const bs = tern::view(b);  // (..., n)
    auto const ys = tern::view(y);  // (..., n)
    detail::expect_rows("add", "a", as);
    detail::expect_like("add", "b", bs, "a", as);
    detail::expect_like("add", "y", ys, "a", as);
    detail::row_list const left(as);
    detail::row_list const right(bs);
    detail::row_list const to(ys);
    detail::for_pieces(policy, left.count, left.n, [&](index r, index begin, index end) TERN_LAMBDA {
      auto const* const a_row = left[r];
      auto const* const b_row = right[r];
      auto* const y_row = to[r];
      detail::each_pack(begin, end, [&](index i, auto part) TERN_LAMBDA {
        detail::store(y_row + i, detail::load(a_row + i, part) + detail::load(b_row + i, part), part);
      });
    });
  }
} add{};

}  // namespace TERN_ABI
}  // namespace tern

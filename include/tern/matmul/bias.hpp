// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/bias.hpp
/// Epilogues of a matmul that add to y:
///
///     bias{b}        y(r, i) += b(i)        b (n): f32
///     residual{x}    y(r, i) += x(r, i)     x (rows, n): f32, contiguous along n; may not overlap y: `accumulate` adds to y
///
/// Convolutions take both too (conv/depthwise_conv.hpp): a bias for each channel, a residual of y's shape.
/// Errors: lengths that are not y's; a residual that overlaps y.

#include <tern/core/error.hpp>
#include <tern/core/tensor_view.hpp>
#include <tern/pointwise/rows.hpp>

namespace tern {
inline namespace TERN_ABI {

/// y(r, i) += values(i).
struct bias {
  tensor_view<float const, 1> values;

  TERN_INLINE explicit bias(tensor_view<float const, 1> const& v) : values(v) {}
  template <tensor_like V>
  TERN_INLINE explicit bias(V const& v) : values(tern::view(v)) {}
  void check(index, index n) const {
    detail::expect_equal("matmul", "bias.extent(0)", values.extent(0), "w's rows", n);
    detail::expect_rows("matmul", "bias", values);
  }
  void finish(float* y, index, index n0, index n1) const {
    float const* const b = values.data() + n0;
    detail::each_pack(0, n1 - n0, [&](index i, auto part) TERN_LAMBDA {
      detail::store(y + i, detail::load(y + i, part) + detail::load(b + i, part), part);
    });
  }
};

/// y(r, i) += values(r, i): y has as many dimensions, two in a matmul.
template <int Rank>
struct residual {
  tensor_view<float const, Rank> values;

  TERN_INLINE explicit residual(tensor_view<float const, Rank> const& v) : values(v) {}
  template <tensor_like V>
  TERN_INLINE explicit residual(V const& v) : values(tern::view(v)) {}
  void check(index rows, index n) const
    requires(Rank == 2)
  {
    detail::expect_equal("matmul", "residual.extent(0)", values.extent(0), "y's rows", rows);
    detail::expect_equal("matmul", "residual.extent(1)", values.extent(1), "w's rows", n);
    detail::expect_rows("matmul", "residual", values);
  }
  void finish(float* y, index row, index n0, index n1) const
    requires(Rank == 2)
  {
    float const* const x = values.data() + row * values.stride(0) + n0;
    detail::each_pack(0, n1 - n0, [&](index i, auto part) TERN_LAMBDA {
      detail::store(y + i, detail::load(y + i, part) + detail::load(x + i, part), part);
    });
  }
};
template <tensor_like V>
residual(V const&) -> residual<view_of<V const>::rank>;

}  // namespace TERN_ABI
}  // namespace tern

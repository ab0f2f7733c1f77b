// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/bilinear.hpp
/// Scores through a matrix for each head: s_ij = scale q_i G_h k_j^T.
///
/// Option  attention(policy, q, k, v, out, bilinear{matrix}), matrix (heads, dim, dim), f32, dim at most 1024.
/// Cost    2 dim^2 flop for each row of q; keys stay as they are.
/// Error   that of attention with q G in place of q, and besides u sqrt(dim) |q| |G| |k| in each score.

#include <tern/attention/options.hpp>
#include <tern/pointwise/rows.hpp>

namespace tern {
inline namespace TERN_ABI {

/// q G_h in place of q.
struct bilinear {
  tensor_view<float const, 3> matrix;  ///< (heads, dim, dim)
  template <tensor_like X>
  TERN_INLINE constexpr explicit bilinear(X&& x) : matrix(tern::view(x)) {}
  TERN_INLINE void query(float* row, index dim, row_at const& at) const {
    float q[most];
    __builtin_memcpy(q, row, static_cast<std::size_t>(dim) * sizeof(float));
    float const* const g = matrix.data() + at.head * matrix.stride(0);  // (dim, dim)
    detail::each_pack(0, dim, [&](index c, auto part) TERN_LAMBDA {
      floats sum(0.f);
      for (index r = 0; r < dim; ++r) sum = simd::fma(floats(q[r]), detail::load(g + r * matrix.stride(1) + c, part), sum);
      detail::store(row + c, sum, part);
    });
  }
  TERN_INLINE void key(float*, index, row_at const&) const {}
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_equal("attention", "the heads of bilinear's matrix", matrix.extent(0), "the heads of q", n.heads);
    for (int d = 1; d < 3; ++d)
      detail::expect_equal("attention", "an extent of bilinear's matrix", matrix.extent(d), "the dim of q", n.dim);
    detail::expect(n.dim <= 1 || matrix.stride(2) == 1, "attention", "the last stride of bilinear's matrix", matrix.stride(2),
                   "1 (contiguous rows)");
    detail::expect(n.dim <= most, "attention", "the dim of q", n.dim, "at most 1024 with bilinear");
  }

 private:
  static constexpr index most = 1024;
};

}  // namespace TERN_ABI
}  // namespace tern

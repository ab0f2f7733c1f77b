// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tokens/systems/paraformer.hpp
/// Paraformer's predictor, continuous integrate-and-fire: frames of sound are summed until their weights reach one, which makes a token.
///
///     integrate_and_fire(policy, h, alpha, y, counts)
///
///     c_t = alpha_0 + ... + alpha_t;    y_j = sum_t w_jt h_t,   w_jt = |[c_{t-1}, c_t] intersected with [j, j + 1]|,   j < floor(c_last)
///
/// Shapes    h (samples, frames, channels) f32, f16 or bf16, alpha (samples, frames) f32, none negative; y (samples, most, channels) f32;
///           counts (samples) int32: how many tokens each sample has, at most as many as there is room for. What is left at the end, less
///           than one, makes none, but may be in the row of y behind the last.
/// Sums      are f32, in the order of the frames; a weight of 1 a frame gives the frames to the bit.
/// Cost      reads each frame once. A sample is a thread's.
/// Source    Gao et al. 2022, arXiv:2206.08317 (section 3.2); Dong and Xu 2020, arXiv:1905.11235.

#include <tern/pointwise/rows.hpp>

namespace tern {
inline namespace TERN_ABI {

/// integrate_and_fire(policy, h, alpha, y, counts): see the top of this file.
inline constexpr struct integrate_and_fire_fn {
  template <tensor_like H>
  void operator()(cpu_policy const& policy, H&& h, tensor_view<float const, 2> const& alpha, tensor_view<float, 3> const& y,
                  tensor_view<std::int32_t, 1> const& counts) const {
    static_assert(view_of<H>::rank == 3, "tern: integrate_and_fire takes h (samples, frames, channels)");
    constexpr char const* op = "integrate_and_fire";
    auto const x = tern::view(h);
    detail::expect_rows(op, "h", x);
    detail::expect_rows(op, "y", y);
    detail::expect_extent(op, "alpha", alpha, 0, "h", x, 0);
    detail::expect_extent(op, "alpha", alpha, 1, "h", x, 1);
    detail::expect_extent(op, "y", y, 0, "h", x, 0);
    detail::expect_extent(op, "y", y, 2, "h", x, 2);
    detail::expect_equal(op, "counts.extent(0)", counts.extent(0), "h.extent(0)", x.extent(0));
    detail::for_rows(policy, x.extent(0), x.extent(1) * x.extent(2), [&](index b) TERN_LAMBDA { counts[b] = fire(x[b], alpha[b], y[b]); });
  }

 private:
  /// Tokens of a sample; returns how many there are.
  template <class V>
  static std::int32_t fire(V const& x, tensor_view<float const, 1> const& alpha, tensor_view<float, 2> const& y) noexcept {
    index const most = y.extent(0);
    index count = 0;
    float held = 0;  // of the token that is being made
    bool empty = true;
    for (index t = 0; t < x.extent(0) && count < most; ++t) {
      float left = alpha[t];
      while (left > 0 && count < most) {
        float const wanted = 1.f - held, part = left < wanted ? left : wanted;
        add(part, x[t], y[count], empty);
        empty = false;
        left -= part;
        held += part;
        if (part < wanted) break;
        ++count;
        held = 0;
        empty = true;
      }
    }
    return static_cast<std::int32_t>(count);
  }
  template <class T>
  TERN_INLINE static void add(float weight, tensor_view<T, 1> const& x, tensor_view<float, 1> const& y, bool first) {
    simd::pack<float> const w(weight);
    detail::each_pack(0, x.extent(0), [&](index c, auto part) TERN_LAMBDA {
      auto const e = detail::load(x.data() + c, part);
      detail::store(y.data() + c, first ? w * e : simd::fma(w, e, detail::load(y.data() + c, part)), part);
    });
  }
} integrate_and_fire{};

}  // namespace TERN_ABI
}  // namespace tern

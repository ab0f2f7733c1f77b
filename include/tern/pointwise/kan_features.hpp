// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file pointwise/kan_features.hpp
/// A Kolmogorov-Arnold layer: what stands on its edges are functions, sums of fixed ones with learned factors. The fixed ones are made
/// here, and the layer is a product with any weights:
///
///     y_o = sum_i (w_oi silu(x_i) + sum_b c_oib B_b(x_i))
///
///     kan_features(policy, x, basis, f)       f = silu(x), B_0(x), B_1(x), ...: (1 + basis.count()) n columns, n of each
///     matmul(policy, f, w, y)                 w (m, (1 + basis.count()) n): the base weights, then c(., ., 0), c(., ., 1), ...
///
///     cubic_splines{low, high, cells}     B-splines of degree 3 over a grid of `cells` equal cells of [low, high], which goes on for three
///                                         cells at either end: cells + 3 of them. With h a cell's width and M the spline over 0, 1, 2, 3,
///                                         4, B_b(x) = M((x - low) / h + 3 - b),  M(v) = (4 - 6 a^2 + 3 a^3) / 6 for a = |v - 2| <= 1, (2 -
///                                         a)^3 / 6 up to 2, 0 beyond
///     gaussians{low, high, centers}       B_b(x) = e^-((x - g_b) / h)^2, centers g_b from low to high, h apart: the fast variant
///
/// Within [low, high] the splines add up to 1.
///
/// Shapes  x (..., n), f (..., (1 + count) n); rows contiguous, leading dimensions of any strides.
/// Types   f32, f16 or bf16 each; f32 inside.
/// Special NaN gives NaN; of infinity, basis functions are 0.
/// Cost    about 15 flop an element and spline, 25 an element and Gaussian.
/// Error   |B - B*| <= kan_features.error(basis, x) for each, and the rounding of f's type; silu as pointwise/swiglu.hpp.
/// Errors  low that is not below high, or infinitely far from it; less than one cell, or two centers; shapes that do not fit.
/// Source  Liu et al., "KAN: Kolmogorov-Arnold Networks", 2024 (arXiv:2404.19756); Manzari et al., MedViTV2, 2025 (arXiv:2502.13693), for
///         layers of it between attention; Li, "Kolmogorov-Arnold Networks are Radial Basis Function Networks", 2024, for the Gaussians
///         (formulas from knowledge).

#include <tern/pointwise/rows.hpp>
#include <tern/simd/math.hpp>

namespace tern {
inline namespace TERN_ABI {

/// B-splines of degree 3 over an even grid.
struct cubic_splines {
  float low = -1, high = 1;
  index cells = 5;
  TERN_INLINE index count() const { return cells + 3; }
  TERN_INLINE float inverse_step() const { return static_cast<float>(cells) / (high - low); }
  /// Of (x - low) / h.
  TERN_INLINE simd::pack<float> at(simd::pack<float> u, index b) const {
    using packf = simd::pack<float>;
    packf const a = simd::abs(u + packf(static_cast<float>(1 - b))), rest = simd::max(packf(0.f), packf(2.f) - a);
    packf const near = simd::fma(simd::fma(packf(0.5f), a, packf(-1.f)), a * a, packf(2.f / 3.f));
    packf const value = simd::select(a < packf(1.f), near, rest * rest * rest * packf(1.f / 6.f));
    return simd::select(a == a, value, a);
  }
  TERN_INLINE void check() const { detail::expect(cells >= 1, "kan_features", "cubic_splines.cells", cells, "at least 1"); }
};

/// Gaussians at even distances.
struct gaussians {
  float low = -2, high = 2;
  index centers = 8;
  TERN_INLINE index count() const { return centers; }
  TERN_INLINE float inverse_step() const { return static_cast<float>(centers - 1) / (high - low); }
  /// Of (x - low) / h.
  TERN_INLINE simd::pack<float> at(simd::pack<float> u, index b) const {
    simd::pack<float> const d = u - simd::pack<float>(static_cast<float>(b));
    return simd::exp(-(d * d));
  }
  TERN_INLINE void check() const { detail::expect(centers >= 2, "kan_features", "gaussians.centers", centers, "at least 2"); }
};

/// kan_features(policy, x, basis, f): see the top of this file.
inline constexpr struct kan_features_fn {
  template <tensor_like X, class Basis, tensor_like F>
    requires std::is_same_v<Basis, cubic_splines> || std::is_same_v<Basis, gaussians>
  void operator()(cpu_policy const& policy, X&& x, Basis const& basis, F&& f) const {
    auto const xs = tern::view(x);  // (..., n)
    auto const fs = tern::view(f);  // (..., (1 + count) n)
    constexpr int last = decltype(xs)::rank - 1;
    static_assert(decltype(fs)::rank == last + 1, "tern: kan_features takes x and f of the same number of dimensions");
    basis.check();
    if (!(basis.low < basis.high)) detail::fail("kan_features: low is not below high, expected a range");
    if (!(basis.high - basis.low < __builtin_inff())) detail::fail("kan_features: high - low is infinite, expected a range");
    detail::expect_rows("kan_features", "x", xs);
    detail::expect_rows("kan_features", "f", fs);
    for (int d = 0; d < last; ++d) detail::expect_extent("kan_features", "f", fs, d, "x", xs, d);
    index const n = xs.extent(last), count = basis.count();
    detail::expect_equal("kan_features", "the extent of f's rows", fs.extent(last), "(1 + basis.count()) x.extent", (1 + count) * n);
    detail::row_list const from(xs);
    detail::row_list const to(fs);
    simd::pack<float> const low(basis.low), inverse(basis.inverse_step());
    detail::for_rows(policy, from.count, (1 + count) * n, [&](index r) TERN_LAMBDA {
      auto const* const row = from[r];
      auto* const out = to[r];
      detail::each_pack(0, n, [&](index i, auto part) TERN_LAMBDA {
        simd::pack<float> const e = detail::load(row + i, part), u = (e - low) * inverse;
        detail::store(out + i, simd::silu(e), part);
        for (index b = 0; b < count; ++b) detail::store(out + (1 + b) * n + i, basis.at(u, b), part);
      });
    });
  }

  /// The largest error of a basis function at x: slopes are below 1, (x - low) / h is off by its roundings, and values by a few.
  template <class Basis>
  static constexpr double error(Basis const& basis, double x) {
    double const h = (static_cast<double>(basis.high) - static_cast<double>(basis.low)) /
                     static_cast<double>(std::is_same_v<Basis, cubic_splines> ? basis.count() - 3 : basis.count() - 1);
    double const from = x - static_cast<double>(basis.low), u = (from < 0 ? -from : from) / h;
    return 0x1p-24 * (4 * u + 12);
  }
} kan_features{};

}  // namespace TERN_ABI
}  // namespace tern

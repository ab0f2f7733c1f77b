// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/systems/gaunt.hpp
/// Gaunt tensor product: features that rotate as spherical harmonics do are multiplied as the functions on the sphere that they stand for.
///
///     out_(l m) = sum over l1 m1, l2 m2 of x1_(l1 m1) x2_(l2 m2) g,   g = the integral over the sphere of Y_(l m) Y_(l1 m1) Y_(l2 m2)
///
///     gaunt_plan plan(l1, l2, l3);                                degrees 0 to l1 of x1, to l2 of x2, to l3 of out
///     gaunt(policy, plan, x1, x2, out)
///     gaunt(policy, plan, x1, x2, out, gaunt_weights{w1, w2, w3})    with each degree weighted, by channel
///
/// A product of functions is a convolution of their coefficients in the Fourier basis, which transforms make a product of values. Here the
/// change to that basis and the transform are one matrix, made off line, as is the way back: values at the points of a quadrature that is
/// exact for degree l1 + l2 + l3, (l1 + l2 + l3) / 2 + 1 by l1 + l2 + l3 + 1 of them, from which out follows by another matrix.
///
/// Shapes  x1 (N, C, (l1 + 1)^2), x2 (N, C, (l2 + 1)^2), out (N, C, (l3 + 1)^2), w1 (C, l1 + 1), w2 (C, l2 + 1), w3 (C, l3 + 1), each of
///         which may be left out, {}. f32, numbers contiguous, no gaps between items. Place l^2 + l + m has the real harmonic of degree l
///         and order m: sqrt 2 cos(m phi) for m > 0, sqrt 2 sin(-m phi) for m < 0, 1 for m = 0, times the associated Legendre function
///         without Condon's and Shortley's sign, orthonormal on the sphere. out may be x1 or x2.
/// Errors  degrees below 0 or above 100, extents that do not fit, gaps.
/// Memory  a plan: 4 bytes for each point and each number of x1, x2 and out. Scratch from the policy: the values of 128 items, or 1 MiB,
///         and matmul's.
/// Cost    two matrix products of points by numbers in and one out: for l1 = l2 = l3 = L about 27 L^4 flop an item, where the sum over
///         coefficients has L^6 terms. Transforms of (2 (l1 + l2) + 1)^2 numbers, as in the paper, would be of order L^2 log L, but for the
///         three of an item alone real_fft_2d takes 41 times as long as all of this at L = 6, 11 times at 12, 3.2 times at 24 (AVX-512).
/// Same    for any number of threads. matmul adds up few items in another order than many: alone an item may differ in its last bits.
/// Error   |out - out*| <= gaunt.error(plan) times the integral of |Y| (sum of |x1 Y1|) (sum of |x2 Y2|), as the quadrature sees it.
/// Source  Luo et al., "Enabling Efficient Equivariant Operations in the Fourier Basis via Gaunt Tensor Products", ICLR 2024,
///         arXiv:2401.10216: its abstract; harmonics and quadrature from knowledge.

#include <tern/core/owned_floats.hpp>
#include <tern/matmul/matmul.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

inline constexpr index gaunt_most_degree = 100;

/// The nodes and weights of Gauss's quadrature on [-1, 1], n of them: roots of a Legendre polynomial by Newton's steps.
TERN_INLINE void gauss_legendre(index n, double* nodes, double* weights) {
  for (index i = 0; i < n; ++i) {
    double z = __builtin_cos(3.14159265358979323846 * (static_cast<double>(i) + 0.75) / (static_cast<double>(n) + 0.5)), slope = 1;
    for (int step = 0; step < 8; ++step) {
      double before = 0, value = 1;
      for (index l = 1; l <= n; ++l) {
        double const a = static_cast<double>(l), next = ((2 * a - 1) * z * value - (a - 1) * before) / a;
        before = value;
        value = next;
      }
      slope = static_cast<double>(n) * (z * value - before) / (z * z - 1);
      z -= value / slope;
    }
    nodes[i] = z;
    weights[i] = 2 / ((1 - z * z) * slope * slope);
  }
}

/// The real harmonics of degrees 0 to `most` where cos(theta) = z: each at `place + stride (l^2 + l + m)`, times `factor`.
TERN_INLINE void spherical_harmonics(index most, double z, double phi, double factor, float* place, index stride) {
  double diagonal = factor * 0.28209479177387814347;  // 1 / sqrt(4 pi)
  double const s = __builtin_sqrt(1 - z * z);
  for (index m = 0; m <= most; ++m) {
    double const order = static_cast<double>(m);
    if (m > 0) diagonal *= s * __builtin_sqrt((2 * order + 1) / (2 * order));
    double const root = m > 0 ? 1.41421356237309504880 : 1, c = root * __builtin_cos(order * phi), t = root * __builtin_sin(order * phi);
    double before = 0, value = diagonal, scale = 0;
    for (index l = m; l <= most; ++l) {
      if (l > m) {
        double const a = static_cast<double>(l), b = __builtin_sqrt((4 * a * a - 1) / (a * a - order * order));
        double const next = b * (z * value - scale * before);
        scale = 1 / b;
        before = value;
        value = next;
      }
      place[stride * (l * l + l + m)] = static_cast<float>(c * value);
      if (m > 0) place[stride * (l * l + l - m)] = static_cast<float>(t * value);
    }
  }
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// The matrices of a product: see the top of conv/systems/gaunt.hpp.
class gaunt_plan {
 public:
  inline gaunt_plan(index l1, index l2, index l3) : degree_{l1, l2, l3} {
    for (index l : degree_) detail::expect(l >= 0 && l <= detail::gaunt_most_degree, "gaunt_plan", "a degree", l, "0 to 100");
    index const all = l1 + l2 + l3, rows = all / 2 + 1, columns = all + 1;
    double z[3 * detail::gaunt_most_degree / 2 + 1], w[3 * detail::gaunt_most_degree / 2 + 1];
    detail::gauss_legendre(rows, z, w);
    points_ = rows * columns;
    memory_ = detail::owned_floats(points_ * (numbers(0) + numbers(1) + numbers(2)));
    at_[0] = memory_.data();
    at_[1] = at_[0] + points_ * numbers(0);
    at_[2] = at_[1] + points_ * numbers(1);
    double const step = 6.283185307179586476925 / static_cast<double>(columns);
    for (index p = 0; p < points_; ++p) {
      double const phi = step * static_cast<double>(p % columns), area = step * w[p / columns];
      for (int i = 0; i < 2; ++i) detail::spherical_harmonics(degree_[i], z[p / columns], phi, 1, at_[i] + p * numbers(i), 1);
      detail::spherical_harmonics(l3, z[p / columns], phi, area, at_[2] + p, points_);
    }
  }
  gaunt_plan(gaunt_plan&& other) noexcept = default;
  gaunt_plan& operator=(gaunt_plan&& other) noexcept = default;
  ~gaunt_plan() {}

  /// The largest degree of x1, of x2 and of out, for i = 0, 1, 2, and how many numbers an item has.
  TERN_INLINE index degree(int i) const { return degree_[i]; }
  TERN_INLINE index numbers(int i) const { return (degree_[i] + 1) * (degree_[i] + 1); }
  TERN_INLINE index points() const { return points_; }
  /// Harmonics at points (points, numbers) of x1 and x2.
  TERN_INLINE tensor_view<float const, 2> values(int i) const { return {at_[i], shape<2>{{points_, numbers(i)}}}; }
  /// Harmonics of out times the points' shares of the sphere (numbers, points).
  TERN_INLINE tensor_view<float const, 2> sums() const { return {at_[2], shape<2>{{numbers(2), points_}}}; }

 private:
  index degree_[3], points_ = 0;
  detail::owned_floats memory_;
  float* at_[3] = {};
};

/// Factors of each degree, by channel: of x1 and x2 before, and of out after the product.
struct gaunt_weights {
  tensor_view<float const, 2> x1 = {}, x2 = {}, out = {};
};

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {

/// Rows of items, whose number `first` is the first one: numbers times the factors (C, l + 1) of their degrees.
struct degree_factors {
  tensor_view<float const, 2> w;
  index first;

  TERN_INLINE void check(index, index) const {}
  TERN_INLINE void scale(float* row, index item, index n0, index n1) const {
    index l = 0;
    while ((l + 1) * (l + 1) <= n0) ++l;
    for (index i = n0; i < n1; ++l)
      for (float const f = w((first + item) % w.extent(0), l); i < n1 && i < (l + 1) * (l + 1); ++i) row[i - n0] *= f;
  }
};
/// As a prologue, and as an epilogue.
struct degree_factors_in : degree_factors {
  void prepare(float* row, index item, index n) const { scale(row, item, 0, n); }
};
struct degree_factors_out : degree_factors {
  void finish(float* y, index item, index n0, index n1) const { scale(y, item, n0, n1); }
};
struct same_register {
  TERN_INLINE simd::pack<float> operator()(simd::pack<float> x) const { return x; }
};

/// (N, C, numbers) as (N C, numbers).
template <class T>
TERN_INLINE tensor_view<T, 2> items_of(char const* argument, tensor_view<T, 3> const& x) {
  expect_rows("gaunt", argument, x);
  if (index const wanted = x.stride(1) * x.extent(1); x.extent(0) > 1 && x.stride(0) != wanted) [[unlikely]]
    (message() << "gaunt: " << argument << ".stride(0) is " << x.stride(0) << ", expected " << wanted << " (no gaps)").fail();
  return {x.data(), shape<2>{{x.extent(0) * x.extent(1), x.extent(2)}}, shape<2>{{x.stride(1), x.stride(2)}}};
}
TERN_INLINE void expect_degrees(char const* argument, tensor_view<float const, 2> const& w, index channels, index degree) {
  if (w.data() == nullptr) return;
  message m;
  if (w.extent(0) != channels || w.extent(1) != degree + 1) [[unlikely]]
    (m << "gaunt: " << argument << " is " << w.extent(0) << " by " << w.extent(1) << ", expected " << channels << " channels by "
       << degree + 1 << " degrees")
        .fail();
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// gaunt(policy, plan, x1, x2, out[, weights]): see the top of this file.
inline constexpr struct gaunt_fn {
  /// Of the values of each factor, and of the sum over points; the harmonics are rounded once.
  static double error(gaunt_plan const& plan) {
    return 0x1p-24 * (matmul.accuracy(plan.numbers(0)) + matmul.accuracy(plan.numbers(1)) + matmul.accuracy(plan.points()) + 8);
  }

  void operator()(cpu_policy const& policy, gaunt_plan const& plan, tensor_view<float const, 3> const& x1,
                  tensor_view<float const, 3> const& x2, tensor_view<float, 3> const& out, gaunt_weights const& weights = {}) const {
    constexpr char const* op = "gaunt";
    for (int d = 0; d < 2; ++d) {
      detail::expect_extent(op, "x2", x2, d, "x1", x1, d);
      detail::expect_extent(op, "out", out, d, "x1", x1, d);
    }
    detail::expect_equal(op, "x1.extent(2)", x1.extent(2), "the plan's numbers", plan.numbers(0));
    detail::expect_equal(op, "x2.extent(2)", x2.extent(2), "the plan's numbers", plan.numbers(1));
    detail::expect_equal(op, "out.extent(2)", out.extent(2), "the plan's numbers", plan.numbers(2));
    detail::expect_degrees("weights.x1", weights.x1, x1.extent(1), plan.degree(0));
    detail::expect_degrees("weights.x2", weights.x2, x1.extent(1), plan.degree(1));
    detail::expect_degrees("weights.out", weights.out, x1.extent(1), plan.degree(2));
    auto const a = detail::items_of("x1", x1), b = detail::items_of("x2", x2);  // (items, numbers)
    auto const to = detail::items_of("out", out);
    // As many items at a time as leave their values in cache, in even pieces: matmul adds up few rows in another order than many.
    constexpr index cached = 1 << 17, fewest = 4 * detail::most_other_stream_rows;
    index const points = plan.points(), share = cached / points, most = share < fewest ? fewest : share, items = a.extent(0);
    index const pieces = detail::divide_up(items, most);
    workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(2 * detail::least(most, items) * points) * sizeof(float));
    for (index piece = 0; piece < pieces; ++piece) {
      index const first = items * piece / pieces, end = items * (piece + 1) / pieces, count = end - first;
      auto const one = tern::view(reinterpret_cast<float*>(memory.data()), count, points);  // values at points
      auto const both = tern::view(one.data() + count * points, count, points);
      detail::same_register const same;
      multiply(policy, a.slice(0, first, end), plan.values(0), one, weights.x1, first);
      multiply(policy, b.slice(0, first, end), plan.values(1), both, weights.x2, first,
               detail::multiply_by<detail::same_register>{same, one.data(), points});
      auto const result = to.slice(0, first, end);
      if (weights.out.data() != nullptr)
        matmul(policy, both, plan.sums(), result, detail::degree_factors_out{{weights.out, first}});
      else
        matmul(policy, both, plan.sums(), result);
    }
  }

 private:
  template <class... Epilogue>
  static void multiply(cpu_policy const& policy, tensor_view<float const, 2> const& x, tensor_view<float const, 2> const& values,
                       tensor_view<float, 2> const& y, tensor_view<float const, 2> const& w, index first, Epilogue const&... epilogue) {
    if (w.data() != nullptr)
      matmul(policy, x, values, y, detail::degree_factors_in{{w, first}}, epilogue...);
    else
      matmul(policy, x, values, y, epilogue...);
  }
} gaunt{};

}  // namespace TERN_ABI
}  // namespace tern

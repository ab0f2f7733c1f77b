// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/principal_components.hpp
/// The directions in which rows differ most: orthogonal, the first r of which span the best space of r dimensions for every r.
///
///     sum over rows of |x_i - mean - sum over c < r of u_c u_c^T (x_i - mean)|^2 is the least that r directions u_c leave
///
///     principal_components(x, components, variances, mean)    mean: of the rows
///     principal_components(x, components, variances)          about zero: of x = A B, the r directions of a truncated SVD are B's rows
///     rank_of(variances, share)                               the least r whose directions have `share` of the variance
///
/// Shapes    x (n, dim) f32, f16 or bf16, any strides; components f32 (at most dim, dim), a direction a row; variances f32 (dim), along
///           all directions, descending; mean f32 (dim).
/// Signs     the element of largest magnitude of a direction is positive, so that the same rows give the same result.
/// Error     x^T x is summed and decomposed in f64, and rounded to f32 once.
/// Cost      n dim^2 multiply-adds, and about 9 dim^3 for the decomposition. Off line: it allocates, on one thread.
/// Fails     where there are no rows, or one that holds NaN or infinity.
/// Source    the singular value decomposition of Eckart and Young, "The approximation of one matrix by another of lower rank", 1936.

#include <tern/core/error.hpp>
#include <tern/core/tensor_view.hpp>

#include <Eigen/Dense>

#include <cmath>

namespace tern {
inline namespace TERN_ABI {

/// See the top of this file.
inline constexpr struct principal_components_fn {
  template <tensor_like X>
  void operator()(X&& rows, tensor_view<float, 2> const& components, tensor_view<float, 1> const& variances,
                  tensor_view<float, 1> const& mean) const {
    Eigen::VectorXd center = Eigen::VectorXd::Zero(tern::view(rows).extent(1));
    for (index i = 0; i < tern::view(rows).extent(0); ++i)
      for (index d = 0; d < center.size(); ++d) center[d] += static_cast<double>(tern::view(rows)(i, d));
    center /= static_cast<double>(tern::view(rows).extent(0));
    detail::expect_equal("principal_components", "mean.extent(0)", mean.extent(0), "x.extent(1)", center.size());
    run(tern::view(rows), components, variances, center);
    for (index d = 0; d < center.size(); ++d) mean[d] = static_cast<float>(center[d]);
  }
  template <tensor_like X>
  void operator()(X&& rows, tensor_view<float, 2> const& components, tensor_view<float, 1> const& variances) const {
    run(tern::view(rows), components, variances, Eigen::VectorXd::Zero(tern::view(rows).extent(1)));
  }

 private:
  template <class X>
  static void run(X const& x, tensor_view<float, 2> const& components, tensor_view<float, 1> const& variances,
                  Eigen::VectorXd const& center) {
    static_assert(X::rank == 2, "tern: principal_components takes x (n, dim)");
    constexpr char const* op = "principal_components";
    constexpr index chunk = 256;
    index const n = x.extent(0), dim = x.extent(1);
    detail::expect(n >= 1, op, "x.extent(0)", n, "at least 1");
    detail::expect_equal(op, "components.extent(1)", components.extent(1), "x.extent(1)", dim);
    detail::expect(components.extent(0) <= dim, op, "components.extent(0)", components.extent(0), "at most x.extent(1)");
    detail::expect_equal(op, "variances.extent(0)", variances.extent(0), "x.extent(1)", dim);
    Eigen::MatrixXd products = Eigen::MatrixXd::Zero(dim, dim), some(chunk, dim);
    for (index first = 0; first < n; first += chunk) {
      index const count = n - first < chunk ? n - first : chunk;
      for (index i = 0; i < count; ++i)
        for (index d = 0; d < dim; ++d) some(i, d) = static_cast<double>(x(first + i, d)) - center[d];
      detail::expect(some.topRows(count).allFinite(), op, "the first row of some that hold NaN or infinity", first, "finite numbers");
      products.selfadjointView<Eigen::Lower>().rankUpdate(some.topRows(count).transpose());
    }
    Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> const solved(products / static_cast<double>(n));  // ascending
    for (index c = 0; c < dim; ++c) {
      double const along = solved.eigenvalues()[dim - 1 - c];
      variances[c] = static_cast<float>(along > 0 ? along : 0);
      if (c >= components.extent(0)) continue;
      auto const direction = solved.eigenvectors().col(dim - 1 - c);
      Eigen::Index largest = 0;
      direction.cwiseAbs().maxCoeff(&largest);
      double const sign = direction[largest] < 0 ? -1 : 1;
      for (index d = 0; d < dim; ++d) components(c, d) = static_cast<float>(sign * direction[d]);
    }
  }
} principal_components{};

}  // namespace TERN_ABI

/// The least number of directions that have `share` of the variance: see the top of this file.
TERN_INLINE index rank_of(tensor_view<float const, 1> const& variances, double share) {
  double all = 0, sum = 0;
  for (index c = 0; c < variances.extent(0); ++c) all += static_cast<double>(variances[c]);
  index r = 0;
  while (r < variances.extent(0) && sum < share * all) sum += static_cast<double>(variances[r++]);
  return r;
}

}  // namespace tern

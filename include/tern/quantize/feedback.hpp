// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file quantize/feedback.hpp
/// How an error made in one column is made up for in the columns after it: the triangular factor that GPTQ works with, made once for
/// all matrices that share their inputs, and for all formats.
///
///     H = X^T X + damping mean(diag X^T X) I,    H^-1 = U^T U with U upper triangular, columns in GPTQ's order
///     after column j:  w_i -= (w_j - q_j) U_ji / U_jj  for all i > j
///
/// From the last column to the first, H = L L^T is an ordinary Cholesky factorization; U is L's inverse, seen in this order, so that
/// H is never inverted. The matrix kept is -U_ji / U_jj.
///
/// A column whose inputs were all zero stands alone: its weights are rounded to nearest. Cost: k^3 / 3 multiplications in f64; 4 k^2 bytes,
/// and 8 k^2 on the way. Source: Frantar et al., "GPTQ", 2022; from knowledge.

#include <tern/quantize/calibration.hpp>

#include <algorithm>
#include <numeric>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// sum of a[i] b[i], in eight partial sums
inline double dot_f64(double const* a, double const* b, index n) {
  double part[8] = {};
  index i = 0;
  for (; i + 8 <= n; i += 8)
    for (index j = 0; j < 8; ++j) part[j] += a[i + j] * b[i + j];
  for (; i < n; ++i) part[0] += a[i] * b[i];
  return ((part[0] + part[4]) + (part[1] + part[5])) + ((part[2] + part[6]) + (part[3] + part[7]));
}

/// The lower Cholesky factor of `a` (k, k), in place; what is above the diagonal stays. Returns the first row that those before it
/// determine, but for rounding, or -1.
inline index factorize(cpu_policy const& policy, std::vector<double>& a, index k) {
  constexpr index panel = 32, rows_of_item = 16;
  auto const row = [&](index i) { return a.data() + i * k; };
  auto const finish = [&](index i, index begin, index end) {  // columns [begin, end) of row i, those before them being done
    for (index j = begin; j < end && j < i; ++j) row(i)[j] = (row(i)[j] - dot_f64(row(i), row(j), j)) / row(j)[j];
  };
  for (index begin = 0; begin < k; begin += panel) {
    index const end = begin + panel < k ? begin + panel : k;
    for (index i = begin; i < end; ++i) {
      finish(i, begin, end);
      double const pivot = row(i)[i] - dot_f64(row(i), row(i), i);
      if (!(pivot > 1e-12 * row(i)[i])) return i;
      row(i)[i] = __builtin_sqrt(pivot);
    }
    parallel_for(policy, divide_up(k - end, rows_of_item), [&](index item, index) {
      index const first = end + item * rows_of_item, last = first + rows_of_item < k ? first + rows_of_item : k;
      for (index i = first; i < last; ++i) finish(i, begin, end);
    });
  }
  return -1;
}

/// For a lower factor L in `a`: with columns divided by their diagonals, the inverse's element (j, i) goes to (i, j), above the diagonal.
inline void invert_unit(cpu_policy const& policy, std::vector<double>& a, index k) {
  constexpr index rows_of_item = 8;
  auto const row = [&](index i) { return a.data() + i * k; };
  for (index i = 0; i < k; ++i)
    for (index j = 0; j < i; ++j) row(i)[j] /= row(j)[j];
  parallel_for(policy, divide_up(k, rows_of_item), [&](index item, index) {
    index const first = item * rows_of_item, last = first + rows_of_item < k ? first + rows_of_item : k;
    for (index j = first + 1; j < k; ++j)
      for (index i = first; i < last && i < j; ++i) row(i)[j] = -(row(j)[i] + dot_f64(row(j) + i + 1, row(i) + i + 1, j - i - 1));
  });
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// The order of GPTQ's columns, and what each takes from the errors of those before it.
class feedback {
 public:
  /// `descending`: columns with the largest inputs come first, as they are the ones that later columns cannot make up for.
  /// Fails for damping that is negative or NaN, and for inputs that depend on each other if it is 0.
  feedback(cpu_policy const& policy, calibration const& seen, double damping = 0.01, bool descending = false)
      : k_(seen.k()), descending_(descending), order_(static_cast<std::size_t>(k_)) {
    detail::expect(seen.samples() > 0, "gptq", "the calibration's samples", seen.samples(), "at least 1");
    detail::expect(damping >= 0 && damping - damping == 0, "gptq", "damping, rounded,", damping >= 0 ? 0 : -1, "a number, at least 0");
    std::iota(order_.begin(), order_.end(), index{0});
    auto const diagonal = [&](index i) { return seen.products(i)[i]; };
    if (descending) std::stable_sort(order_.begin(), order_.end(), [&](index i, index j) { return diagonal(i) > diagonal(j); });
    // From the last column to the first.
    std::vector<double> a(static_cast<std::size_t>(k_ * k_));
    double mean = 0;
    for (index i = 0; i < k_; ++i) mean += diagonal(i) / static_cast<double>(k_);
    for (index i = 0; i < k_; ++i) {
      index const from = column(k_ - 1 - i);
      double* const row = a.data() + i * k_;
      for (index j = 0; j <= i; ++j) row[j] = seen.products(from)[column(k_ - 1 - j)];
      row[i] = diagonal(from) > 0 ? row[i] + damping * mean : 1;
    }
    index const dependent = detail::factorize(policy, a, k_);
    if (dependent >= 0)
      detail::fail_argument("gptq", "a column that others determine", column(k_ - 1 - dependent), "inputs that vary, or damping");
    detail::invert_unit(policy, a, k_);
    matrix_ = detail::dense_matrix(k_, k_);
    for (index i = 0; i < k_; ++i)
      for (index j = 0; j < i; ++j) matrix_.row(i)[j] = static_cast<float>(-a[static_cast<std::size_t>((k_ - 1 - i) * k_ + k_ - 1 - j)]);
  }

  index k() const { return k_; }
  bool descending() const { return descending_; }
  /// The column that comes i-th.
  index column(index i) const { return order_[static_cast<std::size_t>(i)]; }
  /// Row i: what the i-th column takes from the error of the j-th, for j < i; zeros behind.
  tensor_view<float const, 2> matrix() const { return matrix_.view(); }

 private:
  index k_;
  bool descending_;
  std::vector<index> order_;
  detail::dense_matrix matrix_;
};

}  // namespace TERN_ABI
}  // namespace tern

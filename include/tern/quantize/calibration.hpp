// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file quantize/calibration.hpp
/// What the algorithms need to know of a layer's inputs x (samples, k), without keeping them:
///
///     products     X^T X, (k, k): the Hessian of the layer's squared error ||X (W - Wq)^T||^2 is twice this
///     magnitudes   the sum of |x| of each column
///     samples      how many rows
///
///     calibration seen(k);
///     for each batch: seen.add(tern::cpu, x);
///
/// Products of 256 samples are summed in f32, with matmul's error; these sums are summed in f64. Cost: samples k^2 multiplications,
/// 8 k^2 bytes.

#include <tern/matmul/matmul.hpp>
#include <tern/quantize/problem.hpp>

namespace tern {
inline namespace TERN_ABI {

/// The second moments of a layer's inputs.
class calibration {
 public:
  /// Of inputs of width k; nothing seen.
  explicit calibration(index k) : k_(k) {
    detail::expect(k > 0, "calibration", "k", k, "more than 0");
    products_.resize(static_cast<std::size_t>(k * k));
    magnitudes_.resize(static_cast<std::size_t>(k));
  }

  /// Adds inputs (samples, k), f32. Fails if one is NaN or infinite.
  template <tensor_like X>
  void add(cpu_policy const& policy, X const& x) {
    auto const v = tern::view(x);
    static_assert(decltype(v)::rank == 2, "tern: calibration takes x (samples, k): pass a view of rank 2");
    detail::expect_equal("calibration", "x.extent(1)", v.extent(1), "k", k_);
    constexpr index batch = 256;
    for (index begin = 0; begin < v.extent(0); begin += batch) {
      index const end = begin + batch < v.extent(0) ? begin + batch : v.extent(0);
      add_batch(policy, detail::dense(v.slice(0, begin, end).transposed(0, 1)));
    }
    samples_ += v.extent(0);
  }

  index k() const { return k_; }
  index samples() const { return samples_; }
  /// Row i of X^T X: k numbers.
  double const* products(index i) const { return products_.data() + i * k_; }
  /// The mean of x_i^2.
  double mean_square(index i) const { return samples_ > 0 ? products(i)[i] / static_cast<double>(samples_) : 0.; }
  /// The mean of |x_i|.
  double mean_magnitude(index i) const {
    return samples_ > 0 ? magnitudes_[static_cast<std::size_t>(i)] / static_cast<double>(samples_) : 0.;
  }

 private:
  /// x: (k, samples)
  void add_batch(cpu_policy const& policy, detail::dense_matrix const& x) {
    for (index i = 0; i < k_; ++i) {
      detail::expect(detail::all_finite(x.row(i), x.columns), "calibration", "x: a column that holds NaN or infinity", i, "finite inputs");
      double sum = 0;
      for (index s = 0; s < x.columns; ++s) sum += static_cast<double>(__builtin_fabsf(x.row(i)[s]));
      magnitudes_[static_cast<std::size_t>(i)] += sum;
    }
    constexpr index stripe = 256;
    std::vector<float> sums(static_cast<std::size_t>((k_ < stripe ? k_ : stripe) * k_));
    for (index begin = 0; begin < k_; begin += stripe) {
      index const end = begin + stripe < k_ ? begin + stripe : k_;
      auto const y = tern::view(sums.data(), end - begin, end);
      matmul(policy, x.view().slice(0, begin, end), x.view().slice(0, 0, end), y);
      for (index i = begin; i < end; ++i)
        for (index j = 0; j <= i; ++j) products_[static_cast<std::size_t>(i * k_ + j)] += static_cast<double>(y(i - begin, j));
    }
    for (index i = 0; i < k_; ++i)
      for (index j = 0; j < i; ++j) products_[static_cast<std::size_t>(j * k_ + i)] = products_[static_cast<std::size_t>(i * k_ + j)];
  }

  index k_, samples_ = 0;
  std::vector<double> products_, magnitudes_;
};

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {
/// What x has shown: x (samples, k) itself.
template <tensor_like X>
calibration calibration_of(char const* op, cpu_policy const& policy, X const& x, index k) {
  expect_equal(op, "x.extent(1)", tern::view(x).extent(1), "w.extent(1)", k);
  expect(tern::view(x).extent(0) > 0, op, "x.extent(0)", tern::view(x).extent(0), "at least 1");
  calibration seen(k);
  seen.add(policy, x);
  return seen;
}
inline calibration const& calibration_of(char const* op, cpu_policy const&, calibration const& seen, index k) {
  expect_equal(op, "the calibration's k", seen.k(), "w.extent(1)", k);
  expect(seen.samples() > 0, op, "the calibration's samples", seen.samples(), "at least 1");
  return seen;
}
}  // namespace TERN_ABI
}  // namespace detail
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file quantize/learned_rounding.hpp
/// Each weight goes up or down, whichever serves the layer's outputs: coordinate descent, without gradients.
///
///     minimize over codes  (q - w)^T X^T X (q - w),   each q_i among the two values around w_i, scales as the encoder finds them
///
/// Starts at round_to_nearest and takes, column by column, a flip that lowers the sum, until a sweep finds none or `sweeps` are over: it
/// never ends above where it starts. AdaRound and BRECQ pose the same problem and relax it to gradient descent on a rounding mask (Nagel
/// et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", 2020; Yvinec et al., "Gradient-Based Post-Training
/// Quantization: Challenging the Status Quo", 2023); the formula from knowledge, the descent is this library's.
///
/// All in f64. Errors: w as quantize/problem.hpp; x as wide as w. Cost: n k^2 to start, k for each flip. Rows are independent: results
/// do not depend on threads.

#include <tern/quantize/feedback.hpp>
#include <tern/quantize/round_to_nearest.hpp>

namespace tern {
inline namespace TERN_ABI {

/// What learned_rounding may be told.
struct learned_rounding_options {
  index sweeps = 20;             ///< over all columns, at most
  progress_callback progress{};  ///< by rows
};

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {

/// One row: codes that change, and the gradient of the error by each value.
template <class Format>
class rounding_descent {
 public:
  rounding_descent(calibration const& seen, float const* w, typename Format::block* blocks)
      : seen_(seen), w_(w), k_(seen.k()), codes_(size()), scales_(size()), values_(size()), gradient_(size()), lost_(size()) {
    for (index j = 0; j < k_; j += Format::elements) {
      code_grid<Format>::scales(blocks[j / Format::elements], scales_.data() + j);
      code_grid<Format>::codes(blocks[j / Format::elements], codes_.data() + j);
    }
    for (std::size_t i = 0; i < size(); ++i) {
      values_[i] = code_grid<Format>::value(codes_[i], scales_[i]);
      lost_[i] = static_cast<double>(values_[i]) - static_cast<double>(w[i]);
    }
    for (index i = 0; i < k_; ++i) gradient_[static_cast<std::size_t>(i)] = dot_f64(seen.products(i), lost_.data(), k_);
  }
  /// Tries all columns once. Whether one flipped.
  bool sweep() {
    bool flipped = false;
    for (index i = 0; i < k_; ++i) {
      auto const at = static_cast<std::size_t>(i);
      int choice[2];
      code_grid<Format>::around(w_[i], scales_[at], choice[0], choice[1]);
      for (int code : choice) flipped |= code != codes_[at] && flip(i, code);
    }
    return flipped;
  }
  void put(typename Format::block* blocks) const {
    for (index j = 0; j < k_; j += Format::elements) Format::put(blocks[j / Format::elements], codes_.data() + j);
  }

 private:
  std::size_t size() const { return static_cast<std::size_t>(k_); }
  /// Takes the code if the error falls, by more than rounding.
  bool flip(index i, int code) {
    auto const at = static_cast<std::size_t>(i);
    float const value = code_grid<Format>::value(code, scales_[at]);
    double const step = static_cast<double>(value) - static_cast<double>(values_[at]), curvature = seen_.products(i)[i];
    if (!(2 * step * gradient_[at] + step * step * curvature < -1e-9 * step * step * curvature)) return false;
    codes_[at] = static_cast<std::uint8_t>(code);
    values_[at] = value;
    double const* const row = seen_.products(i);
    for (std::size_t j = 0; j < size(); ++j) gradient_[j] += step * row[j];
    return true;
  }

  calibration const& seen_;
  float const* w_;
  index k_;
  std::vector<std::uint8_t> codes_;
  std::vector<element_scale> scales_;
  std::vector<float> values_;
  std::vector<double> gradient_, lost_;
};

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// Quantizes weights (n, k) for inputs x: (samples, k), or a calibration.
template <tensor_like W, class X>
block_array learned_rounding(cpu_policy const& policy, W const& w, X const& x, weight_type type,
                             learned_rounding_options const& options = {}) {
  detail::expect(options.sweeps >= 0, "learned_rounding", "sweeps", options.sweeps, "at least 0");
  auto const weights = detail::dense_weights("learned_rounding", w, type);
  auto const& seen = detail::calibration_of("learned_rounding", policy, x, weights.columns);
  block_array q = detail::round_dense(policy, weights, type, nullptr, {});
  detail::progress_counter done(options.progress, weights.rows);
  detail::with_encodable_format("learned_rounding", type, [&]<class Format>(Format) {
    detail::parallel_for(policy, weights.rows, [&](index r, index) {
      auto* const blocks = reinterpret_cast<typename Format::block*>(q.row(r));
      detail::rounding_descent<Format> descent(seen, weights.row(r), blocks);
      for (index i = 0; i < options.sweeps && descent.sweep(); ++i) continue;
      descent.put(blocks);
      done.step();
    });
  });
  return q;
}

}  // namespace TERN_ABI
}  // namespace tern

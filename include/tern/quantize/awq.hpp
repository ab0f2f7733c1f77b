// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file quantize/awq.hpp
/// AWQ: input channels that are large get larger weights, and so smaller errors.
///
///     s_j = mean |x_j|^alpha, divided by sqrt(max s min s);   q = round_to_nearest(w diag(s))
///     alpha among 0, 1/steps, ... 1: the one with the least ||X (W - Q diag(1/s))^T||^2; of equals, the least alpha
///
/// A layer then computes (x / s) Q^T: the caller divides the gain of the norm before it (or the rows of the matrix before it) by s.
/// Alpha 0 is round_to_nearest itself, so that AWQ is never worse by this error. Channels of no input count as 10^-4.
///
/// Errors: w as quantize/problem.hpp; x as wide as w; steps at least 1. Cost: (steps + 1) (n k^2 + encoding).
/// Source: Lin et al., "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration", 2023; from knowledge.

#include <tern/quantize/layer_error.hpp>
#include <tern/quantize/round_to_nearest.hpp>

#include <cmath>

namespace tern {
inline namespace TERN_ABI {

/// What awq may be told.
struct awq_options {
  index steps = 20;              ///< of alpha's grid
  progress_callback progress{};  ///< by steps
};

/// What awq finds.
struct awq_result {
  block_array blocks;               ///< w diag(scales), quantized
  std::vector<float> scales;        ///< k, by which inputs are to be divided
  std::vector<float> input_scales;  ///< k, 1 / scales: what scale_in takes, or what the norm before takes in
  double alpha = 0;
  double error = 0;  ///< as layer_error
};

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {

inline std::vector<float> awq_scales(calibration const& seen, double alpha) {
  std::vector<float> s(static_cast<std::size_t>(seen.k()), 1.f);
  if (alpha == 0) return s;
  double least = HUGE_VAL, most = 0;
  std::vector<double> raw(s.size());
  for (std::size_t j = 0; j < s.size(); ++j) {
    raw[j] = std::pow(std::fmax(seen.mean_magnitude(static_cast<index>(j)), 1e-4), alpha);
    least = std::fmin(least, raw[j]);
    most = std::fmax(most, raw[j]);
  }
  for (std::size_t j = 0; j < s.size(); ++j) s[j] = static_cast<float>(raw[j] / std::sqrt(least * most));
  return s;
}

inline awq_result awq_at(cpu_policy const& policy, dense_matrix const& w, calibration const& seen, weight_type type, double alpha) {
  awq_result r{{}, awq_scales(seen, alpha), {}, alpha, 0};
  for (float s : r.scales) r.input_scales.push_back(1.f / s);
  dense_matrix scaled = w;
  for (index i = 0; i < w.rows; ++i)
    for (index j = 0; j < w.columns; ++j) scaled.row(i)[j] *= r.scales[static_cast<std::size_t>(j)];
  r.blocks = round_dense(policy, scaled, type, nullptr, {});
  dense_matrix lost = difference(policy, scaled, r.blocks);
  for (index i = 0; i < w.rows; ++i)
    for (index j = 0; j < w.columns; ++j) lost.row(i)[j] /= r.scales[static_cast<std::size_t>(j)];
  r.error = weighed_square(policy, seen, lost);
  return r;
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// Quantizes weights (n, k), scaled for inputs x: (samples, k), or a calibration.
template <tensor_like W, class X>
awq_result awq(cpu_policy const& policy, W const& w, X const& x, weight_type type, awq_options const& options = {}) {
  detail::expect(options.steps >= 1, "awq", "steps", options.steps, "at least 1");
  auto const weights = detail::dense_weights("awq", w, type);
  auto const& seen = detail::calibration_of("awq", policy, x, weights.columns);
  detail::progress_counter done(options.progress, options.steps + 1);
  awq_result best = detail::awq_at(policy, weights, seen, type, 0);
  done.step();
  for (index i = 1; i <= options.steps; ++i) {
    auto r = detail::awq_at(policy, weights, seen, type, static_cast<double>(i) / static_cast<double>(options.steps));
    if (r.error < best.error) best = std::move(r);
    done.step();
  }
  return best;
}

}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file quantize/round_to_nearest.hpp
/// Weights rounded block by block, as each format's encoder does:
///
///     block_array q = round_to_nearest(tern::cpu, w, weight_type::q4_0);
///
/// With importances h (k), mean squares of the inputs for one (calibration::mean_square), each block's codes and scale d are searched
/// anew for a least sum_j h_j (w_j - q_j)^2: d times 0.80, 0.82, ... 1.12, then by least squares under the codes, with the block's
/// integer scales as the encoder found them; where a block has offsets, they stay. Never worse by that sum than the encoder's block.
/// Formats without an f16 d (mxfp4) are encoded alone. Weighted rounding errors are the diagonal of what GPTQ minimizes (Frantar et al.,
/// "GPTQ", 2022), and as "importance matrices" the practice of GGUF files; from knowledge.
///
/// Errors: shapes as quantize/problem.hpp; importances have k elements, finite and not negative. Cost: the encoder's; with
/// importances, about 20 roundings more.

#include <tern/quantize/code_grid.hpp>

namespace tern {
inline namespace TERN_ABI {

/// What round_to_nearest may be told.
struct rounding_options {
  tensor_view<float const, 1> importances{};  ///< of the columns; none: all alike
  progress_callback progress{};               ///< by rows
};

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {

template <class Format>
concept has_scale_d = requires(typename Format::block b) {
  { b.d } -> std::same_as<f16&>;
};

/// A block with codes nearest to w under its scales.
template <class Format>
struct weighted_block {
  typename Format::block block;
  double error, wv, vv;  // sum h (w - q)^2, and for least squares under the codes: v is q less its min
};
template <class Format>
weighted_block<Format> round_weighted(typename Format::block block, float const* w, float const* h) {
  using grid = code_grid<Format>;
  constexpr index n = Format::elements;
  element_scale scale[n];
  std::uint8_t code[n];
  grid::scales(block, scale);
  weighted_block<Format> r{block, 0, 0, 0};
  for (index j = 0; j < n; ++j) {
    code[j] = static_cast<std::uint8_t>(grid::nearest(w[j], scale[j]));
    double const q = static_cast<double>(grid::value(code[j], scale[j])), min = Format::has_min ? static_cast<double>(scale[j].min) : 0.;
    double const hj = static_cast<double>(h[j]), wj = static_cast<double>(w[j]);
    r.error += hj * (wj - q) * (wj - q);
    r.wv += hj * (wj - min) * (q - min);
    r.vv += hj * (q - min) * (q - min);
  }
  Format::put(r.block, code);
  return r;
}

template <class Format>
typename Format::block encode_weighted(float const* w, float const* h) {
  auto const start = Format::encode(w);
  if constexpr (!has_scale_d<Format>) {
    return start;
  } else {
    auto best = round_weighted<Format>(start, w, h);
    auto const attempt = [&](double factor, f16 from) {
      auto trial = start;
      trial.d = f16(static_cast<float>(factor * static_cast<double>(from)));
      if (!(__builtin_fabsf(static_cast<float>(trial.d)) <= 65504.f)) return false;
      auto const r = round_weighted<Format>(trial, w, h);
      if (!(r.error < best.error)) return false;
      best = r;
      return true;
    };
    for (int i = -10; i <= 6; ++i) attempt(1. + 0.02 * i, start.d);
    for (int i = 0; i < 4 && best.vv > 0 && attempt(best.wv / best.vv, best.block.d); ++i) continue;
    return best.block;
  }
}

template <class Format>
void round_row(float const* w, float const* importances, index k, typename Format::block* out) {
  for (index j = 0; j < k; j += Format::elements)
    *out++ = importances != nullptr ? encode_weighted<Format>(w + j, importances + j) : Format::encode(w + j);
}
inline block_array round_dense(cpu_policy const& policy, dense_matrix const& w, weight_type type, float const* importances,
                               progress_callback const& call) {
  block_array q(type, w.rows, w.columns);
  progress_counter done(call, w.rows);
  with_encodable_format("round_to_nearest", type, [&]<class Format>(Format) {
    parallel_for(policy, w.rows, [&](index i, index) {
      round_row<Format>(w.row(i), importances, w.columns, reinterpret_cast<typename Format::block*>(q.row(i)));
      done.step();
    });
  });
  return q;
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// Rounds weights (n, k) to a block format.
template <tensor_like W>
block_array round_to_nearest(cpu_policy const& policy, W const& w, weight_type type, rounding_options const& options = {}) {
  auto const weights = detail::dense_weights("round_to_nearest", w, type);
  std::vector<float> importances;
  for (index j = 0; j < options.importances.extent(0); ++j) importances.push_back(options.importances[j]);
  if (!importances.empty()) {
    detail::expect_equal("round_to_nearest", "importances.extent(0)", options.importances.extent(0), "w.extent(1)", weights.columns);
    for (index j = 0; j < weights.columns; ++j)
      detail::expect(importances[static_cast<std::size_t>(j)] >= 0.f && detail::all_finite(&importances[static_cast<std::size_t>(j)], 1),
                     "round_to_nearest", "importances: an element that is negative, NaN or infinite", j, "finite importances");
  }
  return detail::round_dense(policy, weights, type, importances.empty() ? nullptr : importances.data(), options.progress);
}

}  // namespace TERN_ABI
}  // namespace tern

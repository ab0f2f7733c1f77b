// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file matmul/outliers.hpp
/// Columns of x with large values keep their precision when the rest is rounded to 8 bits:
///
///     matmul(policy, x, w, y, compute::int8_tokens, split_outliers{6.f})      w: int8_rows, or any other
///     O = columns k where |x(r, k)| >= threshold for some row r
///     y = q(x without O) w^T + x(:, O) w(:, O)^T                                   LLM.int8(), with int8_rows
///     y = q(clip(x)) w^T + (x - clip(x))(:, O) w(:, O)^T                           mllm-NPU: split_outliers{6.f, true}
///
/// clip cuts to [-threshold, threshold]. The second product is in f32, with the columns of w decoded from their format. NaN is an outlier.
/// A gate's product is split in the same columns. O depends on all rows: what other rows hold may change the rounding of one.
/// Cost: one pass over x; n |O| decoded elements (a block for each that holds some) and rows n |O| multiply-adds.
/// Source: Dettmers et al., "LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale", 2022; Xu et al., "Empowering 1000
/// tokens/second on-device LLM prefilling with mllm-NPU", 2024 (formulas from knowledge).

#include <tern/core/parallel_for.hpp>
#include <tern/matmul/types.hpp>

namespace tern {
inline namespace TERN_ABI {

/// Columns that reach the threshold are multiplied in f32.
struct split_outliers {
  float threshold = 6.f;
  /// Only what exceeds the threshold is split off.
  bool clip = false;
};

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {

/// Some columns of weights, as weights.
struct column_weights {
  any_weights w;
  std::int32_t const* list;  // ascending
  index rows, columns;       // (n, |O|)
  void decode(index row, index k0, index k1, float* out) const {
    float block[256];
    index at = -1;
    for (index k = k0; k < k1; ++k) {
      index const start = list[k] / w.block * w.block;
      if (start != at) {
        index const end = start + w.block < w.columns ? start + w.block : w.columns;
        w.operations->decode(w.object, row, start, end, block);
        at = start;
      }
      out[k - k0] = block[list[k] - start];
    }
  }
};

/// Moves outliers of x (rows, k) to t (rows, |O|) and their columns' numbers to list; returns |O|.
inline index take_outliers(cpu_policy const& policy, float* x, index x_stride, index rows, index k, split_outliers const& split, float* t,
                           index t_stride, std::int32_t* list) noexcept {
  constexpr index piece = 256;
  // First a mark for each column, in the list's own memory.
  parallel_for(policy, divide_up(k, piece), [&](index item, index) TERN_LAMBDA {
    index const end = (item + 1) * piece < k ? (item + 1) * piece : k;
    for (index c = item * piece; c < end; ++c) list[c] = 0;
    for (index r = 0; r < rows; ++r)
      for (index c = item * piece; c < end; ++c) list[c] |= !(__builtin_fabsf(x[r * x_stride + c]) < split.threshold);
  });
  index count = 0;
  for (index c = 0; c < k; ++c)
    if (list[c] != 0) list[count++] = static_cast<std::int32_t>(c);
  float const limit = split.threshold;
  for (index r = 0; r < rows && count > 0; ++r)
    for (index i = 0; i < count; ++i) {
      float& from = x[r * x_stride + list[i]];
      float const kept = !split.clip || !(from == from) ? 0.f : from > limit ? limit : from < -limit ? -limit : from;
      t[r * t_stride + i] = from - kept;
      from = kept;
    }
  return count;
}

}  // namespace TERN_ABI
}  // namespace detail
}  // namespace tern

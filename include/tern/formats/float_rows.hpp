// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/float_rows.hpp
/// What encoders of whole matrices share: rows of f32, f16 or bf16 with any strides as contiguous f32, one row a task.

#include <tern/core/parallel_for.hpp>
#include <tern/core/tensor_view.hpp>
#include <tern/formats/scale_search.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Calls f(row, values, bytes) for each row of x, on the policy's threads. The values are finite: NaN is 0, and what lies beyond
/// `largest` that; `bytes` is room for a byte for each. Rows do not see each other: results do not depend on the threads.
template <float_storage T, class F>
void for_each_float_row(cpu_policy const& policy, tensor_view<T, 2> const& x, float largest, F&& f) {
  index const rows = x.extent(0), columns = x.extent(1);
  std::size_t const row_bytes = workspace::rounded(static_cast<std::size_t>(columns) * (sizeof(float) + 1));
  workspace::lease const scratch(policy.scratch(), row_bytes * static_cast<std::size_t>(slots_for(policy, rows)));
  parallel_for(policy, rows, [&](index row, index slot) {
    auto* const values = reinterpret_cast<float*>(scratch.data() + static_cast<std::size_t>(slot) * row_bytes);
    for (index i = 0; i < columns; ++i) values[i] = static_cast<float>(x(row, i));
    formats::detail::take_finite(values, columns, largest, values);
    f(row, values, reinterpret_cast<std::uint8_t*>(values + columns));
  });
}
/// The largest magnitude of n floats.
TERN_INLINE float absmax_of(float const* x, index n) { return n > 0 ? __builtin_fabsf(formats::detail::extremes_of(x, n).farthest) : 0.f; }

}  // namespace TERN_ABI
}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/register_function.hpp
/// Functions that convolutions apply to finished sums: act::*, what `each` holds, or lambdas of simd::pack<float>.

#include <tern/matmul/activation.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

template <class F>
concept register_function = requires(F const& f, simd::pack<float> z) {
  { f(z) } -> std::same_as<simd::pack<float>>;
};

/// row[i] = f(row[i]) for i < n, a multiple of the lanes.
template <class F>
inline void apply_to_registers(void const* f, float* row, index n) {
  for (index i = 0; i < n; i += simd::lanes) simd::store(row + i, (*static_cast<F const*>(f))(simd::load(row + i)));
}

}  // namespace TERN_ABI
}  // namespace tern::detail

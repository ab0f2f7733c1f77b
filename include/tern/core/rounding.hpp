// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file core/rounding.hpp
/// Counts rounded up and bounded, for sizes of blocks and of memory.

#include <tern/core/config.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

TERN_INLINE constexpr index divide_up(index a, index b) { return (a + b - 1) / b; }
TERN_INLINE constexpr index round_to_multiple(index a, index b) { return divide_up(a, b) * b; }
TERN_INLINE constexpr index least(index a, index b) { return a < b ? a : b; }

}  // namespace TERN_ABI
}  // namespace tern::detail

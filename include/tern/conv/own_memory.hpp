// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/own_memory.hpp
/// A check that all convolutions make: they read neighbors of what they have written.

#include <tern/core/error.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Fails where a result begins where an argument does. Other overlaps pass: parts of one tensor may be argument and result.
TERN_INLINE void expect_own_memory(char const* op, char const* result, void const* y, char const* argument, void const* x, index size) {
  if (y == x && size > 0) [[unlikely]]
    (message() << op << ": " << result << " is " << argument << ", expected memory of its own").fail();
}

}  // namespace TERN_ABI
}  // namespace tern::detail

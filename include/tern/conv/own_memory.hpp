// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/own_memory.hpp
/// A check that all convolutions make: they read neighbors of what they have written.

#include <tern/core/error.hpp>
#include <tern/core/overlap.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

[[noreturn]] TERN_COLD inline void fail_own_memory(char const* op, char const* result, char const* argument, bool same) {
  (message() << op << ": " << result << (same ? " is " : " overlaps ") << argument << ", expected memory of its own").fail();
}
/// Fails where a result shares elements with an argument.
inline void expect_own_memory(char const* op, char const* result, memory_place const& y, char const* argument, memory_place const& x) {
  if (overlap(y, x)) [[unlikely]]
    fail_own_memory(op, result, argument, y.first == x.first);
}
/// And where it does, but is not that argument, element by element.
inline void expect_same_or_own_memory(char const* op, char const* result, memory_place const& y, char const* argument,
                                      memory_place const& x) {
  if (!(y == x)) expect_own_memory(op, result, y, argument, x);
}
template <class T, class U, int Y, int X>
inline void expect_own_memory(char const* op, char const* result, tensor_view<T, Y> const& y, char const* argument,
                              tensor_view<U, X> const& x) {
  expect_own_memory(op, result, place_of(y), argument, place_of(x));
}

}  // namespace TERN_ABI
}  // namespace tern::detail

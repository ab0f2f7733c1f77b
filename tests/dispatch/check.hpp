// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/dispatch/check.hpp
/// As much of a test framework as runs under every emulator.

#include <cstdio>
#include <string>

inline int failures = 0;

inline void check(bool ok, char const* what, char const* file, int line) {
  if (ok) return;
  ++failures;
  if (failures <= 20) std::printf("%s:%d: failed: %s\n", file, line, what);
}
#define CHECK(...) check(static_cast<bool>(__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)

/// The message of the Error that f throws, or "nothing was thrown".
template <class Error, class F>
std::string message_of(F f) {
  try {
    static_cast<void>(f());
  } catch (Error const& e) {
    return e.what();
  }
  return "nothing was thrown";
}
template <class Error, class F>
  requires std::is_void_v<decltype(std::declval<F>()())>
std::string message_of(F f) {
  return message_of<Error>([&] { return f(), 0; });
}

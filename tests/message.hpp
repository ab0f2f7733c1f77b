// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/message.hpp
/// What a wrong call says.

#include <tern/core/error.hpp>

#include <string>

namespace tern::test {

/// The message of the error that f throws, or "no error".
template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (error const& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace tern::test

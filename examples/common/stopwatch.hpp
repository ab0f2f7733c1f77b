// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/common/stopwatch.hpp

#include <chrono>

namespace common {

/// Seconds since it was made.
class stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace common

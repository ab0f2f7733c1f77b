// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/dispatch/any_code.hpp
/// Code that tern cannot rename: the standard library, and a header that the program and the dispatched sources share. Safe
/// because each architecture's object keeps its functions to itself.

#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

/// Not inlined, virtual, with a vtable: compiled for AVX-512 it would kill the program on another CPU.
struct scaler {
  virtual ~scaler() = default;
  virtual void apply(std::vector<float>& x, float by) const {
    for (float& v : x) v = v * by + 1.f;
  }
};

[[gnu::noinline]] inline float sum_of_sorted(float const* x, int n) {
  std::vector<float> copy(x, x + n);
  std::unique_ptr<scaler> const s = std::make_unique<scaler>();
  s->apply(copy, 2.f);
  std::sort(copy.begin(), copy.end());
  return std::accumulate(copy.begin(), copy.end(), 0.f);
}

/// Used by the architectures' objects and by main.cpp, but not by the baseline object, whose copy would come first.
[[gnu::noinline]] inline void scale(float* x, int n, float by) {
  for (int i = 0; i < n; ++i) x[i] = x[i] * by + 1.f;
}

/// One in the whole program, whichever object counts.
inline int calls = 0;

struct any_code {
  float (*sum)(float* x, int n);  // doubles x, adds one, and sums
};

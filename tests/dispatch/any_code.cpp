// SPDX-License-Identifier: Apache-2.0
// Compiled once for each architecture.
#include "any_code.hpp"

#include <tern/dispatch.hpp>

namespace {
float sum(float* x, int n) {
  ++calls;
#if defined(TERN_DISPATCH_OBJECT)
  scale(x, n, 2.f);
#else
  for (int i = 0; i < n; ++i) x[i] = x[i] * 2.f + 1.f;
#endif
  return sum_of_sorted(x, n);
}
}  // namespace

TERN_DISPATCH(any_code, {.sum = sum});

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file core/heap_sort.hpp
/// Sorting in place, in n log n steps whatever the order was. (std::sort would leave symbols that files compiled for different
/// architectures share.)

#include <tern/core/config.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Restores the heap of x[0, n) below `root`: what comes before lies deeper.
template <class T, class Before>
TERN_INLINE void sift_down(T* x, index root, index n, Before const& before) {
  T const moving = x[root];
  for (index child = 2 * root + 1; child < n; child = 2 * root + 1) {
    if (child + 1 < n && before(x[child], x[child + 1])) ++child;
    if (!before(moving, x[child])) break;
    x[root] = x[child];
    root = child;
  }
  x[root] = moving;
}

/// Sorts n elements; before(a, b) is a strict order of all of them.
template <class T, class Before>
TERN_INLINE void heap_sort(T* x, index n, Before const& before) {
  for (index root = n / 2 - 1; root >= 0; --root) sift_down(x, root, n, before);
  for (index end = n - 1; end > 0; --end) {
    T const last = x[end];
    x[end] = x[0];
    x[0] = last;
    sift_down(x, 0, end, before);
  }
}

}  // namespace TERN_ABI
}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/check_finite.hpp
/// Whether weights from outside are numbers: a damaged file may hold scales that are NaN or infinite, which every product passes on.
///
///     check_finite(policy, w)
///
/// Shapes  w (n, k): whatever `decode` takes, a block_matrix, an interleaved_matrix or weights of another kind. A view of numbers becomes
///         a block_matrix first.
/// Errors  an element that is NaN or infinite: the first row that holds one, and the first such column of it, are named.
/// Cost    each weight is decoded once; no scratch memory. Products do not check: this is for when a file is loaded.

#include <tern/core/parallel_for.hpp>
#include <tern/formats/decode.hpp>

namespace tern {
namespace detail {
inline namespace TERN_ABI {

/// Columns [k0, k1) of a row: both are multiples of 256, or the last.
TERN_INLINE void decode_part(block_matrix const& w, index row, index k0, index k1, float* out) {
  decode_columns(w.type, w.row(row), k0, k1, out);
}
TERN_INLINE void decode_part(interleaved_matrix const& w, index row, index k0, index k1, float* out) {
  decode_interleaved(w, row, k0, k1, out);
}
template <custom_weights W>
TERN_INLINE void decode_part(W const& w, index row, index k0, index k1, float* out) {
  decode_row(w, row, k0, k1, out);
}

/// The first column of a row that holds no number, or -1.
template <class W>
inline index find_not_finite(W const& w, index row) {
  constexpr index piece = 1024;
  float x[piece];
  for (index k0 = 0; k0 < w.columns; k0 += piece) {
    index const n = w.columns - k0 < piece ? w.columns - k0 : piece;
    decode_part(w, row, k0, k0 + n, x);
    for (index j = 0; j < n; ++j)
      if (!(x[j] - x[j] == 0.f)) return k0 + j;
  }
  return -1;
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// check_finite(policy, w): see the top of this file.
inline constexpr struct check_finite_fn {
  template <class W>
    requires requires(W const& w, float* out) { decode(w, index{0}, out); }
  void operator()(cpu_policy const& policy, W const& w) const {
    if constexpr (std::is_same_v<W, interleaved_matrix>) detail::expect_interleaved("check_finite", w);
    index first = w.rows;
    detail::parallel_for(policy, w.rows, [&](index row, index) {
      if (row > __atomic_load_n(&first, __ATOMIC_RELAXED) || detail::find_not_finite(w, row) < 0) return;
      index least = __atomic_load_n(&first, __ATOMIC_RELAXED);
      while (row < least && !__atomic_compare_exchange_n(&first, &least, row, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) continue;
    });
    if (first == w.rows) return;
    (detail::message() << "check_finite: w(" << first << ", " << detail::find_not_finite(w, first)
                       << ") is NaN or infinite, expected a number; is a scale of the file damaged?")
        .fail();
  }
} check_finite{};

}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file fft/tower.hpp
/// The transform of the convolutions: polynomials modulo z^M - i and their products.
///
/// Samples x_j, j < 2M, of a real signal are the polynomial whose coefficients are x_j + i x_(j + M). Modulo z^M - i its products are those
/// of the x modulo z^(2M) + 1: linear convolutions, but for what is longer than 2M, which comes back with its sign turned. So real input
/// needs no step of its own, and a signal of n <= M samples no zeros that would be transformed.
///
/// A register holds neighbouring samples, so that reading and writing move no lanes; register l is the polynomial's coefficients lanes * l
/// and on. Passes work on whole registers with roots that a node's elements share. What is left modulo z^lanes - w is transposed, lanes
/// nodes at a time, split to numbers, multiplied, and joined again before it leaves the cache: no order is ever restored.
///
/// Error   split and join are within (levels + 2) 2^-23 of exact each, relative to the norm of the whole.
/// Source  Bernstein, "Multidigit multiplication for mathematicians", 2001, for the tower; Frigo and Johnson, "The design and
///         implementation of FFTW3", 2005, for depth first (from knowledge).

#include <tern/fft/butterflies.hpp>
#include <tern/fft/tower_plan.hpp>
#include <tern/simd/shuffle.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Floats of a register of complex numbers.
inline constexpr index complex_pack = 2 * simd::lanes;

// ---- one pass: rows of registers, `row` floats apart ----------------------------------------------------------------------------------

template <int R>
TERN_INLINE void load_rows(cpack (&x)[R], float const* p, index row) {
  TERN_UNROLL
  for (int r = 0; r < R; ++r) x[r] = load_complex(p + r * row);
}
template <int R>
TERN_INLINE void store_rows(float* p, index row, cpack const (&x)[R]) {
  TERN_UNROLL
  for (int r = 0; r < R; ++r) store_complex(p + r * row, x[r]);
}

/// Splits `nodes` nodes of R rows of `count` registers.
inline void split_by_8(float const* in, index in_row, float* out, index out_row, index nodes, index count, float const* table) noexcept {
  for (index n = 0; n < nodes; ++n, in += 8 * in_row, out += 8 * out_row, table += 16) {
    cpack const w1 = splat_complex(table), w2 = splat_complex(table + 2), w4 = splat_complex(table + 6), v = splat_complex(table + 14);
    for (index l = 0; l < count * complex_pack; l += complex_pack) {
      cpack x[8];
      load_rows(x, in + l, in_row);
      split8(x, w1, w2, w4, v);
      store_rows(out + l, out_row, x);
    }
  }
}
inline void join_by_8(float const* in, index in_row, float* out, index out_row, index nodes, index count, float const* table) noexcept {
  for (index n = 0; n < nodes; ++n, in += 8 * in_row, out += 8 * out_row, table += 16)
    for (index l = 0; l < count * complex_pack; l += complex_pack) {
      cpack x[8];
      load_rows(x, in + l, in_row);
      join8(x, [&](int m) TERN_LAMBDA { return splat_complex(table + 2 * (m - 1)); });
      store_rows(out + l, out_row, x);
    }
}
inline void split_by_4(float const* in, index in_row, float* out, index out_row, index nodes, index count, float const* table) noexcept {
  for (index n = 0; n < nodes; ++n, in += 4 * in_row, out += 4 * out_row, table += 8) {
    cpack const w1 = splat_complex(table), w2 = splat_complex(table + 2);
    for (index l = 0; l < count * complex_pack; l += complex_pack) {
      cpack x[4];
      load_rows(x, in + l, in_row);
      split4(x, w1, w2);
      store_rows(out + l, out_row, x);
    }
  }
}
inline void join_by_4(float const* in, index in_row, float* out, index out_row, index nodes, index count, float const* table) noexcept {
  for (index n = 0; n < nodes; ++n, in += 4 * in_row, out += 4 * out_row, table += 8) {
    cpack const w1 = splat_complex(table), w2 = splat_complex(table + 2), w3 = splat_complex(table + 4);
    for (index l = 0; l < count * complex_pack; l += complex_pack) {
      cpack x[4];
      load_rows(x, in + l, in_row);
      join4(x, w1, w2, w3);
      store_rows(out + l, out_row, x);
    }
  }
}
/// The first pass of a tower with an odd factor, which has one node.
template <int R>
inline void split_by_odd(float const* in, index in_row, float* out, index out_row, index count, float const* table) noexcept {
  for (index l = 0; l < count * complex_pack; l += complex_pack) {
    cpack x[R];
    load_rows(x, in + l, in_row);
    TERN_UNROLL
    for (int r = 1; r < R; ++r) x[r] = x[r] * splat_complex(table + 2 * (r - 1));
    dft_odd(x, table + 2 * (R - 1), true);
    store_rows(out + l, out_row, x);
  }
}
template <int R>
inline void join_by_odd(float const* in, index in_row, float* out, index out_row, index count, float const* table) noexcept {
  for (index l = 0; l < count * complex_pack; l += complex_pack) {
    cpack x[R];
    load_rows(x, in + l, in_row);
    dft_odd(x, table + 2 * (R - 1), false);
    TERN_UNROLL
    for (int r = 1; r < R; ++r) x[r] = times_conjugate(x[r], splat_complex(table + 2 * (r - 1)));
    store_rows(out + l, out_row, x);
  }
}

/// Rows of a pass: in place if they are the same.
struct tower_rows {
  float const* in;
  index in_row;
  float* out;
  index out_row;
};
/// Nodes [first, first + nodes) of a pass, the rows of the first of which are given.
inline void split_pass(tower_plan const& t, int pass, index first, index nodes, tower_rows const& r, index count) noexcept {
  float const* const table = t.tables + t.table_at[pass];
  switch (t.radix[pass]) {
    case 8:
      return split_by_8(r.in, r.in_row, r.out, r.out_row, nodes, count, table + 16 * first);
    case 4:
      return split_by_4(r.in, r.in_row, r.out, r.out_row, nodes, count, table + 8 * first);
    case 3:
      return split_by_odd<3>(r.in, r.in_row, r.out, r.out_row, count, table);
    case 5:
      return split_by_odd<5>(r.in, r.in_row, r.out, r.out_row, count, table);
    case 7:
      return split_by_odd<7>(r.in, r.in_row, r.out, r.out_row, count, table);
    default:
      return split_by_odd<9>(r.in, r.in_row, r.out, r.out_row, count, table);
  }
}
inline void join_pass(tower_plan const& t, int pass, index first, index nodes, tower_rows const& r, index count) noexcept {
  float const* const table = t.tables + t.table_at[pass];
  switch (t.radix[pass]) {
    case 8:
      return join_by_8(r.in, r.in_row, r.out, r.out_row, nodes, count, table + 16 * first);
    case 4:
      return join_by_4(r.in, r.in_row, r.out, r.out_row, nodes, count, table + 8 * first);
    case 3:
      return join_by_odd<3>(r.in, r.in_row, r.out, r.out_row, count, table);
    case 5:
      return join_by_odd<5>(r.in, r.in_row, r.out, r.out_row, count, table);
    case 7:
      return join_by_odd<7>(r.in, r.in_row, r.out, r.out_row, count, table);
    default:
      return join_by_odd<9>(r.in, r.in_row, r.out, r.out_row, count, table);
  }
}

}  // namespace TERN_ABI
}  // namespace tern::detail

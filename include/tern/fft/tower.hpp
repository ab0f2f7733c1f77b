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
#include <tern/fft/tower_ahead.hpp>
#include <tern/fft/tower_plan.hpp>
#include <tern/simd/shuffle.hpp>
#include <tern/simd/stream.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Floats of a register of complex numbers.
inline constexpr index complex_pack = 2 * simd::lanes;

// ---- one pass: rows of registers ------------------------------------------------------------------------------------------------------

/// Rows of complex registers, `row` floats apart, real and imaginary parts side by side.
template <class P>
struct packed_rows {
  static constexpr bool real = false;
  static constexpr int few = 8;
  P* p;
  index row;
  TERN_INLINE packed_rows node(index n, int radix) const { return {p + n * radix * row, row}; }
  TERN_INLINE cpack load(index r, index l) const { return load_complex(p + r * row + l * complex_pack); }
  TERN_INLINE void store(index r, index l, cpack const& x) const { store_complex(p + r * row + l * complex_pack, x); }
};
/// Of such rows some alone: the others are not written, and zeros when they are read.
struct some_rows {
  static constexpr int few = 8;
  packed_rows<float> rows;
  unsigned kept;
  TERN_INLINE some_rows node(index, int) const { return *this; }
  TERN_INLINE bool keeps(index r) const { return (kept >> r & 1) != 0; }
  TERN_INLINE cpack load(index r, index l) const {
    return keeps(r) ? rows.load(r, l) : cpack{simd::pack<float>(0.f), simd::pack<float>(0.f)};
  }
  TERN_INLINE void store(index r, index l, cpack const& x) const {
    if (keeps(r)) rows.store(r, l, x);
  }
};
/// The same where it is the first ones: what the others would need is not computed.
template <int Few>
struct first_rows {
  static constexpr int few = Few;
  packed_rows<float> rows;
  TERN_INLINE first_rows node(index, int) const { return *this; }
  TERN_INLINE cpack load(index r, index l) const { return rows.load(r < Few ? r : 0, l); }
  TERN_INLINE void store(index r, index l, cpack const& x) const {
    if (r < Few) rows.store(r, l, x);
  }
};
/// Calls body(rows), those of 8 whose bits are in `kept`.
template <class Body>
TERN_INLINE void with_some_rows(packed_rows<float> rows, unsigned kept, Body&& body) {
  if (kept == tower_plan::all_nodes) return body(rows);
  if (kept == 0x1) return body(first_rows<1>{rows});
  if (kept == 0x3) return body(first_rows<2>{rows});
  if (kept == 0xf) return body(first_rows<4>{rows});
  body(some_rows{rows, kept});
}
/// Where the rows of the first pass, or of the last, are: each by itself, real and imaginary parts, and what to multiply real parts with.
inline constexpr int most_radix = 9;
template <class P>
struct row_places {
  P* re[most_radix];
  P* im[most_radix];
  float const* gate[most_radix];
};
/// Rows of samples.
template <class P>
struct sample_rows {
  static constexpr bool real = false;
  row_places<P> const& at;
  TERN_INLINE sample_rows node(index, int) const { return *this; }
  TERN_INLINE cpack load(index r, index l) const {
    return {simd::load(at.re[r] + l * simd::lanes), simd::load(at.im[r] + l * simd::lanes)};
  }
  TERN_INLINE void store(index r, index l, cpack const& x) const {
    simd::store(at.re[r] + l * simd::lanes, x.re);
    simd::store(at.im[r] + l * simd::lanes, x.im);
  }
};
template <bool Past>
TERN_INLINE void store_as(float* p, simd::pack<float> x) {
  if constexpr (Past)
    simd::store_past(p, x);
  else
    simd::store(p, x);
}
/// Real parts alone: what is read has no imaginary parts, what is written loses them. Past: stores go past the caches.
template <class P, bool Past = false>
struct real_rows {
  static constexpr bool real = true;
  row_places<P> const& at;
  TERN_INLINE real_rows node(index, int) const { return *this; }
  TERN_INLINE cpack load(index r, index l) const { return {simd::load(at.re[r] + l * simd::lanes), simd::pack<float>(0.f)}; }
  TERN_INLINE void store(index r, index l, cpack const& x) const { store_as<Past>(at.re[r] + l * simd::lanes, x.re); }
};
/// Real parts times those of a gate.
template <class P, bool Past = false>
struct gated_rows {
  static constexpr bool real = true;
  row_places<P> const& at;
  TERN_INLINE gated_rows node(index, int) const { return *this; }
  TERN_INLINE simd::pack<float> factor(index r, index l) const { return simd::load(at.gate[r] + l * simd::lanes); }
  TERN_INLINE cpack load(index r, index l) const { return {simd::load(at.re[r] + l * simd::lanes) * factor(r, l), simd::pack<float>(0.f)}; }
  /// What `store` is given then. A load waits for the stores before it whose addresses end in the same 12 bits, as those of all rows may.
  TERN_INLINE simd::pack<float> multiplied(index r, index l, cpack const& x) const { return simd::in_register(x.re * factor(r, l)); }
  TERN_INLINE void store(index r, index l, cpack const& x) const { store_as<Past>(at.re[r] + l * simd::lanes, x.re); }
};

/// Rows beside the tiles, where simd::shuffles_freely: each four are transposed within quarters, the first of the two steps that transpose
/// a tile. A pass has registers to spare for it, a tile has none.
struct turned_rows : packed_rows<float> {
  TERN_INLINE turned_rows node(index n, int radix) const { return {packed_rows<float>::node(n, radix)}; }
};
/// x[0] to x[3]
TERN_INLINE void transpose_within_quarters(cpack* x) {
  simd::pack<float> re[4] = {x[0].re, x[1].re, x[2].re, x[3].re}, im[4] = {x[0].im, x[1].im, x[2].im, x[3].im};
  simd::transpose_within_quarters(re);
  simd::transpose_within_quarters(im);
  TERN_UNROLL
  for (int i = 0; i < 4; ++i) x[i] = {re[i], im[i]};
}

/// Registers of rows first, first + 1, ...
template <int R, class Rows>
TERN_INLINE void load_rows(cpack* x, Rows const& rows, index l, int first = 0) {
  TERN_UNROLL
  for (int r = first; r < first + R; ++r) x[r] = rows.load(r, l);
  if constexpr (std::is_same_v<Rows, turned_rows>) transpose_within_quarters(x + first);
}
template <int R, class Rows>
TERN_INLINE void store_rows(Rows const& rows, index l, cpack* x, int first = 0) {
  if constexpr (std::is_same_v<Rows, turned_rows>) transpose_within_quarters(x + first);
  if constexpr (requires { rows.multiplied(first, l, x[first]); }) {
    TERN_UNROLL
    for (int r = first; r < first + R; ++r) x[r].re = rows.multiplied(r, l, x[r]);
  }
  TERN_UNROLL
  for (int r = first; r < first + R; ++r) rows.store(r, l, x[r]);
}

/// Rows that a node is written to. What has a place for all of its rows is written where it is read: one set of addresses then does.
template <class In, class Out>
TERN_INLINE Out written_rows(In const& from, Out const& out, index n, int radix) {
  if constexpr (requires { from.p, out.p; })
    return {packed_rows<float>{from.p, from.row}};
  else
    return out.node(n, radix);
}

/// Splits `nodes` nodes of 8 rows of `count` registers; the functions below likewise.
template <class In, class Out, class Ahead>
inline void split_by_8(In in, Out out, index nodes, index count, float const* table, Ahead& ahead) noexcept {
  Ahead next = ahead;
  for (index n = 0; n < nodes; ++n, table += 16) {
    In const from = in.node(n, 8);
    Out const to = written_rows(from, out, n, 8);
    root_place const w = root_at(table);
    for (index l = 0; l < count; ++l) {
      next.template ask<2>();
      cpack x[8];
      load_rows<8>(x, from, l);
      auto const power = [&](int m) TERN_LAMBDA {
        if constexpr (In::real)
          return root_of_reals{w + (m - 1)};
        else
          return w + (m - 1);
      };
      split8(x, power, [&](int first) TERN_LAMBDA { store_rows<4>(to, l, x, first); });
    }
  }
  ahead = next;
}
template <class In, class Out, class Ahead>
inline void join_by_8(In in, Out out, index nodes, index count, float const* table, Ahead& ahead) noexcept {
  Ahead next = ahead;
  for (index n = 0; n < nodes; ++n, table += 16) {
    In const from = in.node(n, 8);
    Out const to = written_rows(from, out, n, 8);
    root_place const w = root_at(table);
    for (index l = 0; l < count; ++l) {
      next.template ask<2>();
      cpack x[8];
      auto const power = [&](int m) TERN_LAMBDA { return w + (m - 1); };
      auto const get = [&](int first) TERN_LAMBDA { load_rows<4>(x, from, l, first); };
      if constexpr (In::few < 8) {
        get(0);
        join8_few<In::few>(x, power);
      } else {
        join8(x, power, get);
      }
      store_rows<8>(to, l, x);
    }
  }
  ahead = next;
}
template <class In, class Out, class Ahead>
inline void split_by_4(In in, Out out, index nodes, index count, float const* table, Ahead& ahead) noexcept {
  Ahead next = ahead;
  for (index n = 0; n < nodes; ++n, table += 8) {
    In const from = in.node(n, 4);
    Out const to = written_rows(from, out, n, 4);
    root_place const w = root_at(table);
    for (index l = 0; l < count; ++l) {
      next.template ask<2>();
      cpack x[4];
      load_rows<4>(x, from, l);
      split4(x, w, w + 1, w + 2);
      store_rows<4>(to, l, x);
    }
  }
  ahead = next;
}
template <class In, class Out, class Ahead>
inline void join_by_4(In in, Out out, index nodes, index count, float const* table, Ahead& ahead) noexcept {
  Ahead next = ahead;
  for (index n = 0; n < nodes; ++n, table += 8) {
    In const from = in.node(n, 4);
    Out const to = written_rows(from, out, n, 4);
    root_place const w = root_at(table);
    for (index l = 0; l < count; ++l) {
      next.template ask<2>();
      cpack x[4];
      load_rows<4>(x, from, l);
      join4(x, w, w + 1, w + 2);
      store_rows<4>(to, l, x);
    }
  }
  ahead = next;
}
/// The first pass of a tower with an odd factor, which has one node.
template <int R, class In>
inline void split_by_odd(In in, packed_rows<float> out, index count, float const* table) noexcept {
  for (index l = 0; l < count; ++l) {
    cpack x[R];
    load_rows<R>(x, in, l);
    TERN_UNROLL
    for (int r = 1; r < R; ++r) {
      cpack const w = splat_complex(table + 2 * (r - 1));
      if constexpr (In::real)
        x[r] = {x[r].re * w.re, x[r].re * w.im};
      else
        x[r] = x[r] * w;
    }
    dft_odd(x, table + 2 * (R - 1), true);
    store_rows<R>(out, l, x);
  }
}
template <int R, class Out>
inline void join_by_odd(packed_rows<float> in, Out out, index count, float const* table) noexcept {
  for (index l = 0; l < count; ++l) {
    cpack x[R];
    load_rows<R>(x, in, l);
    dft_odd(x, table + 2 * (R - 1), false);
    TERN_UNROLL
    for (int r = 1; r < R; ++r) x[r] = times_conjugate(x[r], splat_complex(table + 2 * (r - 1)));
    store_rows<R>(out, l, x);
  }
}

// ---- passes of a plan -----------------------------------------------------------------------------------------------------------------

/// Whether a pass is the one beside the tiles, and transposes for them.
TERN_INLINE bool meets_tiles(tower_plan const& t, int pass) { return simd::shuffles_freely && pass == t.passes - 1; }
template <class In, class Out, class Ahead>
TERN_INLINE void split_nodes(int radix, In in, Out out, index first, index nodes, index count, float const* table, Ahead& ahead) {
  if (radix == 8) return split_by_8(in, out, nodes, count, table + 16 * first, ahead);
  split_by_4(in, out, nodes, count, table + 8 * first, ahead);
}
template <class In, class Out, class Ahead>
TERN_INLINE void join_nodes(int radix, In in, Out out, index first, index nodes, index count, float const* table, Ahead& ahead) {
  if (radix == 8) return join_by_8(in, out, nodes, count, table + 16 * first, ahead);
  join_by_4(in, out, nodes, count, table + 8 * first, ahead);
}
/// In place: nodes [first, first + nodes) of a pass behind the first one, of rows of `count` registers.
template <class Ahead>
inline void split_pass(tower_plan const& t, int pass, index first, index nodes, float* p, index count, Ahead& ahead) noexcept {
  float const* const table = t.tables + t.table_at[pass];
  packed_rows<float> const rows{p, count * complex_pack};
  if constexpr (simd::shuffles_freely)
    if (meets_tiles(t, pass)) return split_nodes(t.radix[pass], rows, turned_rows{rows}, first, nodes, count, table, ahead);
  split_nodes(t.radix[pass], rows, rows, first, nodes, count, table, ahead);
}
template <class Ahead>
inline void join_pass(tower_plan const& t, int pass, index first, index nodes, float* p, index count, Ahead& ahead) noexcept {
  float const* const table = t.tables + t.table_at[pass];
  packed_rows<float> const rows{p, count * complex_pack};
  if constexpr (simd::shuffles_freely)
    if (meets_tiles(t, pass)) return join_nodes(t.radix[pass], turned_rows{rows}, rows, first, nodes, count, table, ahead);
  join_nodes(t.radix[pass], rows, rows, first, nodes, count, table, ahead);
}

/// Whether the first and the last pass can multiply with a gate: they can where they are by eight, of real parts alone.
TERN_INLINE bool can_gate(tower_plan const& t, bool real) { return real && t.radix[0] == 8; }

/// The first pass, from samples: all of them, or real parts alone, or these times a gate, if can_gate holds.
enum class tower_rows { complex, real, gated };

template <class In>
inline void split_first_by_8(tower_plan const& t, In in, packed_rows<float> out, index count) noexcept {
  no_rows_ahead none;
  float const* const table = t.tables + t.table_at[0];
  with_some_rows(out, t.kept, [&](auto const& to) TERN_LAMBDA { split_by_8(in, to, 1, count, table, none); });
}
template <class In>
inline void split_first_by(tower_plan const& t, In in, packed_rows<float> out, index count) noexcept {
  no_rows_ahead none;
  float const* const table = t.tables + t.table_at[0];
  switch (t.radix[0]) {
    case 8:
      return split_first_by_8(t, in, out, count);
    case 4:
      return split_by_4(in, out, 1, count, table, none);
    case 3:
      return split_by_odd<3>(in, out, count, table);
    case 5:
      return split_by_odd<5>(in, out, count, table);
    case 7:
      return split_by_odd<7>(in, out, count, table);
    default:
      return split_by_odd<9>(in, out, count, table);
  }
}
inline void split_first(tower_plan const& t, tower_rows rows, row_places<float const> const& in, packed_rows<float> out,
                        index count) noexcept {
  if (rows == tower_rows::gated) return split_first_by_8(t, gated_rows<float const>{in}, out, count);
  if (rows == tower_rows::real) return split_first_by(t, real_rows<float const>{in}, out, count);
  split_first_by(t, sample_rows<float const>{in}, out, count);
}
/// The last pass, to results. past: real ones go past the caches, by eight.
template <class Out>
inline void join_last_by_8(tower_plan const& t, packed_rows<float> in, Out out, index count) noexcept {
  no_rows_ahead none;
  float const* const table = t.tables + t.table_at[0];
  with_some_rows(in, t.kept, [&](auto const& from) TERN_LAMBDA { join_by_8(from, out, 1, count, table, none); });
}
template <class Out>
inline void join_last_by(tower_plan const& t, packed_rows<float> in, Out out, index count) noexcept {
  no_rows_ahead none;
  float const* const table = t.tables + t.table_at[0];
  switch (t.radix[0]) {
    case 8:
      return join_last_by_8(t, in, out, count);
    case 4:
      return join_by_4(in, out, 1, count, table, none);
    case 3:
      return join_by_odd<3>(in, out, count, table);
    case 5:
      return join_by_odd<5>(in, out, count, table);
    case 7:
      return join_by_odd<7>(in, out, count, table);
    default:
      return join_by_odd<9>(in, out, count, table);
  }
}
inline void join_last(tower_plan const& t, tower_rows rows, packed_rows<float> in, row_places<float> const& out, index count,
                      bool past) noexcept {
  if (rows == tower_rows::complex) return join_last_by(t, in, sample_rows<float>{out}, count);
  if (past && rows == tower_rows::gated) return join_last_by_8(t, in, gated_rows<float, true>{out}, count);
  if (past) return join_last_by_8(t, in, real_rows<float, true>{out}, count);
  if (rows == tower_rows::gated) return join_last_by_8(t, in, gated_rows<float>{out}, count);
  join_last_by(t, in, real_rows<float>{out}, count);
}

}  // namespace TERN_ABI
}  // namespace tern::detail

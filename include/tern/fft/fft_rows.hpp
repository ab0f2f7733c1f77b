// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file fft/fft_rows.hpp
/// The transforms of many rows or columns: how they are spread over threads, and what memory they take. Rows are dealt out by the number
/// that is transformed together; a single long row uses the threads inside.

#include <tern/core/parallel_for.hpp>
#include <tern/fft/fft_plan.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// How rows are cut, and the floats of scratch of it: some for each slot, some for all.
struct row_cut {
  bool inside = false;
  index items = 0, each = 0, shared = 0, slots = 1;

  /// `extra` floats for each item beside those of the transforms.
  TERN_INLINE row_cut(cpu_policy const& policy, fft_shape const& s, index rows, index extra) {
    constexpr index long_row = 1 << 16;
    inside = rows == 1 && s.z_floats() > 0 && s.n >= long_row;
    items = inside ? divide_up(s.matrix.width(), s.matrix.columns()) : divide_up(rows, s.together());
    shared = inside ? round_to_multiple(s.z_floats() + extra, 16) : 0;
    each = s.block_floats() + (inside ? 0 : round_to_multiple(s.z_floats() + extra, 16));
    slots = slots_for(policy, inside ? least_slots(s) : items);
  }
  TERN_INLINE std::size_t bytes() const { return static_cast<std::size_t>(shared + slots * each) * sizeof(float); }

 private:
  /// The longer one of the two loops inside of a row.
  TERN_INLINE index least_slots(fft_shape const& s) const {
    index const other = divide_up(s.matrix.A, simd::lanes);
    return items > other ? items : other;
  }
};

/// Each row from call.x to call.y. before(call, first, count, memory) may give the transforms other places for these rows, within `extra`
/// floats; after(first, count, memory) is called when they are done.
template <class Before, class After>
TERN_INLINE void transform_all_rows(cpu_policy const& policy, fft_shape const& s, points_call const& call, index rows, index extra,
                                    Before&& before, After&& after) {
  if (rows == 0) return;
  row_cut const cut(policy, s, rows, extra);
  workspace::lease const lease(policy.scratch(), cut.bytes());
  float* const memory = reinterpret_cast<float*>(lease.data());
  float* const blocks = memory + cut.shared;
  if (cut.inside) {
    points_call const whole = before(call, 0, 1, memory + s.z_floats());
    parallel_for(policy, cut.items, [&](index i, index slot) TERN_LAMBDA {
      transform_columns(s.matrix, whole, i * s.matrix.columns(), memory, blocks + slot * cut.each);
    });
    parallel_for(policy, divide_up(s.matrix.A, simd::lanes), [&](index i, index slot) TERN_LAMBDA {
      transform_rows(s.matrix, whole, i * simd::lanes, memory, blocks + slot * cut.each);
    });
    return after(0, 1, memory + s.z_floats());
  }
  parallel_for(policy, cut.items, [&](index item, index slot) TERN_LAMBDA {
    float* const mine = blocks + slot * cut.each;
    float* const own = mine + s.block_floats() + s.z_floats();
    index const first = item * s.together(), count = least(s.together(), rows - first);
    transform_sequences(s, before(call.of(first), first, count, own), count, mine);
    after(first, count, own);
  });
}
inline void transform_all_rows(cpu_policy const& policy, fft_shape const& s, points_call const& call, index rows) {
  transform_all_rows(
      policy, s, call, rows, 0, [](points_call const& c, index, index, float*) TERN_LAMBDA { return c; },
      [](index, index, float*) TERN_LAMBDA {});
}
TERN_INLINE std::size_t rows_bytes(cpu_policy const& policy, fft_shape const& s, index rows, index extra = 0) {
  return rows == 0 ? 0 : row_cut(policy, s, rows, extra).bytes();
}

/// Columns that are transformed side by side: two registers, or one where they are long.
TERN_INLINE index columns_together(fft_shape const& s) { return (s.n <= 1024 ? 2 : 1) * simd::lanes; }
TERN_INLINE std::size_t columns_bytes(cpu_policy const& policy, fft_shape const& s, index columns) {
  index const side = columns_together(s);
  return static_cast<std::size_t>(slots_for(policy, divide_up(columns, side)) * s.columns_floats(side)) * sizeof(float);
}
/// In place: call.x (s.n, columns), rows x_step apart.
inline void transform_all_columns(cpu_policy const& policy, fft_shape const& s, points_call const& call, index columns) {
  constexpr index W = simd::lanes;
  index const side = columns_together(s);
  workspace::lease const lease(policy.scratch(), columns_bytes(policy, s, columns));
  float* const memory = reinterpret_cast<float*>(lease.data());
  parallel_for(policy, divide_up(columns, side), [&](index part, index slot) TERN_LAMBDA {
    float* const block = memory + slot * s.columns_floats(side);
    index const first = part * side, used = least(side, columns - first), registers = divide_up(used, W);
    for (index r = 0; r < s.n; ++r)
      for (index i = 0; i < registers; ++i)
        store_complex(block + 2 * (r * registers + i) * W, call.of(r).load(first + i * W, least(W, used - i * W)));
    float const* const sums = transform_side_by_side(s, registers * W, used, block, block + 2 * s.n * registers * W);
    for (index k = 0; k < s.n; ++k)
      for (index i = 0; i < registers; ++i)
        call.of(s.smooth ? s.matrix.place(k) : k)
            .store(first + i * W, least(W, used - i * W), load_complex(sums + 2 * (k * registers + i) * W));
  });
}

/// Rows of a matrix, and then its columns.
TERN_INLINE std::size_t matrix_bytes(cpu_policy const& policy, fft_shape const& across, fft_shape const& along, index rows, index columns) {
  std::size_t const first = rows_bytes(policy, along, rows), second = columns_bytes(policy, across, columns);
  return first > second ? first : second;
}

}  // namespace TERN_ABI
}  // namespace tern::detail

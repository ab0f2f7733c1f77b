// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/plan.hpp
/// How a call is cut into items that threads take, and what memory they need. Ranges of keys follow from their
/// number, and where rows are cut does not change them: results depend neither on the number of threads nor on the groups beside.

#include <tern/attention/prompt.hpp>
#include <tern/attention/stream.hpp>
#include <tern/core/parallel_for.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Some rows of a group, and ranges [first, last) of the `ranges` of its keys.
struct attention_item {
  index batch, unit, group;
  index row, rows;
  index first, last, ranges;
  index partial;  // where the result goes among the partial results, in floats, if it is that of one of several ranges
  index columns;  // where the weights of keys go among those of all items, in floats, if they are asked for
  bool few;       // whether the group's rows are few

  TERN_INLINE bool whole() const { return last - first == ranges; }
};

/// Below this many multiplications, some 20 us, a second thread costs more than it saves.
inline constexpr double serial_products = 1 << 20;
TERN_INLINE cpu_policy threads_for(cpu_policy const& policy, double products) {
  return products < serial_products ? policy.on(serial) : policy;
}

/// Up to this many rows of a group may share ranges of keys; more are cut themselves.
inline constexpr index most_range_rows = 32 * query_tile_rows;
/// So many floats are kept of ranges that are worked on side by side. Where groups are so many that they fill it, there are items enough
/// without, and the ranges of a group are worked on in turn: the same operations.
inline constexpr index most_partial_floats = index{1} << 24;

template <class Problem, class Tile>
struct attention_plan {
  Problem const& p;
  static constexpr bool has_columns = Problem::spec_type::wants_key_weights;
  index items = 0, partial_floats = 0, column_floats = 0;
  index many_rows = 0, few_rows = 0;  // of the largest items
  bool in_turn = false;               // whether an item takes several ranges
  double products = 0;

  TERN_INLINE explicit attention_plan(Problem const& problem) : p(problem) {
    cut([&](attention_item const& item) TERN_LAMBDA {
      ++items;
      if (!item.whole()) partial_floats = item.partial + sums_size(item);
      if (has_columns) column_floats = item.columns + columns_size();
      if (item.last - item.first > 1) in_turn = true;
      index& most = item.few ? few_rows : many_rows;
      if (item.rows > most) most = item.rows;
    });
  }
  TERN_INLINE static index room(index rows, bool few) { return few ? rows : round_to_multiple(rows, Tile::rows); }
  TERN_INLINE index sums_size(attention_item const& item) const { return range_sums::size(p.n.dim_v, room(item.rows, item.few)); }
  TERN_INLINE range_sums sums(attention_item const& item, float* at) const { return {p.n.dim_v, room(item.rows, item.few), at}; }
  /// Weights of keys: (unit_heads, columns_stride) an item.
  TERN_INLINE index columns_stride() const { return round_to_multiple(p.n.keys, key_block); }
  TERN_INLINE index columns_size() const { return p.n.unit_heads * columns_stride(); }
  TERN_INLINE index range_length(index rows, index keys) const {
    if (Problem::spec_type::wants_top || has_columns || rows > most_range_rows) return keys;
    return rows > query_stream_rows ? range_for_many(keys) : range_for_few(keys, p.n.units());
  }
  /// Calls f(item) for each item.
  template <class F>
  TERN_INLINE void cut(F&& f) {
    index partial = 0, columns = 0;
    products = 0;
    for (index b = 0; b < p.n.batch; ++b)
      for (index unit = 0; unit < p.n.units(); ++unit) {
        index const groups = p.groups(b, unit);
        for (index g = 0; g < groups; ++g) {
          auto const group = p.group(b, unit, g);
          index const rows = group.queries * p.n.unit_heads;
          products += static_cast<double>(rows) * static_cast<double>(group.keys) * static_cast<double>(p.n.dim + p.n.dim_v);
          if (rows > 0)
            cut_group(attention_item{b, unit, g, 0, rows, 0, 0, 0, 0, 0, !has_columns && rows <= query_stream_rows}, groups, group.keys,
                      partial, columns, f);
        }
      }
  }
  /// `whole`: all rows of a group.
  template <class F>
  TERN_INLINE void cut_group(attention_item const& whole, index groups, index keys, index& partial, index& columns, F&& f) const {
    attention_item item = whole;
    item.ranges = keys > 0 ? divide_up(keys, range_length(whole.rows, keys)) : 1;
    bool const side_by_side = item.ranges > 1 && partial + item.ranges * sums_size(whole) <= most_partial_floats;
    index const taken = side_by_side ? 1 : item.ranges;
    index const most = whole.few ? whole.rows : prompt_item_rows<Tile>(p.n, groups * item.ranges / taken, whole.rows);
    // The last rows come first: under a causal mask they have the most to do.
    for (index part = divide_up(whole.rows, most) - 1; part >= 0; --part) {
      item.row = part * most;
      item.rows = whole.rows - item.row < most ? whole.rows - item.row : most;
      for (item.first = 0; item.first < item.ranges; item.first += taken) {
        item.last = item.first + taken;
        item.partial = partial;
        item.columns = columns;
        f(item);
        if (side_by_side) partial += sums_size(item);
        if (has_columns) columns += columns_size();
      }
    }
  }

  TERN_INLINE std::size_t table_bytes() const { return workspace::rounded(static_cast<std::size_t>(items) * sizeof(attention_item)); }
  TERN_INLINE std::size_t partial_bytes() const { return workspace::rounded(static_cast<std::size_t>(partial_floats) * sizeof(float)); }
  TERN_INLINE std::size_t column_bytes() const { return workspace::rounded(static_cast<std::size_t>(column_floats) * sizeof(float)); }
  /// Scratch of one thread.
  TERN_INLINE std::size_t item_bytes() const {
    index const results = in_turn ? 2 : 1;
    index many = 0, few = 0;
    if (many_rows > 0)
      many = results * result_bytes(room(many_rows, false)) + prompt_scratch<Problem, Tile>::lay_out(p, many_rows, nullptr, nullptr);
    if (few_rows > 0) few = results * result_bytes(room(few_rows, true)) + stream_scratch<Problem>::lay_out(p, few_rows, nullptr, nullptr);
    return workspace::rounded(static_cast<std::size_t>(many > few ? many : few));
  }
  /// Room for one result of an item.
  TERN_INLINE index result_bytes(index room_rows) const {
    return round_to_multiple(range_sums::size(p.n.dim_v, room_rows) * static_cast<index>(sizeof(float)), 64);
  }
  TERN_INLINE cpu_policy threads_of(cpu_policy const& policy) const { return threads_for(policy, products); }
  TERN_INLINE std::size_t bytes(cpu_policy const& policy) const {
    return table_bytes() + partial_bytes() + column_bytes() + item_bytes() * static_cast<std::size_t>(slots_for(threads_of(policy), items));
  }
};

/// The partial results of a call: those of ranges of keys, and what keys weigh, by item.
struct attention_partials {
  float* ranges;
  float* columns;
};

/// One range of an item's keys.
template <class Problem, class Tile, class Rows>
inline void run_range(attention_plan<Problem, Tile> const& plan, Rows const& of, attention_item const& item, index range,
                      range_sums const& sum, float* columns, std::byte* scratch) {
  index const keys = of.group.keys, length = plan.range_length(of.rows(), keys), from = range * length;
  index const to = from + length < keys ? from + length : keys;
  if (item.few)
    stream_item<Tile>(of, from, to, sum, scratch);
  else
    prompt_item<Tile>(of, item.row, item.rows, from, to, sum, {columns, plan.columns_stride()}, scratch);
}

template <class Tile, class Problem>
inline void run_item(attention_plan<Problem, Tile> const& plan, attention_item const& item, attention_partials const& partials,
                     std::byte* memory) {
  Problem const& p = plan.p;
  auto const group = p.group(item.batch, item.unit, item.group);
  unit_group<Problem, std::remove_const_t<decltype(group)>> const of(p, group, item.batch, item.unit);
  index const bytes = plan.result_bytes(plan.room(item.rows, item.few));
  if (!item.whole()) return run_range(plan, of, item, item.first, plan.sums(item, partials.ranges + item.partial), nullptr, memory);
  range_sums const sum = plan.sums(item, reinterpret_cast<float*>(memory));
  range_sums const next = plan.sums(item, reinterpret_cast<float*>(memory + bytes));
  std::byte* const scratch = memory + (plan.in_turn ? 2 : 1) * bytes;
  float* const columns = partials.columns + item.columns;
  if (plan.has_columns)
    for (index j = 0; j < plan.columns_size(); ++j) columns[j] = 0;
  run_range(plan, of, item, 0, sum, columns, scratch);
  for (index range = 1; range < item.ranges; ++range) {
    run_range(plan, of, item, range, next, columns, scratch);
    merge_ranges<typename Problem::spec_type>(sum, next, item.rows);
  }
  finish_rows(of, item.row, item.rows, sum);
}

/// Writes the results of groups whose keys were cut into ranges that were worked on side by side.
template <class Tile, class Problem>
inline void merge_items(cpu_policy const& policy, attention_plan<Problem, Tile> const& plan, attention_item const* table, float* partials) {
  Problem const& p = plan.p;
  parallel_for(policy, plan.items, [&](index i, index) TERN_LAMBDA {
    attention_item const& item = table[i];
    if (item.whole() || item.first != 0) return;
    auto const group = p.group(item.batch, item.unit, item.group);
    unit_group<Problem, std::remove_const_t<decltype(group)>> const of(p, group, item.batch, item.unit);
    range_sums const sum = plan.sums(item, partials + item.partial);
    for (index range = 1; range < item.ranges; ++range)
      merge_ranges<typename Problem::spec_type>(sum, plan.sums(item, partials + item.partial + range * plan.sums_size(item)), item.rows);
    finish_rows(of, item.row, item.rows, sum);
  });
}

/// Adds up what items found that keys weigh, in the items' order: some keys at a time, on threads.
template <class Tile, class Problem>
inline void write_key_weights(cpu_policy const& policy, attention_plan<Problem, Tile> const& plan, attention_item const* table,
                              float const* columns) {
  constexpr index some = 256;
  auto const& out = plan.p.returns.key_weights;  // (batch, heads, keys)
  parallel_for(policy, divide_up(out.extent(2), some), [&](index piece, index) TERN_LAMBDA {
    index const first = piece * some, end = first + some < out.extent(2) ? first + some : out.extent(2);
    for (index b = 0; b < out.extent(0); ++b)
      for (index h = 0; h < out.extent(1); ++h)
        for (index j = first; j < end; ++j) out(b, h, j) = 0;
    for (index i = 0; i < plan.items; ++i)
      for (index h = 0; h < plan.p.n.unit_heads; ++h)
        for (index j = first; j < end; ++j)
          out(table[i].batch, table[i].unit * plan.p.n.unit_heads + h, j) += columns[table[i].columns + h * plan.columns_stride() + j];
  });
}

template <class Tile, class Problem>
inline void attention_run(cpu_policy const& callers, Problem const& p) {
  attention_plan<Problem, Tile> plan(p);
  cpu_policy const policy = plan.threads_of(callers);
  workspace::lease const scratch(policy.scratch(), plan.bytes(policy));
  auto* const table = reinterpret_cast<attention_item*>(scratch.data());
  attention_partials const partials{reinterpret_cast<float*>(scratch.data() + plan.table_bytes()),
                                    reinterpret_cast<float*>(scratch.data() + plan.table_bytes() + plan.partial_bytes())};
  std::byte* const slots = scratch.data() + plan.table_bytes() + plan.partial_bytes() + plan.column_bytes();
  std::size_t const item_bytes = plan.item_bytes();
  index count = 0, split = 0;
  plan.cut([&](attention_item const& item) TERN_LAMBDA {
    table[count++] = item;
    split += !item.whole() && item.first == 0;
  });
  parallel_for(policy, count, [&](index i, index slot) TERN_LAMBDA {
    run_item(plan, table[i], partials, slots + static_cast<std::size_t>(slot) * item_bytes);
  });
  if (split > 0) merge_items(split < 4 ? policy.on(serial) : policy, plan, table, partials.ranges);
  if constexpr (attention_plan<Problem, Tile>::has_columns) write_key_weights(policy, plan, table, partials.columns);
}

}  // namespace TERN_ABI
}  // namespace tern::detail

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

/// Some rows of a group, and a range of its keys.
struct attention_item {
  index batch, unit, group;
  index row, rows, room;  // `room` rows fit where the result goes
  index range, ranges;
  index partial;  // where the result of one of several ranges goes among the partial results, in floats
};

/// Below this many multiplications, some 20 us, a second thread costs more than it saves.
inline constexpr double serial_products = 1 << 20;

/// Up to this many rows of a group may share ranges of keys; more are cut themselves.
inline constexpr index most_range_rows = 32 * query_tile_rows;

template <class Problem, class Tile>
struct attention_plan {
  Problem const& p;
  index items = 0, partial_floats = 0;
  index many_rows = 0, few_rows = 0;  // of the largest items
  double products = 0;

  TERN_INLINE explicit attention_plan(Problem const& problem) : p(problem) {
    cut([&](attention_item const& item, index rows) TERN_LAMBDA {
      ++items;
      if (item.ranges > 1) partial_floats = item.partial + range_sums::size(p.n.dim_v, item.room);
      index& most = rows > query_stream_rows ? many_rows : few_rows;
      if (item.rows > most) most = item.rows;
    });
  }
  TERN_INLINE static index room(index rows, bool few) { return few ? rows : round_to_multiple(rows, Tile::rows); }
  TERN_INLINE static index range_keys(index rows, index keys) {
    if (Problem::spec_type::wants_top || rows > most_range_rows) return keys;
    return rows > query_stream_rows ? many_rows_range(keys) : few_rows_range(keys);
  }
  /// Calls f(item, rows of its group) for each item.
  template <class F>
  TERN_INLINE void cut(F&& f) {
    index partial = 0;
    products = 0;
    for (index b = 0; b < p.n.batch; ++b)
      for (index unit = 0; unit < p.n.units(); ++unit) {
        index const groups = p.groups(b, unit);
        for (index g = 0; g < groups; ++g) {
          auto const group = p.group(b, unit, g);
          index const rows = group.queries * p.n.unit_heads, length = range_keys(rows, group.keys);
          products += static_cast<double>(rows) * static_cast<double>(group.keys) * static_cast<double>(p.n.dim + p.n.dim_v);
          if (rows <= 0) continue;
          bool const few = rows <= query_stream_rows;
          index const ranges = group.keys > 0 ? divide_up(group.keys, length) : 1;
          index const most = few ? rows : prompt_item_rows(p.n, groups * ranges, rows);
          // The last rows come first: under a causal mask they have the most to do.
          for (index part = divide_up(rows, most) - 1; part >= 0; --part) {
            index const row = part * most, some = rows - row < most ? rows - row : most;
            for (index range = 0; range < ranges; ++range) {
              f(attention_item{b, unit, g, row, some, room(some, few), range, ranges, partial}, rows);
              if (ranges > 1) partial += range_sums::size(p.n.dim_v, room(some, few));
            }
          }
        }
      }
  }

  TERN_INLINE std::size_t table_bytes() const { return workspace::rounded(static_cast<std::size_t>(items) * sizeof(attention_item)); }
  TERN_INLINE std::size_t partial_bytes() const { return workspace::rounded(static_cast<std::size_t>(partial_floats) * sizeof(float)); }
  /// Scratch of one thread.
  TERN_INLINE std::size_t item_bytes() const {
    index many = 0, few = 0;
    if (many_rows > 0) many = result_bytes(room(many_rows, false)) + prompt_scratch<Problem, Tile>::lay_out(p, many_rows, nullptr, nullptr);
    if (few_rows > 0) few = result_bytes(room(few_rows, true)) + stream_scratch<Problem>::lay_out(p, few_rows, nullptr, nullptr);
    return workspace::rounded(static_cast<std::size_t>(many > few ? many : few));
  }
  /// Room for the result of an item that has all keys.
  TERN_INLINE index result_bytes(index rows) const {
    return round_to_multiple(range_sums::size(p.n.dim_v, rows) * static_cast<index>(sizeof(float)), 64);
  }
  TERN_INLINE cpu_policy threads_of(cpu_policy const& policy) const { return products < serial_products ? policy.on(serial) : policy; }
  TERN_INLINE std::size_t bytes(cpu_policy const& policy) const {
    return table_bytes() + partial_bytes() + item_bytes() * static_cast<std::size_t>(slots_for(threads_of(policy), items));
  }
};

template <class Tile, class Problem>
inline void run_item(attention_plan<Problem, Tile> const& plan, attention_item const& item, float* partials, std::byte* memory) {
  Problem const& p = plan.p;
  auto const group = p.group(item.batch, item.unit, item.group);
  unit_group<Problem, std::remove_const_t<decltype(group)>> const rows(p, group, item.batch, item.unit);
  float* const result = item.ranges > 1 ? partials + item.partial : reinterpret_cast<float*>(memory);
  std::byte* const scratch = item.ranges > 1 ? memory : memory + plan.result_bytes(item.room);
  range_sums const sum(p.n.dim_v, item.room, result);
  index const length = plan.range_keys(rows.rows(), group.keys), from = item.range * length;
  index const to = from + length < group.keys ? from + length : group.keys;
  if (rows.rows() > query_stream_rows)
    prompt_item<Tile>(rows, item.row, item.rows, from, to, sum, scratch);
  else
    stream_item(rows, from, to, sum, scratch);
  if (item.ranges == 1) finish_ranges(rows, item.row, item.rows, item.room, result, 1);
}

template <class Tile, class Problem>
inline void attention_run(cpu_policy const& callers, Problem const& p) {
  attention_plan<Problem, Tile> plan(p);
  if (plan.items == 0) return;
  cpu_policy const policy = plan.threads_of(callers);
  workspace::lease const scratch(policy.scratch(), plan.bytes(policy));
  auto* const table = reinterpret_cast<attention_item*>(scratch.data());
  float* const partials = reinterpret_cast<float*>(scratch.data() + plan.table_bytes());
  std::byte* const slots = scratch.data() + plan.table_bytes() + plan.partial_bytes();
  std::size_t const item_bytes = plan.item_bytes();
  index count = 0, split = 0;
  plan.cut([&](attention_item const& item, index) TERN_LAMBDA {
    table[count++] = item;
    split += item.ranges > 1 && item.range == 0;
  });
  parallel_for(policy, count, [&](index i, index slot) TERN_LAMBDA {
    run_item(plan, table[i], partials, slots + static_cast<std::size_t>(slot) * item_bytes);
  });
  if (split == 0) return;
  parallel_for(split < 4 ? policy.on(serial) : policy, count, [&](index i, index) TERN_LAMBDA {
    attention_item const& item = table[i];
    if (item.ranges == 1 || item.range != 0) return;
    auto const group = p.group(item.batch, item.unit, item.group);
    unit_group<Problem, std::remove_const_t<decltype(group)>> const rows(p, group, item.batch, item.unit);
    finish_ranges(rows, item.row, item.rows, item.room, partials + item.partial, item.ranges);
  });
}

}  // namespace TERN_ABI
}  // namespace tern::detail

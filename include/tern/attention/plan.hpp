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

/// A part of a group: a tile of rows, or a range of its keys for all its rows.
struct attention_item {
  index batch, unit, group;
  index part, parts;
  index rows;     // of the part, where rows are cut; 0 where keys are
  index partial;  // where the result of one of several ranges of keys goes among the partial results, in floats
};

/// Below this many multiplications, some 20 us, a second thread costs more than it saves.
inline constexpr double serial_products = 1 << 20;

/// Room for the result of a group whose keys are one range.
template <class Problem>
TERN_INLINE index result_bytes(Problem const& p, index rows) {
  return round_to_multiple(stream_partial::size(p.n.dim_v, rows) * static_cast<index>(sizeof(float)), 64);
}

template <class Problem, class Tile>
struct attention_plan {
  Problem const& p;
  index items = 0, partial_floats = 0;
  index prompt_rows = 0, stream_rows = 0;  // of the largest items
  double products = 0;

  TERN_INLINE explicit attention_plan(Problem const& problem) : p(problem) {
    cut([&](attention_item const& item, index rows) TERN_LAMBDA {
      ++items;
      if (item.rows > 0) {
        if (item.rows > prompt_rows) prompt_rows = item.rows;
      } else {
        if (item.parts > 1) partial_floats = item.partial + stream_partial::size(p.n.dim_v, rows);
        if (rows > stream_rows) stream_rows = rows;
      }
    });
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
          index const rows = group.queries * p.n.unit_heads;
          products += static_cast<double>(rows) * static_cast<double>(group.keys) * static_cast<double>(p.n.dim + p.n.dim_v);
          if (rows <= 0) continue;
          if (rows > query_stream_rows) {
            index const most = prompt_item_rows(p.n, groups, rows), parts = divide_up(rows, most);
            // The last rows come first: under a causal mask they have the most to do.
            for (index part = parts - 1; part >= 0; --part) f(attention_item{b, unit, g, part, parts, most, 0}, rows);
          } else {
            index const parts = Problem::spec_type::wants_top || group.keys <= 0 ? 1 : divide_up(group.keys, split_keys(group.keys));
            for (index part = 0; part < parts; ++part) {
              f(attention_item{b, unit, g, part, parts, 0, partial}, rows);
              if (parts > 1) partial += stream_partial::size(p.n.dim_v, rows);
            }
          }
        }
      }
  }

  TERN_INLINE std::size_t table_bytes() const { return workspace::rounded(static_cast<std::size_t>(items) * sizeof(attention_item)); }
  TERN_INLINE std::size_t partial_bytes() const { return workspace::rounded(static_cast<std::size_t>(partial_floats) * sizeof(float)); }
  /// Scratch of one thread.
  TERN_INLINE std::size_t item_bytes() const {
    index const prompt = prompt_rows > 0 ? prompt_scratch<Problem, Tile>::lay_out(p, prompt_rows, nullptr, nullptr) : 0;
    index const stream =
        stream_rows > 0 ? result_bytes(p, stream_rows) + stream_scratch<Problem>::lay_out(p, stream_rows, nullptr, nullptr) : 0;
    return workspace::rounded(static_cast<std::size_t>(prompt > stream ? prompt : stream));
  }
  TERN_INLINE cpu_policy threads_of(cpu_policy const& policy) const { return products < serial_products ? policy.on(serial) : policy; }
  TERN_INLINE std::size_t bytes(cpu_policy const& policy) const {
    return table_bytes() + partial_bytes() + item_bytes() * static_cast<std::size_t>(slots_for(threads_of(policy), items));
  }
};

template <class Tile, class Problem>
inline void run_item(Problem const& p, attention_item const& item, float* partials, std::byte* memory) {
  auto const group = p.group(item.batch, item.unit, item.group);
  unit_group<Problem, std::remove_const_t<decltype(group)>> const rows(p, group, item.batch, item.unit);
  if (item.rows > 0) return prompt_item<Tile>(rows, item.part * item.rows, item.rows, memory);
  if (item.parts == 1) {
    float* const result = reinterpret_cast<float*>(memory);
    stream_item(rows, 0, group.keys, {p.n.dim_v, rows.rows(), result}, memory + result_bytes(p, rows.rows()));
    return stream_finish(rows, result, 1);
  }
  index const length = split_keys(group.keys), from = item.part * length, to = from + length;
  stream_item(rows, from, to < group.keys ? to : group.keys, {p.n.dim_v, rows.rows(), partials + item.partial}, memory);
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
    split += item.rows == 0 && item.parts > 1 && item.part == 0;
  });
  parallel_for(policy, count, [&](index i, index slot) TERN_LAMBDA {
    run_item<Tile>(p, table[i], partials, slots + static_cast<std::size_t>(slot) * item_bytes);
  });
  if (split == 0) return;
  parallel_for(split < 4 ? policy.on(serial) : policy, count, [&](index i, index) TERN_LAMBDA {
    attention_item const& item = table[i];
    if (item.rows > 0 || item.parts == 1 || item.part != 0) return;
    auto const group = p.group(item.batch, item.unit, item.group);
    stream_finish(unit_group<Problem, std::remove_const_t<decltype(group)>>(p, group, item.batch, item.unit), partials + item.partial,
                  item.parts);
  });
}

}  // namespace TERN_ABI
}  // namespace tern::detail

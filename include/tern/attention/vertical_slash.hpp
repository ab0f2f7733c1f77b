// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/vertical_slash.hpp
/// A causal layout of columns and diagonals that differ from head to head, in blocks of 64 queries. The queries of a block stand at
/// positions p, ..., p + 63 and see, up to their own position,
///
///     the head's columns (key indices c), and for each of the head's slashes (offsets s) the keys p - s, ..., p - s + 63:
///     all that any query of the block meets on the diagonal i - j = s.
///
/// What a head sees is built once, into memory of the caller's, as runs of keys for each block of queries:
///
///     vertical_slash_head heads[h];
///     heads[0] = vertical_slash_runs(columns, slashes, tokens, keys, memory);     columns and slashes ascending
///     heads[1] = streaming_runs(sink, local, tokens, keys, memory);               keys [0, sink) and from p - local + 1 on
///     heads[2] = block_runs(lists, first_row, tokens, keys, memory);              blocks of 64 keys, one list a block of queries
///     heads[3] = dense_runs(tokens, keys, memory);                                all
///     attention(policy, q, k, v, out, vertical_slash{heads, tokens, keys});
///
/// Memory    vertical_slash_capacity(tokens, keys, ranges) numbers for a head, with ranges the slashes, 2 for streaming_runs, the
///           longest list for block_runs, 1 for dense_runs. Overlapping ranges are one run, so that runs are few. Columns are not
///           copied and have to stay. Finding a key takes a binary search over the runs of its block.
/// Alignment the last query stands at the last key; tokens <= keys. Masks given besides count tokens and key indices.
/// Empty     a query that sees no key gives zeros; a slash of 0 gives every query its own key.
/// Fails     if a list is not ascending or names what is not there, or the memory is too small.
/// Source    the index conversion of MInference (arXiv:2407.02490, csrc/vertical_slash_index.cu of its authors), which rounds
///           overlapping ranges up to whole blocks where this takes their union.

#include <tern/attention/index_lists.hpp>
#include <tern/attention/layout.hpp>
#include <tern/attention/score.hpp>

#include <limits>

namespace tern {
inline namespace TERN_ABI {

/// Queries of a block, and keys of a slash's range.
inline constexpr index sparse_block = 64;

/// What the blocks of queries of one head see. Made by the functions below.
struct vertical_slash_head {
  std::int32_t const* runs = nullptr;     // (blocks, stride): a count of runs, one of keys, and four numbers a run
  std::int32_t const* columns = nullptr;  // ascending
  index stride = 0, column_count = 0;
};

/// The numbers of memory that a head with at most so many ranges takes.
TERN_INLINE constexpr index vertical_slash_capacity(index tokens, index keys, index ranges) {
  // Runs that do not touch have 64 keys at least, but for the first, and a gap behind each.
  index const most = keys / (sparse_block + 1) + 2, runs = 1 + (ranges < most ? ranges : most);
  return (tokens + sparse_block - 1) / sparse_block * (2 + 4 * runs);
}

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {

/// The runs of keys of one block of queries, as they are written. Begins ascend.
struct run_writer {
  std::int32_t* to;  // count, keys, {begin, end, first, column}...
  index room;        // in runs
  index limit;       // keys behind the block's last query are left out

  TERN_INLINE run_writer(std::int32_t* memory, index most, index end) : to(memory), room(most), limit(end) {
    to[0] = 1;
    for (int i = 1; i < 6; ++i) to[i] = 0;  // an empty run, behind which columns may come
  }
  TERN_INLINE std::int32_t* run(index r) const { return to + 2 + 4 * r; }
  TERN_INLINE void add(index begin, index end) const {
    begin = begin > 0 ? begin : 0;
    end = end < limit ? end : limit;
    if (end <= begin) return;
    std::int32_t* last = run(to[0] - 1);
    if (begin > last[1]) {
      expect(to[0] < room, "vertical_slash", "the runs of a block", room, "room for all: vertical_slash_capacity");
      last = run(to[0]++);
      last[0] = static_cast<std::int32_t>(begin);
      last[1] = static_cast<std::int32_t>(begin);
    }
    if (end > last[1]) last[1] = static_cast<std::int32_t>(end);
  }
  /// Counts keys and columns.
  TERN_INLINE void finish(std::int32_t const* columns, index count) const;
};

/// How many of n ascending numbers, `step` apart, are below x.
TERN_INLINE index count_below(std::int32_t const* numbers, index n, index step, index x) {
  index low = 0, high = n;
  while (low < high) {
    index const middle = low + (high - low) / 2;
    if (numbers[middle * step] < x)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

TERN_INLINE void run_writer::finish(std::int32_t const* columns, index count) const {
  index keys = 0, column = 0;  // so many keys before, so many columns behind
  for (index r = 0; r < to[0]; ++r) {
    std::int32_t* const x = run(r);
    keys += count_below(columns + column, count - column, 1, x[0]);
    x[2] = static_cast<std::int32_t>(keys);
    keys += x[1] - x[0];
    column = count_below(columns, count, 1, x[1]);
    x[3] = static_cast<std::int32_t>(column);
  }
  to[1] = static_cast<std::int32_t>(keys + count_below(columns + column, count - column, 1, limit));
}

/// Calls ranges(writer, block, position of its first query) for each block of a head.
template <class Ranges>
TERN_INLINE vertical_slash_head write_runs(std::int32_t const* columns, index column_count, index tokens, index keys, index ranges,
                                           tensor_view<std::int32_t, 1> const& memory, Ranges const& each) {
  index const needed = vertical_slash_capacity(tokens, keys, ranges);
  expect(tokens <= keys, "vertical_slash", "tokens", tokens, "at most the keys");
  expect(memory.extent(0) >= needed, "vertical_slash", "the memory of a head", memory.extent(0),
         "vertical_slash_capacity(tokens, keys, ranges)");
  expect(memory.extent(0) <= 1 || memory.stride(0) == 1, "vertical_slash", "the stride of memory", memory.stride(0), "1");
  index const blocks = (tokens + sparse_block - 1) / sparse_block, stride = blocks > 0 ? needed / blocks : 0;
  for (index g = 0; g < blocks; ++g) {
    index const position = keys - tokens + g * sparse_block, end = position + sparse_block;
    run_writer const runs(memory.data() + g * stride, (stride - 2) / 4, end < keys ? end : keys);
    each(runs, g, position);
    runs.finish(columns, column_count);
  }
  return {memory.data(), columns, stride, column_count};
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// Columns and slashes, both ascending: see the top of this file.
TERN_INLINE vertical_slash_head vertical_slash_runs(tensor_view<std::int32_t const, 1> const& columns,
                                                    tensor_view<std::int32_t const, 1> const& slashes, index tokens, index keys,
                                                    tensor_view<std::int32_t, 1> const& memory) {
  index const count = slashes.extent(0);
  detail::expect(columns.extent(0) <= 1 || columns.stride(0) == 1, "vertical_slash", "the stride of columns", columns.stride(0), "1");
  detail::expect(count <= 1 || slashes.stride(0) == 1, "vertical_slash", "the stride of slashes", slashes.stride(0), "1");
  detail::expect_ascending("vertical_slash", "a column", columns.data(), columns.extent(0), keys);
  detail::expect_ascending("vertical_slash", "a slash", slashes.data(), count, std::numeric_limits<std::int32_t>::max());
  return detail::write_runs(columns.data(), columns.extent(0), tokens, keys, count, memory,
                            [&](detail::run_writer const& runs, index, index position) TERN_LAMBDA {
                              for (index s = count; s-- > 0;) runs.add(position - slashes[s], position - slashes[s] + sparse_block);
                            });
}
/// The first `sink` keys, and the `local` keys that end at a query's own (for the last queries of a block, up to 63 more).
TERN_INLINE vertical_slash_head streaming_runs(index sink, index local, index tokens, index keys,
                                               tensor_view<std::int32_t, 1> const& memory) {
  return detail::write_runs(nullptr, 0, tokens, keys, 2, memory, [&](detail::run_writer const& runs, index, index position) TERN_LAMBDA {
    runs.add(0, sink);
    if (local > 0) runs.add(position - local + 1, position + sparse_block);
  });
}
/// Blocks of 64 keys; block g of queries has row `first_row` + g of the lists, ascending.
TERN_INLINE vertical_slash_head block_runs(index_lists const& lists, index first_row, index tokens, index keys,
                                           tensor_view<std::int32_t, 1> const& memory) {
  index const blocks = (tokens + sparse_block - 1) / sparse_block, limit = (keys + sparse_block - 1) / sparse_block;
  detail::expect(first_row + blocks <= lists.rows(), "vertical_slash", "the rows of the lists of blocks", lists.rows(),
                 "one for each block of queries");
  for (index row = first_row; row < first_row + blocks; ++row)
    detail::expect_ascending("vertical_slash", "a block of a list", lists.row(row), lists.count(row), limit);
  return detail::write_runs(nullptr, 0, tokens, keys, lists.most(), memory,
                            [&](detail::run_writer const& runs, index g, index) TERN_LAMBDA {
                              index const row = first_row + g;
                              for (index i = 0; i < lists.count(row); ++i)
                                runs.add(lists.row(row)[i] * sparse_block, (lists.row(row)[i] + 1) * sparse_block);
                            });
}
/// All keys.
TERN_INLINE vertical_slash_head dense_runs(index tokens, index keys, tensor_view<std::int32_t, 1> const& memory) {
  return detail::write_runs(nullptr, 0, tokens, keys, 1, memory,
                            [&](detail::run_writer const& runs, index, index) TERN_LAMBDA { runs.add(0, keys); });
}

/// The layout: `heads` has one entry a head, sequence after sequence. See the top of this file.
struct vertical_slash {
  static constexpr bool per_head = true;

  vertical_slash_head const* heads;
  index tokens, keys;
  index heads_of_sequence = 0;  // set where there are several sequences

  /// A block of queries and what it sees.
  struct group_type {
    static constexpr bool local = false;
    index queries, keys;
    index token, position;  // of the first query
    index count, column_count;
    std::int32_t const* runs;  // (count): begin, end, keys before it, columns up to its end
    std::int32_t const* columns;

    TERN_INLINE index query(index i) const { return token + i; }
    TERN_INLINE index key(index j) const {
      std::int32_t const* const run = runs + 4 * (detail::count_below(runs + 2, count, 4, j + 1) - 1);
      index const within = j - run[2], length = run[1] - run[0];
      return within < length ? run[0] + within : columns[run[3] + within - length];
    }
    /// Query i sees the keys up to its own position.
    TERN_INLINE key_range row(index i) const {
      index const p = position + i;
      std::int32_t const* const run = runs + 4 * (detail::count_below(runs, count, 4, p + 1) - 1);
      if (p < run[1]) return {0, run[2] + (p + 1 - run[0])};
      return {0, run[2] + (run[1] - run[0]) + detail::count_below(columns + run[3], column_count - run[3], 1, p + 1)};
    }
  };

  TERN_INLINE index groups(index, index) const { return (tokens + sparse_block - 1) / sparse_block; }
  TERN_INLINE group_type group(index batch, index head, index g) const {
    vertical_slash_head const& h = heads[batch * heads_of_sequence + head];
    std::int32_t const* const runs = h.runs + g * h.stride;
    index const token = g * sparse_block, left = tokens - token;
    return {left < sparse_block ? left : sparse_block, runs[1], token, keys - tokens + token, runs[0], h.column_count, runs + 2, h.columns};
  }
  TERN_INLINE void check(attention_shape const& n) const {
    detail::expect_equal("attention", "the tokens of vertical_slash", tokens, "those of q", n.tokens);
    detail::expect_equal("attention", "the keys of vertical_slash", keys, "those of k", n.keys);
    if (n.batch > 1)
      detail::expect_equal("attention", "the heads of a sequence of vertical_slash", heads_of_sequence, "those of q", n.heads);
  }
};

}  // namespace TERN_ABI
}  // namespace tern

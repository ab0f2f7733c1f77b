// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/arguments.hpp
/// From what a caller passes as q, k, v and out to what the engine reads, checked once.

#include <tern/attention/problem.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// The extents of a tensor or another source, and the names of its dimensions in messages.
struct argument {
  index extent[4];  // batch, heads, rows, dim
  char const* name[4];
  char const* stride_name;
  index stride;  // of the last dimension
};

/// Names of q, k, v and out: of the dimensions, from that many places on as there are dimensions less than four; and of the stride.
inline constexpr char const* tensor_names[4][7] = {
    {"q.extent(0)", "q.extent(0)", "q.extent(0)", "q.extent(1)", "q.extent(2)", "q.extent(3)", "the stride of q's last dimension"},
    {"k.extent(0)", "k.extent(0)", "k.extent(0)", "k.extent(1)", "k.extent(2)", "k.extent(3)", "the stride of k's last dimension"},
    {"v.extent(0)", "v.extent(0)", "v.extent(0)", "v.extent(1)", "v.extent(2)", "v.extent(3)", "the stride of v's last dimension"},
    {"out.extent(0)", "out.extent(0)", "out.extent(0)", "out.extent(1)", "out.extent(2)", "out.extent(3)",
     "the stride of out's last dimension"},
};
inline constexpr char const* source_names[2][4] = {{"the batch of k", "the heads of k", "the keys of k", "the dim of k"},
                                                   {"the batch of v", "the heads of v", "the keys of v", "the dim of v"}};

template <class T, int R>
TERN_INLINE argument argument_of(int which, tensor_view<T, R> const& x) {
  auto const v = with_batch(x);
  char const* const* const names = tensor_names[which] + (R - 2);
  return {{v.extent(0), v.extent(1), v.extent(2), v.extent(3) * elements_of<std::remove_const_t<T>>()},
          {names[0], names[1], names[2], is_block<std::remove_const_t<T>> ? source_names[which - 1][3] : names[3]},
          tensor_names[which][6],
          v.extent(3) <= 1 ? 1 : v.stride(3)};
}
TERN_INLINE argument argument_of(int which, index batch, index heads, index keys, index dim) {
  char const* const* const name = source_names[which - 1];
  return {{batch, heads, keys, dim}, {name[0], name[1], name[2], name[3]}, "", 1};
}

// Sources other than tensors: rows_of(x) is what the engine reads, argument_of(which, x, batch) its extents.

template <class T, int R>
TERN_INLINE planes<T const> rows_of(tensor_view<T, R> const& x) {
  return planes_of(with_batch(tensor_view<T const, R>(x)));
}
template <class T, int R>
TERN_INLINE argument argument_of(int which, tensor_view<T, R> const& x, index) {
  return argument_of(which, x);
}
template <class F>
TERN_INLINE rows_of_tiles<F> rows_of(kv_tiles<F> const& x) {
  return {x};
}
template <class F>
TERN_INLINE argument argument_of(int which, kv_tiles<F> const& x, index) {
  expect(F::keys == (which == 1), "attention", "the side of tiles", which, "keys for k, values for v");
  expect(x.dim % F::elements == 0, "attention", which == 1 ? "the dim of k" : "the dim of v", x.dim, "a multiple of 32");
  return argument_of(which, 1, x.kv_heads, x.tokens, x.dim);
}
template <class T>
TERN_INLINE paged_rows<T> rows_of(paged<T> const& x) {
  return {planes_of(x.pool), x.pool.extent(2), x.table, x.lengths};
}
template <class T>
inline argument argument_of(int which, paged<T> const& x, index batch) {
  char const* const pool = which == 1 ? "the row stride of k's pages" : "the row stride of v's pages";
  expect(x.pool.extent(3) <= 1 || x.pool.stride(3) == 1, "attention", pool, x.pool.stride(3), "contiguous rows");
  expect(x.pool.extent(2) > 0, "attention", "the rows of a page", x.pool.extent(2), "at least 1");
  index const most = x.table.extent(1) * x.pool.extent(2);
  char const* const entry = which == 1 ? "an entry of k's page table" : "an entry of v's page table";
  char const* const length = which == 1 ? "a length of k" : "a length of v";
  for (index b = 0; b < batch && b < x.table.extent(0); ++b) {
    index const keys = x.lengths != nullptr ? static_cast<index>(x.lengths[b]) : most;
    expect(keys >= 0 && keys <= most, "attention", length, keys, "what its pages hold");
    for (index page = 0; page * x.pool.extent(2) < keys; ++page)
      expect(x.table(b, page) >= 0 && static_cast<index>(x.table(b, page)) < x.pool.extent(0), "attention", entry,
             static_cast<index>(x.table(b, page)), "a page of the pool");
  }
  return argument_of(which, x.table.extent(0), x.pool.extent(1), most, x.pool.extent(3) * elements_of<T>());
}
template <class F>
TERN_INLINE auto rows_of(paged_heads<F> const& x) {
  if constexpr (stored_element<F>)
    return head_page_rows<F>{x};
  else
    return head_page_tiles<F>{x};
}
template <class F>
inline argument argument_of(int which, paged_heads<F> const& x, index batch) {
  if constexpr (!stored_element<F>) {
    expect(F::keys == (which == 1), "attention", "the side of tiles", which, "keys for k, values for v");
    expect(x.dim % F::elements == 0, "attention", which == 1 ? "the dim of k" : "the dim of v", x.dim, "a multiple of 32");
  }
  index most = 0;
  for (index b = 0; b < batch && b < x.batch; ++b) {
    if (x.which != nullptr)
      expect(x.which[b] >= 0 && index{x.which[b]} < x.lists.extent(0), "attention", "a sequence of the batch", index{x.which[b]},
             "one of those that have pages");
    for (index h = 0; h < x.lists.extent(1); ++h) most = x.list(b, h).keys > most ? x.list(b, h).keys : most;
  }
  return argument_of(which, x.batch, x.lists.extent(1), most, x.dim);
}
/// Lengths that both k and v state are the same.
template <class K, class V>
TERN_INLINE void check_lengths(K const&, V const&) {}
template <class T, class U>
inline void check_lengths(paged<T> const& k, paged<U> const& v) {
  for (index b = 0; b < k.table.extent(0) && k.lengths != nullptr && v.lengths != nullptr; ++b)
    expect_equal("attention", "a length of v", static_cast<index>(v.lengths[b]), "that of k", static_cast<index>(k.lengths[b]));
}
template <class F, class G>
inline void check_lengths(paged_heads<F> const& k, paged_heads<G> const& v) {
  for (index b = 0; b < k.batch && b < v.batch && k.lists.extent(1) == v.lists.extent(1); ++b)
    for (index h = 0; h < k.lists.extent(1); ++h)
      expect_equal("attention", "a length of v", v.list(b, h).keys, "that of k", k.list(b, h).keys);
}
template <class T>
TERN_INLINE ring_rows<T> rows_of(ring<T> const& x) {
  return {planes_of(x.buffer), x.first, x.buffer.extent(2)};
}
template <class T>
inline argument argument_of(int which, ring<T> const& x, index) {
  index const size = x.buffer.extent(2);
  expect(x.buffer.extent(3) <= 1 || x.buffer.stride(3) == 1, "attention", "the last stride of a ring", x.buffer.stride(3),
         "contiguous rows");
  expect(x.first >= 0 && (x.first < size || size == 0), "attention", "the first row of a ring", x.first, "a row of it");
  expect(x.length <= size, "attention", "the length of a ring", x.length, "at most its rows");
  return argument_of(which, x.buffer.extent(0), x.buffer.extent(1), x.length, x.buffer.extent(3) * elements_of<T>());
}
template <class T, int N>
TERN_INLINE segment_rows<T, N> rows_of(segments<T, N> const& x) {
  segment_rows<T, N> rows;
  index end = 0;
  for (int i = 0; i < N; ++i) {
    rows.part[i] = planes_of(x.part[i]);
    if (x.part[i].extent(0) == 1) rows.part[i].batch_stride = 0;
    rows.end[i] = end += x.part[i].extent(2);
  }
  return rows;
}
template <class T, int N>
inline argument argument_of(int which, segments<T, N> const& x, index batch) {
  index keys = 0;
  for (int i = 0; i < N; ++i) {
    tensor_view<T const, 4> const& part = x.part[i];
    keys += part.extent(2);
    expect(part.extent(0) == 1 || part.extent(0) == batch, "attention", "the batch of a segment", part.extent(0), "1, or the batch of q");
    expect_equal("attention", "the heads of a segment", part.extent(1), "those of the first", x.part[0].extent(1));
    expect_equal("attention", "the dim of a segment", part.extent(3) * elements_of<T>(), "that of the first",
                 x.part[0].extent(3) * elements_of<T>());
    expect(part.extent(3) <= 1 || part.stride(3) == 1, "attention", "the last stride of a segment", part.stride(3), "contiguous rows");
  }
  return argument_of(which, batch, x.part[0].extent(1), keys, x.part[0].extent(3) * elements_of<T>());
}

TERN_INLINE constexpr index greatest_common_divisor(index a, index b) {
  while (b != 0) {
    index const rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

/// Compares the shapes of a call with each other.
inline attention_extents check_arguments(argument const& q, argument const& k, argument const& v, argument const& out, bool per_head) {
  constexpr char const* op = "attention";
  for (int d = 0; d < 4; ++d) {
    expect(q.extent[d] >= 0, op, q.name[d], q.extent[d], "at least 0");
    expect(k.extent[d] >= 0, op, k.name[d], k.extent[d], "at least 0");
  }
  expect(v.extent[3] >= 0, op, v.name[3], v.extent[3], "at least 0");
  expect_equal(op, k.name[3], k.extent[3], q.name[3], q.extent[3]);
  expect_equal(op, v.name[2], v.extent[2], k.name[2], k.extent[2]);
  expect_equal(op, k.name[0], k.extent[0], q.name[0], q.extent[0]);
  expect_equal(op, v.name[0], v.extent[0], q.name[0], q.extent[0]);
  for (int d = 0; d < 3; ++d) expect_equal(op, out.name[d], out.extent[d], q.name[d], q.extent[d]);
  expect_equal(op, out.name[3], out.extent[3], v.name[3], v.extent[3]);
  index const heads = q.extent[1];
  for (argument const* x : {&k, &v}) expect_divisor(op, x->name[1], x->extent[1], "a divisor of the heads of q", heads);
  for (argument const* x : {&q, &k, &v, &out}) expect(x->stride == 1, op, x->stride_name, x->stride, "1 (contiguous rows)");
  for (argument const* x : {&q, &k})
    expect(x->extent[2] < (index{1} << 31) - key_limit_slack, op, x->name[2], x->extent[2], "below 2^31 - 1024");
  // Heads that share keys and values: all the heads over the least common multiple of both counts.
  index const shared = k.extent[1] / greatest_common_divisor(k.extent[1], v.extent[1]) * v.extent[1];
  return {q.extent[0], heads,       k.extent[1],
          v.extent[1], q.extent[2], k.extent[2],
          q.extent[3], v.extent[3], per_head ? 1 : (heads > 0 ? heads / shared : 1)};
}

}  // namespace TERN_ABI
}  // namespace tern::detail

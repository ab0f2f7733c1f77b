// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/source.hpp
/// Where keys and values lie, besides tensors with any strides. Each stands in place of k or of v, for itself.
///
///     paged(pool, table)    rows in pages of a pool; table says which page holds which rows of a sequence
///     ring(buffer, first)   a buffer that is written round and round; key j lies in row (first + j) % rows
///     paged_heads<Format>   pages of one head each, which has a list, and a length, of its own; what a kv_cache hands out
///     kv_tiles<Format>      a cache in tiles of 8, 4 or 2 bits (formats/kv_tiles.hpp, kv_two_bits.hpp), which is fastest to decode with
///     joined(a, b, ...)     several tensors, one after the other, as a shared prefix and what follows it
///
/// All but tiles (of which pages may be) are of f32, f16 or bf16, or of whole blocks of a format along dim (formats::q8_0::block,
/// formats::q4_0::block, formats::e8p::block), as tensors may be: their last extent then counts blocks, so a row of 128 elements is 4. In 8
/// and 4 bits tiles are faster than blocks; over tiles few queries are rounded to 8 bits on the way (attention.hpp, Error).
///
/// The key of index j is the j-th in all of them, and masks count that index. Nothing is copied but what the engine is working on.

#include <tern/attention/rows.hpp>
#include <tern/core/tensor_view.hpp>
#include <tern/formats/kv_tiles.hpp>

namespace tern {

/// Rows in pages. `pool` is (pages, kv_heads, rows of a page, dim), any strides; `table` is (batch, pages of a sequence): row j of
/// sequence b is row j % rows of page table(b, j / rows). `lengths` (batch), int32, says how many keys each sequence has, and is borrowed
/// like the rest; without it, all that its pages hold. Masks and positions count each sequence's own keys. Where only one of k and v has
/// lengths, they hold for the other too.
template <class T>
struct paged {
  tensor_view<T const, 4> pool;
  tensor_view<std::int32_t const, 2> table;
  std::int32_t const* lengths = nullptr;

  template <class U>
  TERN_INLINE constexpr paged(tensor_view<U, 4> const& pages, tensor_view<std::int32_t const, 2> const& which)
      : pool(pages), table(which) {}
  template <class U, tensor_like L>
  TERN_INLINE paged(tensor_view<U, 4> const& pages, tensor_view<std::int32_t const, 2> const& which, L const& keys_of_sequence)
      : paged(pages, which) {
    tensor_view<std::int32_t const, 1> const keys = tern::view(keys_of_sequence);
    detail::expect_equal("paged", "lengths.extent(0)", keys.extent(0), "table.extent(0)", which.extent(0));
    detail::expect(keys.extent(0) <= 1 || keys.stride(0) == 1, "paged", "lengths.stride(0)", keys.stride(0), "1");
    lengths = keys.data();
  }
};
template <class U>
paged(tensor_view<U, 4> const&, tensor_view<std::int32_t const, 2> const&) -> paged<std::remove_const_t<U>>;
template <class U, tensor_like L>
paged(tensor_view<U, 4> const&, tensor_view<std::int32_t const, 2> const&, L const&) -> paged<std::remove_const_t<U>>;

/// A buffer (kv_heads, rows, dim) or (batch, kv_heads, rows, dim) written round and round, whose oldest row is `first`. `length` of
/// its rows are keys; by default all.
template <class T>
struct ring {
  tensor_view<T const, 4> buffer;
  index first;
  index length;

  template <class U>
  TERN_INLINE constexpr ring(tensor_view<U, 4> const& rows, index oldest, index keys = -1)
      : buffer(rows), first(oldest), length(keys < 0 ? rows.extent(2) : keys) {}
  template <class U>
  TERN_INLINE constexpr ring(tensor_view<U, 3> const& rows, index oldest, index keys = -1) : ring(rows.expanded(), oldest, keys) {}
};
template <class U, int R>
ring(tensor_view<U, R> const&, index, index = -1) -> ring<std::remove_const_t<U>>;

/// Tokens in a page of one head.
inline constexpr index page_rows = 64;
/// The pages of one head of a sequence: key j lies in row j % page_rows of page[j / page_rows].
struct page_list {
  std::int32_t const* page;
  index keys;
  std::int32_t const* positions = nullptr;  ///< (keys), where each stands in its text, for who rotates by it
};

/// Pages of one head each. Page p begins at address[p], and its keys, or values, `offset` bytes behind: page_rows rows of `Format` (f32,
/// f16, bf16, or blocks of a format), or a tile of it (formats/kv_tiles.hpp). Heads may have different numbers of keys: masks and
/// positions count each head's own.
template <class Format>
struct paged_heads {
  std::byte* const* address;
  index offset;
  tensor_view<page_list const, 2> lists;  // (sequences, kv_heads)
  index dim;
  /// Which of the sequences are the batch; null for all of them in their order.
  std::int32_t const* which = nullptr;
  index batch = lists.extent(0);

  TERN_INLINE page_list const& list(index b, index h) const { return lists(which != nullptr ? index{which[b]} : b, h); }
  TERN_INLINE std::byte* page(index b, index h, index j) const { return address[list(b, h).page[j / page_rows]] + offset; }
};

/// Tensors (kv_heads, keys, dim) or (batch, kv_heads, keys, dim) that follow each other. A batch extent of 1 serves every sequence
/// of the batch: a prefix that they share.
template <class T, int N>
struct segments {
  tensor_view<T const, 4> part[N];
};
namespace detail {
template <class T, int R>
TERN_INLINE constexpr tensor_view<T const, 4> segment_of(tensor_view<T, R> const& x) {
  static_assert(R == 3 || R == 4, "tern: a segment is (kv_heads, keys, dim) or (batch, kv_heads, keys, dim)");
  if constexpr (R == 3)
    return x.expanded();
  else
    return x;
}
}  // namespace detail
/// The keys of all the tensors.
template <tensor_like First, tensor_like... More>
TERN_INLINE constexpr auto joined(First const& first, More const&... more) {
  using element = typename view_of<First const>::value_type;
  return segments<element, 1 + static_cast<int>(sizeof...(More))>{{detail::segment_of(view(first)), detail::segment_of(view(more))...}};
}

namespace detail {

/// (batch, heads, rows, contiguous elements)
template <class T>
struct planes {
  using element = std::remove_const_t<T>;
  T* data;
  index batch_stride, head_stride, row_stride;
  TERN_INLINE T* at(index b, index h, index row) const { return data + b * batch_stride + h * head_stride + row * row_stride; }
  /// The rows of keys key(0), ..., key(count - 1).
  template <class Key>
  TERN_INLINE void rows(index b, index h, index count, Key const& key, T** to) const {
    T* const base = at(b, h, 0);
    for (index i = 0; i < count; ++i) to[i] = base + key(i) * row_stride;
  }
};
template <class T>
TERN_INLINE planes<T> planes_of(tensor_view<T, 4> const& x) {
  return {x.data(), x.stride(0), x.stride(1), x.stride(2)};
}

template <class T>
struct paged_rows {
  using element = T;
  planes<T const> pool;
  index page_rows;
  tensor_view<std::int32_t const, 2> table;
  std::int32_t const* lengths;
  TERN_INLINE index keys(index b, index, index most) const { return lengths != nullptr ? static_cast<index>(lengths[b]) : most; }
  template <class Key>
  TERN_INLINE void rows(index b, index h, index count, Key const& key, T const** to) const {
    for (index i = 0; i < count; ++i) {
      index const j = key(i);
      to[i] = pool.at(static_cast<index>(table(b, j / page_rows)), h, j % page_rows);
    }
  }
};

template <class T>
struct ring_rows {
  using element = T;
  planes<T const> buffer;
  index first, size;
  template <class Key>
  TERN_INLINE void rows(index b, index h, index count, Key const& key, T const** to) const {
    for (index i = 0; i < count; ++i) {
      index const j = first + key(i);
      to[i] = buffer.at(b, h, j < size ? j : j - size);
    }
  }
};

template <class T, int N>
struct segment_rows {
  using element = T;
  planes<T const> part[N];
  index end[N];  // behind the last key of each
  template <class Key>
  TERN_INLINE void rows(index b, index h, index count, Key const& key, T const** to) const {
    for (index i = 0; i < count; ++i) {
      index const j = key(i);
      int s = 0;
      while (s + 1 < N && j >= end[s]) ++s;
      to[i] = part[s].at(b, h, j - (s > 0 ? end[s - 1] : 0));
    }
  }
};

/// Tiles of formats/kv_tiles.hpp.
template <class Format>
struct rows_of_tiles {
  using element = float;
  using format = Format;
  kv_tiles<Format> tiles;
  TERN_INLINE std::byte const* tile(index, index h, index j) const { return tiles.tile(h, j); }
  TERN_INLINE void decode(index, index h, index j, float* to) const { tiles.decode(h, j, to); }
};

/// Pages of rows.
template <class T>
struct head_page_rows {
  using element = T;
  paged_heads<T> pages;
  TERN_INLINE index keys(index b, index h, index) const { return pages.list(b, h).keys; }
  template <class Key>
  TERN_INLINE void rows(index b, index h, index count, Key const& key, T const** to) const {
    std::int32_t const* const page = pages.list(b, h).page;
    index const row = pages.dim / elements_of<T>();
    for (index i = 0; i < count; ++i) {
      index const j = key(i);
      to[i] = reinterpret_cast<T const*>(pages.address[page[j / page_rows]] + pages.offset) + j % page_rows * row;
    }
  }
};
/// Pages that are tiles.
template <class Format>
struct head_page_tiles {
  using element = float;
  using format = Format;
  static_assert(Format::tokens == page_rows);
  paged_heads<Format> pages;
  TERN_INLINE index keys(index b, index h, index) const { return pages.list(b, h).keys; }
  TERN_INLINE std::byte const* tile(index b, index h, index j) const { return pages.page(b, h, j); }
  TERN_INLINE void decode(index b, index h, index j, float* to) const {
    for (index e = 0; e < pages.dim; e += Format::elements)
      Format::decode(pages.page(b, h, j), pages.dim, e / Format::elements, j % page_rows, to + e);
  }
};

/// A source without rows in memory: it makes them.
template <class Source>
concept decoding_source = requires(Source const& s, index i, float* to) { s.decode(i, i, i, to); };

template <class Source>
concept ragged_source = requires(Source const& s, index i) {
  { s.keys(i, i, i) } -> std::convertible_to<index>;
};

/// to[0, count) = factor * row j of a source.
template <class Source>
TERN_INLINE void read_row(Source const& from, index b, index h, index j, index count, float factor, float* to) {
  if constexpr (decoding_source<Source>) {
    from.decode(b, h, j, to);
    if (factor != 1.f) widen_row(to, count, factor, to);
  } else {
    typename Source::element const* row[1];
    from.rows(b, h, 1, [j](index) TERN_LAMBDA { return j; }, row);
    widen_row(row[0], count, factor, to);
  }
}

/// Asks for row j of a source, of `count` elements.
template <class Source>
TERN_INLINE void fetch_row_of(Source const& from, index b, index h, index j, index count) {
  if constexpr (!decoding_source<Source>) {
    typename Source::element const* row[1];
    from.rows(b, h, 1, [j](index) TERN_LAMBDA { return j; }, row);
    fetch_row(row[0], count);
  }
}

/// How many keys a head of a source has, of which the longest has `most`.
template <class Source>
TERN_INLINE index keys_of_head(Source const& from, index b, index h, index most) {
  if constexpr (ragged_source<Source>)
    return from.keys(b, h, most);
  else
    return most;
}

/// A view of lower rank with extents of 1 in front.
template <int to, class T, int R>
TERN_INLINE constexpr tensor_view<T, to> of_rank(tensor_view<T, R> const& x) {
  if constexpr (R < to)
    return of_rank<to>(x.expanded());
  else
    return x;
}
template <class T, int R>
TERN_INLINE constexpr tensor_view<T, 4> with_batch(tensor_view<T, R> const& x) {
  return of_rank<4>(x);
}
/// The same for what has one number of a row.
template <class T, int R>
TERN_INLINE constexpr tensor_view<T, 3> with_batch_lse(tensor_view<T, R> const& x) {
  return of_rank<3>(x);
}

}  // namespace detail
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/kv_tables.hpp
/// What a kv_cache knows of its tokens, whatever their format: sequences, the pages of each head, positions, lengths.

#include <tern/attention/index_lists.hpp>
#include <tern/attention/source.hpp>
#include <tern/cache/page_pool.hpp>

namespace tern {
inline namespace TERN_ABI {

/// The extents of a cache.
struct kv_shape {
  index layers, kv_heads, dim;
  index dim_v = dim;                 ///< of values
  index max_pages = index{1} << 30;  ///< of 64 tokens of one head
};

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {

struct snapshot_access;

/// See cache/kv_cache.hpp.
class kv_tables {
  friend struct snapshot_access;

 public:
  /// The number of a sequence.
  using sequence = std::int32_t;

  TERN_INLINE kv_shape const& shape() const { return shape_; }

  /// A sequence without tokens.
  sequence open() {
    sequence const s = unused();
    open_[s] = true;
    return s;
  }
  /// A sequence of the same tokens, which share their pages.
  sequence fork(sequence from) {
    check(from, "fork");
    sequence const s = unused();
    for (index i = 0; i < heads_of_sequence(); ++i) {
      head const& source = heads_[from * heads_of_sequence() + i];
      head& to = heads_[s * heads_of_sequence() + i];
      to.pages.reserve(source.pages.size());
      to.positions.reserve_more(source.positions.size() + page_rows);
    }
    for (index i = 0; i < heads_of_sequence(); ++i) {
      head const& source = heads_[from * heads_of_sequence() + i];
      head& to = heads_[s * heads_of_sequence() + i];
      for (std::int32_t page : source.pages) {
        pool_.share(page);
        to.pages.push(page);
      }
      for (std::int32_t p : source.positions) to.positions.push(p);
      relist(s, i);
    }
    for (index layer = 0; layer < shape_.layers; ++layer) next(s, layer) = next(from, layer);
    open_[s] = true;
    return s;
  }
  /// The sequence and its tokens are gone; its number may come again.
  void close(sequence s) {
    check(s, "close");
    for (index i = 0; i < heads_of_sequence(); ++i) cut(s, i, 0);
    open_[s] = false;
  }
  TERN_INLINE bool is_open(sequence s) const { return s >= 0 && s < open_.size() && open_[s]; }

  /// How many tokens a head holds.
  TERN_INLINE index length(sequence s, index layer, index h = 0) const {
    check(s, "length", layer);
    return at(s, layer, h).size();
  }
  /// How many the longest head of a layer holds.
  index longest(sequence s, index layer) const {
    check(s, "longest", layer);
    index most = 0;
    for (index h = 0; h < shape_.kv_heads; ++h) most = length(s, layer, h) > most ? length(s, layer, h) : most;
    return most;
  }
  /// The position that the next token gets.
  TERN_INLINE index next_position(sequence s, index layer = 0) const {
    check(s, "next_position", layer);
    return next(s, layer);
  }
  /// The positions of a head's tokens.
  TERN_INLINE tensor_view<std::int32_t const, 1> positions(sequence s, index layer, index h) const {
    check(s, "positions", layer);
    head const& of = at(s, layer, h);
    return {of.positions.data(), tern::shape<1>{{of.size()}}};
  }
  /// Tokens at `position` and behind it are forgotten, in all layers.
  void truncate(sequence s, index position) {
    for (index layer = 0; layer < shape_.layers; ++layer) truncate(s, layer, position);
  }
  /// The same in one layer.
  void truncate(sequence s, index layer, index position) {
    check(s, "truncate", layer);
    expect(position >= 0, "kv_cache::truncate", "position", position, "at least 0");
    for (index h = 0; h < shape_.kv_heads; ++h) {
      head const& of = at(s, layer, h);
      index left = of.size();
      while (left > 0 && of.positions[left - 1] >= position) --left;
      cut(s, layer * shape_.kv_heads + h, left);
    }
    if (next(s, layer) > position) next(s, layer) = static_cast<std::int32_t>(position);
  }
  /// Of each head of a layer, at most the first `tokens` stay; the next token's position is what it was.
  void shorten(sequence s, index layer, index tokens) {
    check(s, "shorten", layer);
    expect(tokens >= 0, "kv_cache::shorten", "tokens", tokens, "at least 0");
    for (index h = 0; h < shape_.kv_heads; ++h)
      if (length(s, layer, h) > tokens) cut(s, layer * shape_.kv_heads + h, tokens);
  }
  /// The tokens of each head of a layer get positions first, first + 1, ...; the next one is behind those of the longest head.
  void renumber(sequence s, index layer, index first = 0) {
    check(s, "renumber", layer);
    index const end = first + longest(s, layer);
    expect(first >= 0 && end < (index{1} << 31) - key_limit_slack, "kv_cache::renumber", "first", first, "positions below 2^31 - 1024");
    for (index h = 0; h < shape_.kv_heads; ++h)
      for (index t = 0; t < length(s, layer, h); ++t) at(s, layer, h).positions[t] = static_cast<std::int32_t>(first + t);
    next(s, layer) = static_cast<std::int32_t>(end);
  }
  /// Pages of a layer that are shared become the sequence's own copies, so that its tokens may be written.
  void own_pages(sequence s, index layer) {
    check(s, "own_pages", layer);
    index copies = 0;
    for (index h = 0; h < shape_.kv_heads; ++h)
      for (std::int32_t page : at(s, layer, h).pages) copies += pool_.is_shared(page);
    reserve("kv_cache::own_pages", copies);
    for (index h = 0; h < shape_.kv_heads; ++h)
      for (index page = 0; page < at(s, layer, h).pages.size(); ++page) own(at(s, layer, h), page);
  }

  /// Bytes of pages in use, of all sequences: what is shared counts once.
  TERN_INLINE index bytes() const { return pool_.used() * pool_.page_bytes(); }
  /// Bytes of the pages of one sequence, shared ones included.
  index bytes(sequence s) const {
    check(s, "bytes");
    index pages = 0;
    for (index i = 0; i < heads_of_sequence(); ++i) pages += heads_[s * heads_of_sequence() + i].pages.size();
    return pages * pool_.page_bytes();
  }
  TERN_INLINE index reserved_bytes() const { return pool_.reserved_bytes(); }
  TERN_INLINE index pages_left() const { return pool_.left(); }
  /// Moves pages so that no more memory is held than the pages in use fill.
  TERN_INLINE void defragment() { pool_.defragment(); }

 protected:
  struct head {
    growing<std::int32_t> pages;
    growing<std::int32_t> positions;  // of its tokens
    TERN_INLINE index size() const { return positions.size(); }
  };

  kv_tables(kv_shape const& shape, index page_bytes) : shape_(shape), pool_(page_bytes, shape.max_pages) {}

  TERN_INLINE index heads_of_sequence() const { return shape_.layers * shape_.kv_heads; }
  TERN_INLINE head& at(sequence s, index layer, index h) { return heads_[s * heads_of_sequence() + layer * shape_.kv_heads + h]; }
  TERN_INLINE head const& at(sequence s, index layer, index h) const {
    return heads_[s * heads_of_sequence() + layer * shape_.kv_heads + h];
  }
  TERN_INLINE std::int32_t& next(sequence s, index layer) { return next_[s * shape_.layers + layer]; }
  TERN_INLINE std::int32_t next(sequence s, index layer) const { return next_[s * shape_.layers + layer]; }
  TERN_INLINE tensor_view<page_list const, 2> lists(index layer) const {
    return {lists_.data() + layer * shape_.kv_heads, tern::shape<2>{{open_.size(), shape_.kv_heads}},
            tern::shape<2>{{heads_of_sequence(), 1}}};
  }
  /// A sequence that is not open, without tokens.
  sequence unused() {
    sequence s = 0;
    while (s < open_.size() && open_[s]) ++s;
    if (s == open_.size()) {
      index const heads = (s + 1) * heads_of_sequence();
      heads_.reserve_more(heads);
      lists_.reserve_more(heads);
      next_.reserve_more((s + 1) * shape_.layers);
      open_.push(false);
      while (heads_.size() < heads) {
        heads_.push(head{});
        lists_.push(page_list{});
      }
      while (next_.size() < (s + 1) * shape_.layers) next_.push(0);
    }
    for (index layer = 0; layer < shape_.layers; ++layer) next(s, layer) = 0;
    return s;
  }
  /// Head i of a sequence has changed.
  TERN_INLINE void relist(sequence s, index i) {
    head const& of = heads_[s * heads_of_sequence() + i];
    lists_[s * heads_of_sequence() + i] = {of.pages.data(), of.size(), of.positions.data()};
  }
  TERN_INLINE void check(sequence s, char const* what, index layer = 0) const {
    if (!is_open(s)) [[unlikely]]
      (message() << "kv_cache::" << what << ": the sequence is " << s << ", expected one that is open").fail();
    if (layer < 0 || layer >= shape_.layers) [[unlikely]]
      (message() << "kv_cache::" << what << ": the layer is " << layer << ", expected less than layers = " << shape_.layers).fail();
  }
  /// Fails unless positions ascend in each head; where there are none, those that follow are taken. Returns the one behind the last.
  index check_positions(sequence s, index layer, tensor_view<std::int32_t const, 2> const& positions, index count) const {
    constexpr char const* op = "kv_cache::append";
    constexpr index most = (index{1} << 31) - key_limit_slack;
    index end = next(s, layer);
    if (positions.data() == nullptr) end += count;
    expect(end < most, op, "the position behind the last token", end, "below 2^31 - 1024");
    if (positions.data() == nullptr) return end;
    expect_equal(op, "positions.extent(0)", positions.extent(0), "kv_heads", shape_.kv_heads);
    expect_equal(op, "positions.extent(1)", positions.extent(1), "k.extent(1)", count);
    for (index h = 0; h < shape_.kv_heads; ++h) {
      head const& of = at(s, layer, h);
      index last = of.size() > 0 ? of.positions[of.size() - 1] : -1;
      for (index i = 0; i < count; last = positions(h, i++))
        expect(positions(h, i) > last && positions(h, i) < most, op, "a position", index{positions(h, i)},
               "behind the one before, below 2^31 - 1024");
      if (last >= end) end = last + 1;
    }
    return end;
  }
  /// Makes sure of so many pages, or fails.
  TERN_INLINE void reserve(char const* what, index pages) {
    expect(pages <= pool_.left(), what, "the number of new pages", pages, "at most those that are left");
    pool_.reserve(pages);
  }
  /// New pages that `count` more tokens take, with the copy of a shared one.
  TERN_INLINE index pages_needed(head const& of, index count) const {
    index const more = divide_up(of.size() + count, page_rows) - of.pages.size();
    return more + (count > 0 && of.size() % page_rows != 0 && pool_.is_shared(of.pages[of.pages.size() - 1]));
  }
  /// Places for `count` more tokens of a head, at positions position(0), position(1), ...
  template <class Position>
  void extend(sequence s, index layer, index h, index count, Position const& position) {
    head& of = at(s, layer, h);
    if (count > 0 && of.size() % page_rows != 0) own(of, of.pages.size() - 1);
    for (index i = 0; i < count; ++i) of.positions.push(position(i));
    while (of.pages.size() * page_rows < of.size()) of.pages.push(pool_.take());
    relist(s, layer * shape_.kv_heads + h);
  }
  /// Page `id` takes the place of a head's page.
  TERN_INLINE void put_page(head& of, index page, std::int32_t id) {
    if (of.pages[page] == id) return;
    pool_.drop(of.pages[page]);
    of.pages[page] = id;
  }
  /// A page of a head becomes its own.
  TERN_INLINE void own(head& of, index page) {
    std::int32_t const shared = of.pages[page];
    if (!pool_.is_shared(shared)) return;
    of.pages[page] = pool_.take();
    __builtin_memcpy(pool_.at(of.pages[page]), pool_.at(shared), static_cast<std::size_t>(pool_.page_bytes()));
    pool_.drop(shared);
  }
  /// Calls f(page) for the pages that change when the listed tokens become the head's; returns how many of them are shared.
  template <class F>
  TERN_INLINE index each_changed_page(head const& of, std::int32_t const* list, index count, F&& f) const {
    index same = 0, shared = 0;
    while (same < count && list[same] == same) ++same;
    for (index page = same / page_rows; page < divide_up(count, page_rows) && same < count; ++page) {
      shared += pool_.is_shared(of.pages[page]);
      f(page);
    }
    return shared;
  }
  /// Tokens from `length` on are gone.
  void cut(sequence s, index i, index length) {
    head& of = heads_[s * heads_of_sequence() + i];
    of.positions.shrink(length);
    while (of.pages.size() > divide_up(length, page_rows)) {
      pool_.drop(of.pages.back());
      of.pages.pop();
    }
    relist(s, i);
  }
  kv_shape shape_;
  page_pool pool_;
  growing<bool> open_;          // of each sequence
  growing<head> heads_;         // (sequences, layers, kv_heads)
  growing<page_list> lists_;    // (sequences, layers, kv_heads): the same for attention
  growing<std::int32_t> next_;  // (sequences, layers): the next position
};

}  // namespace TERN_ABI
}  // namespace detail
}  // namespace tern

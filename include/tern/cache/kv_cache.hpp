// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/kv_cache.hpp
/// The keys and values of texts that a model has read: of any number of sequences, in pages of 64 tokens of one head each, from which
/// attention reads them where they lie.
///
///     kv_cache<f16> cache({.layers = 30, .kv_heads = 3, .dim = 64});              keys and values in f16
///     kv_cache<formats::keys8, formats::values4> small({...});                     in 8 and 4 bits (cache/page_format.hpp has all formats)
///
///     auto const chat = cache.open();                                              a sequence
///     cache.append(policy, chat, layer, k, v);                                     k, v (kv_heads, tokens, dim), for each layer
///     attention(policy, q, cache.keys(chat, layer), cache.values(chat, layer), out, causal{});
///
///     auto const draft = cache.fork(chat);                                         shares all pages; what either writes is its own
///     cache.truncate(draft, 100);                                                  tokens at positions 100, 101, ... are forgotten
///     cache.keep(policy, chat, layer, lists);                                      of each head, the listed tokens stay
///     cache.slide(policy, chat, layer, 4, 1024);                                   the first 4 and the last 1024 (to 1087) tokens stay
///     cache.close(draft);
///
///     cache.length(chat, layer, head), cache.positions(chat, layer, head), cache.read_key(chat, layer, head, place, row), read_value
///
/// Tokens    of a head lie in the order of their positions, without gaps. Heads and layers may hold different ones, each its own number.
///           Every token has a position, which stays with it: that of the token before it plus one, unless append is told. Causal masks and
///           windows of attention count places in the cache, in which the newest token is the last; positions are for rotation.
/// Keys      are stored as they come: rotated, or before rotation, if attention is to rotate them (attention/rotary.hpp): with
///           stored_rotary(table, cache.keys(chat, layer)) among the options by their positions, with rotary{table} by their places.
/// Batch     keys(sequences, layer) reads several sequences at once, of different lengths.
/// Memory    36 bytes of tables for each page and 4 for each token and head, besides pages. A page goes when its last owner does,
///           and memory when all pages do that were allocated together, up to 256 of them, 2 MiB on one of the system's large pages
///           where that can be had: defragment() moves pages so that it goes at once.
///           `bytes()` counts pages in use, `reserved_bytes()` what is allocated for pages.
/// By page   keys in 2 bits share scales over the 64 tokens of a page: they are appended 64 at a time, to whole pages. cache/kv_tiers.hpp
///           keeps the latest tokens in another format until there are 64 of them. keep() rounds such keys anew; of a head
///           that is to be appended to it keeps a multiple of 64.
/// Errors    wrong shapes, sequences that are not open, positions that do not ascend, pages beyond `max_pages`: the cache is as before.
/// Threads   one that changes the cache at a time; appending uses the policy's. Views (keys, values, positions) hold until the next change.
/// Cost      append writes each number once, and never moves old ones; but for the first token behind a fork, which copies one page a head.
///           keep moves what stays behind the first token that goes: every second token of 16384, with AVX-512 on one thread, at 0.7 of
///           memcpy's speed in f16 and 4 bits, 0.6 in 8 bits, and 0.3 where keys in 2 bits are rounded anew.

#include <tern/cache/kv_tables.hpp>
#include <tern/cache/page_format.hpp>
#include <tern/core/parallel_for.hpp>

namespace tern {
inline namespace TERN_ABI {

/// A cache of keys in one format and values in another: see the top of this file.
template <class K, class V = K>
class kv_cache : public detail::kv_tables {
  friend struct detail::snapshot_access;
  static_assert(
      stored_in_pages<K> && stored_in_pages<V>,
      "tern: kv_cache stores float, f16, bf16, and of tern::formats q8_0, q4_0, e8p, keys8, keys4, keys2, values8, values4 and values2");
  static_assert(side_of_format<K> != 0 && side_of_format<V> != 1,
                "tern: kv_cache takes a format of keys and one of values, as in kv_cache<formats::keys8, formats::values8>");

 public:
  using key_format = page_format<K>;
  using value_format = page_format<V>;
  /// Whether keys are appended 64 at a time, to whole pages.
  static constexpr bool by_page = written_by_page<K>;

  explicit kv_cache(kv_shape const& shape) : detail::kv_tables(checked(shape), page_bytes(shape)) {}

  /// Tokens of k and v, (kv_heads, tokens, dim) and (kv_heads, tokens, dim_v), of f32, f16 or bf16, behind those of the layer.
  template <tensor_like X, tensor_like Y>
  void append(cpu_policy const& policy, sequence s, index layer, X&& k, Y&& v) {
    append_rows(policy, s, layer, tern::view(k), tern::view(v), {});
  }
  /// The same at positions (kv_heads, tokens), or (tokens) for all heads, which ascend from behind a head's last one.
  template <tensor_like X, tensor_like Y, tensor_like P>
  void append(cpu_policy const& policy, sequence s, index layer, X&& k, Y&& v, P&& positions) {
    auto const at = tern::view(positions);
    static_assert(view_of<P>::rank <= 2, "tern: kv_cache::append takes positions (kv_heads, tokens) or (tokens)");
    tensor_view<std::int32_t const, 2> by_head;
    if constexpr (view_of<P>::rank == 2)
      by_head = at;
    else
      by_head = {at.data(), tern::shape<2>{{shape_.kv_heads, at.extent(0)}}, tern::shape<2>{{0, at.stride(0)}}};
    append_rows(policy, s, layer, tern::view(k), tern::view(v), by_head);
  }

  /// What attention takes as k and v.
  TERN_INLINE paged_heads<typename key_format::source> keys(sequence s, index layer) const {
    check(s, "keys", layer);
    return {pool_.addresses(), 0, lists(layer).slice(0, s, s + 1), shape_.dim};
  }
  TERN_INLINE paged_heads<typename value_format::source> values(sequence s, index layer) const {
    check(s, "values", layer);
    return {pool_.addresses(), key_bytes(shape_), lists(layer).slice(0, s, s + 1), shape_.dim_v};
  }
  /// The same for a batch of sequences.
  template <tensor_like S>
  TERN_INLINE paged_heads<typename key_format::source> keys(S&& sequences, index layer) const {
    auto const which = batch_of("keys", layer, tern::view(sequences));
    return {pool_.addresses(), 0, lists(layer), shape_.dim, which.data(), which.extent(0)};
  }
  template <tensor_like S>
  TERN_INLINE paged_heads<typename value_format::source> values(S&& sequences, index layer) const {
    auto const which = batch_of("values", layer, tern::view(sequences));
    return {pool_.addresses(), key_bytes(shape_), lists(layer), shape_.dim_v, which.data(), which.extent(0)};
  }

  /// Token t of a head as floats, exactly as stored. Not checked: s is open, t below length(s, layer, h).
  TERN_INLINE void read_key(sequence s, index layer, index h, index t, float* x) const {
    key_format::read(pool_.at(at(s, layer, h).pages[t / page_rows]), shape_.dim, t % page_rows, x);
  }
  TERN_INLINE void read_value(sequence s, index layer, index h, index t, float* x) const {
    value_format::read(pool_.at(at(s, layer, h).pages[t / page_rows]) + key_bytes(shape_), shape_.dim_v, t % page_rows, x);
  }

  /// Token t of a head becomes x, rounded. Only after own_pages(s, layer); different heads may be written from different threads.
  TERN_INLINE void write_key(sequence s, index layer, index h, index t, float const* x)
    requires(!written_by_page<K>)
  {
    key_format::write(x, shape_.dim, t % page_rows, pool_.at(at(s, layer, h).pages[t / page_rows]));
  }
  TERN_INLINE void write_value(sequence s, index layer, index h, index t, float const* x) {
    value_format::write(x, shape_.dim_v, t % page_rows, pool_.at(at(s, layer, h).pages[t / page_rows]) + key_bytes(shape_));
  }

  /// Of each head of a layer, the listed tokens stay: row h of `lists` has their places, ascending.
  void keep(cpu_policy const& policy, sequence s, index layer, index_lists const& lists) {
    check(s, "keep", layer);
    index const heads = shape_.kv_heads;
    lists.check_shape("kv_cache::keep", heads);
    index copies = 0, most = 0;
    for (index h = 0; h < heads; ++h) {
      detail::expect_ascending("kv_cache::keep", "an index of lists", lists.row(h), lists.count(h), at(s, layer, h).size());
      copies += each_changed_page(at(s, layer, h), lists.row(h), lists.count(h), [](index) {});
      most = at(s, layer, h).pages.size() > most ? at(s, layer, h).pages.size() : most;
    }
    reserve("kv_cache::keep", copies);
    index const page_bytes = pool_.page_bytes();
    workspace::lease const scratch(policy.scratch(),
                                   static_cast<std::size_t>(detail::slots_for(policy, heads) * page_bytes + heads * most * 4));
    auto* const targets = reinterpret_cast<std::int32_t*>(scratch.data() + detail::slots_for(policy, heads) * page_bytes);
    for (index h = 0; h < heads; ++h)  // a shared page is left to the others, and a new one written
      each_changed_page(at(s, layer, h), lists.row(h), lists.count(h), [&](index page) {
        std::int32_t const id = at(s, layer, h).pages[page];
        targets[h * most + page] = pool_.is_shared(id) ? pool_.take() : id;
      });
    detail::parallel_for(policy, heads, [&](index h, index slot) TERN_LAMBDA {
      head& of = at(s, layer, h);
      std::int32_t const* const list = lists.row(h);
      each_changed_page(of, list, lists.count(h), [&](index page) TERN_LAMBDA {
        index const first = page * page_rows, left = lists.count(h) - first;
        page_gather next;
        fetch(of, list + first + page_rows, (left < 2 * page_rows ? left : 2 * page_rows) - page_rows, next);
        next.start(shape_, (list[first] / page_rows - page) * page_bytes > cached_bytes);
        gather(
            of, left < page_rows ? left : page_rows, [&](index i) TERN_LAMBDA { return index{list[first + i]}; }, page,
            targets[h * most + page], scratch.data() + slot * page_bytes, next);
      });
      simd::finish_stores_past();
      for (index i = 0; i < lists.count(h); ++i) of.positions[i] = of.positions[list[i]];
    });
    for (index h = 0; h < heads; ++h) {
      head& of = at(s, layer, h);
      each_changed_page(of, lists.row(h), lists.count(h), [&](index page) { put_page(of, page, targets[h * most + page]); });
      cut(s, layer * heads + h, lists.count(h));
    }
  }
  /// Forgets tokens between the first `sinks` and the last `window` of each head of a layer, 64 at a time: up to 63 more than that stay.
  /// Moves fewer than 64 tokens a head.
  void slide(cpu_policy const& policy, sequence s, index layer, index sinks, index window) {
    check(s, "slide", layer);
    detail::expect(sinks >= 0 && window >= 0, "kv_cache::slide", "sinks or window", sinks < window ? sinks : window, "not negative");
    if constexpr (written_by_page<K>)
      detail::expect(sinks % page_rows == 0, "kv_cache::slide", "sinks", sinks, "whole pages of 64, which these keys are written in");
    auto const pages_of = [&](index h) { return (at(s, layer, h).size() - sinks - window) / page_rows; };
    index copies = 0;
    for (index h = 0; h < shape_.kv_heads; ++h)
      copies += pages_of(h) > 0 && sinks % page_rows != 0 && pool_.is_shared(at(s, layer, h).pages[sinks / page_rows]);
    reserve("kv_cache::slide", copies);
    workspace::lease const scratch(policy.scratch(), static_cast<std::size_t>(pool_.page_bytes()));
    // All copies before a page goes: memory that was reserved may go with it.
    for (index h = 0; h < shape_.kv_heads; ++h)
      if (pages_of(h) > 0 && sinks % page_rows != 0) own(at(s, layer, h), sinks / page_rows);
    for (index h = 0; h < shape_.kv_heads; ++h) slide_head(s, layer * shape_.kv_heads + h, sinks, pages_of(h), scratch.data());
  }

 private:
  /// Beside the making of a page: what the next one takes is asked for.
  struct page_gather {
    detail::page_fetch keys, values;
    TERN_INLINE void start(kv_shape const& n, bool past) {
      keys.spread(key_format::gather_turns(n.dim), key_format::fetch_every);
      values.spread(value_format::gather_turns(n.dim_v), value_format::fetch_every);
      keys.past = values.past = past;
    }
  };
  /// A page that was read so many bytes ago is written past the caches: on Zen 4, whose second cache has 1 MB, that is faster from there
  /// on.
  static constexpr index cached_bytes = index{1} << 18;

  TERN_INLINE static index key_bytes(kv_shape const& n) { return detail::round_to_multiple(key_format::bytes(n.dim), 64); }
  TERN_INLINE static index page_bytes(kv_shape const& n) { return key_bytes(n) + value_format::bytes(n.dim_v); }
  static kv_shape const& checked(kv_shape const& n) {
    detail::expect(n.layers >= 1, "kv_cache", "layers", n.layers, "at least 1");
    detail::expect(n.kv_heads >= 1, "kv_cache", "kv_heads", n.kv_heads, "at least 1");
    expect_blocks("dim", n.dim, "keys", key_format::granule);
    expect_blocks("dim_v", n.dim_v, "values", value_format::granule);
    return n;
  }
  static void expect_blocks(char const* extent, index was, char const* side, index granule) {
    if (was < 1 || was % granule != 0)
      (detail::message() << "kv_cache: " << extent << " is " << was << ", expected a multiple of " << granule << ", which the format of "
                         << side << " has in a block")
          .fail();
  }

  /// Fails unless all sequences of a batch are open.
  TERN_INLINE tensor_view<sequence const, 1> batch_of(char const* what, index layer, tensor_view<sequence const, 1> const& which) const {
    for (index b = 0; b < which.extent(0); ++b) check(which[b], what, layer);
    detail::expect(which.extent(0) <= 1 || which.stride(0) == 1, "kv_cache", "the stride of sequences", which.stride(0), "1 (contiguous)");
    return which;
  }
  template <class X, class Y>
  TERN_INLINE void check_rows(X const& k, Y const& v) const {
    constexpr char const* op = "kv_cache::append";
    detail::expect_equal(op, "k.extent(0)", k.extent(0), "kv_heads", shape_.kv_heads);
    detail::expect_equal(op, "v.extent(0)", v.extent(0), "kv_heads", shape_.kv_heads);
    detail::expect_equal(op, "v.extent(1)", v.extent(1), "k.extent(1)", k.extent(1));
    detail::expect_equal(op, "k.extent(2)", k.extent(2), "dim", shape_.dim);
    detail::expect_equal(op, "v.extent(2)", v.extent(2), "dim_v", shape_.dim_v);
    detail::expect(k.stride(2) == 1 || shape_.dim == 1, op, "k.stride(2)", k.stride(2), "1 (contiguous rows)");
    detail::expect(v.stride(2) == 1 || shape_.dim_v == 1, op, "v.stride(2)", v.stride(2), "1 (contiguous rows)");
  }
  template <class X, class Y>
  void append_rows(cpu_policy const& callers, sequence s, index layer, X const& k, Y const& v,
                   tensor_view<std::int32_t const, 2> const& positions) {
    static_assert(X::rank == 3 && Y::rank == 3, "tern: kv_cache::append takes k and v (kv_heads, tokens, dim)");
    check(s, "append", layer);
    check_rows(k, v);
    index const count = k.extent(1), heads = shape_.kv_heads, first = next(s, layer);
    index const end = check_positions(s, layer, positions, count);
    index needed = 0;
    for (index h = 0; h < heads; ++h) needed += pages_needed(at(s, layer, h), count);
    if constexpr (written_by_page<K>) check_whole_pages(s, layer, count);
    reserve("kv_cache::append", needed);
    for (index h = 0; h < heads; ++h) {
      head& of = at(s, layer, h);
      of.positions.reserve_more(of.size() + count);
      relist(s, layer * heads + h);  // what follows may still fail
      of.pages.reserve_more(detail::divide_up(of.size() + count, page_rows));
      relist(s, layer * heads + h);
    }
    cpu_policy const policy = count > 1 ? callers : callers.on(serial);
    index const parts = count > 0 ? detail::divide_up(count, page_rows) + 1 : 0, items = heads * parts;  // pages that may be written
    for (index h = 0; h < heads; ++h)
      extend(s, layer, h, count,
             [&](index i) { return positions.data() != nullptr ? positions(h, i) : static_cast<std::int32_t>(first + i); });
    next(s, layer) = static_cast<std::int32_t>(end);
    // A thread has a page for itself: tokens of some formats share bytes.
    detail::parallel_for(policy, items, [&](index item, index) TERN_LAMBDA {
      index const h = item / parts;
      head const& of = at(s, layer, h);
      index const before = of.size() - count, page = before / page_rows + item % parts;
      index const t0 = page * page_rows > before ? page * page_rows : before, t1 = (page + 1) * page_rows;
      if (t0 >= of.size()) return;
      index const rows = (t1 < of.size() ? t1 : of.size()) - t0, row = t0 - before;
      write_rows(of, t0, rows, k[h].slice(0, row, row + rows), v[h].slice(0, row, row + rows));
    });
  }
  TERN_INLINE void check_whole_pages(sequence s, index layer, index count) const {
    constexpr char const* op = "kv_cache::append";
    detail::expect(count % page_rows == 0, op, "k.extent(1)", count, "a multiple of 64, which these keys are written in");
    for (index h = 0; h < shape_.kv_heads; ++h)
      detail::expect(at(s, layer, h).size() % page_rows == 0, op, "the number of tokens that a head has", at(s, layer, h).size(),
                     "a multiple of 64: these keys are written in whole pages, which keep() has to leave");
  }
  /// Tokens of a head are to be asked for.
  TERN_INLINE void fetch(head const& of, std::int32_t const* tokens, index count, page_gather& to) const {
    std::byte const* from = nullptr;
    for (index i = 0, page = -1; i < count; ++i) {
      index const t = tokens[i];
      bool const more = t / page_rows == page;
      if (!more) from = pool_.at(of.pages[page = t / page_rows]);
      key_format::fetch(from, shape_.dim, t % page_rows, more, to.keys);
      value_format::fetch(from + key_bytes(shape_), shape_.dim_v, t % page_rows, more, to.values);
    }
  }
  /// Tokens token(0), token(1), ..., ascending, of a head become those of page `target`, which is the head's `page`, from whose tokens on
  /// they lie, or a new one. `scratch`: room for one.
  template <class Token>
  TERN_INLINE void gather(head const& of, index count, Token const& token, index page, std::int32_t target, std::byte* scratch,
                          page_gather& beside) const {
    if (target != of.pages[page] || token(0) >= (page + 1) * page_rows) return gather(of, count, token, pool_.at(target), beside);
    gather(of, count, token, scratch, beside);
    __builtin_memcpy(pool_.at(target), scratch, static_cast<std::size_t>(pool_.page_bytes()));
  }
  template <class Token>
  TERN_INLINE void gather(head const& of, index count, Token const& token, std::byte* to, page_gather& beside) const {
    formats::detail::tile_token key[page_rows], value[page_rows];
    index const values = key_bytes(shape_);
    std::byte const* from = nullptr;
    for (index i = 0, page = -1; i < count; ++i) {
      index const t = token(i);
      if (t / page_rows != page) from = pool_.at(of.pages[page = t / page_rows]);
      key[i] = {from, t % page_rows};
      value[i] = {from + values, t % page_rows};
    }
    key_format::gather(key, count, shape_.dim, to, beside.keys);
    value_format::gather(value, count, shape_.dim_v, to + values, beside.values);
  }
  /// Forgets `pages` pages full of tokens behind the first `sinks`: the rest of the page that those lie in, which is
  /// the head's own, comes from another.
  void slide_head(sequence s, index which, index sinks, index pages, std::byte* scratch) {
    if (pages <= 0) return;
    head& of = heads_[s * heads_of_sequence() + which];
    index const first = sinks / page_rows, size = of.size();
    index begin = first;  // of the pages that go
    if (index const stay = sinks % page_rows; stay != 0) {
      index const left = size - (first + pages) * page_rows;
      auto const token = [&](index i) TERN_LAMBDA { return (i < stay ? first : first + pages) * page_rows + i; };
      page_gather nothing;
      gather(of, left < page_rows ? left : page_rows, token, first, of.pages[first], scratch, nothing);
      ++begin;
    }
    for (index p = begin; p < begin + pages; ++p) pool_.drop(of.pages[p]);
    for (index p = begin + pages; p < of.pages.size(); ++p) of.pages[p - pages] = of.pages[p];
    of.pages.shrink(of.pages.size() - pages);
    for (index t = sinks; t + pages * page_rows < size; ++t) of.positions[t] = of.positions[t + pages * page_rows];
    of.positions.shrink(size - pages * page_rows);
    relist(s, which);
  }
  /// Tokens t, t + 1, ... of a head from the first `count` rows of k and v.
  template <class X, class Y>
  TERN_INLINE void write_rows(head const& of, index t, index count, X const& k, Y const& v) const {
    if constexpr (written_by_page<K>)
      key_format::write_page([&](index i) TERN_LAMBDA { return &k(i, 0); }, shape_.dim, pool_.at(of.pages[t / page_rows]));
    for (index i = 0; i < count; ++i) {
      std::byte* const page = pool_.at(of.pages[(t + i) / page_rows]);
      if constexpr (!written_by_page<K>) key_format::write(&k(i, 0), shape_.dim, (t + i) % page_rows, page);
      value_format::write(&v(i, 0), shape_.dim_v, (t + i) % page_rows, page + key_bytes(shape_));
    }
  }
};

}  // namespace TERN_ABI
}  // namespace tern

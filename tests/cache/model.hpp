// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/cache/model.hpp
/// A kv_cache, and beside it plain lists of what it should hold: every call goes to both.
#include "bounds.hpp"
#include "catch.hpp"
#include "message.hpp"

#include <tern/cache/kv_cache.hpp>

#include <map>
#include <memory>
#include <set>
#include <string>

namespace tern::test {

/// Random rows (heads, tokens, dim) in memory of one of several layouts, whose gaps are NaN.
template <class T>
struct input {
  std::vector<T> memory;
  tensor_view<T const, 3> view;
  input(rng& r, index heads, index tokens, index dim) {
    index const row = dim + 3 * r.integer(0, 1);
    memory.assign(static_cast<std::size_t>(heads * tokens * row + 1), poison<T>());
    shape<3> const by_head{{tokens * row, row, 1}}, by_token{{row, heads * row, 1}};
    tensor_view<T, 3> const to(memory.data() + 1, {{heads, tokens, dim}}, r.integer(0, 1) == 0 ? by_head : by_token);
    detail::each(to, [&](T& e) { e = static_cast<T>(static_cast<float>(4 * r.uniform() - 2)); });
    view = to;
  }
  input(input const&) = delete;
  std::vector<float> row(index h, index t) const {
    std::vector<float> x;
    for (index d = 0; d < view.extent(2); ++d) x.push_back(static_cast<float>(view(h, t, d)));
    return x;
  }
};

/// Lists of tokens to keep, one for each head, in memory that has more room.
struct owned_lists {
  std::vector<std::int32_t> ids, counts;
  index most = 2;
  explicit owned_lists(std::vector<std::vector<std::int32_t>> const& lists) {
    for (auto const& list : lists) most = std::max(most, static_cast<index>(list.size()) + 2);
    for (auto const& list : lists) {
      ids.insert(ids.end(), list.begin(), list.end());
      ids.resize(ids.size() + static_cast<std::size_t>(most) - list.size(), -7);
      counts.push_back(static_cast<std::int32_t>(list.size()));
    }
  }
  index_lists operator()() {
    index const rows = static_cast<index>(counts.size());
    return {view(ids.data(), rows, most), view(counts.data(), rows)};
  }
};

inline cpu_policy some_threads() {
  static thread_pool pool(3);
  return cpu.on(pool);
}

/// What a head should hold. Pages are told apart by where their number lies.
struct shadow_head {
  struct token {
    std::int32_t position;
    std::vector<float> given_key, given_value, key, value;  // as appended, and as stored
  };
  std::vector<std::shared_ptr<token const>> tokens;
  std::vector<std::shared_ptr<int>> pages;

  index size() const { return static_cast<index>(tokens.size()); }
  bool shared(index page) const { return pages[static_cast<std::size_t>(page)].use_count() > 1; }
  void own(index page) {
    if (shared(page)) pages[static_cast<std::size_t>(page)] = std::make_shared<int>();
  }
  void cut(index length) {
    tokens.resize(static_cast<std::size_t>(length));
    pages.resize(static_cast<std::size_t>((length + 63) / 64));
  }
};

template <class K, class V>
struct modelled {
  using sequence = typename kv_cache<K, V>::sequence;
  struct shadow {
    std::vector<shadow_head> heads;  // (layers, kv_heads)
    std::vector<index> next;         // (layers)
  };
  kv_cache<K, V> cache;
  std::map<sequence, shadow> texts;
  std::map<std::string, int> refused;  // how many calls would have taken too many pages

  explicit modelled(kv_shape const& shape) : cache(shape) {}

  shadow_head& at(sequence s, index layer, index h) {
    return texts.at(s).heads[static_cast<std::size_t>(layer * cache.shape().kv_heads + h)];
  }
  index& next(sequence s, index layer) { return texts.at(s).next[static_cast<std::size_t>(layer)]; }
  index used() const {
    std::set<int const*> pages;
    for (auto const& [s, text] : texts)
      for (auto const& head : text.heads)
        for (auto const& page : head.pages) pages.insert(page.get());
    return static_cast<index>(pages.size());
  }
  /// Keys and values of a page begin at multiples of 64 bytes.
  index page_bytes() const {
    auto const whole = [](index bytes) { return (bytes + 63) / 64 * 64; };
    return whole(page_format<K>::bytes(cache.shape().dim)) + whole(page_format<V>::bytes(cache.shape().dim_v));
  }

  sequence open() {
    sequence const s = cache.open();
    REQUIRE(!texts.contains(s));
    auto const layers = static_cast<std::size_t>(cache.shape().layers);
    texts[s] = {std::vector<shadow_head>(layers * static_cast<std::size_t>(cache.shape().kv_heads)), std::vector<index>(layers)};
    return s;
  }
  sequence fork(sequence from) {
    sequence const s = cache.fork(from);
    REQUIRE(!texts.contains(s));
    texts[s] = texts.at(from);
    return s;
  }
  void close(sequence s) {
    cache.close(s);
    REQUIRE(!cache.is_open(s));
    texts.erase(s);
  }
  /// `count` random tokens in T. Their positions are given where `positions` has any: for all heads, or for each.
  template <class T = float>
  void append(rng& r, sequence s, index layer, index count, std::vector<std::int32_t> const& positions = {}) {
    kv_shape const& n = cache.shape();
    input<T> const k(r, n.kv_heads, count, n.dim), v(r, n.kv_heads, count, n.dim_v);
    index needed = 0;
    for (index h = 0; h < n.kv_heads; ++h) {
      shadow_head const& head = at(s, layer, h);
      needed += (head.size() + count + 63) / 64 - static_cast<index>(head.pages.size());
      needed += count > 0 && head.size() % 64 != 0 && head.shared(head.size() / 64);
    }
    bool const by_head = static_cast<index>(positions.size()) == n.kv_heads * count;
    auto const call = [&] {
      if (positions.empty())
        cache.append(some_threads(), s, layer, k.view, v.view);
      else if (by_head)
        cache.append(some_threads(), s, layer, k.view, v.view, view(positions.data(), n.kv_heads, count));
      else
        cache.append(some_threads(), s, layer, k.view, v.view, positions);
    };
    if (!fits("append", needed, call)) return;
    index const first = next(s, layer);
    for (index h = 0; h < n.kv_heads; ++h) {
      shadow_head& head = at(s, layer, h);
      if (count > 0 && head.size() % 64 != 0) head.own(head.size() / 64);
      for (index t = 0; t < count; ++t) {
        index const at = positions.empty() ? first + t : positions[static_cast<std::size_t>(by_head ? h * count + t : t)];
        head.tokens.push_back(std::make_shared<shadow_head::token const>(stored(s, layer, h, head.size(), at, k.row(h, t), v.row(h, t))));
        next(s, layer) = std::max(next(s, layer), at + 1);
      }
      while (static_cast<index>(head.pages.size()) * 64 < head.size()) head.pages.push_back(std::make_shared<int>());
    }
  }
  void truncate(sequence s, index position) {
    cache.truncate(s, position);
    for (shadow_head& head : texts.at(s).heads) {
      index left = 0;
      while (left < head.size() && head.tokens[static_cast<std::size_t>(left)]->position < position) ++left;
      head.cut(left);
    }
    for (index& n : texts.at(s).next) n = std::min(n, std::max<index>(position, 0));
  }
  void keep(sequence s, index layer, std::vector<std::vector<std::int32_t>> const& lists) {
    owned_lists owned(lists);
    // Pages that change: from that of the first token that moves to that of the last one that stays.
    auto const each_changed = [&](auto&& f) {
      for (index h = 0; h < static_cast<index>(lists.size()); ++h) {
        auto const& list = lists[static_cast<std::size_t>(h)];
        index first = 0, count = static_cast<index>(list.size());
        while (first < count && list[static_cast<std::size_t>(first)] == first) ++first;
        if (first < count)
          for (index page = first / 64; page <= (count - 1) / 64; ++page) f(at(s, layer, h), page);
      }
    };
    index needed = 0;
    each_changed([&](shadow_head const& head, index page) { needed += head.shared(page); });
    if (!fits("keep", needed, [&] { cache.keep(some_threads(), s, layer, owned()); })) return;
    each_changed([](shadow_head& head, index page) { head.own(page); });
    for (index h = 0; h < static_cast<index>(lists.size()); ++h) {
      shadow_head& head = at(s, layer, h);
      auto const before = head.tokens;
      head.tokens.clear();
      for (std::int32_t t : lists[static_cast<std::size_t>(h)]) head.tokens.push_back(before[static_cast<std::size_t>(t)]);
      head.cut(head.size());
    }
  }
  void slide(sequence s, index layer, index sinks, index window) {
    auto const pages_of = [&](index h) { return std::max<index>(0, at(s, layer, h).size() - sinks - window) / 64; };
    index needed = 0;
    for (index h = 0; h < cache.shape().kv_heads; ++h) needed += pages_of(h) > 0 && sinks % 64 != 0 && at(s, layer, h).shared(sinks / 64);
    if (!fits("slide", needed, [&] { cache.slide(some_threads(), s, layer, sinks, window); })) return;
    for (index h = 0; h < cache.shape().kv_heads; ++h) {
      shadow_head& head = at(s, layer, h);
      index const pages = pages_of(h), page = (sinks + 63) / 64;
      if (pages == 0) continue;
      if (sinks % 64 != 0) head.own(sinks / 64);
      head.tokens.erase(head.tokens.begin() + sinks, head.tokens.begin() + sinks + 64 * pages);
      head.pages.erase(head.pages.begin() + page, head.pages.begin() + page + pages);
    }
  }

  /// Whether all is as it should be, to the bit.
  void verify() {
    kv_shape const& n = cache.shape();
    REQUIRE(cache.bytes() == used() * page_bytes());
    REQUIRE(cache.reserved_bytes() >= cache.bytes());
    REQUIRE(cache.pages_left() == n.max_pages - used());
    for (auto& [s, text] : texts) {
      REQUIRE(cache.is_open(s));
      index pages = 0;
      for (index layer = 0; layer < n.layers; ++layer) {
        REQUIRE(cache.next_position(s, layer) == next(s, layer));
        for (index h = 0; h < n.kv_heads; ++h) {
          pages += static_cast<index>(at(s, layer, h).pages.size());
          INFO("sequence " << s << ", layer " << layer << ", head " << h << ", seed " << current_seed);
          REQUIRE(wrong_tokens(s, layer, h) == 0);
        }
      }
      REQUIRE(cache.bytes(s) == pages * page_bytes());
    }
  }

 private:
  /// Makes a call that takes `needed` pages, and returns whether there were so many.
  template <class Call>
  bool fits(std::string const& name, index needed, Call const& call) {
    if (needed <= cache.shape().max_pages - used()) {
      call();
      return true;
    }
    CHECK(message_of(call) ==
          "kv_cache::" + name + ": the number of new pages is " + std::to_string(needed) + ", expected at most those that are left");
    ++refused[name];
    return false;
  }
  /// What the cache has of a token, which has to be what was given, but for rounding.
  shadow_head::token stored(sequence s, index layer, index h, index t, index position, std::vector<float> const& key,
                            std::vector<float> const& value) {
    shadow_head::token token{static_cast<std::int32_t>(position), key, value, key, value};
    cache.read_key(s, layer, h, t, token.key.data());
    cache.read_value(s, layer, h, t, token.value.data());
    REQUIRE(stored_well<K>(key, token.key));
    REQUIRE(stored_well<V>(value, token.value));
    return token;
  }
  index wrong_tokens(sequence s, index layer, index h) {
    kv_shape const& n = cache.shape();
    shadow_head const& head = at(s, layer, h);
    auto const keys = cache.keys(s, layer);
    auto const values = cache.values(s, layer);
    auto const positions = cache.positions(s, layer, h);
    for (index length : {cache.length(s, layer, h), positions.extent(0), keys.list(0, h).keys, values.list(0, h).keys})
      if (length != head.size()) return 1;
    index wrong = 0;
    std::vector<float> key(static_cast<std::size_t>(n.dim)), value(static_cast<std::size_t>(n.dim_v));
    for (index t = 0; t < head.size(); ++t) {
      shadow_head::token const& want = *head.tokens[static_cast<std::size_t>(t)];
      wrong += positions[t] != want.position;
      cache.read_key(s, layer, h, t, key.data());
      cache.read_value(s, layer, h, t, value.data());
      wrong += key != want.key || value != want.value;
      if (t % 64 != 0) continue;
      // What attention is told.
      page_format<K>::read(keys.page(0, h, t), n.dim, 0, key.data());
      page_format<V>::read(values.page(0, h, t), n.dim_v, 0, value.data());
      wrong += key != want.key || value != want.value;
    }
    return wrong;
  }
};

}  // namespace tern::test

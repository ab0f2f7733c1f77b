// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file cache/page_pool.hpp
/// Pages of one size, each with a number of owners. A page keeps its number (id) for life; where its bytes lie may change, and
/// `addresses()` says where. Memory comes in slabs of up to 256 pages, a large page of the system's where its pages fill one, and goes back
/// when the last page of a slab is given back.

#include <tern/core/error.hpp>
#include <tern/core/growing.hpp>
#include <tern/core/large_pages.hpp>

#include <bit>
#include <cstdint>

namespace tern::detail {
inline namespace TERN_ABI {

/// Which of a slab's pages are free.
class free_slots {
 public:
  static constexpr index most = 256;
  /// The first n.
  TERN_INLINE static free_slots all(index n) {
    free_slots s;
    for (index i = 0; i < n; ++i) s.add(i);
    return s;
  }
  TERN_INLINE void add(index i) { words_[i / 64] |= bit(i); }
  TERN_INLINE void remove(index i) { words_[i / 64] &= ~bit(i); }
  TERN_INLINE index count() const {
    index n = 0;
    for (std::uint64_t w : words_) n += std::popcount(w);
    return n;
  }
  /// Where count() is not 0.
  TERN_INLINE index first() const {
    index i = 0;
    while (words_[i] == 0) ++i;
    return 64 * i + std::countr_zero(words_[i]);
  }

 private:
  TERN_INLINE static std::uint64_t bit(index i) { return std::uint64_t{1} << (i % 64); }
  std::uint64_t words_[most / 64] = {};
};

class page_pool {
 public:
  static constexpr index slab_bytes = static_cast<index>(large_page), alignment = 64;

  /// `limit`: the most pages that may be in use.
  TERN_INLINE page_pool(index page_bytes, index limit) : page_bytes_((page_bytes + alignment - 1) / alignment * alignment), limit_(limit) {
    index const fit = slab_bytes / page_bytes_;
    in_slab_ = fit < 1 ? 1 : fit < free_slots::most ? fit : free_slots::most;
    index const filled = in_slab_ * page_bytes_, rest = slab_bytes - filled;
    slab_memory_ = rest > 0 && rest <= slab_bytes / 16 ? slab_bytes : filled;  // little is lost for a large page
  }
  page_pool(page_pool&&) = default;
  page_pool& operator=(page_pool&&) = delete;
  TERN_INLINE ~page_pool() {
    for (slab& s : slabs_) release(s);
  }

  TERN_INLINE index page_bytes() const { return page_bytes_; }
  TERN_INLINE index used() const { return used_; }
  TERN_INLINE index left() const { return limit_ - used_; }
  TERN_INLINE index pages_in_slab() const { return in_slab_; }
  TERN_INLINE index slab_memory() const { return slab_memory_; }
  /// Bytes of the memory that is held, for pages in use and free ones.
  TERN_INLINE index reserved_bytes() const { return held_ * slab_memory_; }
  TERN_INLINE std::byte* const* addresses() const { return address_.data(); }
  TERN_INLINE std::byte* at(std::int32_t id) const { return address_[id]; }
  TERN_INLINE bool is_shared(std::int32_t id) const { return owners_[id] > 1; }
  TERN_INLINE void share(std::int32_t id) { ++owners_[id]; }

  /// Makes room for `count` more pages, so that taking them allocates nothing, and cannot fail.
  inline void reserve(index count) {
    for (index i = 0; held_ * in_slab_ - used_ < count;) {
      if (held_ == slabs_.size()) {  // none without memory
        i = held_;
        slabs_.push(slab{nullptr, free_slots::all(in_slab_)});
      }
      while (slabs_[i].memory != nullptr) ++i;
      slabs_[i].memory = allocate(static_cast<std::size_t>(slab_memory_));
      ++held_;
      if (i < first_free_) first_free_ = i;
    }
    index const ids = address_.size() + (count > free_ids_.size() ? count - free_ids_.size() : 0);
    address_.reserve_more(ids);
    owners_.reserve_more(ids);
    place_.reserve_more(ids);
    free_ids_.reserve_more(ids);  // so that giving a page back cannot fail either
  }
  /// A page of one owner, whatever it holds. Room for it was reserved.
  inline std::int32_t take() {
    place const p = free_place();
    std::int32_t const id = new_id();
    address_[id] = slabs_[p.slab].memory + p.slot * page_bytes_;
    owners_[id] = 1;
    place_[id] = p;
    slabs_[p.slab].free.remove(p.slot);
    ++used_;
    return id;
  }
  /// One owner less; without any, the page is gone.
  inline void drop(std::int32_t id) {
    if (--owners_[id] > 0) return;
    free_slot(place_[id]);
    address_[id] = nullptr;
    free_ids_.push(id);
    --used_;
  }

  /// Moves pages together, so that no more slabs are held than the pages in use fill.
  inline void defragment() {
    index const wanted = (used_ + in_slab_ - 1) / in_slab_;
    // The slabs with the most pages stay; those of the others move into their holes.
    growing<index> order;
    for (index i = 0; i < slabs_.size(); ++i)
      if (slabs_[i].memory != nullptr) order.push(i);
    for (index i = 1; i < order.size(); ++i)
      for (index j = i; j > 0 && slabs_[order[j]].free.count() < slabs_[order[j - 1]].free.count(); --j) {
        index const other = order[j];
        order[j] = order[j - 1];
        order[j - 1] = other;
      }
    growing<bool> stays;
    for (index i = 0; i < slabs_.size(); ++i) stays.push(false);
    for (index i = 0; i < wanted; ++i) stays[order[i]] = true;
    index to = 0;
    for (index id = 0; id < address_.size(); ++id) {
      if (address_[id] == nullptr || stays[place_[id].slab]) continue;
      while (slabs_[order[to]].free.count() == 0) ++to;
      move_page(static_cast<std::int32_t>(id), {order[to], slabs_[order[to]].free.first()});
    }
    for (slab& s : slabs_)
      if (s.free.count() == in_slab_) release(s);  // reserved, and never used
  }

 private:
  struct slab {
    std::byte* memory;
    free_slots free;
  };
  struct place {
    index slab;
    index slot;
  };

  TERN_INLINE void release(slab& s) {
    if (s.memory == nullptr) return;
    deallocate(s.memory, static_cast<std::size_t>(slab_memory_));
    s.memory = nullptr;
    --held_;
  }
  TERN_INLINE void free_slot(place p) {
    slab& s = slabs_[p.slab];
    s.free.add(p.slot);
    if (p.slab < first_free_) first_free_ = p.slab;
    if (s.free.count() == in_slab_) release(s);
  }
  TERN_INLINE place free_place() {
    while (slabs_[first_free_].memory == nullptr || slabs_[first_free_].free.count() == 0) ++first_free_;
    return {first_free_, slabs_[first_free_].free.first()};
  }
  TERN_INLINE std::int32_t new_id() {
    if (free_ids_.size() > 0) {
      std::int32_t const id = free_ids_.back();
      free_ids_.pop();
      return id;
    }
    owners_.push(0);
    place_.push(place{});
    address_.push(nullptr);
    return static_cast<std::int32_t>(address_.size() - 1);
  }
  inline void move_page(std::int32_t id, place to) {
    place const from = place_[id];
    std::byte* const memory = slabs_[to.slab].memory + to.slot * page_bytes_;
    __builtin_memcpy(memory, address_[id], static_cast<std::size_t>(page_bytes_));
    address_[id] = memory;
    place_[id] = to;
    slabs_[to.slab].free.remove(to.slot);
    free_slot(from);
  }

  index page_bytes_, limit_, in_slab_, slab_memory_;
  index used_ = 0, held_ = 0, first_free_ = 0;  // pages in use; slabs that have memory; the first with a free page, or one before it
  growing<slab> slabs_;
  growing<std::byte*> address_;   // of each id; null for ids that are free
  growing<std::int32_t> owners_;  // of each id
  growing<place> place_;          // of each id
  growing<std::int32_t> free_ids_;
};

}  // namespace TERN_ABI
}  // namespace tern::detail

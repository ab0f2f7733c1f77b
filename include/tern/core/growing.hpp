// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file core/growing.hpp
/// An array that grows at its end. (std::vector would leave symbols that files compiled for different architectures share.)

#include <tern/core/config.hpp>

#include <concepts>
#include <new>
#include <type_traits>

namespace tern::detail {

/// Elements in one piece of memory. What it holds may throw on construction, but not on a move.
template <class T>
class growing {
 public:
  TERN_INLINE growing() = default;
  TERN_INLINE growing(growing const& other)
    requires std::copy_constructible<T>
      : growing() {
    reserve(other.size_);
    for (index i = 0; i < other.size_; ++i) push(other[i]);
  }
  TERN_INLINE growing(growing&& other) noexcept : data_(other.data_), size_(other.size_), room_(other.room_) { other.forget(); }
  TERN_INLINE growing& operator=(growing const& other)
    requires std::copy_constructible<T>
  {
    growing copy(other);
    return *this = static_cast<growing&&>(copy);
  }
  TERN_INLINE growing& operator=(growing&& other) noexcept {
    if (this == &other) return *this;
    release();
    data_ = other.data_;
    size_ = other.size_;
    room_ = other.room_;
    other.forget();
    return *this;
  }
  TERN_INLINE ~growing() { release(); }

  TERN_INLINE T* data() { return data_; }
  TERN_INLINE T const* data() const { return data_; }
  TERN_INLINE index size() const { return size_; }
  TERN_INLINE T& operator[](index i) { return data_[i]; }
  TERN_INLINE T const& operator[](index i) const { return data_[i]; }
  TERN_INLINE T* begin() { return data_; }
  TERN_INLINE T* end() { return data_ + size_; }
  TERN_INLINE T const* begin() const { return data_; }
  TERN_INLINE T const* end() const { return data_ + size_; }
  TERN_INLINE T& back() { return data_[size_ - 1]; }

  /// Room for `count` elements in all: none of the next ones that fit allocates.
  TERN_INLINE void reserve(index count) {
    if (count <= room_) return;
    T* const more = static_cast<T*>(::operator new(static_cast<std::size_t>(count) * sizeof(T), std::align_val_t{alignof(T)}));
    for (index i = 0; i < size_; ++i) {
      ::new (static_cast<void*>(more + i)) T(static_cast<T&&>(data_[i]));
      data_[i].~T();
    }
    free_memory();
    data_ = more;
    room_ = count;
  }
  /// As reserve, but at least half as much again as there was.
  TERN_INLINE void reserve_more(index count) {
    if (count > room_) reserve(count > room_ + room_ / 2 ? count : room_ + room_ / 2);
  }
  TERN_INLINE void push(T&& x) {
    reserve_more(size_ + 1);
    ::new (static_cast<void*>(data_ + size_)) T(static_cast<T&&>(x));
    ++size_;
  }
  TERN_INLINE void push(T const& x)
    requires std::copy_constructible<T>
  {
    T copy(x);  // x may be one of the elements
    push(static_cast<T&&>(copy));
  }
  TERN_INLINE void pop() { data_[--size_].~T(); }
  /// Drops the elements from `count` on.
  TERN_INLINE void shrink(index count) {
    while (size_ > count) pop();
  }
  TERN_INLINE void clear() { shrink(0); }

 private:
  TERN_INLINE void free_memory() {
    if (data_ != nullptr) ::operator delete(data_, std::align_val_t{alignof(T)});
  }
  TERN_INLINE void release() {
    clear();
    free_memory();
  }
  TERN_INLINE void forget() {
    data_ = nullptr;
    size_ = room_ = 0;
  }
  T* data_ = nullptr;
  index size_ = 0, room_ = 0;
};

}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file core/workspace.hpp
/// Scratch memory that kernels borrow and give back, last in, first out. A workspace either grows on demand, so that a
/// second call of the same kind allocates nothing, or is a fixed piece of the caller's memory, which is never exceeded.
/// One workspace serves one calling thread at a time; the worker threads of a kernel share what the caller's thread borrowed.

#include <tern/core/error.hpp>
#include <tern/core/large_pages.hpp>

#include <cstdint>

namespace tern {

namespace detail {
inline namespace TERN_ABI {
[[noreturn]] TERN_COLD inline void fail_workspace(std::size_t left, std::size_t wanted) {
  (message() << "workspace: " << static_cast<index>(left) << " bytes are left, expected at least " << static_cast<index>(wanted)).fail();
}
}  // namespace TERN_ABI
}  // namespace detail

/// Lends memory, aligned to 64 bytes; its own lies in large pages where it is large (core/large_pages.hpp). Not thread-safe: see above.
class workspace {
 public:
  /// Every borrowed piece starts at a multiple of this.
  static constexpr std::size_t alignment = 64;

  /// Grows on demand.
  TERN_INLINE workspace() = default;
  /// Grows on demand, and can lend `bytes` without allocating.
  TERN_INLINE explicit workspace(std::size_t bytes) { grow(bytes); }
  /// Lends from `memory` and fails when that is too small. `tern::workspace_size` says how much a call needs.
  TERN_INLINE workspace(void* memory, std::size_t bytes) : fixed_(true) {
    auto const address = reinterpret_cast<std::uintptr_t>(memory);
    std::size_t const skip = (alignment - address % alignment) % alignment;
    base_ = static_cast<std::byte*>(memory) + (skip < bytes ? skip : bytes);
    capacity_ = skip < bytes ? bytes - skip : 0;
  }
  workspace(workspace const&) = delete;
  workspace& operator=(workspace const&) = delete;
  TERN_INLINE ~workspace() { release_all(); }

  /// Bytes that can be lent without an allocation.
  TERN_INLINE std::size_t capacity() const { return capacity_; }

  /// A borrowed piece; returned when it goes out of scope.
  class lease {
   public:
    TERN_INLINE lease(workspace& from, std::size_t bytes) : from_(from) { data_ = from.borrow(bytes, bytes_); }
    lease(lease const&) = delete;
    lease& operator=(lease const&) = delete;
    TERN_INLINE ~lease() { from_.give_back(data_, bytes_); }
    TERN_INLINE std::byte* data() const { return data_; }

   private:
    workspace& from_;
    std::byte* data_;
    std::size_t bytes_ = 0;
  };

  /// `bytes` rounded up to the alignment: the sum of these is what several pieces need.
  TERN_INLINE static constexpr std::size_t rounded(std::size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

 private:
  TERN_INLINE std::byte* borrow(std::size_t bytes, std::size_t& taken) {
    taken = rounded(bytes);
    if (fixed_) {
      if (taken > capacity_ - used_in_base_) detail::fail_workspace(capacity_ - used_in_base_, taken);
    } else {
      std::size_t const most = used_ + taken > peak_ ? used_ + taken : peak_;
      if (used_ == 0 && most > capacity_) grow(most);
      if (taken > capacity_ - used_in_base_) {  // an outer kernel uses the base: lend a piece apart, and grow when all is back
        std::byte* const apart = detail::allocate(taken);
        used_ += taken;
        peak_ = most;
        return apart;
      }
      peak_ = most;  // last, so that a request the system cannot meet leaves no trace
    }
    std::byte* const piece = base_ + used_in_base_;
    used_in_base_ += taken;
    used_ += taken;
    return piece;
  }
  TERN_INLINE void give_back(std::byte* piece, std::size_t taken) {
    used_ -= taken;
    if (piece >= base_ && piece < base_ + capacity_)
      used_in_base_ -= taken;
    else if (taken != 0)
      detail::deallocate(piece, taken);
    if (used_ == 0 && !fixed_ && peak_ > capacity_) settle();
  }
  /// Room for the most that was ever used, if the system has it: the next call is as this one was.
  TERN_INLINE void settle() {
    release_all();
    base_ = detail::try_allocate(rounded(peak_));
    if (base_ != nullptr) capacity_ = rounded(peak_);
  }
  TERN_INLINE void grow(std::size_t bytes) {
    release_all();
    base_ = detail::allocate(rounded(bytes));
    capacity_ = rounded(bytes);
  }
  TERN_INLINE void release_all() {
    if (!fixed_) detail::deallocate(base_, capacity_);
    base_ = nullptr;
    capacity_ = 0;
  }

  std::byte* base_ = nullptr;
  std::size_t capacity_ = 0;
  std::size_t used_in_base_ = 0;  // of the base
  std::size_t used_ = 0;          // of the base and of pieces of their own
  std::size_t peak_ = 0;          // the most that was ever used: what the base grows to
  bool fixed_ = false;
};

}  // namespace tern

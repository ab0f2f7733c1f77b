// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file core/large_pages.hpp
/// Memory that kernels walk through. From 2 MB on it lies on the system's large pages (2 MB on most CPUs) where these can be had: with
/// pages of 4 KB, translating addresses takes a noticeable part of the time in which megabytes are read.

#include <tern/core/config.hpp>

#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace tern::detail {
inline namespace TERN_ABI {

inline constexpr std::size_t large_page = std::size_t{2} << 20;

/// What memory of this size is aligned to: at least a cache line.
TERN_INLINE constexpr std::align_val_t alignment_of(std::size_t bytes) { return std::align_val_t{bytes >= large_page ? large_page : 64}; }

/// What `memory`, if there is any, holds may lie on large pages.
TERN_INLINE std::byte* on_large_pages(void* memory, std::size_t bytes) {
#if defined(MADV_HUGEPAGE)
  if (memory != nullptr && bytes >= large_page) madvise(memory, bytes, MADV_HUGEPAGE);  // a wish: whether it is granted does not matter
#endif
  return static_cast<std::byte*>(memory);
}
/// Throws std::bad_alloc as `operator new` does.
TERN_INLINE std::byte* allocate(std::size_t bytes) { return on_large_pages(::operator new(bytes, alignment_of(bytes)), bytes); }
/// Null where there is not that much.
TERN_INLINE std::byte* try_allocate(std::size_t bytes) {
  return on_large_pages(::operator new(bytes, alignment_of(bytes), std::nothrow), bytes);
}
/// bytes: as in the allocation.
TERN_INLINE void deallocate(void* memory, std::size_t bytes) {
  if (memory != nullptr) ::operator delete(memory, alignment_of(bytes));
}

}  // namespace TERN_ABI
}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file core/large_pages.hpp
/// Memory that the library owns. Pieces as large as a large page of the processor's lie in such pages where the system grants them: what is
/// read in many rows far apart would spend its time on finding pages.

#include <tern/core/config.hpp>

#include <new>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace tern::detail {

inline constexpr std::size_t large_page_bytes = 0x200000;

TERN_INLINE std::align_val_t page_alignment(std::size_t bytes) {
  return std::align_val_t{bytes >= large_page_bytes ? large_page_bytes : 64};
}
/// A wish: a system that refuses it changes nothing.
TERN_INLINE void* in_large_pages(void* memory, std::size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (memory != nullptr && bytes >= large_page_bytes) static_cast<void>(::madvise(memory, bytes, MADV_HUGEPAGE));
#endif
  return memory;
}

/// `bytes` aligned to 64, not initialized, for `free_pages` with the same number; fails as operator new does.
TERN_INLINE void* allocate_pages(std::size_t bytes) { return in_large_pages(::operator new(bytes, page_alignment(bytes)), bytes); }
/// The same, or nullptr.
TERN_INLINE void* allocate_pages(std::size_t bytes, std::nothrow_t const& none) {
  return in_large_pages(::operator new(bytes, page_alignment(bytes), none), bytes);
}
TERN_INLINE void free_pages(void* memory, std::size_t bytes) { ::operator delete(memory, page_alignment(bytes)); }

}  // namespace tern::detail

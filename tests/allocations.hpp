// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/allocations.hpp
/// Replaces the global operator new by one that counts. For one file of a binary: the replacement serves all of it.

#include <tern/core/config.hpp>

#include <cstddef>
#include <cstdlib>
#include <new>

namespace tern::test {

inline index allocation_count = 0;
/// How many allocations there were so far, of all threads.
inline index allocations() { return __atomic_load_n(&allocation_count, __ATOMIC_RELAXED); }
inline void* counted_allocation(std::size_t bytes, std::size_t alignment) {
  __atomic_fetch_add(&allocation_count, index{1}, __ATOMIC_RELAXED);
  void* const p = std::aligned_alloc(alignment, (bytes + alignment) / alignment * alignment);
  return p != nullptr ? p : throw std::bad_alloc();
}

}  // namespace tern::test

void* operator new(std::size_t bytes) { return tern::test::counted_allocation(bytes, 16); }
void* operator new(std::size_t bytes, std::nothrow_t const&) noexcept { return tern::test::counted_allocation(bytes, 16); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return tern::test::counted_allocation(bytes, static_cast<std::size_t>(alignment));
}
// As the standard has it, but not sanitizers.
void* operator new(std::size_t bytes, std::align_val_t alignment, std::nothrow_t const&) noexcept {
  try {
    return ::operator new(bytes, alignment);
  } catch (std::bad_alloc const&) {
    return nullptr;
  }
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

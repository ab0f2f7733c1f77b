// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/simd/lanes.hpp
/// Packs as arrays of lanes, and memory whose end faults.

#include "compare.hpp"

#include <tern/simd/bytes.hpp>
#include <tern/simd/pack.hpp>

#include <array>
#include <cstdint>
#include <cstring>
#include <limits>

#include <sys/mman.h>
#include <unistd.h>

namespace tern::test {

template <class T>
using lane_array = std::array<T, static_cast<std::size_t>(simd::pack<T>::size)>;

template <class T>
lane_array<T> lanes_of(simd::pack<T> x) {
  lane_array<T> a;
  simd::store(a.data(), x);
  return a;
}
template <class T>
simd::pack<T> pack_of(lane_array<T> const& a) {
  if constexpr (std::is_same_v<T, bf16>)
    return simd::load_narrow(a.data());
  else
    return simd::load(a.data());
}
/// Lane i is f(i).
template <class T, class F>
simd::pack<T> make_pack(F f) {
  lane_array<T> a;
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<T>(f(static_cast<index>(i)));
  return pack_of<T>(a);
}

/// n elements that end where a page ends; the page behind it, and the page before the first, fault when they are touched.
template <class T>
class at_page_end {
 public:
  explicit at_page_end(index n) {
    auto const page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    size_ = 3 * page;
    base_ = static_cast<char*>(mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(base_, page, PROT_NONE);
    mprotect(base_ + 2 * page, page, PROT_NONE);
    first_of_page_ = reinterpret_cast<T*>(base_ + page);
    data_ = reinterpret_cast<T*>(base_ + 2 * page - static_cast<std::size_t>(n) * sizeof(T));
  }
  at_page_end(at_page_end const&) = delete;
  at_page_end& operator=(at_page_end const&) = delete;
  ~at_page_end() { munmap(base_, size_); }
  /// The n elements before the page that faults.
  T* data() { return data_; }
  /// The first element of the page: what lies before it faults.
  T* begin_of_page() { return first_of_page_; }

 private:
  std::size_t size_;
  char* base_;
  T* first_of_page_;
  T* data_;
};

}  // namespace tern::test

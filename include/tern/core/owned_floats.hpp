// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file core/owned_floats.hpp
/// Floats that a plan or a prepared filter keeps, aligned as a register wants them.

#include <tern/core/large_pages.hpp>

namespace tern::detail {

/// Memory for `size` floats, not initialized.
class owned_floats {
 public:
  TERN_INLINE owned_floats() = default;
  TERN_INLINE explicit owned_floats(index size)
      : data_(size > 0 ? static_cast<float*>(allocate_pages(bytes_of(size))) : nullptr), size_(size) {}
  TERN_INLINE owned_floats(owned_floats&& other) noexcept : data_(other.data_), size_(other.size_) {
    other.data_ = nullptr;
    other.size_ = 0;
  }
  TERN_INLINE owned_floats& operator=(owned_floats&& other) noexcept {
    float* const data = data_;
    index const size = size_;
    data_ = other.data_;
    size_ = other.size_;
    other.data_ = data;
    other.size_ = size;
    return *this;
  }
  TERN_INLINE ~owned_floats() {
    if (data_ != nullptr) free_pages(data_, bytes_of(size_));
  }
  TERN_INLINE float* data() { return data_; }
  TERN_INLINE float const* data() const { return data_; }
  TERN_INLINE index size() const { return size_; }

 private:
  TERN_INLINE static std::size_t bytes_of(index size) { return static_cast<std::size_t>(size) * sizeof(float); }

  float* data_ = nullptr;
  index size_ = 0;
};

}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/block_array.hpp
/// A matrix whose rows are made of blocks, and the memory that it lies in: what quantization returns.

#include <tern/formats/block_matrix.hpp>

namespace tern {

/// A block_matrix (rows, columns) that owns its bytes, which are zero at first. Moves, and does not copy.
class block_array {
 public:
  TERN_INLINE block_array() = default;
  /// Fails as block_matrix does.
  TERN_INLINE block_array(weight_type type, index rows, index columns)
      : view_(nullptr, type, rows, columns), bytes_(new std::uint8_t[static_cast<std::size_t>(size())]()) {
    view_.data = bytes_;
  }
  TERN_INLINE block_array(block_array&& other) noexcept : view_(other.view_), bytes_(other.bytes_) { other.forget(); }
  TERN_INLINE block_array& operator=(block_array&& other) noexcept {
    if (this == &other) return *this;
    delete[] bytes_;
    view_ = other.view_;
    bytes_ = other.bytes_;
    other.forget();
    return *this;
  }
  TERN_INLINE ~block_array() { delete[] bytes_; }

  /// What kernels take, valid as long as this array.
  TERN_INLINE block_matrix const& view() const { return view_; }
  TERN_INLINE operator block_matrix const&() const { return view_; }
  /// Where row i starts.
  TERN_INLINE std::uint8_t* row(index i) { return bytes_ + i * view_.row_bytes; }
  /// How many bytes it holds.
  TERN_INLINE index size() const { return view_.rows * view_.row_bytes; }

 private:
  TERN_INLINE void forget() {
    view_ = {};
    bytes_ = nullptr;
  }
  block_matrix view_;
  std::uint8_t* bytes_ = nullptr;
};

}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file quantize/problem.hpp
/// What all algorithms that make quantized weights share: weights as dense floats, checked; progress; and the formats that they can write.
///
///     w       (n, k), f32, f16 or bf16, any strides, finite
///     type    a block format with an encoder; k is a multiple of its block
///
/// These algorithms run off line: they allocate, and use the standard library.

#include <tern/core/parallel_for.hpp>
#include <tern/core/rounding.hpp>
#include <tern/formats/block_array.hpp>
#include <tern/formats/block_formats.hpp>

#include <functional>
#include <mutex>
#include <vector>

namespace tern {

/// Called as work goes on, from any thread, one call at a time: rows (or steps) done, and how many there are in all.
using progress_callback = std::function<void(index done, index total)>;

namespace detail {
inline namespace TERN_ABI {

/// Formats whose codes can be chosen one by one.
template <class Format>
concept encodable_format = requires(typename Format::block& b, float const* x, std::uint8_t const* code) {
  b = Format::encode(x);
  Format::put(b, code);
  Format::codes;
};

/// Calls f(format) for a type that can be encoded, and fails for the rest.
template <class F>
void with_encodable_format(char const* op, weight_type type, F&& f) {
  bool called = false;
  with_block_format(type, [&]<class Format>(Format format) {
    if constexpr (encodable_format<Format>) {
      f(format);
      called = true;
    }
  });
  expect(called, op, "type", static_cast<index>(type), "a block format with an encoder");
}

/// Whether no element is NaN or infinite.
inline bool all_finite(float const* x, index n) {
  bool finite = true;
  for (index i = 0; i < n; ++i) finite &= x[i] - x[i] == 0.f;
  return finite;
}

/// A matrix as contiguous rows.
struct dense_matrix {
  index rows = 0, columns = 0;
  std::vector<float> elements;

  dense_matrix() = default;
  dense_matrix(index r, index c) : rows(r), columns(c), elements(static_cast<std::size_t>(r * c)) {}
  float* row(index i) { return elements.data() + i * columns; }
  float const* row(index i) const { return elements.data() + i * columns; }
  tensor_view<float, 2> view() { return {elements.data(), {rows, columns}}; }
  tensor_view<float const, 2> view() const { return {elements.data(), {rows, columns}}; }
};

template <class T>
dense_matrix dense(tensor_view<T, 2> const& v) {
  dense_matrix m(v.extent(0), v.extent(1));
  for (index i = 0; i < m.rows; ++i)
    for (index j = 0; j < m.columns; ++j) m.row(i)[j] = static_cast<float>(v(i, j));
  return m;
}
/// Weights (n, k), which fit the format and are finite.
template <class W>
dense_matrix dense_weights(char const* op, W const& w, weight_type type) {
  auto const v = tern::view(w);
  static_assert(decltype(v)::rank == 2, "tern: weights are (n, k): pass a view of rank 2");
  index const block = info(type).elements;
  expect(block > 1, op, "type", static_cast<index>(type), "a block format");
  expect(v.extent(1) % block == 0, op, "w.extent(1)", v.extent(1),
         block == 32 ? "a multiple of the format's 32" : "a multiple of the format's 256");
  expect(v.data() != nullptr || v.size() == 0, op, "w.data()", 0, "not null");
  dense_matrix m = dense(v);
  for (index i = 0; i < m.rows; ++i)
    expect(all_finite(m.row(i), m.columns), op, "w: a row that holds NaN or infinity", i, "finite weights");
  return m;
}

/// Counts what is done, for a callback that need not be there.
class progress_counter {
 public:
  progress_counter(progress_callback const& call, index total) : call_(call), total_(total) {}
  void step(index n = 1) {
    if (!call_) return;
    std::lock_guard const lock(mutex_);
    call_(done_ += n, total_);
  }

 private:
  progress_callback const& call_;
  std::mutex mutex_;
  index done_ = 0, total_;
};

}  // namespace TERN_ABI
}  // namespace detail
}  // namespace tern

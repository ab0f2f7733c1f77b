// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file core/overlap.hpp
/// Whether two views share elements: what a call asks that may not write what it reads.

#include <tern/core/tensor_view.hpp>

#include <cstdint>

namespace tern::detail {
inline namespace TERN_ABI {

/// Where the elements of a view lie, in bytes.
struct memory_place {
  static constexpr int most = 8;
  std::uintptr_t first = 0;  // of the element that comes first in memory
  index element = 0;
  int rank = 0;
  index extent[most] = {}, stride[most] = {};  // of the dimensions that have more than one element; strides from 0 on
  bool empty = true;

  inline memory_place(void const* data, index bytes, int dimensions, index const* extents, index const* strides)
      : first(reinterpret_cast<std::uintptr_t>(data)), element(bytes), empty(data == nullptr) {
    for (int d = 0; d < dimensions; ++d) {
      index const step = strides[d] * bytes;
      empty = empty || extents[d] == 0;
      if (extents[d] <= 1) continue;
      if (step < 0) first -= static_cast<std::uintptr_t>(-step) * static_cast<std::uintptr_t>(extents[d] - 1);
      extent[rank] = extents[d];
      stride[rank++] = step < 0 ? -step : step;
    }
  }
  TERN_INLINE bool operator==(memory_place const&) const = default;
  /// Bytes from the first to behind the last, of the dimensions whose strides are not multiples of `period` (0: of all).
  TERN_INLINE index span(index period) const {
    index bytes = element;
    for (int d = 0; d < rank; ++d)
      if (period == 0 || stride[d] % period != 0) bytes += (extent[d] - 1) * stride[d];
    return bytes;
  }
};
template <class T, int Rank>
inline memory_place place_of(tensor_view<T, Rank> const& v) {
  static_assert(Rank <= memory_place::most);
  index extents[Rank], strides[Rank];
  for (int d = 0; d < Rank; ++d) {
    extents[d] = v.extent(d);
    strides[d] = v.stride(d);
  }
  return {v.data(), sizeof(T), Rank, extents, strides};
}

/// Whether the elements of both lie apart in each stretch of `period` bytes.
inline bool apart_within(index period, memory_place const& a, memory_place const& b) {
  index const size = a.span(period), other = b.span(period);
  auto const from = static_cast<index>((b.first > a.first ? b.first - a.first : a.first - b.first) % static_cast<std::uintptr_t>(period));
  index const begin = b.first > a.first || from == 0 ? from : period - from;  // of b behind a
  return size <= begin && begin + other <= period;
}
/// Whether two views may share elements. Parts of one tensor do not, be they side by side or by turns; of views whose strides have nothing
/// in common it is their ranges of memory that count. Without memory there is nothing to share.
inline bool overlap(memory_place const& a, memory_place const& b) {
  if (a.empty || b.empty) return false;
  if (a.first + static_cast<std::uintptr_t>(a.span(0)) <= b.first || b.first + static_cast<std::uintptr_t>(b.span(0)) <= a.first)
    return false;
  for (int d = 0; d < a.rank; ++d)
    if (a.stride[d] > 0 && apart_within(a.stride[d], a, b)) return false;
  for (int d = 0; d < b.rank; ++d)
    if (b.stride[d] > 0 && apart_within(b.stride[d], a, b)) return false;
  return true;
}
template <class T, class U, int A, int B>
inline bool overlap(tensor_view<T, A> const& a, tensor_view<U, B> const& b) {
  return overlap(place_of(a), place_of(b));
}
/// Fails if one of two views that are written shares elements with one of two that are read.
template <class W, int WA, int WB, class R, int RA, int RB>
TERN_INLINE void expect_apart(char const* op, char const* written, char const* read, tensor_view<W, WA> const& to,
                              tensor_view<W, WB> const& and_to, tensor_view<R, RA> const& from, tensor_view<R, RB> const& and_from) {
  if (overlap(to, from) || overlap(to, and_from) || overlap(and_to, from) || overlap(and_to, and_from)) [[unlikely]]
    (message() << op << ": " << written << " overlaps " << read << ", expected memory of its own").fail();
}

}  // namespace TERN_ABI
}  // namespace tern::detail

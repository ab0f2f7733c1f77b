// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/dense_mask.hpp
/// A mask that lies in memory: query i sees key j where the element is not zero.
///
///     dense_mask(m)    m bool or uint8, (tokens, keys), (heads, tokens, keys) or (batch, heads, tokens, keys), any strides; a stride
///                      of 0 shares it
///
/// A key that is hidden may hold NaN, as with any mask; for a mask of floats that are added to scores see additive_mask.hpp.
/// Errors    extents that differ from q's and k's.
/// Cost      each tile's elements are read eight at a time, where keys are contiguous, to find tiles that are all hidden, which are
///           not computed, or all visible.

#include <tern/attention/mask.hpp>
#include <tern/attention/score.hpp>
#include <tern/core/tensor_view.hpp>

namespace tern {
namespace detail {

/// A mask of bytes with its rows.
struct byte_mask {
  unsigned char const* data;
  index row_stride, key_stride, keys;

  TERN_INLINE key_range range(index, index) const { return {0, keys}; }
  TERN_INLINE bool visible(index i, index j) const { return data[i * row_stride + j * key_stride] != 0; }
  TERN_INLINE coverage covers(index i0, index i1, index j0, index j1) const {
    bool one = false, zero = false;
    for (index i = i0; i < i1 && !(one && zero); ++i) look(data + i * row_stride, j0, j1, one, zero);
    return one && zero ? coverage::some : one ? coverage::all : coverage::none;
  }

 private:
  TERN_INLINE void look(unsigned char const* row, index j, index j1, bool& one, bool& zero) const {
    constexpr std::uint64_t low = 0x0101010101010101u, high = 0x8080808080808080u;
    if (key_stride == 1)
      for (; j + 8 <= j1; j += 8) {
        std::uint64_t x;
        __builtin_memcpy(&x, row + j, 8);
        one = one || x != 0;
        zero = zero || ((x - low) & ~x & high) != 0;  // whether a byte is zero
      }
    for (; j < j1; ++j) (row[j * key_stride] != 0 ? one : zero) = true;
  }
};

}  // namespace detail

/// A mask in memory.
template <int Rank>
struct dense_mask {
  static_assert(Rank >= 2 && Rank <= 4, "tern: dense_mask takes (tokens, keys), (heads, tokens, keys) or (batch, heads, tokens, keys)");
  tensor_view<unsigned char const, Rank> view;

  template <tensor_like X>
  TERN_INLINE explicit dense_mask(X&& x) {
    auto const from = tern::view(x);
    shape<Rank> extents{}, strides{};
    for (int d = 0; d < Rank; ++d) {
      extents.extents[d] = from.extent(d);
      strides.extents[d] = from.stride(d);
    }
    view = {bytes(from.data()), extents, strides};
  }
  /// What a head sees.
  TERN_INLINE detail::byte_mask at(index batch, index head) const
    requires(Rank > 2)
  {
    if constexpr (Rank == 4)
      return of(view[batch][head]);
    else
      return of(view[head]);
  }
  TERN_INLINE detail::byte_mask at(index) const
    requires(Rank == 2)
  {
    return of(view);
  }
  TERN_INLINE void check(attention_shape const& n) const {
    index const extents[] = {n.batch, n.heads, n.tokens, n.keys};
    for (int d = 0; d < Rank; ++d)
      detail::expect_equal("attention", "an extent of dense_mask", view.extent(d), "that of the scores", extents[4 - Rank + d]);
  }

 private:
  TERN_INLINE static unsigned char const* bytes(bool const* x) { return reinterpret_cast<unsigned char const*>(x); }
  TERN_INLINE static unsigned char const* bytes(unsigned char const* x) { return x; }
  TERN_INLINE static detail::byte_mask of(tensor_view<unsigned char const, 2> const& x) {
    return {x.data(), x.stride(0), x.stride(1), x.extent(1)};
  }
};
template <tensor_like X>
dense_mask(X&&) -> dense_mask<view_of<X>::rank>;

}  // namespace tern

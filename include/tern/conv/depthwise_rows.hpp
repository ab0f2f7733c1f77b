// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/depthwise_rows.hpp
/// Rows of a tensor with any strides and elements, to and from registers whose lanes are channels. Where neighbors in memory are
/// channels they are moved as they are, where they are columns they are transposed, otherwise one by one.

#include <tern/core/rounding.hpp>
#include <tern/simd/convert.hpp>
#include <tern/simd/shuffle.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// `columns` positions of up to `lanes` channels; distances in elements.
struct channel_row {
  index channel, column;
  index channels, columns;
};

/// Reads a row to `to` (columns, lanes), with zeros in lanes past the channels; column c goes to place[c], or to c if there is none.
using load_row_function = void (*)(void const* from, channel_row const& row, float* to, index const* place);
/// The same for channels of several registers that lie side by side, each with a row of its own.
using load_members_function = void (*)(void const* from, channel_row const& row, float* to, index member, index const* place);
/// Writes a row from `from` (columns rounded up to lanes, lanes).
using store_row_function = void (*)(void* to, channel_row const& row, float const* from);

TERN_INLINE float* placed(float* to, index const* place, index column) {
  return to + (place != nullptr ? place[column] : column) * simd::lanes;
}

/// `n` columns of whole registers of channels, or of a part of one.
template <class T, bool whole>
TERN_INLINE void load_tile(T const* from, channel_row const& row, index n, float* to, index const* place) {
  using simd::lanes;
  simd::pack<float> tile[lanes];
  TERN_UNROLL
  for (index l = 0; l < lanes; ++l) {
    if (whole || l < row.channels)
      tile[l] = whole && n == lanes ? simd::load(from + l * row.channel) : simd::load_n(from + l * row.channel, n);
    else
      tile[l] = simd::pack<float>(0.f);
  }
  simd::transpose(tile);
  TERN_UNROLL
  for (index i = 0; i < lanes; ++i)
    if (i < n) simd::store(placed(to, place, i), tile[i]);
}

/// Whether columns of floats are moved by four: the last four of a row may have been there before.
TERN_INLINE bool goes_by_four(channel_row const& row) { return simd::has_quarters && row.channels == simd::lanes && row.columns >= 4; }
inline void load_by_four(float const* from, channel_row const& row, float* to, index const* place) noexcept {
  for (index c = 0; c < row.columns; c += 4) {
    index const at = least(c, row.columns - 4);
    simd::pack<float> x[4];
    simd::load_columns(from + at, row.channel, x);
    TERN_UNROLL
    for (index i = 0; i < 4; ++i) simd::store(placed(to, place, at + i), x[i]);
  }
}
/// Columns from `begin` on.
inline void store_by_four(float* to, channel_row const& row, float const* from, index begin) noexcept {
  for (index c = begin; c < row.columns; c += 4) {
    index const at = least(c, row.columns - 4);
    simd::pack<float> x[4];
    TERN_UNROLL
    for (index i = 0; i < 4; ++i) x[i] = simd::load(from + (at + i) * simd::lanes);
    simd::store_columns(x, to + at, row.channel);
  }
}

template <class T>
inline void load_transposed(T const* from, channel_row const& row, float* to, index const* place) noexcept {
  using simd::lanes;
  if constexpr (std::is_same_v<T, float>)
    if (goes_by_four(row)) return load_by_four(from, row, to, place);
  for (index c = 0; c < row.columns; c += lanes) {
    index const n = least(lanes, row.columns - c);
    index const* const at = place != nullptr ? place + c : nullptr;
    float* const first = place != nullptr ? to : to + c * lanes;
    if (row.channels == lanes)
      load_tile<T, true>(from + c, row, n, first, at);
    else
      load_tile<T, false>(from + c, row, n, first, at);
  }
}

template <class T>
inline void load_row(void const* memory, channel_row const& row, float* to, index const* place) noexcept {
  using simd::lanes;
  T const* const from = static_cast<T const*>(memory);
  if (row.channel == 1 && row.channels == lanes) {
    for (index c = 0; c < row.columns; ++c) simd::store(placed(to, place, c), simd::load(from + c * row.column));
  } else if (row.channel == 1) {
    for (index c = 0; c < row.columns; ++c) simd::store(placed(to, place, c), simd::load_n(from + c * row.column, row.channels));
  } else if (row.column == 1) {
    load_transposed(from, row, to, place);
  } else {
    for (index c = 0; c < row.columns; ++c)
      for (index l = 0; l < lanes; ++l)
        placed(to, place, c)[l] = l < row.channels ? static_cast<float>(from[c * row.column + l * row.channel]) : 0.f;
  }
}

/// Rows of several registers of channels that lie side by side, in the order of their memory: member g goes to `to` + g `member` floats.
template <class T>
inline void load_members(void const* memory, channel_row const& row, float* to, index member, index const* place) noexcept {
  using simd::lanes;
  T const* const from = static_cast<T const*>(memory);
  for (index c = 0; c < row.columns; ++c) {
    float* out = placed(to, place, c);
    T const* const at = from + c * row.column;
    index l = 0;
    for (; l + lanes <= row.channels; l += lanes, out += member) simd::store(out, simd::load(at + l));
    if (l < row.channels) simd::store(out, simd::load_n(at + l, row.channels - l));
  }
}

template <class T>
inline void store_transposed(T* to, channel_row const& row, float const* from) noexcept {
  using simd::lanes;
  for (index c = 0; c < row.columns; c += lanes) {
    index const n = least(lanes, row.columns - c);
    if constexpr (std::is_same_v<T, float>)  // whole lines are stored sooner than their quarters are
      if (n < lanes && goes_by_four(row)) return store_by_four(to, row, from, c);
    simd::pack<float> tile[lanes];
    TERN_UNROLL
    for (index i = 0; i < lanes; ++i) tile[i] = simd::load(from + (c + i) * lanes);
    simd::transpose(tile);
    TERN_UNROLL
    for (index l = 0; l < lanes; ++l) {
      if (l >= row.channels) break;
      if (n == lanes)
        simd::store(to + l * row.channel + c, tile[l]);
      else
        simd::store_n(to + l * row.channel + c, tile[l], n);
    }
  }
}

template <class T>
inline void store_row(void* memory, channel_row const& row, float const* from) noexcept {
  using simd::lanes;
  T* const to = static_cast<T*>(memory);
  if (row.channel == 1 && row.channels == lanes) {
    for (index c = 0; c < row.columns; ++c) simd::store(to + c * row.column, simd::load(from + c * lanes));
  } else if (row.channel == 1) {
    for (index c = 0; c < row.columns; ++c) simd::store_n(to + c * row.column, simd::load(from + c * lanes), row.channels);
  } else if (row.column == 1) {
    store_transposed(to, row, from);
  } else {
    for (index c = 0; c < row.columns; ++c)
      for (index l = 0; l < row.channels; ++l) to[c * row.column + l * row.channel] = static_cast<T>(from[c * lanes + l]);
  }
}

}  // namespace TERN_ABI
}  // namespace tern::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file attention/stream_fetch.hpp
/// What the loops for few queries ask memory for before they read it: the rows or tiles of the next block, and the next rows once more.

#include <tern/attention/rows.hpp>
#include <tern/simd/core.hpp>

namespace tern::detail {
inline namespace TERN_ABI {

/// Rows (or tiles) that are asked for while others are worked on, so that memory is never idle: the values of this block during the
/// products with its keys, the keys of the next one during the sum of the values. They go to the second-level cache, which holds
/// a block of each. Requests are spread evenly over the work: a core has few of them under way at a time, and what it needs at
/// once, from the second-level cache, would have to wait behind a burst of them.
struct fetch_ahead {
  void const* const* row;  // (count)
  index count;
  index bytes;  // of a row

  /// Row i, or `otherwise` behind the last: what the caller works on costs nothing to ask for again, and null is not asked for.
  TERN_INLINE char const* at(index i, void const* otherwise) const { return static_cast<char const*>(i < count ? row[i] : otherwise); }
};
TERN_INLINE void fetch_line(char const* at) { __builtin_prefetch(at, 0, 2); }
/// To the first-level cache, what is soon worked on.
TERN_INLINE void fetch_near(char const* at) { __builtin_prefetch(at, 0, 3); }

/// Walks through the rows ahead, two side by side and a line of each at a time: what asks for the lines one after the other meets those
/// that the hardware's own prefetchers have under way, and waits with them. Measured on a Xeon with AMX, one thread over 16k keys, with
/// the bandwidth that a plain read has in turns: f16 0.74 of it line by line and each twice, 0.79 so; f32 0.86 and 0.89.
/// Apart, the second of the two is from the other half of the rows, and half a page of 4 KiB on: those prefetchers stop behind a page, and
/// so in one of two at a time. 16 bits: 3 to 7 percent faster than neighbors; f32, which waits for memory alone: 2 to 4 slower. Zen 4: f32
/// 5 percent faster, but for one row of q; f16, which waits for arithmetic with four rows: 4 slower over 16k keys, 1 over 64k, even with
/// two. There is no branch: gcc would keep vectors in memory across it. Behind the last rows their lines are asked for again; an odd one is
/// left to who reads it.
template <bool apart>
class fetch_cursor {
 public:
  TERN_INLINE explicit fetch_cursor(fetch_ahead const& ahead) {
    static constexpr char line[64] = {};
    static constexpr void const* nothing[2] = {line, line};
    bool const any = ahead.count > 1;
    index const half = any ? ahead.count / 2 : 1;
    first_ = any ? ahead.row : nothing;
    bytes_ = any ? ahead.bytes : 64;
    middle_ = first_ + half;
    end_ = middle_ + half;
    index const on = bytes_ > 0 ? 2048 / bytes_ : 0;
    second_ = apart ? middle_ + (on < half ? on : 0) : first_ + 1;
  }
  /// Asks for as much as the caller reads in its i-th turn, `bytes` of its own.
  template <index bytes>
  TERN_INLINE void turn(index i) {
    if constexpr (bytes < 128)
      if (i % (128 / bytes) != 0) return;
    TERN_UNROLL
    for (index n = 0; n < (bytes + 127) / 128; ++n) {
      fetch_line(static_cast<char const*>(*first_) + done_);
      fetch_line(static_cast<char const*>(*second_) + done_);
      done_ += 64;
      bool const ends = done_ >= bytes_;
      done_ = ends ? 0 : done_;
      index const next = ends && first_ + (apart ? 1 : 2) < (apart ? middle_ : end_) ? (apart ? 1 : 2) : 0;
      first_ += next;
      second_ += next;
      if (apart) second_ = second_ == end_ ? middle_ : second_;
    }
  }

 private:
  void const *const *first_, *const *second_;  // of two rows
  void const *const *middle_, *const *end_;    // of the rows
  index bytes_;
  index done_ = 0;  // bytes of the two
};
/// Whether a kernel for R rows over elements of type T takes rows that are apart.
template <int R, class T>
inline constexpr bool fetches_apart =
    simd::on_sapphire_rapids ? !std::is_same_v<T, float> : !(std::is_same_v<T, float> && R == 1) && !(std::is_same_v<T, f16> && R > 2);

/// So many rows before they are worked on, some KiB, rows are asked for once more, by the first-level cache: a core drops requests that
/// find its buffers full. Measured on Zen 4, one thread over 16k keys, with the bandwidth that a plain read has in turns: four rows of q,
/// f32 0.81, and 0.76 with 12 rows; f16 0.64, and 0.62 with 4; bf16 products 0.83 and 0.79; one row, f16 0.78 and 0.66.
template <int R, class T>
inline constexpr index fetch_rows = std::is_same_v<T, float> && R > 1 ? 8 : 12;
/// Asks for the line that starts at element d of a row, if one does.
template <class T>
TERN_INLINE void fetch_again(T const* row, index d) {
  if constexpr (float_storage<T>)
    if (d * static_cast<index>(sizeof(T)) % 64 == 0) fetch_near(reinterpret_cast<char const*>(row + d));
}

}  // namespace TERN_ABI
}  // namespace tern::detail

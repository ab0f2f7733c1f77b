// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file fft/tower_ahead.hpp
/// What a transform (fft/tower_run.hpp) asks the second-level cache for before it is used.

#include <tern/core/rounding.hpp>

#include <cstdint>

namespace tern::detail {
inline namespace TERN_ABI {

/// Floats that are read, or written, when a transform is done.
struct tower_row {
  float const* data = nullptr;
  index n = 0;
  TERN_INLINE index lines() const { return divide_up(n, 16); }
};
inline constexpr int most_tower_rows = 4;

/// Asks for lines of 64 bytes from `at` on, and says where they end; beyond the end of memory that does no harm.
template <int Lines>
TERN_INLINE std::uintptr_t fetch_lines(std::uintptr_t at) {
  TERN_UNROLL
  for (int i = 0; i < Lines; ++i) __builtin_prefetch(reinterpret_cast<void const*>(at + static_cast<std::uintptr_t>(64 * i)), 0, 2);
  return at + std::uintptr_t{64} * Lines;
}

/// A spectrum that a transform reads from its beginning to its end, in few of its many steps: all of them ask for what comes next, so that
/// it arrives evenly while registers are busy. At most `window` bytes lie between what is read and what is asked for.
///
/// Rows that are used when the transform is done are asked for one after the other: tile by tile or, Spread, in every step that works in
/// the first-level cache, as more lines than a core fetches at a time would have it wait at a tile. Steps of wider nodes wait for memory
/// themselves.
template <bool Spread>
class tower_ahead {
 public:
  /// `later` outlives this; `steps`: how many will ask for it.
  TERN_INLINE tower_ahead(float const* first, index window, tower_row const (&later)[most_tower_rows], index steps)
      : window_(static_cast<std::uintptr_t>(window)), later_(later) {
    reach(first);
    index lines = 0;
    for (tower_row const& r : later) lines += r.lines();
    step_ = rate_ = divide_up(lines * one_line, steps);
    next_row();
  }
  /// What begins at p is read now.
  TERN_INLINE void reach(float const* p) {
    auto const now = reinterpret_cast<std::uintptr_t>(p);
    limit_ = now + window_;
    if (at_ < now) at_ = now;
  }
  /// Whether the steps that follow work in the first-level cache.
  TERN_INLINE void work_near(bool near) {
    if constexpr (Spread) step_ = near ? rate_ : 0;
  }
  /// A step: asks for the next lines.
  template <int Lines>
  TERN_INLINE void ask() {
    if (at_ < limit_) at_ = fetch_lines<Lines>(at_);
    if constexpr (Spread) ask_later();
  }
  TERN_INLINE void ask_at_tile() {
    if constexpr (!Spread) ask_later();
  }

 private:
  static constexpr int burst = 4;
  static constexpr index one_line = 0x10000;  // of what is due

  TERN_INLINE void ask_later() {
    for (due_ += step_; due_ >= burst * one_line; due_ -= burst * one_line) {
      from_ = fetch_lines<burst>(from_);
      left_ -= burst;
      if (left_ <= 0) next_row();
    }
  }
  /// Behind the last row nothing is due.
  TERN_INLINE void next_row() {
    for (; left_ <= 0 && row_ < most_tower_rows; ++row_) {
      from_ = reinterpret_cast<std::uintptr_t>(later_[row_].data);
      left_ = later_[row_].lines();
    }
    if (left_ <= 0) due_ = step_ = rate_ = 0;
  }
  std::uintptr_t window_, at_ = 0, limit_ = 0, from_ = 0;
  tower_row const* later_;
  int row_ = 0;
  index rate_ = 0, step_ = 0, due_ = 0, left_ = 0;
};
/// The same with less to do in a step, for processors without matrix registers: rows are asked for in all steps from the first on, four
/// lines at a time, whatever their number.
class tower_ahead_at_once {
 public:
  TERN_INLINE tower_ahead_at_once(float const* first, index window, tower_row const (&later)[most_tower_rows])
      : window_(static_cast<std::uintptr_t>(window)), later_(later) {
    reach(first);
  }
  TERN_INLINE void reach(float const* p) {
    auto const now = reinterpret_cast<std::uintptr_t>(p);
    limit_ = now + window_;
    if (at_ < now) at_ = now;
    if (from_ < end_ || row_ == most_tower_rows) return;
    from_ = reinterpret_cast<std::uintptr_t>(later_[row_].data);
    end_ = from_ + static_cast<std::uintptr_t>(later_[row_++].n) * sizeof(float);
  }
  TERN_INLINE void work_near(bool) {}
  template <int Lines>
  TERN_INLINE void ask() {
    if (at_ < limit_) at_ = fetch_lines<Lines>(at_);
    if (from_ < end_) from_ = fetch_lines<4>(from_);
  }
  TERN_INLINE void ask_at_tile() {}

 private:
  std::uintptr_t window_, at_ = 0, limit_ = 0, from_ = 0, end_ = 0;
  tower_row const* later_;
  int row_ = 0;
};
/// For spectra that are near.
struct no_rows_ahead {
  TERN_INLINE void reach(float const*) {}
  TERN_INLINE void work_near(bool) {}
  template <int Lines>
  TERN_INLINE void ask() {}
  TERN_INLINE void ask_at_tile() {}
};

}  // namespace TERN_ABI
}  // namespace tern::detail

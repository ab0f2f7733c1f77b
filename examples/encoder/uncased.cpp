// SPDX-License-Identifier: Apache-2.0
#include "uncased.hpp"

#include "uncased_classes.hpp"
#include "uncased_folds.hpp"

#include <algorithm>
#include <iterator>

namespace encoder::uncased {

namespace {

/// The last entry of a sorted table that starts at or before c, or nullptr.
template <class Entry, std::size_t N>
Entry const* entry_before(Entry const (&table)[N], std::uint32_t Entry::*start, std::uint32_t c) {
  auto const* const after =
      std::upper_bound(std::begin(table), std::end(table), c, [&](std::uint32_t v, Entry const& e) { return v < e.*start; });
  return after == std::begin(table) ? nullptr : after - 1;
}

template <std::size_t N>
bool in_ranges(range const (&ranges)[N], std::uint32_t c) {
  range const* const r = entry_before(ranges, &range::first, c);
  return r != nullptr && c <= r->last;
}

/// A Hangul syllable as its letters: the Unicode standard, section 3.12.
folded letters_of_syllable(std::uint32_t syllable) {
  constexpr std::uint32_t vowels = 21, tails = 28;
  std::uint32_t const tail = syllable % tails, vowel = syllable / tails % vowels, lead = syllable / tails / vowels;
  return {{0x1100 + lead, 0x1161 + vowel, 0x11a7 + tail}, tail == 0 ? 2 : 3};
}

}  // namespace

bool is_space(std::uint32_t c) { return c == '\t' || c == '\n' || c == '\r' || in_ranges(spaces, c); }

bool is_ignored(std::uint32_t c) { return c == 0xfffd || (!is_space(c) && in_ranges(controls, c)); }

bool is_punctuation(std::uint32_t c) {
  bool const ascii = (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
  return ascii || in_ranges(punctuation, c);
}

bool is_ideograph(std::uint32_t c) {
  static constexpr range blocks[] = {{0x3400, 0x4dbf},   {0x4e00, 0x9fff},   {0xf900, 0xfaff},   {0x20000, 0x2a6df},
                                     {0x2a700, 0x2b73f}, {0x2b740, 0x2b81f}, {0x2b820, 0x2ceaf}, {0x2f800, 0x2fa1f}};
  return in_ranges(blocks, c);
}

folded fold(std::uint32_t c) {
  if (c >= 0xac00 && c < 0xd7a4) return letters_of_syllable(c - 0xac00);
  if (in_ranges(marks, c)) return {{}, 0};
  if (sequence const* const s = entry_before(long_folds, &sequence::from, c); s != nullptr && s->from == c)
    return {{s->first, s->second, s->third}, s->third == 0 ? 2 : 3};
  if (run const* const r = entry_before(folds, &run::first, c); r != nullptr) {
    std::uint32_t const i = (c - r->first) / r->step;
    if (i < r->count && i * r->step == c - r->first) return {{r->to + i * r->to_step}, 1};
  }
  return {{c}, 1};
}

}  // namespace encoder::uncased

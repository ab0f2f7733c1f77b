// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/encoder/uncased.hpp
/// What BERT's uncased models see of a text: no control characters, lower case, no accents, one kind of space.

#include <cstdint>

namespace encoder::uncased {

/// Neither read nor a boundary between words. Tab, line feed and carriage return are spaces.
bool is_ignored(std::uint32_t c);
bool is_space(std::uint32_t c);
/// Categories P, and all of ASCII's printable characters that are neither letters nor digits.
bool is_punctuation(std::uint32_t c);
/// The blocks of CJK ideographs, each of which is a word.
bool is_ideograph(std::uint32_t c);

/// What becomes of a character: its canonical decomposition without marks, in lower case.
struct folded {
  std::uint32_t parts[3];
  int count;
};
folded fold(std::uint32_t c);

}  // namespace encoder::uncased

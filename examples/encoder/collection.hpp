// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/encoder/collection.hpp
/// Texts to compare, cut from files.

#include "wordpiece.hpp"

#include <string>
#include <vector>

namespace encoder {

/// The sentences of files, whose names are given with a comma between: each ends at '.', '!' or '?' before white space, or at an empty
/// line. Each stands there once; those of fewer than four words are left out.
std::vector<std::string> sentences_of(std::string const& files);

/// The files cut into passages of `tokens` tokens, from front to end: what is left at the end of a file is left out.
std::vector<std::vector<wordpiece::token>> passages_of(std::string const& files, wordpiece const& words, std::size_t tokens);

}  // namespace encoder

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/encoder/wordpiece.hpp
/// WordPiece as BERT's uncased models use it (Devlin et al. 2019, arXiv:1810.04805), from a tokenizer.json: a text is folded
/// (uncased.hpp), split at spaces, around punctuation and around CJK ideographs, and each word is cut into the longest pieces of the
/// vocabulary from left to right; a word that has no such cut is [UNK]. [CLS] stands before a text, [SEP] behind it.
/// Folding knows characters of Unicode 14; other versions differ in rare scripts, whose words the vocabulary does not have.

#include "json.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace encoder {

class wordpiece {
 public:
  using token = std::int32_t;

  /// Fails for tokenizers other than BERT's uncased one. The vocabulary is copied.
  explicit wordpiece(json const& file);

  /// The tokens of a text, the first `most` at most, between [CLS] and [SEP]: most >= 2. Special tokens are recognized in the text.
  std::vector<token> encode(std::string_view text, std::size_t most) const;
  /// As they stand in the vocabulary: "##" marks a piece that goes on.
  std::string_view piece(token t) const { return pieces_[static_cast<std::size_t>(t)]; }
  token size() const { return static_cast<token>(pieces_.size()); }

 private:
  token id(std::string_view piece) const;
  void encode_plain(std::string_view text, std::vector<token>& out) const;
  void encode_word(std::string_view word, std::vector<token>& out) const;

  std::vector<std::string> pieces_;
  std::unordered_map<std::string_view, token> ids_;  // refers to pieces_
  std::vector<token> special_;
  std::size_t longest_word_ = 0;  // in code points
  token unknown_ = 0, begin_ = 0, end_ = 0;
};

}  // namespace encoder

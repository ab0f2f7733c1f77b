// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/llm/tokenizer.hpp
/// Byte-level BPE as GPT-2 and its followers use it, from the tables in a GGUF file. It lives in the example, not in the
/// library: tokenizers are no tensor kernels.

#include <tern/formats/gguf.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace llm {

class tokenizer {
 public:
  using token = std::int32_t;

  /// Fails for tokenizers other than byte-level BPE with GPT-2's way of splitting words.
  explicit tokenizer(tern::gguf_file const& file);

  /// The tokens of a text. With `special`, control tokens such as <|im_start|> are recognized in it.
  std::vector<token> encode(std::string_view text, bool special) const;
  /// The bytes that a token stands for: a part of UTF-8 text.
  std::string_view bytes(token t) const { return pieces_[static_cast<std::size_t>(t)]; }

  token size() const { return static_cast<token>(pieces_.size()); }
  /// Whether a model says with this token that it has finished.
  bool ends(token t) const;
  /// Whether the model was trained on dialogs in the form <|im_start|>role\ntext<|im_end|>.
  bool has_chat() const { return has_chat_; }
  /// The token that every text starts with, or -1.
  token begin() const { return begin_; }

 private:
  struct merge {
    std::int32_t rank;
    token result;
  };
  void encode_text(std::string_view text, std::vector<token>& out) const;
  void encode_word(std::string_view word, std::vector<token>& out) const;
  static std::uint64_t pair(token left, token right) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
  }

  std::vector<std::string> pieces_;                  // token -> bytes
  std::unordered_map<std::string_view, token> ids_;  // bytes -> token, of those that merging can give
  std::unordered_map<std::uint64_t, merge> merges_;  // two neighbors -> what they become
  std::vector<token> control_, user_defined_;        // tokens that are looked for in the text, longest first
  std::vector<token> ends_;
  token begin_ = -1;
  bool single_digits_ = false;
  bool has_chat_ = false;
};

}  // namespace llm

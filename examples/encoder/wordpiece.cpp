// SPDX-License-Identifier: Apache-2.0
#include "wordpiece.hpp"

#include "../common/utf8.hpp"
#include "uncased.hpp"

#include <tern/core/error.hpp>

#include <algorithm>
#include <optional>

namespace encoder {

namespace {

void expect(bool holds, std::string const& what) {
  if (!holds) throw tern::error("tokenizer: expected " + what);
}

constexpr long most_tokens = 1L << 24;

bool continues(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

}  // namespace

wordpiece::wordpiece(json const& file) {
  json const &model = file["model"], &normalizer = file["normalizer"];
  expect(model["type"].as_string() == "WordPiece", "a model of type WordPiece");
  expect(model["continuing_subword_prefix"].as_string() == "##", "## before pieces that go on");
  expect(normalizer["type"].as_string() == "BertNormalizer" && normalizer["lowercase"].as_bool() && normalizer["clean_text"].as_bool() &&
             normalizer["handle_chinese_chars"].as_bool(),
         "a BertNormalizer that cleans text, takes Chinese characters apart and gives lower case");
  expect(file["pre_tokenizer"]["type"].as_string() == "BertPreTokenizer", "a BertPreTokenizer");
  longest_word_ = static_cast<std::size_t>(model["max_input_chars_per_word"].as_integer(1, most_tokens));

  auto const& vocabulary = model["vocab"].as_object();
  pieces_.resize(vocabulary.size());
  for (auto const& [piece, number] : vocabulary) {
    std::string& at = pieces_[static_cast<std::size_t>(number.as_integer(0, static_cast<long>(vocabulary.size()) - 1))];
    expect(!piece.empty() && at.empty(), "a number of its own for each piece");
    at = piece;
  }
  for (std::size_t i = 0; i < pieces_.size(); ++i) ids_.emplace(pieces_[i], static_cast<token>(i));
  for (json const& added : file["added_tokens"].as_array()) special_.push_back(id(added["content"].as_string()));
  unknown_ = id(model["unk_token"].as_string());
  begin_ = id("[CLS]");
  end_ = id("[SEP]");
}

wordpiece::token wordpiece::id(std::string_view piece) const {
  auto const found = ids_.find(piece);
  expect(found != ids_.end(), std::string(piece) + " in the vocabulary");
  return found->second;
}

std::vector<wordpiece::token> wordpiece::encode(std::string_view text, std::size_t most) const {
  std::vector<token> out{begin_};
  std::size_t begin = 0;
  for (std::size_t at = 0; at < text.size();) {
    auto const found = std::find_if(special_.begin(), special_.end(), [&](token t) { return text.substr(at).starts_with(piece(t)); });
    if (found == special_.end()) {
      ++at;
      continue;
    }
    encode_plain(text.substr(begin, at - begin), out);
    out.push_back(*found);
    begin = at += piece(*found).size();
  }
  encode_plain(text.substr(begin), out);
  out.resize(std::min(out.size(), most - 1));
  out.push_back(end_);
  return out;
}

/// Splits text into words; special tokens are text here.
void wordpiece::encode_plain(std::string_view text, std::vector<token>& out) const {
  std::string word;
  auto const finish = [&] {
    if (!word.empty()) encode_word(word, out);
    word.clear();
  };
  while (!text.empty()) {
    std::uint32_t const c = common::next_code_point(text);
    if (uncased::is_ignored(c)) continue;
    bool const alone = uncased::is_ideograph(c);
    if (uncased::is_space(c) || alone) finish();
    if (uncased::is_space(c)) continue;
    auto const parts = uncased::fold(c);
    for (int i = 0; i < parts.count; ++i) {
      bool const mark = uncased::is_punctuation(parts.parts[i]);
      if (mark) finish();
      common::append_utf8(word, parts.parts[i]);
      if (mark) finish();
    }
    if (alone) finish();
  }
  finish();
}

/// The longest piece first, and again for what is left.
void wordpiece::encode_word(std::string_view word, std::vector<token>& out) const {
  auto const before = out.size();
  auto const length = word.size() - static_cast<std::size_t>(std::count_if(word.begin(), word.end(), continues));
  if (length > longest_word_) return out.push_back(unknown_);
  std::string piece;
  for (std::size_t begin = 0; begin < word.size();) {
    std::optional<token> found;
    std::size_t end = word.size();
    for (; end > begin; --end) {
      if (end < word.size() && continues(word[end])) continue;
      piece.assign(begin > 0 ? "##" : "").append(word.substr(begin, end - begin));
      if (auto const at = ids_.find(piece); at != ids_.end()) {
        found = at->second;
        break;
      }
    }
    if (!found) {
      out.resize(before);
      return out.push_back(unknown_);
    }
    out.push_back(*found);
    begin = end;
  }
}

}  // namespace encoder

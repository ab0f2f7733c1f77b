// SPDX-License-Identifier: Apache-2.0
#include "tokenizer.hpp"

#include <algorithm>
#include <limits>
#include <optional>
#include <stdexcept>

#include "../common/utf8.hpp"
#include "unicode.hpp"

namespace llm {

using common::append_utf8, common::next_code_point;

namespace {

/// Vocabularies spell bytes as printable characters: Latin-1's printable ones as themselves, the others as U+0100 onwards.
std::optional<char> byte_of(std::uint32_t c) {
  static auto const table = [] {
    std::vector<int> t(256 + 68, -1);
    std::size_t next = 256;
    for (int b = 0; b < 256; ++b) {
      bool const printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
      t[printable ? static_cast<std::size_t>(b) : next++] = b;
    }
    return t;
  }();
  if (c >= table.size() || table[c] < 0) return std::nullopt;
  return static_cast<char>(table[c]);
}

std::string bytes_of(std::string_view spelled) {
  std::string bytes;
  while (!spelled.empty()) {
    std::uint32_t const c = next_code_point(spelled);
    if (auto const b = byte_of(c))
      bytes += *b;
    else
      append_utf8(bytes, c);
  }
  return bytes;
}

/// Splits text as GPT-2 does: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+, and gives each word to `sink`.
/// With `single_digits`, \p{N} stands alone and what is left and right of it is split on its own.
class splitter {
 public:
  splitter(std::string_view text, bool single_digits) : single_digits_(single_digits) {
    while (!text.empty()) code_.push_back(next_code_point(text));
  }

  template <class Sink>
  void split(Sink&& sink) {
    for (std::size_t begin = 0; begin < code_.size();) {
      std::size_t end = begin + 1;
      if (single_digits_ && !unicode::is_number(code_[begin]))
        while (end < code_.size() && !unicode::is_number(code_[end])) ++end;
      if (!single_digits_) end = code_.size();
      end_ = end;
      for (std::size_t at = begin; at < end;) {
        std::size_t const stop = word_end(at);
        std::string word;
        for (; at < stop; ++at) append_utf8(word, code_[at]);
        sink(word);
      }
      begin = end;
    }
  }

 private:
  enum class kind { none, space, letter, number, other };
  kind at(std::size_t i) const {
    if (i >= end_) return kind::none;
    std::uint32_t const c = code_[i];
    return unicode::is_letter(c) ? kind::letter : unicode::is_number(c) ? kind::number : unicode::is_space(c) ? kind::space : kind::other;
  }
  bool follows(std::size_t i, char const* text) const {
    for (; *text != '\0'; ++text, ++i)
      if (i >= end_ || code_[i] != static_cast<unsigned char>(*text)) return false;
    return true;
  }
  std::size_t word_end(std::size_t i) const {
    for (char const* suffix : {"'s", "'t", "'m", "'d"})
      if (follows(i, suffix)) return i + 2;
    for (char const* suffix : {"'re", "'ve", "'ll"})
      if (follows(i, suffix)) return i + 3;
    std::size_t run = code_[i] == ' ' ? i + 1 : i;
    if (kind const k = at(run); k != kind::none && k != kind::space) {
      while (at(run) == k) ++run;
      return run;
    }
    for (run = i; at(run) == kind::space;) ++run;
    return at(run) != kind::none && run - i > 1 ? run - 1 : run;  // the last space belongs to the word after it
  }

  std::vector<std::uint32_t> code_;
  std::size_t end_ = 0;
  bool single_digits_;
};

}  // namespace

tokenizer::tokenizer(tern::gguf_file const& file) {
  using text = std::string_view;
  if (auto const model = file.get<text>("tokenizer.ggml.model"); model != "gpt2")
    throw tern::error("tokenizer: tokenizer.ggml.model is " + std::string(model) + ", expected gpt2 (byte-level BPE)");
  auto const split = file.get<text>("tokenizer.ggml.pre", "default");
  single_digits_ = split == "smollm" || split == "starcoder" || split == "refact" || split == "command-r";
  if (!single_digits_ && split != "default" && split != "gpt-2")
    throw tern::error("tokenizer: tokenizer.ggml.pre is " + std::string(split) + ", expected smollm, starcoder or gpt-2");

  auto const spelled = file.get<tern::gguf_array>("tokenizer.ggml.tokens");
  auto const types = file.get<tern::gguf_array>("tokenizer.ggml.token_type");
  if (types.size() != spelled.size() || spelled.size() > std::numeric_limits<token>::max())
    throw tern::error("tokenizer: tokenizer.ggml.token_type has " + std::to_string(types.size()) + " entries, expected as many as tokens");
  pieces_.reserve(static_cast<std::size_t>(spelled.size()));  // ids_ refers to the strings: they must not move
  auto type = types.begin();
  for (auto const value : spelled) {
    token const id = size();
    int const kind = (*type++).as<int>();
    bool const is_control = kind == 3, is_user_defined = kind == 4;
    pieces_.push_back(is_control || is_user_defined ? std::string(value.as<text>()) : bytes_of(value.as<text>()));
    if (is_control) control_.push_back(id);
    if (is_user_defined) user_defined_.push_back(id);
    if (!is_control && !is_user_defined) ids_.emplace(pieces_.back(), id);
    if (pieces_.back() == "<|im_start|>") has_chat_ = true;
    if (is_control && (pieces_.back() == "<|endoftext|>" || pieces_.back() == "<|im_end|>")) ends_.push_back(id);
  }
  std::int32_t rank = 0;
  for (auto const value : file.get<tern::gguf_array>("tokenizer.ggml.merges")) {
    auto const both = value.as<text>();
    auto const space = both.find(' ', 1);
    if (space == text::npos) throw tern::error("tokenizer: merge " + std::to_string(rank) + " has no space, expected two tokens");
    auto const left = bytes_of(both.substr(0, space)), right = bytes_of(both.substr(space + 1));
    auto const l = ids_.find(left), r = ids_.find(right), result = ids_.find(left + right);
    if (l != ids_.end() && r != ids_.end() && result != ids_.end())
      merges_.try_emplace(pair(l->second, r->second), merge{rank, result->second});
    ++rank;
  }
  if (auto const* const end = file.find("tokenizer.ggml.eos_token_id")) ends_.push_back(end->as<token>());
  if (file.get<bool>("tokenizer.ggml.add_bos_token", false)) begin_ = file.get<token>("tokenizer.ggml.bos_token_id");
  if (begin_ >= size())
    throw tern::error("tokenizer: tokenizer.ggml.bos_token_id is " + std::to_string(begin_) + ", expected one of the tokens");
}

bool tokenizer::ends(token t) const { return std::find(ends_.begin(), ends_.end(), t) != ends_.end(); }

std::vector<tokenizer::token> tokenizer::encode(std::string_view text, bool special) const {
  std::vector<token> out;
  std::size_t begin = 0;
  for (std::size_t at = 0; at < text.size();) {
    token found = -1;
    auto const look = [&](std::vector<token> const& among) {
      for (token const t : among)
        if (text.substr(at).starts_with(bytes(t)) && (found < 0 || bytes(t).size() > bytes(found).size())) found = t;
    };
    look(user_defined_);
    if (special) look(control_);
    if (found < 0) {
      ++at;
      continue;
    }
    encode_text(text.substr(begin, at - begin), out);
    out.push_back(found);
    begin = at += bytes(found).size();
  }
  encode_text(text.substr(begin), out);
  return out;
}

void tokenizer::encode_text(std::string_view text, std::vector<token>& out) const {
  splitter(text, single_digits_).split([&](std::string_view word) { encode_word(word, out); });
}

/// Joins the two neighbors that were joined first when the vocabulary was made, again and again.
void tokenizer::encode_word(std::string_view word, std::vector<token>& out) const {
  if (auto const whole = ids_.find(word); whole != ids_.end() && word.size() == 1) return out.push_back(whole->second);
  std::vector<token> parts;
  for (std::size_t i = 0; i < word.size(); ++i)
    if (auto const id = ids_.find(word.substr(i, 1)); id != ids_.end()) parts.push_back(id->second);
  while (parts.size() > 1) {
    merge best{std::numeric_limits<std::int32_t>::max(), -1};
    std::size_t where = 0;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i)
      if (auto const m = merges_.find(pair(parts[i], parts[i + 1])); m != merges_.end() && m->second.rank < best.rank) {
        best = m->second;
        where = i;
      }
    if (best.result < 0) break;
    parts[where] = best.result;
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(where) + 1);
  }
  out.insert(out.end(), parts.begin(), parts.end());
}

}  // namespace llm

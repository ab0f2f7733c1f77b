// SPDX-License-Identifier: Apache-2.0
#include "collection.hpp"

#include "../common/text_file.hpp"

#include <algorithm>
#include <limits>
#include <unordered_set>

namespace encoder {

namespace {

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f'; }

/// Calls f with the text of each file.
template <class F>
void for_each_file(std::string const& files, F const& f) {
  for (std::size_t at = 0; at < files.size();) {
    std::string const path = files.substr(at, files.find(',', at) - at);
    at += path.size() + 1;
    f(common::read_text(path));
  }
}

/// Calls f with each sentence, one space between words.
template <class F>
void for_each_sentence(std::string const& text, F const& f) {
  std::string sentence;
  auto const finish = [&] {
    if (std::count(sentence.begin(), sentence.end(), ' ') >= 3) f(sentence);
    sentence.clear();
  };
  for (std::size_t at = 0; at < text.size();) {
    std::size_t const word = at;
    while (at < text.size() && !is_space(text[at])) ++at;
    if (at > word) sentence.append(sentence.empty() ? "" : " ").append(text, word, at - word);
    bool const stops = at > word && std::string_view(".!?").find(text[at - 1]) != std::string_view::npos;
    int lines = 0;
    for (; at < text.size() && is_space(text[at]); ++at) lines += text[at] == '\n';
    if (stops || lines > 1) finish();
  }
  finish();
}

}  // namespace

std::vector<std::string> sentences_of(std::string const& files) {
  std::vector<std::string> all;
  std::unordered_set<std::string> seen;
  for_each_file(files, [&](std::string const& text) {
    for_each_sentence(text, [&](std::string const& s) {
      if (seen.insert(s).second) all.push_back(s);
    });
  });
  return all;
}

std::vector<std::vector<wordpiece::token>> passages_of(std::string const& files, wordpiece const& words, std::size_t tokens) {
  std::vector<std::vector<wordpiece::token>> all;
  for_each_file(files, [&](std::string const& text) {
    auto const whole = words.encode(text, std::numeric_limits<std::size_t>::max());
    auto const inner = static_cast<std::ptrdiff_t>(tokens - 2);  // between [CLS] and [SEP]
    for (auto at = whole.begin() + 1; whole.end() - 1 - at >= inner; at += inner) {
      auto& passage = all.emplace_back(1, whole.front());
      passage.insert(passage.end(), at, at + inner);
      passage.push_back(whole.back());
    }
  });
  return all;
}

}  // namespace encoder

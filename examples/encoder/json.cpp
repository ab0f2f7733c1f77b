// SPDX-License-Identifier: Apache-2.0
#include "json.hpp"

#include "../common/utf8.hpp"

#include <tern/core/error.hpp>

#include <charconv>
#include <cmath>

namespace encoder {

/// Reads one text, from its front to its end.
class json_parser {
 public:
  json_parser(std::string const& file, std::string_view text) : file_(file), text_(text) {}

  json document() {
    json const v = value(file_, 0);
    skip_space();
    if (at_ != text_.size()) fail("the end");
    return v;
  }

 private:
  static constexpr int deepest = 64;

  [[noreturn]] void fail(char const* expectation) const {
    throw tern::error(file_ + ": byte " + std::to_string(at_) + " is not as expected: " + expectation);
  }
  void skip_space() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos) ++at_;
  }
  char peek() {
    skip_space();
    if (at_ == text_.size()) fail("more text");
    return text_[at_];
  }
  void take(char c, char const* name) {
    if (peek() != c) fail(name);
    ++at_;
  }
  bool follows(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  json value(std::string const& where, int depth) {
    if (depth == deepest) fail("at most 64 levels");
    json v;
    v.where_ = where;
    char const c = peek();
    if (c == '{')
      v.value_ = members(where, depth);
    else if (c == '[')
      v.value_ = elements(where, depth);
    else if (c == '"')
      v.value_ = string();
    else if (follows("true"))
      v.value_ = true;
    else if (follows("false"))
      v.value_ = false;
    else if (!follows("null"))
      v.value_ = number();
    return v;
  }
  json::object members(std::string const& where, int depth) {
    json::object all;
    take('{', "{");
    for (bool first = true; peek() != '}'; first = false) {
      if (!first) take(',', ", or }");
      std::string key = string();
      take(':', ":");
      json member = value(where + ": " + key, depth + 1);
      if (!all.emplace(std::move(key), std::move(member)).second) fail("each key once");
    }
    ++at_;
    return all;
  }
  json::array elements(std::string const& where, int depth) {
    json::array all;
    take('[', "[");
    for (bool first = true; peek() != ']'; first = false) {
      if (!first) take(',', ", or ]");
      all.push_back(value(where + ": " + std::to_string(all.size()), depth + 1));
    }
    ++at_;
    return all;
  }
  double number() {
    // What from_chars takes beyond JSON: inf and nan, a dot without digits on one side, leading zeros.
    std::size_t const sign = text_[at_] == '-';
    auto const digit = [&](std::size_t i) { return i < text_.size() && text_[i] >= '0' && text_[i] <= '9'; };
    if (!digit(at_ + sign) || (text_[at_ + sign] == '0' && digit(at_ + sign + 1))) fail("a value");
    double v = 0;
    auto const [end, problem] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), v);
    auto const size = static_cast<std::size_t>(end - text_.data()) - at_;
    auto const dot = text_.substr(at_, size).find('.');
    if (problem != std::errc{} || (dot != std::string_view::npos && !digit(at_ + dot + 1))) fail("a number");
    at_ += size;
    return v;
  }
  std::string string() {
    take('"', "a string");
    std::string s;
    while (at_ < text_.size() && text_[at_] != '"') {
      if (static_cast<unsigned char>(text_[at_]) < 0x20) fail("no control character in a string");
      if (text_[at_] != '\\')
        s += text_[at_++];
      else
        escape(s);
    }
    if (at_ == text_.size()) fail("the end of a string");
    ++at_;
    return s;
  }
  void escape(std::string& s) {
    constexpr std::string_view letters = "\"\\/bfnrt", meant = "\"\\/\b\f\n\r\t";
    ++at_;
    if (follows("u")) {
      std::uint32_t c = hexadecimal();
      if (c >= 0xd800 && c < 0xe000) {
        if (c >= 0xdc00 || !follows("\\u")) fail("a surrogate pair");
        std::uint32_t const low = hexadecimal();
        if (low < 0xdc00 || low > 0xdfff) fail("a surrogate pair");
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
      }
      return common::append_utf8(s, c);
    }
    std::size_t const which = at_ < text_.size() ? letters.find(text_[at_]) : std::string_view::npos;
    if (which == std::string_view::npos) fail("an escape");
    s += meant[which];
    ++at_;
  }
  std::uint32_t hexadecimal() {
    std::uint32_t c = 0;
    auto const digits = text_.substr(at_, 4);
    auto const [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), c, 16);
    if (digits.size() < 4 || problem != std::errc{} || end != digits.data() + 4) fail("four hexadecimal digits");
    at_ += 4;
    return c;
  }

  std::string const& file_;
  std::string_view text_;
  std::size_t at_ = 0;
};

json::json(std::string const& file, std::string_view text) : json(json_parser(file, text).document()) {}

json const& json::operator[](std::string_view key) const {
  object const& all = as_object();
  auto const found = all.find(key);
  if (found == all.end()) throw tern::error(where_ + ": " + std::string(key) + " is absent");
  return found->second;
}

long json::as_integer(long least, long most) const {
  double const v = as_number();
  if (!(v >= static_cast<double>(least) && v <= static_cast<double>(most)) || v != std::floor(v))
    fail("a whole number from " + std::to_string(least) + " to " + std::to_string(most));
  return static_cast<long>(v);
}

void json::fail(std::string const& expectation) const { throw tern::error(where_ + " is not as expected: " + expectation); }

}  // namespace encoder

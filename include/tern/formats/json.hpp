// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/json.hpp
/// Walks over JSON text in memory, none of it trusted: as much of JSON as headers of files need, which is objects, arrays, strings
/// and numbers that are not negative integers. Strictly RFC 8259 with UTF-8; what is wrong is a `tern::error` with its place.
///
/// Strings without escapes stay where they are. Others are decoded into memory that the caller gives: as many bytes as the text has
/// is always enough, since an escape is at least as long as what it stands for.

#include <tern/formats/file_index.hpp>

#include <cstdint>
#include <limits>

namespace tern::detail {
inline namespace TERN_ABI {

class json_reader {
 public:
  /// `text` starts at byte `offset` of the file called `file`, for messages. `room`: where escaped strings go, or null to fail there.
  json_reader(char const* file, std::string_view text, std::size_t offset, char* room)
      : file_(file), text_(text), offset_(offset), room_(room) {}

  std::size_t at() const { return at_; }
  bool ended() const { return at_ == text_.size(); }

  /// Fails with "file: byte 1234 is 44, expected `expectation`".
  [[noreturn]] TERN_COLD void fail(char const* expectation) const {
    message m;
    m << file_ << ": byte " << offset_ + at_ << " is ";
    if (ended())
      m << "the header's end";
    else
      m << static_cast<unsigned>(static_cast<unsigned char>(text_[at_]));
    (m << ", expected " << expectation).fail();
  }
  /// The next byte behind white space, or 0 at the end.
  char peek() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) ++at_;
    return ended() ? '\0' : text_[at_];
  }
  /// Passes over one byte of syntax.
  void take(char wanted, char const* name) {
    if (peek() != wanted || ended()) fail(name);
    ++at_;
  }
  /// Whether a list goes on: passes over a comma, or over `close`. `first`: before the first item, where there is no comma.
  bool more(bool first, char close, char const* expectation) {
    if (peek() == close && !ended()) {
      ++at_;
      return false;
    }
    if (first) return true;
    take(',', expectation);
    return true;
  }
  std::uint64_t number() {
    char const c = peek();
    if (c < '0' || c > '9') fail("an integer that is not negative");
    if (c == '0' && at_ + 1 < text_.size() && digit(text_[at_ + 1])) fail("a number without leading zeros");
    std::uint64_t n = 0;
    for (; at_ < text_.size() && digit(text_[at_]); ++at_) {
      auto const d = static_cast<std::uint64_t>(text_[at_] - '0');
      if (n > (largest - d) / 10) fail("a number below 2^63");
      n = 10 * n + d;
    }
    if (at_ < text_.size() && (text_[at_] == '.' || text_[at_] == 'e' || text_[at_] == 'E')) fail("an integer");
    return n;
  }
  std::string_view string() {
    take('"', "a string");
    std::size_t const begin = at_;
    while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\') character();
    if (ended()) fail("the end of a string");
    if (text_[at_] == '"') return text_.substr(begin, at_++ - begin);
    return escaped(begin);
  }

 private:
  static constexpr auto largest = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  static bool digit(char c) { return c >= '0' && c <= '9'; }

  /// Passes over one character of UTF-8 that a string may hold as it is.
  void character() {
    auto const byte = [&](std::size_t i) {
      return at_ + i < text_.size() ? static_cast<unsigned>(static_cast<unsigned char>(text_[at_ + i])) : 0u;
    };
    unsigned const c = byte(0);
    if (c < 0x20) fail("no control character in a string");
    std::size_t const size = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    if (size == 0) fail("UTF-8");
    for (std::size_t i = 1; i < size; ++i)
      if ((byte(i) & 0xc0u) != 0x80u) fail("UTF-8");
    unsigned const second = byte(1);  // overlong forms, surrogates, and what is beyond U+10FFFF
    if ((c == 0xe0 && second < 0xa0) || (c == 0xed && second > 0x9f) || (c == 0xf0 && second < 0x90) || (c == 0xf4 && second > 0x8f))
      fail("UTF-8");
    at_ += size;
  }
  /// The rest of a string from its first backslash on; its plain start is copied too.
  std::string_view escaped(std::size_t begin) {
    if (room_ == nullptr) fail("a string without escapes");
    char* const out = room_;
    for (std::size_t i = begin; i < at_; ++i) *room_++ = text_[i];
    while (at_ < text_.size() && text_[at_] != '"') {
      if (text_[at_] == '\\') {
        escape();
        continue;
      }
      std::size_t const from = at_;
      character();
      for (std::size_t i = from; i < at_; ++i) *room_++ = text_[i];
    }
    if (ended()) fail("the end of a string");
    ++at_;
    return {out, static_cast<std::size_t>(room_ - out)};
  }
  void escape() {
    constexpr std::string_view letters = "\"\\/bfnrt", meant = "\"\\/\b\f\n\r\t";
    ++at_;
    if (ended()) fail("an escape");
    if (text_[at_] != 'u') {
      std::size_t const which = letters.find(text_[at_]);
      if (which == std::string_view::npos) fail("an escape");
      ++at_;
      *room_++ = meant[which];
      return;
    }
    unsigned code = hexadecimal();
    if (code >= 0xd800 && code < 0xdc00) {
      if (text_.substr(at_, 2) != "\\u") fail("the second half of a surrogate pair");
      ++at_;
      unsigned const low = hexadecimal();
      if (low < 0xdc00 || low > 0xdfff) fail("the second half of a surrogate pair");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else if (code >= 0xdc00 && code < 0xe000) {
      fail("the first half of a surrogate pair before the second");
    }
    put(code);
  }
  /// The number behind the 'u' here.
  unsigned hexadecimal() {
    ++at_;
    unsigned code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      char const c = ended() ? '\0' : text_[at_];
      int const value = digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
      if (value < 0) fail("four hexadecimal digits");
      code = 16 * code + static_cast<unsigned>(value);
    }
    return code;
  }
  void put(unsigned code) {
    if (code < 0x80) {
      *room_++ = static_cast<char>(code);
      return;
    }
    int const more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    constexpr unsigned first[] = {0, 0xc0, 0xe0, 0xf0};
    *room_++ = static_cast<char>(first[more] | code >> (6 * more));
    for (int i = more; i-- > 0;) *room_++ = static_cast<char>(0x80u | (code >> (6 * i) & 0x3fu));
  }

  char const* file_;
  std::string_view text_;
  std::size_t offset_;
  std::size_t at_ = 0;
  char* room_;
};

}  // namespace TERN_ABI
}  // namespace tern::detail

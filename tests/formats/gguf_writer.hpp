// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/formats/gguf_writer.hpp
/// Writes GGUF files byte by byte, right ones and wrong ones, for the tests and as seeds for the fuzzer.

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

class gguf_writer {
 public:
  std::vector<unsigned char> bytes;

  template <class T>
  gguf_writer& number(T value) {
    bytes.resize(bytes.size() + sizeof value);
    std::memcpy(bytes.data() + bytes.size() - sizeof value, &value, sizeof value);
    return *this;
  }
  gguf_writer& u32(std::uint32_t value) { return number(value); }
  gguf_writer& u64(std::uint64_t value) { return number(value); }
  gguf_writer& text(std::string_view s) {
    u64(s.size());
    bytes.insert(bytes.end(), s.begin(), s.end());
    return *this;
  }
  gguf_writer& header(std::uint64_t tensors, std::uint64_t values, std::uint32_t version = 3) {
    return u32(0x46554747).u32(version).u64(tensors).u64(values);
  }
  gguf_writer& key(std::string_view name, std::uint32_t type) { return text(name).u32(type); }
  gguf_writer& tensor(std::string_view name, std::vector<std::uint64_t> const& extents, std::uint32_t type, std::uint64_t offset) {
    text(name).u32(static_cast<std::uint32_t>(extents.size()));
    for (auto const e : extents) u64(e);
    return u32(type).u64(offset);
  }
  /// Zeros up to a multiple of `alignment`, then `n` bytes that count up: the data section.
  gguf_writer& data(std::size_t n, std::size_t alignment = 32) {
    while (bytes.size() % alignment != 0) bytes.push_back(0);
    for (std::size_t i = 0; i < n; ++i) bytes.push_back(static_cast<unsigned char>(i));
    return *this;
  }
};

/// A right file with metadata of every type, nested arrays, and two tensors: f32 (2, 4) and q4_1 (2, 32).
inline gguf_writer right_gguf(std::uint32_t version = 3) {
  gguf_writer w;
  w.header(2, 15, version);
  w.key("a.u8", 0).number(std::uint8_t{200});
  w.key("a.i8", 1).number(std::int8_t{-8});
  w.key("a.u16", 2).number(std::uint16_t{60000});
  w.key("a.i16", 3).number(std::int16_t{-16});
  w.key("a.u32", 4).u32(4000000000U);
  w.key("a.i32", 5).number(std::int32_t{-32});
  w.key("a.f32", 6).number(1.5F);
  w.key("a.bool", 7).number(std::uint8_t{1});
  w.key("a.string", 8).text("text");
  w.key("a.u64", 10).u64(~std::uint64_t{0});
  w.key("a.i64", 11).number(std::int64_t{-64});
  w.key("a.f64", 12).number(2.5);
  w.key("a.strings", 9).u32(8).u64(3).text("one").text("").text("three");
  w.key("a.nested", 9).u32(9).u64(2);
  w.u32(4).u64(2).u32(7).u32(8);
  w.u32(8).u64(1).text("inner");
  w.key("general.alignment", 4).u32(64);
  w.tensor("weight", {4, 2}, 0, 64);
  w.tensor("blocks", {32, 2}, 3, 0);
  w.data(64 + 32, 64);
  return w;
}

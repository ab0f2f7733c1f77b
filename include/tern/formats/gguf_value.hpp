// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/gguf_value.hpp
/// The metadata of a GGUF file: numbers, strings and arrays, read where they lie. `gguf_file` has checked them before it
/// hands one out, so that reading one never leaves the file; what is checked here is that the caller asks for the right type.

#include <tern/formats/file_index.hpp>

#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string_view>
#include <type_traits>
#include <utility>

namespace tern {

static_assert(std::endian::native == std::endian::little, "tern: GGUF files are read in place, on little-endian machines");

/// The type of a metadata value; the numbers are GGUF's.
enum class gguf_value_type : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

namespace detail {
inline namespace TERN_ABI {

/// Bytes of a value of fixed size; 0 for strings and arrays.
constexpr std::size_t gguf_value_size(gguf_value_type type) {
  switch (type) {
    case gguf_value_type::u8:
    case gguf_value_type::i8:
    case gguf_value_type::boolean:
      return 1;
    case gguf_value_type::u16:
    case gguf_value_type::i16:
      return 2;
    case gguf_value_type::u32:
    case gguf_value_type::i32:
    case gguf_value_type::f32:
      return 4;
    case gguf_value_type::u64:
    case gguf_value_type::i64:
    case gguf_value_type::f64:
      return 8;
    case gguf_value_type::string:
    case gguf_value_type::array:
      return 0;
  }
  return 0;
}

template <class T>
T gguf_load(std::byte const* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

[[noreturn]] TERN_COLD inline void gguf_fail(char const* what, std::string_view name, char const* problem) {
  (message() << "gguf: " << what << " " << quoted(name).text << " " << problem).fail();
}
[[noreturn]] TERN_COLD inline void gguf_fail_type(std::string_view key, gguf_value_type was, char const* wanted) {
  constexpr char const* names[] = {"u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"};
  (message() << "gguf: type of " << quoted(key).text << " is " << names[static_cast<int>(was)] << ", expected " << wanted).fail();
}
/// "gguf: what "name"part is `was`, expected `expectation`", and the number that the expectation ends with, if it has one.
[[noreturn]] TERN_COLD inline void gguf_fail(char const* what, std::string_view name, char const* part, std::uint64_t was,
                                             char const* expectation, std::uint64_t bound = ~std::uint64_t{0}) {
  message m;
  m << "gguf: " << what << " " << quoted(name).text << part << " is " << was << ", expected " << expectation;
  if (bound != ~std::uint64_t{0}) m << " " << bound;
  m.fail();
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

class gguf_array;

/// One metadata value, where it lies in the file.
class gguf_value {
 public:
  gguf_value() = default;
  gguf_value(std::string_view key, gguf_value_type type, std::byte const* at) : key_(key), type_(type), at_(at) {}

  /// The key, for messages; an array's elements carry the array's.
  std::string_view key() const { return key_; }
  gguf_value_type type() const { return type_; }

  /// The value as T: an arithmetic type, `std::string_view` or `gguf_array`. Integers convert to any integer type that
  /// holds the value, f32 and f64 to any floating type; anything else is an error.
  template <class T>
  T as() const;

 private:
  template <class T, class Stored>
  T integer() const {
    Stored const stored = detail::gguf_load<Stored>(at_);
    if (!std::in_range<T>(stored))
      (detail::message() << "gguf: value of " << detail::quoted(key_).text << " is " << stored
                         << ", expected a number that fits the type asked for")
          .fail();
    return static_cast<T>(stored);
  }
  template <class T>
  T number() const {
    using type = gguf_value_type;
    if constexpr (std::same_as<T, bool>) {
      if (type_ == type::boolean) return detail::gguf_load<std::uint8_t>(at_) != 0;
    } else if constexpr (std::floating_point<T>) {
      if (type_ == type::f32) return static_cast<T>(detail::gguf_load<float>(at_));
      if (type_ == type::f64) return static_cast<T>(detail::gguf_load<double>(at_));
    } else {
      switch (type_) {
        case type::u8:
          return integer<T, std::uint8_t>();
        case type::i8:
          return integer<T, std::int8_t>();
        case type::u16:
          return integer<T, std::uint16_t>();
        case type::i16:
          return integer<T, std::int16_t>();
        case type::u32:
          return integer<T, std::uint32_t>();
        case type::i32:
          return integer<T, std::int32_t>();
        case type::u64:
          return integer<T, std::uint64_t>();
        case type::i64:
          return integer<T, std::int64_t>();
        default:
          break;
      }
    }
    detail::gguf_fail_type(key_, type_, std::same_as<T, bool> ? "bool" : std::floating_point<T> ? "f32 or f64" : "an integer");
  }

  std::string_view key_;
  gguf_value_type type_ = gguf_value_type::u8;
  std::byte const* at_ = nullptr;
};

/// A metadata array: a range of gguf_value, visited in order.
class gguf_array {
 public:
  gguf_array(std::string_view key, std::byte const* at)
      : key_(key), type_(detail::gguf_load<gguf_value_type>(at)), size_(detail::gguf_load<std::uint64_t>(at + 4)), first_(at + 12) {}

  index size() const { return static_cast<index>(size_); }
  gguf_value_type element_type() const { return type_; }

  class iterator {
   public:
    using value_type = gguf_value;
    using difference_type = index;
    gguf_value operator*() const { return {key_, type_, at_}; }
    iterator& operator++() {
      at_ = skip(type_, at_);
      --left_;
      return *this;
    }
    iterator operator++(int) {
      iterator const old = *this;
      ++*this;
      return old;
    }
    friend bool operator==(iterator const& a, iterator const& b) { return a.left_ == b.left_; }

   private:
    friend gguf_array;
    iterator(std::string_view key, gguf_value_type type, std::byte const* at, std::uint64_t left)
        : key_(key), type_(type), at_(at), left_(left) {}
    static std::byte const* skip(gguf_value_type type, std::byte const* at) {
      if (type == gguf_value_type::string) return at + 8 + detail::gguf_load<std::uint64_t>(at);
      if (type != gguf_value_type::array) return at + detail::gguf_value_size(type);
      auto const inner = detail::gguf_load<gguf_value_type>(at);
      auto const n = detail::gguf_load<std::uint64_t>(at + 4);
      at += 12;
      if (std::size_t const size = detail::gguf_value_size(inner)) return at + n * size;
      for (std::uint64_t i = 0; i < n; ++i) at = skip(inner, at);
      return at;
    }

    std::string_view key_;
    gguf_value_type type_;
    std::byte const* at_;
    std::uint64_t left_;
  };
  iterator begin() const { return {key_, type_, first_, size_}; }
  iterator end() const { return {key_, type_, nullptr, 0}; }

 private:
  std::string_view key_;
  gguf_value_type type_;
  std::uint64_t size_;
  std::byte const* first_;
};

template <class T>
T gguf_value::as() const {
  if constexpr (std::same_as<T, std::string_view>) {
    if (type_ != gguf_value_type::string) detail::gguf_fail_type(key_, type_, "string");
    return {reinterpret_cast<char const*>(at_ + 8), detail::gguf_load<std::uint64_t>(at_)};
  } else if constexpr (std::same_as<T, gguf_array>) {
    if (type_ != gguf_value_type::array) detail::gguf_fail_type(key_, type_, "array");
    return gguf_array(key_, at_);
  } else {
    static_assert(std::is_arithmetic_v<T>, "tern: a GGUF value is a number, a bool, a std::string_view or a gguf_array");
    return number<T>();
  }
}

}  // namespace TERN_ABI
}  // namespace tern

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/gguf.hpp
/// Reads GGUF files (versions 2 and 3, little-endian), the format of llama.cpp's models, where they lie in memory:
///
///     tern::gguf_file file(bytes, size);                     // mapped or read by the caller, who keeps it alive
///     auto layers = file.get<tern::index>("llama.block_count");
///     tern::gguf_tensor w = file.tensor("blk.0.attn_q.weight");
///
/// The constructor checks the whole file before a byte of it is trusted: counts against the file's size, lengths, nesting,
/// types, alignment, extents against overflow, duplicate names, and that every tensor's bytes lie inside the data section
/// and overlap no other's. What is wrong is a `tern::error` with the place, the value and the expectation. Afterwards
/// nothing can be out of bounds. A tensor whose type is unknown here is an error at once, since its size cannot be checked.
///
/// Memory: one sorted index of names; strings, arrays and tensors stay where they are. Cost: O(size of header * log).
/// Source: the GGUF specification, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

#include <tern/core/error.hpp>

#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string_view>
#include <type_traits>
#include <utility>

namespace tern {

/// How a tensor's elements are stored; the numbers are ggml's.
enum class gguf_type : std::uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q8_1 = 9,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  q8_k = 15,
  iq2_xxs = 16,
  iq2_xs = 17,
  iq3_xxs = 18,
  iq1_s = 19,
  iq4_nl = 20,
  iq3_s = 21,
  iq2_s = 22,
  iq4_xs = 23,
  i8 = 24,
  i16 = 25,
  i32 = 26,
  i64 = 27,
  f64 = 28,
  iq1_m = 29,
  bf16 = 30,
  tq1_0 = 34,
  tq2_0 = 35,
  mxfp4 = 39,
};

/// A type's name, and the elements and bytes of one block of it; `elements` is 0 for a type that is unknown here.
struct gguf_type_info {
  char const* name;
  index elements;
  index bytes;
};

constexpr gguf_type_info info(gguf_type type) {
  switch (type) {
    case gguf_type::f32: return {"F32", 1, 4};
    case gguf_type::f16: return {"F16", 1, 2};
    case gguf_type::q4_0: return {"Q4_0", 32, 18};
    case gguf_type::q4_1: return {"Q4_1", 32, 20};
    case gguf_type::q5_0: return {"Q5_0", 32, 22};
    case gguf_type::q5_1: return {"Q5_1", 32, 24};
    case gguf_type::q8_0: return {"Q8_0", 32, 34};
    case gguf_type::q8_1: return {"Q8_1", 32, 36};
    case gguf_type::q2_k: return {"Q2_K", 256, 84};
    case gguf_type::q3_k: return {"Q3_K", 256, 110};
    case gguf_type::q4_k: return {"Q4_K", 256, 144};
    case gguf_type::q5_k: return {"Q5_K", 256, 176};
    case gguf_type::q6_k: return {"Q6_K", 256, 210};
    case gguf_type::q8_k: return {"Q8_K", 256, 292};
    case gguf_type::iq2_xxs: return {"IQ2_XXS", 256, 66};
    case gguf_type::iq2_xs: return {"IQ2_XS", 256, 74};
    case gguf_type::iq3_xxs: return {"IQ3_XXS", 256, 98};
    case gguf_type::iq1_s: return {"IQ1_S", 256, 50};
    case gguf_type::iq4_nl: return {"IQ4_NL", 32, 18};
    case gguf_type::iq3_s: return {"IQ3_S", 256, 110};
    case gguf_type::iq2_s: return {"IQ2_S", 256, 82};
    case gguf_type::iq4_xs: return {"IQ4_XS", 256, 136};
    case gguf_type::i8: return {"I8", 1, 1};
    case gguf_type::i16: return {"I16", 1, 2};
    case gguf_type::i32: return {"I32", 1, 4};
    case gguf_type::i64: return {"I64", 1, 8};
    case gguf_type::f64: return {"F64", 1, 8};
    case gguf_type::iq1_m: return {"IQ1_M", 256, 56};
    case gguf_type::bf16: return {"BF16", 1, 2};
    case gguf_type::tq1_0: return {"TQ1_0", 256, 54};
    case gguf_type::tq2_0: return {"TQ2_0", 256, 66};
    case gguf_type::mxfp4: return {"MXFP4", 32, 17};
  }
  return {"unknown", 0, 0};
}

/// The type of a metadata value; the numbers are GGUF's.
enum class gguf_value_type : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

namespace detail {
inline namespace TERN_ABI {

/// Bytes of a value of fixed size; 0 for strings and arrays.
constexpr std::size_t gguf_value_size(gguf_value_type type) {
  switch (type) {
    case gguf_value_type::u8:
    case gguf_value_type::i8:
    case gguf_value_type::boolean: return 1;
    case gguf_value_type::u16:
    case gguf_value_type::i16: return 2;
    case gguf_value_type::u32:
    case gguf_value_type::i32:
    case gguf_value_type::f32: return 4;
    case gguf_value_type::u64:
    case gguf_value_type::i64:
    case gguf_value_type::f64: return 8;
    case gguf_value_type::string:
    case gguf_value_type::array: return 0;
  }
  return 0;
}

template <class T>
T gguf_load(std::byte const* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

/// Text of a file in a message: shortened, and with '?' for what does not print.
struct gguf_quoted {
  char text[60];
  explicit gguf_quoted(std::string_view s) {
    std::size_t n = 0;
    text[n++] = '"';
    for (std::size_t i = 0; i < s.size() && n + 5 < sizeof text; ++i) text[n++] = s[i] >= ' ' && s[i] <= '~' ? s[i] : '?';
    if (s.size() + 6 > sizeof text) text[n++] = '.', text[n++] = '.';
    text[n++] = '"';
    text[n] = '\0';
  }
};

[[noreturn]] TERN_COLD inline void gguf_fail(char const* what, std::string_view name, char const* problem) {
  (message() << "gguf: " << what << ' ' << gguf_quoted(name).text << ' ' << problem).fail();
}
[[noreturn]] TERN_COLD inline void gguf_fail(char const* what, std::string_view name, char const* part, std::uint64_t was,
                                             char const* expectation) {
  message m;
  m << "gguf: " << what;
  if (!name.empty()) m << " " << gguf_quoted(name).text;
  m << part << " is ";
  if (was > static_cast<std::uint64_t>(std::numeric_limits<long long>::max()))
    m << "at least 2^63";
  else
    m << was;
  (m << ", expected " << expectation).fail();
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

class gguf_array;

/// One metadata value, where it lies in the file.
class gguf_value {
 public:
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
      detail::gguf_fail("value of", key_, "", static_cast<std::uint64_t>(stored), "a number that fits the type asked for");
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
        case type::u8: return integer<T, std::uint8_t>();
        case type::i8: return integer<T, std::int8_t>();
        case type::u16: return integer<T, std::uint16_t>();
        case type::i16: return integer<T, std::int16_t>();
        case type::u32: return integer<T, std::uint32_t>();
        case type::i32: return integer<T, std::int32_t>();
        case type::u64: return integer<T, std::uint64_t>();
        case type::i64: return integer<T, std::int64_t>();
        default: break;
      }
    }
    detail::gguf_fail("type of", key_, "", static_cast<std::uint64_t>(type_), "the number of the type asked for");
  }

  std::string_view key_;
  gguf_value_type type_;
  std::byte const* at_;
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
    if (type_ != gguf_value_type::string) detail::gguf_fail("type of", key_, "", static_cast<std::uint64_t>(type_), "8 (string)");
    return {reinterpret_cast<char const*>(at_ + 8), detail::gguf_load<std::uint64_t>(at_)};
  } else if constexpr (std::same_as<T, gguf_array>) {
    if (type_ != gguf_value_type::array) detail::gguf_fail("type of", key_, "", static_cast<std::uint64_t>(type_), "9 (array)");
    return gguf_array(key_, at_);
  } else {
    static_assert(std::is_arithmetic_v<T>, "tern: a GGUF value is a number, a bool, a std::string_view or a gguf_array");
    return number<T>();
  }
}

/// A tensor of the file. Extents are GGUF's: the contiguous one first, and 1 beyond the rank.
struct gguf_tensor {
  std::string_view name;
  gguf_type type;
  int rank;
  index extents[4];
  std::byte const* data;
  std::size_t bytes;

  /// The contiguous extent: what a row of a weight matrix is multiplied with.
  index columns() const { return extents[0]; }
  index rows() const { return extents[1] * extents[2] * extents[3]; }

  /// The elements as plain numbers (float, f16, std::int32_t...), which must be how the tensor is stored.
  template <class T>
  T const* elements(gguf_type stored) const {
    if (type != stored) detail::gguf_fail("tensor", name, ".type", static_cast<std::uint64_t>(type), info(stored).name);
    if (reinterpret_cast<std::uintptr_t>(data) % alignof(T) != 0)
      detail::gguf_fail("tensor", name, "does not lie at a multiple of its element's size: the file must be mapped or read to an aligned address");
    return reinterpret_cast<T const*>(data);
  }
};

}  // namespace TERN_ABI
}  // namespace tern

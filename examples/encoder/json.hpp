// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/encoder/json.hpp
/// JSON text as a tree. The text is checked as RFC 8259 has it, with UTF-8 taken as it is; what is wrong is a `tern::error` with its
/// place, and so is a value that is absent or of another type than asked for.

#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace encoder {

class json {
 public:
  using array = std::vector<json>;
  using object = std::map<std::string, json, std::less<>>;

  /// `file` is named in messages.
  json(std::string const& file, std::string_view text);

  /// The value of an object's key.
  json const& operator[](std::string_view key) const;
  bool has(std::string_view key) const { return as_object().contains(key); }
  object const& as_object() const { return get<object>("an object"); }
  array const& as_array() const { return get<array>("an array"); }
  std::string const& as_string() const { return get<std::string>("a string"); }
  double as_number() const { return get<double>("a number"); }
  bool as_bool() const { return get<bool>("true or false"); }
  /// A whole number from `least` to `most`.
  long as_integer(long least, long most) const;

 private:
  friend class json_parser;
  json() = default;
  template <class T>
  T const& get(char const* expectation) const {
    if (auto const* const v = std::get_if<T>(&value_)) return *v;
    fail(expectation);
  }
  [[noreturn]] void fail(std::string const& expectation) const;

  std::string where_;  ///< the file and the keys that lead here
  std::variant<std::nullptr_t, bool, double, std::string, array, object> value_;
};

}  // namespace encoder

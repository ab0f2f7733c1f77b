// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/file_index.hpp
/// What the readers of files share: names in messages, and an index of names that is sorted and searched in place.

#include <tern/core/error.hpp>
#include <tern/core/heap_sort.hpp>

#include <string_view>

namespace tern::detail {
inline namespace TERN_ABI {

/// Text of a file in a message: shortened, and with '?' for what does not print.
struct quoted {
  char text[60];
  explicit quoted(std::string_view s) {
    std::size_t n = 0;
    text[n++] = '"';
    for (std::size_t i = 0; i < s.size() && n + 5 < sizeof text; ++i) text[n++] = s[i] >= ' ' && s[i] <= '~' ? s[i] : '?';
    if (s.size() + 6 > sizeof text) text[n++] = '.', text[n++] = '.';
    text[n++] = '"';
    text[n] = '\0';
  }
};

/// Sorts by name and fails with "file: what "name" is there twice, expected once".
template <class T, class Name>
void sort_by_name(T* items, index n, Name name, char const* file, char const* what) {
  heap_sort(items, n, [&](T const& a, T const& b) { return name(a) < name(b); });
  for (index i = 1; i < n; ++i)
    if (name(items[i - 1]) == name(items[i]))
      (message() << file << ": " << what << " " << quoted(name(items[i])).text << " is there twice, expected once").fail();
}
/// The item of that name, or nullptr.
template <class T, class Name>
T const* find_name(T const* items, index n, std::string_view wanted, Name name) {
  index begin = 0;
  for (index end = n; begin < end;) {
    index const middle = begin + (end - begin) / 2;
    if (name(items[middle]) < wanted)
      begin = middle + 1;
    else
      end = middle;
  }
  return begin < n && name(items[begin]) == wanted ? items + begin : nullptr;
}

}  // namespace TERN_ABI
}  // namespace tern::detail

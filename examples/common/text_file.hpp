// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/common/text_file.hpp

#include <cerrno>
#include <fstream>
#include <iterator>
#include <string>
#include <system_error>

namespace common {

/// All of a file.
inline std::string read_text(std::string const& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file) throw std::system_error(errno != 0 ? errno : EIO, std::generic_category(), path);
  return text;
}

}  // namespace common

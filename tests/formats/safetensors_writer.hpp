// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file tests/formats/safetensors_writer.hpp
/// Makes safetensors files, right and wrong ones, for tests and for the fuzzer's first inputs.

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

/// The bytes of a file with this header (padded to 8 bytes as writers do) and this data.
inline std::vector<unsigned char> safetensors_bytes(std::string header, std::vector<unsigned char> const& data) {
  while (header.size() % 8 != 0) header += ' ';
  std::uint64_t const size = header.size();
  std::vector<unsigned char> bytes(8 + header.size() + data.size());
  std::memcpy(bytes.data(), &size, 8);
  std::memcpy(bytes.data() + 8, header.data(), header.size());
  if (!data.empty()) std::memcpy(bytes.data() + 8 + header.size(), data.data(), data.size());
  return bytes;
}

/// A file that grows by tensors.
struct safetensors_writer {
  std::string header;
  std::vector<unsigned char> data;

  /// `shape` as JSON has it: "2,3".
  template <class T>
  safetensors_writer& tensor(std::string_view name, std::string_view type, std::string_view shape, std::vector<T> const& elements) {
    std::size_t const begin = data.size(), bytes = elements.size() * sizeof(T);
    data.resize(begin + bytes);
    if (bytes != 0) std::memcpy(data.data() + begin, elements.data(), bytes);
    header += header.empty() ? "{" : ",";
    header += "\"" + std::string(name) + "\":{\"dtype\":\"" + std::string(type) + "\",\"shape\":[" + std::string(shape) +
              "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(data.size()) + "]}";
    return *this;
  }
  std::vector<unsigned char> bytes() const { return safetensors_bytes((header.empty() ? "{" : header) + "}", data); }
};

/// A right file with metadata, escapes, an empty tensor, a scalar, and types of 4 to 64 bits.
inline std::vector<unsigned char> right_safetensors() {
  return safetensors_bytes(
      R"({"__metadata__":{"format":"pt","q\u0075ote\"d":"\ud83d\ude00\n\u00e9\u20ac"},)"
      R"( "b.weight" : {"shape":[2,3],"dtype":"F32","data_offsets":[0,24]},)"
      R"("a\/h":{"dtype":"BF16","shape":[2],"data_offsets":[24,28]},"empty":{"dtype":"I64","shape":[0,7],"data_offsets":[28,28]},)"
      R"("scalar":{"dtype":"U8","shape":[],"data_offsets":[28,29]},"four":{"dtype":"F4","shape":[6],"data_offsets":[29,32]}})",
      {0, 0, 128, 63, 0, 0, 0, 64, 0, 0, 64, 64, 0, 0, 128, 64, 0, 0, 160, 64, 0, 0, 192, 64, 128, 63, 0, 192, 7, 1, 2, 3});
}

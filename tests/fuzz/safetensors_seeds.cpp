// SPDX-License-Identifier: Apache-2.0
// Writes the fuzzer's first inputs into a folder: files that are right, and headers that are wrong in ways that chance is slow to find.

#include <fstream>
#include <string>

#include "../formats/safetensors_writer.hpp"

int main(int, char** arguments) {
  int count = 0;
  auto const write = [&](std::vector<unsigned char> const& bytes) {
    std::ofstream file(std::string(arguments[1]) + "/seed" + std::to_string(count++), std::ios::binary);
    file.write(reinterpret_cast<char const*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  };
  write(right_safetensors());
  write(safetensors_bytes("{}", {}));
  for (auto const* type : {"BOOL", "F4", "F6_E2M3", "F8_E4M3", "U8", "I16", "BF16", "I32", "F64", "C64"})
    write(safetensors_writer().tensor("t", type, "2,2", std::vector<std::uint8_t>(8)).bytes());
  write(safetensors_bytes(R"({"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,8]}})", std::vector<unsigned char>(8)));
  write(safetensors_bytes(R"({"__metadata__":{"k":"\ud83d\ude00\u00e9"}})", {}));
}

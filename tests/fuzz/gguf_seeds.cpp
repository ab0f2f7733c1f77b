// SPDX-License-Identifier: Apache-2.0
// Writes the fuzzer's first inputs into a folder: files that are right, and files that are wrong in ways that chance is slow to find.

#include <fstream>
#include <string>

#include "../formats/gguf_writer.hpp"

int main(int, char** arguments) {
  int count = 0;
  auto const write = [&](gguf_writer const& w) {
    std::ofstream file(std::string(arguments[1]) + "/seed" + std::to_string(count++), std::ios::binary);
    file.write(reinterpret_cast<char const*>(w.bytes.data()), static_cast<std::streamsize>(w.bytes.size()));
  };
  write(right_gguf(2));
  write(right_gguf(3));
  write(gguf_writer().header(0, 0));
  for (std::uint32_t const type : {0U, 1U, 2U, 3U, 6U, 7U, 8U, 12U, 14U, 30U, 39U})
    write(gguf_writer().header(1, 0).tensor("t", {256, 1}, type, 0).data(1024));
  write(gguf_writer().header(2, 0).tensor("a", {16}, 0, 0).tensor("b", {16}, 0, 32).data(96));
  write(gguf_writer().header(1, 0).tensor("t", {std::uint64_t{1} << 32, std::uint64_t{1} << 31}, 3, 0).data(64));
  gguf_writer nested;
  nested.header(0, 1).key("k", 9).u32(9).u64(2);
  for (int i = 0; i < 6; ++i) nested.u32(9).u64(1);
  write(nested.u32(8).u64(~std::uint64_t{0}));
}

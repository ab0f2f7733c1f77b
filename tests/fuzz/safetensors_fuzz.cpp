// SPDX-License-Identifier: Apache-2.0
// Any bytes are either a safetensors file, all of which can be read, or a tern::error. For libFuzzer: tests/fuzz/run.sh.

#include <tern/formats/safetensors.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>

namespace {
unsigned sum = 0;  // of all that was read, so that reading is not optimized away

void visit(std::string_view text) {
  for (char const c : text) sum += static_cast<unsigned char>(c);
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* bytes, std::size_t size) {
  // An allocation of this size alone, so that the sanitizer sees the first byte too many.
  auto const exact = std::make_unique<std::uint8_t[]>(size);
  for (std::size_t i = 0; i < size; ++i) exact[i] = bytes[i];
  try {
    tern::safetensors_file const file(exact.get(), size);
    for (auto const& value : file.metadata()) {
      visit(value.value);
      if (file.metadata(value.key, {}) != value.value) __builtin_trap();
    }
    for (auto const& tensor : file.tensors()) {
      if (file.find_tensor(tensor.name) != &tensor) __builtin_trap();
      for (std::size_t i = 0; i < tensor.bytes; ++i) sum += static_cast<unsigned>(tensor.data[i]);
    }
  } catch (tern::error const&) {
  }
  return 0;
}

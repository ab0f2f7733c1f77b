// SPDX-License-Identifier: Apache-2.0
// Any bytes are either a GGUF file, all of which can be read, or a tern::error. For libFuzzer: tests/fuzz/run.sh.

#include <tern/formats/gguf.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>

namespace {

unsigned sum = 0;  // of all that was read, so that reading is not optimized away

void visit(tern::gguf_value const& value) {
  switch (value.type()) {
    case tern::gguf_value_type::string:
      for (char const c : value.as<std::string_view>()) sum += static_cast<unsigned char>(c);
      break;
    case tern::gguf_value_type::array:
      for (auto const inner : value.as<tern::gguf_array>()) visit(inner);
      break;
    case tern::gguf_value_type::boolean:
      sum += value.as<bool>();
      break;
    case tern::gguf_value_type::f32:
    case tern::gguf_value_type::f64:
      sum += value.as<double>() > 0;
      break;
    case tern::gguf_value_type::u64:
      sum += static_cast<unsigned>(value.as<std::uint64_t>());
      break;
    default:
      sum += static_cast<unsigned>(value.as<std::int64_t>());
  }
}

void visit(tern::gguf_tensor const& tensor) {
  sum += static_cast<unsigned>(tensor.data[0]) + static_cast<unsigned>(tensor.data[tensor.bytes - 1]);
  if (tern::info(static_cast<tern::weight_type>(tensor.type)).elements == 0) return;
  tern::block_matrix const m = tensor;
  sum += *m.row(0) + *(m.row(m.rows) - 1);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* bytes, std::size_t size) {
  auto const aligned = std::make_unique<std::max_align_t[]>(size / sizeof(std::max_align_t) + 1);
  // At the end of the allocation, so that the sanitizer sees the first byte too many; GGUF's alignment is from the file's start.
  auto* const end = reinterpret_cast<std::uint8_t*>(aligned.get() + size / sizeof(std::max_align_t) + 1);
  std::uint8_t* const file_bytes = size % 16 == 0 ? end - size : reinterpret_cast<std::uint8_t*>(aligned.get());
  for (std::size_t i = 0; i < size; ++i) file_bytes[i] = bytes[i];
  try {
    tern::gguf_file const file(file_bytes, size);
    for (auto const& value : file.metadata()) {
      if (file.find(value.key()) != &value) __builtin_trap();
      visit(value);
    }
    for (auto const& tensor : file.tensors()) {
      if (file.find_tensor(tensor.name) != &tensor) __builtin_trap();
      visit(tensor);
    }
  } catch (tern::error const&) {
  }
  return 0;
}

// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/gguf_tensor.hpp
/// A tensor of a GGUF file, and how its elements are stored.

#include <tern/formats/block_matrix.hpp>
#include <tern/formats/gguf_value.hpp>

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

/// The block of a type: a weight_type's, or that of a type that is only stored.
TERN_INLINE constexpr weight_info info(gguf_type type) {
  switch (type) {
    case gguf_type::q8_1:
      return {"q8_1", 32, 36, 2};
    case gguf_type::q8_k:
      return {"q8_k", 256, 292, 4};
    case gguf_type::iq2_xxs:
      return {"iq2_xxs", 256, 66, 2};
    case gguf_type::iq2_xs:
      return {"iq2_xs", 256, 74, 2};
    case gguf_type::iq3_xxs:
      return {"iq3_xxs", 256, 98, 2};
    case gguf_type::iq1_s:
      return {"iq1_s", 256, 50, 2};
    case gguf_type::iq3_s:
      return {"iq3_s", 256, 110, 2};
    case gguf_type::iq2_s:
      return {"iq2_s", 256, 82, 2};
    case gguf_type::i8:
      return {"i8", 1, 1, 1};
    case gguf_type::i16:
      return {"i16", 1, 2, 2};
    case gguf_type::i32:
      return {"i32", 1, 4, 4};
    case gguf_type::i64:
      return {"i64", 1, 8, 8};
    case gguf_type::f64:
      return {"f64", 1, 8, 8};
    case gguf_type::iq1_m:
      return {"iq1_m", 256, 56, 2};
    default:
      return info(static_cast<weight_type>(type));
  }
}

inline namespace TERN_ABI {

/// A tensor of the file. Extents are GGUF's: the contiguous one first, and 1 beyond the rank.
struct gguf_tensor {
  std::string_view name;
  gguf_type type = gguf_type::f32;
  int rank = 0;
  index extents[4] = {1, 1, 1, 1};
  std::byte const* data = nullptr;
  std::uint64_t bytes = 0;
  std::uint64_t offset = 0;  // of data, in the file's data section

  /// The contiguous extent: what a row of a weight matrix is multiplied with.
  index columns() const { return extents[0]; }
  index rows() const { return extents[1] * extents[2] * extents[3]; }

  /// The tensor as a weight matrix, used where it lies. Fails for a type that tern has no kernels for.
  operator block_matrix() const {
    auto const stored = static_cast<weight_type>(type);
    if (tern::info(stored).elements == 0)
      detail::gguf_fail("tensor", name, ".type", static_cast<std::uint64_t>(type), "one of tern::weight_type");
    return block_matrix(data, stored, rows(), columns());
  }
  /// The elements as plain numbers (float, f16, std::int32_t...), which must be how the tensor is stored.
  template <class T>
  T const* elements(gguf_type stored) const {
    if (type != stored) detail::gguf_fail("tensor", name, ".type", static_cast<std::uint64_t>(type), info(stored).name);
    if (reinterpret_cast<std::uintptr_t>(data) % alignof(T) != 0)
      detail::gguf_fail("tensor", name,
                        "does not lie at a multiple of its element's size: the file must be mapped or read to an aligned address");
    return reinterpret_cast<T const*>(data);
  }
};

}  // namespace TERN_ABI
}  // namespace tern

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

/// A type's name, and the elements and bytes of one block of it; `elements` is 0 for a type that is unknown here.
struct gguf_type_info {
  char const* name;
  index elements;
  index bytes;
};

/// The block of a type.
TERN_INLINE constexpr gguf_type_info info(gguf_type type) {
  switch (type) {
    case gguf_type::f32:
      return {"F32", 1, 4};
    case gguf_type::f16:
      return {"F16", 1, 2};
    case gguf_type::q4_0:
      return {"Q4_0", 32, 18};
    case gguf_type::q4_1:
      return {"Q4_1", 32, 20};
    case gguf_type::q5_0:
      return {"Q5_0", 32, 22};
    case gguf_type::q5_1:
      return {"Q5_1", 32, 24};
    case gguf_type::q8_0:
      return {"Q8_0", 32, 34};
    case gguf_type::q8_1:
      return {"Q8_1", 32, 36};
    case gguf_type::q2_k:
      return {"Q2_K", 256, 84};
    case gguf_type::q3_k:
      return {"Q3_K", 256, 110};
    case gguf_type::q4_k:
      return {"Q4_K", 256, 144};
    case gguf_type::q5_k:
      return {"Q5_K", 256, 176};
    case gguf_type::q6_k:
      return {"Q6_K", 256, 210};
    case gguf_type::q8_k:
      return {"Q8_K", 256, 292};
    case gguf_type::iq2_xxs:
      return {"IQ2_XXS", 256, 66};
    case gguf_type::iq2_xs:
      return {"IQ2_XS", 256, 74};
    case gguf_type::iq3_xxs:
      return {"IQ3_XXS", 256, 98};
    case gguf_type::iq1_s:
      return {"IQ1_S", 256, 50};
    case gguf_type::iq4_nl:
      return {"IQ4_NL", 32, 18};
    case gguf_type::iq3_s:
      return {"IQ3_S", 256, 110};
    case gguf_type::iq2_s:
      return {"IQ2_S", 256, 82};
    case gguf_type::iq4_xs:
      return {"IQ4_XS", 256, 136};
    case gguf_type::i8:
      return {"I8", 1, 1};
    case gguf_type::i16:
      return {"I16", 1, 2};
    case gguf_type::i32:
      return {"I32", 1, 4};
    case gguf_type::i64:
      return {"I64", 1, 8};
    case gguf_type::f64:
      return {"F64", 1, 8};
    case gguf_type::iq1_m:
      return {"IQ1_M", 256, 56};
    case gguf_type::bf16:
      return {"BF16", 1, 2};
    case gguf_type::tq1_0:
      return {"TQ1_0", 256, 54};
    case gguf_type::tq2_0:
      return {"TQ2_0", 256, 66};
    case gguf_type::mxfp4:
      return {"MXFP4", 32, 17};
  }
  return {"unknown", 0, 0};
}
// A tensor's type is its weight_type's number, and both tables agree about the block.
static_assert([] {
  for (std::uint32_t t = 0; t <= static_cast<std::uint32_t>(gguf_type::mxfp4); ++t) {
    weight_info const weight = info(static_cast<weight_type>(t));
    gguf_type_info const stored = info(static_cast<gguf_type>(t));
    if (weight.elements != 0 && (weight.elements != stored.elements || weight.bytes != stored.bytes)) return false;
  }
  return true;
}());

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

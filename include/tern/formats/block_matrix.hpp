// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/block_matrix.hpp
/// A matrix whose rows are made of blocks, used where it lies: in a mapped GGUF file, or a plain array.
///
///     type   elements  bytes  bits each  an element's value
///     f32       1        4      32       itself
///     f16       1        2      16       itself
///     bf16      1        2      16       itself
///     q4_0     32       18     4.5       d (q - 8)
///     q4_1     32       20     5         d q + m
///     q5_0     32       22     5.5       d (q - 16)
///     q5_1     32       24     6         d q + m
///     q8_0     32       34     8.5       d q
///     q2_k    256       84     2.625     (d s) q - (e t)       s, t: four bits for each 16 elements
///     q3_k    256      110     3.4375    (d s) (q - 4)         s: six bits, with their sign, for each 16 elements
///     q4_k    256      144     4.5       (d s) q - (e t)       s, t: six bits for each 32 elements
///     q5_k    256      176     5.5       (d s) q - (e t)       s, t: six bits for each 32 elements
///     q6_k    256      210     6.5625    (d s) (q - 32)        s: eight bits, with their sign, for each 16 elements
///     iq4_nl   32       18     4.5       d v[q]                v: a fixed table of 16 values
///     iq4_xs  256      136     4.25      (d s) v[q]            s: six bits, with their sign, for each 32 elements
///     tq1_0   256       54     1.6875    d (q - 1)             q: 0, 1 or 2, five to a byte
///     tq2_0   256       66     2.0625    d (q - 1)             q: 0, 1 or 2, four to a byte
///     mxfp4    32       17     4.25      2^e v[q]              v: the numbers of one bit of fraction and two of exponent
///
/// The headers beside this one hold each format's layout, decoding and encoding.

#include <tern/core/error.hpp>
#include <tern/core/float16.hpp>
#include <tern/core/tensor_view.hpp>

#include <cstdint>
#include <type_traits>

namespace tern {

/// How elements are stored; the numbers are those of GGUF files.
enum class weight_type : std::uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  iq4_nl = 20,
  iq4_xs = 23,
  bf16 = 30,
  tq1_0 = 34,
  tq2_0 = 35,
  mxfp4 = 39
};

/// A format's name, and the elements, bytes and alignment of a block; `elements` is 0 for a number that is no format.
struct weight_info {
  char const* name;
  index elements;
  index bytes;
  index alignment;
};

/// The block of a type.
TERN_INLINE constexpr weight_info info(weight_type type) {
  switch (type) {
    case weight_type::f32:
      return {"f32", 1, 4, 4};
    case weight_type::f16:
      return {"f16", 1, 2, 2};
    case weight_type::bf16:
      return {"bf16", 1, 2, 2};
    case weight_type::q4_0:
      return {"q4_0", 32, 18, 2};
    case weight_type::q4_1:
      return {"q4_1", 32, 20, 2};
    case weight_type::q5_0:
      return {"q5_0", 32, 22, 2};
    case weight_type::q5_1:
      return {"q5_1", 32, 24, 2};
    case weight_type::q8_0:
      return {"q8_0", 32, 34, 2};
    case weight_type::q2_k:
      return {"q2_k", 256, 84, 2};
    case weight_type::q3_k:
      return {"q3_k", 256, 110, 2};
    case weight_type::q4_k:
      return {"q4_k", 256, 144, 2};
    case weight_type::q5_k:
      return {"q5_k", 256, 176, 2};
    case weight_type::q6_k:
      return {"q6_k", 256, 210, 2};
    case weight_type::iq4_nl:
      return {"iq4_nl", 32, 18, 2};
    case weight_type::iq4_xs:
      return {"iq4_xs", 256, 136, 2};
    case weight_type::tq1_0:
      return {"tq1_0", 256, 54, 2};
    case weight_type::tq2_0:
      return {"tq2_0", 256, 66, 2};
    case weight_type::mxfp4:
      return {"mxfp4", 32, 17, 1};
  }
  return {"unknown", 0, 0, 1};
}

namespace detail {
template <float_storage T>
inline constexpr weight_type weight_type_of = std::is_same_v<std::remove_const_t<T>, float> ? weight_type::f32
                                              : std::is_same_v<std::remove_const_t<T>, f16> ? weight_type::f16
                                                                                            : weight_type::bf16;
}  // namespace detail

/// A read-only matrix (rows, columns) that somebody else owns. Rows start `row_bytes` apart.
struct block_matrix {
  void const* data = nullptr;
  weight_type type = weight_type::f32;
  index rows = 0;
  index columns = 0;
  index row_bytes = 0;

  TERN_INLINE block_matrix() = default;
  /// Rows without gaps, as files have them. Fails if the type is unknown, a row is no whole number of blocks, or `data` is not
  /// aligned to the format's 1, 2 or 4 bytes. That `data` holds rows * row_bytes bytes is the caller's word.
  TERN_INLINE block_matrix(void const* d, weight_type t, index r, index c) : data(d), type(t), rows(r), columns(c) {
    weight_info const format = info(t);
    detail::expect(format.elements != 0, "block_matrix", "type", static_cast<index>(t), "one of tern::weight_type");
    detail::expect(r >= 0, "block_matrix", "rows", r, "at least 0");
    detail::expect(c >= 0, "block_matrix", "columns", c, "at least 0");
    detail::expect(c % format.elements == 0, "block_matrix", "columns", c,
                   format.elements == 32 ? "a multiple of the format's 32" : "a multiple of the format's 256");
    auto const misaligned = static_cast<index>(reinterpret_cast<std::uintptr_t>(d) % static_cast<std::uintptr_t>(format.alignment));
    detail::expect(misaligned == 0, "block_matrix", "data's misalignment", misaligned, "0");
    row_bytes = c / format.elements * format.bytes;
  }
  /// A view of f32, f16 or bf16 whose rows are contiguous and any distance apart.
  template <float_storage T>
  TERN_INLINE block_matrix(tensor_view<T, 2> const& v)
      : data(v.data()),
        type(detail::weight_type_of<T>),
        rows(v.extent(0)),
        columns(v.extent(1)),
        row_bytes(v.stride(0) * static_cast<index>(sizeof(T))) {
    detail::expect(v.extent(1) <= 1 || v.stride(1) == 1, "block_matrix", "view.stride(1)", v.stride(1), "1");
  }

  /// Where row i starts.
  TERN_INLINE std::uint8_t const* row(index i) const { return static_cast<std::uint8_t const*>(data) + i * row_bytes; }
};

}  // namespace tern

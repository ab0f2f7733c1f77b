// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file formats/additive_codebook.hpp
/// Eight weights at a time are a sum of vectors, one from each of M codebooks, times a scale for the row:
///
///     w[i, 8 j .. 8 j + 7] = scale_i (C_0[code_{i,j,0}] + ... + C_{M-1}[code_{i,j,M-1}])       added in order of m, each step rounded to
///     f32
///
///     codes      (n, k / 8, M)   uint8 or uint16 (the bits of the int8 and int16 that AQLM files have)
///     codebooks  (M, K, 8)       f32 or f16; K = 256 or 65536, or less: codes are then checked
///     scales     (n)             f32 or f16
///
///     2 x 8     codes of 8 bits,  M = 2    2 bits an element, codebooks of 16 KiB (f32)
///     1 x 16    codes of 16 bits, M = 1    2 bits an element, codebook of 1 MiB (f16)
///
/// Matmul decodes a chunk of rows and multiplies. For one row of x, 2^bits M k / 8 products C_m[c] . x_j in tables, then gathered by
/// code, cost as much as 2^bits rows to prepare: measured with 2 x 8 on one thread with AVX-512, they take 1.2 times as long
/// as matmul for 1024 rows and 0.63 for 8192 (f16 codebooks: 3 and 0.8). No function of its own is made for that.
///
/// quantize/additive_codebook_fit.hpp makes codes and codebooks. Sources: "Extreme Compression of Large Language Models via Additive
/// Quantization" (AQLM) and "PV-Tuning: Beyond Straight-Through Estimation for Extreme LLM Compression", from knowledge; shapes and
/// types of files after public code.

#include <tern/core/error.hpp>
#include <tern/core/tensor_view.hpp>
#include <tern/simd/convert.hpp>

#include <cstdint>
#include <type_traits>

namespace tern::formats {
inline namespace TERN_ABI {

/// A code that names a vector of a codebook.
template <class C>
concept codebook_code = std::is_same_v<std::remove_const_t<C>, std::uint8_t> || std::is_same_v<std::remove_const_t<C>, std::uint16_t>;

/// Weights (rows, columns) of additive codebooks, owned by somebody else.
template <codebook_code Code, float_storage T = float, float_storage Scale = float>
class additive_codebook_weights {
 public:
  index rows, columns;

  /// Fails if extents disagree, codes or vectors have gaps, or a code is not less than K.
  TERN_INLINE additive_codebook_weights(tensor_view<Code const, 3> const& codes, tensor_view<T const, 3> const& codebooks,
                                        tensor_view<Scale const, 1> const& scales)
      : rows(codes.extent(0)), columns(8 * codes.extent(1)), codes_(codes), codebooks_(codebooks), scales_(scales) {
    char const* const op = "additive_codebook_weights";
    constexpr index names = index{1} << 8 * sizeof(Code);
    tern::detail::expect_equal(op, "codebooks.extent(0)", codebooks.extent(0), "codes.extent(2)", codes.extent(2));
    tern::detail::expect(codes.extent(2) >= 1, op, "codes.extent(2)", codes.extent(2), "at least 1");
    tern::detail::expect_equal(op, "codebooks.extent(2)", codebooks.extent(2), "the elements of a vector", 8);
    tern::detail::expect(codebooks.is_contiguous(), op, "codebooks.stride(1)", codebooks.stride(1), "8: codebooks without gaps");
    tern::detail::expect(codes.stride(2) == 1 || codes.extent(2) == 1, op, "codes.stride(2)", codes.stride(2), "1");
    tern::detail::expect_equal(op, "scales.extent(0)", scales.extent(0), "codes.extent(0)", rows);
    tern::detail::expect(codes.size() == 0 || (codes.data() && codebooks.data() && scales.data()), op, "data", 0, "not null");
    if (codebooks.extent(1) < names) expect_codes(op);
  }

  /// Columns k0 to k1 of a row; both are multiples of 8.
  TERN_INLINE void decode(index row, index k0, index k1, float* TERN_RESTRICT out) const {
    if (codebooks_.extent(0) == 1) return decode_books<1>(row, k0, k1, out);
    if (codebooks_.extent(0) == 2) return decode_books<2>(row, k0, k1, out);
    decode_books<0>(row, k0, k1, out);
  }

 private:
  /// Books: how many there are, 0 where that is not known before.
  template <index Books>
  TERN_INLINE void decode_books(index row, index k0, index k1, float* TERN_RESTRICT out) const {
    constexpr index width = simd::lanes < 8 ? simd::lanes : 8;
    float const scale = scales_[row];
    index const books = Books > 0 ? Books : codebooks_.extent(0), book = codebooks_.extent(1) * 8, stride = codes_.stride(1);
    Code const* code = codes_.data() + row * codes_.stride(0) + k0 / 8 * stride;
    for (index k = k0; k < k1; k += 8, code += stride, out += 8)
      for (index e = 0; e < 8; e += width) {
        T const* const vectors = codebooks_.data() + e;
        simd::pack<float> sum = simd::load_n(vectors + 8 * index{code[0]}, width);
        for (index m = 1; m < books; ++m) sum += simd::load_n(vectors + m * book + 8 * index{code[m]}, width);
        simd::store_n(out + e, sum * scale, width);
      }
  }
  TERN_INLINE void expect_codes(char const* op) const {
    for (index i = 0; i < rows; ++i)
      for (index j = 0; j < codes_.extent(1); ++j)
        for (index m = 0; m < codes_.extent(2); ++m)
          tern::detail::expect(codes_(i, j, m) < codebooks_.extent(1), op, "a code", codes_(i, j, m), "less than codebooks.extent(1)");
  }

  tensor_view<Code const, 3> codes_;
  tensor_view<T const, 3> codebooks_;
  tensor_view<Scale const, 1> scales_;
};

}  // namespace TERN_ABI
}  // namespace tern::formats
